//! The file: versions, metadata, digest.

use std::collections::BTreeMap;
use std::path::Path;

use burn_pack::{Bytes, EXTENSION, Error, Reader, Tensor, Writer};
use sha2::{Digest, Sha256};

use crate::{Schema, StoreError};

pub(crate) const SCHEMA: &str = "burn-quant.schema";
pub(crate) const VERSION: &str = "burn-quant.version";
pub(crate) const PLAN: &str = "burn-quant.plan";
const PACKED: &str = "burn-quant.packed";
const STATISTICS: &str = "burn-quant.statistics";
#[cfg(feature = "search")]
const SEARCH: &str = "burn-quant.search";
pub(crate) const DIGEST: &str = "burn-quant.digest";

/// Whether this crate reads files of a version; `known` has the newest of each major that it reads.
pub(crate) fn check_schema(text: &str, known: &[Schema]) -> Result<(), StoreError> {
    let found = Schema::parse(text)
        .ok_or_else(|| StoreError::Damaged { reason: format!("`{text}` is not a schema version") })?;
    let Some(&supported) = known.iter().find(|known| known.major == found.major) else {
        return Err(StoreError::OtherMajor { found, supported: known[0] });
    };
    match found.minor > supported.minor {
        true => Err(StoreError::NewerMinor { found, supported }),
        false => Ok(()),
    }
}

/// The bytes of a burnpack file; a path without an extension may be that of one with `.bpk`.
pub(crate) fn read(path: &Path) -> Result<Bytes, StoreError> {
    read_with_extension(path, EXTENSION).map(Bytes::from_bytes_vec)
}

/// The bytes of a file; a path without an extension may be that of one with the given one.
pub(crate) fn read_with_extension(path: &Path, extension: &str) -> Result<Vec<u8>, StoreError> {
    let path = match path.extension() {
        None if !path.exists() => path.with_extension(extension),
        _ => path.to_path_buf(),
    };
    if path.is_dir() {
        return Err(StoreError::Folder { path });
    }
    std::fs::read(&path).map_err(|source| StoreError::Open { path, source })
}

/// Writes a file; a path without an extension gets `.bpk`, any other stays as it is.
pub(crate) fn write(contents: Contents, kind: Kind, path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(StoreError::Folder { path: path.into() });
    }
    let written = contents.pack(kind)?.write_to_file(path);
    written.map_err(|e| StoreError::Write { path: path.into(), reason: e.to_string() })
}

/// Gives a file that was changed the digest of what it holds now: for tests of what lies behind the digest, which finds
/// damage and is no signature.
#[doc(hidden)]
pub fn with_new_digest(bytes: Bytes) -> Result<Bytes, StoreError> {
    let reader = Reader::from_bytes(bytes).map_err(damage)?;
    let mut metadata = reader.metadata().clone();
    metadata.remove(DIGEST);
    let tensors = reader.into_tensors().map_err(damage)?;
    let digest = digest(&metadata, &tensors)?;
    metadata.insert(DIGEST.to_string(), digest);
    let writer = metadata.iter().fold(Writer::new(tensors), |writer, (key, value)| writer.with_metadata(key, value));
    writer.into_bytes().map_err(|e| StoreError::Record { reason: e.to_string() })
}

/// What a file describes, in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A quantized model: its plan.
    Model,
    /// What calibration saw.
    Statistics,
    /// What a search knows.
    #[cfg(feature = "search")]
    Search,
}

impl Kind {
    const fn key(self) -> &'static str {
        match self {
            Kind::Model => PLAN,
            Kind::Statistics => STATISTICS,
            #[cfg(feature = "search")]
            Kind::Search => SEARCH,
        }
    }
}

/// What a file holds.
pub(crate) struct Contents {
    pub(crate) description: String,
    /// Of a model with packed weights: what their words mean, in JSON.
    pub(crate) packed: Option<String>,
    pub(crate) tensors: Vec<Tensor>,
}

impl Contents {
    /// The file, ready to be written.
    pub(crate) fn pack(self, kind: Kind) -> Result<Writer, StoreError> {
        let schema = if self.packed.is_some() { Schema::CURRENT } else { Schema::WITHOUT_PACKED };
        let mut metadata = BTreeMap::from([
            (SCHEMA.to_string(), schema.to_string()),
            (VERSION.to_string(), env!("CARGO_PKG_VERSION").to_string()),
            (kind.key().to_string(), self.description),
        ]);
        metadata.extend(self.packed.map(|packed| (PACKED.to_string(), packed)));
        let digest = digest(&metadata, &self.tensors)?;
        let writer = Writer::new(self.tensors).with_metadata(DIGEST, &digest);
        Ok(metadata.iter().fold(writer, |writer, (key, value)| writer.with_metadata(key, value)))
    }

    /// The contents of a file, checked against its digest.
    ///
    /// The versions come first: what another version writes need not have a digest that this one understands.
    pub(crate) fn unpack(bytes: Bytes, kind: Kind) -> Result<Self, StoreError> {
        let reader = Reader::from_bytes(bytes).map_err(damage)?;
        let mut metadata = reader.metadata().clone();
        let missing = |key| match kind {
            Kind::Model => StoreError::NotQuantized { key },
            Kind::Statistics => StoreError::NotStatistics { key },
            #[cfg(feature = "search")]
            Kind::Search => StoreError::NotSearch { key },
        };
        let schema = metadata.get(SCHEMA).ok_or(missing(SCHEMA))?;
        check_schema(schema, &[Schema::CURRENT, Schema::WITHOUT_PACKED])?;
        let expected = metadata.remove(DIGEST).ok_or(StoreError::Tampered)?;
        let tensors = reader.into_tensors().map_err(damage)?;
        if digest(&metadata, &tensors)? != expected {
            return Err(StoreError::Tampered);
        }
        let description = metadata.remove(kind.key()).ok_or(missing(kind.key()))?;
        Ok(Self { description, packed: metadata.remove(PACKED), tensors })
    }
}

/// SHA-256 over metadata and tensors, each field preceded by its length, in the order of their names.
fn digest(metadata: &BTreeMap<String, String>, tensors: &[Tensor]) -> Result<String, StoreError> {
    let mut digest = FieldDigest::of(metadata);
    let mut sorted: Vec<&Tensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for tensor in sorted {
        digest.field(tensor.name.as_bytes());
        let dtype = serde_json::to_string(&tensor.dtype).expect("a dtype is plain data");
        digest.field(format!("{dtype} {:?} {:?}", tensor.shape.as_slice(), tensor.param_id).as_bytes());
        digest.field(&tensor.to_bytes().map_err(damage)?);
    }
    Ok(digest.finish())
}

/// SHA-256 over fields, each preceded by its length.
pub(crate) struct FieldDigest(Sha256);

impl FieldDigest {
    /// That of metadata, to which fields are added.
    pub(crate) fn of(metadata: &BTreeMap<String, String>) -> Self {
        let mut digest = Self(Sha256::new());
        for (key, value) in metadata {
            digest.field(key.as_bytes());
            digest.field(value.as_bytes());
        }
        digest
    }

    pub(crate) fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// burnpack's errors in our words.
pub(crate) fn damage(error: Error) -> StoreError {
    match error {
        Error::InvalidMagicNumber | Error::InvalidVersion => StoreError::NotBurnpack,
        Error::InvalidHeader => StoreError::Truncated { reason: "the header is incomplete".into() },
        Error::ValidationError(reason) if reason.contains("truncated") || reason.contains("too small") => {
            StoreError::Truncated { reason }
        }
        other => StoreError::Damaged { reason: other.to_string() },
    }
}
