//! Quantization of burn models: post-training quantization and quantization-aware training, on every burn backend.
//!
//! ```text
//! model + QuantConfig
//!   │ prepare    fold batch norms, equalize neighbours: float layers, the same outputs    -> model
//!   │ place      attach quantizers to weights, configure all; nothing is rounded yet      -> model + Plan
//!   │ calibrate  observe batches in the float model, once                                 -> statistics
//!   │            solve: ranges, smoothed and corrected weights                            -> quantized model + Report
//!   ├─ search    the best format of each layer within a budget of bits                    -> the same + SearchState
//!   ├─ train     your own loop: fake-quantized forward, straight-through backward         -> weights adapt (QAT)
//!   │ fold       round the weights for good                                               -> plain model
//!   │ compress   codes and scales in the place of weights                                 -> packed model
//!   ▼            `burn-quant-store` saves and restores weights and quantizers, or codes
//! ```
//!
//! [`quantize`] places, observes and solves. The quantized model has the type of the float model and is used like it:
//! trained, moved, cloned, saved. What most programs name is in the [`prelude`]; each subject has a module.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
//! use burn::module::Module;
//! use burn::tensor::{Device, Distribution, Tensor, activation::relu};
//! use burn_quant::{nn, presets, quantize, summary}; // `nn` was burn's
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
//! let (model, _report) = quantize(model, &presets::int8_default(), |model| {
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
//! A weight quantizer is a burn [`Reparameterization`](burn::module::Reparameterization) and needs no change of the
//! model: weight-only configurations work on `burn_nn::Linear`, `Conv2d`, `MultiHeadAttention`, `Lstm`, and on any
//! container whose weights a [`WeightLayouts`](place::WeightLayouts) table knows. Activations need a quantizer in the
//! model: the layers of [`nn`], or a [`TensorQuantizer`] field in a struct of yours.

pub use burn_quant_calibrate::config::{Algorithm, QuantConfig, presets};
pub use burn_quant_calibrate::pipeline::{quantize, quantize_weights, quantize_with};
pub use burn_quant_core::compress::compress;
pub use burn_quant_core::config::{QuantizerConfig, Rule};
pub use burn_quant_core::error::QuantError;
pub use burn_quant_core::fold::fold_weights;
pub use burn_quant_core::model::Quantizers;
pub use burn_quant_core::place::{disable, enable};
pub use burn_quant_core::quantizer::TensorQuantizer;
pub use burn_quant_core::summary::summary;

pub use burn_quant_calibrate::prepare;
pub use burn_quant_nn as nn;

/// What quantizers and algorithms are told: plain data, which recipes hold.
pub mod config {
    pub use burn_quant_calibrate::config::presets::Preset;
    pub use burn_quant_calibrate::config::{
        ActOrder, Algorithm, BinWidth, CalibrationInputs, HistogramConfig, Identity, IncludeMax, QuantConfig,
        RangeSearch, SiblingScales, Zeros,
    };
    pub use burn_quant_core::config::{
        Action, BiasConfig, BiasMethod, BiasSource, Granularity, LearnedAmax, LearnedRanges, PreScale, QuantizerConfig,
        RangeSource, Rotation, RotationOutput, Rounding, Rule,
    };
    pub use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};
    pub use burn_quant_ops::{AxisGroups, GradientRule};
}

/// Where quantizers belong: rules -> [`Plan`](place::Plan) -> a model that has them.
pub mod place {
    pub use burn_quant_core::layout::{Role, WeightLayout, burn_layer_name};
    pub use burn_quant_core::place::{
        Plan, PlannedQuantizer, WeightLayouts, disable, enable, install_plan, place, plan,
    };
}

/// The quantizers of a model, one by one and all together.
pub mod quantizer {
    pub use burn_quant_core::model::{Quantizers, quantizer_devices};
    pub use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
    pub use burn_quant_core::summary::{Summary, summary};
}

/// Calibration: data -> statistics -> ranges and layers; the report; and what an algorithm of your own needs.
pub mod calibrate {
    pub use burn_quant_calibrate::observe::{
        BiasStatistics, BlockHistogram, ChannelStatistics, Gram, GramMatrix, Histogram, InputStatistics,
        ModelStatistics, Statistics, StatisticsRequest, observe_weights,
    };
    pub use burn_quant_calibrate::pipeline::{
        Progress, QuantizeOptions, Report, Warning, calibrate, observe, quantize, quantize_weights, quantize_with,
    };
    pub use burn_quant_calibrate::solve::{
        AlgorithmOptions, CalibrationAlgorithm, CustomAlgorithms, KernelProblem, LayerInput, LayerProblem, LayerReport,
        SkipReason, Solution, Stage, StepReport, activation_headroom, affine, entropy, group_sums, histogram_mse, max,
        moving_average, percentile, smoothquant, spread_over_groups,
    };
}

pub use burn_quant_search as search;

pub mod train;

/// Rounding the weights for good.
pub mod fold {
    pub use burn_quant_core::fold::{fold_to_burn, fold_to_burn_scheme, fold_weights, with_folded_weights};
}

/// Codes in the place of floats: a quantized model -> a packed one, and back.
pub mod compress {
    pub use burn_quant_calibrate::pipeline::compress_weights;
    pub use burn_quant_core::compress::{
        CompressOptions, CompressReport, FloatInputs, PackedForm, PackedTokens, PackedWeight, TokenCodec, WeightCodes,
        WithoutPackedForm, compress, compress_with, decompress,
    };
    pub use burn_quant_core::error::NotPackedReason;
    pub use burn_quant_core::memory::{LayerMemory, MemoryReport, memory};
}

/// The one hook into a model: what watches its tensors.
pub mod tap {
    pub use burn_quant_core::model::{Watched, watch};
    pub use burn_quant_core::quantizer::{AnyTensor, Bypass, Flow, LayerCall, Product, Tap};
}

/// Why a model could not be quantized.
pub mod error {
    pub use burn_quant_core::error::{
        ImportProblem, InvalidConfig, NoSchemeReason, NotPackedReason, NotScoredReason, QuantError,
    };
}

pub use burn_quant_ops as ops;
pub use burn_quant_ops::numerics;

/// What a user names in most programs: `use burn_quant::prelude::*;`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_quant::prelude::*; // quantize, presets, summary, `nn` in place of burn's
///
/// let device = Device::flex();
/// let layer = nn::LinearConfig::new(8, 4).init(&device);
/// let batch = Tensor::<2>::random([16, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(batch.clone())))?;
/// println!("{}", summary(&layer));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub mod prelude {
    pub use crate::{
        Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, compress, disable,
        enable, fold_weights, nn, presets, quantize, quantize_weights, summary,
    };
}
