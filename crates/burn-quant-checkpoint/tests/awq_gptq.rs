//! AutoAWQ and GPTQ, against folders that independent packers wrote (`tests/data/awq-gptq`).

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::awq_gptq::Quantization;
use burn_quant_checkpoint::compressed_tensors::{Format, write_layer};
use burn_quant_checkpoint::{CheckpointError, Dtype, Element, Folder, FolderWriter, Offset, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

const LAYER: &str = "model.fc";

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/awq-gptq").join(folder)
}

fn open(folder: &str) -> (Folder, Quantization) {
    let folder = Folder::open(data(folder)).unwrap();
    let quantization = Quantization::of(&folder).unwrap().unwrap();
    (folder, quantization)
}

/// A copy of a folder with another configuration, and other tensors.
fn changed(
    folder: &str,
    config: impl FnOnce(&mut Value),
    mut tensor: impl FnMut(&str, Tensor) -> Option<Tensor>,
) -> (tempfile::TempDir, Folder) {
    let from = Folder::open(data(folder)).unwrap();
    let mut json = from.config().clone();
    config(&mut json["quantization_config"]);
    let place = tempfile::tempdir().unwrap();
    let mut writer = FolderWriter::create(place.path().join("changed")).unwrap();
    writer.json("config.json", &json).unwrap();
    for name in from.names() {
        if let Some(tensor) = tensor(name, from.tensor(name).unwrap()) {
            writer.tensor(name, tensor).unwrap();
        }
    }
    let folder = Folder::open(writer.finish().unwrap()).unwrap();
    (place, folder)
}

#[test]
fn layers_mean_what_their_packers_packed_bit_for_bit() {
    for (name, bits, block) in [
        ("awq", 4, 32),
        ("gptq_2", 2, 32),
        ("gptq_3", 3, 64),
        ("gptq_4", 4, 32),
        ("gptq_8", 8, 16),
        ("gptq_4_act_order", 4, 1), // a scale for each element
    ] {
        let (folder, quantization) = open(name);
        assert_eq!(quantization.layers(&folder).unwrap(), [LAYER], "{name}");
        let weight = quantization.layer(&folder, LAYER).unwrap().weight;
        assert_eq!((weight.element, weight.block_inputs), (Element::Uint(bits), block), "{name}");
        let file = std::fs::read(data(name).join("dequantized.safetensors")).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&file).unwrap();
        let expected = expected.tensor(LAYER).unwrap();
        assert_eq!(expected.shape(), [weight.outputs, weight.inputs], "{name}");
        let found = Tensor::from_f32(Dtype::F16, expected.shape().to_vec(), &weight.dequantize());
        assert!(found.bytes() == expected.data(), "{name}");
    }
}

#[test]
fn zero_points_of_the_first_gptq_format_are_stored_less_one() {
    let zeros = |folder: &str, change: &str| {
        let change = |json: &mut Value| json["checkpoint_format"] = json!(change);
        let (_place, folder) = changed(folder, change, |_, tensor| Some(tensor));
        let quantization = Quantization::of(&folder).unwrap().unwrap();
        match quantization.layer(&folder, LAYER).unwrap().weight.offset {
            Offset::ZeroPoints(zeros) => zeros,
            other => panic!("{other:?}"),
        }
    };
    let (first, second) = (zeros("gptq_4", "gptq"), zeros("gptq_4", "gptq_v2"));
    assert!(first.iter().zip(&second).all(|(first, second)| *first == second + 1.0));
}

/// AWQ's layers have 4-bit codes around zero points, which compressed-tensors packs in another order.
#[test]
fn an_awq_layer_can_be_written_as_compressed_tensors() {
    let (folder, quantization) = open("awq");
    let layer = quantization.layer(&folder, LAYER).unwrap();
    let tensors = write_layer(LAYER, &layer, Format::PackQuantized).unwrap();
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.strip_prefix("model.fc.").unwrap()).collect();
    assert_eq!(names, ["weight_packed", "weight_shape", "weight_scale", "weight_zero_point"]);
    assert_eq!((tensors[2].1.dtype(), tensors[2].1.shape()), (Dtype::F16, &[32, 2][..]));
    let again = tempfile::tempdir().unwrap();
    let mut writer = FolderWriter::create(again.path().join("ct")).unwrap();
    let scheme = burn_quant_checkpoint::compressed_tensors::Scheme::of(LAYER, &layer, Format::PackQuantized).unwrap();
    let config = burn_quant_checkpoint::compressed_tensors::config([(LAYER, scheme)], None, None);
    writer.json("config.json", &json!({"quantization_config": config})).unwrap();
    tensors.into_iter().for_each(|(name, tensor)| writer.tensor(name, tensor).unwrap());
    let folder = Folder::open(writer.finish().unwrap()).unwrap();
    let read = burn_quant_checkpoint::compressed_tensors::Quantization::of(&folder).unwrap().unwrap();
    assert_eq!(read.weight(&folder, LAYER).unwrap().dequantize(), layer.weight.dequantize());
}

