//! What may be wrong with a checkpoint.

use std::path::PathBuf;

use crate::dtype::Dtype;

/// What is wrong with a checkpoint, or with what should become one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file or folder that cannot be read or written.
    #[error("`{}` cannot be read or written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that is not JSON, or whose JSON has another structure than expected.
    #[error("`{file}` is not the JSON that it should be")]
    Json {
        /// The file.
        file: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that is not safetensors.
    #[error("`{file}` is not a safetensors file")]
    Safetensors {
        /// The file.
        file: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A folder without weights.
    #[error("`{}` has no `*.safetensors`: expected the folder of a Hugging Face model", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that is shorter than it says.
    #[error("`{file}` ends at byte {len}, and {what} of {wanted} bytes begins at byte {at}")]
    Truncated {
        /// The file.
        file: String,
        /// What is cut off.
        what: String,
        /// The length of the file.
        len: u64,
        /// Where it begins.
        at: u64,
        /// How long it is.
        wanted: u64,
    },
    /// A tensor or a key that is not there.
    #[error("there is no `{name}`{}", nearest(near_misses))]
    Missing {
        /// What is missing.
        name: String,
        /// The most similar names that are there.
        near_misses: Vec<String>,
    },
    /// A name that is there twice.
    #[error("`{name}` is there twice: in `{first}` and in `{second}`")]
    Twice {
        /// The name.
        name: String,
        /// The one file.
        first: String,
        /// The other file.
        second: String,
    },
    /// A tensor of another type than expected.
    #[error("`{name}` has the type {found}, expected {expected}")]
    Dtype {
        /// The tensor.
        name: String,
        /// The types that are read here.
        expected: &'static str,
        /// Its type.
        found: Dtype,
    },
    /// A tensor of another shape than expected.
    #[error("`{name}` has the shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape that it should have, in words or numbers.
        expected: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A value of a configuration that is not known here.
    #[error("{what} is `{found}`; known are {known}")]
    Unknown {
        /// The key, or what it is about.
        what: String,
        /// Its value.
        found: String,
        /// The values that are known.
        known: &'static str,
    },
    /// A value of a configuration that is missing, or of another kind.
    #[error("`{key}` is {found}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Two parts of a checkpoint that cannot both be right.
    #[error("`{name}` {one}, and {other}")]
    Contradiction {
        /// The layer.
        name: String,
        /// What the one part says.
        one: String,
        /// What the other says.
        other: String,
    },
    /// A layer that is said not to be quantized, and is.
    #[error("`{name}` has quantized tensors, and the configuration says that it has none: it is in `{key}`")]
    Ignored {
        /// The layer.
        name: String,
        /// The key of the configuration that lists it.
        key: &'static str,
    },
    /// A quantized layer of which the configuration does not say how.
    #[error("`{name}` has quantized tensors, and no group of the configuration targets it")]
    Untargeted {
        /// The layer.
        name: String,
    },
    /// A scale that is not a number.
    #[error("`{name}` holds a scale of {found}, expected finite numbers")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The scale.
        found: f32,
    },
    /// An integer that means nothing, such as a group of which there are fewer.
    #[error("`{name}` holds {found}, expected {expected}")]
    Element {
        /// The tensor.
        name: String,
        /// What its elements should be.
        expected: String,
        /// The element.
        found: i64,
    },
    /// Something that the format cannot hold.
    #[error("`{name}` cannot be written as {format}: {reason}")]
    NotExportable {
        /// The layer or tensor.
        name: String,
        /// The format.
        format: &'static str,
        /// Why not.
        reason: NotExportable,
    },
    /// A file that is not GGUF.
    #[error("`{file}` is not GGUF: it begins with {found:?}")]
    Magic {
        /// The file.
        file: String,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// A version that is not known.
    #[error("`{file}` has version {found} of its format, expected {expected}")]
    Version {
        /// The file.
        file: String,
        /// The known version.
        expected: &'static str,
        /// Its version.
        found: u32,
    },
}

/// Why a format cannot hold something.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotExportable {
    /// A number format that it has not.
    #[error("the format has no {found}, only {known}")]
    Format {
        /// The number format.
        found: String,
        /// Those that it has.
        known: &'static str,
    },
    /// An axis that is not a whole number of blocks.
    #[error("its {len} {axis} are no whole number of blocks of {block}")]
    Ragged {
        /// `inputs` or `outputs`.
        axis: &'static str,
        /// Their number.
        len: usize,
        /// The block.
        block: usize,
    },
    /// More axes than a tensor may have.
    #[error("it has {found} axes, expected at most {most}")]
    Axes {
        /// Their number.
        found: usize,
        /// The highest number.
        most: usize,
    },
    /// Blocks of a size that it has not.
    #[error("its blocks have {found} elements, expected {expected}")]
    Block {
        /// The size.
        found: usize,
        /// The size that it has.
        expected: &'static str,
    },
    /// A zero point outside the codes, or between them.
    #[error("it has a zero point of {found}, expected an integer from {least} to {most}")]
    ZeroPoint {
        /// The zero point.
        found: f32,
        /// The least code.
        least: i32,
        /// The highest code.
        most: i32,
    },
    /// A scale for inputs that its layers have not.
    #[error(
        "its inputs are scaled before they are quantized, which can be neither stored nor folded into the layer before"
    )]
    PreQuantScale,
    /// A branch of low rank.
    #[error("it has a branch of low rank")]
    LowRank,
    /// A tensor that other layers share.
    #[error("it is tied to `{with}`, which is not quantized")]
    Tied {
        /// The other name.
        with: String,
    },
    /// A value that is not a number.
    #[error("{what} is {found}")]
    NotANumber {
        /// What it is.
        what: &'static str,
        /// Its value.
        found: f32,
    },
    /// A scale or minimum that is not finite in f16.
    #[error("it has a scale or minimum of {found}, which f16 cannot hold: it ends at 65504")]
    HalfScale {
        /// The scale or minimum.
        found: f32,
    },
    /// A value that is not finite in f16.
    #[error("it has an element of {found:e}, which f16 cannot hold: it ends at 65504")]
    HalfElement {
        /// The element.
        found: f32,
    },
    /// A byte that is no code of its element.
    #[error("it has the code {found}, which is none of {element}")]
    Code {
        /// The byte.
        found: u8,
        /// The element.
        element: String,
    },
    /// A quantizer without a range.
    #[error("its {quantizer} was never calibrated")]
    Uncalibrated {
        /// The quantizer.
        quantizer: &'static str,
    },
    /// Settings of layers that share an input, which differ.
    #[error("it is {found}, and `{sibling}`, which shares its input, is {other}")]
    Siblings {
        /// Its format.
        found: String,
        /// The other layer.
        sibling: String,
        /// The other's format.
        other: String,
    },
}

/// A tensor of another shape than expected.
pub(crate) fn shape(name: &str, expected: impl Into<String>, found: &[usize]) -> CheckpointError {
    CheckpointError::Shape { name: name.into(), expected: expected.into(), found: found.into() }
}

/// Refuses scales of which one is not a number.
pub(crate) fn finite(name: &str, scales: &[f32]) -> Result<(), CheckpointError> {
    match scales.iter().find(|scale| !scale.is_finite()) {
        Some(found) => Err(CheckpointError::NotFinite { name: name.into(), found: *found }),
        None => Ok(()),
    }
}

fn nearest(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; most similar: {}", names.join(", ")),
    }
}

/// The three names that are most similar to one.
pub(crate) fn near_misses<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<(f64, &str)> = names.map(|other| (-strsim::jaro_winkler(name, other), other)).collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.into_iter().take(3).filter(|(score, _)| *score < -0.7).map(|(_, name)| name.to_string()).collect()
}
