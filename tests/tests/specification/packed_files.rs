//! Files of packed models: codes and scales, a file of their size, and an error for each way it can be wrong.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use burn_pack::{Reader, Tensor as PackTensor, Writer};
use burn_quant::compress::{CompressOptions, FloatInputs, compress_with, decompress, memory};
use burn_quant::config::Format;
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::train::QuantLora;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, presets, quantize, quantize_weights, summary};
use burn_quant_store::{Restore, Schema, StoreError, from_bytes, restore, save, to_bytes, with_new_digest};
use burn_quant_tests::{device, devices};

use crate::{assert_close, assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    /// Of burn, and not laid out as others are.
    columns: Linear,
    fc: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 2], [2, 2]).init(device).into(),
            columns: LinearConfig::new(8, 20).with_layout(LinearLayout::Col).init(device),
            fc: LinearConfig::new(20, 18).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.columns.forward(self.conv.forward(x).flatten(1, 3)))
    }

    /// With f32 ranges, scales of a byte under that of a tensor, and powers of two.
    fn packed(device: &Device) -> Self {
        let x = spread([4, 1, 3, 3], device);
        let config = presets::int8_default()
            .with_rule(Rule::set("columns.weight_quantizer", QuantizerConfig::nvfp4()))
            .with_rule(Rule::set("fc.weight_quantizer", QuantizerConfig::mx(Format::E4M3)));
        let (model, _) = quantize(Self::new(device), &config, |model| drop(model.forward(x.clone()))).unwrap();
        compress(model).unwrap().0
    }
}

#[test]
fn a_packed_model_comes_back_with_the_same_codes_and_outputs() {
    let folder = tempfile::tempdir().unwrap();
    for (name, device) in devices() {
        let model = Net::packed(&device);
        let path = folder.path().join(&name);
        save(&model, &path).unwrap();
        let restored = restore(Net::new(&device), &path).unwrap();
        assert_eq!(summary(&restored), summary(&model), "{name}");
        assert_eq!(memory(&restored), memory(&model), "{name}");
        let x = spread([2, 1, 3, 3], &device);
        assert_same(&values(restored.forward(x.clone())), &values(model.forward(x)), &name);
        assert_same(&values(restored.columns.weight.val()), &values(model.columns.weight.val()), &name);
        let again = to_bytes(&restored).unwrap();
        assert_eq!(again.to_vec().len(), to_bytes(&model).unwrap().to_vec().len(), "{name}: saved again");
        let (unpacked, expected) = (decompress(restored).unwrap(), decompress(model).unwrap());
        assert_same(&values(unpacked.fc.weight.val()), &values(expected.fc.weight.val()), &name);
    }
}

/// What is done with inputs in float is chosen when a model is packed, and kept in its file.
#[test]
fn inputs_of_15_bits_are_chosen_and_kept() {
    let (name, device) = device();
    let layer = || -> QuantLinear { LinearConfig::new(24, 18).init(&device).into() };
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(8)));
    let (quantized, _) = quantize_weights(layer(), &config).unwrap();
    let x = spread([5, 24], &device);
    let exact = values(compress(quantized.clone()).unwrap().0.forward(x.clone()));
    let options = CompressOptions::new().with_float_inputs(FloatInputs::Int15);
    let (packed, _) = compress_with(quantized.clone(), options).unwrap();
    let found = values(packed.forward(x.clone()));
    assert_close(&found, &exact, 1e-3, name);
    assert_eq!(found != exact, name == "flex", "{name}: integers are multiplied on the CPU");
    let restored = from_bytes(layer(), to_bytes(&packed).unwrap()).unwrap();
    assert_same(&values(restored.forward(x.clone())), &found, name);
    assert_same(&values(packed.clone().train().valid().forward(x.clone())), &found, name);
    // inputs that are rounded already are not rounded again
    let config = config.with_rule(Rule::set("input_quantizer", QuantizerConfig::e4m3().dynamic()));
    let (quantized, _) = quantize_weights(layer(), &config).unwrap();
    let (exact, _) = compress(quantized.clone()).unwrap();
    let (packed, _) = compress_with(quantized, options).unwrap();
    assert_same(&values(packed.forward(x.clone())), &values(exact.forward(x)), name);
}

