//! The quantizer of one tensor, and how those of a model are found.
//!
//! * [`TensorQuantizer`] a burn module: configuration, range, and whether it quantizes or observes
//! * `discover` how a traversal by burn hands quantizers over, with their names
//! * [`Quantizers`] all quantizers of a model: taken out as plain data, edited, put back

mod discover;
mod observer;
mod quantizers;
mod tensor_quantizer;

pub(crate) use discover::{Frame, quantizer_name};
pub(crate) use observer::Observer;
pub use quantizers::Quantizers;
pub(crate) use tensor_quantizer::Mode;
pub use tensor_quantizer::{Role, TensorQuantizer};
