//! Files of safetensors: the same model back, and values that anyone can decode.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor};
use burn_quant::compress::memory;
use burn_quant::config::{BiasConfig, BlockScale, Format, Granularity, Rotation, ScaleFormat};
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::place::{WeightLayout, WeightLayouts, place};
use burn_quant::quantizer::Buffer;
use burn_quant::{
    QuantConfig, QuantizerConfig, Quantizers, Rule, compress, presets, quantize, quantize_weights, summary,
};
use burn_quant_store::{
    Restore, StoreError, restore_safetensors, safetensors_from_bytes, safetensors_to_bytes, save_safetensors, to_bytes,
};
use burn_quant_tests::{device, devices};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{assert_same, spread, values};

/// Layers of burn's and ours: a kernel, a weight of burn's linear layer, parameters that nobody quantizes.
#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    norm: LayerNorm,
    plain: Linear,
    fc: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 4], [3, 3]).init(device).into(),
            norm: LayerNormConfig::new(36).init(device),
            plain: LinearConfig::new(36, 20).init(device),
            fc: LinearConfig::new(20, 18).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.plain.forward(self.norm.forward(self.conv.forward(x).flatten(1, 3))))
    }

    fn inputs(device: &Device) -> Tensor<4> {
        spread([2, 3, 5, 5], device)
    }

    /// With weights in one format, and INT8 inputs.
    fn quantized(weights: QuantizerConfig, device: &Device) -> Self {
        let config = QuantConfig::new()
            .with_rule(Rule::set("*weight_quantizer", weights))
            .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)))
            .with_algorithm(burn_quant::Algorithm::Max);
        let x = Self::inputs(device);
        quantize(Self::new(device), &config, |net| drop(net.forward(x.clone()))).unwrap().0
    }
}

fn affine(config: QuantizerConfig) -> QuantizerConfig {
    config.with_bias(BiasConfig::new(Granularity::PerChannel).max_min())
}

/// A block is 32 elements, and no axis a whole number of them.
fn formats() -> Vec<(&'static str, QuantizerConfig)> {
    let int = QuantizerConfig::int;
    vec![
        ("int8 per channel", int(8).per_channel()),
        ("int8 affine", affine(QuantizerConfig::int(8).per_channel())),
        ("int4 in blocks", int(4).per_block(32)),
        ("int4 affine", affine(int(4).per_channel())),
        ("int3", int(3).per_block(32)),
        ("fp8", QuantizerConfig::e4m3()),
        ("e5m2", QuantizerConfig::new(Format::E5M2).per_channel()),
        ("nf4", QuantizerConfig::new(Format::Nf4).per_block(32)),
        ("nvfp4", QuantizerConfig::nvfp4()),
        ("nvfp4 static", QuantizerConfig::nvfp4_static()),
        ("e4m3 under e4m3", QuantizerConfig::e4m3().per_block(16).with_scale(ScaleFormat::E4M3(BlockScale::Dynamic))),
        ("mxfp4", QuantizerConfig::mx(Format::E2M1)),
        ("mxfp6", QuantizerConfig::mx(Format::E3M2)),
        ("mxint8", QuantizerConfig::mxint8()),
    ]
}

fn stored(bytes: &[u8], path: &str) -> Value {
    let metadata = metadata(bytes);
    serde_json::from_str::<Value>(&metadata["burn-quant.weights"]).unwrap()[path].clone()
}

pub(crate) fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().clone().unwrap().into_iter().collect()
}

/// All buffers of all quantizers, bit for bit.
fn buffers(model: &impl Module) -> Vec<(String, &'static str, Vec<u32>)> {
    let quantizers = Quantizers::of(model);
    let of_stage = |(name, stage): (String, &burn_quant::TensorQuantizer)| {
        let bits = |tensor: Tensor<1>| values(tensor).into_iter().map(f32::to_bits).collect();
        let kept = Buffer::ALL.map(|buffer| Some((name.clone(), buffer.name(), bits(stage.buffer(buffer)?))));
        kept.into_iter().flatten().collect::<Vec<_>>()
    };
    quantizers
        .iter()
        .flat_map(|(name, quantizer)| quantizer.stages(name).flat_map(of_stage).collect::<Vec<_>>())
        .collect()
}

