//! ONNX files of burn models, quantized or not.
//!
//! ```text
//! model, inputs, forward ──► Graph ──► lowering ──► OnnxModel ──► file
//!                                        │
//!                                        ├─ a weight with a quantizer     codes, DequantizeLinear
//!                                        └─ a quantizer of activations    QuantizeLinear, DequantizeLinear
//! ```
//!
//! * `export` from a model to a file
//! * `lower` burn's operations as those of ONNX
//! * `model` nodes, initializers, and their bytes in a file
//! * `profile` runtimes, and what each wants
//! * `proto` the wire format of protobuf, as far as it is written here
//!
//! Shapes are those that were captured, except for axes that are free: captures at several sizes find those.
//!
//! Source: the specification of ONNX, <https://onnx.ai/onnx/operators>, `onnx.proto`.

mod error;
mod export;
mod lower;
mod model;
mod profile;
mod proto;

pub use error::OnnxError;
pub use export::{Exporter, export};
pub use model::{ElementType, OnnxModel};
pub use profile::Profile;
