//! Files that appear when they are complete.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{ALIGNMENT, Array, GgmlTensor, GgmlType, MAGIC, Metadata, Value};
use crate::error::near_misses;
use crate::{CheckpointError, NotExportable};

/// The version that is written.
const VERSION: u32 = 3;

/// Name, shape and type of a tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Name.
    pub name: String,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub ggml: GgmlType,
}

impl PlannedTensor {
    /// Plans a tensor.
    ///
    /// Rows must be whole numbers of the type's blocks, which is checked when the file is begun.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, ggml: GgmlType) -> Self {
        Self { name: name.into(), shape: shape.into(), ggml }
    }
}

/// Writes a GGUF file of version 3: the header first, then tensors in any order, each straight to its place.
///
/// Tensors are not kept in memory. The file appears at its path when [`GgufWriter::finish`] is called, and replaces
/// what is there; whatever happens before, there is no file that looks complete.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{GgmlType, Gguf, GgufWriter, Metadata, PlannedTensor, encode};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("model.gguf");
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "llama");
///
/// let plan = [PlannedTensor::new("w", [2, 32], GgmlType::Q8_0)];
/// let mut writer = GgufWriter::create(&path, &metadata, &plan)?;
/// writer.tensor("w", &encode("w", GgmlType::Q8_0, &[127.0; 64])?)?;
/// writer.finish()?;
///
/// let file = Gguf::open(&path)?;
/// assert_eq!(file.info("w").unwrap().shape, [2, 32]);
/// assert_eq!(file.floats("w")?, [127.0; 64]);
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    unfinished: NamedTempFile,
    /// Tensors, with their places in the file.
    tensors: Vec<GgmlTensor>,
    by_name: HashMap<String, usize>,
    /// Which parts of each tensor are written.
    written: Vec<Vec<bool>>,
    len: u64,
}

impl GgufWriter {
    /// Begins a file: writes metadata, and names, shapes and types of the tensors to come.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Twice`] for a name that is planned twice, [`CheckpointError::NotExportable`] with
    /// [`NotExportable::Ragged`] for rows that are no whole number of blocks or [`NotExportable::Axes`] for more than
    /// four axes, [`CheckpointError::Io`].
    pub fn create(
        path: impl Into<PathBuf>,
        metadata: &Metadata,
        tensors: &[PlannedTensor],
    ) -> Result<Self, CheckpointError> {
        let path = path.into();
        let tensors = placed(tensors)?;
        let mut by_name = HashMap::new();
        for (i, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), i).is_some() {
                let file = path.to_string_lossy().into_owned();
                return Err(CheckpointError::Twice { name: tensor.name.clone(), first: file.clone(), second: file });
            }
        }
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(io)?;
        let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(parent).map_err(io)?;
        let data = header(unfinished.as_file(), metadata, &tensors).map_err(io)?;
        let tensors: Vec<_> = tensors.into_iter().map(|tensor| GgmlTensor { at: tensor.at + data, ..tensor }).collect();
        let len = tensors.last().map_or(data, |last| last.at + last.bytes.next_multiple_of(ALIGNMENT));
        let written = vec![Vec::new(); tensors.len()];
        Ok(Self { path, unfinished, tensors, by_name, written, len })
    }

    /// Writes the bytes of a tensor: blocks as [`encode`](super::encode) makes them.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] for a tensor that is not planned, [`CheckpointError::Twice`] for one that is
    /// written, [`CheckpointError::Contradiction`] for another number of bytes, [`CheckpointError::Io`].
    pub fn tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.part(name, 0, 1, bytes)
    }

    /// Writes one of `parts` equal parts of a tensor, such as one expert of many.
    ///
    /// # Errors
    ///
    /// Those of [`GgufWriter::tensor`], per part. All parts of a tensor must have the same size.
    pub fn part(&mut self, name: &str, index: usize, parts: usize, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(i) = self.by_name.get(name).copied() else {
            let near_misses = near_misses(name, self.by_name.keys().map(String::as_str));
            return Err(CheckpointError::Missing { name: name.into(), near_misses });
        };
        let (tensor, written) = (&self.tensors[i], &mut self.written[i]);
        let io = |source| CheckpointError::Io { path: self.path.clone(), source };
        let fits = (bytes.len() as u64).checked_mul(parts as u64) == Some(tensor.bytes) && index < parts;
        if !fits || !(written.is_empty() || written.len() == parts) {
            return Err(CheckpointError::Contradiction {
                name: name.into(),
                one: format!("is planned with {} bytes", tensor.bytes),
                other: format!("part {index} of {parts} has {}", bytes.len()),
            });
        }
        if written.is_empty() {
            written.resize(parts, false);
        }
        if std::mem::replace(&mut written[index], true) {
            let file = self.path.to_string_lossy().into_owned();
            return Err(CheckpointError::Twice { name: name.into(), first: file.clone(), second: file });
        }
        let mut file = self.unfinished.as_file();
        file.seek(SeekFrom::Start(tensor.at + index as u64 * bytes.len() as u64)).map_err(io)?;
        file.write_all(bytes).map_err(io)
    }

    /// Checks that all tensors are written, and moves the file to its path.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] with the first tensor that is not written, [`CheckpointError::Io`].
    pub fn finish(self) -> Result<PathBuf, CheckpointError> {
        for (tensor, written) in self.tensors.iter().zip(&self.written) {
            if tensor.bytes > 0 && (written.is_empty() || written.contains(&false)) {
                return Err(CheckpointError::Missing { name: tensor.name.clone(), near_misses: Vec::new() });
            }
        }
        let path = self.path;
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        self.unfinished.as_file().set_len(self.len).map_err(io)?;
        #[cfg(unix)] // a temporary file is private
        {
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            self.unfinished.as_file().set_permissions(readable).map_err(io)?;
        }
        self.unfinished.persist(&path).map_err(|e| io(e.error))?;
        Ok(path)
    }
}

