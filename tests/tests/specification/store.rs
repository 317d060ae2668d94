//! Records: the same model back, and an error of its own for each way a file can be wrong.

use std::error::Error;

use burn::module::{Module, Param};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, Tensor};
use burn_pack::{Reader, Writer};
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets, quantize, quantize_weights, summary};
use burn_quant_store::{Schema, StoreError, from_bytes, restore, save, to_bytes};
use burn_quant_tests::{device, devices, processor};

use crate::{assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    columns: Linear,
    fc: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 2], [2, 2]).init(device).into(),
            columns: LinearConfig::new(8, 5).with_layout(LinearLayout::Col).init(device),
            fc: LinearConfig::new(5, 3).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.columns.forward(self.conv.forward(x).flatten(1, 3)))
    }

    fn quantized(device: &Device) -> Self {
        let x = spread([4, 1, 3, 3], device);
        let config = presets::int8_default()
            .with_rule(Rule::set("columns.weight_quantizer", QuantizerConfig::int(4).per_block(3)))
            .with_rule(Rule::set("fc.input_quantizer", QuantizerConfig::e4m3().per_token().dynamic()))
            .with_rule(Rule::disable("fc.weight_quantizer"));
        quantize(Self::new(device), &config, |model| drop(model.forward(x.clone()))).unwrap().0
    }
}

fn bytes(model: &impl Module) -> Vec<u8> {
    to_bytes(model).unwrap().to_vec()
}

fn read<M: Module>(model: M, bytes: &[u8]) -> Result<M, StoreError> {
    from_bytes(model, Bytes::from_bytes_vec(bytes.to_vec()))
}

#[test]
fn a_saved_model_comes_back_with_the_same_quantizers_and_outputs() {
    let folder = tempfile::tempdir().unwrap();
    for (name, device) in devices() {
        let model = Net::quantized(&device);
        let path = folder.path().join("model"); // `.bpk` is added, and found again
        save(&model, &path).unwrap();
        let restored = restore(Net::new(&device), &path).unwrap();
        assert_eq!(summary(&restored), summary(&model), "{name}");
        let x = spread([4, 1, 3, 3], &device);
        assert_same(&values(restored.forward(x.clone())), &values(model.forward(x)), &name);
    }
}

/// In builds with two backends; else on one device.
#[test]
fn a_model_saved_on_one_backend_restores_on_another() {
    let (_, other) = device();
    let model = Net::quantized(&processor());
    let restored = read(Net::new(&other), &bytes(&model)).unwrap();
    let moved = restored.clone().fork(&processor());
    assert_eq!(summary(&moved), summary(&model)); // it says which devices have no kernels, too
    // weights are compared, as seen by the layers; sums of products differ from backend to backend
    for (what, net) in [("restored", &restored), ("moved back", &moved)] {
        assert_same(&values(net.conv.weight.val()), &values(model.conv.weight.val()), what);
        assert_same(&values(net.columns.weight.val()), &values(model.columns.weight.val()), what);
        assert_same(&values(net.fc.weight.val()), &values(model.fc.weight.val()), what);
    }
}

#[test]
fn a_restored_model_trains() {
    let (_, device) = device();
    let device = device.autodiff();
    let restored = read(Net::new(&device), &bytes(&Net::quantized(&device))).unwrap();
    let gradients = restored.forward(spread([4, 1, 3, 3], &device)).sum().backward();
    assert!(restored.conv.weight.base().grad(&gradients).is_some());
    assert!(restored.columns.weight.base().grad(&gradients).is_some());
}

#[test]
fn burn_alone_reads_the_weights() {
    let (_, device) = device();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    let model = Net::quantized(&device);
    save(&model, &path).unwrap();
    let record = ModuleRecord::load(&path).unwrap().allow_unused(true);
    let float = Net::new(&device).load_record(record);
    assert_eq!(values(float.columns.weight.val()), values(model.columns.weight.base()));
}

