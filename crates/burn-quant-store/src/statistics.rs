//! Statistics of calibration <-> file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Shape};
use burn_pack::{Bytes, Tensor};
use burn_quant_calibrate::observe::{GramMatrix, ModelStatistics, Statistics};

use crate::StoreError;
use crate::file::{Contents, Kind, damage, read, write};

/// Saves what calibration saw in one burnpack file, for another process to merge and solve: Gram matrices as tensors,
/// the rest as JSON.
///
/// A path without an extension gets `.bpk`.
///
/// # Errors
///
/// [`StoreError::Write`] if the file could not be written, [`StoreError::Folder`] if the path is that of a folder.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{ModelStatistics, Statistics};
/// use burn_quant_store::{load_statistics, save_statistics};
///
/// let folder = tempfile::tempdir()?;
/// let mut seen = ModelStatistics::default();
/// seen.insert("fc.input_quantizer".into(), Statistics::of_amax(vec![1.5], 8))?;
/// save_statistics(&seen, folder.path().join("shard-0.bpk"))?;
/// assert_eq!(load_statistics(folder.path().join("shard-0.bpk"))?, seen);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_statistics(statistics: &ModelStatistics, path: impl AsRef<Path>) -> Result<(), StoreError> {
    write(contents(statistics), Kind::Statistics, path.as_ref())
}

/// The bytes of the file that [`save_statistics`] writes.
///
/// # Errors
///
/// [`StoreError::Record`] if they could not be packed.
pub fn statistics_to_bytes(statistics: &ModelStatistics) -> Result<Bytes, StoreError> {
    let bytes = contents(statistics).pack(Kind::Statistics)?.into_bytes();
    bytes.map_err(|e| StoreError::Record { reason: e.to_string() })
}

/// Reads what [`save_statistics`] wrote.
///
/// # Errors
///
/// [`StoreError::Open`], and in a [`StoreError::InFile`] those of [`statistics_from_bytes`].
pub fn load_statistics(path: impl AsRef<Path>) -> Result<ModelStatistics, StoreError> {
    let path = path.as_ref();
    statistics_from_bytes(read(path)?).map_err(|error| error.in_file(path))
}

/// Reads what [`statistics_to_bytes`] wrote.
///
/// # Errors
///
/// [`StoreError::NotStatistics`] for a file of something else, [`StoreError::Tampered`] and others for a damaged one,
/// [`StoreError::OtherMajor`] and [`StoreError::NewerMinor`], and [`StoreError::Quantizers`] for numbers that no data
/// gives.
pub fn statistics_from_bytes(bytes: Bytes) -> Result<ModelStatistics, StoreError> {
    let Contents { description, tensors, .. } = Contents::unpack(bytes, Kind::Statistics)?;
    let seen: BTreeMap<String, Statistics> =
        serde_json::from_str(&description).map_err(|e| StoreError::Damaged { reason: format!("statistics: {e}") })?;
    let mut grams = BTreeMap::new();
    for tensor in tensors {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(damage)?;
        let upper: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        let size = triangle(upper.len()).filter(|_| dtype == DType::F32 && shape.as_slice() == [upper.len()]);
        let size = size.ok_or_else(|| StoreError::Shape {
            path: name.clone(),
            expected: vec![upper.len()],
            found: shape.as_slice().to_vec(),
        })?;
        grams.insert(name, GramMatrix { size, upper });
    }
    let mut statistics = ModelStatistics::default();
    for (name, mut seen) in seen {
        if let Some(gram) = grams.remove(&name) {
            let channels = seen.channels.as_mut().filter(|channels| channels.amax.len() == gram.size);
            let path = name.clone();
            channels.ok_or_else(|| StoreError::UnexpectedTensors { paths: vec![path] })?.gram = Some(gram);
        }
        statistics.insert(name, seen)?;
    }
    match grams.into_keys().next() {
        Some(path) => Err(StoreError::UnexpectedTensors { paths: vec![path] }),
        None => Ok(statistics),
    }
}

/// The size of a triangle of so many numbers.
fn triangle(numbers: usize) -> Option<usize> {
    let size = (((8 * numbers + 1) as f64).sqrt() as usize).saturating_sub(1) / 2;
    (size..=size + 1).find(|size| size * (size + 1) / 2 == numbers)
}

fn contents(statistics: &ModelStatistics) -> Contents {
    let (mut tensors, mut plain) = (Vec::new(), BTreeMap::new());
    for (name, seen) in statistics.iter() {
        let mut seen = seen.clone();
        if let Some(gram) = seen.channels.as_mut().and_then(|channels| channels.gram.take()) {
            let bytes: Vec<u8> = gram.upper.iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = Shape::from([gram.upper.len()]);
            tensors.push(Tensor::new(name.to_string(), DType::F32, shape, None, Bytes::from_bytes_vec(bytes)));
        }
        plain.insert(name, seen);
    }
    let description = serde_json::to_string(&plain).expect("statistics are plain data with string keys");
    Contents { description, packed: None, tensors }
}
