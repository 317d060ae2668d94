//! A small CNN on real images, quantized: the pieces of the example, and [`run`] that puts them together.
//!
//! * [`data`] 6000 images from disk
//! * [`model`] two convolutions and two linear layers with slots for activation quantizers
//! * [`train`] an ordinary burn training loop, the same for float and quantized models
//! * [`experiment`] train, quantize, fine-tune, save, restore, compare

pub mod data;
pub mod experiment;
pub mod model;
pub mod train;

pub use experiment::{Options, Results, run};
