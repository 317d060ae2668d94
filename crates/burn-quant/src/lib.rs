//! Quantization of burn models: post-training quantization and quantization-aware training, on every burn backend.
//!
//! ```text
//! model + QuantConfig
//!   │ prepare   fold batch norms, equalize neighbours: float layers, the same outputs    -> model
//!   │ place     attach quantizers to weights, configure all; nothing is rounded yet     -> model + Plan
//!   │ observe   run calibration batches through the float model, once                   -> statistics
//!   │ solve     statistics -> ranges, smoothed and corrected weights                    -> quantized model + Report
//!   ├─ search   the best format of each layer within a budget of bits                     -> quantized model + SearchState
//!   ├─ train    the user's own loop: fake-quantized forward, straight-through backward  -> weights adapt (QAT)
//!   │ fold      quantize the weights for good                                           -> plain model
//!   ▼           `burn-quant-store` saves and restores weights and quantizers
//! ```
//!
//! [`quantize`] places, observes and solves. The quantized model has the type of the float model and is used like it: trained,
//! moved, cloned, saved.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
//! use burn::module::Module;
//! use burn::tensor::{Device, Distribution, Tensor, activation::relu};
//! use burn_quant::{QuantConfig, nn, quantize, summary}; // `nn` was burn's
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
//! let model = Mlp { fc1: linear(8, 16), fc2: linear(16, 4) };
//! let batches: Vec<_> = (0..4).map(|_| Tensor::random([2, 8], Distribution::Normal(0.0, 1.0), &device)).collect();
//!
//! let (model, _report) = quantize(model, &QuantConfig::int8_default(), |model| {
//!     for batch in &batches {
//!         model.forward(batch.clone());
//!     }
//! })?;
//! println!("{}", summary(&model)); // every quantizer that is on: format, granularity, amax
//! # Ok(()) }
//! # #[cfg(not(feature = "flex"))] fn main() {}
//! ```
//!
//! # Weights of unmodified models
//!
//! A weight quantizer is a burn [`Reparameterization`](burn::module::Reparameterization) and needs no change of the model:
//! weight-only configurations work on `burn_nn::Linear`, `Conv2d`, `MultiHeadAttention`, `Lstm`, and on any container whose
//! weights a [`WeightLayouts`] table knows. Activations need a quantizer in the model: the layers of [`nn`], or a
//! [`TensorQuantizer`] field in a struct of yours.

pub mod train;

pub use burn_quant_calibrate::config::{
    Algorithm, BinWidth, ColumnOrder, HistogramConfig, Identity, Inputs, Preset, QuantConfig, RangeSearch, Sharing,
    Unscaled, Zeros,
};
pub use burn_quant_calibrate::observe::{
    BiasStatistics, BlockHistogram, ChannelStatistics, Gram, GramMatrix, Histogram, InputStatistics, ModelStatistics,
    Statistics, StatisticsRequest, observe_weights,
};
pub use burn_quant_calibrate::pipeline::{
    Progress, Quantization, Report, Warning, calibrate, observe, quantize, quantize_weights,
};
pub use burn_quant_calibrate::solve::{
    CalibrationAlgorithm, KernelProblem, LayerInput, LayerProblem, LayerReport, SkipReason, Solution, Stage, StepReport,
};
pub use burn_quant_calibrate::{prepare, solve};
pub use burn_quant_core::config::{
    Action, AfterRounding, BiasConfig, BiasMethod, BiasSource, Granularity, QuantizerConfig, Range, Rotation, Rounding,
    Rule,
};
pub use burn_quant_core::error::{ImportProblem, InvalidConfig, NotScoredReason, QuantError};
pub use burn_quant_core::fold::{fold_to_burn, fold_weights, with_folded_weights};
pub use burn_quant_core::layout::{Role, WeightLayout, burn_layer_name};
pub use burn_quant_core::model::{Quantizers, quantizer_devices};
pub use burn_quant_core::place::{Plan, PlannedQuantizer, WeightLayouts, disable, enable, install_plan, place};
pub use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
pub use burn_quant_core::summary::{Summary, summary};
pub use burn_quant_nn as nn;
pub use burn_quant_ops as ops;
pub use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};
pub use burn_quant_ops::{AxisGroups, GradientRule};
pub use burn_quant_search as search;

/// The one hook into a model: what watches its tensors.
pub mod tap {
    pub use burn_quant_core::model::{Watched, watch};
    pub use burn_quant_core::quantizer::{AnyTensor, Bypass, Flow, LayerCall, Product, Tap};
}
