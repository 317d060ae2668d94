//! Layers that others quantized: written with their codes and scales, or refused.

use burn_quant_checkpoint::compressed_tensors::{
    Format, Quantization, Scheme, Strategy, config, write_kv, write_layer,
};
use burn_quant_checkpoint::{
    CheckpointError, Dtype, Element, Inputs, KvQuantizer, LowRank, NotExportable, Offset, QuantizedLayer,
    QuantizedMatrix, ScaleKind,
};
use burn_quant_numerics::{E8m0, Minifloat};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{again, folder, parts};

const E4M3: Element = Element::Float(Minifloat::E4M3);
const E2M1: Element = Element::Float(Minifloat::E2M1);

/// A layer with codes in a row, and different scales.
fn layer(
    element: Element,
    shape: [usize; 2],
    block: [usize; 2],
    scale_kind: fn(Vec<u8>) -> ScaleKind,
) -> QuantizedLayer {
    let [outputs, inputs] = shape;
    let bits = element.bits();
    let sign = |code: u8| {
        if let Element::Int(bits) = element { ((code << (8 - bits)) as i8 >> (8 - bits)) as u8 } else { code }
    };
    let code = |i: usize| sign((i as u8).wrapping_mul(37) & (255 >> (8 - bits)));
    let codes =
        (0..outputs * inputs).map(code).map(|c| if element == E4M3 && c & 127 == 127 { 0 } else { c }).collect();
    let count = outputs.div_ceil(block[0]) * inputs.div_ceil(block[1]);
    let bytes: Vec<u8> = (0..count).map(|i| 100 + (i % 20) as u8).collect();
    let scale_kind = scale_kind(bytes.clone());
    let scale = |byte: &u8| match &scale_kind {
        ScaleKind::Float => f32::from(*byte) / 999.0,
        ScaleKind::E8M0(_) => E8m0::from_byte(*byte).value(),
        ScaleKind::E4M3 { tensor_scale, .. } => Minifloat::E4M3.decode(*byte) * tensor_scale,
    };
    let scales = bytes.iter().map(scale).collect();
    let weight = QuantizedMatrix {
        outputs,
        inputs,
        element,
        codes,
        block_outputs: block[0],
        block_inputs: block[1],
        scales,
        scale_kind,
        offset: Offset::None,
        then_e4m3: None,
        dtype: Dtype::F32,
    };
    QuantizedLayer { weight, inputs: Inputs::Float, pre_quant_scale: None, low_rank: None }
}

fn float(_: Vec<u8>) -> ScaleKind {
    ScaleKind::Float
}

fn nvfp4(codes: Vec<u8>) -> ScaleKind {
    ScaleKind::E4M3 { codes, tensor_scale: 0.000_57 }
}

#[test]
fn codes_and_scales_of_every_format_come_back() {
    for (element, block, kind, format) in [
        (Element::Int(8), [1, 128], float as fn(Vec<u8>) -> ScaleKind, Format::IntQuantized),
        (Element::Int(8), [1, 128], float, Format::PackQuantized),
        (Element::Int(8), [8, 128], float, Format::NaiveQuantized),
        (Element::Int(4), [1, 32], float, Format::PackQuantized),
        (Element::Int(4), [1, 64], float, Format::PackQuantized),
        (Element::Int(4), [1, 1], float, Format::PackQuantized),
        (Element::Int(4), [8, 128], float, Format::PackQuantized),
        (E4M3, [8, 128], float, Format::FloatQuantized),
        (E4M3, [1, 128], float, Format::NaiveQuantized),
        (E4M3, [3, 50], float, Format::FloatQuantized), // blocks may be ragged
        (E2M1, [1, 32], ScaleKind::E8M0, Format::Mxfp4PackQuantized),
        (Element::Float(Minifloat::E2M3), [1, 32], ScaleKind::E8M0, Format::Mxfp6PackQuantized),
        (E4M3, [1, 32], ScaleKind::E8M0, Format::Mxfp8Quantized),
    ] {
        let layer = layer(element, [8, 128], block, kind);
        let read = again(&layer, format);
        assert_eq!(parts(&read.weight), parts(&layer.weight), "{element:?} in {block:?} as {format:?}");
        assert_eq!((read.weight.element, &read.weight.scale_kind), (element, &layer.weight.scale_kind));
    }
}

