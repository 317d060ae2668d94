//! SmoothQuant: outliers of activations are divided away and multiplied into the weight.
//!
//! ```text
//! s_c = w_c^(1−α) / a_c^α       w_c = max_o |W[c,o]|,  a_c = max_t |x_tc|;  clamped to 1e-4 ... 1e4
//! x ← x ⊙ s,  W[c,:] ← W[c,:] / s_c
//! ```
//!
//! Source: Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438, eq. 4; ModelOpt 0.47, `smoothquant`.
//! Our choices: a channel without data keeps `s = 1` unless α is 0, where ModelOpt gives it 1e4 and shrinks its weights
//! by as much. A channel without weights is scaled like any other, so that its inputs do not set the range of the
//! tensor. Siblings may share a scale, from the largest weights of all.

use burn::tensor::Tensor;
use burn_quant_ops::numerics::Format;

use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage};
use crate::config::SiblingScales;
use crate::observe::InputStatistics;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_ops::numerics::ScaleFormat;

/// Below this a channel is dead: 2^-31.
const DEAD: f32 = 4.656_613e-10;
/// The scales that are used.
const SCALES: (f32, f32) = (1e-4, 1e4);

/// SmoothQuant of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmoothQuant {
    pub(crate) alpha: f32,
    pub(crate) sharing: SiblingScales,
}

/// The factor of each channel, given the largest magnitudes of its inputs and weights.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::smoothquant;
///
/// // an outlier channel, an ordinary one, and one that never fires
/// assert_eq!(smoothquant(&[64.0, 1.0, 0.0], &[1.0, 1.0, 0.5], 0.5), [0.125, 1.0, 1.0]);
/// ```
pub fn smoothquant(inputs: &[f32], weights: &[f32], alpha: f32) -> Vec<f32> {
    let scale = |(a, w): (&f32, &f32)| {
        // at α = 0 inputs do not count, and 0⁰ is 1
        if *a <= DEAD && alpha > 0.0 { 1.0 } else { (w.powf(1.0 - alpha) / a.powf(alpha)).clamp(SCALES.0, SCALES.1) }
    };
    inputs.iter().zip(weights).map(scale).collect()
}

impl CalibrationAlgorithm for SmoothQuant {
    fn name(&self) -> &str {
        "smoothquant"
    }

    fn stage(&self) -> Stage {
        Stage::Smooth
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Means)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let weights = row_amax(layer.weight());
        self.apply(layer, &weights)
    }

    fn siblings(&self, layers: &[LayerProblem]) -> Vec<Result<Solution, SkipReason>> {
        let apart = || layers.iter().map(|layer| self.layer(layer)).collect();
        if self.sharing == SiblingScales::PerLayer {
            return apart();
        }
        let maxima: Vec<Vec<f32>> = layers.iter().map(|layer| row_amax(layer.weight())).collect();
        let larger = |a: Vec<f32>, b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| a.max(*b)).collect();
        let Some(together) =
            maxima.iter().skip(1).try_fold(maxima[0].clone(), |a, b| (a.len() == b.len()).then(|| larger(a, b)))
        else {
            return apart();
        };
        layers.iter().map(|layer| self.apply(layer, &together)).collect()
    }
}

impl SmoothQuant {
    fn apply(&self, layer: &LayerProblem, weights: &[f32]) -> Result<Solution, SkipReason> {
        let quantizer = layer.input_quantizer()?;
        if !quantizer.is_enabled() {
            return Err(SkipReason::InputNotQuantized);
        }
        if !is_int8(quantizer) || !is_int8(layer.weight_quantizer()) {
            return Err(SkipReason::NotInt8);
        }
        let inputs = super::host(layer.input()?.amax.clone());
        let scale = smoothquant(&inputs, weights, self.alpha);
        let factor = Tensor::<1>::from_data(scale.as_slice(), &layer.weight().device());
        Ok(Solution::new(layer.smoothed(factor)?).with_choice("alpha", self.alpha))
    }
}

fn row_amax(weight: Tensor<2>) -> Vec<f32> {
    let rows = weight.dims()[0];
    super::host(weight.abs().max_dim(1).reshape([rows]))
}

fn is_int8(quantizer: &TensorQuantizer) -> bool {
    let config = quantizer.config();
    matches!(config.format, Format::Int(int) if int.bits() == 8) && config.scale == ScaleFormat::F32
}
