//! Models of the llama family, from and to the names of Hugging Face.

use std::collections::BTreeMap;
use std::path::Path;

use burn_quant_checkpoint::gguf::{
    GgmlType, Gguf, GgufModel, GgufModelWriter, ModelSource, PlannedTensor, TensorData, Value, convert_folder,
};
use burn_quant_checkpoint::{
    CheckpointError, Dtype, Element, Folder, NotExportable, Offset, QuantizedMatrix, ScaleKind,
};
use serde_json::json;

use super::{TYPES, bits, data, reference};

/// Keys and values, whatever their order.
fn sorted(file: &Gguf) -> BTreeMap<String, Value> {
    file.metadata().iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

/// A small configuration: hidden 64, 4 heads, 2 of them for keys.
fn config(changes: serde_json::Value) -> serde_json::Value {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 128, "vocab_size": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    });
    changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    config
}

/// Floats that differ in every place.
fn numbers(len: usize, first: usize) -> Vec<f32> {
    (0..len).map(|i| (first * 1000 + i) as f32).collect()
}

/// Writes tensors in F32, each with numbers of its own, and opens the file.
fn written(config: &serde_json::Value, tensors: &[(&str, &[usize])], folder: &Path) -> GgufModel {
    let path = folder.join("model.gguf");
    let plan: Vec<_> =
        tensors.iter().map(|(name, shape)| PlannedTensor::new(*name, shape.to_vec(), GgmlType::F32)).collect();
    let mut writer = GgufModelWriter::create(&path, &ModelSource::new("m", config), &plan).unwrap();
    for (i, tensor) in plan.iter().enumerate() {
        let values = numbers(tensor.shape.iter().product(), i);
        writer.tensor(&tensor.name, TensorData::Floats(&values)).unwrap();
    }
    writer.finish().unwrap();
    let model = GgufModel::open(&path).unwrap();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        assert_eq!(model.shape(name).unwrap(), *shape, "{name}");
        assert_eq!(model.floats(name).unwrap(), numbers(shape.iter().product(), i), "{name}");
    }
    assert_eq!(model.names().count(), tensors.len());
    model
}

#[test]
fn a_folder_becomes_the_reference_byte_for_byte_with_the_same_metadata() {
    let (folder, place) = (Folder::open(data("llama")).unwrap(), tempfile::tempdir().unwrap());
    for ggml in [&["F32"][..], &TYPES].concat() {
        let path = place.path().join("ours.gguf");
        convert_folder(&folder, "tiny-llama", |_, _| GgmlType::of_name(ggml).unwrap(), &path).unwrap();
        let (ours, theirs) = (Gguf::open(&path).unwrap(), Gguf::open(reference(ggml)).unwrap());
        assert_eq!(sorted(&ours), sorted(&theirs), "{ggml}");
        assert_eq!(ours.tensors().len(), theirs.tensors().len());
        for tensor in theirs.tensors() {
            let info = ours.info(&tensor.name).unwrap();
            assert_eq!((&info.shape, info.ggml), (&tensor.shape, tensor.ggml), "{ggml} {}", tensor.name);
            assert!(ours.bytes(&tensor.name).unwrap() == theirs.bytes(&tensor.name).unwrap(), "{ggml} {}", tensor.name);
        }
    }
}

#[test]
fn a_reference_has_the_names_the_rows_and_the_configuration_of_its_folder() {
    let (folder, model) = (Folder::open(data("llama")).unwrap(), GgufModel::open(reference("F32")).unwrap());
    assert_eq!(model.names().collect::<Vec<_>>(), folder.names().collect::<Vec<_>>());
    for name in folder.names() {
        let tensor = folder.tensor(name).unwrap();
        assert_eq!(model.shape(name).unwrap(), tensor.shape(), "{name}");
        assert_eq!(bits(&model.floats(name).unwrap()), bits(&tensor.to_f32(name).unwrap()), "{name}");
    }
    let (ours, theirs) = (model.config().unwrap(), folder.config());
    for key in [
        "architectures",
        "attention_bias",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "vocab_size",
    ] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["rope_theta"], theirs["rope_parameters"]["rope_theta"]);
}

