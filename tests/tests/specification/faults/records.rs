//! Faults of records, and of the gate that runs the tests.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, DType, Device, Tensor};
use burn_pack::{Reader, Tensor as PackTensor, Writer};
use burn_quant::config::{AxisGroups, Granularity, Rotation};
use burn_quant::error::InvalidConfig;
use burn_quant::nn::QuantLinear;
use burn_quant::place::{Plan, PlannedQuantizer, Role, WeightLayout};
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, presets, quantize, quantize_weights};
use burn_quant_store::{Restore, StoreError, from_bytes, restore, save, to_bytes, with_new_digest};
use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};

use crate::{assert_same, spread, values};

/// Each file of `fuzz/fuzz_targets` is a target, built and run by name.
pub(super) fn f44() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let gate = std::fs::read_to_string(root.join(".ci/run")).unwrap();
    let targets = std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap();
    let mut names: Vec<String> =
        targets.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    let (_, listed) = gate.split_once("targets=(").expect("a list of targets");
    let (listed, rest) = listed.split_once(')').unwrap();
    let mut run: Vec<&str> = listed.split_whitespace().collect();
    assert!(rest.contains("for target in \"${targets[@]}\""), "all of them are run");
    run.sort();
    assert_eq!(run, names);
}

#[derive(Module, Debug)]
struct Net {
    fc: QuantLinear,
    head: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self { fc: LinearConfig::new(4, 3).init(device).into(), head: LinearConfig::new(3, 2).init(device).into() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.fc.forward(x))
    }

    fn quantized(device: &Device) -> Self {
        let x = spread([5, 4], device);
        quantize(Self::new(device), &presets::int8_default(), |net| drop(net.forward(x.clone()))).unwrap().0
    }
}

/// A file whose plan and tensors were changed by someone who also made its digest anew.
fn forged(
    model: &impl Module,
    edit_plan: impl FnOnce(&mut Plan),
    edit_tensors: impl FnOnce(&mut Vec<PackTensor>),
) -> Bytes {
    let reader = Reader::from_bytes(to_bytes(model).unwrap()).unwrap();
    let mut metadata = reader.metadata().clone();
    let mut plan: Plan = serde_json::from_str(&metadata["burn-quant.plan"]).unwrap();
    edit_plan(&mut plan);
    metadata.insert("burn-quant.plan".into(), serde_json::to_string(&plan).unwrap());
    let mut tensors = reader.into_tensors().unwrap();
    edit_tensors(&mut tensors);
    let writer = metadata.iter().fold(Writer::new(tensors), |writer, (key, value)| writer.with_metadata(key, value));
    with_new_digest(writer.into_bytes().unwrap()).unwrap()
}

