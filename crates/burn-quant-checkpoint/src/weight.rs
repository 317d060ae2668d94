//! A quantized matrix as a checkpoint holds it: codes, scales, and what they mean.

use burn_quant_numerics::{Format, IntFormat, Minifloat};

use crate::Dtype;
use crate::dtype::round_to;

/// What a code is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// An integer of so many bits in two's complement.
    Int(u8),
    /// An integer of so many bits without sign.
    Uint(u8),
    /// A small float.
    Float(Minifloat),
}

impl Element {
    /// Returns the number that a code is.
    ///
    /// Codes of integers are whole bytes: of [`Element::Int`] they are read as `i8`.
    pub fn value(self, code: u8) -> f32 {
        match self {
            Element::Int(_) => f32::from(code as i8),
            Element::Uint(_) => f32::from(code),
            Element::Float(minifloat) => minifloat.decode(code),
        }
    }

    /// Returns the bits of a code.
    ///
    /// 2 to 8.
    pub fn bits(self) -> u8 {
        match self {
            Element::Int(bits) | Element::Uint(bits) => bits,
            Element::Float(minifloat) => minifloat.bits(),
        }
    }

    /// Returns the number format of quantizers for it.
    ///
    /// `None` for integers without sign, which stand around an offset.
    pub fn format(self) -> Option<Format> {
        match self {
            Element::Int(bits) => IntFormat::signed(bits).ok().map(Format::from),
            Element::Uint(_) => None,
            Element::Float(minifloat) => Some(match minifloat {
                Minifloat::E4M3 => Format::E4M3,
                Minifloat::E5M2 => Format::E5M2,
                Minifloat::E3M2 => Format::E3M2,
                Minifloat::E2M3 => Format::E2M3,
                Minifloat::E2M1 => Format::E2M1,
                _ => return None,
            }),
        }
    }
}

/// What is added to the values of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Offset {
    /// Nothing.
    None,
    /// `(code − zero point) · scale`, a zero point for each scale.
    ZeroPoints(Vec<f32>),
    /// `code · scale + minimum`, a minimum for each scale.
    Minima(Vec<f32>),
}

/// How scales are stored, beside their values.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleKind {
    /// As floats.
    Float,
    /// As powers of two, a byte each: see [`E8m0`](burn_quant_numerics::E8m0).
    E8M0(Vec<u8>),
    /// As E4M3 numbers, a byte each, under a scale of the whole tensor.
    E4M3 {
        /// The codes.
        codes: Vec<u8>,
        /// The scale of the tensor, which is multiplied with them.
        tensor_scale: f32,
    },
}

/// A quantized matrix `[outputs, inputs]`, as PyTorch has the weight of a linear layer.
///
/// ```text
/// w[o, i] = value(codes[o, i]) · scales[o / block_outputs, i / block_inputs]
/// ```
///
/// computed in f32, then rounded to `dtype`. A last block may be shorter.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// What codes are.
    pub element: Element,
    /// A byte for each element, row-major.
    pub codes: Vec<u8>,
    /// Rows that share a scale.
    pub block_outputs: usize,
    /// Columns that share a scale.
    pub block_inputs: usize,
    /// The scales, row-major: with two levels, their product.
    pub scales: Vec<f32>,
    /// How scales are stored.
    pub scale_kind: ScaleKind,
    /// What is added.
    pub offset: Offset,
    /// E4M3 rounding of the values under this scale, after all else: the second stage of W4A8.
    pub then_e4m3: Option<f32>,
    /// The type of the values.
    pub dtype: Dtype,
}

impl QuantizedMatrix {
    /// Returns the values in f32, row-major.
    ///
    /// Each is what its checkpoint's own reader makes of it, bit for bit.
    pub fn dequantize(&self) -> Vec<f32> {
        let blocks = self.inputs.div_ceil(self.block_inputs.max(1));
        let mut values = Vec::with_capacity(self.codes.len());
        for (output, row) in self.codes.chunks_exact(self.inputs.max(1)).enumerate() {
            let first = output / self.block_outputs.max(1) * blocks;
            for (block, codes) in row.chunks(self.block_inputs.max(1)).enumerate() {
                let (at, scale) = (first + block, self.scales[first + block]);
                let codes = codes.iter().map(|code| self.element.value(*code));
                match &self.offset {
                    Offset::None => values.extend(codes.map(|x| x * scale)),
                    Offset::ZeroPoints(zeros) => values.extend(codes.map(|x| (x - zeros[at]) * scale)),
                    Offset::Minima(minima) => values.extend(codes.map(|x| x * scale + minima[at])),
                }
            }
        }
        round_to(self.dtype, &mut values);
        if let Some(scale) = self.then_e4m3 {
            let e4m3 = Minifloat::E4M3;
            values.iter_mut().for_each(|x| *x = e4m3.decode(e4m3.encode(*x / scale)) * scale);
            round_to(self.dtype, &mut values);
        }
        values
    }

    /// Returns the number of blocks along the rows and along the columns.
    ///
    /// Their product is the number of scales.
    pub fn blocks(&self) -> [usize; 2] {
        [self.outputs.div_ceil(self.block_outputs.max(1)), self.inputs.div_ceil(self.block_inputs.max(1))]
    }
}

/// What is done to the inputs of a quantized layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inputs {
    /// Nothing.
    Float,
    /// Rounded under one scale.
    Static {
        /// To what.
        element: Element,
        /// The scale.
        scale: f32,
    },
    /// Rounded under one scale, taken from all of them.
    Dynamic {
        /// To what.
        element: Element,
    },
    /// Rounded under a scale of each token, taken from it.
    PerToken {
        /// To what.
        element: Element,
    },
    /// Rounded in blocks under powers of two, taken from them.
    Mx {
        /// To what.
        element: Element,
        /// Elements of a block.
        block: usize,
    },
    /// Rounded to NVFP4: blocks of 16 under E4M3 scales, which are taken from them, under a scale of the tensor.
    Nvfp4 {
        /// The scale of the tensor.
        tensor_scale: f32,
    },
}

/// A quantized linear layer as a checkpoint holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLayer {
    /// The weight.
    pub weight: QuantizedMatrix,
    /// What is done to its inputs.
    pub inputs: Inputs,
    /// What inputs are multiplied with, before all else: `[inputs]`.
    pub pre_quant_scale: Option<Vec<f32>>,
    /// A branch of low rank beside the product, of the scaled inputs.
    pub low_rank: Option<LowRank>,
}

/// A branch of low rank: `x · downᵀ · upᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// Its rank.
    pub rank: usize,
    /// `[rank, inputs]`.
    pub down: Vec<f32>,
    /// `[outputs, rank]`.
    pub up: Vec<f32>,
}

/// What is done to keys or values before they are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KvQuantizer {
    /// To what they are rounded; E2M1 is NVFP4.
    pub element: Element,
    /// `amax / 448`, whatever the element: ModelOpt's convention.
    pub scale: f32,
    /// What is subtracted before, `[heads · features]`.
    pub bias: Option<Vec<f32>>,
}