/// Places tensors one after the other, each aligned; places count from the beginning of the data.
fn placed(tensors: &[PlannedTensor]) -> Result<Vec<GgmlTensor>, CheckpointError> {
    let mut at = 0;
    let mut placed = Vec::with_capacity(tensors.len());
    for PlannedTensor { name, shape, ggml } in tensors {
        let refused = |reason| Err(super::blocks::not_exportable(name, reason));
        if shape.len() > 4 {
            return refused(NotExportable::Axes { found: shape.len(), most: 4 });
        }
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(ggml.block()) {
            return refused(NotExportable::Ragged { axis: "inputs", len: row, block: ggml.block() });
        }
        let blocks = shape.iter().product::<usize>() / ggml.block();
        let bytes = (blocks * ggml.block_bytes()) as u64;
        placed.push(GgmlTensor { name: name.clone(), shape: shape.clone(), ggml: *ggml, at, bytes });
        at += bytes.next_multiple_of(ALIGNMENT);
    }
    Ok(placed)
}

/// Writes the header; returns where the data begins.
fn header(file: &File, metadata: &Metadata, tensors: &[GgmlTensor]) -> std::io::Result<u64> {
    let mut writer = BufWriter::new(file);
    // the writer aligns to the default, whatever file the metadata was read from
    let keys: Vec<_> = metadata.iter().filter(|(key, _)| *key != "general.alignment").collect();
    writer.write_all(&MAGIC)?;
    writer.write_all(&VERSION.to_le_bytes())?;
    writer.write_all(&(tensors.len() as u64).to_le_bytes())?;
    writer.write_all(&(keys.len() as u64).to_le_bytes())?;
    for (key, value) in keys {
        text(&mut writer, key)?;
        writer.write_all(&value.type_id().to_le_bytes())?;
        write_value(&mut writer, value)?;
    }
    for tensor in tensors {
        text(&mut writer, &tensor.name)?;
        writer.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
        for len in tensor.shape.iter().rev() {
            writer.write_all(&(*len as u64).to_le_bytes())?;
        }
        writer.write_all(&tensor.ggml.id().to_le_bytes())?;
        writer.write_all(&tensor.at.to_le_bytes())?;
    }
    Ok(writer.stream_position()?.next_multiple_of(ALIGNMENT))
}

fn text(writer: &mut impl Write, text: &str) -> std::io::Result<()> {
    writer.write_all(&(text.len() as u64).to_le_bytes())?;
    writer.write_all(text.as_bytes())
}

fn write_value(writer: &mut impl Write, value: &Value) -> std::io::Result<()> {
    match value {
        Value::U8(x) => writer.write_all(&x.to_le_bytes()),
        Value::I8(x) => writer.write_all(&x.to_le_bytes()),
        Value::U16(x) => writer.write_all(&x.to_le_bytes()),
        Value::I16(x) => writer.write_all(&x.to_le_bytes()),
        Value::U32(x) => writer.write_all(&x.to_le_bytes()),
        Value::I32(x) => writer.write_all(&x.to_le_bytes()),
        Value::F32(x) => writer.write_all(&x.to_le_bytes()),
        Value::Bool(x) => writer.write_all(&[u8::from(*x)]),
        Value::String(x) => text(writer, x),
        Value::Array(x) => write_array(writer, x),
        Value::U64(x) => writer.write_all(&x.to_le_bytes()),
        Value::I64(x) => writer.write_all(&x.to_le_bytes()),
        Value::F64(x) => writer.write_all(&x.to_le_bytes()),
    }
}

fn write_array(writer: &mut impl Write, array: &Array) -> std::io::Result<()> {
    /// Writes type, length and elements.
    fn elements<W: Write, T>(
        writer: &mut W,
        kind: u32,
        elements: &[T],
        write: impl Fn(&mut W, &T) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        writer.write_all(&kind.to_le_bytes())?;
        writer.write_all(&(elements.len() as u64).to_le_bytes())?;
        elements.iter().try_for_each(|element| write(writer, element))
    }
    match array {
        Array::U8(x) => elements(writer, 0, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::I8(x) => elements(writer, 1, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::U16(x) => elements(writer, 2, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::I16(x) => elements(writer, 3, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::U32(x) => elements(writer, 4, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::I32(x) => elements(writer, 5, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::F32(x) => elements(writer, 6, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::Bool(x) => elements(writer, 7, x, |writer, x| writer.write_all(&[u8::from(*x)])),
        Array::String(x) => elements(writer, 8, x, |writer, x| text(writer, x)),
        Array::Array(x) => elements(writer, 9, x, |writer, x| write_array(writer, x)),
        Array::U64(x) => elements(writer, 10, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::I64(x) => elements(writer, 11, x, |writer, x| writer.write_all(&x.to_le_bytes())),
        Array::F64(x) => elements(writer, 12, x, |writer, x| writer.write_all(&x.to_le_bytes())),
    }
}
