//! SVDQuant: what is hard to round goes into a branch of low rank that is not rounded.
//!
//! ```text
//! W (smoothed by AWQ-lite) = V S Uᵀ;   down = V[:, :r],  up = S[:r] U[:, :r]ᵀ
//! y = Qi(x ⊙ s) · Qw(W − down·up) + (x ⊙ s) · down · up
//! ```
//!
//! Source: Li et al. 2025, "SVDQuant", arXiv:2411.05007; ModelOpt 0.47, `svdquant`. The SVD is computed in f64. A rank
//! above that of the matrix is that of the matrix; ModelOpt pads with zeros.

use burn::tensor::{DType, Tensor};
use faer::Mat;
use globset::GlobMatcher;

use super::awq_lite::AwqLite;
use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, host};
use crate::config::{Identity, SiblingScales};
use crate::observe::InputStatistics;
use burn_quant_core::config::matcher;
use burn_quant_core::error::QuantError;

/// SVDQuant of a layer.
#[derive(Clone, Debug)]
pub(crate) struct SvdQuant {
    rank: usize,
    smoothing: AwqLite,
    skipped: Vec<GlobMatcher>,
}

impl SvdQuant {
    pub(crate) fn new(rank: usize, alpha_step: f32, skip_layers: &[String]) -> Result<Self, QuantError> {
        let skipped = skip_layers.iter().map(|glob| matcher(glob)).collect::<Result<_, _>>()?;
        Ok(Self {
            rank,
            smoothing: AwqLite { alpha_step, sharing: SiblingScales::PerLayer, identity: Identity::NotTried },
            skipped,
        })
    }
}

impl CalibrationAlgorithm for SvdQuant {
    fn name(&self) -> &str {
        "svdquant"
    }

    fn stage(&self) -> Stage {
        Stage::Branch
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        if self.skipped.iter().any(|glob| glob.is_match(layer.name())) {
            return Err(SkipReason::Configured);
        }
        let Solution { layer: smoothed, choices } = self.smoothing.layer(layer)?;
        let (down, up) = low_rank(smoothed.weight(), self.rank).ok_or(SkipReason::Singular)?;
        let rest = smoothed.weight() - down.clone().matmul(up.clone());
        let solved = smoothed.with_low_rank(down, up)?.with_weight(rest).with_max_weight_range();
        Ok(Solution { layer: solved, choices }.with_choice("rank", self.rank as f32))
    }
}

/// The best approximation of a rank, as two factors; `None` if the decomposition does not converge.
fn low_rank(weight: Tensor<2>, rank: usize) -> Option<(Tensor<2>, Tensor<2>)> {
    let ([rows, columns], device) = (weight.dims(), weight.device());
    let rank = rank.min(rows).min(columns);
    let values = host(weight.reshape([rows * columns]));
    let matrix = Mat::<f64>::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]));
    let svd = matrix.thin_svd().ok()?;
    let (u, s, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let down: Vec<f32> = (0..rows).flat_map(|i| (0..rank).map(move |k| u[(i, k)] as f32)).collect();
    let up: Vec<f32> = (0..rank).flat_map(|k| (0..columns).map(move |j| (s[k] * v[(j, k)]) as f32)).collect();
    let tensor = |values: &[f32], shape| Tensor::<1>::from_data(values, (&device, DType::F32)).reshape(shape);
    Some((tensor(&down, [rows, rank]), tensor(&up, [rank, columns])))
}