/// `s2` is stored as `1 / s2`, which divides where ModelOpt multiplies.
#[test]
fn nvfp4_keeps_codes_and_block_scales_under_the_reciprocal_of_its_tensor_scale() {
    let mut layer = layer(E2M1, [4, 64], [1, 16], nvfp4);
    layer.inputs = Inputs::Nvfp4 { tensor_scale: 1.0 / 1024.0 };
    let tensors = write_layer("fc", &layer, Format::Nvfp4PackQuantized).unwrap();
    let scalar = |at: usize, name: &str| {
        assert_eq!((tensors[at].0.as_str(), tensors[at].1.shape()), (name, &[1][..]));
        tensors[at].1.to_scalar(name).unwrap()
    };
    assert_eq!(scalar(2, "fc.weight_global_scale"), 1.0 / 0.000_57);
    assert_eq!(scalar(3, "fc.input_global_scale"), 1024.0);
    let ScaleKind::E4M3 { codes, .. } = &layer.weight.scale_kind else { panic!("block scales") };
    assert_eq!(tensors[1].1.bytes(), codes);
    let read = again(&layer, Format::Nvfp4PackQuantized);
    assert_eq!(read.weight.codes, layer.weight.codes);
    for (read, written) in read.weight.scales.iter().zip(&layer.weight.scales) {
        assert!((read - written).abs() <= written * 2.0 * f32::EPSILON, "{read} {written}");
    }
}

#[test]
fn zero_points_are_packed_along_the_rows_and_those_without_sign_are_moved() {
    for (element, least, format) in [
        (Element::Int(4), -8.0, Format::PackQuantized),
        (Element::Uint(4), 0.0, Format::PackQuantized),
        (Element::Uint(8), 0.0, Format::IntQuantized),
    ] {
        let mut layer = layer(element, [13, 64], [1, 32], float);
        let zeros: Vec<f32> = (0..26).map(|i| least + (i % 16) as f32).collect();
        layer.weight.offset = Offset::ZeroPoints(zeros);
        let read = again(&layer, format).weight;
        assert_eq!(read.dequantize(), layer.weight.dequantize(), "{element:?}");
        layer.weight.offset = Offset::ZeroPoints(vec![least - 1.0; 26]);
        let error = write_layer("fc", &layer, format).unwrap_err();
        let is_zero_point =
            |reason: &NotExportable| matches!(reason, NotExportable::ZeroPoint { found, .. } if *found == least - 1.0);
        assert!(matches!(error, CheckpointError::NotExportable { reason, .. } if is_zero_point(&reason)));
    }
}

#[test]
fn scales_have_the_type_of_the_weight_where_it_holds_them() {
    let mut layer = layer(Element::Int(8), [8, 128], [1, 128], float);
    layer.weight.dtype = Dtype::BF16;
    layer.inputs = Inputs::Static { element: Element::Int(8), scale: 0.5 };
    let dtype =
        |layer: &QuantizedLayer, at: usize| write_layer("fc", layer, Format::IntQuantized).unwrap()[at].1.dtype();
    assert_eq!((dtype(&layer, 1), dtype(&layer, 2)), (Dtype::F32, Dtype::BF16), "n/999 is none of bfloat16");
    layer.weight.scales.fill(0.25);
    assert_eq!(dtype(&layer, 1), Dtype::BF16);
}

