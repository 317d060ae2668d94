//! Layers and the configuration of a folder, written: codes and scales as they are.
//!
//! Our choices: scales have the type of the weight's values where that holds them exactly, and else F32. A global scale
//! is `1 / s2`; of layers that were read it is the one that gives their block scales again.

use burn_quant_numerics::{Minifloat, packed::bits};
use serde_json::{Map, Value, json};

use super::scheme::{Format, ScaleType, Scheme, Strategy};
use super::words;
use crate::dtype::round_to;
use crate::{
    CheckpointError, Dtype, Element, Inputs, KvQuantizer, NotExportable, Offset, QuantizedLayer, QuantizedMatrix,
    ScaleKind, Tensor,
};

/// The version whose configuration is written.
const VERSION: &str = "0.20.0";

/// Writes the tensors of a layer: its weight, scales and zero points, and the scale of its inputs.
///
/// Their names begin with that of the layer. Codes and scales are those of the layer, so that what the package makes of
/// the tensors is what [`QuantizedMatrix::dequantize`] returns, except that it returns bfloat16 for NVFP4 and MX, and
/// the type of the scales else.
///
/// # Errors
///
/// As [`Scheme::of`], and [`NotExportable::ZeroPoint`] for zero points that are no codes.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::compressed_tensors::{Format, Scheme, config, write_layer};
/// use burn_quant_checkpoint::{Dtype, Element, Inputs, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind};
///
/// let weight = QuantizedMatrix {
///     outputs: 1,
///     inputs: 4,
///     element: Element::Int(4),
///     codes: vec![1, 0xff, 7, 0xf8], // 1, −1, 7, −8
///     block_outputs: 1,
///     block_inputs: 2,
///     scales: vec![0.5, 0.25],
///     scale_kind: ScaleKind::Float,
///     offset: Offset::None,
///     then_e4m3: None,
///     dtype: Dtype::BF16,
/// };
/// let layer = QuantizedLayer { weight, inputs: Inputs::Float, pre_quant_scale: None, low_rank: None };
/// let tensors = write_layer("fc", &layer, Format::PackQuantized)?;
/// assert_eq!(tensors[0].0, "fc.weight_packed");
/// assert_eq!(tensors[0].1.bytes(), [0x79, 0x0f, 0, 0]); // 9, 7, 15, 0: codes + 8
///
/// let json = config([("fc", Scheme::of("fc", &layer, Format::PackQuantized)?)], Some(&["lm_head"]), None);
/// assert_eq!(json["config_groups"]["group_0"]["targets"][0], "Linear");
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn write_layer(
    name: &str,
    layer: &QuantizedLayer,
    format: Format,
) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let scheme = Scheme::of(name, layer, format)?;
    let refuse = |reason| CheckpointError::NotExportable { name: name.into(), format: format.name(), reason };
    let matrix = &layer.weight;
    let mut tensors = codes(matrix, format);
    tensors.extend(scales(matrix, &scheme).map_err(refuse)?);
    if !scheme.weights.symmetric {
        tensors.push(("weight_zero_point", zero_points(matrix, &scheme).map_err(refuse)?));
    }
    match layer.inputs {
        Inputs::Static { scale, .. } => tensors.push(("input_scale", floats(matrix.dtype, vec![1], &[scale]))),
        Inputs::Nvfp4 { tensor_scale } => {
            let global = Tensor::from_f32(Dtype::F32, vec![1], &[tensor_scale.recip()]);
            tensors.push(("input_global_scale", global));
        }
        Inputs::Float | Inputs::Dynamic { .. } | Inputs::PerToken { .. } | Inputs::Mx { .. } => {}
    }
    Ok(tensors.into_iter().map(|(leaf, tensor)| (format!("{name}.{leaf}"), tensor)).collect())
}

