//! Why a file could not be written or restored.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use burn_quant_core::error::{NotPackedReason, QuantError};
use burn_quant_core::layout::Role;
use thiserror::Error;

use crate::Schema;

/// Why a model could not be saved or restored; every variant says what, and what to do.
///
/// `Debug` prints the sentence of `Display`, with those of the causes after it: what `fn main() -> Result<_, Box<dyn
/// Error>>` shows.
#[derive(Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file could not be opened.
    #[error("cannot read `{}`: it is missing, or may not be read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The path is that of a folder.
    #[error("`{}` is a folder: give the path of a file in it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("cannot write `{}`: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What a file holds cannot be read, or is of another model.
    #[error("`{}`: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// The bytes are not burnpack.
    #[error("not a burnpack file: it starts with other bytes, or is of another version of the container")]
    NotBurnpack,
    /// The bytes are not safetensors.
    #[error("not a safetensors file: it begins with no header of at most 100 MB")]
    NotSafetensors,
    /// The file ends before its header says.
    #[error("the file is cut short: {reason}; copy it again")]
    Truncated {
        /// What is missing.
        reason: String,
    },
    /// Tensors, plan or versions are not what was written.
    #[error("the contents do not match their digest: the file was changed or damaged after it was saved")]
    Tampered,
    /// The container is readable, its description of the contents is not.
    #[error("the file's metadata is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// A burnpack file of something else.
    #[error("the file holds no quantized model (no `{key}` in its metadata): load it with burn's `load_record`")]
    NotQuantized {
        /// The metadata that is missing.
        key: &'static str,
    },
    /// A safetensors file of something else.
    #[error(
        "the safetensors file holds no quantized model of burn-quant (no `{key}` in its metadata): load float weights \
         with `burn-store`, and folders of other systems with `burn-quant-checkpoint`"
    )]
    NoPlan {
        /// The metadata that is missing.
        key: &'static str,
    },
    /// A burnpack file of something else than statistics.
    #[error("the file holds no statistics (no `{key}` in its metadata): give one that `save_statistics` wrote")]
    NotStatistics {
        /// The metadata that is missing.
        key: &'static str,
    },
    /// A burnpack file of something else than a search.
    #[error("the file holds no search (no `{key}` in its metadata): give one that `save_search` wrote")]
    NotSearch {
        /// The metadata that is missing.
        key: &'static str,
    },
    /// A file of another major version of the schema.
    #[error("the file has schema {found}, and this crate reads {supported}: use a crate version of the same major")]
    OtherMajor {
        /// In the file.
        found: Schema,
        /// What this crate writes.
        supported: Schema,
    },
    /// A file of a newer minor version of the schema.
    #[error("the file has schema {found}, and this crate reads up to {supported}: update burn-quant-store")]
    NewerMinor {
        /// In the file.
        found: Schema,
        /// What this crate writes.
        supported: Schema,
    },
    /// The model lacks quantizers of the file.
    #[error("the model has no place for {} of the file's quantizers, first `{}`: it is another model", names.len(),
        names[0])]
    MissingQuantizers {
        /// Their names, at least one.
        names: Vec<String>,
    },
    /// The model has quantizers that the file lacks.
    #[error("the file says nothing of {} of the model's quantizers, first `{}`: it is of another model", names.len(),
        names[0])]
    UnexpectedQuantizers {
        /// Their names, at least one.
        names: Vec<String>,
    },
    /// The file lacks parameters of the model.
    #[error("the file lacks {} of the model's parameters, first `{}`: it is of another model", paths.len(), paths[0])]
    MissingTensors {
        /// Their paths, at least one.
        paths: Vec<String>,
    },
    /// The file has tensors that the model has no parameter for.
    #[error("the model has no parameter for {} of the file's tensors, first `{}`: it is another model", paths.len(),
        paths[0])]
    UnexpectedTensors {
        /// Their paths, at least one.
        paths: Vec<String>,
    },
    /// A tensor of the file has another shape than the model's parameter.
    #[error("`{path}` is {expected:?} in the model and {found:?} in the file: {}", advice(expected, found))]
    Shape {
        /// The path of the parameter.
        path: String,
        /// In the model.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor of the file is not of the kind that it must be.
    #[error("`{path}` is {found:?} in the file, and must be {expected}: the file was not written by this crate")]
    Dtype {
        /// The path of the parameter or buffer.
        path: String,
        /// The kind.
        expected: &'static str,
        /// In the file.
        found: DType,
    },
    /// A tensor of a safetensors file has another type of elements than it must have.
    #[error("`{path}` is {found} in the file, and must be {expected}: the file was changed, or written by others")]
    ElementType {
        /// The name of the tensor.
        path: String,
        /// The type that it must have.
        expected: String,
        /// In the file.
        found: String,
    },
    /// A tensor of a safetensors file has another shape than the metadata of the file says.
    #[error("`{path}` has shape {found:?} in the file, and its metadata says {expected:?}: copy the file again")]
    StoredShape {
        /// The name of the tensor.
        path: String,
        /// By the metadata.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// The scale of a tensor is not that of its range.
    #[error("`{path}` is {found:e}, and by the range of the tensor it is {expected:e}: the file was changed")]
    TensorScale {
        /// The name of the scale.
        path: String,
        /// The scale of the range.
        expected: f32,
        /// In the file.
        found: f32,
    },
    /// Two tensors of a safetensors file would have one name.
    #[error("two tensors of the model are called `{name}` in the file: give the parameter another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A parameter has elements that safetensors has no type for.
    #[error("`{path}` holds {found:?}, which safetensors has no type for: `save` writes it in burnpack")]
    NoElementType {
        /// The path of the parameter.
        path: String,
        /// The type of its elements.
        found: DType,
    },
    /// A quantizer of the file is for other tensors than the model's of that name.
    #[error(
        "the quantizer `{name}` is for {found:?} in the file, and {} in the model: it is another model",
        of(expected)
    )]
    Role {
        /// The quantizer.
        name: String,
        /// In the model.
        expected: Option<Role>,
        /// In the file.
        found: Role,
    },
    /// Two paths of the file are renamed to one.
    #[error("two paths of the file are renamed to `{path}`: give each a path of its own")]
    SamePath {
        /// The path in the model.
        path: String,
    },
    /// A static quantizer that is on has no range in the file.
    #[error("the file has no range or bias for the static quantizer `{name}`")]
    MissingRange {
        /// The quantizer.
        name: String,
    },
    /// A range of the file is negative, infinite or not a number.
    #[error("the range of `{name}` holds {found}: ranges are finite and not negative")]
    BadRange {
        /// The quantizer.
        name: String,
        /// The value.
        found: f32,
    },
    /// A bias or a scale of the file is infinite or not a number.
    #[error("the {buffer} of `{name}` holds {found}: it is finite in a sound file")]
    BadBuffer {
        /// The quantizer.
        name: String,
        /// Which of its tensors.
        buffer: &'static str,
        /// The value.
        found: f32,
    },
    /// The model holds packed weights already.
    #[error("`{path}` of the model is packed: restore into a model that is built fresh in float")]
    Packed {
        /// The path of the weight.
        path: String,
    },
    /// Codes and scales of the file are not those of a weight that the quantizer rounds.
    #[error("the packed weight `{path}` is damaged, or its quantizer is another: {source}")]
    PackedWeight {
        /// The path of the weight.
        path: String,
        /// What is wrong.
        source: NotPackedReason,
    },
    /// The quantizers do not fit the model.
    #[error("the file's quantizers do not fit the model")]
    Quantizers(#[from] QuantError),
    /// burn could not load the tensors.
    #[error("burn refused the record: {reason}")]
    Record {
        /// burn's words.
        reason: String,
    },
}

impl std::fmt::Debug for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            if !text.ends_with(&reason) {
                text = format!("{text}: {reason}"); // some sentences say it already
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl StoreError {
    /// Returns what is wrong, whichever file it is in.
    ///
    /// The error itself, or the one that [`InFile`](StoreError::InFile) says the file of.
    pub fn reason(&self) -> &StoreError {
        match self {
            StoreError::InFile { source, .. } => source.reason(),
            error => error,
        }
    }

    /// Says which file it is in, unless it does already.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            error @ (Self::Open { .. } | Self::Folder { .. } | Self::Write { .. } | Self::InFile { .. }) => error,
            error => Self::InFile { path: path.into(), source: Box::new(error) },
        }
    }
}

/// What to do about a shape.
fn advice(expected: &[usize], found: &[usize]) -> &'static str {
    match expected.iter().rev().eq(found) && expected.len() > 1 {
        true => {
            "it looks transposed, as in a checkpoint of another framework: load that with an adapter of `burn-store`"
        }
        false => "build the model with the same sizes",
    }
}

/// What a quantizer of the model is for.
fn of(role: &Option<Role>) -> String {
    role.map_or_else(|| "absent".into(), |role| format!("for {role:?}"))
}
