//! One graph of a model: what a forward pass does, captured once.
//!
//! ```text
//! model, inputs, forward ──► capture ──► Graph ──► Replay: any backend, equal to the model bit for bit
//!                                          ├─────► GraphModel: a module with quantizers at its products
//!                                          ├─────► products, siblings, costs: what the graph is asked
//!                                          └─────► text, DOT
//! ```
//!
//! * `capture` records a forward pass
//! * `axes` axes of any size, from captures that differ in them
//! * `compare` whether two captures are one pass
//! * `rows` linear layers that are recorded in two ways
//! * `length` the lengths of tensors at other sizes
//! * `graph` nodes, values and names
//! * `values` tensors of a model's inputs and outputs
//! * `replay` runs a graph
//! * `model` a model out of a graph: unmodified networks, quantized
//! * `products` linear layers, convolutions and other products, however they were recorded
//! * `name` operations in words
//! * `text` a graph to read
//!
//! A captured graph is the model at the sizes of its inputs; captured once more for each size that is to be free, it is
//! the model at all of them. Batch norms, dropout and quantizers are as in inference: what `valid()` makes of the model
//! is captured.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use burn::module::Module;
//! use burn::tensor::{Device, Distribution, Tensor, activation::relu};
//! use burn_quant::{nn, presets, quantize};
//! use burn_quant_graph::capture;
//!
//! #[derive(Module, Debug)]
//! struct Mlp { fc1: nn::Linear, fc2: nn::Linear }
//!
//! impl Mlp {
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         self.fc2.forward(relu(self.fc1.forward(x)))
//!     }
//! }
//!
//! let device = Device::flex();
//! let linear = |d_in, d_out| nn::LinearConfig::new(d_in, d_out).init(&device);
//! let x = Tensor::random([2, 8], Distribution::Normal(0.0, 1.0), &device);
//! let model = Mlp { fc1: linear(8, 16), fc2: linear(16, 4) };
//! let (model, _) = quantize(model, &presets::int8_default(), |model| drop(model.forward(x.clone())))?;
//!
//! let graph = capture(&model, x.clone(), Mlp::forward)?;
//! let products: Vec<_> = graph.products().iter().map(|product| product.weight.clone()).collect();
//! assert_eq!(products, [Some("fc1.weight".to_string()), Some("fc2.weight".to_string())]);
//!
//! let mut replay = graph.replay(&device)?;
//! let y: Tensor<2> = replay.run(x.clone())?;
//! assert_eq!(y.to_data(), model.forward(x).to_data());
//! # Ok(()) }
//! # #[cfg(not(feature = "flex"))] fn main() {}
//! ```

mod axes;
mod capture;
mod compare;
mod error;
mod graph;
mod length;
mod model;
mod name;
mod pairs;
mod products;
mod replay;
mod rows;
mod text;
mod values;

pub use burn::backend::ir;
pub use burn_quant_ops::RecordedOp;

pub use axes::{capture_with_free_axes, capture_with_free_axis};
pub use capture::capture;
pub use error::GraphError;
pub use graph::Graph;
pub use length::{FreeAxis, FreeRange, Length};
pub use model::GraphModel;
pub use name::operation_name;
pub use products::{Product, ProductKind};
pub use replay::Replay;
pub use values::{AnyTensor, Tensors, Values};
