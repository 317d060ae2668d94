//! Place, observe, solve: the whole of post-training quantization.

mod options;
mod report;
mod run;

pub use options::{Progress, QuantizeOptions};
pub use report::{Report, Warning};

use burn::module::Module;

use crate::config::{Algorithm, QuantConfig};
use crate::observe::ModelStatistics;
use crate::solve::LayerReport;
use burn_quant_core::compress::{CompressReport, compress};
use burn_quant_core::error::QuantError;

/// Quantizes a model: places quantizers, observes calibration data, and gives every static quantizer its range.
///
/// The result has the type of the model and is used like it. Under `max` its weights are unchanged; other algorithms
/// may smooth or correct them. They are rounded in every forward pass, and gradients reach them straight through, so
/// training it is quantization-aware training;
/// [`fold_weights`](burn_quant_core::fold::fold_weights) rounds them for good.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float, and runs the calibration batches.
/// It is called once, unless a [memory budget](QuantizeOptions::with_memory_budget) splits what is to be collected, or
/// an algorithm asks for [quantized inputs](crate::config::CalibrationInputs::Quantized). Clones that it makes of the
/// model observe too, until the loop ends.
///
/// Quantizing a quantized model applies the new rules and calibrates again.
///
/// # Errors
///
/// Those of [`place()`](burn_quant_core::place::place()), [`observe()`](crate::pipeline::observe()) and [`calibrate`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::{Device, Distribution, Tensor};
/// # use burn_nn::LinearConfig;
/// # let device = Device::flex();
/// use burn_quant::{presets, quantize};
/// use burn_quant::nn::QuantLinear;
///
/// let layer: QuantLinear = LinearConfig::new(8, 4).init(&device).into();
/// let batch = Tensor::<2>::random([16, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (quantized, report) = quantize(layer, &presets::int8_default(), |layer| {
///     layer.forward(batch.clone());
/// })?;
/// assert_eq!(report.statistics.get("input_quantizer").unwrap().calls, 1);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn quantize<M: Module>(
    model: M,
    config: &QuantConfig,
    forward_loop: impl FnMut(&M),
) -> Result<(M, Report), QuantError> {
    quantize_with(model, config, QuantizeOptions::new(), forward_loop)
}

/// Quantizes a model with options: layouts of your own layers, algorithms of your own, a memory budget, progress.
///
/// # Errors
///
/// Those of [`quantize`], and [`QuantError::UnknownAlgorithm`] for a custom algorithm that is not registered.
///
/// # Example
///
/// See [`QuantizeOptions`].
pub fn quantize_with<M: Module>(
    model: M,
    config: &QuantConfig,
    options: QuantizeOptions<'_>,
    forward_loop: impl FnMut(&M),
) -> Result<(M, Report), QuantError> {
    options.quantize(model, config, forward_loop)
}

/// Quantizes a model with a configuration that needs no data: weights, and dynamic activations.
///
/// # Errors
///
/// [`QuantError::NeedsForwardLoop`] if the configuration makes an activation quantizer static,
/// [`QuantError::NeedsData`] if its algorithm works on data, and those of [`place()`](burn_quant_core::place::place()).
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig; // burn's own layer
/// use burn_quant::{presets, quantize_weights, summary};
///
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&Device::flex()), &presets::int8_weight_only())?;
/// assert!(summary(&model).to_string().contains("int8"));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn quantize_weights<M: Module>(model: M, config: &QuantConfig) -> Result<(M, Report), QuantError> {
    QuantizeOptions::new().quantize_weights(model, config)
}

/// Quantizes weights with a configuration that needs no data, and packs them.
///
/// Weights become codes one after the other, and each float is let go before the next: the model is never held in float
/// twice. Weights without a packed form are an error, as for [`compress`].
///
/// # Errors
///
/// Those of [`quantize_weights`] and of [`compress`].
///
/// # Source
///
/// ModelOpt 0.47, `compress` of a model without calibration.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig; // burn's own layer
/// use burn_quant::compress::compress_weights;
/// use burn_quant::presets;
///
/// let layer = LinearConfig::new(256, 64).init(&Device::flex());
/// let (packed, report) = compress_weights(layer, &presets::int4_blockwise_weight_only())?;
/// assert_eq!(report.packed_bytes(), 256 * 64 / 2 + 2 * 64 * 4); // half a byte each, two blocks of 128 an output
/// # let _ = packed;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn compress_weights<M: Module>(model: M, config: &QuantConfig) -> Result<(M, CompressReport), QuantError> {
    let (model, _) = quantize_weights(model, config)?;
    compress(model)
}

/// Collects the statistics of all enabled static quantizers of a model, and of the layers that an algorithm works on.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float; it runs the calibration batches
/// and drops the outputs. It is called once, except for algorithms on quantized inputs. Statistics stay on the device
/// while it runs, and come to the host when it has ended, quantizer by quantizer.
///
/// Calibration may be split: observe shards of the data, [merge](ModelStatistics::merge) the statistics,
/// [solve](crate::pipeline::calibrate) once.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite data, [`QuantError::NonFiniteWeight`],
/// [`QuantError::NegativeUnsigned`], [`QuantError::GroupsChanged`], [`QuantError::NothingObserved`] if the loop ran no
/// batch, [`QuantError::NeverObserved`] for a quantizer that the loop did not reach, unless it is one of an expert, and
/// [`QuantError::UnknownAlgorithm`] for a custom algorithm: see [`QuantizeOptions::observe`].
pub fn observe<M: Module>(
    model: &M,
    algorithm: &Algorithm,
    forward_loop: impl FnMut(&M),
) -> Result<ModelStatistics, QuantError> {
    QuantizeOptions::new().observe(model, algorithm, forward_loop)
}

/// Gives every enabled quantizer of a model the range that an algorithm finds in the statistics, and changes the layers
/// that the algorithm changes.
///
/// The report has a line for every layer that a step of the algorithm changed or skipped.
///
/// # Errors
///
/// [`QuantError::NeverObserved`] for a static quantizer without statistics — one of an expert takes those of its
/// siblings —, [`QuantError::MissingStatistics`] for statistics that were observed for another algorithm,
/// [`QuantError::UnknownQuantizer`] for statistics without a quantizer: they are of another model.
/// [`QuantError::AlgorithmOption`] and [`QuantError::UnknownAlgorithm`] for the algorithm itself; for custom ones see
/// [`QuantizeOptions::calibrate`].
pub fn calibrate<M: Module>(
    model: M,
    statistics: &ModelStatistics,
    algorithm: &Algorithm,
) -> Result<(M, Vec<LayerReport>), QuantError> {
    QuantizeOptions::new().calibrate(model, statistics, algorithm)
}
