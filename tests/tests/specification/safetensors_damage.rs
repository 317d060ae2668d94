//! Files of safetensors that are damaged, edited or of something else: an error for each way they can be wrong.

use std::collections::{BTreeMap, HashMap};

use burn::nn::LinearConfig;
use burn::tensor::{DType, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, quantize, quantize_weights};
use burn_quant_store::{Schema, StoreError, safetensors_from_bytes, safetensors_to_bytes};
use burn_quant_tests::device;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::safetensors_files::metadata;
use crate::{assert_same, spread, values};

/// A tensor as it is edited.
type Edit = (Dtype, Vec<usize>, Vec<u8>);

/// The file after its tensors and metadata were changed by someone who removed the digest.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut BTreeMap<String, Edit>, &mut BTreeMap<String, String>)) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let own = |view: &TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors = file.iter().map(|(name, view)| (name.to_string(), own(&view))).collect();
    let mut metadata = metadata(bytes);
    metadata.remove("burn-quant.digest");
    edit(&mut tensors, &mut metadata);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape takes"))
    });
    safetensors::serialize(views, Some(metadata.into_iter().collect::<HashMap<_, _>>())).unwrap()
}

#[test]
fn damage_is_told_apart() {
    let (_, device) = device();
    let new = || LinearConfig::new(8, 4).init(&device);
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(4)));
    let (layer, _) = quantize_weights(new(), &config).unwrap();
    let whole = safetensors_to_bytes(&layer).unwrap();
    let refused = |bytes: &[u8]| safetensors_from_bytes(new(), bytes).unwrap_err();

    for len in 0..whole.len() {
        let cut = refused(&whole[..len]);
        assert!(matches!(cut, StoreError::Truncated { .. }), "cut at {len}: {cut}");
    }
    let expected = values(layer.weight.val());
    for i in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[i] ^= 0x41;
        // without the name of the digest, a file has none
        if let Ok(restored) = safetensors_from_bytes(new(), &flipped) {
            assert_eq!(values(restored.weight.val()), expected, "byte {i}");
        }
    }
    let mut flipped = whole.clone();
    flipped[8] = b'['; // no longer an object
    assert!(matches!(refused(&flipped), StoreError::Damaged { .. }));
    *flipped.last_mut().unwrap() ^= 1;
    flipped[8] = whole[8];
    assert!(matches!(refused(&flipped), StoreError::Tampered));
    assert!(matches!(refused(b"GGUF\x03\0\0\0 and then some bytes"), StoreError::NotSafetensors));
    let foreign = safetensors::serialize(Vec::<(&str, TensorView)>::new(), None).unwrap();
    assert!(matches!(refused(&foreign), StoreError::NoPlan { key: "burn-quant.schema" }));
    let longer = refused(&[&whole[..], &[0]].concat());
    assert!(matches!(longer, StoreError::Truncated { .. }), "{longer}");
}

