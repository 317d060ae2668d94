//! Codes and scales of a matrix as blocks: codes are kept, scales are rounded to f16.
//!
//! ```text
//! Q4_0, Q5_0, Q8_0   d = f16(scale)                          code + 8, + 16, + 0
//! Q4_1, Q5_1         d = f16(scale), m = f16(low · d + o)    code − low, low = −2^(bits−1) of signed codes, else 0
//! MXFP4              e = the E8M0 byte                       the E2M1 code
//! ```
//!
//! with `o` the stored minimum, or `−zero point · d`. A scale of a larger block is repeated in each block of 32.
//!
//! Our choice: a scale beyond f16 is an error. A scale below its normal numbers is rounded to the nearest, as ggml
//! rounds its own scales: the values change by at most `2⁻²⁵ · |code|`; [`HalfScales`] tells that it happened.

use super::super::GgmlType;
use super::floats::half_scale;
use super::legacy::pack;
use super::{encode, not_exportable};
use crate::{CheckpointError, Element, Minifloat, NotExportable, Offset, QuantizedMatrix, ScaleKind};

/// What rounding scales to f16 changed.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{GgmlType, HalfScales, encode_matrix};
/// use burn_quant_checkpoint::{Dtype, Element, Offset, QuantizedMatrix, ScaleKind};
///
/// let matrix = QuantizedMatrix {
///     outputs: 1,
///     inputs: 32,
///     element: Element::Int(4),
///     codes: vec![0xf8; 32], // -8
///     block_outputs: 1,
///     block_inputs: 32,
///     scales: vec![0.5],
///     scale_kind: ScaleKind::Float,
///     offset: Offset::None,
///     then_e4m3: None,
///     dtype: Dtype::F32,
/// };
/// let mut rounded = HalfScales::default();
/// let block = encode_matrix("w", GgmlType::Q4_0, &matrix, &mut rounded)?;
/// assert_eq!(block, [&[0x00, 0x38][..], &[0; 16]].concat()); // 0.5 in f16, then -8 + 8
/// assert_eq!((rounded.changed, rounded.subnormal), (0, 0));
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HalfScales {
    /// Number of scales.
    pub scales: usize,
    /// Number of scales that have another value in f16.
    pub changed: usize,
    /// Number of scales that are not zero and below the normal numbers of f16, `2⁻¹⁴`.
    pub subnormal: usize,
    /// Largest relative change of a scale that is normal in f16; at most `2⁻¹¹`.
    pub largest: f32,
}

impl HalfScales {
    /// Rounds a scale, and counts what that changes.
    fn round(&mut self, scale: f32) -> Result<half::f16, NotExportable> {
        let half = half_scale(scale)?;
        let (value, magnitude) = (half.to_f32(), scale.abs());
        self.scales += 1;
        self.changed += usize::from(value != scale);
        if magnitude != 0.0 && magnitude < half::f16::MIN_POSITIVE.to_f32() {
            self.subnormal += 1;
        } else if magnitude != 0.0 {
            self.largest = self.largest.max((value - scale).abs() / magnitude);
        }
        Ok(half)
    }
}

/// Encodes a matrix. Codes are kept where the type has codes; a float type gets the dequantized values.
///
/// [`GgmlType::of_matrix`] returns the type for a matrix. Name the tensor for errors. Rounding values to
/// [`QuantizedMatrix::dtype`] is not part of the format: values are f32 afterwards.
///
/// # Errors
///
/// [`CheckpointError::NotExportable`] with [`NotExportable::Format`] for a type that cannot hold the codes,
/// [`NotExportable::Ragged`] for rows that are no whole number of blocks of 32, [`NotExportable::Block`] for scales of
/// fewer or other elements, [`NotExportable::HalfScale`] for a scale or minimum beyond f16,
/// [`NotExportable::Code`] for a code that is not of its element.
pub fn encode_matrix(
    name: &str,
    ggml: GgmlType,
    matrix: &QuantizedMatrix,
    rounded: &mut HalfScales,
) -> Result<Vec<u8>, CheckpointError> {
    match ggml {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => encode(name, ggml, &matrix.dequantize()),
        _ => Blocks::new(ggml, matrix)
            .and_then(|blocks| blocks.encode(rounded))
            .map_err(|reason| not_exportable(name, reason)),
    }
}

/// How codes become those of a type.
#[derive(Clone, Copy)]
enum Packing {
    /// Signed codes of so many bits, stored with an offset.
    Signed(u32),
    /// Signed codes of eight bits.
    Bytes,
    /// Codes of so many bits, from zero, with a minimum. `low` is what code zero stands for.
    Affine { bits: u32, low: f32 },
    /// E2M1 under a power of two.
    Mxfp4,
}

struct Blocks<'a> {
    matrix: &'a QuantizedMatrix,
    packing: Packing,
}