/// The model as its file gives it back, with the same quantizers and buffers.
fn there_and_back<M: Module>(model: &M, fresh: M, what: &str) -> M {
    let restored = safetensors_from_bytes(fresh, &safetensors_to_bytes(model).unwrap()).unwrap();
    assert_eq!(summary(&restored), summary(model), "{what}");
    assert_eq!(buffers(&restored), buffers(model), "{what}");
    restored
}

#[test]
fn every_format_comes_back_with_the_same_outputs_and_ranges() {
    for (backend, device) in devices() {
        let x = Net::inputs(&device);
        // a software GPU is slow, and files do not depend on the device
        let each = if backend.contains("flex") { 1 } else { 4 };
        for (format, config) in formats().into_iter().step_by(each) {
            let what = format!("{format} on {backend}");
            let model = Net::quantized(config, &device);
            let restored = there_and_back(&model, Net::new(&device), &what);
            assert_same(&values(restored.forward(x.clone())), &values(model.forward(x.clone())), &what);
            // those would find other scales in what they rounded
            if format != "e4m3 under e4m3" {
                assert_eq!(stored(&safetensors_to_bytes(&model).unwrap(), "fc.weight")["stored"], "codes", "{what}");
            }
        }
    }
}

#[test]
fn every_packed_format_comes_back_with_the_same_codes_and_outputs() {
    let (backend, device) = device();
    let x = Net::inputs(&device);
    for (format, config) in formats() {
        let what = format!("{format} on {backend}");
        let (model, _) = compress(Net::quantized(config, &device)).unwrap();
        let restored = there_and_back(&model, Net::new(&device), &what);
        assert_eq!(memory(&restored), memory(&model), "{what}");
        assert_same(&values(restored.conv.weight.val()), &values(model.conv.weight.val()), &what);
        assert_same(&values(restored.plain.weight.val()), &values(model.plain.weight.val()), &what);
        assert_same(&values(restored.forward(x.clone())), &values(model.forward(x.clone())), &what);
        assert_eq!(stored(&safetensors_to_bytes(&model).unwrap(), "fc.weight")["stored"], "packed", "{what}");
    }
}

/// Scales of inputs, and a branch of low rank, are tensors beside the weight.
#[test]
fn smoothed_layers_and_branches_of_low_rank_come_back() {
    let (_, device) = device();
    let sizes: Vec<f32> = (0..32).map(|channel| 1.0 + (channel % 8) as f32).collect(); // of inputs, so that it matters
    let x = spread::<2>([6, 32], &device) * Tensor::<1>::from_data(&sizes[..], &device).unsqueeze();
    for (preset, rank) in [
        (presets::int8_smoothquant(), None),
        (presets::int4_awq(), None),
        (presets::nvfp4_svdquant_default(), Some(16)), // of 32, as no more columns than that
    ] {
        let new = || {
            let mut layer = QuantLinear::from(LinearConfig::new(32, 16).init(&device));
            layer.weight = Param::from_tensor(spread([32, 16], &device));
            layer
        };
        let (layer, _) = quantize(new(), &preset, |layer| drop(layer.forward(x.clone()))).unwrap();
        let restored = there_and_back(&layer, new(), &format!("{preset:?}"));
        assert_same(&values(restored.forward(x.clone())), &values(layer.forward(x.clone())), &format!("{preset:?}"));
        let bytes = safetensors_to_bytes(&layer).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let smoothing = file.tensor("input_quantizer.pre_quant_scale").unwrap_or_else(|_| panic!("{preset:?}"));
        assert_eq!(smoothing.shape(), [32]);
        if let Some(rank) = rank {
            assert_eq!(file.tensor("input_quantizer.low_rank_down").unwrap().shape(), [32, rank]);
            assert_eq!(file.tensor("input_quantizer.low_rank_up").unwrap().shape(), [rank, 16]);
        }
    }
}