#[test]
fn codes_of_queries_are_read_in_the_order_of_hugging_face() {
    for ggml in TYPES {
        let model = GgufModel::open(reference(ggml)).unwrap();
        let name = "model.layers.1.self_attn.q_proj.weight";
        assert_eq!(bits(&model.matrix(name).unwrap().dequantize()), bits(&model.floats(name).unwrap()), "{ggml}");
        assert_eq!(model.ggml(name), GgmlType::of_name(ggml));
    }
}

#[test]
fn codes_are_kept_through_a_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("codes.gguf");
    let matrix = QuantizedMatrix {
        outputs: 64,
        inputs: 64,
        element: Element::Int(4),
        codes: (0..64 * 64).map(|i| (i * 7 / 3 % 16 - 8) as i8 as u8).collect(),
        block_outputs: 1,
        block_inputs: 32,
        scales: (0..128).map(|i| (1 + i) as f32 / 64.0).collect(), // exact in f16
        scale_kind: ScaleKind::Float,
        offset: Offset::None,
        then_e4m3: None,
        dtype: Dtype::F32,
    };
    let (config, name) = (config(json!({})), "model.layers.0.self_attn.q_proj.weight");
    let plan = [PlannedTensor::new(name, [64, 64], GgmlType::of_matrix(&matrix).unwrap())];
    let mut writer = GgufModelWriter::create(&path, &ModelSource::new("m", &config), &plan).unwrap();
    writer.tensor(name, TensorData::Matrix(&matrix)).unwrap();
    assert_eq!(writer.finish().unwrap().changed, 0);
    let model = GgufModel::open(&path).unwrap();
    assert_eq!(model.matrix(name).unwrap(), matrix);
    assert_eq!(model.gguf().metadata().count("general.file_type").unwrap(), 2); // mostly Q4_0
}

#[test]
fn experts_are_parts_of_one_tensor_in_any_order() {
    let place = tempfile::tempdir().unwrap();
    let qwen = config(json!({
        "model_type": "qwen3_moe", "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
        "head_dim": 32,
    }));
    let model = written(
        &qwen,
        &[
            ("model.layers.0.mlp.experts.1.down_proj.weight", &[64, 32]),
            ("model.layers.0.mlp.experts.0.down_proj.weight", &[64, 32]),
            ("model.layers.0.mlp.gate.weight", &[2, 64]),
            ("model.layers.0.self_attn.q_norm.weight", &[32]),
            ("model.layers.0.self_attn.q_proj.weight", &[128, 64]), // heads of 32, in the order of both
        ],
        place.path(),
    );
    assert_eq!(model.gguf().info("blk.0.ffn_down_exps.weight").unwrap().shape, [2, 64, 32]);
    assert_eq!(model.gguf().floats("blk.0.attn_q.weight").unwrap(), numbers(128 * 64, 4));
    let config = model.config().unwrap();
    assert_eq!((&config["model_type"], &config["num_local_experts"]), (&json!("qwen3_moe"), &json!(2)));
    assert_eq!((&config["moe_intermediate_size"], &config["head_dim"]), (&json!(32), &json!(32)));

    let mixtral = config_of_mixtral();
    let model = written(
        &mixtral,
        &[
            ("model.layers.0.block_sparse_moe.experts.0.w2.weight", &[64, 32]),
            ("model.layers.0.block_sparse_moe.experts.1.w2.weight", &[64, 32]),
            ("model.layers.0.block_sparse_moe.gate.weight", &[2, 64]),
        ],
        place.path(),
    );
    assert_eq!(model.gguf().metadata().text("general.architecture").unwrap(), "llama");
    assert_eq!(model.config().unwrap()["architectures"], json!(["MixtralForCausalLM"]));
}

fn config_of_mixtral() -> serde_json::Value {
    config(json!({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 2}))
}

