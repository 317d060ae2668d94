//! Configurations and tensors that do not fit each other, or mean nothing: errors with facts, and never a panic.

use burn_quant_checkpoint::compressed_tensors::Quantization;
use burn_quant_checkpoint::{CheckpointError, Dtype, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Temporary, changed, open};

const LAYER: &str = "model.layers.0.self_attn.q_proj";

fn error(folder: &Temporary) -> CheckpointError {
    let layer = Quantization::of(&folder.folder).and_then(|q| q.unwrap().layer(&folder.folder, LAYER));
    layer.expect_err("a contradiction")
}

/// A tensor of the layer replaced, or without `Some` left out.
fn tensor(from: &str, leaf: &str, other: Option<Tensor>) -> Temporary {
    changed(from, |_| (), |name, tensor| if name == format!("{LAYER}.{leaf}") { other.clone() } else { Some(tensor) })
}

fn config(from: &str, change: impl FnOnce(&mut Value)) -> Temporary {
    changed(from, change, |_, tensor| Some(tensor))
}

#[test]
fn a_layer_in_the_list_of_those_in_float_has_no_quantized_tensors() {
    let folder = config("mxfp4", |json| json["ignore"] = json!(["lm_head", "re:.*q_proj$"]));
    assert!(matches!(error(&folder), CheckpointError::Ignored { name, key: "ignore" } if name == LAYER));
    let quantization = Quantization::of(&folder.folder).unwrap().unwrap();
    assert!(matches!(quantization.layers(&folder.folder), Err(CheckpointError::Ignored { .. })));
    assert_eq!(quantization.scheme(LAYER), None);
}

#[test]
fn a_quantized_layer_is_targeted() {
    let folder = config("mxfp4", |json| json["config_groups"]["group_0"]["targets"] = json!(["re:.*k_proj"]));
    assert!(matches!(error(&folder), CheckpointError::Untargeted { name } if name == LAYER));
}

#[test]
fn the_most_exact_target_counts() {
    let group = |targets: Value, bits: u8| json!({"targets": targets, "weights": {"num_bits": bits, "group_size": 32}});
    let json = json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        "class": group(json!(["Linear"]), 2),
        "pattern": group(json!(["re:.*_proj"]), 3),
        "name": group(json!(["a.q_proj"]), 4),
        "unquantized": {"targets": ["re:.*gate"], "weights": null},
    }});
    let quantization = Quantization::parse(&json).unwrap();
    let bits = |layer: &str| quantization.scheme(layer).map(|scheme| scheme.weights.element.bits());
    assert_eq!(["a.q_proj", "a.k_proj", "a.other", "a.gate"].map(bits), [Some(4), Some(3), Some(2), None]);
}

#[test]
fn values_that_are_not_known_are_refused_with_their_key() {
    let weights = "/config_groups/group_0/weights";
    for (pointer, value, text) in [
        ("/format", json!("marlin-24"), "known are int-quantized"),
        ("/quantization_status", json!("frozen"), "quantization_status is `\"frozen\"`; known are compressed"),
        ("/sparsity_config", json!({"format": "sparse-24-bitmask"}), "sparsity_config.format is `sparse-24-bitmask`"),
        ("/transform_config", json!({"config_groups": {"R1": {}}}), "transform_config is `R1`"),
        ("/ignore", json!(["re:(?<=a)b"]), "quantization_config.ignore[0] is `re:(?<=a)b`; known are regular"),
        ("/config_groups", json!({"W4A16": ["Linear"]}), "`config_groups.W4A16` is [\"Linear\"], expected an object"),
        (weights, json!({"num_bits": 9}), "weights.num_bits is `int of 9`; known are int of 2 to 8"),
        (weights, json!({"type": "float", "num_bits": 5}), "weights.num_bits is `float of 5`"),
        (weights, json!({"strategy": "attn_head"}), "weights.strategy is `attn_head`"),
        (weights, json!({"strategy": "group"}), "weights.group_size` is missing, expected at least 1"),
        (weights, json!({"strategy": "block"}), "weights.block_structure` is missing"),
        (weights, json!({"group_size": "32"}), "weights.group_size` is \"32\", expected an integer"),
    ] {
        let change = |json: &mut Value| {
            *json.pointer_mut(pointer).unwrap() = value;
            json["config_groups"]["group_0"]["format"] = Value::Null; // that of the folder
        };
        let found = Quantization::of(&config("mxfp4", change).folder).unwrap_err().to_string();
        assert!(found.contains(text), "{found}");
    }
}

