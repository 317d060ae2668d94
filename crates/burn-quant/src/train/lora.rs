//! Factors of low rank that are trained beside quantized weights.
//!
//! ```text
//! W′ = Q(W) + A · B        A [rows, rank] from N(0, 1 / rank²), B [rank, columns] of zeros
//! ```
//!
//! Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, §4.1; over a
//! quantized base: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314. There is no `alpha`: with Adam it does what the
//! learning rate does (Hu et al., §4.1).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Distribution, Tensor};

use burn_quant_core::config::{matcher, near_misses};
use burn_quant_core::error::QuantError;
use burn_quant_core::model::ModelIndex;
use burn_quant_core::quantizer::Buffer;

/// Trains a quantized model by factors of low rank, and nothing else.
///
/// The factors belong to the quantizer of the weight, so that there is one composite on it and not two: they are
/// recorded, saved, restored and moved with it, and [`fold_weights`](burn_quant_core::fold::fold_weights) adds them to
/// the weight for good.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig;
/// use burn_quant::train::QuantLora;
/// use burn_quant::{Quantizers, presets, quantize_weights};
/// use burn_quant::quantizer::Buffer;
///
/// let layer = LinearConfig::new(64, 32).init(&Device::flex());
/// let (layer, _) = quantize_weights(layer, &presets::int4_blockwise_weight_only())?;
/// let layer = QuantLora::new(4).adapt(layer)?;
/// let quantizers = Quantizers::of(&layer);
/// let factor = quantizers.get("weight_quantizer")?.buffer(Buffer::LowRankDown).unwrap();
/// assert_eq!(factor.dims(), [64 * 4]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantLora {
    rank: usize,
    pattern: String,
}

impl QuantLora {
    /// Factors of a rank beside every quantized matrix.
    ///
    /// # Panics
    ///
    /// If the rank is zero.
    pub fn new(rank: usize) -> Self {
        assert!(rank > 0, "QuantLora: a rank is at least 1");
        Self { rank, pattern: "*".into() }
    }

    /// Only beside weights whose quantizer's name matches a glob.
    pub fn with_pattern(mut self, pattern: &str) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// Freezes a model and gives its quantized matrices factors, with which it computes what it computed before.
    ///
    /// A matrix is a weight of two axes whose quantizer is on; other weights are frozen and stay as they are. Factors
    /// that are there already are made anew. As with burn's own adapters, `unfreeze` makes everything trainable, the
    /// weights too.
    ///
    /// # Errors
    ///
    /// [`QuantError::NoMatch`] if no quantized matrix has a name that matches, and [`QuantError::BadPattern`].
    pub fn adapt<M: Module>(&self, model: M) -> Result<M, QuantError> {
        let matcher = matcher(&self.pattern)?;
        let model = model.map(&mut Freeze); // first, so that what quantizers learned is frozen too
        let mut index = ModelIndex::of(&model);
        let mut quantizers = std::mem::take(&mut index.quantizers);
        let near = near_misses(&self.pattern, quantizers.names());
        let matrix = |name: &str| index.weight_of(name).filter(|weight| weight.shape.len() == 2);
        quantizers.retain(|name| matcher.is_match(name) && matrix(name).is_some());
        let mut adapted = 0;
        for (name, quantizer) in quantizers.iter_mut().filter(|(_, quantizer)| quantizer.is_enabled()) {
            let weight = matrix(name).expect("others were left out");
            let (options, deviation) = ((&weight.device, DType::F32), 1.0 / self.rank as f64);
            let [down, up] = [weight.shape[0] * self.rank, self.rank * weight.shape[1]];
            quantizer.clear_buffer(Buffer::LowRankDown);
            quantizer.clear_buffer(Buffer::LowRankUp);
            quantizer
                .set_buffer(Buffer::LowRankDown, Tensor::random([down], Distribution::Normal(0.0, deviation), options));
            quantizer.set_buffer(Buffer::LowRankUp, Tensor::zeros([up], options));
            adapted += 1;
        }
        if adapted == 0 {
            return Err(QuantError::NoMatch { pattern: self.pattern.clone(), container: None, near_misses: near });
        }
        quantizers.install(model)
    }
}

struct Freeze;

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(false)
    }
}
