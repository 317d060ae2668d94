//! The header of a file: magic number, version, metadata, tensor infos.
//!
//! ```text
//! "GGUF"  version u32  tensors u64  keys u64
//! key:     text  type u32  value
//! tensor:  text  axes u32  lengths u64, fastest axis first  type u32  offset u64
//! padding to a multiple of the alignment, then the data that offsets count from
//! ```
//!
//! Texts are a length in 64 bits and UTF-8. Source: ggml's `docs/gguf.md`.
//!
//! Every length is checked against what is left of the file before memory is taken for it.

use std::io::Read;

use super::{Array, GgmlTensor, GgmlType, Metadata, Value};
use crate::CheckpointError;

/// Levels of arrays in arrays that are read.
const DEEPEST: usize = 8;

/// The most bytes of a key or a name, as the format has it for keys.
const LONGEST_NAME: usize = 65535;

/// The most axes of a tensor, as in ggml.
const MOST_AXES: u32 = 4;

/// What a header says, checked against the length of its file.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<GgmlTensor>,
}

impl Header {
    /// Reads a header from the beginning of a file of `len` bytes.
    pub(super) fn read(reader: impl Read, len: u64, file: &str) -> Result<Self, CheckpointError> {
        let mut input = Input { reader, at: 0, len, file };
        let magic = input.bytes(len.min(4), "the magic number")?;
        if magic != super::MAGIC {
            return Err(CheckpointError::Magic { file: file.into(), found: magic });
        }
        let version = input.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(CheckpointError::Version {
                file: file.into(),
                expected: "2 or 3, little-endian",
                found: version,
            });
        }
        let tensors = input.u64("the number of tensors")?;
        let keys = input.u64("the number of keys")?;
        input.room(keys, 8 + 4 + 1, "the metadata")?;
        let mut entries = Vec::new();
        for _ in 0..keys {
            let key = input.name("a key")?;
            let kind = input.u32(&key)?;
            let value = input.value(kind, &key)?;
            entries.push((key, value));
        }
        unique(entries.iter().map(|(key, _)| key.as_str()), file)?;
        let metadata = Metadata::from_entries(entries);
        let alignment = alignment(&metadata)?;
        input.room(tensors, 8 + 4 + 4 + 8, "the list of tensors")?;
        let mut infos = Vec::new();
        for _ in 0..tensors {
            infos.push(input.tensor(alignment)?);
        }
        unique(infos.iter().map(|info| info.name.as_str()), file)?;
        let data = input.at.next_multiple_of(alignment);
        for info in &mut infos {
            info.at = match info.at.checked_add(data).filter(|at| *at <= len && info.bytes <= len - at) {
                Some(at) => at,
                None => return Err(input.truncated(&info.name, data.saturating_add(info.at), info.bytes)),
            };
        }
        Ok(Self { version, alignment, metadata, tensors: infos })
    }
}

/// Returns `general.alignment`, a power of two; 32 if it is not there.
fn alignment(metadata: &Metadata) -> Result<u64, CheckpointError> {
    let key = "general.alignment";
    let read = |value: &Value| value.as_u64().filter(|x| x.is_power_of_two() && *x <= 1 << 20);
    Ok(metadata.optional(key, "a power of two of at most 2^20", read)?.unwrap_or(super::ALIGNMENT))
}

/// Checks that no name is there twice.
fn unique<'a>(names: impl Iterator<Item = &'a str>, file: &str) -> Result<(), CheckpointError> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(CheckpointError::Twice { name: pair[0].into(), first: file.into(), second: file.into() }),
    }
}

/// A reader that knows how much is left.
struct Input<'a, R> {
    reader: R,
    at: u64,
    len: u64,
    file: &'a str,
}