#[test]
fn a_layer_without_zero_points_stands_around_the_middle() {
    let (_place, folder) = changed(
        "awq",
        |json| json["zero_point"] = json!(false),
        |name, tensor| (!name.ends_with("qzeros")).then_some(tensor),
    );
    let weight = Quantization::of(&folder).unwrap().unwrap().layer(&folder, LAYER).unwrap().weight;
    assert_eq!(weight.offset, Offset::ZeroPoints(vec![8.0; 64]));
}

#[test]
fn settings_that_are_not_known_are_refused_with_their_key() {
    for (folder, key, value, text) in [
        ("awq", "bits", json!(3), "quantization_config.bits is `3`; known are 4"),
        ("awq", "version", json!("gemv"), "quantization_config.version is `\"gemv\"`; known are gemm"),
        ("gptq_4", "bits", json!(5), "quantization_config.bits is `5`; known are 2, 3, 4, 8"),
        ("gptq_4", "group_size", json!(0), "`quantization_config.group_size` is 0, expected at least 1, or -1"),
        (
            "gptq_4",
            "checkpoint_format",
            json!("marlin"),
            "quantization_config.checkpoint_format is `\"marlin\"`; known are gptq, gptq_v2",
        ),
        (
            "gptq_4",
            "dynamic",
            json!({"+:.*": {"bits": 8}}),
            "quantization_config.dynamic is `{\"+:.*\":{\"bits\":8}}`; known are the same settings for all layers",
        ),
    ] {
        let (_place, folder) = changed(folder, |json| json[key] = value, |_, tensor| Some(tensor));
        assert_eq!(Quantization::of(&folder).unwrap_err().to_string(), text);
    }
    let (_place, folder) = changed("awq", |json| json["quant_method"] = json!("bitsandbytes"), |_, t| Some(t));
    assert_eq!(Quantization::of(&folder).unwrap(), None);
}

#[test]
fn tensors_that_contradict_the_configuration_are_errors() {
    let layer = |folder: &Folder| Quantization::of(folder).unwrap().unwrap().layer(folder, LAYER).unwrap_err();
    let keep = |_: &str, tensor: Tensor| Some(tensor);
    let (_place, folder) = changed("awq", |json| json["modules_to_not_convert"] = json!(["fc"]), keep);
    assert!(matches!(layer(&folder), CheckpointError::Ignored { key: "modules_to_not_convert", .. }));
    let (_place, folder) = changed("gptq_4", |json| json["group_size"] = json!(16), keep);
    assert!(matches!(layer(&folder), CheckpointError::Shape { name, .. } if name == "model.fc.scales"));
    let (_place, folder) = changed("gptq_4", |json| json["bits"] = json!(3), keep);
    assert!(matches!(layer(&folder), CheckpointError::Shape { name, .. } if name == "model.fc.qweight"));
    let without = |name: &str, tensor| (!name.ends_with("qzeros")).then_some(tensor);
    let (_place, folder) = changed("awq", |_| (), without);
    assert!(matches!(layer(&folder), CheckpointError::Missing { name, .. } if name == "model.fc.qzeros"));
    let far = |name: &str, tensor: Tensor| {
        let far = Tensor::new(Dtype::I32, vec![64], [4, 0, 0, 0].repeat(64));
        Some(if name.ends_with("g_idx") { far } else { tensor })
    };
    let (_place, folder) = changed("gptq_4_act_order", |_| (), far);
    assert!(matches!(layer(&folder), CheckpointError::Element { found: 4, .. }));
    let infinite = |name: &str, tensor: Tensor| {
        let infinite = Tensor::from_f32(Dtype::F16, vec![2, 32], &[f32::INFINITY; 64]);
        Some(if name.ends_with("scales") { infinite } else { tensor })
    };
    let (_place, folder) = changed("awq", |_| (), infinite);
    assert!(matches!(layer(&folder), CheckpointError::NotFinite { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn tensors_of_any_type_and_shape_are_read_or_refused(
        which in 0usize..4, dtype in 0usize..4, shape in prop::collection::vec(0usize..9, 0..4),
        v2: bool, bits in 0usize..4,
    ) {
        let leaf = ["qweight", "qzeros", "scales", "g_idx"][which];
        let dtype = [Dtype::I32, Dtype::F16, Dtype::I64, Dtype::U8][dtype];
        let len = shape.iter().product::<usize>() * dtype.size();
        let other = Tensor::new(dtype, shape, vec![0x41; len]);
        let change = |json: &mut Value| {
            json["bits"] = json!([2, 3, 4, 8][bits]);
            json["checkpoint_format"] = json!(if v2 { "gptq_v2" } else { "gptq" });
        };
        let (_place, folder) =
            changed("gptq_4", change, |name, t| Some(if name.ends_with(leaf) { other.clone() } else { t }));
        if let Ok(layer) = Quantization::of(&folder).unwrap().unwrap().layer(&folder, LAYER) {
            prop_assert_eq!(layer.weight.dequantize().len(), layer.weight.outputs * layer.weight.inputs);
        }
    }
}
