//! Whether a configuration suits a tensor: each combination that cannot be has an error of its own.

use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat, Signedness};
use burn_quant_ops::{AxisGroups, GradientRule};

use super::{Granularity, PreScale, QuantizerConfig, RangeSource, Rounding};
use crate::error::InvalidConfig;
use crate::layout::Role;

impl QuantizerConfig {
    /// Whether the parts of this configuration fit each other, whatever tensor it is for.
    ///
    /// # Errors
    ///
    /// See [`InvalidConfig`].
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::QuantizerConfig;
    /// use burn_quant::config::{Format, RangeSource, ScaleFormat};
    /// use burn_quant::error::InvalidConfig;
    ///
    /// let mut mxfp4 = QuantizerConfig::mx(Format::E2M1);
    /// assert_eq!(mxfp4.validate(), Ok(()));
    /// mxfp4.range = RangeSource::Static;
    /// assert_eq!(mxfp4.validate(), Err(InvalidConfig::StaticPowersOfTwo));
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.rounding == Rounding::Off && self.rotation.is_none() {
            return Err(InvalidConfig::NothingToDo);
        }
        self.validate_blocks()?;
        self.validate_scale()?;
        self.validate_range()?;
        self.validate_bias()?;
        self.validate_gradient()?;
        if let Some(block) = self.rotation.and_then(|rotation| rotation.block)
            && (!block.is_power_of_two() || block == 1)
        {
            return Err(InvalidConfig::RotationBlock { found: block });
        }
        self.then.iter().try_for_each(|next| {
            let nested = !next.then.is_empty();
            if nested { Err(InvalidConfig::NestedChain) } else { next.validate() }
        })
    }

    fn validate_blocks(&self) -> Result<(), InvalidConfig> {
        match &self.granularity {
            Granularity::Block { size: 0 }
            | Granularity::Block2d { rows: 0, .. }
            | Granularity::Block2d { cols: 0, .. } => Err(InvalidConfig::EmptyBlock),
            Granularity::Axes(axes) if axes.contains(&AxisGroups::Blocks(0)) => Err(InvalidConfig::EmptyBlock),
            _ => Ok(()),
        }
    }

    fn validate_scale(&self) -> Result<(), InvalidConfig> {
        if self.scale == ScaleFormat::F32 {
            return Ok(());
        }
        let scale = self.scale;
        let in_blocks = match &self.granularity {
            Granularity::Block { .. } | Granularity::Block2d { .. } => true,
            Granularity::Axes(axes) => axes.iter().any(|axis| matches!(axis, AxisGroups::Blocks(_))),
            Granularity::PerTensor | Granularity::PerChannel | Granularity::PerToken => false,
        };
        if !in_blocks {
            return Err(InvalidConfig::ScaleWithoutBlocks { scale });
        }
        match self.format {
            Format::Nf4 => Err(InvalidConfig::FormatOfScale { format: self.format, scale }),
            Format::Int(int) if int.signedness() == Signedness::Unsigned => {
                Err(InvalidConfig::FormatOfScale { format: self.format, scale })
            }
            Format::E2M1 => Ok(()),
            // four over six trades the largest values of E2M1, 4 and 6, for each other
            format if scale == ScaleFormat::E4M3(BlockScale::StaticFourOverSix) => {
                Err(InvalidConfig::FormatOfScale { format, scale })
            }
            _ => Ok(()),
        }
    }

    fn validate_range(&self) -> Result<(), InvalidConfig> {
        match (self.scale, self.range) {
            (_, RangeSource::Constant(amax)) if !(amax.is_finite() && amax > 0.0) => {
                Err(InvalidConfig::ConstantRange { found: amax })
            }
            (ScaleFormat::E8M0, RangeSource::Static) => Err(InvalidConfig::StaticPowersOfTwo),
            (ScaleFormat::E8M0, RangeSource::Constant(_)) => Err(InvalidConfig::ConstantPowersOfTwo),
            (ScaleFormat::E4M3(BlockScale::Static | BlockScale::StaticFourOverSix), RangeSource::Dynamic) => {
                Err(InvalidConfig::StaticBlocksOfDynamicRange)
            }
            (ScaleFormat::E4M3(BlockScale::Static | BlockScale::StaticFourOverSix), RangeSource::Constant(_)) => {
                Err(InvalidConfig::StaticBlocksOfConstantRange)
            }
            _ => Ok(()),
        }
    }

    fn validate_gradient(&self) -> Result<(), InvalidConfig> {
        let has_range = self.range == RangeSource::Static && self.bias.is_none();
        let Some(ranges) = self.learned_ranges else {
            let learns = self.gradient.learns_range();
            let missing = learns && !(has_range && self.scale == ScaleFormat::F32);
            return if missing { Err(InvalidConfig::NoRangeToLearn) } else { Ok(()) };
        };
        if self.gradient != GradientRule::Lsq {
            return Err(InvalidConfig::LearnedRangesWithoutLsq);
        }
        if !has_range {
            return Err(InvalidConfig::NoRangeToLearn);
        }
        match (self.scale, ranges.pre_scale) {
            (ScaleFormat::F32, PreScale::Rounded) => Ok(()),
            (ScaleFormat::F32, PreScale::Unrounded) => Err(InvalidConfig::UnroundedPreScale),
            (ScaleFormat::E4M3(BlockScale::Static), _) if self.format.minifloat().is_some() => Ok(()),
            (scale, _) => Err(InvalidConfig::LearnedRangesOfScale { format: self.format, scale }),
        }
    }

    fn validate_bias(&self) -> Result<(), InvalidConfig> {
        let Some(bias) = &self.bias else { return Ok(()) };
        match &bias.granularity {
            Granularity::Block { .. } | Granularity::Block2d { .. } => return Err(InvalidConfig::BlocksOfBias),
            Granularity::Axes(axes) if axes.iter().any(|axis| matches!(axis, AxisGroups::Blocks(_))) => {
                return Err(InvalidConfig::BlocksOfBias);
            }
            Granularity::Axes(axes) if axes.iter().all(|axis| *axis == AxisGroups::Each) => {
                return Err(InvalidConfig::BiasOfEachElement);
            }
            _ => {}
        }
        match self.format {
            Format::Int(int) if int.signedness() == Signedness::Unsigned => Err(InvalidConfig::BiasOfUnsigned),
            _ => Ok(()),
        }
    }

    /// Whether this configuration suits a tensor with this role; the shape is known for weights only.
    pub(crate) fn suits(&self, role: Role, shape: Option<&[usize]>) -> Result<(), InvalidConfig> {
        self.validate()?;
        std::iter::once(self).chain(&self.then).try_for_each(|stage| stage.stage_suits(role, shape))
    }

    fn stage_suits(&self, role: Role, shape: Option<&[usize]>) -> Result<(), InvalidConfig> {
        let weight = matches!(role, Role::Weight(_));
        let rank = shape.map(<[usize]>::len);
        if let (Role::Weight(layout), Some(rank)) = (role, rank) {
            let axis = layout.channel_axis.max(layout.block_axis);
            if axis >= rank {
                return Err(InvalidConfig::Layout { axis, rank });
            }
        }
        let granularities = std::iter::once(&self.granularity).chain(self.bias.iter().map(|bias| &bias.granularity));
        for granularity in granularities {
            match granularity {
                Granularity::Axes(axes) if rank.is_some_and(|rank| rank != axes.len()) => {
                    return Err(InvalidConfig::Rank { expected: axes.len(), found: rank.unwrap_or_default() });
                }
                Granularity::PerToken if weight => return Err(InvalidConfig::TokensOfWeight),
                Granularity::Block2d { .. } if !weight => return Err(InvalidConfig::BlocksOfActivation),
                _ => {}
            }
        }
        if let (Some(rotation), Some(shape)) = (self.rotation, shape) {
            let len = shape[role.block_axis(shape.len())];
            rotation_block(rotation.block, len)?;
        }
        self.static_groups_of_activations(weight)
    }

    /// The number of tokens or blocks of an activation changes from batch to batch: ranges of them are not calibrated.
    fn static_groups_of_activations(&self, weight: bool) -> Result<(), InvalidConfig> {
        let varying = |granularity: &Granularity| match granularity {
            Granularity::PerToken => Some("per-token"),
            Granularity::Block { .. } => Some("block"),
            _ => None,
        };
        if weight {
            return Ok(());
        }
        if let (Some(granularity), true) =
            (varying(&self.granularity), self.has_static_range() && !self.has_range_of_tensor())
        {
            return Err(InvalidConfig::StaticActivationGroups { granularity });
        }
        match self.bias.as_ref().and_then(|bias| varying(&bias.granularity)) {
            Some(granularity) if self.has_static_bias() => Err(InvalidConfig::StaticActivationGroups { granularity }),
            _ => Ok(()),
        }
    }
}

/// The block of a rotation along an axis: as configured, or the largest power of two that divides the axis.
pub(crate) fn rotation_block(block: Option<usize>, len: usize) -> Result<usize, InvalidConfig> {
    let largest = if len == 0 { 1 } else { 1 << len.trailing_zeros() };
    match block {
        Some(block) if len.is_multiple_of(block) => Ok(block),
        Some(block) => Err(InvalidConfig::RotationAxis { len, block }),
        None if largest > 1 => Ok(largest),
        None => Err(InvalidConfig::RotationAxis { len, block: 2 }),
    }
}
