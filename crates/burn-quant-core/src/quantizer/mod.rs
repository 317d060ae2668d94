//! The quantizer of one tensor.
//!
//! * [`TensorQuantizer`] a burn module: configuration, tensors, on or off; `forward` what it makes of a tensor
//! * [`Buffer`] the tensors it keeps
//! * [`Tap`] the one hook: what watches a model sees its tensors here
//! * `two_scales` rounding between two learned scales; `groups` sums over groups, and their values spread over elements
//! * [`packed`] codes in the place of a float weight
//! * `handshake` how a traversal by burn hands quantizers over

mod any_tensor;
pub mod bias;
mod buffers;
mod forward;
pub mod groups;
pub(crate) mod handshake;
mod module;
pub mod packed;
pub mod parameter;
mod rows;
mod tap;
mod tensor_quantizer;
mod two_scales;

pub use any_tensor::AnyTensor;
pub use buffers::Buffer;
pub use tap::{Bypass, Flow, LayerCall, Product, Tap};
pub use tensor_quantizer::TensorQuantizer;
