//! What can go wrong with a graph.

use burn::tensor::DType;

/// Why a model was not captured, or a graph does not run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The forward pass stopped: it read a value, or used a tensor that is not on the device of its inputs.
    #[error(
        "the forward pass cannot be captured: {reason}, after {after}. A captured pass computes no values: it cannot \
         read them, and it uses tensors of the model and of its inputs alone"
    )]
    Forward {
        /// What burn, or the model, says.
        reason: String,
        /// The last operation that was recorded, and of which parameters.
        after: String,
    },
    /// burn refused the boundaries of the graph.
    #[error("the forward pass cannot be captured: {reason}")]
    Boundary {
        /// burn's words.
        reason: String,
    },
    /// An output of the forward pass is none of its operations: a parameter or an input is returned as it is.
    #[error("output {index} of the forward pass is no result of an operation")]
    Output {
        /// Which of the outputs.
        index: usize,
    },
    /// Captures differ in something else than one size each.
    #[error("the size of an axis is not free: {what}")]
    Varies {
        /// What differs.
        what: String,
    },
    /// A tensor whose length is no product of the free sizes.
    #[error(
        "`{operation}` has a tensor of {:?} where the free sizes are {:?}, and of {:?} where they are {:?}: axis \
         {axis} is no product of them. Capture one size of what is added to, taken from or halved there, or free \
         another axis",
        .shapes[0], .sizes[0], .shapes[1], .sizes[1]
    )]
    NoProduct {
        /// The operation that reads or makes the tensor.
        operation: String,
        /// The axis.
        axis: usize,
        /// The shape in the first capture, and in another.
        shapes: [Box<[usize]>; 2],
        /// The sizes of the free axes in the first capture, and in the other.
        sizes: [Box<[usize]>; 2],
    },
    /// A constant that the forward pass makes for the size of its inputs.
    #[error(
        "`{operation}` reads a constant of {shape:?}, which is another where the free sizes are {other_sizes:?}, not \
         {sizes:?}; compute it from an input, or make it one"
    )]
    ConstantOfSize {
        /// The operation that reads the constant.
        operation: String,
        /// The shape of the constant in the first capture.
        shape: Vec<usize>,
        /// The sizes of the free axes in the first capture.
        sizes: Vec<usize>,
        /// The sizes of the free axes in the other capture.
        other_sizes: Vec<usize>,
    },
    /// A graph that is quantized already, where a float one is made into a model.
    #[error("the graph has the quantizer of {name} already; capture the float model and quantize the graph's")]
    Quantized {
        /// A parameter whose quantizer is in the graph, or an activation.
        name: String,
    },
    /// Another number of tensors than the graph has.
    #[error("the graph has {expected} {boundary}, found {found}")]
    Count {
        /// Inputs or outputs.
        boundary: &'static str,
        /// How many it has.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A tensor of another shape than was captured.
    #[error(
        "input {index} has the shape {expected:?} in the graph, found {found:?}; capture the model with this shape"
    )]
    Shape {
        /// Which of the inputs.
        index: usize,
        /// The shape that was captured.
        expected: Vec<usize>,
        /// The shape of the tensor.
        found: Vec<usize>,
    },
    /// A tensor of another dtype than was captured.
    #[error("input {index} is {expected:?} in the graph, found {found:?}")]
    Dtype {
        /// Which of the inputs.
        index: usize,
        /// The dtype that was captured.
        expected: DType,
        /// The dtype of the tensor.
        found: DType,
    },
    /// An output that is asked for with another rank or kind than it has.
    #[error("output {index} has {found}, and {expected} is asked for")]
    OutputType {
        /// Which of the outputs.
        index: usize,
        /// What is asked for.
        expected: String,
        /// What the graph has.
        found: String,
    },
    /// A device that graphs do not run on.
    #[error("graphs do not run on {device}; they do on Flex and on the CubeCL backends whose features are on")]
    Device {
        /// The device.
        device: String,
    },
    /// A tensor that is not on the device of the replay.
    #[error("input {index} is not on the device of the replay, or under autodiff: {reason}")]
    Elsewhere {
        /// Which of the inputs.
        index: usize,
        /// burn's words.
        reason: String,
    },
}
