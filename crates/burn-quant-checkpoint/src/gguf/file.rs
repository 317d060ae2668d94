//! Files: a header that is read when they are opened, tensors that are read when they are asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::header::Header;
use super::{GgmlType, Metadata, blocks};
use crate::error::near_misses;
use crate::{CheckpointError, QuantizedMatrix};

/// Name, shape and type of a tensor, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgmlTensor {
    /// Name in the file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Shape, slowest axis first, as PyTorch and burn have it. The file has it the other way round.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub ggml: GgmlType,
    /// Where the bytes begin in the file.
    pub(super) at: u64,
    /// Number of bytes.
    pub(super) bytes: u64,
}

impl GgmlTensor {
    /// Returns the number of bytes that the tensor takes in the file.
    pub fn byte_len(&self) -> u64 {
        self.bytes
    }

    /// Returns rows and columns: the last axis is columns, all others together are rows.
    pub fn matrix_shape(&self) -> [usize; 2] {
        match self.shape.split_last() {
            Some((columns, rows)) => [rows.iter().product(), *columns],
            None => [1, 1],
        }
    }
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// A GGUF file of version 2 or 3, little-endian.
///
/// Metadata and names are read when it is opened, tensors when they are asked for: a model larger than memory can be
/// read tensor by tensor. Names are those of the file; [`GgufModel`](super::GgufModel) has those of Hugging Face.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::gguf::Gguf;
///
/// let file = Gguf::open("SmolLM2-135M-Instruct.Q4_1.gguf")?;
/// println!("{} tensors of a {}", file.tensors().len(), file.metadata().text("general.architecture")?);
/// let weight = file.matrix("blk.0.attn_q.weight")?; // codes and scales as stored
/// assert_eq!(weight.dequantize(), file.floats("blk.0.attn_q.weight")?);
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gguf {
    source: Source,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<GgmlTensor>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Opens a file: reads its header, and checks that all tensors lie within the file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Magic`], [`CheckpointError::Version`],
    /// [`CheckpointError::Truncated`] for a file that ends too early, [`CheckpointError::Twice`] for a key or tensor
    /// that is there twice, [`CheckpointError::Value`] or [`CheckpointError::Unknown`] for what the format has not.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let header = Header::read(BufReader::new(file), len, &name)?;
        Ok(Self::new(Source::File(path), header))
    }

    /// Reads the header of a file in memory.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::open`].
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_checkpoint::gguf::Gguf;
    ///
    /// let empty = [&b"GGUF"[..], &3u32.to_le_bytes(), &[0; 16]].concat(); // no tensors, no keys
    /// assert_eq!(Gguf::parse(empty)?.tensors().len(), 0);
    /// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
    /// ```
    pub fn parse(bytes: impl Into<Arc<[u8]>>) -> Result<Self, CheckpointError> {
        let bytes = bytes.into();
        let header = Header::read(&bytes[..], bytes.len() as u64, "memory")?;
        Ok(Self::new(Source::Memory(bytes), header))
    }

    fn new(source: Source, header: Header) -> Self {
        let Header { version, alignment, metadata, tensors } = header;
        let by_name = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Self { source, version, alignment, metadata, tensors, by_name }
    }

    /// Returns the version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns what tensors are aligned to, in bytes: `general.alignment`, or 32.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Returns the metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns name, shape and type of all tensors, in the order of the file.
    pub fn tensors(&self) -> &[GgmlTensor] {
        &self.tensors
    }

    /// Returns name, shape and type of a tensor.
    ///
    /// `None` if there is none of this name.
    pub fn info(&self, name: &str) -> Option<&GgmlTensor> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// Reads the bytes of a tensor.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] with the most similar names, or [`CheckpointError::Io`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let info = self.required(name)?;
        self.read(info.at..info.at + info.bytes)
    }

    /// Reads a tensor as floats, row-major, as ggml decodes it.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::bytes`], and [`CheckpointError::Unknown`] for a type that is not decoded:
    /// see [`GgmlType::is_decoded`].
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        blocks::decode(name, self.required(name)?.ggml, &self.bytes(name)?)
    }

    /// Reads a tensor as codes and scales, exactly as they are stored.
    ///
    /// The last axis is inputs; all others together are outputs. [`QuantizedMatrix::dequantize`] is what
    /// [`Gguf::floats`] returns, bit for bit. Scales of K-quants are the rounded products of their two levels. MXFP4
    /// has no negative zero: its code 8 is read as code 0.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::bytes`], [`CheckpointError::Unknown`] for floats and types whose codes are looked up in a table
    /// of their own, [`CheckpointError::Element`] for an MXFP4 scale that is NaN.
    pub fn matrix(&self, name: &str) -> Result<QuantizedMatrix, CheckpointError> {
        let info = self.required(name)?;
        blocks::matrix(name, info.ggml, info.matrix_shape(), &self.bytes(name)?)
    }

    /// Returns a tensor that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&GgmlTensor, CheckpointError> {
        self.info(name).ok_or_else(|| CheckpointError::Missing {
            name: name.into(),
            near_misses: near_misses(name, self.tensors.iter().map(|tensor| tensor.name.as_str())),
        })
    }

    /// Reads bytes of the file, which must lie within what the header was checked against.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, CheckpointError> {
        match &self.source {
            Source::Memory(bytes) => Ok(bytes[range.start as usize..range.end as usize].to_vec()),
            Source::File(path) => {
                let io = |source| CheckpointError::Io { path: path.clone(), source };
                let mut file = File::open(path).map_err(io)?;
                file.seek(SeekFrom::Start(range.start)).map_err(io)?;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact(&mut bytes).map_err(io)?;
                Ok(bytes)
            }
        }
    }
}
