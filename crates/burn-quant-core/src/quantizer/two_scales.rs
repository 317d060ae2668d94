//! Rounding between two scales, of which one or both are learned.
//!
//! ```text
//! y = Q(x / s_pre) · s_post                                       in f32, rounded once to the dtype of x
//!
//! f32 scales    s = amax / hi                                     1e-8 where that is not above it
//! E4M3 scales   s = E4M3(amax / max), amax of scales T = G / max  2^-9 · T where amax / max is not above it
//! ```
//!
//! Every step has its own gradient: that of `Q` passes where the grid reaches, that of the rounding of scales where
//! they do not exceed `T`, and a scale that is replaced by the least one has none. Together they are the gradients of
//! [`LearnedRanges`].
//!
//! Source: ModelOpt 0.47, static block-scale quantizers in their LSQ mode. There a weight in f16 has its ranges in f16;
//! here they are f32. Our choice: all static granularities, and activations too.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::numerics::{Format, ScaleFormat};
use burn_quant_ops::{FakeQuant, GradientRule, Groups, fake_quant};

use super::groups::spread_over_groups;
use super::{Buffer, TensorQuantizer};
use crate::config::{LearnedAmax, LearnedRanges, PreScale};

/// The least scale that is not rounded, and the least range of E4M3 scales.
const LEAST_SCALE: f32 = 1e-8;
/// The least E4M3 scale over the range of scales.
const LEAST_E4M3: f32 = 1.0 / 512.0;

impl TensorQuantizer {
    /// `Q(x / s_pre) · s_post`, with the scales of the groups.
    pub(super) fn rounded_between_scales<const D: usize>(
        &self,
        x: Tensor<D>,
        groups: &Groups,
        ranges: LearnedRanges,
    ) -> Tensor<D> {
        let (dtype, shape, format) = (x.dtype(), x.dims(), self.config.format);
        let pre = self.calibrated(Buffer::Amax);
        let post = match ranges.learned {
            LearnedAmax::Tied => pre.clone(),
            LearnedAmax::Post | LearnedAmax::Pre | LearnedAmax::PreAndPost => self.calibrated(Buffer::AmaxPost),
        };
        let (pre, post) = (self.scale_of(pre, ranges.pre_scale), self.scale_of(post, PreScale::Rounded));
        let units = x.cast(DType::F32) / over_groups(pre, groups);
        let highest = Tensor::<1>::full([1], format.max(), (&units.device(), DType::F32)); // so the scale is 1
        let spec = FakeQuant { format, groups: Groups::per_tensor(&shape), gradient: GradientRule::Lsq };
        let codes = fake_quant(units, highest, spec);
        (codes * over_groups(post, groups)).cast(dtype)
    }

    /// The scale of each range.
    fn scale_of(&self, amax: Tensor<1>, pre_scale: PreScale) -> Tensor<1> {
        let scale = amax / self.config.format.max();
        match (self.config.scale, pre_scale) {
            (ScaleFormat::E4M3(_), PreScale::Rounded) => self.e4m3_scale(scale),
            _ => at_least(scale, LEAST_SCALE),
        }
    }

    /// The E4M3 number under the range of the tensor that is nearest to each scale.
    fn e4m3_scale(&self, scale: Tensor<1>) -> Tensor<1> {
        let global = self.calibrated(Buffer::GlobalAmax).detach();
        let highest = at_least(global / self.config.format.max(), LEAST_SCALE);
        let least = (highest.clone() * LEAST_E4M3).expand(scale.dims());
        let scale = scale.clone().mask_where(scale.lower_equal(least.clone()), least);
        let groups = Groups::per_tensor(&scale.dims());
        fake_quant(scale, highest, FakeQuant { format: Format::E4M3, groups, gradient: GradientRule::Clipped })
    }
}

/// A value that is not above the least one is replaced by it, and has no gradient.
fn at_least(values: Tensor<1>, least: f32) -> Tensor<1> {
    values.clone().mask_fill(values.lower_equal_elem(least), least)
}

/// Values of groups, to be multiplied with the elements of a tensor: repeated where groups are blocks.
fn over_groups<const D: usize>(values: Tensor<1>, groups: &Groups) -> Tensor<D> {
    assert_eq!(values.dims(), [groups.len()], "TensorQuantizer: there is one range per group");
    let broadcasts = groups.counts().iter().zip(groups.shape()).all(|(count, len)| *count == 1 || count == len);
    match broadcasts {
        true => values.reshape::<D, [usize; D]>(groups.counts().try_into().expect("groups have the tensor's rank")),
        false => spread_over_groups(values, groups),
    }
}