#[test]
fn an_expert_that_is_missing_is_told() {
    let place = tempfile::tempdir().unwrap();
    let (config, name) = (config_of_mixtral(), "model.layers.0.block_sparse_moe.experts.0.w1.weight");
    let plan = [PlannedTensor::new(name, [32, 64], GgmlType::F32)];
    let path = place.path().join("m.gguf");
    let mut writer = GgufModelWriter::create(&path, &ModelSource::new("m", &config), &plan).unwrap();
    writer.tensor(name, TensorData::Floats(&numbers(32 * 64, 0))).unwrap();
    assert!(
        matches!(writer.finish(), Err(CheckpointError::Missing { name, .. }) if name == "blk.0.ffn_gate_exps.weight")
    );
    assert!(!path.exists());
}

#[test]
fn biases_are_reordered_with_their_rows() {
    let place = tempfile::tempdir().unwrap();
    let tensors: &[(&str, &[usize])] = &[("model.layers.0.self_attn.q_proj.bias", &[64])];
    let llama = written(&config(json!({})), tensors, place.path());
    // heads of 16: element 0 with 8, 1 with 9
    assert_eq!(llama.gguf().floats("blk.0.attn_q.bias").unwrap()[..4], [0.0, 8.0, 1.0, 9.0]);
    assert_eq!(llama.config().unwrap()["attention_bias"], json!(true));
    let qwen = written(&config(json!({"model_type": "qwen2"})), tensors, place.path());
    assert_eq!(qwen.gguf().floats("blk.0.attn_q.bias").unwrap(), numbers(64, 0));
}

#[test]
fn scaled_rotations_survive_a_file() {
    let place = tempfile::tempdir().unwrap();
    let tensors: &[(&str, &[usize])] = &[("model.norm.weight", &[64])];
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let changes = json!({"rope_theta": 500000.0, "rope_scaling": llama3});
    let model = written(&config(changes), tensors, place.path());
    let factors = model.gguf().floats("rope_freqs.weight").unwrap(); // a head of 16 has 8 frequencies
    assert_eq!((factors.len(), factors[0], factors[7]), (8, 1.0, 32.0));
    assert_eq!(model.config().unwrap()["rope_scaling"], llama3);

    let linear = json!({"rope_type": "linear", "factor": 4.0});
    let model = written(&config(json!({"rope_scaling": linear})), tensors, place.path());
    assert_eq!(model.gguf().metadata().text("llama.rope.scaling.type").unwrap(), "linear");
    assert_eq!(model.config().unwrap()["rope_scaling"], linear);
}

#[test]
fn what_a_file_cannot_say_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let create = |config: serde_json::Value, name: &str, shape: &[usize], ggml| {
        let plan = [PlannedTensor::new(name, shape, ggml)];
        GgufModelWriter::create(place.path().join("m.gguf"), &ModelSource::new("m", &config), &plan).unwrap_err()
    };
    let norm = "model.norm.weight";
    for changes in [
        json!({"model_type": "gemma"}),
        json!({"hidden_act": "gelu"}),
        json!({"rope_scaling": {"rope_type": "longrope"}}),
    ] {
        let error = create(config(changes), norm, &[64], GgmlType::F32);
        assert!(matches!(error, CheckpointError::Unknown { .. }), "{error:?}");
    }
    let error = create(config(json!({})), "model.vision.weight", &[64], GgmlType::F32);
    assert!(matches!(error, CheckpointError::Unknown { found, .. } if found == "model.vision.weight"));
    let error = create(config(json!({})), "model.layers.0.self_attn.q_proj.weight", &[96, 64], GgmlType::F32);
    assert!(matches!(error, CheckpointError::Shape { .. }));
    let error = create(config(json!({})), "model.layers.0.mlp.down_proj.weight", &[64, 48], GgmlType::Q4_0);
    let CheckpointError::NotExportable { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason, NotExportable::Ragged { axis: "inputs", len: 48, block: 32 });
    let error = create(config(json!({})), norm, &[64], GgmlType::Q8_0);
    assert!(matches!(error, CheckpointError::NotExportable { reason: NotExportable::Format { .. }, .. }));
}