/// Writes the scales of the keys and the values of an attention layer, such as `model.layers.0.self_attn`.
///
/// # Errors
///
/// [`CheckpointError::NotExportable`] for other numbers than E4M3, for biases, and for scales that are not finite.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::{Element, KvQuantizer, compressed_tensors::write_kv};
/// use burn_quant_numerics::Minifloat;
///
/// let quantizer = KvQuantizer { element: Element::Float(Minifloat::E4M3), scale: 0.25, bias: None };
/// let tensors = write_kv("model.layers.0.self_attn", [&quantizer, &quantizer])?;
/// assert_eq!(tensors[1].0, "model.layers.0.self_attn.v_scale");
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn write_kv(attention: &str, [keys, values]: [&KvQuantizer; 2]) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let write = |quantizer: &KvQuantizer, leaf: &str| {
        let format = |found| NotExportable::Format { found, known: "E4M3 with a scale of the tensor" };
        let reason = match (quantizer.element, &quantizer.bias, quantizer.scale) {
            (Element::Float(Minifloat::E4M3), None, scale) if scale.is_finite() => None,
            (Element::Float(Minifloat::E4M3), None, found) => {
                Some(NotExportable::NotANumber { what: "the scale of its cache", found })
            }
            (_, Some(_), _) => Some(format("bias of keys and values".into())),
            (element, None, _) => Some(format(format!("{element:?} for keys and values"))),
        };
        let name = format!("{attention}.{leaf}");
        match reason {
            Some(reason) => Err(CheckpointError::NotExportable { name, format: "kv_cache_scheme", reason }),
            None => Ok((name, Tensor::from_f32(Dtype::F32, vec![1], &[quantizer.scale]))),
        }
    };
    Ok(vec![write(keys, "k_scale")?, write(values, "v_scale")?])
}

/// Returns the `quantization_config` of layers with their schemes, one group for each distinct scheme.
///
/// Groups target the full names of their layers, in the order of their first. If all have one scheme, and `ignore`
/// lists the linear layers that stay in float, the group targets `Linear`, as the package does it. `kv` says to what
/// keys and values are rounded: E4M3, or nothing.
pub fn config<'a>(
    layers: impl IntoIterator<Item = (&'a str, Scheme)>,
    ignore: Option<&[&str]>,
    kv: Option<&KvQuantizer>,
) -> Value {
    let mut groups: Vec<(Scheme, Vec<&str>)> = Vec::new();
    for (name, scheme) in layers {
        match groups.iter_mut().find(|(of, _)| *of == scheme) {
            Some((_, names)) => names.push(name),
            None => groups.push((scheme, vec![name])),
        }
    }
    if let ([(_, names)], Some(_)) = (&mut groups[..], ignore) {
        *names = vec!["Linear"];
    }
    let format = match groups.first() {
        None => "dense",
        Some((first, _)) if groups.iter().all(|(scheme, _)| scheme.format == first.format) => first.format.name(),
        Some(_) => "mixed-precision",
    };
    let groups = groups.iter().enumerate().map(|(i, (scheme, names))| {
        let group = json!({
            "format": scheme.format.name(),
            "input_activations": scheme.inputs.map(|args| args.to_json()),
            "output_activations": scheme.outputs.map(|args| args.to_json()),
            "targets": names,
            "weights": scheme.weights.to_json(),
        });
        (format!("group_{i}"), group)
    });
    let kv = kv.map(|quantizer| super::Args::of_kv(quantizer.element).to_json());
    json!({
        "config_groups": Value::Object(groups.collect::<Map<_, _>>()),
        "format": format,
        "global_compression_ratio": null,
        "ignore": ignore.unwrap_or_default(),
        "kv_cache_scheme": kv,
        "moe_sparsity_config": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": VERSION,
    })
}

/// Floats in a type that holds them, or else in F32.
fn floats(dtype: Dtype, shape: Vec<usize>, values: &[f32]) -> Tensor {
    let mut rounded = values.to_vec();
    round_to(dtype, &mut rounded);
    let dtype = if dtype.is_float() && dtype != Dtype::F64 && rounded == values { dtype } else { Dtype::F32 };
    Tensor::from_f32(dtype, shape, values)
}

/// Codes as signed integers: those without sign lose the half of their range.
fn signed(matrix: &QuantizedMatrix) -> Vec<u8> {
    match matrix.element {
        Element::Uint(bits) => matrix.codes.iter().map(|code| code.wrapping_sub(1 << (bits - 1))).collect(),
        _ => matrix.codes.clone(),
    }
}

/// The codes of a weight.
fn codes(matrix: &QuantizedMatrix, format: Format) -> Vec<(&'static str, Tensor)> {
    let (outputs, inputs, bits) = (matrix.outputs, matrix.inputs, matrix.element.bits());
    match format {
        Format::PackQuantized => {
            let half = 1u8 << (bits - 1);
            let codes: Vec<u8> = signed(matrix).into_iter().map(|code| code.wrapping_add(half)).collect();
            let shape: Vec<u8> = [outputs, inputs].iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
            let packed = words::pack(&codes, inputs, bits);
            vec![
                ("weight_packed", Tensor::new(Dtype::I32, vec![outputs, packed.len() / outputs / 4], packed)),
                ("weight_shape", Tensor::new(Dtype::I64, vec![2], shape)),
            ]
        }
        Format::Nvfp4PackQuantized | Format::Mxfp4PackQuantized | Format::Mxfp6PackQuantized => {
            // blocks are whole bytes, so rows are
            let row = inputs * usize::from(bits) / 8;
            let mut packed = vec![0; outputs * row];
            bits::pack(&matrix.codes, bits, &mut packed).expect("blocks of whole bytes");
            vec![("weight_packed", Tensor::new(Dtype::U8, vec![outputs, row], packed))]
        }
        _ => {
            let dtype = if matches!(matrix.element, Element::Float(_)) { Dtype::F8E4M3 } else { Dtype::I8 };
            vec![("weight", Tensor::new(dtype, vec![outputs, inputs], signed(matrix)))]
        }
    }
}