#[test]
fn a_save_replaces_the_old_file_at_once_and_leaves_nothing_beside_it() {
    let (_, device) = device();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    std::fs::write(&path, "what was there before").unwrap();
    save(&Net::quantized(&device), &path).unwrap();
    assert!(restore(Net::new(&device), &path).is_ok());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = folder.path().join("no such folder").join("model.bpk");
    assert!(matches!(save(&Net::quantized(&device), missing), Err(StoreError::Write { .. })));
}

#[test]
fn a_missing_file_and_foreign_files_are_told_apart() {
    let (_, device) = device();
    let open = restore(Net::new(&device), "no/such/file.bpk").unwrap_err();
    assert!(matches!(open, StoreError::Open { .. }) && open.source().is_some());
    assert!(matches!(read(Net::new(&device), b"GGUF and then some bytes"), Err(StoreError::NotBurnpack)));
    let float = Net::new(&device).into_record().into_bytes().unwrap();
    let not_ours = from_bytes(Net::new(&device), float).unwrap_err();
    assert!(matches!(not_ours, StoreError::NotQuantized { key: "burn-quant.schema" }), "{not_ours}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (_, device) = device();
    let whole = bytes(&LinearConfig::new(4, 3).init(&device));
    let linear = || LinearConfig::new(4, 3).init(&device);
    assert!(read(linear(), &whole).is_ok());
    for len in 0..whole.len() {
        let error = read(linear(), &whole[..len]).unwrap_err();
        assert!(matches!(error, StoreError::Truncated { .. }), "cut at {len}: {error}");
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused_or_changes_nothing() {
    let device = processor();
    let (model, _) = quantize_weights(LinearConfig::new(4, 3).init(&device), &presets::int8_weight_only()).unwrap();
    let whole = bytes(&model);
    let expected = values(model.weight.val());
    for i in 0..whole.len() {
        let mut changed = whole.clone();
        changed[i] ^= 0x41;
        // only the padding between tensors may change
        if let Ok(restored) = read(LinearConfig::new(4, 3).init(&device), &changed) {
            assert_eq!(values(restored.weight.val()), expected, "byte {i}");
        }
    }
    let mut changed = whole.clone();
    let weight = whole.windows(4).rposition(|w| w == values(model.weight.base())[0].to_le_bytes()).unwrap();
    changed[weight] ^= 1;
    assert!(matches!(read(LinearConfig::new(4, 3).init(&device), &changed), Err(StoreError::Tampered)));
}

/// The same file with other metadata.
fn with_metadata(whole: &[u8], key: &str, value: Option<&str>) -> Vec<u8> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(whole.to_vec())).unwrap();
    let mut metadata = reader.metadata().clone();
    metadata.remove(key);
    metadata.extend(value.map(|value| (key.to_string(), value.to_string())));
    let writer = Writer::new(reader.into_tensors().unwrap());
    metadata.iter().fold(writer, |w, (k, v)| w.with_metadata(k, v)).into_bytes().unwrap().to_vec()
}

#[test]
fn versions_are_checked_before_anything_else() {
    let (_, device) = device();
    let whole = bytes(&Net::quantized(&device));
    let read = |schema| read(Net::new(&device), &with_metadata(&whole, "burn-quant.schema", Some(schema))).unwrap_err();
    assert!(matches!(read("3.0"), StoreError::OtherMajor { found: Schema { major: 3, minor: 0 }, .. }));
    assert!(matches!(read("2.2"), StoreError::NewerMinor { found: Schema { major: 2, minor: 2 }, .. }));
    assert!(matches!(read("0.9"), StoreError::OtherMajor { .. }));
    assert!(matches!(read("1.5"), StoreError::NewerMinor { found: Schema { major: 1, minor: 5 }, .. }));
    assert!(matches!(read("one"), StoreError::Damaged { .. }));
}

#[test]
fn a_changed_plan_is_noticed() {
    let (_, device) = device();
    let whole = bytes(&Net::quantized(&device));
    let changed = with_metadata(&whole, "burn-quant.plan", Some("{}"));
    assert!(matches!(read(Net::new(&device), &changed), Err(StoreError::Tampered)));
    let unsigned = with_metadata(&whole, "burn-quant.digest", None);
    assert!(matches!(read(Net::new(&device), &unsigned), Err(StoreError::Tampered)));
}

#[test]
fn another_model_is_refused_by_what_differs() {
    #[derive(Module, Debug)]
    struct Other {
        fc: QuantLinear,
        extra: Option<QuantLinear>,
        scale: Option<Param<Tensor<1>>>,
    }
    let (_, device) = device();
    let linear = |d_in| -> QuantLinear { LinearConfig::new(d_in, 3).init(&device).into() };
    let scale = || Some(Param::from_tensor(Tensor::<1>::ones([1], &device)));
    let quantized = |model: Other| quantize_weights(model, &presets::int8_weight_only()).unwrap().0;
    let plain = bytes(&quantized(Other { fc: linear(4), extra: None, scale: None }));
    let large = bytes(&quantized(Other { fc: linear(4), extra: Some(linear(4)), scale: scale() }));

    let more = read(Other { fc: linear(4), extra: Some(linear(4)), scale: None }, &plain).unwrap_err();
    assert!(
        matches!(&more, StoreError::UnexpectedQuantizers { names } if names[0] == "extra.input_quantizer"),
        "{more}"
    );
    let fewer = read(Other { fc: linear(4), extra: None, scale: scale() }, &large).unwrap_err();
    assert!(
        matches!(&fewer, StoreError::MissingQuantizers { names } if names[0] == "extra.input_quantizer"),
        "{fewer}"
    );
    let tensor = read(Other { fc: linear(4), extra: None, scale: scale() }, &plain).unwrap_err();
    assert!(matches!(&tensor, StoreError::MissingTensors { paths } if paths[0] == "scale"), "{tensor}");
    let unused = read(Other { fc: linear(4), extra: Some(linear(4)), scale: None }, &large).unwrap_err();
    assert!(matches!(&unused, StoreError::UnexpectedTensors { paths } if paths[0] == "scale"), "{unused}");
    let shape = read(Other { fc: linear(5), extra: None, scale: None }, &plain).unwrap_err();
    let StoreError::Shape { path, expected, found } = shape else { panic!("{shape}") };
    assert_eq!((path.as_str(), expected, found), ("fc.weight", vec![5, 3], vec![4, 3]));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let (_, device) = device();
    let linear = || LinearConfig::new(4, 3).init(&device);
    let with_amax = |amax: &[f32]| {
        let (model, _) = quantize_weights(linear(), &presets::int8_weight_only()).unwrap();
        let mut quantizers = burn_quant::Quantizers::of(&model);
        quantizers.get_mut("weight_quantizer").unwrap().set_amax(Tensor::from_data(amax, &device));
        read(linear(), &bytes(&quantizers.install(model).unwrap())).unwrap_err()
    };
    let shape = with_amax(&[1.0; 5]);
    assert!(matches!(&shape, StoreError::Shape { path, .. } if path == "weight.weight_quantizer.amax"), "{shape}");
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(with_amax(&[1.0, bad, 1.0]), StoreError::BadRange { .. }));
    }
}