/// Shares of f32 in memory and in the file, headers included: codes and f32 scales, of 512 · 512 weights.
#[test]
fn packed_models_and_their_files_have_the_size_of_their_bits() {
    let (_, device) = device();
    let int4 = |block| QuantizerConfig::int(4).per_block(block);
    for (config, bits) in
        [(int4(32), 4.0 + 1.0), (int4(128), 4.0 + 0.25), (QuantizerConfig::int(8).per_channel(), 8.0 + 32.0 / 512.0)]
    {
        let layer = LinearConfig::new(512, 512).with_bias(false).init(&device);
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config));
        let (layer, _) = quantize_weights(layer, &config).unwrap();
        let float = to_bytes(&layer).unwrap().to_vec().len();
        let (packed, _) = compress(layer).unwrap();
        assert_eq!(memory(&packed).bytes() as f64, 512.0 * 512.0 * bits / 8.0);
        let file = to_bytes(&packed).unwrap().to_vec().len();
        assert!(file as f64 <= 512.0 * 512.0 * bits / 8.0 + 2048.0, "{file} bytes for {bits} bits");
        assert!(file < float / 3, "{file} of {float}");
    }
}

/// Factors over a packed base are saved beside its codes.
#[test]
fn adapters_of_a_packed_model_are_saved_with_it() {
    let (_, device) = device();
    let (layer, _) =
        quantize_weights(QuantLinear::from(LinearConfig::new(32, 8).init(&device)), &presets::int8_weight_only())
            .unwrap();
    let adapted = QuantLora::new(2).adapt(compress(layer).unwrap().0).unwrap();
    let restored: QuantLinear =
        from_bytes(LinearConfig::new(32, 8).init(&device).into(), to_bytes(&adapted).unwrap()).unwrap();
    assert_eq!(memory(&restored).bytes(), 32 * 16 + 16 * 4 + 8 * 4 + (32 + 8) * 2 * 4); // 8 columns fill a panel of 16
    let x = spread::<2>([3, 32], &device);
    assert_same(&values(restored.forward(x.clone())), &values(adapted.forward(x)), "outputs");
}

#[test]
fn a_part_of_a_packed_file_is_restored_under_another_path() {
    #[derive(Module, Debug)]
    struct Outer {
        inner: Net,
        head: Linear,
    }
    let (_, device) = device();
    let model = Net::packed(&device);
    let outer = Outer { inner: Net::new(&device), head: LinearConfig::new(18, 2).init(&device) };
    let restore = Restore::new().rename("", "inner").allow_missing();
    let (outer, report) = restore.load_bytes(outer, to_bytes(&model).unwrap()).unwrap();
    assert_eq!(report.missing_tensors, ["head.bias", "head.weight"]);
    let x = spread([2, 1, 3, 3], &device);
    assert_same(&values(outer.inner.forward(x.clone())), &values(model.forward(x)), "outputs");
}

/// The file of a model after `change`, with a digest of its own.
pub(crate) fn changed(
    whole: &[u8],
    change: impl FnOnce(&mut Vec<PackTensor>, &mut std::collections::BTreeMap<String, String>),
) -> Bytes {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(whole.to_vec())).unwrap();
    let mut metadata = reader.metadata().clone();
    let mut tensors = reader.into_tensors().unwrap();
    change(&mut tensors, &mut metadata);
    let writer = metadata.iter().fold(Writer::new(tensors), |writer, (key, value)| writer.with_metadata(key, value));
    with_new_digest(writer.into_bytes().unwrap()).unwrap()
}

/// A tensor in the place of that of a name.
pub(crate) fn replaced(tensors: &mut Vec<PackTensor>, name: &str, dtype: DType, bytes: Vec<u8>) {
    let shape = Shape::from(vec![bytes.len() / dtype.size()]);
    tensors.retain(|tensor| tensor.name != name);
    tensors.push(PackTensor::new(name.into(), dtype, shape, None, Bytes::from_bytes_vec(bytes)));
}

