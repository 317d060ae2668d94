//! Layers as their formats store them, read.
//!
//! ```text
//! w = T((q − z) · s)         in the type T of the scales: f32, bf16, f16
//! ```
//!
//! Source: compressed-tensors 0.20.0, `NaiveQuantizationCompressor` and `PackedQuantizationCompressor`. Products are
//! those of f32, rounded once, which are the package's own: codes have at most 9 significant bits.

use burn_quant_numerics::Minifloat;

use super::blocks::{Blocks, float_scales, integers, matrix};
use super::minifloats::{mx, nvfp4};
use super::scheme::{Args, Dynamic, Format, Scheme, Strategy};
use super::words;
use crate::columns;
use crate::error::shape;
use crate::{CheckpointError, Dtype, Element, Folder, Offset, QuantizedMatrix, ScaleKind};

/// Reads the weight of a layer.
pub(super) fn weight(folder: &Folder, layer: &str, scheme: &Scheme) -> Result<QuantizedMatrix, CheckpointError> {
    let what = || format!("the scheme of `{layer}`");
    let unknown = |found: String, known| Err(CheckpointError::Unknown { what: what(), found, known });
    let Args { element, symmetric, strategy, dynamic, .. } = scheme.weights;
    if dynamic != Dynamic::Static || matches!(strategy, Strategy::Token) {
        return unknown(format!("{strategy:?}, {dynamic:?}"), "static scales for weights");
    }
    if !symmetric && matches!(element, Element::Float(_)) {
        return unknown("floats around zero points".into(), "integers around zero points, and symmetric floats");
    }
    let format = scheme.format;
    match (format, element, strategy) {
        (Format::IntQuantized | Format::NaiveQuantized, Element::Int(_), _) => whole_bytes(folder, layer, scheme),
        (Format::FloatQuantized | Format::NaiveQuantized, Element::Float(Minifloat::E4M3), _) => {
            whole_bytes(folder, layer, scheme)
        }
        (Format::PackQuantized, Element::Int(bits), _) => packed_integers(folder, layer, scheme, bits),
        (Format::Nvfp4PackQuantized, Element::Float(Minifloat::E2M1), Strategy::TensorGroup(block)) => {
            nvfp4(folder, layer, block)
        }
        (Format::Mxfp4PackQuantized, Element::Float(e @ Minifloat::E2M1), Strategy::Group(block))
        | (Format::Mxfp6PackQuantized, Element::Float(e @ Minifloat::E2M3), Strategy::Group(block))
        | (Format::Mxfp8Quantized, Element::Float(e @ Minifloat::E4M3), Strategy::Group(block)) => {
            mx(folder, layer, e, block)
        }
        (format, element, strategy) => {
            let found = format!("{element:?} by {strategy:?} as {}", format.name());
            unknown(found, "the elements and strategies that the format holds")
        }
    }
}

