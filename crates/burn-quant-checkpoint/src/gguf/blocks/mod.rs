//! Blocks: how elements are packed, decoded and encoded.
//!
//! * `floats` F32, F16, BF16
//! * `legacy` Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 codes under scales in f16
//! * `k_quants` Q2_K to Q6_K: 256 codes under scales of two levels
//! * `tables` MXFP4, IQ4_NL: 32 codes that are looked up in a table
//! * `codes` stored codes and scales as a [`QuantizedMatrix`](crate::QuantizedMatrix)
//! * `encode` codes and scales of a matrix as blocks
//!
//! Source: ggml's `ggml-quants.c`; values are those of gguf-python 0.19.0, `quants.py`, bit for bit.

mod codes;
mod encode;
mod floats;
mod k_quants;
mod legacy;
mod tables;

pub(super) use codes::matrix;
pub use encode::{HalfScales, encode_matrix};

use super::GgmlType;
use crate::{CheckpointError, NotExportable};

/// The types that are decoded.
pub(super) const DECODED: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL and MXFP4";

/// The types that are encoded.
pub(super) const ENCODED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MXFP4";

/// Decodes blocks to floats, as ggml does: products and sums are rounded to f32, one by one.
///
/// `bytes`: whole blocks. Name the tensor for errors.
///
/// # Errors
///
/// [`CheckpointError::Unknown`] for a type that is not decoded, see [`GgmlType::is_decoded`];
/// [`CheckpointError::Contradiction`] for bytes that are no whole number of blocks.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{GgmlType, decode, encode};
///
/// let values: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect(); // -16 is code -8, the scale is 2
/// let block = encode("w", GgmlType::Q4_0, &values)?;
/// assert_eq!(block.len(), 18);
/// assert_eq!(decode("w", GgmlType::Q4_0, &block)?[..4], [-16.0, -14.0, -14.0, -12.0]);
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn decode(name: &str, ggml: GgmlType, bytes: &[u8]) -> Result<Vec<f32>, CheckpointError> {
    if !bytes.len().is_multiple_of(ggml.block_bytes()) {
        return Err(CheckpointError::Contradiction {
            name: name.into(),
            one: format!("has {} bytes", bytes.len()),
            other: format!("blocks of {ggml} have {}", ggml.block_bytes()),
        });
    }
    let mut values = Vec::with_capacity(bytes.len() / ggml.block_bytes() * ggml.block());
    match ggml {
        GgmlType::F32 => floats::decode(bytes, f32::from_le_bytes, &mut values),
        GgmlType::F16 => floats::decode(bytes, floats::f16_to_f32, &mut values),
        GgmlType::BF16 => floats::decode(bytes, floats::bf16_to_f32, &mut values),
        GgmlType::Q4_0 => legacy::decode::<18>(bytes, legacy::q4_0, &mut values),
        GgmlType::Q4_1 => legacy::decode::<20>(bytes, legacy::q4_1, &mut values),
        GgmlType::Q5_0 => legacy::decode::<22>(bytes, legacy::q5_0, &mut values),
        GgmlType::Q5_1 => legacy::decode::<24>(bytes, legacy::q5_1, &mut values),
        GgmlType::Q8_0 => legacy::decode::<34>(bytes, legacy::q8_0, &mut values),
        GgmlType::Q2_K => k_quants::decode::<84>(bytes, k_quants::q2_k, &mut values),
        GgmlType::Q3_K => k_quants::decode::<110>(bytes, k_quants::q3_k, &mut values),
        GgmlType::Q4_K => k_quants::decode::<144>(bytes, k_quants::q4_k, &mut values),
        GgmlType::Q5_K => k_quants::decode::<176>(bytes, k_quants::q5_k, &mut values),
        GgmlType::Q6_K => k_quants::decode::<210>(bytes, k_quants::q6_k, &mut values),
        GgmlType::IQ4_NL => tables::decode_iq4_nl(bytes, &mut values),
        GgmlType::MXFP4 => tables::decode_mxfp4(bytes, &mut values),
        other => return Err(unknown(name, other, DECODED)),
    }
    Ok(values)
}

/// Encodes floats as blocks, with the scales and roundings of gguf-python's `quantize`.
///
/// `values`: rows that are whole numbers of blocks, one after the other. Name the tensor for errors.
///
/// | type | scale | code |
/// |---|---|---|
/// | Q8_0 | `max∣x∣ / 127` | nearest, halves away from zero |
/// | Q4_0, Q5_0 | value of largest magnitude by −8, −16 | nearest, halves up, at most 15, 31 |
/// | Q4_1, Q5_1 | `(max − min) / 15`, `/ 31`, minimum stored | nearest, halves up |
/// | MXFP4 | `2^(⌊log2 max∣x∣⌋ − 2)` | nearest, ties to the smaller magnitude |
///
/// Codes are taken with the scale in f32; scale and minimum are then stored in f16.
///
/// # Errors
///
/// [`CheckpointError::NotExportable`] with [`NotExportable::Format`] for a type that is not encoded,
/// [`NotExportable::Ragged`] for a number of values that is no multiple of the block, [`NotExportable::NotANumber`] for
/// a value that is not finite where there are codes, [`NotExportable::HalfScale`] for a scale beyond f16.
pub fn encode(name: &str, ggml: GgmlType, values: &[f32]) -> Result<Vec<u8>, CheckpointError> {
    if !values.len().is_multiple_of(ggml.block()) {
        let reason = NotExportable::Ragged { axis: "elements", len: values.len(), block: ggml.block() };
        return Err(not_exportable(name, reason));
    }
    let mut bytes = Vec::with_capacity(values.len() / ggml.block() * ggml.block_bytes());
    if ggml.block() > 1
        && let Some(found) = values.iter().find(|x| !x.is_finite())
    {
        return Err(not_exportable(name, NotExportable::NotANumber { what: "an element", found: *found }));
    }
    if ggml == GgmlType::F16
        && let Some(found) = values.iter().find(|x| x.is_finite() && half::f16::from_f32(**x).is_infinite())
    {
        return Err(not_exportable(name, NotExportable::HalfElement { found: *found }));
    }
    let blocks = values.as_chunks::<32>().0;
    let fits = match ggml {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => floats::encode(ggml, values, &mut bytes),
        GgmlType::Q8_0 => blocks.iter().try_for_each(|block| legacy::encode_q8_0(block, &mut bytes)),
        GgmlType::Q4_0 => blocks.iter().try_for_each(|block| legacy::encode_signed(block, 4, &mut bytes)),
        GgmlType::Q5_0 => blocks.iter().try_for_each(|block| legacy::encode_signed(block, 5, &mut bytes)),
        GgmlType::Q4_1 => blocks.iter().try_for_each(|block| legacy::encode_affine(block, 4, &mut bytes)),
        GgmlType::Q5_1 => blocks.iter().try_for_each(|block| legacy::encode_affine(block, 5, &mut bytes)),
        GgmlType::MXFP4 => {
            blocks.iter().for_each(|block| tables::encode_mxfp4(block, &mut bytes));
            Ok(())
        }
        other => Err(NotExportable::Format { found: other.to_string(), known: ENCODED }),
    };
    fits.map_err(|reason| not_exportable(name, reason)).map(|()| bytes)
}

fn unknown(name: &str, found: GgmlType, known: &'static str) -> CheckpointError {
    CheckpointError::Unknown { what: format!("the type of `{name}`"), found: found.to_string(), known }
}

pub(super) fn not_exportable(name: &str, reason: NotExportable) -> CheckpointError {
    CheckpointError::NotExportable { name: name.into(), format: "GGUF", reason }
}
