//! Where the scales of a fake quantization come from, and the bias around which it happens.

use burn::tensor::{DType, Device, Tensor};
use burn_quant_numerics::{BlockScale, ScaleFormat};

use super::FakeQuant;
use crate::Groups;

/// The ranges that scales are made of: given, or taken from the data in the same pass.
///
/// A tensor of ranges converts into [`Ranges::Static`], so `fake_quant(x, amax, spec)` says what it means.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // tensors are handles; one is moved per call
pub enum Ranges {
    /// f32 scales from given ranges, f32 `[groups]` in the units of `x`, finite and not negative.
    Static(Tensor<1>),
    /// f32 scales from the largest magnitude of each group of `x`.
    Dynamic,
    /// Power-of-two scales (E8M0) from the largest magnitude of each group of `x`: MXFP8, MXFP6, MXFP4, MXINT8.
    PowersOfTwo,
    /// E4M3 scales from the largest magnitude of each group of `x`, under the amax of the tensor, f32 `[1]`: NVFP4.
    TwoLevel {
        /// The amax of the tensor.
        global_amax: Tensor<1>,
    },
    /// E4M3 scales from given ranges, f32 `[groups]`, under the amax of the tensor, f32 `[1]`: NVFP4 for weights.
    TwoLevelStatic {
        /// The amax of each group.
        amax: Tensor<1>,
        /// The amax of the tensor.
        global_amax: Tensor<1>,
        /// Whether scales may be as large as 448 or 256.
        blocks: BlockScale,
    },
}

impl From<Tensor<1>> for Ranges {
    fn from(amax: Tensor<1>) -> Self {
        Ranges::Static(amax)
    }
}

/// A bias that is subtracted before rounding and added back after it, in the dtype of `x`.
///
/// # Source
///
/// ModelOpt 0.47, affine quantization. There, a dynamic range is taken from `x`, and the formats with block scales
/// ignore the bias; here both mean what they say: the range is that of `x − bias`, and every format subtracts and adds.
#[derive(Clone, Debug)]
pub struct Bias {
    /// The bias of each of its groups, f32 `[groups]` in the units of `x`.
    pub values: Tensor<1>,
    /// Which elements share a bias.
    pub groups: Groups,
}

/// Which of the tensors that a backend gets it is to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scales {
    /// f32, from `amax`.
    Static,
    /// f32, from the data.
    Dynamic,
    /// E8M0, from the data.
    PowersOfTwo,
    /// E4M3 under `global_amax`, from the data or from `amax`.
    TwoLevel(BlockScale),
}

impl Scales {
    /// Returns the format of the scales.
    ///
    /// f32, E8M0 or E4M3.
    pub fn format(self) -> ScaleFormat {
        match self {
            Scales::Static | Scales::Dynamic => ScaleFormat::F32,
            Scales::PowersOfTwo => ScaleFormat::E8M0,
            Scales::TwoLevel(blocks) => ScaleFormat::E4M3(blocks),
        }
    }

    /// Returns whether the ranges of groups are taken from the data.
    ///
    /// Then no ranges are handed over for them.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Scales::Dynamic | Scales::PowersOfTwo | Scales::TwoLevel(BlockScale::Dynamic))
    }
}

/// All that a backend is told besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Format, groups and gradient.
    pub spec: FakeQuant,
    /// Where scales come from.
    pub scales: Scales,
    /// Which elements share a bias, if there is one.
    pub bias: Option<Groups>,
}

impl Call {
    /// The call of given ranges around zero.
    #[cfg_attr(not(feature = "flex"), allow(dead_code))]
    pub(crate) fn of_given_ranges(spec: FakeQuant) -> Self {
        Self { spec, scales: Scales::Static, bias: None }
    }

    /// Whether `amax` has a gradient.
    pub(super) fn learns_range(&self) -> bool {
        self.spec.gradient.learns_range() && self.scales == Scales::Static && self.bias.is_none()
    }

    /// What the clipped rule compares magnitudes with: `None` where nothing can be beyond its range.
    pub(super) fn clip(&self) -> Option<(Limit, Self)> {
        let call = |groups: Groups| Self { spec: FakeQuant { groups, ..self.spec.clone() }, ..self.clone() };
        match self.scales {
            Scales::Dynamic | Scales::PowersOfTwo => None,
            Scales::TwoLevel(BlockScale::Dynamic) => {
                Some((Limit::Global, call(Groups::per_tensor(self.spec.groups.shape()))))
            }
            Scales::Static | Scales::TwoLevel(_) => Some((Limit::Amax, self.clone())),
        }
    }
}

/// Which ranges the clipped rule compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Those of groups.
    Amax,
    /// That of the tensor.
    Global,
}

/// The tensors that a backend gets; those that `scales` does not use are a placeholder.
pub(crate) struct Inputs {
    pub(crate) amax: Tensor<1>,
    pub(crate) global_amax: Tensor<1>,
    pub(crate) bias: Tensor<1>,
    pub(crate) call: Call,
}

impl Inputs {
    pub(crate) fn new(ranges: Ranges, bias: Option<Bias>, spec: FakeQuant, device: &Device) -> Self {
        let unused = || Tensor::<1>::empty([1], (device, DType::F32));
        let (scales, amax, global_amax) = match ranges {
            Ranges::Static(amax) => (Scales::Static, Some(amax), None),
            Ranges::Dynamic => (Scales::Dynamic, None, None),
            Ranges::PowersOfTwo => (Scales::PowersOfTwo, None, None),
            Ranges::TwoLevel { global_amax } => (Scales::TwoLevel(BlockScale::Dynamic), None, Some(global_amax)),
            Ranges::TwoLevelStatic { amax, global_amax, blocks } => {
                assert!(blocks != BlockScale::Dynamic, "fake_quant: dynamic block scales take no range of blocks");
                (Scales::TwoLevel(blocks), Some(amax), Some(global_amax))
            }
        };
        if let Some(amax) = &amax {
            assert_eq!(amax.dims(), [spec.groups.len()], "fake_quant: amax has one element per group");
            assert_eq!(amax.dtype(), DType::F32, "fake_quant: amax is f32");
        }
        if let Some(global) = &global_amax {
            assert_eq!(global.dims(), [1], "fake_quant: the amax of a tensor is one element");
            assert_eq!(global.dtype(), DType::F32, "fake_quant: amax is f32");
        }
        let (bias, groups) = match bias {
            None => (None, None),
            Some(Bias { values, groups }) => {
                assert_eq!(
                    groups.shape(),
                    spec.groups.shape(),
                    "fake_quant: x has another shape than the bias's groups"
                );
                assert_eq!(values.dims(), [groups.len()], "fake_quant: bias has one element per group");
                assert_eq!(values.dtype(), DType::F32, "fake_quant: bias is f32");
                (Some(values), Some(groups))
            }
        };
        Self {
            amax: amax.unwrap_or_else(unused),
            global_amax: global_amax.unwrap_or_else(unused),
            bias: bias.unwrap_or_else(unused),
            call: Call { spec, scales, bias: groups },
        }
    }
}
