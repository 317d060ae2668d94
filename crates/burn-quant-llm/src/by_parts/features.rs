//! The features of all windows on disk: f32, little-endian, window after window, `[tokens, hidden]`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_quant_checkpoint::CheckpointError;

use crate::LlmError;

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.into(), source }
}

/// Writes features beside their place; they appear there when they are complete.
pub(super) struct Writer {
    place: PathBuf,
    unfinished: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    pub(super) fn create(place: PathBuf) -> Result<Self, LlmError> {
        let unfinished = place.with_extension("unfinished");
        let file = BufWriter::new(File::create(&unfinished).map_err(io(&unfinished))?);
        Ok(Self { place, unfinished, file })
    }

    /// Adds the features of a window, `[1, tokens, hidden]`.
    pub(super) fn window(&mut self, features: Tensor<3>) -> Result<(), LlmError> {
        let values: Vec<f32> = features.cast(DType::F32).into_data().try_into_vec().expect("f32 data");
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Ok(self.file.write_all(&bytes).map_err(io(&self.unfinished))?)
    }

    pub(super) fn finish(self) -> Result<(), LlmError> {
        let file = self.file.into_inner().map_err(|error| io(&self.unfinished)(error.into_error()))?;
        file.sync_all().map_err(io(&self.unfinished))?;
        Ok(std::fs::rename(&self.unfinished, &self.place).map_err(io(&self.place))?)
    }
}

/// Reads features, window after window.
pub(super) struct Reader {
    place: PathBuf,
    file: BufReader<File>,
    hidden: usize,
    dtype: DType,
}

impl Reader {
    /// Opens the features of windows of tokens.
    pub(super) fn open(place: PathBuf, windows: &[Vec<u32>], hidden: usize, dtype: DType) -> Result<Self, LlmError> {
        let file = File::open(&place).map_err(io(&place))?;
        let expected = windows.iter().map(|window| (window.len() * hidden * size_of::<f32>()) as u64).sum::<u64>();
        let found = file.metadata().map_err(io(&place))?.len();
        if found != expected {
            let reason = format!("it has {found} bytes, and features of these windows have {expected}");
            return Err(LlmError::Work { path: place, reason });
        }
        Ok(Self { place, file: BufReader::new(file), hidden, dtype })
    }

    /// Begins with the first window again.
    pub(super) fn rewind(&mut self) -> Result<(), LlmError> {
        Ok(self.file.rewind().map_err(io(&self.place))?)
    }

    /// Reads the features `[1, tokens, hidden]` of the next window.
    pub(super) fn next(&mut self, tokens: usize, device: &Device) -> Result<Tensor<3>, LlmError> {
        let mut bytes = vec![0; tokens * self.hidden * size_of::<f32>()];
        self.file.read_exact(&mut bytes).map_err(io(&self.place))?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Tensor::from_data(TensorData::new(values, [1, tokens, self.hidden]), (device, self.dtype)))
    }
}
