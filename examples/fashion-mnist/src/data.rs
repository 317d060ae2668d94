//! Fashion-MNIST from gzipped IDX files, on the device.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use flate2::read::GzDecoder;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Width and height of an image.
pub const SIDE: usize = 28;

/// Images with labels, as bytes.
pub struct Dataset {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// Images `[batch, 1, 28, 28]` in 0..=1, and their classes `[batch]`.
#[derive(Clone)]
pub struct Batch {
    /// The images.
    pub images: Tensor<4>,
    /// The classes, 0 to 9.
    pub labels: Tensor<1, Int>,
}

impl Dataset {
    /// Reads `{name}-images-idx3-ubyte.gz` and `{name}-labels-idx1-ubyte.gz`; `name` is `train` or `test`.
    pub fn read(folder: &Path, name: &str) -> std::io::Result<Self> {
        let pixels = read_idx(&folder.join(format!("{name}-images-idx3-ubyte.gz")), 3)?;
        let labels = read_idx(&folder.join(format!("{name}-labels-idx1-ubyte.gz")), 1)?;
        assert_eq!(pixels.len(), labels.len() * SIDE * SIDE, "every image has a label");
        Ok(Self { pixels, labels })
    }

    /// The first so many images, or all if there are fewer.
    pub fn first(mut self, images: usize) -> Self {
        self.labels.truncate(images);
        self.pixels.truncate(self.labels.len() * SIDE * SIDE);
        self
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// All images in order.
    pub fn batches(&self, size: usize, device: &Device) -> Vec<Batch> {
        let order: Vec<usize> = (0..self.len()).collect();
        order.chunks(size).map(|indices| self.batch(indices, device)).collect()
    }

    /// All images in a random order; the last batch is dropped if it is not full.
    pub fn shuffled(&self, size: usize, seed: u64, device: &Device) -> impl ExactSizeIterator<Item = Batch> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        (0..self.len() / size).map(move |i| self.batch(&order[i * size..(i + 1) * size], device))
    }

    fn batch(&self, indices: &[usize], device: &Device) -> Batch {
        let area = SIDE * SIDE;
        let image = |&i: &usize| self.pixels[i * area..(i + 1) * area].iter().map(|&pixel| f32::from(pixel) / 255.0);
        let pixels: Vec<f32> = indices.iter().flat_map(image).collect();
        let labels: Vec<i32> = indices.iter().map(|&i| i32::from(self.labels[i])).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [indices.len(), 1, SIDE, SIDE]), device),
            labels: Tensor::from_data(TensorData::new(labels, [indices.len()]), device),
        }
    }
}

/// The bytes after the header: `00 00 08 rank`, then a big-endian u32 for each axis.
fn read_idx(path: &Path, rank: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    GzDecoder::new(file).read_to_end(&mut bytes)?;
    let header = 4 + 4 * rank;
    let axes = bytes.get(4..header).ok_or(ErrorKind::UnexpectedEof)?.chunks_exact(4);
    let len: usize = axes.map(|axis| u32::from_be_bytes([axis[0], axis[1], axis[2], axis[3]]) as usize).product();
    if bytes[..4] != [0, 0, 8, rank as u8] || bytes.len() != header + len {
        return Err(Error::new(
            ErrorKind::InvalidData,
            format!("{} is not an IDX file of rank {rank}", path.display()),
        ));
    }
    Ok(bytes.split_off(header))
}