#[test]
fn tensors_are_of_the_type_and_shape_that_the_scheme_says() {
    let bytes = |dtype: Dtype, shape: &[usize]| {
        Some(Tensor::new(dtype, shape.to_vec(), vec![0; shape.iter().product::<usize>() * dtype.size()]))
    };
    for (from, leaf, other) in [
        ("mxfp4", "weight_scale", bytes(Dtype::U8, &[64, 3])),
        ("mxfp4", "weight_packed", bytes(Dtype::U8, &[64, 33])),
        ("mxfp4", "weight_packed", bytes(Dtype::U8, &[0, 32])),
        ("pack_w4a16_g32_sym", "weight_packed", bytes(Dtype::I32, &[64, 9])),
        ("pack_w4a16_g32_sym", "weight_scale", bytes(Dtype::F32, &[64])),
        ("pack_w4a16_g32_asym", "weight_zero_point", bytes(Dtype::I32, &[9, 2])),
        ("int_w8a8_static", "weight_scale", bytes(Dtype::F32, &[1])),
        ("int_w8a8_static", "input_scale", bytes(Dtype::F32, &[2])),
    ] {
        let found = error(&tensor(from, leaf, other));
        assert!(matches!(found, CheckpointError::Shape { .. }), "{from}/{leaf}: {found}");
    }
    for (from, leaf, other) in [
        ("mxfp4", "weight_scale", bytes(Dtype::I8, &[64, 2])),
        ("nvfp4", "weight_global_scale", bytes(Dtype::BF16, &[1])),
        ("float_fp8_static", "weight", bytes(Dtype::I8, &[64, 64])),
        ("pack_w4a16_g32_sym", "weight_packed", bytes(Dtype::U8, &[64, 8])),
        ("int_w8a8_static", "weight_scale", bytes(Dtype::F64, &[64, 1])),
    ] {
        let found = error(&tensor(from, leaf, other));
        assert!(matches!(found, CheckpointError::Dtype { .. }), "{from}/{leaf}: {found}");
    }
    let missing = error(&tensor("pack_w4a16_g32_asym", "weight_zero_point", None));
    assert!(matches!(missing, CheckpointError::Missing { name, .. } if name == format!("{LAYER}.weight_zero_point")));
}

#[test]
fn a_shape_from_the_file_is_checked_before_anything_is_made_of_it() {
    for said in [[64, i64::MAX], [64, -64], [i64::MAX, 64], [64, 0], [64, 65]] {
        let bytes = said.iter().flat_map(|n| n.to_le_bytes()).collect();
        let other = Tensor::new(Dtype::I64, vec![2], bytes);
        let found = error(&tensor("pack_w4a16_g32_sym", "weight_shape", Some(other)));
        assert!(matches!(found, CheckpointError::Shape { .. }), "{said:?}: {found}");
    }
}

#[test]
fn scales_are_finite_numbers() {
    for (from, leaf, other) in [
        ("mxfp4", "weight_scale", Tensor::new(Dtype::U8, vec![64, 2], vec![255; 128])),
        ("nvfp4", "weight_scale", Tensor::new(Dtype::F8E4M3, vec![64, 4], vec![0x7f; 256])),
        ("nvfp4", "weight_global_scale", Tensor::from_f32(Dtype::F32, vec![1], &[0.0])),
        ("nvfp4", "input_global_scale", Tensor::from_f32(Dtype::F32, vec![1], &[f32::NAN])),
        ("int_w8a8_static", "weight_scale", Tensor::from_f32(Dtype::F32, vec![64, 1], &[f32::INFINITY; 64])),
        ("int_w8a8_static", "input_scale", Tensor::from_f32(Dtype::F32, vec![1], &[f32::NAN])),
    ] {
        let found = error(&tensor(from, leaf, Some(other)));
        assert!(matches!(found, CheckpointError::NotFinite { .. }), "{from}/{leaf}: {found}");
    }
}