#[test]
fn whoever_edits_a_file_is_told_what_does_not_fit() {
    let (_, device) = device();
    let new = || QuantLinear::from(LinearConfig::new(8, 4).init(&device));
    let config = QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::nvfp4()))
        .with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8)));
    let x = spread::<2>([3, 8], &device);
    let (layer, _) = quantize(new(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
    let whole = safetensors_to_bytes(&layer).unwrap();
    let read = |bytes: &[u8]| safetensors_from_bytes(new(), bytes);
    let refused = |bytes: &[u8], what: &str| read(bytes).map_or_else(|error| error, |_| panic!("{what}"));
    let of_tensors = |edit: &dyn Fn(&mut BTreeMap<String, Edit>)| {
        refused(&edited(&whole, |tensors, _| edit(tensors)), "the edited tensors were read")
    };
    assert!(read(&edited(&whole, |_, _| {})).is_ok(), "a file needs no digest");

    for name in ["weight", "weight_scale", "weight_scale_2", "bias"] {
        let missing = of_tensors(&|tensors| drop(tensors.remove(name)));
        assert!(matches!(&missing, StoreError::MissingTensors { paths } if paths[..] == [name]), "{missing}");
    }
    let uncalibrated = of_tensors(&|tensors| drop(tensors.remove("input_quantizer.amax")));
    assert!(matches!(&uncalibrated, StoreError::MissingRange { name } if name == "input_quantizer"), "{uncalibrated}");
    let more = of_tensors(&|tensors| drop(tensors.insert("stray".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    assert!(matches!(&more, StoreError::UnexpectedTensors { paths } if paths[..] == ["stray"]), "{more}");
    let unused = "weight_quantizer.global_amax";
    let more = of_tensors(&|tensors| drop(tensors.insert(unused.into(), (Dtype::F32, vec![1], vec![0; 4]))));
    assert!(matches!(&more, StoreError::UnexpectedTensors { paths } if paths[..] == [unused]), "{more}");

    // eight rows of four codes in two bytes each
    let shape = of_tensors(&|tensors| tensors.get_mut("weight").unwrap().1 = vec![4, 4]);
    let StoreError::StoredShape { path, expected, found } = &shape else { panic!("{shape}") };
    assert_eq!((path.as_str(), &expected[..], &found[..]), ("weight", &[8, 2][..], &[4, 4][..]));
    let shape = of_tensors(&|tensors| drop(tensors.insert("bias".into(), (Dtype::F32, vec![5], vec![0; 20]))));
    assert!(matches!(&shape, StoreError::Shape { path, .. } if path == "bias"), "{shape}");
    let dtype = of_tensors(&|tensors| tensors.get_mut("weight").unwrap().0 = Dtype::I8);
    assert_eq!(
        dtype.to_string(),
        "`weight` is I8 in the file, and must be U8: the file was changed, or written by others"
    );
    let dtype = of_tensors(&|tensors| drop(tensors.insert("bias".into(), (Dtype::I32, vec![4], vec![0; 16]))));
    assert!(matches!(&dtype, StoreError::Dtype { path, found: DType::I32, .. } if path == "bias"), "{dtype}");
    let scale = of_tensors(&|tensors| tensors.get_mut("weight_scale").unwrap().2[0] = 0x7f);
    assert!(scale.to_string().ends_with("finite numbers, found 0x7f"), "{scale}");
    let tensor_scale = of_tensors(&|tensors| tensors.get_mut("weight_scale_2").unwrap().2[0] ^= 1);
    assert!(matches!(tensor_scale, StoreError::TensorScale { .. }), "{tensor_scale}");

    let of_metadata = |key: &str, from: &str, to: &str| {
        let file = edited(&whole, |_, metadata| {
            let text = metadata.get_mut(key).unwrap();
            assert!(text.contains(from), "{text}");
            *text = text.replace(from, to);
        });
        refused(&file, to)
    };
    let schema = |to| of_metadata("burn-quant.schema", "1.0", to);
    assert!(matches!(schema("1.1"), StoreError::NewerMinor { supported: Schema { major: 1, minor: 0 }, .. }));
    assert!(matches!(schema("2.1"), StoreError::OtherMajor { .. }));
    assert!(matches!(schema("one"), StoreError::Damaged { .. }));
    let weights = |from: &str, to: &str| of_metadata("burn-quant.weights", from, to);
    assert!(matches!(weights("[8,4]", "[8,-4]"), StoreError::Damaged { .. }));
    assert!(matches!(weights("[8,4]", "[9223372036854775807,4]"), StoreError::Damaged { .. }));
    assert!(matches!(weights("[8,4]", "[4,8]"), StoreError::Damaged { .. }), "groups of another shape");
    assert!(matches!(weights("\"bits\":4", "\"bits\":3"), StoreError::Damaged { .. }));
    let of_inputs = weights("\"weight_quantizer\"", "\"input_quantizer\"");
    assert!(matches!(of_inputs, StoreError::PackedWeight { .. }), "{of_inputs}");
    let plan = of_metadata("burn-quant.plan", "nvfp4", "int8");
    assert!(matches!(plan, StoreError::PackedWeight { .. } | StoreError::Damaged { .. }), "{plan}");
}

/// Written by hand from the tables of the format: INT4 in blocks of two inputs, with ranges 7, 14 and 3.5, 7.
#[test]
fn a_file_that_others_write_is_read() {
    let (_, device) = device();
    let plan = r#"{"weight_quantizer": {
        "config": {"format": "int4", "granularity": {"block": {"size": 2}}},
        "role": {"weight": {"channel_axis": 1, "block_axis": 0}},
        "enabled": true
    }}"#;
    let weights = r#"{"weight": {
        "stored": "codes", "quantizer": "weight_quantizer", "shape": [4, 2], "elements": "int4", "bits": 4,
        "group": [2, 1], "global_amax": 0.0
    }}"#;
    let metadata = [("burn-quant.schema", "1.0"), ("burn-quant.plan", plan), ("burn-quant.weights", weights)];
    let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
    // 7, 7 and −3, 1; 7, −7 and 1, 1, of which the first is in the low half of a byte
    let codes = [0xff, 0x95, 0x1f, 0x99];
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (amax, bias) = (floats(&[7.0, 3.5, 14.0, 7.0]), floats(&[0.25, -0.25]));
    let tensors = [
        ("weight", TensorView::new(Dtype::U8, vec![4, 1], &codes).unwrap()),
        ("weight_quantizer.amax", TensorView::new(Dtype::F32, vec![2, 2], &amax).unwrap()),
        ("bias", TensorView::new(Dtype::F32, vec![2], &bias).unwrap()),
    ];
    let file = safetensors::serialize(tensors, Some(metadata)).unwrap();
    let restored = safetensors_from_bytes(LinearConfig::new(4, 2).init(&device), &file).unwrap();
    let weight = [[7.0, 3.5], [-3.0, 0.5], [14.0, -7.0], [2.0, 1.0]];
    assert_same(&values(restored.weight.val()), weight.as_flattened(), "weights");
    let y = restored.forward(Tensor::<2>::from_data([[1.0, 1.0, 1.0, 1.0]], &device));
    assert_same(&values(y), &[20.0 + 0.25, -2.0 - 0.25], "outputs, with a bias");
}
