//! The container: tensors, metadata, and a digest of both.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn_pack::AtomicFile;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use crate::file::{DIGEST, FieldDigest, SCHEMA, VERSION, check_schema};
use crate::{Schema, StoreError};

/// What a path gets that has no extension.
pub(super) const EXTENSION: &str = "safetensors";
const FORMAT: &str = "format";
/// What `format` says.
const NAME: &str = "burn-quant";

/// A tensor as the container holds it: little-endian, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileTensor<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl FileTensor<'static> {
    pub(super) fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        Self { dtype, shape, bytes: Cow::Owned(bytes) }
    }

    pub(super) fn of_f32(shape: Vec<usize>, values: impl IntoIterator<Item = f32>) -> Self {
        Self::new(Dtype::F32, shape, values.into_iter().flat_map(f32::to_le_bytes).collect())
    }
}

impl View for &FileTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A file: tensors by name, and metadata without the digest.
#[derive(Debug)]
pub(super) struct SafetensorsFile<'a> {
    pub(super) tensors: BTreeMap<String, FileTensor<'a>>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile<'static> {
    /// An empty file of the schema that is written.
    pub(super) fn new() -> Self {
        let metadata = [
            (FORMAT, NAME.to_string()),
            (SCHEMA, Schema::SAFETENSORS.to_string()),
            (VERSION, env!("CARGO_PKG_VERSION").to_string()),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Self { tensors: BTreeMap::new(), metadata }
    }

    pub(super) fn describe(&mut self, key: &str, value: String) {
        self.metadata.insert(key.to_string(), value);
    }

    /// Adds a tensor, whose name is no other's.
    pub(super) fn insert(&mut self, name: String, tensor: FileTensor<'static>) -> Result<(), StoreError> {
        match self.tensors.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(StoreError::NameTaken { name }),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, StoreError> {
        let bytes = safetensors::serialize(&self.tensors, Some(self.signed()));
        bytes.map_err(|e| StoreError::Record { reason: e.to_string() })
    }

    /// Writes the file beside its destination, and moves it into place.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        if path.is_dir() {
            return Err(StoreError::Folder { path: path.into() });
        }
        let path = if path.extension().is_none() { path.with_extension(EXTENSION) } else { path.to_path_buf() };
        let failed = |e: &dyn std::fmt::Display| StoreError::Write { path: path.clone(), reason: e.to_string() };
        let (unfinished, handle) = AtomicFile::create(&path).map_err(|e| failed(&e))?;
        drop(handle); // safetensors opens the path itself
        safetensors::serialize_to_file(&self.tensors, Some(self.signed()), unfinished.path())
            .map_err(|e| failed(&e))?;
        unfinished.commit().map_err(|e| failed(&e))
    }

    /// The metadata with the digest of the file.
    fn signed(&self) -> HashMap<String, String> {
        let digest = (DIGEST.to_string(), self.digest());
        self.metadata.clone().into_iter().chain([digest]).collect()
    }
}

impl<'a> SafetensorsFile<'a> {
    /// Reads a file: first its version, then whether it is what was written. Nothing is copied.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let damage = |error| damage(error, bytes.len());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damage)?;
        let mut metadata: BTreeMap<String, String> =
            header.metadata().clone().unwrap_or_default().into_iter().collect();
        let schema = metadata.get(SCHEMA).ok_or(StoreError::NoPlan { key: SCHEMA })?;
        check_schema(schema, &[Schema::SAFETENSORS])?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damage)?.tensors().into_iter().map(|(name, view)| {
            let tensor = FileTensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().into() };
            (name, tensor)
        });
        let (digest, tensors) = (metadata.remove(DIGEST), tensors.collect());
        let file = Self { tensors, metadata };
        match digest {
            Some(digest) if digest != file.digest() => Err(StoreError::Tampered),
            _ => Ok(file),
        }
    }

    pub(super) fn description(&self, key: &'static str) -> Result<&str, StoreError> {
        self.metadata.get(key).map(String::as_str).ok_or(StoreError::NoPlan { key })
    }

    fn digest(&self) -> String {
        let mut digest = FieldDigest::of(&self.metadata);
        for (name, tensor) in &self.tensors {
            digest.field(name.as_bytes());
            digest.field(format!("{:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
            digest.field(&tensor.bytes);
        }
        digest.finish()
    }
}

/// safetensors' errors in our words; the file has so many bytes.
fn damage(error: SafeTensorError, len: usize) -> StoreError {
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            StoreError::Truncated { reason: format!("its {len} bytes end within the header") }
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            StoreError::Truncated { reason: format!("its {len} bytes are not those of the tensors that it lists") }
        }
        SafeTensorError::HeaderTooLarge => StoreError::NotSafetensors,
        other => StoreError::Damaged { reason: other.to_string() },
    }
}