/// Powers of two.
fn powers<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| 2f32.powi((i * 5 % 7) as i32 - 3)).collect();
    Param::from_data(burn::tensor::TensorData::new(values, shape), device)
}

/// A model with known weights: every value is a power of two.
fn golden_model(device: &Device) -> Net {
    let mut net = Net::new(device);
    net.conv.weight = powers([2, 1, 2, 2], device);
    net.conv.bias = Some(powers([2], device));
    net.columns = Linear { weight: powers([8, 5], device), bias: Some(powers([5], device)) };
    net.fc.weight = powers([5, 3], device);
    net.fc.bias = Some(powers([3], device));
    net
}

/// Files of schema 1.0 stay readable: this one was written by version 0.1.0, and is not written again.
#[test]
fn the_golden_file_of_schema_1_0_restores() {
    let (_, device) = device();
    let mut net = Net::new(&device);
    net.columns = LinearConfig::new(8, 5).init(&device);
    let restored = restore(net, concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-1.0.bpk")).unwrap();
    let expected = "\
quantizer                 format    granularity  range    amax
conv.weight_quantizer     int8      per-channel  static   [4.0000e0, 8.0000e0] (2)
conv.input_quantizer      int8      per-tensor   static   2.0000e0
conv.output_quantizer     disabled
columns.weight_quantizer  int4      block 3      static   [1.0000e0, 8.0000e0] (15)
fc.weight_quantizer       disabled
fc.input_quantizer        e4m3      per-token    dynamic
fc.output_quantizer       disabled
4 of 7 quantizers enabled: 1 e4m3, 1 int4, 2 int8; 16.44 bits per parameter, 16 where it is in float";
    assert_eq!(summary(&restored).with_disabled().to_string(), expected);
    let weights = golden_model(&device);
    assert_same(&values(restored.columns.weight.base()), &values(weights.columns.weight.val()), "columns");
    assert_same(&values(restored.conv.weight.base()), &values(weights.conv.weight.val()), "conv");
}

/// A model with every buffer that a quantizer can have, and known weights.
fn with_all_buffers(device: &Device) -> QuantLinear {
    let mut layer: QuantLinear = LinearConfig::new(16, 4).init(device).into();
    layer.weight = powers([16, 4], device);
    layer.bias = Some(powers([4], device));
    layer
}

fn quantized_with_all_buffers(device: &Device) -> QuantLinear {
    use burn_quant::Quantizers;
    use burn_quant::config::{BiasConfig, Format, Granularity, Rotation};
    use burn_quant::quantizer::Buffer;
    let bias = BiasConfig::new(Granularity::PerChannel).max_min();
    let rotation = Rotation { signs: Some(5), ..Rotation::default() };
    let config = QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::nvfp4_static().then(QuantizerConfig::e4m3())))
        .with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8).with_bias(bias)))
        .with_rule(Rule::set("output_quantizer", QuantizerConfig::mx(Format::E2M1).rotated(rotation)));
    let x = Tensor::<2>::from_data([std::array::from_fn::<f32, 16, _>(|i| i as f32 / 4.0)], device);
    let x: Tensor<2> = Tensor::cat(vec![x.clone(), x * -0.5], 0);
    let (layer, _) =
        quantize(with_all_buffers(device), &config, |layer: &QuantLinear| drop(layer.forward(x.clone()))).unwrap();
    let mut quantizers = Quantizers::of(&layer);
    let scale = Tensor::from_data((0..16).map(|i| 2f32.powi(i % 3)).collect::<Vec<_>>().as_slice(), device);
    quantizers.get_mut("input_quantizer").unwrap().set_buffer(Buffer::PreQuantScale, scale);
    quantizers.install(layer).unwrap()
}