/// A tensor of a file in place of the one with its name.
fn replace(tensors: &mut Vec<PackTensor>, name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) {
    tensors.retain(|tensor| tensor.name != name);
    let shape = burn::tensor::Shape::from(shape.to_vec());
    tensors.push(PackTensor::new(name.into(), dtype, shape, None, Bytes::from_bytes_vec(bytes)));
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Each of these files has the digest of its contents. Those of disabled quantizers panicked or were taken, as they
/// were not looked at.
pub(super) fn f33() {
    let (_, device) = burn_quant_tests::device();
    let model = Net::quantized(&device);
    let restored = |bytes| from_bytes(Net::new(&device), bytes).map(drop);
    let of_plan = |name: &str, edit: &dyn Fn(&mut PlannedQuantizer)| {
        let edit = |plan: &mut Plan| edit(plan.quantizers.get_mut(name).unwrap());
        restored(forged(&model, edit, |_| {})).unwrap_err()
    };
    let of_tensor = |name: &str, dtype, shape: &[usize], bytes: Vec<u8>| {
        restored(forged(&model, |_| {}, |tensors| replace(tensors, name, dtype, shape, bytes))).unwrap_err()
    };
    assert!(restored(forged(&model, |_| {}, |_| {})).is_ok());

    // configurations of a quantizer that is off
    let off = |granularity: Granularity| {
        of_plan("fc.weight_quantizer", &|planned| {
            planned.enabled = false;
            planned.config.granularity = granularity.clone();
        })
    };
    let problem = |error: StoreError| match error {
        StoreError::Quantizers(QuantError::Config { name, problem }) if name == "fc.weight_quantizer" => problem,
        other => panic!("{other}"),
    };
    let rank = off(Granularity::Axes(vec![AxisGroups::Each; 3]));
    assert_eq!(problem(rank), InvalidConfig::Rank { expected: 3, found: 2 });
    assert_eq!(problem(off(Granularity::Block { size: 0 })), InvalidConfig::EmptyBlock);
    let layout = WeightLayout::new(7, 0);
    let axes = of_plan("fc.weight_quantizer", &|planned| planned.role = Role::Weight(layout));
    assert_eq!(problem(axes), InvalidConfig::Layout { axis: 7, rank: 2 });
    // an activation quantizer that is said to be a weight's
    let role = of_plan("fc.input_quantizer", &|planned| planned.role = Role::Weight(layout));
    assert!(matches!(&role, StoreError::Role { name, .. } if name == "fc.input_quantizer"), "{role}");

    // ranges of activations: one for the tensor, and one for each of four channels
    let shape = |error: StoreError| match error {
        StoreError::Shape { path, expected, found } => (path, expected, found),
        other => panic!("{other}"),
    };
    let amax = |len: usize| of_tensor("fc.input_quantizer.amax", DType::F32, &[len], floats(&vec![1.0; len]));
    assert_eq!(shape(amax(5)), ("fc.input_quantizer.amax".into(), vec![1], vec![5]));
    let per_channel = forged(
        &model,
        |plan| {
            let planned = plan.quantizers.get_mut("fc.input_quantizer").unwrap();
            planned.config.granularity = Granularity::PerChannel;
        },
        |tensors| replace(tensors, "fc.input_quantizer.amax", DType::F32, &[3], floats(&[1.0; 3])),
    );
    let per_channel = restored(per_channel).unwrap_err();
    assert_eq!(shape(per_channel), ("fc.input_quantizer.amax".into(), vec![4], vec![3]));
    // a range below zero, which a quantizer would not have written
    let negative = of_tensor("fc.input_quantizer.amax", DType::F32, &[1], floats(&[-1.0]));
    assert!(matches!(&negative, StoreError::BadRange { found, .. } if *found == -1.0), "{negative}");
    // a pre-quantization scale acts also where the quantizer is off
    let scale = of_tensor("fc.output_quantizer.pre_quant_scale", DType::F32, &[2], floats(&[1.0; 2]));
    assert_eq!(shape(scale), ("fc.output_quantizer.pre_quant_scale".into(), vec![3], vec![2]));

    // a rotation of the three outputs
    let rotated = of_plan("fc.output_quantizer", &|planned| {
        planned.enabled = true;
        planned.config = QuantizerConfig::int(8).dynamic().rotated(Rotation { block: Some(2), ..Rotation::default() });
    });
    assert!(
        matches!(
            &rotated,
            StoreError::Quantizers(QuantError::Config {
                problem: InvalidConfig::RotationAxis { len: 3, block: 2 },
                ..
            })
        ),
        "{rotated:?}"
    );

    // kinds of numbers: a range in halves was dropped, and zero in its place
    let halves = of_tensor("fc.input_quantizer.amax", DType::F16, &[1], vec![0, 0x3c]);
    assert!(matches!(&halves, StoreError::Dtype { found: DType::F16, expected: "f32", .. }), "{halves}");
    let integers = of_tensor("fc.weight", DType::I32, &[4, 3], vec![0; 48]);
    assert!(
        matches!(&integers, StoreError::Dtype { found: DType::I32, path, .. } if path == "fc.weight"),
        "{integers}"
    );

    // factors of a branch beside a weight without inputs: they were divided by their number
    let layer =
        || -> QuantLinear { Linear { weight: Param::from_tensor(Tensor::zeros([0, 3], &device)), bias: None }.into() };
    let (empty, _) = quantize_weights(layer(), &QuantConfig::new()).unwrap(); // all off
    let factors = forged(
        &empty,
        |_| {},
        |tensors| {
            replace(tensors, "input_quantizer.low_rank_down", DType::F32, &[4], floats(&[1.0; 4]));
            replace(tensors, "input_quantizer.low_rank_up", DType::F32, &[6], floats(&[1.0; 6]));
        },
    );
    let factors = from_bytes(layer(), factors).unwrap_err();
    assert!(matches!(&factors, StoreError::UnexpectedTensors { paths } if paths.len() == 2), "{factors}");
}

#[derive(Module, Debug)]
struct Outer {
    backbone: Net,
    extra: QuantLinear,
}

/// A file of a `Net` read into a model that holds one below `backbone`, and back.
pub(super) fn f38() {
    let (_, device) = burn_quant_tests::device();
    let net = Net::quantized(&device);
    let x = spread::<2>([3, 4], &device);
    let expected = values(net.forward(x.clone()));
    let outer = || Outer { backbone: Net::new(&device), extra: LinearConfig::new(2, 2).init(&device).into() };

    let file = to_bytes(&net).unwrap();
    let below = Restore::new().rename("", "backbone");
    let strict = below.load_bytes(outer(), file.clone()).unwrap_err();
    let slots = ["extra.input_quantizer", "extra.output_quantizer"];
    assert!(matches!(&strict, StoreError::UnexpectedQuantizers { names } if names == &slots), "{strict}");
    let fresh = outer();
    let weight = values(fresh.extra.weight.val());
    let (restored, report) = below.clone().allow_missing().load_bytes(fresh, file.clone()).unwrap();
    assert_same(&values(restored.backbone.forward(x.clone())), &expected, "below another module");
    assert_same(&values(restored.extra.weight.val()), &weight, "what the file lacks stays");
    assert_eq!(report.missing_tensors, ["extra.bias", "extra.weight"]);
    assert_eq!(report.missing_quantizers, slots);
    assert!(report.unused_tensors.is_empty() && report.unused_quantizers.is_empty() && !report.is_complete());

    // and from there into the part alone
    let file = to_bytes(&restored).unwrap();
    let part = Restore::new().rename("backbone", "");
    let strict = part.load_bytes(Net::new(&device), file.clone()).unwrap_err();
    assert!(matches!(&strict, StoreError::MissingQuantizers { names } if names == &slots), "{strict}");
    let (restored, report) = part.clone().allow_unused().load_bytes(Net::new(&device), file).unwrap();
    assert_same(&values(restored.forward(x.clone())), &expected, "taken from there");
    assert_eq!(report.unused_tensors, ["extra.bias", "extra.weight"]);
    assert_eq!(report.unused_quantizers, slots);

    // a whole file in its own place leaves nothing out; a path goes by its segments
    let (_, report) = Restore::new().rename("f", "g").load_bytes(Net::new(&device), to_bytes(&net).unwrap()).unwrap();
    assert!(report.is_complete());
    let clash = Restore::new().rename("fc", "head").load_bytes(Net::new(&device), to_bytes(&net).unwrap());
    assert!(matches!(clash, Err(StoreError::SamePath { path }) if path.starts_with("head.")));
    // leaving out is no way past a wrong shape
    let narrow = Net { fc: LinearConfig::new(5, 3).init(&device).into(), ..Net::new(&device) };
    let shape = Restore::new().allow_missing().allow_unused().load_bytes(narrow, to_bytes(&net).unwrap());
    assert!(matches!(shape, Err(StoreError::Shape { path, .. }) if path == "fc.weight"));
}

/// What `fn main() -> Result<_, Box<dyn Error>>` prints is the sentence, with those of its causes.
pub(super) fn f46() {
    let missing = Restore::new().load(Net::new(&burn_quant_tests::device().1), "no/such/file.bpk").unwrap_err();
    assert!(format!("{missing:?}").starts_with("cannot read `no/such/file.bpk`: "), "{missing:?}");
    assert!(format!("{missing:?}").contains("(os error 2)"), "{missing:?}");
    let unfit = StoreError::Quantizers(QuantError::Config { name: "fc".into(), problem: InvalidConfig::EmptyBlock });
    let debug = format!("{unfit:?}");
    assert!(debug.starts_with(&format!("{unfit}: ")) && debug.contains("found size 0"), "{debug}");
    assert_eq!(format!("{:?}", StoreError::Tampered), StoreError::Tampered.to_string());
}

pub(super) fn f57() {
    let (_, device) = burn_quant_tests::device();
    let folder = tempfile::tempdir().unwrap();
    let model = Net::quantized(&device);
    let x = spread::<2>([3, 4], &device);
    let expected = values(model.forward(x.clone()));

    // an extension of any kind is part of the name
    let path = folder.path().join("model.v1");
    save(&model, &path).unwrap();
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    assert!(path.is_file() && files() == 1);
    assert_same(&values(restore(Net::new(&device), &path).unwrap().forward(x)), &expected, "model.v1");
    // a folder is no place for a file, and nothing is written beside it
    let inner = folder.path().join("models");
    std::fs::create_dir(&inner).unwrap();
    let refused = save(&model, &inner).unwrap_err();
    assert!(matches!(&refused, StoreError::Folder { path } if path == &inner), "{refused}");
    assert!(matches!(restore(Net::new(&device), &inner), Err(StoreError::Folder { .. })));
    assert_eq!(files(), 2);

    // burn's own `load` says "unused" until it is told that there is more
    let float = || Net::new(&device);
    assert!(float().try_load_record(ModuleRecord::load(&path).unwrap()).is_err());
    let plain = float().try_load_record(ModuleRecord::load(&path).unwrap().allow_unused(true)).unwrap();
    assert_same(&values(plain.fc.weight.val()), &values(model.fc.weight.base()), "weights");

    // a checkpoint of PyTorch has [out, in]
    let checkpoint = folder.path().join("pytorch.safetensors");
    model.save_into(&mut SafetensorsStore::from_file(&checkpoint).with_to_adapter(BurnToPyTorchAdapter)).unwrap();
    let file = std::fs::read(&checkpoint).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let [inputs, outputs] = model.fc.weight.dims();
    assert_eq!(tensors.tensor("fc.weight").unwrap().shape(), [outputs, inputs]);
    let store = SafetensorsStore::from_file(&checkpoint).with_from_adapter(PyTorchToBurnAdapter);
    let mut loaded = float();
    let applied = loaded.load_from(&mut store.allow_partial(true)).unwrap();
    assert!(applied.errors.is_empty() && applied.missing.is_empty(), "{applied}");
    assert_same(&values(loaded.fc.weight.val()), &values(model.fc.weight.base()), "by burn's own adapters");
}
