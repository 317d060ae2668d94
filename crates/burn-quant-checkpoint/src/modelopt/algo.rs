//! What a layer of a folder can be.

use std::fmt;

use burn_quant_numerics::Minifloat;

use crate::{CheckpointError, Element};

/// The format of a layer, ModelOpt's `quant_algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QuantAlgo {
    /// E4M3 weights and inputs under a scale of the tensor each.
    Fp8,
    /// E4M3 weights under a scale of each output, inputs under one of each token, taken from it.
    Fp8PerChannelPerToken,
    /// E4M3 weights in blocks of 128 × 128, inputs in float.
    Fp8Blocks,
    /// INT8 weights under a scale of each output, INT8 inputs under one scale, perhaps smoothed.
    Int8SmoothQuant,
    /// INT8 weights under a scale of each output, inputs in float.
    Int8WeightOnly,
    /// INT4 weights in blocks along the inputs, inputs in float, perhaps scaled.
    Int4Awq,
    /// As [`QuantAlgo::Int4Awq`], the weights rounded to E4M3 afterwards, with E4M3 inputs.
    W4A8Awq,
    /// NVFP4 weights and inputs.
    Nvfp4,
    /// As [`QuantAlgo::Nvfp4`], with inputs that are scaled.
    Nvfp4Awq,
    /// NVFP4 weights, inputs in float.
    W4A16Nvfp4,
    /// As [`QuantAlgo::Nvfp4Awq`], with a branch of low rank.
    Nvfp4Svd,
    /// NVFP4 weights in blocks of 32, E4M3 inputs.
    W4A8Nvfp4Fp8,
    /// E4M3 weights and inputs in blocks of 32 under powers of two.
    Mxfp8,
    /// E2M1 weights and inputs in blocks of 32 under powers of two.
    Mxfp4,
    /// E2M1 weights in blocks of 32 under powers of two, E4M3 inputs.
    W4A8Mxfp4Fp8,
    /// E2M1 weights in blocks of 32 under powers of two, inputs in float: none of ModelOpt's, but others hold it.
    Mxfp4WeightOnly,
    /// Integers under a scale of each output or block, inputs in float: none of ModelOpt's, but others hold it.
    IntWeightOnly {
        /// Bits of a weight, 2 to 8.
        bits: u8,
    },
    /// Integers under a scale of each output or block, INT8 inputs under a scale of each token: none of ModelOpt's, but
    /// others hold it.
    IntPerToken {
        /// Bits of a weight, 2 to 8.
        bits: u8,
    },
}

impl QuantAlgo {
    /// All of ModelOpt's.
    pub const ALL: [QuantAlgo; 15] = [
        QuantAlgo::Fp8,
        QuantAlgo::Fp8PerChannelPerToken,
        QuantAlgo::Fp8Blocks,
        QuantAlgo::Int8SmoothQuant,
        QuantAlgo::Int8WeightOnly,
        QuantAlgo::Int4Awq,
        QuantAlgo::W4A8Awq,
        QuantAlgo::Nvfp4,
        QuantAlgo::Nvfp4Awq,
        QuantAlgo::W4A16Nvfp4,
        QuantAlgo::Nvfp4Svd,
        QuantAlgo::W4A8Nvfp4Fp8,
        QuantAlgo::Mxfp8,
        QuantAlgo::Mxfp4,
        QuantAlgo::W4A8Mxfp4Fp8,
    ];