#[test]
fn every_buffer_of_every_stage_is_saved_and_restored() {
    for (name, device) in devices() {
        let model = quantized_with_all_buffers(&device);
        let restored = read(with_all_buffers(&device), &bytes(&model)).unwrap();
        assert_eq!(summary(&restored), summary(&model), "{name}");
        let x = spread([3, 16], &device);
        assert_same(&values(restored.forward(x.clone())), &values(model.forward(x)), &name);
    }
}

#[test]
fn buffers_that_do_not_belong_are_refused() {
    use burn_quant::Quantizers;
    use burn_quant::quantizer::Buffer;
    let (_, device) = device();
    let with = |stage: usize, buffer, values: &[f32]| {
        let model = quantized_with_all_buffers(&device);
        let mut quantizers = Quantizers::of(&model);
        let quantizer = quantizers.get_mut("weight_quantizer").unwrap();
        quantizer.stage_mut(stage).unwrap().set_buffer(buffer, Tensor::from_data(values, &device));
        read(with_all_buffers(&device), &bytes(&quantizers.install(model).unwrap())).unwrap_err()
    };
    let wide = with(0, Buffer::GlobalAmax, &[1.0, 1.0]);
    let at = "weight.weight_quantizer.global_amax";
    assert!(matches!(&wide, StoreError::Shape { path, .. } if path == at), "{wide}");
    let stage = with(1, Buffer::Amax, &[1.0, 1.0]);
    assert!(matches!(&stage, StoreError::Shape { path, .. } if path == "weight.weight_quantizer.1.amax"), "{stage}");
    let infinite = with(0, Buffer::PreQuantScale, &[f32::INFINITY; 16]);
    assert!(matches!(&infinite, StoreError::BadBuffer { buffer: "pre_quant_scale", .. }), "{infinite}");
}