/// A reader that knows the tables of the format, and nothing of this library.
struct Outsider<'a> {
    file: SafeTensors<'a>,
    weights: Value,
}

impl<'a> Outsider<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let weights = serde_json::from_str(&metadata(bytes)["burn-quant.weights"]).unwrap();
        Self { file: SafeTensors::deserialize(bytes).unwrap(), weights }
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let tensor = self.file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The numbers that codes are, before they are scaled.
    fn points(&self, path: &str) -> Vec<f32> {
        let (tensor, about) = (self.file.tensor(path).unwrap(), &self.weights[path]);
        let (shape, bits) = (usizes(&about["shape"]), about["bits"].as_u64().unwrap() as usize);
        let codes: Vec<u8> = match bits {
            8 => tensor.data().to_vec(),
            _ => {
                let columns: usize = shape[1..].iter().product();
                let bit = |row: &[u8], i: usize| row[i / 8] >> (i % 8) & 1;
                let code = |row: &[u8], i: usize| (0..bits).map(|b| bit(row, i * bits + b) << b).sum();
                let rows = tensor.data().chunks(tensor.shape()[1]);
                rows.flat_map(|row| (0..columns).map(move |i| code(row, i))).collect()
            }
        };
        let point = |code: u8| match about["elements"].as_str().unwrap() {
            "int8" => f32::from(code as i8),
            "int4" => f32::from(code) - 8.0,
            "e4m3" => minifloat(code, 4, 3),
            "e2m1" => minifloat(code, 2, 1),
            other => panic!("{other}"),
        };
        codes.into_iter().map(point).collect()
    }

    /// The weight.
    fn values(&self, path: &str) -> Vec<f32> {
        let about = &self.weights[path];
        let (group, quantizer) = (usizes(&about["group"]), about["quantizer"].as_str().unwrap());
        let mut shape = usizes(&about["shape"]);
        if group.len() < shape.len() {
            shape = vec![shape[0], shape[1..].iter().product()];
        }
        let max = match about["elements"].as_str().unwrap() {
            "int8" => 127.0,
            "int4" => 7.0,
            "e4m3" => 448.0,
            _ => 6.0,
        };
        let of_group: Vec<(f32, bool)> = match self.file.tensor(&format!("{path}_scale")) {
            Ok(scales) if scales.dtype() == Dtype::F8_E8M0 => {
                scales.data().iter().map(|byte| (2f32.powi(i32::from(*byte) - 127), true)).collect()
            }
            Ok(scales) => {
                let tensor = self.f32s(&format!("{path}_scale_2"))[0];
                scales.data().iter().map(|byte| (minifloat(*byte, 4, 3) * tensor, true)).collect()
            }
            Err(_) => {
                let integers = about["elements"].as_str().unwrap().starts_with("int");
                let amax = self.f32s(&format!("{quantizer}.amax"));
                let scale = |amax| if integers { max / amax } else { 1.0 / (max * (1.0 / amax)) };
                amax.into_iter().map(|amax: f32| (scale(amax), !integers)).collect()
            }
        };
        let value = |(i, point)| match of_group[group_of(i, &shape, &group)] {
            (scale, true) => point * scale,
            (scale, false) => point / scale,
        };
        self.points(path).into_iter().enumerate().map(value).collect()
    }
}

/// The number of the group of an element, all row by row.
fn group_of(element: usize, shape: &[usize], group: &[usize]) -> usize {
    let (mut rest, mut number, mut stride) = (element, 0, 1);
    for (len, size) in shape.iter().zip(group).rev() {
        number += rest % len / size * stride;
        (rest, stride) = (rest / len, stride * len.div_ceil(*size));
    }
    number
}