    /// Returns the name that files have.
    ///
    /// Two of them are in lower case, as ModelOpt writes them.
    pub const fn name(self) -> &'static str {
        match self {
            QuantAlgo::Fp8 => "FP8",
            QuantAlgo::Fp8PerChannelPerToken => "FP8_PER_CHANNEL_PER_TOKEN",
            QuantAlgo::Fp8Blocks => "fp8_pb_wo",
            QuantAlgo::Int8SmoothQuant => "W8A8_SQ_PER_CHANNEL",
            QuantAlgo::Int8WeightOnly => "W8A16",
            QuantAlgo::Int4Awq => "W4A16_AWQ",
            QuantAlgo::W4A8Awq => "W4A8_AWQ",
            QuantAlgo::Nvfp4 => "NVFP4",
            QuantAlgo::Nvfp4Awq => "NVFP4_AWQ",
            QuantAlgo::W4A16Nvfp4 => "W4A16_NVFP4",
            QuantAlgo::Nvfp4Svd => "NVFP4_SVD",
            QuantAlgo::W4A8Nvfp4Fp8 => "W4A8_NVFP4_FP8",
            QuantAlgo::Mxfp8 => "MXFP8",
            QuantAlgo::Mxfp4 => "mxfp4",
            QuantAlgo::W4A8Mxfp4Fp8 => "W4A8_MXFP4_FP8",
            QuantAlgo::Mxfp4WeightOnly => "MXFP4 with float inputs",
            QuantAlgo::IntWeightOnly { .. } => "integers with float inputs",
            QuantAlgo::IntPerToken { .. } => "integers with INT8 inputs per token",
        }
    }

    /// Returns the format of a name, in any case.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] with the known names.
    pub fn of_name(name: &str) -> Result<Self, CheckpointError> {
        Self::ALL.into_iter().find(|algo| algo.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            CheckpointError::Unknown {
                what: "`quant_algo`".into(),
                found: name.into(),
                known: "FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, W8A8_SQ_PER_CHANNEL, W8A16, W4A16_AWQ, W4A8_AWQ, \
                        NVFP4, NVFP4_AWQ, W4A16_NVFP4, NVFP4_SVD, W4A8_NVFP4_FP8, MXFP8, MXFP4, W4A8_MXFP4_FP8 and \
                        MIXED_PRECISION",
            }
        })
    }

    /// Returns what weights are made of.
    ///
    /// The first stage of [`QuantAlgo::W4A8Awq`].
    pub const fn element(self) -> Element {
        match self {
            QuantAlgo::Fp8 | QuantAlgo::Fp8PerChannelPerToken | QuantAlgo::Fp8Blocks | QuantAlgo::Mxfp8 => {
                Element::Float(Minifloat::E4M3)
            }
            QuantAlgo::Int8SmoothQuant | QuantAlgo::Int8WeightOnly => Element::Int(8),
            QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq => Element::Int(4),
            QuantAlgo::IntWeightOnly { bits } | QuantAlgo::IntPerToken { bits } => Element::Int(bits),
            _ => Element::Float(Minifloat::E2M1),
        }
    }

    /// Returns whether weights are blocks of E2M1 under E4M3 scales under a scale of the tensor.
    ///
    /// These are NVFP4 and its relatives.
    pub const fn is_nvfp4(self) -> bool {
        matches!(
            self,
            QuantAlgo::Nvfp4
                | QuantAlgo::Nvfp4Awq
                | QuantAlgo::W4A16Nvfp4
                | QuantAlgo::Nvfp4Svd
                | QuantAlgo::W4A8Nvfp4Fp8
        )
    }

    /// Returns whether ModelOpt's folders have the format.
    ///
    /// compressed-tensors and GGUF have others.
    pub const fn is_modelopt(self) -> bool {
        !matches!(self, QuantAlgo::IntWeightOnly { .. } | QuantAlgo::IntPerToken { .. } | QuantAlgo::Mxfp4WeightOnly)
    }

    /// Returns whether weights are blocks under powers of two.
    ///
    /// These are the MX formats.
    pub const fn is_mx(self) -> bool {
        matches!(self, QuantAlgo::Mxfp8 | QuantAlgo::Mxfp4 | QuantAlgo::W4A8Mxfp4Fp8 | QuantAlgo::Mxfp4WeightOnly)
    }

    /// Returns whether the scale of inputs moves into the norm before the layer.
    ///
    /// ModelOpt does it where the name says `AWQ`.
    pub const fn folds_into_norms(self) -> bool {
        matches!(self, QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq | QuantAlgo::Nvfp4Awq)
    }

    /// Returns whether files say how many elements share a scale.
    ///
    /// As `group_size`.
    pub const fn has_group_size(self) -> bool {
        self.is_nvfp4()
            || matches!(self, QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq | QuantAlgo::Mxfp8)
            || matches!(self, QuantAlgo::W4A8Mxfp4Fp8)
    }

    /// Returns whether files speak of zero points and of scales of inputs.
    ///
    /// As `has_zero_point` and `pre_quant_scale`.
    pub const fn has_scale_flags(self) -> bool {
        matches!(self, QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq | QuantAlgo::Nvfp4Awq | QuantAlgo::Nvfp4Svd)
    }

    /// Returns the amax of inputs whose `input_scale` is 1, in formats that store one.
    ///
    /// 127, 448, or 6 · 448 for NVFP4.
    pub const fn input_max(self) -> Option<f32> {
        match self {
            QuantAlgo::Int8SmoothQuant => Some(127.0),
            QuantAlgo::Nvfp4 | QuantAlgo::Nvfp4Awq | QuantAlgo::Nvfp4Svd => Some(2688.0),
            QuantAlgo::Fp8 | QuantAlgo::W4A8Awq | QuantAlgo::W4A8Nvfp4Fp8 | QuantAlgo::W4A8Mxfp4Fp8 => Some(448.0),
            _ => None,
        }
    }
}

impl fmt::Display for QuantAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
