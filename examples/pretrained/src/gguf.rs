//! The GGUF format, as far as the published model needs it: version 3, tensors in F32, Q8_0 and Q4_1.
//!
//! Source: the format's specification in the repository of ggml, `docs/gguf.md`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{TensorData, f16};

/// A file in memory.
pub struct Gguf {
    bytes: Vec<u8>,
    data: usize,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Info>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// It does not begin like a GGUF file.
    #[error("the file is no GGUF file: it begins with {found:?}")]
    Magic {
        /// What it begins with.
        found: Vec<u8>,
    },
    /// Another version.
    #[error("the file has version {found} of the format, expected 3")]
    Version {
        /// The version.
        found: u32,
    },
    /// It ends too early.
    #[error("the file ends at byte {len}, and something of {wanted} bytes begins at byte {at}")]
    Truncated {
        /// The length of the file.
        len: usize,
        /// Where it begins.
        at: usize,
        /// How long it is.
        wanted: usize,
    },
    /// A value of an unknown type.
    #[error("`{name}` has the unknown type {found}")]
    Type {
        /// The key or tensor.
        name: String,
        /// The type.
        found: u32,
    },
    /// Something that the model needs is not there.
    #[error("the file has no `{name}`, or it is of another kind")]
    Missing {
        /// The key or tensor.
        name: String,
    },
}

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Other,
}

#[derive(Clone, Debug)]
struct Info {
    /// Outermost axis first.
    shape: Vec<usize>,
    kind: u32,
    offset: usize,
}

impl Gguf {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// See [`GgufError`].
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        Self::parse(std::fs::read(path).map_err(named)?)
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// See [`GgufError`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, GgufError> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        let magic = reader.take(4)?;
        if magic != b"GGUF" {
            return Err(GgufError::Magic { found: magic.to_vec() });
        }
        let version = reader.u32()?;
        if version != 3 {
            return Err(GgufError::Version { found: version });
        }
        let (tensors, entries) = (reader.u64()?, reader.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let name = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(&name, kind)?;
            metadata.insert(name, value);
        }
        let mut infos = BTreeMap::new();
        for _ in 0..tensors {
            let name = reader.text()?;
            let axes = reader.u32()?;
            let mut shape = Vec::new();
            for _ in 0..axes {
                shape.push(reader.u64()?);
            }
            shape.reverse();
            let info = Info { shape, kind: reader.u32()?, offset: reader.u64()? };
            infos.insert(name, info);
        }
        let data = reader.at.next_multiple_of(32);
        Ok(Self { bytes, data, metadata, tensors: infos })
    }

    /// A text of the metadata.
    ///
    /// # Errors
    ///
    /// [`GgufError::Missing`].
    pub fn text(&self, name: &str) -> Result<&str, GgufError> {
        match self.metadata.get(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(GgufError::Missing { name: name.into() }),
        }
    }

    /// A list of texts of the metadata.
    ///
    /// # Errors
    ///
    /// [`GgufError::Missing`].
    pub fn texts(&self, name: &str) -> Result<&[String], GgufError> {
        match self.metadata.get(name) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => Err(GgufError::Missing { name: name.into() }),
        }
    }

    /// A tensor in f32.
    ///
    /// # Errors
    ///
    /// [`GgufError::Missing`], [`GgufError::Type`] and [`GgufError::Truncated`].
    pub fn tensor(&self, name: &str) -> Result<TensorData, GgufError> {
        let missing = || GgufError::Missing { name: name.into() };
        let info = self.tensors.get(name).ok_or_else(missing)?;
        let elements = info.shape.iter().try_fold(1usize, |n, len| n.checked_mul(*len)).ok_or_else(missing)?;
        let (block, size) = match info.kind {
            F32 => (1, 4),
            Q4_1 => (32, 20),
            Q8_0 => (32, 34),
            found => return Err(GgufError::Type { name: name.into(), found }),
        };
        let wanted = elements.div_ceil(block).checked_mul(size).ok_or_else(missing)?;
        let at = self.data.checked_add(info.offset).ok_or_else(missing)?;
        let bytes = Reader { bytes: &self.bytes, at }.take(wanted)?;
        let mut values = Vec::with_capacity(elements);
        for bytes in bytes.chunks_exact(size) {
            match info.kind {
                F32 => values.push(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
                Q8_0 => values.extend(bytes[2..].iter().map(|code| half(bytes, 0) * f32::from(*code as i8))),
                _ => {
                    let (scale, lowest) = (half(bytes, 0), half(bytes, 2));
                    let codes = bytes[4..].iter().map(|two| two & 15).chain(bytes[4..].iter().map(|two| two >> 4));
                    values.extend(codes.map(|code| scale * f32::from(code) + lowest));
                }
            }
        }
        values.truncate(elements);
        Ok(TensorData::new(values, info.shape.clone()))
    }
}

const F32: u32 = 0;
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, wanted: usize) -> Result<&'a [u8], GgufError> {
        let truncated = || GgufError::Truncated { len: self.bytes.len(), at: self.at, wanted };
        let end = self.at.checked_add(wanted).ok_or_else(truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<usize, GgufError> {
        let number = u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"));
        Ok(usize::try_from(number).unwrap_or(usize::MAX)) // too long for memory: what follows is truncated
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let len = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn value(&mut self, name: &str, kind: u32) -> Result<Value, GgufError> {
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        let size = |kind| match kind {
            0 | 1 | 7 => Ok(1),
            2 | 3 => Ok(2),
            4..=6 => Ok(4),
            10..=12 => Ok(8),
            found => Err(GgufError::Type { name: name.into(), found }),
        };
        match kind {
            TEXT => self.text().map(Value::Text),
            LIST => {
                let (kind, len) = (self.u32()?, self.u64()?);
                if kind != TEXT {
                    self.take(len.saturating_mul(size(kind)?))?;
                    return Ok(Value::Other);
                }
                let mut texts = Vec::new();
                for _ in 0..len {
                    texts.push(self.text()?);
                }
                Ok(Value::Texts(texts))
            }
            kind => self.take(size(kind)?).map(|_| Value::Other),
        }
    }
}
