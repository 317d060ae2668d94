//! Files: what references hold, and what is written is read again.

use burn_quant_checkpoint::CheckpointError;
use burn_quant_checkpoint::gguf::{Array, GgmlType, Gguf, GgufWriter, Metadata, PlannedTensor, Value};
use sha2::{Digest, Sha256};

use super::{TYPES, bits, data, reference};

/// Metadata with a value of each type.
fn all_types() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("u8", Value::U8(255));
    metadata.set("i8", Value::I8(-1));
    metadata.set("u16", Value::U16(65535));
    metadata.set("i16", Value::I16(-2));
    metadata.set("u32", Value::U32(7));
    metadata.set("i32", Value::I32(-3));
    metadata.set("f32", Value::F32(0.1));
    metadata.set("bool", Value::Bool(true));
    metadata.set("string", Value::String("Ġ héllo".into()));
    metadata.set("u64", Value::U64(u64::MAX));
    metadata.set("i64", Value::I64(i64::MIN));
    metadata.set("f64", Value::F64(0.1));
    let nested = Array::Array(vec![
        Array::String(vec!["a".into(), String::new()]),
        Array::Array(vec![Array::Bool(vec![true, false]), Array::F64(vec![0.5])]),
        Array::U8(vec![]),
    ]);
    metadata.set("array", Value::Array(nested));
    metadata
}

#[test]
fn references_are_read_with_their_sizes_and_types() {
    let file = Gguf::open(reference("Q4_0")).unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    assert_eq!(file.metadata().text("general.architecture").unwrap(), "llama");
    assert_eq!(file.metadata().count("llama.attention.head_count_kv").unwrap(), 2);
    assert_eq!(file.metadata().get("tokenizer.ggml.tokens").unwrap().as_strings().unwrap().len(), 256);
    let down = file.info("blk.0.ffn_down.weight").unwrap();
    assert_eq!((&down.shape[..], down.ggml), (&[64, 128][..], GgmlType::Q4_0)); // outputs, inputs
    assert_eq!(down.byte_len(), 64 * 128 / 32 * 18);
    assert_eq!(file.info("output_norm.weight").unwrap().ggml, GgmlType::F32);
}

#[test]
fn tensors_of_references_are_dequantized_bit_for_bit() {
    let text = std::fs::read_to_string(data("dequantized.json")).unwrap();
    let sums: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut tensors = 0;
    for ggml in TYPES {
        let file = Gguf::open(reference(ggml)).unwrap();
        for (name, sum) in sums[format!("llama-{}.gguf", ggml.to_lowercase())].as_object().unwrap() {
            let values = file.floats(name).unwrap();
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, sum.as_str().unwrap(), "{ggml} {name}");
            assert_eq!(bits(&file.matrix(name).unwrap().dequantize()), bits(&values), "{ggml} {name}");
            tensors += 1;
        }
    }
    assert_eq!(tensors, 4 * 16);
}

#[test]
fn a_file_in_memory_is_the_file_on_disk() {
    let path = reference("MXFP4");
    let (disk, memory) = (Gguf::open(&path).unwrap(), Gguf::parse(std::fs::read(&path).unwrap()).unwrap());
    assert_eq!(disk.metadata(), memory.metadata());
    assert_eq!(disk.tensors(), memory.tensors());
    assert_eq!(disk.bytes("blk.1.attn_k.weight").unwrap(), memory.bytes("blk.1.attn_k.weight").unwrap());
}

#[test]
fn every_type_of_value_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.gguf");
    GgufWriter::create(&path, &all_types(), &[]).unwrap().finish().unwrap();
    assert_eq!(Gguf::open(&path).unwrap().metadata(), &all_types());
}

#[test]
fn a_reference_is_written_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for ggml in ["F32", "Q4_1"] {
        let file = Gguf::open(reference(ggml)).unwrap();
        let plan: Vec<_> =
            file.tensors().iter().map(|t| PlannedTensor::new(&t.name, t.shape.clone(), t.ggml)).collect();
        let path = folder.path().join("again.gguf");
        let mut writer = GgufWriter::create(&path, file.metadata(), &plan).unwrap();
        for tensor in file.tensors().iter().rev() {
            writer.tensor(&tensor.name, &file.bytes(&tensor.name).unwrap()).unwrap(); // any order
        }
        writer.finish().unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(reference(ggml)).unwrap(), "{ggml}");
    }
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let plan = [PlannedTensor::new("a", [4], GgmlType::F32), PlannedTensor::new("b", [2, 2], GgmlType::F16)];
    let mut writer = GgufWriter::create(&path, &Metadata::new(), &plan).unwrap();
    writer.tensor("a", &[0; 16]).unwrap();
    assert!(matches!(writer.tensor("a", &[0; 16]), Err(CheckpointError::Twice { .. })));
    assert!(matches!(writer.tensor("c", &[0; 16]), Err(CheckpointError::Missing { .. })));
    assert!(matches!(writer.tensor("b", &[0; 16]), Err(CheckpointError::Contradiction { .. })));
    writer.part("b", 1, 2, &[1; 4]).unwrap();
    assert!(matches!(writer.finish(), Err(CheckpointError::Missing { name, .. }) if name == "b"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0); // nothing is left
}

#[test]
fn a_missing_tensor_is_named_with_similar_ones() {
    let error = Gguf::open(reference("F32")).unwrap().floats("blk.0.attn_qq.weight").unwrap_err();
    let CheckpointError::Missing { near_misses, .. } = error else { panic!("{error:?}") };
    assert_eq!(near_misses[0], "blk.0.attn_q.weight");
}