/// Sign, exponent, mantissa.
fn minifloat(code: u8, exponent_bits: u32, mantissa_bits: u32) -> f32 {
    let (mantissa, exponent) = (code & ((1 << mantissa_bits) - 1), code >> mantissa_bits & ((1 << exponent_bits) - 1));
    let (fraction, bias) = (f32::from(mantissa) / (1 << mantissa_bits) as f32, (1 << (exponent_bits - 1)) - 1);
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(1 - bias),
        exponent => (1.0 + fraction) * 2f32.powi(i32::from(exponent) - bias),
    };
    if code >> (exponent_bits + mantissa_bits) & 1 == 1 { -magnitude } else { magnitude }
}

fn usizes(list: &Value) -> Vec<usize> {
    list.as_array().unwrap().iter().map(|len| len.as_u64().unwrap() as usize).collect()
}

#[test]
fn anyone_decodes_the_very_values_of_fake_quantization() {
    let (_, device) = device();
    let known = ["int8 per channel", "int4 in blocks", "fp8", "nvfp4", "nvfp4 static", "mxfp4"];
    for (format, config) in formats().into_iter().filter(|(format, _)| known.contains(format)) {
        let model = Net::quantized(config, &device);
        let bytes = safetensors_to_bytes(&model).unwrap();
        let file = Outsider::new(&bytes);
        assert_same(&file.values("fc.weight"), &values(model.fc.weight.val()), format);
        assert_same(&file.values("conv.weight"), &values(model.conv.weight.val()), format);
        assert_same(&file.f32s("norm.gamma"), &values(model.norm.gamma.val()), format);
    }
}

/// Codes of 512 · 512 weights and f32 ranges of 128 of them each.
#[test]
fn a_file_of_int4_takes_little_more_than_its_bits() {
    let (_, device) = device();
    let layer = LinearConfig::new(512, 512).with_bias(false).init(&device);
    let (layer, _) = quantize_weights(layer, &presets::int4_blockwise_weight_only()).unwrap();
    let bits = |file: Vec<u8>| file.len() as f64 * 8.0 / (512.0 * 512.0);
    let fake = bits(safetensors_to_bytes(&layer).unwrap());
    assert!((4.25..4.3).contains(&fake), "{fake}");
    assert!(bits(to_bytes(&layer).unwrap().to_vec()) > 32.0, "burnpack keeps the floats behind the codes");
    let packed = bits(safetensors_to_bytes(&compress(layer).unwrap().0).unwrap());
    assert!((4.25..4.3).contains(&packed), "{packed}");
}

/// Floats are stored where codes cannot be: rounded, if the quantizer leaves those as they are.
#[test]
fn weights_without_a_packed_form_are_floats_and_the_metadata_says_which() {
    let (_, device) = device();
    let x = spread::<2>([3, 16], &device);
    let new = || QuantLinear::from(LinearConfig::new(16, 8).init(&device));
    for (weights, how) in [
        (QuantizerConfig::int(12).per_channel(), "rounded"), // too many bits
        (QuantizerConfig::int(4).per_block(4).then(QuantizerConfig::e4m3()), "rounded"), // two grids
        (QuantizerConfig::int(4).per_channel().rotated(Rotation::default()), "unrounded"), // not to be rotated twice
    ] {
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", weights));
        let (layer, _) = quantize_weights(new(), &config).unwrap();
        let bytes = safetensors_to_bytes(&layer).unwrap();
        assert_eq!(stored(&bytes, "weight")["stored"], how);
        let expected = if how == "rounded" { layer.weight.val() } else { layer.weight.base() };
        assert_same(&Outsider::new(&bytes).f32s("weight"), &values(expected), how);
        let restored = there_and_back(&layer, new(), how);
        assert_same(&values(restored.forward(x.clone())), &values(layer.forward(x.clone())), how);
    }
}