/// `int-quantized`, `float-quantized`, `naive-quantized`: a byte for each code.
fn whole_bytes(folder: &Folder, layer: &str, scheme: &Scheme) -> Result<QuantizedMatrix, CheckpointError> {
    let [weight, scale, zero] = ["weight", "weight_scale", "weight_zero_point"].map(|leaf| format!("{layer}.{leaf}"));
    let Args { element, symmetric, strategy, .. } = scheme.weights;
    let tensor = folder.tensor(&weight)?;
    let [outputs, inputs] = match element {
        Element::Float(_) => matrix(&weight, &tensor, Dtype::F8E4M3, "F8_E4M3")?,
        _ => matrix(&weight, &tensor, Dtype::I8, "I8")?,
    };
    let blocks = Blocks::of(&weight, strategy, [outputs, inputs])?;
    let (scales, dtype) = float_scales(&scale, &folder.tensor(&scale)?, &blocks)?;
    if let Element::Int(bits) = element {
        integers(&weight, tensor.bytes().iter().map(|code| i64::from(*code as i8)), bits)?;
    }
    let offset = match (symmetric, element) {
        (false, Element::Int(bits)) => {
            let tensor = folder.tensor(&zero)?;
            blocks.fit(&zero, tensor.shape())?;
            let zeros = tensor.to_i64(&zero)?;
            integers(&zero, zeros.iter().copied(), bits)?;
            Offset::ZeroPoints(zeros.into_iter().map(|zero| zero as f32).collect())
        }
        _ => Offset::None,
    };
    let codes = tensor.into_bytes();
    let (scale_kind, [block_outputs, block_inputs]) = (ScaleKind::Float, blocks.block);
    let then_e4m3 = None;
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

/// `pack-quantized`: integers without gaps in words, `q + 2^(bits − 1)`.
fn packed_integers(
    folder: &Folder,
    layer: &str,
    scheme: &Scheme,
    bits: u8,
) -> Result<QuantizedMatrix, CheckpointError> {
    let [packed, shape_of, scale] =
        ["weight_packed", "weight_shape", "weight_scale"].map(|leaf| format!("{layer}.{leaf}"));
    let Args { element, symmetric, strategy, .. } = scheme.weights;
    let tensor = folder.tensor(&packed)?;
    let [outputs, row] = matrix(&packed, &tensor, Dtype::I32, "I32")?;
    let said = folder.tensor(&shape_of)?.to_i64(&shape_of)?;
    let inputs = match said[..] {
        [rows, columns] if usize::try_from(rows) == Ok(outputs) => usize::try_from(columns).ok(),
        _ => None,
    };
    let inputs = inputs.filter(|inputs| *inputs > 0 && words::words(*inputs, bits) == Some(row)).ok_or_else(|| {
        let expected = format!("what `{shape_of}` = {said:?} takes with {bits} bits");
        shape(&packed, expected, tensor.shape())
    })?;
    let blocks = Blocks::of(&packed, strategy, [outputs, inputs])?;
    let (scales, dtype) = float_scales(&scale, &folder.tensor(&scale)?, &blocks)?;
    let offset = if symmetric { Offset::None } else { zero_points(folder, layer, scheme, bits, &blocks)? };
    let half = 1u8 << (bits - 1);
    let mut codes = words::unpack(tensor.bytes(), inputs, bits);
    codes.iter_mut().for_each(|code| *code = code.wrapping_sub(half));
    let (scale_kind, [block_outputs, block_inputs], then_e4m3) = (ScaleKind::Float, blocks.block, None);
    let matrix = QuantizedMatrix {
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
    };
    let order = format!("{layer}.weight_g_idx");
    match folder.find(&order)? {
        Some(groups) => columns::reorder(matrix, &order, &groups),
        None => Ok(matrix),
    }
}

/// Zero points of `pack-quantized`: in words along the rows for channels and groups, else whole.
fn zero_points(
    folder: &Folder,
    layer: &str,
    scheme: &Scheme,
    bits: u8,
    blocks: &Blocks,
) -> Result<Offset, CheckpointError> {
    let name = format!("{layer}.weight_zero_point");
    let tensor = folder.tensor(&name)?;
    if !matches!(scheme.weights.strategy, Strategy::Channel | Strategy::Group(_)) {
        blocks.fit(&name, tensor.shape())?;
        let zeros = tensor.to_i64(&name)?;
        integers(&name, zeros.iter().copied(), bits)?;
        return Ok(Offset::ZeroPoints(zeros.into_iter().map(|zero| zero as f32).collect()));
    }
    let [rows, groups] = matrix(&name, &tensor, Dtype::I32, "I32")?;
    let [outputs, count] = blocks.count;
    if groups != count || words::words(outputs, bits) != Some(rows) {
        return Err(shape(&name, format!("{count} columns of {outputs} numbers of {bits} bits"), tensor.shape()));
    }
    let columns = words::unpack(&words::transpose(tensor.bytes(), groups, 4), outputs, bits);
    let half = f32::from(1u8 << (bits - 1));
    let zeros = words::transpose(&columns, outputs, 1).into_iter().map(|zero| f32::from(zero) - half);
    Ok(Offset::ZeroPoints(zeros.collect()))
}