/// The scales of a weight.
fn scales(matrix: &QuantizedMatrix, scheme: &Scheme) -> Result<Vec<(&'static str, Tensor)>, NotExportable> {
    let blocks = matrix.blocks();
    Ok(match &matrix.scale_kind {
        ScaleKind::Float => {
            let shape = if scheme.weights.strategy == Strategy::Tensor { vec![1] } else { blocks.to_vec() };
            vec![("weight_scale", floats(matrix.dtype, shape, &matrix.scales))]
        }
        ScaleKind::E8M0(bytes) => vec![("weight_scale", Tensor::new(Dtype::U8, blocks.to_vec(), bytes.clone()))],
        ScaleKind::E4M3 { codes, tensor_scale } => {
            let global = global_scale(*tensor_scale, codes, &matrix.scales);
            if !global.is_finite() {
                return Err(NotExportable::NotANumber { what: "the reciprocal scale of its tensor", found: global });
            }
            vec![
                ("weight_scale", Tensor::new(Dtype::F8E4M3, blocks.to_vec(), codes.clone())),
                ("weight_global_scale", Tensor::from_f32(Dtype::F32, vec![1], &[global])),
            ]
        }
    })
}

/// The global scale: of the floats whose reciprocal is the scale of the tensor, the one that gives all block scales.
///
/// Several floats have one reciprocal in f32, so `1 / (1 / g)` is not always `g`.
fn global_scale(tensor_scale: f32, codes: &[u8], scales: &[f32]) -> f32 {
    let nearest = tensor_scale.recip();
    let around = [nearest, nearest.next_up(), nearest.next_down(), nearest.next_up().next_up()];
    let gives = |global: &f32| {
        global.recip() == tensor_scale
            && codes.iter().zip(scales).all(|(code, scale)| Minifloat::E4M3.decode(*code) / global == *scale)
    };
    around.into_iter().find(gives).unwrap_or(nearest)
}

/// Zero points: signed bytes, or packed along the rows.
fn zero_points(matrix: &QuantizedMatrix, scheme: &Scheme) -> Result<Tensor, NotExportable> {
    let bits = matrix.element.bits();
    let half = 1i32 << (bits - 1);
    let first = if matches!(matrix.element, Element::Uint(_)) { 0 } else { -half };
    let none = vec![0.0; matrix.scales.len()];
    let zeros = if let Offset::ZeroPoints(zeros) = &matrix.offset { zeros } else { &none };
    let code = |zero: &f32| {
        let (least, most) = (first, first + 2 * half - 1);
        let is_code = zero.fract() == 0.0 && (least as f32..=most as f32).contains(zero);
        // from zero up
        if is_code {
            Ok((*zero as i32 - first) as u8)
        } else {
            Err(NotExportable::ZeroPoint { found: *zero, least, most })
        }
    };
    let codes = zeros.iter().map(code).collect::<Result<Vec<u8>, _>>()?;
    let [rows, columns] = matrix.blocks();
    let is_packed = scheme.format == Format::PackQuantized && scheme.weights.strategy != Strategy::Tensor;
    if !is_packed {
        let shape = if scheme.weights.strategy == Strategy::Tensor { vec![1] } else { vec![rows, columns] };
        return Ok(Tensor::new(Dtype::I8, shape, codes.iter().map(|code| code.wrapping_sub(half as u8)).collect()));
    }
    let packed = words::pack(&words::transpose(&codes, columns, 1), rows, bits);
    let height = packed.len() / columns / 4;
    Ok(Tensor::new(Dtype::I32, vec![height, columns], words::transpose(&packed, height, 4)))
}

impl super::Args {
    /// Static scales of a whole tensor.
    fn of_kv(element: Element) -> Self {
        let (strategy, dynamic, scale) = (Strategy::Tensor, super::Dynamic::Static, ScaleType::Float);
        Self { element, symmetric: true, strategy, dynamic, scale }
    }
}
