//! Small floats in blocks: NVFP4 and the MX formats.
//!
//! ```text
//! NVFP4    w = bf16(q · (s / global scale))    s E4M3, s / g in f32
//! MX       w = bf16(q · 2^e)
//! ```
//!
//! Source: compressed-tensors 0.20.0, `NVFP4PackedCompressor`, `MXFP4PackedCompressor`, `MXFP6PackedCompressor`,
//! `MXFP8QuantizationCompressor`.

use burn_quant_numerics::packed::bits;
use burn_quant_numerics::{E8m0, Minifloat};

use super::blocks::{Blocks, matrix};
use super::scheme::Strategy;
use crate::error::{finite, shape};
use crate::{CheckpointError, Dtype, Element, Folder, Offset, QuantizedMatrix, ScaleKind, Tensor};

/// `nvfp4-pack-quantized`.
pub(super) fn nvfp4(folder: &Folder, layer: &str, block: usize) -> Result<QuantizedMatrix, CheckpointError> {
    let [packed, scale, global] =
        ["weight_packed", "weight_scale", "weight_global_scale"].map(|leaf| format!("{layer}.{leaf}"));
    let (element, codes, [outputs, inputs]) = minifloats(&packed, folder.tensor(&packed)?, Minifloat::E2M1)?;
    let blocks = Blocks::of(&packed, Strategy::TensorGroup(block), [outputs, inputs])?;
    let tensor = folder.tensor(&scale)?;
    matrix(&scale, &tensor, Dtype::F8E4M3, "F8_E4M3")?;
    blocks.fit(&scale, tensor.shape())?;
    let global_scale = global_scale(folder, &global)?;
    let scales: Vec<f32> = tensor.bytes().iter().map(|code| Minifloat::E4M3.decode(*code) / global_scale).collect();
    finite(&scale, &scales)?;
    let scale_kind = ScaleKind::E4M3 { codes: tensor.into_bytes(), tensor_scale: 1.0 / global_scale };
    let [block_outputs, block_inputs] = blocks.block;
    let (offset, then_e4m3, dtype) = (Offset::None, None, Dtype::BF16);
    Ok(QuantizedMatrix {
        outputs,
        inputs,
        element,
        codes,
        block_outputs,
        block_inputs,
        scales,
        scale_kind,
        offset,
        then_e4m3,
        dtype,
    })
}

/// A global scale: a positive f32 with a reciprocal.
pub(super) fn global_scale(folder: &Folder, name: &str) -> Result<f32, CheckpointError> {
    let tensor = folder.tensor(name)?;
    if tensor.dtype() != Dtype::F32 {
        return Err(CheckpointError::Dtype { name: name.into(), expected: "F32", found: tensor.dtype() });
    }
    let scale = tensor.to_scalar(name)?;
    if scale > 0.0 && scale.is_finite() && scale.recip().is_finite() {
        Ok(scale)
    } else {
        Err(CheckpointError::NotFinite { name: name.into(), found: scale.recip() })
    }
}

/// `mxfp4-pack-quantized`, `mxfp6-pack-quantized`, `mxfp8-quantized`.
pub(super) fn mx(
    folder: &Folder,
    layer: &str,
    element: Minifloat,
    block: usize,
) -> Result<QuantizedMatrix, CheckpointError> {
    let leaf = if element == Minifloat::E4M3 { "weight" } else { "weight_packed" };
    let [weight, scale] = [leaf, "weight_scale"].map(|leaf| format!("{layer}.{leaf}"));
    let (element, codes, [outputs, inputs]) = minifloats(&weight, folder.tensor(&weight)?, element)?;
    let blocks = Blocks::of(&weight, Strategy::Group(block), [outputs, inputs])?;
    let tensor = folder.tensor(&scale)?;
    matrix(&scale, &tensor, Dtype::U8, "U8")?;
    blocks.fit(&scale, tensor.shape())?;
    let scales: Vec<f32> = tensor.bytes().iter().map(|byte| E8m0::from_byte(*byte).value()).collect();
    finite(&scale, &scales)?;
    let (scale_kind, [block_outputs, block_inputs]) = (ScaleKind::E8M0(tensor.into_bytes()), blocks.block);
    let (offset, then_e4m3, dtype) = (Offset::None, None, Dtype::BF16);
    Ok(QuantizedMatrix {
        outputs,
        inputs,
        element,
        codes,
        block_outputs,
        block_inputs,
        scales,
        scale_kind,
        offset,
        then_e4m3,
        dtype,
    })
}

/// Codes of small floats: a byte each of 8 bits, else without gaps, two in a byte or four in three.
fn minifloats(
    name: &str,
    tensor: Tensor,
    element: Minifloat,
) -> Result<(Element, Vec<u8>, [usize; 2]), CheckpointError> {
    let width = element.bits();
    if width == 8 {
        let shape = matrix(name, &tensor, Dtype::F8E4M3, "F8_E4M3")?;
        return Ok((Element::Float(element), tensor.into_bytes(), shape));
    }
    let [outputs, bytes] = matrix(name, &tensor, Dtype::U8, "U8")?;
    let (codes, group) = if width == 4 { (2, 1) } else { (4, 3) };
    if !bytes.is_multiple_of(group) {
        return Err(shape(name, "rows of a whole number of four codes", tensor.shape()));
    }
    let inputs = bytes / group * codes; // as many codes as are in memory
    let mut all = vec![0; outputs * inputs];
    bits::unpack(tensor.bytes(), width, &mut all).expect("whole bytes in every row");
    Ok((Element::Float(element), all, [outputs, inputs]))
}
