//! Folders and files of decoders whose parts are read one by one.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::gguf::HalfScales;
use burn_quant_checkpoint::modelopt::Folding;
use burn_quant_checkpoint::{CheckpointError, Folder, FolderWriter};
use serde_json::Value;

use super::ExportState;
use crate::{DecoderParts, LlmError};

/// Where a quantized decoder goes, and where its tokenizer and configuration come from.
///
/// What is made of a decoder for its file is in memory for one part at a time, and for one file of tensors: see
/// [`Export::with_shard_bytes`]. The parts are those of a decoder in memory, `decoder.into_parts()`, or of one that was
/// quantized [part by part](crate::ByParts).
///
/// # Example
///
/// See [`ByParts`](crate::ByParts).
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    pub(super) source: &'a Folder,
    pub(super) out: &'a Path,
    shard_bytes: Option<usize>,
}

impl<'a> Export<'a> {
    /// From the folder that was quantized to a place where nothing is.
    pub fn new(source: &'a Folder, out: &'a Path) -> Self {
        Self { source, out, shard_bytes: None }
    }

    /// Begins another file of tensors after so many bytes, which are kept in memory until it is written: 5 GB without.
    pub fn with_shard_bytes(mut self, bytes: usize) -> Self {
        self.shard_bytes = Some(bytes);
        self
    }

    /// Writes the folder that [`ExportState::write_modelopt`] writes.
    ///
    /// # Errors
    ///
    /// Those of [`ExportState::write_modelopt`] and of [`DecoderParts::part`].
    pub fn modelopt(&self, parts: &dyn DecoderParts) -> Result<PathBuf, LlmError> {
        self.modelopt_of(Parts::Each(parts))
    }

    /// Writes the folder that [`ExportState::write_compressed_tensors`] writes.
    ///
    /// # Errors
    ///
    /// Those of [`ExportState::write_compressed_tensors`] and of [`DecoderParts::part`].
    pub fn compressed_tensors(&self, parts: &dyn DecoderParts) -> Result<PathBuf, LlmError> {
        self.compressed_tensors_of(Parts::Each(parts))
    }

    /// Writes the file that [`ExportState::write_gguf`] writes. Parts are read twice.
    ///
    /// # Errors
    ///
    /// Those of [`ExportState::write_gguf`] and of [`DecoderParts::part`].
    pub fn gguf(&self, parts: &dyn DecoderParts) -> Result<HalfScales, LlmError> {
        self.gguf_of(Parts::Each(parts))
    }

    pub(super) fn folder(&self) -> Result<FolderWriter, CheckpointError> {
        let writer = FolderWriter::create(self.out)?;
        Ok(match self.shard_bytes {
            Some(bytes) => writer.with_shard_bytes(bytes),
            None => writer,
        })
    }

    /// `config.json` with a quantization.
    pub(super) fn config(&self, quantization: Value) -> Value {
        let mut config = self.source.config().clone();
        if let Some(config) = config.as_object_mut() {
            config.remove("quantization_config");
            config.insert("quantization_config".into(), quantization);
        }
        config
    }
}

/// A decoder, whole or in parts.
pub(super) enum Parts<'a> {
    /// In memory.
    Whole(Box<ExportState>),
    /// One by one.
    Each(&'a dyn DecoderParts),
}

impl Parts<'_> {
    /// Calls `f` with each part, prepared, in their order.
    pub(super) fn for_each(
        self,
        folding: Folding,
        f: &mut dyn FnMut(ExportState) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        let mut prepared = |mut state: ExportState| {
            state.prepare(folding)?;
            f(state)
        };
        match self {
            Self::Whole(state) => prepared(*state),
            Self::Each(parts) => (0..parts.count()).try_for_each(|i| prepared(ExportState::of_part(&parts.part(i)?)?)),
        }
    }
}