#[test]
fn what_a_format_does_not_hold_is_refused_with_the_reason() {
    let reason = |layer: &QuantizedLayer, format| match write_layer("fc", layer, format) {
        Err(CheckpointError::NotExportable { reason, .. }) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let int4 = || layer(Element::Int(4), [8, 128], [1, 32], float);
    let change = |change: fn(&mut QuantizedLayer)| {
        let mut layer = int4();
        change(&mut layer);
        layer
    };
    let scaled = change(|layer| layer.pre_quant_scale = Some(vec![1.0; 128]));
    assert!(reason(&scaled, Format::PackQuantized).starts_with("its inputs are scaled before they are quantized"));
    let branch = change(|layer| layer.low_rank = Some(LowRank { rank: 0, down: vec![], up: vec![] }));
    assert_eq!(reason(&branch, Format::PackQuantized), "it has a branch of low rank");
    let minima = change(|layer| layer.weight.offset = Offset::Minima(vec![0.0; 32]));
    assert_eq!(reason(&minima, Format::PackQuantized), "the format has no minima, only zero points");
    let twice = change(|layer| layer.weight.then_e4m3 = Some(1.0));
    assert_eq!(reason(&twice, Format::PackQuantized), "the format has no second rounding to E4M3, only one rounding");
    let infinite = change(|layer| layer.weight.scales[3] = f32::INFINITY);
    assert_eq!(reason(&infinite, Format::PackQuantized), "a scale is inf");
    let ragged = layer(Element::Int(4), [8, 100], [1, 32], float);
    let text = "its 100 inputs are no whole number of blocks of 32";
    assert_eq!(reason(&ragged, Format::PackQuantized), text);
    assert_eq!(reason(&layer(E2M1, [8, 100], [1, 32], ScaleKind::E8M0), Format::Mxfp4PackQuantized), text);
    let wide = layer(E2M1, [8, 128], [1, 64], ScaleKind::E8M0);
    assert_eq!(reason(&wide, Format::Mxfp4PackQuantized), "its blocks have 64 elements, expected 32 in a row");
    let float = "the format has no Int(4) under floats, only E4M3 under floats";
    assert_eq!(reason(&int4(), Format::FloatQuantized), float);
    let short = change(|layer| layer.weight.scales.truncate(31));
    assert!(matches!(write_layer("fc", &short, Format::PackQuantized), Err(CheckpointError::Shape { .. })));
    let wide = change(|layer| layer.weight.codes[5] = 8); // four bits end at 7
    assert!(matches!(write_layer("fc", &wide, Format::PackQuantized), Err(CheckpointError::Element { found: 8, .. })));
}

#[test]
fn layers_of_one_scheme_are_linears_only_beside_a_list_of_those_in_float() {
    let layer = layer(Element::Int(4), [8, 128], [1, 32], float);
    let scheme = Scheme::of("a", &layer, Format::PackQuantized).unwrap();
    assert_eq!(scheme.weights.strategy, Strategy::Group(32));
    let targets = |json: &serde_json::Value| json["config_groups"]["group_0"]["targets"].clone();
    let all = config([("a", scheme), ("b", scheme)], Some(&["lm_head"]), None);
    assert_eq!((targets(&all), &all["ignore"]), (json!(["Linear"]), &json!(["lm_head"])));
    let named = config([("a", scheme), ("b", scheme)], None, None);
    assert_eq!(targets(&named), json!(["a", "b"]));
}

#[test]
fn keys_and_values_have_a_scale_in_e4m3() {
    let quantizer = |scale| KvQuantizer { element: E4M3, scale, bias: None };
    let pair = [quantizer(0.25), quantizer(0.5)];
    let tensors = write_kv("model.layers.0.self_attn", [&pair[0], &pair[1]]).unwrap();
    let temporary = folder(&config([], None, Some(&pair[0])), tensors);
    let folder = &temporary.folder;
    let quantization = Quantization::of(folder).unwrap().unwrap();
    assert_eq!(quantization.kv(folder, "model.layers.0.self_attn").unwrap(), Some(pair));
    assert!(matches!(quantization.kv(folder, "model.layers.1.self_attn"), Err(CheckpointError::Missing { .. })));
    let biased = KvQuantizer { bias: Some(vec![0.0]), ..quantizer(1.0) };
    assert!(write_kv("a", [&biased, &biased]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn integers_of_any_width_and_shape_come_back(bits in 2u8..=8, outputs in 1usize..40, inputs in 1usize..70) {
        let layer = layer(Element::Int(bits), [outputs, inputs], [1, inputs], float);
        prop_assert_eq!(again(&layer, Format::PackQuantized).weight, layer.weight);
    }

    /// `1 / (1 / g)` is not always `g`; the block scales tell which it was.
    #[test]
    fn global_scales_of_layers_that_were_read_come_back(global in 0.01f32..30_000.0) {
        let mut layer = layer(E2M1, [20, 64], [1, 16], nvfp4);
        let ScaleKind::E4M3 { codes, tensor_scale } = &mut layer.weight.scale_kind else { panic!("block scales") };
        *tensor_scale = 1.0 / global;
        layer.weight.scales = codes.iter().map(|code| Minifloat::E4M3.decode(*code) / global).collect();
        layer.weight.dtype = Dtype::BF16;
        prop_assert_eq!(again(&layer, Format::Nvfp4PackQuantized).weight, layer.weight);
    }
}