impl<'a> Blocks<'a> {
    fn new(ggml: GgmlType, matrix: &'a QuantizedMatrix) -> Result<Self, NotExportable> {
        let bits = u32::from(matrix.element.bits());
        let affine = |wanted| match matrix.element {
            Element::Int(_) if bits <= wanted => {
                Some(Packing::Affine { bits: wanted, low: -(2f32.powi(bits as i32 - 1)) })
            }
            Element::Uint(_) if bits <= wanted => Some(Packing::Affine { bits: wanted, low: 0.0 }),
            _ => None,
        };
        let packing = match (ggml, matrix.element, &matrix.offset) {
            _ if matrix.then_e4m3.is_some() => None,
            (GgmlType::Q4_0, Element::Int(2..=4), Offset::None) => Some(Packing::Signed(4)),
            (GgmlType::Q5_0, Element::Int(2..=5), Offset::None) => Some(Packing::Signed(5)),
            (GgmlType::Q8_0, Element::Int(_), Offset::None) => Some(Packing::Bytes),
            (GgmlType::Q4_1, ..) => affine(4),
            (GgmlType::Q5_1, ..) => affine(5),
            (GgmlType::MXFP4, Element::Float(float), Offset::None) if float == Minifloat::E2M1 => {
                matches!(matrix.scale_kind, ScaleKind::E8M0(_)).then_some(Packing::Mxfp4)
            }
            _ => None,
        };
        let packing = packing.ok_or_else(|| NotExportable::Format {
            found: format!("{ggml} for codes of {:?}", matrix.element),
            known: "Q4_0, Q5_0 and Q8_0 for signed, Q4_1 and Q5_1 for affine integers, MXFP4 for E2M1 under E8M0",
        })?;
        if !matrix.inputs.is_multiple_of(32) {
            return Err(NotExportable::Ragged { axis: "inputs", len: matrix.inputs, block: 32 });
        }
        if !matrix.block_inputs.is_multiple_of(32) && matrix.block_inputs < matrix.inputs {
            return Err(NotExportable::Block {
                found: matrix.block_inputs,
                expected: "a multiple of 32 along the inputs",
            });
        }
        if matches!(packing, Packing::Mxfp4) && matrix.block_inputs != 32 {
            return Err(NotExportable::Block { found: matrix.block_inputs, expected: "32" });
        }
        Ok(Self { matrix, packing })
    }

    fn encode(&self, rounded: &mut HalfScales) -> Result<Vec<u8>, NotExportable> {
        let (matrix, [_, along]) = (self.matrix, self.matrix.blocks());
        let mut bytes = Vec::with_capacity(matrix.codes.len() + matrix.codes.len() / 16);
        for (output, row) in matrix.codes.chunks_exact(matrix.inputs.max(1)).enumerate() {
            for (i, codes) in row.as_chunks::<32>().0.iter().enumerate() {
                let scale = output / matrix.block_outputs.max(1) * along + i * 32 / matrix.block_inputs.max(1);
                self.block(codes, scale, &mut bytes, rounded)?;
            }
        }
        Ok(bytes)
    }

    fn block(
        &self,
        codes: &[u8; 32],
        at: usize,
        bytes: &mut Vec<u8>,
        rounded: &mut HalfScales,
    ) -> Result<(), NotExportable> {
        let matrix = self.matrix;
        if let Some(code) = codes.iter().find(|code| !is_code(matrix.element, **code)) {
            return Err(NotExportable::Code { found: *code, element: format!("{:?}", matrix.element) });
        }
        if let (Packing::Mxfp4, ScaleKind::E8M0(exponents)) = (self.packing, &matrix.scale_kind) {
            bytes.push(exponents[at]);
            pack(codes, 4, bytes);
            return Ok(());
        }
        let d = rounded.round(matrix.scales[at])?;
        bytes.extend(d.to_le_bytes());
        match self.packing {
            Packing::Bytes => bytes.extend(codes),
            Packing::Signed(bits) => pack(&codes.map(|code| code.wrapping_add(1 << (bits - 1))), bits, bytes),
            Packing::Affine { bits, low } => {
                let added = match &matrix.offset {
                    Offset::None => 0.0,
                    Offset::Minima(minima) => minima[at],
                    // the scale that is stored, so that the zero point stays at zero
                    Offset::ZeroPoints(zeros) => -zeros[at] * d.to_f32(),
                };
                bytes.extend(half_scale(low * d.to_f32() + added)?.to_le_bytes());
                pack(&codes.map(|code| code.wrapping_sub(low as i8 as u8)), bits, bytes);
            }
            Packing::Mxfp4 => unreachable!("MXFP4 is checked to have E8M0 scales"),
        }
        Ok(())
    }
}

/// Returns whether a byte is a code of an element.
fn is_code(element: Element, code: u8) -> bool {
    match element {
        Element::Int(bits) => {
            let half = 1i16 << (bits - 1);
            (-half..half).contains(&i16::from(code as i8))
        }
        Element::Uint(_) | Element::Float(_) => u16::from(code) < 1 << element.bits(),
    }
}