#[test]
fn parameters_keep_their_types() {
    #[derive(Module, Debug)]
    struct Mixed {
        fc: Linear,
        table: Param<Tensor<1, Int>>,
        mask: Param<Tensor<1, Bool>>,
    }
    struct To(FloatDType);
    impl ModuleMapper for To {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    let (_, device) = device();
    let new = || Mixed {
        fc: LinearConfig::new(8, 4).init(&device),
        table: Param::initialized(ParamId::new(), Tensor::from_data([3, -5], &device)),
        mask: Param::initialized(ParamId::new(), Tensor::from_data([true, false, true], &device)),
    };
    for (dtype, expected) in [(FloatDType::F16, DType::F16), (FloatDType::BF16, DType::BF16)] {
        if !device.supports_dtype(expected) {
            continue;
        }
        let (model, _) = quantize_weights(new().map(&mut To(dtype)), &presets::int8_weight_only()).unwrap();
        let bytes = safetensors_to_bytes(&model).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(format!("{:?}", file.tensor("fc.bias").unwrap().dtype()), format!("{expected:?}"));
        assert_eq!(file.tensor("mask").unwrap().dtype(), Dtype::BOOL);
        assert_eq!(stored(&bytes, "fc.weight")["stored"], "codes");
        let restored = there_and_back(&model, new(), "mixed");
        assert_eq!(restored.fc.weight.val().dtype(), expected);
        assert_eq!(restored.fc.bias.as_ref().unwrap().val().dtype(), expected);
        assert_same(&values(restored.fc.weight.val()), &values(model.fc.weight.val()), "weight");
        assert_eq!(restored.table.val().into_data().iter::<i64>().collect::<Vec<_>>(), [3, -5]);
        assert_eq!(restored.mask.val().into_data().iter::<bool>().collect::<Vec<_>>(), [true, false, true]);
    }
}

#[test]
fn a_file_is_written_at_once_and_found_without_its_extension() {
    let (_, device) = device();
    let folder = tempfile::tempdir().unwrap();
    let model = Net::quantized(QuantizerConfig::int(8), &device);
    std::fs::write(folder.path().join("net.safetensors"), "what was there before").unwrap();
    save_safetensors(&model, folder.path().join("net")).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let restored = restore_safetensors(Net::new(&device), folder.path().join("net")).unwrap();
    assert_eq!(summary(&restored), summary(&model));
    let write = save_safetensors(&model, folder.path().join("no such folder").join("net")).unwrap_err();
    assert!(matches!(write, StoreError::Write { .. }), "{write}");
    let is_folder = save_safetensors(&model, folder.path()).unwrap_err();
    assert!(matches!(is_folder, StoreError::Folder { .. }), "{is_folder}");
}

#[test]
fn a_part_of_a_file_is_restored_under_another_path() {
    #[derive(Module, Debug)]
    struct Outer {
        inner: Net,
        head: Linear,
    }
    let (_, device) = device();
    let model = Net::quantized(QuantizerConfig::int(4).per_block(32), &device);
    let outer = Outer { inner: Net::new(&device), head: LinearConfig::new(18, 2).init(&device) };
    let restore = Restore::new().rename("", "inner").allow_missing();
    let (outer, report) = restore.load_safetensors_bytes(outer, &safetensors_to_bytes(&model).unwrap()).unwrap();
    assert_eq!(report.missing_tensors, ["head.bias", "head.weight"]);
    let x = Net::inputs(&device);
    assert_same(&values(outer.inner.forward(x.clone())), &values(model.forward(x)), "outputs");
}

/// A parameter may not be called as a scale is.
#[test]
fn names_that_would_be_taken_twice_are_refused() {
    #[derive(Module, Debug)]
    struct Scaled {
        weight: Param<Tensor<2>>,
        weight_scale: Param<Tensor<1>>,
    }
    let (_, device) = device();
    let model = Scaled {
        weight: Param::from_tensor(spread([32, 4], &device)),
        weight_scale: Param::from_tensor(spread([4], &device)),
    };
    let layouts = WeightLayouts::default().register_at("weight", WeightLayout::new(1, 0));
    let rules = [Rule::set("weight_quantizer", QuantizerConfig::mxint8())];
    let (model, _) = place(model, &rules[..], &layouts).unwrap();
    let taken = safetensors_to_bytes(&model).unwrap_err();
    assert!(matches!(&taken, StoreError::NameTaken { name } if name == "weight_scale"), "{taken}");
}