impl<R: Read> Input<'_, R> {
    fn truncated(&self, what: &str, at: u64, wanted: u64) -> CheckpointError {
        CheckpointError::Truncated { file: self.file.into(), what: what.into(), len: self.len, at, wanted }
    }

    /// Checks that `count` things of at least `least` bytes fit into what is left; returns their number.
    fn room(&self, count: u64, least: u64, what: &str) -> Result<usize, CheckpointError> {
        let wanted = count.saturating_mul(least);
        match usize::try_from(count) {
            Ok(count) if wanted <= self.len - self.at => Ok(count),
            _ => Err(self.truncated(what, self.at, wanted)),
        }
    }

    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = vec![0; self.room(count, 1, what)?];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], CheckpointError> {
        self.room(N as u64, 1, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        self.at += bytes.len() as u64;
        self.reader.read_exact(bytes).map_err(|source| CheckpointError::Io { path: self.file.into(), source })
    }

    fn u32(&mut self, what: &str) -> Result<u32, CheckpointError> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, CheckpointError> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String, CheckpointError> {
        let len = self.u64(what)?;
        let bytes = self.bytes(len, what)?;
        String::from_utf8(bytes).map_err(|e| CheckpointError::Value {
            key: what.into(),
            expected: "UTF-8",
            found: format!("{:?}", String::from_utf8_lossy(&e.as_bytes()[..e.as_bytes().len().min(40)])),
        })
    }

    fn name(&mut self, what: &str) -> Result<String, CheckpointError> {
        let name = self.text(what)?;
        if name.len() <= LONGEST_NAME {
            return Ok(name);
        }
        let (expected, found) = ("at most 65535 bytes", format!("{} bytes", name.len()));
        Err(CheckpointError::Value { key: what.into(), expected, found })
    }

    fn bool(&self, byte: u8, what: &str) -> Result<bool, CheckpointError> {
        match byte {
            0 | 1 => Ok(byte == 1),
            _ => Err(CheckpointError::Value { key: what.into(), expected: "a boolean", found: byte.to_string() }),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value, CheckpointError> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.fixed(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.fixed(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.fixed(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.fixed(key)?)),
            4 => Value::U32(u32::from_le_bytes(self.fixed(key)?)),
            5 => Value::I32(i32::from_le_bytes(self.fixed(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.fixed(key)?)),
            7 => {
                let [byte] = self.fixed(key)?;
                Value::Bool(self.bool(byte, key)?)
            }
            8 => Value::String(self.text(key)?),
            9 => Value::Array(self.array(key, DEEPEST)?),
            10 => Value::U64(u64::from_le_bytes(self.fixed(key)?)),
            11 => Value::I64(i64::from_le_bytes(self.fixed(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.fixed(key)?)),
            _ => return Err(unknown_kind(key, kind)),
        })
    }

    /// Reads the elements of an array that have a fixed size.
    fn elements<const N: usize, T>(
        &mut self,
        count: u64,
        key: &str,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, CheckpointError> {
        self.room(count, N as u64, key)?;
        let bytes = self.bytes(count * N as u64, key)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect())
    }

    fn array(&mut self, key: &str, levels: usize) -> Result<Array, CheckpointError> {
        if levels == 0 {
            let expected = "arrays of at most 8 levels";
            return Err(CheckpointError::Value { key: key.into(), expected, found: "deeper".into() });
        }
        let (kind, count) = (self.u32(key)?, self.u64(key)?);
        Ok(match kind {
            0 => Array::U8(self.bytes(count, key)?),
            1 => Array::I8(self.elements(count, key, i8::from_le_bytes)?),
            2 => Array::U16(self.elements(count, key, u16::from_le_bytes)?),
            3 => Array::I16(self.elements(count, key, i16::from_le_bytes)?),
            4 => Array::U32(self.elements(count, key, u32::from_le_bytes)?),
            5 => Array::I32(self.elements(count, key, i32::from_le_bytes)?),
            6 => Array::F32(self.elements(count, key, f32::from_le_bytes)?),
            7 => {
                let bytes = self.bytes(count, key)?;
                Array::Bool(bytes.iter().map(|byte| self.bool(*byte, key)).collect::<Result<_, _>>()?)
            }
            8 => {
                self.room(count, 8, key)?;
                Array::String((0..count).map(|_| self.text(key)).collect::<Result<_, _>>()?)
            }
            9 => {
                self.room(count, 4 + 8, key)?;
                Array::Array((0..count).map(|_| self.array(key, levels - 1)).collect::<Result<_, _>>()?)
            }
            10 => Array::U64(self.elements(count, key, u64::from_le_bytes)?),
            11 => Array::I64(self.elements(count, key, i64::from_le_bytes)?),
            12 => Array::F64(self.elements(count, key, f64::from_le_bytes)?),
            _ => return Err(unknown_kind(key, kind)),
        })
    }

    /// Reads a tensor info; where the tensor begins is its offset for now.
    fn tensor(&mut self, alignment: u64) -> Result<GgmlTensor, CheckpointError> {
        let name = self.name("the name of a tensor")?;
        let wrong = |key: &str, expected, found: String| CheckpointError::Value {
            key: format!("{key} of `{name}`"),
            expected,
            found,
        };
        let axes = self.u32(&name)?;
        if axes > MOST_AXES {
            return Err(wrong("the number of axes", "at most 4", axes.to_string()));
        }
        let mut lengths = Vec::new();
        for _ in 0..axes {
            lengths.push(self.u64(&name)?);
        }
        let kind = self.u32(&name)?;
        let ggml = GgmlType::of_id(kind).ok_or_else(|| CheckpointError::Unknown {
            what: format!("the type of `{name}`"),
            found: kind.to_string(),
            known: "the numbers of ggml_type up to 41 that are in use",
        })?;
        let at = self.u64(&name)?;
        if !at.is_multiple_of(alignment) {
            return Err(wrong("the offset", "a multiple of the alignment", at.to_string()));
        }
        let row = lengths.first().copied().unwrap_or(1);
        if !row.is_multiple_of(ggml.block() as u64) {
            return Err(wrong("the row length", "a multiple of the block of its type", row.to_string()));
        }
        // counted in elements, so that the bytes of a type with more than one byte an element do not overflow either;
        // without an axis of length zero no product of the others overflows, with one it might
        let product = |least: u64| lengths.iter().try_fold(1u64, |product, len| product.checked_mul(*len.max(&least)));
        let bytes = product(1)
            .and_then(|_| product(0))
            .and_then(|elements| (elements / ggml.block() as u64).checked_mul(ggml.block_bytes() as u64))
            .ok_or_else(|| wrong("the shape", "a number of bytes of at most 64 bits", format!("{lengths:?}")))?;
        let shape = lengths.iter().rev().map(|len| usize::try_from(*len)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| wrong("the shape", "lengths that fit into memory", format!("{lengths:?}")))?;
        Ok(GgmlTensor { name, shape, ggml, at, bytes })
    }
}

fn unknown_kind(key: &str, kind: u32) -> CheckpointError {
    CheckpointError::Unknown { what: format!("the type of `{key}`"), found: kind.to_string(), known: "0 to 12" }
}