/// Files of schema 1.1 stay readable: this one was written when it was new, and is not written again.
#[test]
fn the_golden_file_of_schema_1_1_restores() {
    let (_, device) = device();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-1.1.bpk");
    let restored = restore(LinearConfig::new(16, 4).init(&device).into(), path);
    let restored: QuantLinear = restored.unwrap();
    let expected = "\
quantizer           format           granularity  range    amax
weight_quantizer    nvfp4 static     block 16     static   [8.0000e0, 8.0000e0] (4)
weight_quantizer.1  e4m3             per-tensor   static   8.0000e0
input_quantizer     int8 affine      per-tensor   static   2.8125e0
output_quantizer    mx e2m1 rotated  block 32     dynamic
3 of 3 quantizers enabled: 1 int8 affine, 1 mx e2m1 rotated, 1 nvfp4 static + e4m3; 21.65 bits per parameter, 16 \
    where it is in float";
    assert_eq!(summary(&restored).to_string(), expected);
    let model = quantized_with_all_buffers(&device);
    assert_same(&values(restored.weight.val()), &values(model.weight.val()), "weights");
    let x = spread([3, 16], &device);
    let quantized = |layer: &QuantLinear| values(layer.input_quantizer.forward(x.clone()));
    assert_same(&quantized(&restored), &quantized(&model), "inputs");
}

/// A layer with a branch of low rank, of known numbers.
fn with_branch(device: &Device) -> QuantLinear {
    use burn_quant::Quantizers;
    use burn_quant::quantizer::Buffer;
    let (layer, _) = quantize_weights(with_all_buffers(device), &presets::int8_weight_only()).unwrap();
    let mut quantizers = Quantizers::of(&layer);
    let slot = quantizers.get_mut("input_quantizer").unwrap();
    let numbers = |len: usize| {
        Tensor::from_data((0..len).map(|i| 2f32.powi(i as i32 % 3)).collect::<Vec<_>>().as_slice(), device)
    };
    slot.set_buffer(Buffer::LowRankDown, numbers(16 * 2));
    slot.set_buffer(Buffer::LowRankUp, numbers(2 * 4));
    quantizers.install(layer).unwrap()
}

#[test]
fn a_branch_of_low_rank_is_saved_and_restored_and_checked() {
    use burn_quant::Quantizers;
    use burn_quant::quantizer::Buffer;
    for (name, device) in devices() {
        let model = with_branch(&device);
        let restored = read(with_all_buffers(&device), &bytes(&model)).unwrap();
        let x = spread([3, 16], &device);
        assert_same(&values(restored.forward(x.clone())), &values(model.forward(x)), &name);
    }
    let (_, device) = device();
    for (buffer, len) in [(Buffer::LowRankDown, 31), (Buffer::LowRankUp, 9)] {
        let model = with_branch(&device);
        let mut quantizers = Quantizers::of(&model);
        quantizers.get_mut("input_quantizer").unwrap().set_buffer(buffer, Tensor::ones([len], &device));
        let error = read(with_all_buffers(&device), &bytes(&quantizers.install(model).unwrap())).unwrap_err();
        let at = format!("input_quantizer.{}", buffer.name());
        assert!(matches!(&error, StoreError::Shape { path, found, .. } if *path == at && *found == [len]), "{error}");
    }
}

/// Files of schema 1.2 stay readable: this one was written when it was new, and is not written again.
#[test]
fn the_golden_file_of_schema_1_2_restores() {
    let (_, device) = device();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-1.2.bpk");
    let restored: QuantLinear = restore(LinearConfig::new(16, 4).init(&device).into(), path).unwrap();
    let x = spread([3, 16], &device);
    assert_same(&values(restored.forward(x.clone())), &values(with_branch(&device).forward(x)), "outputs");
}

