//! Stored codes and scales as a matrix.

use burn_quant_numerics::E8m0;

use super::super::GgmlType;
use super::legacy::nibbles;
use super::{k_quants, legacy};
use crate::{CheckpointError, Dtype, Element, Minifloat, Offset, QuantizedMatrix, ScaleKind};

/// The types whose codes and scales are a [`QuantizedMatrix`].
const KNOWN: &str = "Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and MXFP4";

/// Reads blocks as codes and scales, so that [`QuantizedMatrix::dequantize`] is [`decode`](super::decode), bit for bit.
///
/// `bytes`: `outputs` rows of `inputs` elements, whole blocks. Name the tensor for errors.
///
/// # Errors
///
/// [`CheckpointError::Unknown`] for a type that has no codes or looks them up in a table of its own,
/// [`CheckpointError::Element`] for an exponent of MXFP4 that stands for NaN.
pub(in super::super) fn matrix(
    name: &str,
    ggml: GgmlType,
    [outputs, inputs]: [usize; 2],
    bytes: &[u8],
) -> Result<QuantizedMatrix, CheckpointError> {
    let mut parts = Parts::with_capacity(outputs * inputs, bytes.len() / ggml.block_bytes());
    let (element, block) = match ggml {
        GgmlType::Q4_0 => parts.legacy::<18>(bytes, legacy::q4_0, Element::Int(4)),
        GgmlType::Q5_0 => parts.legacy::<22>(bytes, legacy::q5_0, Element::Int(5)),
        GgmlType::Q8_0 => parts.legacy::<34>(bytes, legacy::q8_0, Element::Int(8)),
        GgmlType::Q4_1 => parts.legacy::<20>(bytes, legacy::q4_1, Element::Uint(4)),
        GgmlType::Q5_1 => parts.legacy::<24>(bytes, legacy::q5_1, Element::Uint(5)),
        GgmlType::Q2_K => parts.k_quants::<84>(bytes, k_quants::q2_k, Element::Uint(2)),
        GgmlType::Q3_K => parts.k_quants::<110>(bytes, k_quants::q3_k, Element::Int(3)),
        GgmlType::Q4_K => parts.k_quants::<144>(bytes, k_quants::q4_k, Element::Uint(4)),
        GgmlType::Q5_K => parts.k_quants::<176>(bytes, k_quants::q5_k, Element::Uint(5)),
        GgmlType::Q6_K => parts.k_quants::<210>(bytes, k_quants::q6_k, Element::Int(6)),
        GgmlType::MXFP4 => parts.mxfp4(name, bytes)?,
        other => return Err(super::unknown(name, other, KNOWN)),
    };
    let Parts { codes, scales, minima, exponents } = parts;
    Ok(QuantizedMatrix {
        outputs,
        inputs,
        element,
        codes,
        block_outputs: 1,
        block_inputs: block,
        scales,
        scale_kind: if exponents.is_empty() { ScaleKind::Float } else { ScaleKind::E8M0(exponents) },
        offset: if minima.is_empty() { Offset::None } else { Offset::Minima(minima) },
        then_e4m3: None,
        dtype: Dtype::F32,
    })
}

/// The parts of a matrix, in the order of its blocks.
struct Parts {
    codes: Vec<u8>,
    scales: Vec<f32>,
    minima: Vec<f32>,
    exponents: Vec<u8>,
}

impl Parts {
    fn with_capacity(elements: usize, blocks: usize) -> Self {
        let (codes, scales) = (Vec::with_capacity(elements), Vec::with_capacity(blocks));
        Self { codes, scales, minima: Vec::new(), exponents: Vec::new() }
    }

    /// Appends blocks of 32; returns elements and block.
    fn legacy<const N: usize>(
        &mut self,
        bytes: &[u8],
        read: impl Fn(&[u8; N]) -> legacy::Block,
        element: Element,
    ) -> (Element, usize) {
        for block in bytes.as_chunks::<N>().0.iter().map(read) {
            self.codes.extend(block.codes.map(|code| code as u8));
            self.scales.push(block.scale);
            self.minima.extend(block.minimum);
        }
        (element, 32)
    }

    /// Appends super-blocks of 256; returns elements and block: 16 or 32.
    fn k_quants<const N: usize>(
        &mut self,
        bytes: &[u8],
        read: impl Fn(&[u8; N]) -> k_quants::SuperBlock,
        element: Element,
    ) -> (Element, usize) {
        let mut block = 32;
        for all in bytes.as_chunks::<N>().0.iter().map(read) {
            block = 256 / all.scales.len();
            self.codes.extend(all.codes.map(|code| code as u8));
            self.scales.extend(all.scales);
            self.minima.extend(all.minima);
        }
        (element, block)
    }

    /// Appends blocks of MXFP4; returns elements and block.
    fn mxfp4(&mut self, name: &str, bytes: &[u8]) -> Result<(Element, usize), CheckpointError> {
        for block in bytes.as_chunks::<17>().0 {
            if block[0] == 255 {
                let expected = "exponents of at most 254".into();
                return Err(CheckpointError::Element { name: name.into(), expected, found: 255 });
            }
            // ggml has no negative zero: its code 8 is zero
            self.codes.extend(nibbles(&block[1..]).map(|code| if code == 8 { 0 } else { code }));
            self.scales.push(E8m0::from_byte(block[0]).value());
            self.exponents.push(block[0]);
        }
        Ok((Element::Float(Minifloat::E2M1), 32))
    }
}
