//! The quantizer of one tensor, and how those of a model are found.
//!
//! * [`TensorQuantizer`] a burn module: configuration, range, and whether it quantizes or observes; `forward` what it makes of a tensor
//! * [`Buffer`] the tensors it keeps
//! * `discover` how a traversal by burn hands quantizers over, with their names
//! * [`Quantizers`] all quantizers of a model: taken out as plain data, edited, put back

mod bias;
mod buffers;
mod discover;
mod forward;
mod module;
mod observer;
mod operand;
#[cfg(feature = "autodiff")]
mod probe;
mod quantizers;
mod role;
mod tensor_quantizer;

pub use buffers::Buffer;
pub(crate) use discover::{Frame, quantizer_name};
pub(crate) use observer::{Observer, Seen};
pub(crate) use operand::Operand;
#[cfg(feature = "autodiff")]
pub(crate) use probe::Prober;
pub use quantizers::Quantizers;
pub use role::Role;
pub use tensor_quantizer::TensorQuantizer;
pub(crate) use tensor_quantizer::{Mode, Moment};
