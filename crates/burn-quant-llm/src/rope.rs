//! Rotary positions: pairs of features of queries and keys are turned by angles that grow with the position.
//!
//! ```text
//! θ_i = base^(−2i / head)         features i and i + head/2 of position t are turned by t · θ_i
//! ```
//!
//! Frequencies and angles are f32, as `transformers` has them; cosines and sines are taken in f64.
//!
//! Sources: Su et al. 2021, "RoFormer", arXiv:2104.09864; the scaling of Llama 3.1, `transformers` 5.14
//! `modeling_rope_utils`; Peng et al. 2023, "YaRN", arXiv:2309.00071.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::ops::is_capture;

use crate::config::{DecoderConfig, RopeScaling};

/// The frequency of each pair of features, in radians per position, and what cosines and sines are multiplied with.
pub(crate) fn frequencies(config: &DecoderConfig) -> (Vec<f32>, f32) {
    let plain =
        (0..config.head / 2).map(|i| 1.0 / (config.rope_theta as f32).powf((2 * i) as f32 / config.head as f32));
    let turn = std::f64::consts::TAU;
    match config.rope_scaling {
        RopeScaling::None => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|f| f / factor as f32).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            let scaled = plain.map(|f| {
                let turns = original_positions * f64::from(f) / turn;
                if turns < low_freq_factor {
                    f / factor as f32
                } else if turns > high_freq_factor {
                    f
                } else {
                    let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    ((1.0 - smooth) * f64::from(f) / factor + smooth * f64::from(f)) as f32
                }
            });
            (scaled.collect(), 1.0)
        }
        RopeScaling::Yarn { factor, beta_slow, beta_fast, original_positions, attention_factor } => {
            // the pair that turns so often within the original context
            let pair = |turns: f64| {
                let pairs = config.head as f64 / 2.0;
                pairs * (original_positions / (turns * turn)).ln() / config.rope_theta.ln()
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(config.head as f64 - 1.0);
            let width = if high == low { 0.001 } else { high - low };
            let scaled = plain.enumerate().map(|(i, f)| {
                let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
                (f64::from(f) / factor * ramp + f64::from(f) * (1.0 - ramp)) as f32
            });
            (scaled.collect(), attention_factor as f32)
        }
    }
}

/// Cosines and sines of some positions.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    /// Negative in the first half of the features, to which the second one is added.
    sin: Tensor<4>,
}

impl Rotation {
    pub(crate) fn new(config: &DecoderConfig, first: usize, tokens: usize, device: &Device) -> Self {
        let (frequencies, factor) = frequencies(config);
        let half = frequencies.len();
        let positions = first..first + tokens;
        // a captured pass is for prompts of any length: it takes its positions of a table of all that the model knows
        let known = (is_capture(device) && config.positions < usize::MAX).then_some(config.positions);
        let of_all = known.map(|known| known.max(positions.end));
        let table = |of: fn(f64) -> f64, sign: f32| {
            let turns = |positions: Range<usize>| -> Tensor<2> {
                let angles = |t: usize| frequencies.iter().map(move |f| f64::from(t as f32 * f));
                let turns = positions.clone().flat_map(|t| angles(t).map(|angle| of(angle) as f32 * factor));
                Tensor::from_data(TensorData::new(turns.collect::<Vec<f32>>(), [positions.len(), half]), device)
            };
            let turns = match of_all {
                Some(all) => turns(0..all).slice([positions.clone(), 0..half]),
                None => turns(positions.clone()),
            };
            // both halves of a head are turned by the same angles
            Tensor::cat(vec![turns.clone() * sign, turns], 1).reshape([1, 1, tokens, config.head])
        };
        Self { cos: table(f64::cos, 1.0), sin: table(f64::sin, -1.0) }
    }

    /// Turns `[batch, heads, tokens, features]`.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let dtype = x.dtype();
        let (low, high) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let turned = Tensor::cat(vec![high, low], 3);
        x * self.cos.clone().cast(dtype) + turned * self.sin.clone().cast(dtype)
    }
}