/// Weights of FP8 in blocks have inputs in groups under float scales, which have no name here.
#[test]
fn a_weight_can_be_read_whatever_is_done_to_its_inputs() {
    let groups = json!({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "dynamic": true});
    let folder = config("float_fp8_dynamic", |json| {
        json["config_groups"]["group_0"]["input_activations"] = groups;
    });
    assert!(matches!(error(&folder), CheckpointError::Unknown { .. }));
    let quantization = Quantization::of(&folder.folder).unwrap().unwrap();
    let (same, original) = open("float_fp8_dynamic");
    assert_eq!(quantization.weight(&folder.folder, LAYER).unwrap(), original.weight(&same, LAYER).unwrap());
}

/// Group 1 of column 0 and group 0 of column 32: the rest as if in order.
#[test]
fn columns_in_another_order_are_read_with_a_scale_each() {
    let (plain, quantization) = open("pack_w4a16_g32_asym");
    let plain = quantization.weight(&plain, LAYER).unwrap();
    let read = |swapped: bool| {
        let mut groups: Vec<i32> = (0..64).map(|i| i / 32).collect();
        if swapped {
            groups.swap(0, 32);
        }
        let groups = Tensor::new(Dtype::I32, vec![64], groups.iter().flat_map(|n| n.to_le_bytes()).collect());
        let (name, mut tensors) = (format!("{LAYER}.weight_g_idx"), Vec::new());
        let from = open("pack_w4a16_g32_asym").0;
        tensors.extend(from.names().map(|name| (name.to_string(), from.tensor(name).unwrap())));
        tensors.push((name, groups));
        let temporary = crate::support::folder(&from.config()["quantization_config"], tensors);
        let folder = &temporary.folder;
        quantization.weight(folder, LAYER).unwrap()
    };
    assert_eq!(read(false), plain);
    let swapped = read(true);
    assert_eq!((swapped.block_inputs, &swapped.codes), (1, &plain.codes));
    assert_eq!(
        (swapped.scales[0], swapped.scales[32], swapped.scales[1]),
        (plain.scales[1], plain.scales[0], plain.scales[0])
    );
}

/// A JSON value that may stand anywhere.
fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z:.*()\\[\\]{}?+|0-9-]{0,12}".prop_map(Value::from),
        "re:[a-z.*()\\[\\]{}?+|0-9^$\\\\-]{0,12}".prop_map(Value::from),
        Just(json!({})),
        Just(json!(["Linear"])),
    ]
}

/// Replaces the value that is so many values into a document.
fn replace(json: &mut Value, at: &mut usize, other: &Value) {
    if *at == 0 {
        *json = other.clone();
    }
    *at = at.wrapping_sub(1);
    match json {
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, at, other)),
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, at, other)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_configuration_is_read_or_refused(mut at in 0usize..40, other in any_json()) {
        let (folder, _) = open("pack_w4a16_g32_asym");
        let mut json = folder.config()["quantization_config"].clone();
        replace(&mut json, &mut at, &other);
        if let Ok(quantization) = Quantization::parse(&json) {
            let _ = quantization.layers(&folder);
            let _ = quantization.layer(&folder, LAYER);
            let _ = quantization.kv(&folder, "model.layers.0.self_attn");
        }
    }

    #[test]
    fn tensors_of_any_type_and_shape_are_read_or_refused(
        from in 0usize..6, which in 0usize..8, dtype in 0usize..6,
        shape in prop::collection::vec(0usize..9, 0..4), byte: u8,
    ) {
        let from = ["int_w8a8_static", "pack_w4a16_g32_asym", "nvfp4", "mxfp4", "mxfp8", "float_fp8_static"][from];
        let leaf = ["weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point",
            "weight_global_scale", "input_scale", "input_global_scale"][which];
        let dtype = [Dtype::U8, Dtype::I8, Dtype::F8E4M3, Dtype::I32, Dtype::F32, Dtype::I64][dtype];
        let bytes = vec![byte; shape.iter().product::<usize>() * dtype.size()];
        let temporary = tensor(from, leaf, Some(Tensor::new(dtype, shape, bytes)));
    let folder = &temporary.folder;
        if let Ok(layer) = Quantization::of(folder).unwrap().unwrap().layer(folder, LAYER) {
            prop_assert_eq!(layer.weight.dequantize().len(), layer.weight.outputs * layer.weight.inputs);
        }
    }
}