#[test]
fn packed_files_that_are_damaged_or_of_another_model_are_refused() {
    let (_, device) = device();
    let whole = to_bytes(&Net::packed(&device)).unwrap().to_vec();
    let (words, scales) = ("fc.weight.weight_quantizer.words", "fc.weight.weight_quantizer.scales");
    let refused = |bytes: Bytes| from_bytes(Net::new(&device), bytes).unwrap_err();
    let with = |name: &str, dtype: DType, bytes: Vec<u8>| {
        refused(changed(&whole, |tensors, _| replaced(tensors, name, dtype, bytes)))
    };
    let panels = 2 * 16; // 18 columns are two panels of 16, 20 rows are a block of 32 and its scale

    let missing = refused(changed(&whole, |tensors, _| tensors.retain(|tensor| tensor.name != words)));
    assert!(matches!(&missing, StoreError::MissingTensors { paths } if paths[..] == [words]), "{missing}");
    let dtype = with(words, DType::F32, vec![0; 20 * panels]);
    assert!(matches!(dtype, StoreError::Dtype { expected: "i32", .. }), "{dtype}");
    let short = with(words, DType::I32, vec![0; 4]);
    assert_eq!(
        short.to_string(),
        format!(
            "the packed weight `fc.weight` is damaged, or its quantizer is another: words of codes: expected a slice \
             of {} elements, found 1",
            20 * panels / 4
        )
    );
    let no_number = with(words, DType::I32, [vec![0; 20 * panels - 1], vec![0x7f]].concat());
    assert!(no_number.to_string().ends_with("codes of a packed weight are finite numbers, found 0x7f"), "{no_number}");
    let no_scale = with(scales, DType::I32, [vec![127; panels - 1], vec![255]].concat());
    assert!(no_scale.to_string().ends_with("found 0xff"), "{no_scale}");
    let ranges = [vec![1.0f32; 15], vec![-1.0]].concat().iter().flat_map(|range| range.to_le_bytes()).collect();
    let negative = with("conv.weight.weight_quantizer.scales", DType::F32, ranges);
    assert!(negative.to_string().ends_with("a range is finite and not negative, found -1e0"), "{negative}");
    let stray = with("conv.weight.weight_quantizer.amax", DType::F32, vec![0; 8]);
    assert!(matches!(stray, StoreError::UnexpectedTensors { .. }), "{stray}");

    let forms = |from: &str, to: &str| {
        refused(changed(&whole, |_, metadata| {
            let forms = metadata.get_mut("burn-quant.packed").unwrap();
            assert!(forms.contains(from), "{forms}");
            *forms = forms.replace(from, to);
        }))
    };
    let transposed = forms("[20,18]", "[18,20]");
    assert!(matches!(&transposed, StoreError::Shape { path, .. } if path == "fc.weight"), "{transposed}");
    let unreadable = forms("[20,18]", "[20,-18]");
    assert!(matches!(unreadable, StoreError::Damaged { .. }), "{unreadable}");

    let version = |schema: &str| {
        refused(changed(&whole, |_, metadata| drop(metadata.insert("burn-quant.schema".into(), schema.into()))))
    };
    assert!(matches!(version("2.2"), StoreError::NewerMinor { supported: Schema { major: 2, minor: 1 }, .. }));
    assert!(matches!(version("3.0"), StoreError::OtherMajor { .. }));

    // quantizers of seven bits beside words of eight
    let other = refused(changed(&whole, |_, metadata| {
        let plan = metadata.get_mut("burn-quant.plan").unwrap();
        assert!(plan.contains("\"int8\""), "{plan}");
        *plan = plan.replace("\"int8\"", "\"int7\"");
    }));
    assert!(matches!(other, StoreError::PackedWeight { .. }), "{other}");
}

/// Files of schema 2.0 stay readable: this one was written when it was new, and is not written again.
#[test]
fn the_golden_file_of_schema_2_0_restores() {
    let (_, device) = device();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-2.0.bpk");
    let restored: QuantLinear = restore(LinearConfig::new(4, 2).init(&device).into(), path).unwrap();
    // INT4 in blocks of two inputs: codes −7..7 of ranges 7, 14 and 3.5, 7
    let weight = [[7.0, 3.5], [-3.0, 0.5], [14.0, -7.0], [2.0, 1.0]];
    assert_same(&values(restored.weight.val()), weight.as_flattened(), "weights");
    let y = restored.forward(Tensor::<2>::from_data([[1.0, 1.0, 1.0, 1.0]], &device));
    assert_same(&values(y), &[20.0 + 0.25, -2.0 - 0.25], "outputs, with a bias");
}
