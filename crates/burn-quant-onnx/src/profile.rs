//! Runtimes, and what each wants.

/// Which runtime a file is written for, where what one runs in integers another refuses.
///
/// Both files compute the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// ONNX Runtime: INT8 activations are stored with a zero point of 128, as are INT8 weights unless they are to have
    /// signs, and biases of matrices are subtracted, as its integer kernels want it.
    #[default]
    OnnxRuntime,
    /// TensorRT: zero points are 0. Not tried there.
    TensorRt,
}
