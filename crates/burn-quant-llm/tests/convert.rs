//! Folders in codes become folders in float that compute the same.

mod models;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_quant::{QuantConfig, disable, presets, quantize};
use burn_quant_checkpoint::{CheckpointError, Dtype, Folder, FolderWriter, NotExportable};
use burn_quant_llm::{Decoder, ExportState, LlmError, folder_of_quantized};

use models::folder;

fn tokens(device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = (0..32).map(|i| (i * 37 + i * i * 11) % 256).collect();
    Tensor::from_data(TensorData::new(values, [2, 16]), device)
}

fn logits(decoder: &Decoder, device: &Device) -> Vec<f32> {
    decoder.forward(tokens(device), &mut decoder.cache()).into_data().try_into_vec().expect("f32 data")
}

/// A folder of ModelOpt.
fn exported(float: &Folder, config: &QuantConfig, device: &Device) -> (tempfile::TempDir, Folder) {
    let decoder = Decoder::load(float, device).expect("a float model");
    let (decoder, _) = quantize(decoder, config, |decoder| {
        drop(decoder.forward(tokens(device), &mut decoder.cache()));
    })
    .expect("a recipe that fits");
    let place = tempfile::tempdir().expect("a temporary folder");
    let out = ExportState::of(&decoder).and_then(|state| state.write_modelopt(float, &place.path().join("out")));
    let out = Folder::open(out.expect("a folder")).expect("what was written is read");
    (place, out)
}

/// The float folder with one tensor changed.
fn with(float: &Folder, changed: &str, change: impl Fn(&mut Vec<f32>)) -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut writer = FolderWriter::create(place.path().join("float")).expect("a folder");
    writer.json("config.json", float.config()).expect("a file");
    for name in float.names() {
        let tensor = float.tensor(name).expect("a tensor");
        let mut values = tensor.to_f32(name).expect("floats");
        if name == changed {
            change(&mut values);
        }
        let tensor = burn_quant_checkpoint::Tensor::from_f32(Dtype::F32, tensor.shape().to_vec(), &values);
        writer.tensor(name, tensor).expect("a new name");
    }
    let folder = Folder::open(writer.finish().expect("a folder")).expect("what was written is read");
    (place, folder)
}

#[test]
fn floats_of_codes_compute_what_the_codes_do() {
    let device = Device::flex();
    let (_place, float) = folder("llama");
    for (name, config) in [
        ("INT8", presets::int8_weight_only()),
        ("FP8", presets::fp8_default()),
        ("NVFP4, AWQ", presets::nvfp4_awq_lite()),
        ("NVFP4, SVDQuant", presets::nvfp4_svdquant_default()),
    ] {
        let (place, codes) = exported(&float, &config, &device);
        let out = folder_of_quantized(&codes, Dtype::F32, &place.path().join("floats")).expect(name);
        let out = Folder::open(out).expect(name);
        assert!(out.config().get("quantization_config").is_none(), "{name}");
        let floats = Decoder::load(&out, &device).unwrap_or_else(|e| panic!("{name}: {e}"));
        // what is done to activations is lost
        let expected = disable(Decoder::load(&codes, &device).expect(name), "*input_quantizer").expect(name);
        for (found, expected) in logits(&floats, &device).iter().zip(logits(&expected, &device)) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{name}: {found} for {expected}");
        }
    }
}

#[test]
fn rows_of_zeros_are_zeros_in_fp8() {
    let device = Device::flex();
    let (_place, float) = folder("llama");
    let name = "model.layers.0.mlp.gate_proj";
    let (_changed, float) = with(&float, &format!("{name}.weight"), |values| values[..64].fill(0.0));
    for config in [presets::fp8_per_channel_per_token(), presets::fp8_default()] {
        let (place, codes) = exported(&float, &config, &device);
        let out = folder_of_quantized(&codes, Dtype::F32, &place.path().join("floats")).expect("floats");
        let weight = Folder::open(out).unwrap().tensor(&format!("{name}.weight")).unwrap().to_f32(name).unwrap();
        assert_eq!(weight[..64], [0.0; 64]);
        assert!(weight[64..].iter().all(|w| w.is_finite()) && weight[64..].iter().any(|w| *w != 0.0));
    }
    let (_changed, zero) = with(&float, &format!("{name}.weight"), |values| values.fill(0.0));
    let (_place, codes) = exported(&zero, &presets::fp8_default(), &device);
    assert!(logits(&Decoder::load(&codes, &device).unwrap(), &device).iter().all(|logit| logit.is_finite()));
}

#[test]
fn what_f16_cannot_hold_is_refused() {
    let (_place, float) = folder("llama");
    let name = "model.layers.0.mlp.gate_proj.weight";
    let (place, float) = with(&float, name, |values| values[3] = 1e8);
    let error = folder_of_quantized(&float, Dtype::F16, &place.path().join("half")).unwrap_err();
    let LlmError::Checkpoint(CheckpointError::NotExportable { name: found, reason, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!((found.as_str(), reason), (name, NotExportable::HalfElement { found: 1e8 }));
    assert!(!place.path().join("half").exists());
    folder_of_quantized(&float, Dtype::BF16, &place.path().join("brain")).expect("bf16 has the range of f32");
}
