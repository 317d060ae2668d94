//! A small CNN on real images, quantized: the pieces of the example, and [`run`] that puts them together.
//!
//! * [`data`] 6000 images from disk
//! * [`model`] two convolutions and two linear layers with activation quantizers
//! * [`train`] an ordinary burn training loop, the same for float and quantized models
//! * [`experiment`] train, quantize, fine-tune, save, restore, compare
//! * [`resnet`], [`low_bit`] a residual network of 20 layers with 4, 3 and 2 bits, whose step sizes are learned

pub mod data;
pub mod device;
pub mod experiment;
pub mod low_bit;
pub mod model;
pub mod resnet;
pub mod train;

pub use experiment::{Options, Results, run};
