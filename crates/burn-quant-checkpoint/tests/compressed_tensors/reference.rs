//! The package's own folders: what they mean, and that they are written as they were.

use burn_quant_checkpoint::compressed_tensors::{Format, Quantization, Scheme, config, write_layer};
use burn_quant_checkpoint::{Dtype, Element, Folder, Inputs, QuantizedMatrix, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{data, open};

/// The folders, and what is done to the inputs of their layers.
const FOLDERS: [&str; 10] = [
    "float_fp8_dynamic",
    "float_fp8_static",
    "int_w8a8_dynamic",
    "int_w8a8_static",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "pack_w3a16_channel",
    "pack_w4a16_g32_asym",
    "pack_w4a16_g32_sym",
];

fn bytes(matrix: &QuantizedMatrix) -> Vec<u8> {
    Tensor::from_f32(matrix.dtype, vec![matrix.outputs, matrix.inputs], &matrix.dequantize()).into_bytes()
}

#[test]
fn every_layer_means_what_the_package_decompresses_bit_for_bit() {
    let json = std::fs::read(data("dequantized.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    for name in FOLDERS {
        let (folder, quantization) = open(name);
        let layers = quantization.layers(&folder).unwrap();
        assert_eq!(layers.len(), expected[name]["sha256"].as_object().unwrap().len(), "{name}");
        for layer in layers {
            let weight = quantization.layer(&folder, &layer).unwrap().weight;
            let dtype = if weight.dtype == Dtype::BF16 { "bfloat16" } else { "float32" };
            assert_eq!(dtype, expected[name]["dtype"], "{name}/{layer}");
            let hash: String = Sha256::digest(bytes(&weight)).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected[name]["sha256"][format!("{layer}.weight")], "{name}/{layer}");
        }
    }
}

#[test]
fn schemes_without_a_folder_of_their_own_mean_what_the_package_decompresses() {
    let (folder, quantization) = open("mixed");
    let file = std::fs::read(data("mixed/decompressed.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let layers = quantization.layers(&folder).unwrap();
    assert_eq!(layers.len(), expected.len());
    for layer in layers {
        let (weight, expected) = (quantization.weight(&folder, &layer).unwrap(), expected.tensor(&layer).unwrap());
        let dtype = format!("{:?}", expected.dtype());
        assert_eq!((weight.dtype.to_string(), [weight.outputs, weight.inputs].as_slice()), (dtype, expected.shape()));
        assert!(bytes(&weight) == expected.data(), "{layer}");
    }
}

/// Writes what was read of a folder: tensors, and the configuration if it is of one scheme.
fn rewrite(folder: &Folder, quantization: &Quantization, ignore: Option<&[&str]>) -> (Vec<(String, Tensor)>, Value) {
    let names = quantization.layers(folder).unwrap();
    let (mut tensors, mut schemes) = (Vec::new(), Vec::new());
    for name in &names {
        let layer = quantization.layer(folder, name).unwrap();
        let format = quantization.scheme(name).unwrap().format;
        tensors.extend(write_layer(name, &layer, format).unwrap());
        schemes.push((name.as_str(), Scheme::of(name, &layer, format).unwrap()));
        assert_eq!(&schemes.last().unwrap().1, quantization.scheme(name).unwrap(), "{name}");
    }
    (tensors, config(schemes, ignore, None))
}

#[test]
fn what_was_read_is_written_byte_for_byte() {
    for name in FOLDERS.into_iter().chain(["mixed"]) {
        let (folder, quantization) = open(name);
        let (tensors, _) = rewrite(&folder, &quantization, None);
        let mut written: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        written.sort_unstable();
        assert_eq!(written, folder.names().collect::<Vec<_>>(), "{name}");
        for (tensor, written) in tensors {
            let read = folder.tensor(&tensor).unwrap();
            assert_eq!((read.dtype(), read.shape()), (written.dtype(), written.shape()), "{name}/{tensor}");
            assert!(read == written, "{name}/{tensor}");
        }
    }
}

#[test]
fn the_configuration_is_written_as_the_package_writes_it() {
    for name in FOLDERS {
        let (folder, quantization) = open(name);
        let (_, json) = rewrite(&folder, &quantization, Some(&["lm_head"]));
        assert_eq!(json, folder.config()["quantization_config"], "{name}");
    }
}

/// Groups are numbered by their first layers, in the order in which layers are given: that of names here.
#[test]
fn layers_of_several_schemes_are_groups_of_names_in_mixed_precision() {
    let (folder, quantization) = open("mixed");
    let (_, json) = rewrite(&folder, &quantization, None);
    assert_eq!(json["format"], "mixed-precision");
    let groups = |json: &Value| {
        let mut groups: Vec<Value> = json["config_groups"].as_object().unwrap().values().cloned().collect();
        groups.sort_by_key(|group| group["targets"].to_string());
        groups
    };
    assert_eq!(groups(&json), groups(&folder.config()["quantization_config"]));
}

#[test]
fn inputs_are_what_the_scheme_says() {
    let inputs = |name: &str| {
        let (folder, quantization) = open(name);
        let layer = "model.layers.0.self_attn.q_proj";
        let of = |leaf: &str| folder.find(&format!("{layer}.{leaf}")).unwrap().map(|x| x.to_scalar("").unwrap());
        (quantization.layer(&folder, layer).unwrap().inputs, of("input_scale"), of("input_global_scale"))
    };
    let (int8, e4m3) = (Element::Int(8), Element::Float(burn_quant_numerics::Minifloat::E4M3));
    assert!(matches!(inputs("pack_w4a16_g32_sym"), (Inputs::Float, None, None)));
    assert!(matches!(inputs("int_w8a8_dynamic"), (Inputs::PerToken { element }, None, None) if element == int8));
    assert!(matches!(inputs("float_fp8_dynamic"), (Inputs::PerToken { element }, None, None) if element == e4m3));
    let (found, Some(scale), None) = inputs("int_w8a8_static") else { panic!("a scale for inputs") };
    assert_eq!(found, Inputs::Static { element: int8, scale });
    let (found, None, Some(global)) = inputs("nvfp4") else { panic!("a global scale for inputs") };
    assert_eq!(found, Inputs::Nvfp4 { tensor_scale: 1.0 / global });
}

#[test]
fn folders_that_are_not_of_compressed_tensors_are_none() {
    let (folder, _) = open("mxfp4");
    assert_eq!(folder.config()["quantization_config"]["quant_method"], "compressed-tensors");
    let other = crate::support::changed("mxfp4", |json| json["quant_method"] = "modelopt".into(), |_, t| Some(t));
    assert_eq!(Quantization::of(&other.folder).unwrap(), None);
    assert_eq!(Format::Mxfp4PackQuantized.name(), folder.config()["quantization_config"]["format"]);
}