/// Files of schema 1.3 stay readable: this one was written when it was new, and is not written again.
#[test]
fn the_golden_file_of_schema_1_3_restores() {
    let (_, device) = device();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-1.3.bpk");
    // exact sums: all numbers are powers of two
    let x: Tensor<4> = powers([2, 1, 3, 3], &device).val();
    let config = presets::int8_default();
    let (net, _) = quantize(golden_model(&device), &config, |net: &Net| drop(net.forward(x.clone()))).unwrap();
    let mut new = Net::new(&device);
    new.columns = LinearConfig::new(8, 5).init(&device);
    let restored = restore(new, path).unwrap();
    assert_eq!(summary(&restored), summary(&net));
    assert_same(&values(restored.forward(x.clone())), &values(net.forward(x)), "outputs");
    assert_eq!(restored.conv.input_quantizer.role(), burn_quant::place::Role::ChannelsFirst);
}

/// A layer whose ranges before and after rounding differ, of known numbers.
fn with_two_ranges(device: &Device) -> QuantLinear {
    use burn_quant::Quantizers;
    use burn_quant::config::LearnedRanges;
    use burn_quant::quantizer::Buffer;
    let weights = QuantizerConfig::int(4).per_block(8).lsq_with(LearnedRanges::pre_and_post());
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", weights));
    let (layer, _) = quantize_weights(with_all_buffers(device), &config).unwrap();
    let mut quantizers = Quantizers::of(&layer);
    let quantizer = quantizers.get_mut("weight_quantizer").unwrap();
    let post = quantizer.amax().unwrap() * 0.5;
    quantizer.set_buffer(Buffer::AmaxPost, post);
    quantizers.install(layer).unwrap()
}

/// Files of schema 1.4 stay readable: this one was written when it was new, and is not written again.
#[test]
fn the_golden_file_of_schema_1_4_restores() {
    let (_, device) = device();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/schema-1.4.bpk");
    let restored: QuantLinear = restore(LinearConfig::new(16, 4).init(&device).into(), path).unwrap();
    let expected = with_two_ranges(&device);
    assert_eq!(summary(&restored), summary(&expected));
    assert_same(&values(restored.weight.val()), &values(expected.weight.val()), "weights");
}

#[test]
fn statistics_travel_in_files_and_damaged_ones_are_refused() {
    use burn_quant::Algorithm;
    use burn_quant::calibrate::{ModelStatistics, observe};
    use burn_quant::place::place;
    use burn_quant_store::{StoreError, load_statistics, save_statistics, statistics_from_bytes, statistics_to_bytes};
    let (_, device) = device();
    let (layer, _) = place(with_all_buffers(&device), &presets::int8_default(), &Default::default()).unwrap();
    let algorithm = Algorithm::Sequence(vec![Algorithm::entropy(), Algorithm::gptq()]);
    let run = |layer: &QuantLinear| drop(layer.forward(spread([5, 16], &device)));
    let seen: ModelStatistics = observe(&layer, &algorithm, run).unwrap();

    let folder = tempfile::tempdir().unwrap();
    save_statistics(&seen, folder.path().join("shard")).unwrap();
    assert_eq!(load_statistics(folder.path().join("shard")).unwrap(), seen);
    assert!(matches!(load_statistics(folder.path().join("other")), Err(StoreError::Open { .. })));

    let file = statistics_to_bytes(&seen).unwrap().to_vec();
    let read = |bytes: &[u8]| statistics_from_bytes(Bytes::from_bytes_vec(bytes.to_vec()));
    assert!(read(&file).is_ok());
    for cut in [0, 7, file.len() / 2, file.len() - 1] {
        assert!(read(&file[..cut]).is_err(), "cut at {cut}");
    }
    let mut flipped = file.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    assert!(matches!(read(&flipped), Err(StoreError::Tampered)));
    // a model is no statistics, and statistics are no model
    let model = bytes(&with_branch(&device));
    assert!(matches!(read(&model), Err(StoreError::NotStatistics { key: "burn-quant.statistics" })));
    let model = from_bytes(with_all_buffers(&device), Bytes::from_bytes_vec(file));
    assert!(matches!(model, Err(StoreError::NotQuantized { key: "burn-quant.plan" })));
}
