//! What can go wrong with an export.

use burn_quant_graph::GraphError;

/// Why a model has no ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The model could not be captured.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An operation that is not one of ONNX, or that this crate does not write.
    #[error("`{operation}`{layer} has no form in ONNX here: {reason}")]
    NoLowering {
        /// The operation.
        operation: String,
        /// Of which parameters, or nothing.
        layer: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Another number of names than there are inputs, outputs or free axes.
    #[error("the model has {expected} {boundary}, found {found} names")]
    Names {
        /// Inputs, outputs or free axes.
        boundary: &'static str,
        /// How many it has.
        expected: usize,
        /// How many names there are.
        found: usize,
    },
    /// A name that several inputs or outputs, or several free axes, would have, or one without letters.
    #[error("`{name}` is no name for one of the {boundary}: each has one of its own")]
    Name {
        /// Inputs and outputs, or free axes.
        boundary: &'static str,
        /// The name.
        name: String,
    },
    /// An opset that files of this crate do not have.
    #[error("opset {found} is not written; ask for {} to {}", expected.start(), expected.end())]
    Opset {
        /// The first and the last that is.
        expected: std::ops::RangeInclusive<i64>,
        /// The one that was asked for.
        found: i64,
    },
    /// The file was not written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}
