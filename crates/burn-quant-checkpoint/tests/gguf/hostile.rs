//! Files that are not what they say: an error, never a panic, and no memory beyond the file.

use burn_quant_checkpoint::CheckpointError;
use burn_quant_checkpoint::gguf::{Gguf, GgufModel};
use proptest::prelude::*;

use super::reference;

/// A header with one key or one tensor that follows.
fn file(version: u32, tensors: u64, keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let head = [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat();
    [head, rest.concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A tensor info: name, axes, lengths, type, offset.
fn tensor(name: &str, lengths: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let lengths: Vec<u8> = lengths.iter().flat_map(|len| len.to_le_bytes()).collect();
    let axes = lengths.len() as u32 / 8;
    [text(name), axes.to_le_bytes().to_vec(), lengths, kind.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()]
        .concat()
}

fn error(bytes: Vec<u8>) -> CheckpointError {
    Gguf::parse(bytes).unwrap_err()
}

/// Reads all that a file holds.
fn read_all(bytes: Vec<u8>) {
    let Ok(file) = Gguf::parse(bytes) else { return };
    for info in file.tensors() {
        let _ = file.floats(&info.name);
        let _ = file.matrix(&info.name);
    }
    let Ok(model) = GgufModel::new(file) else { return };
    let _ = (model.config(), model.tokenizer());
    for name in model.names() {
        let _ = (model.floats(name), model.matrix(name), model.shape(name));
    }
}

#[test]
fn another_format_or_version_is_named() {
    assert!(matches!(error(b"PK\x03\x04".to_vec()), CheckpointError::Magic { found, .. } if found == b"PK\x03\x04"));
    assert!(matches!(error(b"GG".to_vec()), CheckpointError::Magic { .. }));
    assert!(matches!(error(file(1, 0, 0, &[])), CheckpointError::Version { found: 1, .. }));
    // a big-endian file
    assert!(matches!(error(file(3 << 24, 0, 0, &[])), CheckpointError::Version { .. }));
}

#[test]
fn lengths_beyond_the_file_take_no_memory() {
    let most = u64::MAX.to_le_bytes();
    for bytes in [
        file(3, u64::MAX, 0, &[]),
        file(3, 0, u64::MAX, &[]),
        file(3, 0, 1, &[&most]),                                                        // a key
        file(3, 0, 1, &[&text("k"), &8u32.to_le_bytes(), &most]),                       // a text
        file(3, 0, 1, &[&text("k"), &9u32.to_le_bytes(), &12u32.to_le_bytes(), &most]), // an array of f64
        file(3, 0, 1, &[&text("k"), &9u32.to_le_bytes(), &8u32.to_le_bytes(), &most]),  // of texts
        file(3, 1, 0, &[&tensor("t", &[1 << 40], 0, 0)]),                               // a tensor
        file(3, 1, 0, &[&tensor("t", &[8], 0, 1 << 62)]),                               // far away
    ] {
        let found = error(bytes);
        assert!(matches!(found, CheckpointError::Truncated { .. }), "{found:?}");
    }
}

/// No element has no bytes, and the number of its rows is computed all the same.
#[test]
fn rows_beyond_64_bits_are_refused_where_they_are_empty_too() {
    let found = error(file(3, 1, 0, &[&tensor("t", &[0, 1 << 40, 1 << 40], 0, 0)]));
    assert!(matches!(&found, CheckpointError::Value { key, .. } if key == "the shape of `t`"), "{found:?}");
}

#[test]
fn what_the_format_has_not_is_refused() {
    let nested = |levels| [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(levels);
    for (what, bytes) in [
        ("a type of value", file(3, 0, 1, &[&text("k"), &13u32.to_le_bytes()])),
        ("a type of tensor", file(3, 1, 0, &[&tensor("t", &[32], 4, 0)])), // Q4_2, removed
        ("five axes", file(3, 1, 0, &[&tensor("t", &[1; 5], 0, 0)])),
        ("half a block", file(3, 1, 0, &[&tensor("t", &[16], 2, 0)])),
        ("an overflow", file(3, 1, 0, &[&tensor("t", &[1 << 32, 1 << 32], 0, 0)])),
        ("an offset between", file(3, 1, 0, &[&tensor("t", &[0], 0, 8)])),
        ("a boolean of 2", file(3, 0, 1, &[&text("k"), &7u32.to_le_bytes(), &[2]])),
        ("no UTF-8", file(3, 0, 1, &[&1u64.to_le_bytes(), &[0xff], &0u32.to_le_bytes(), &[0; 8]])),
        ("deep arrays", file(3, 0, 1, &[&text("k"), &9u32.to_le_bytes(), &nested(5000)])),
        ("an alignment of 3", file(3, 0, 1, &[&text("general.alignment"), &4u32.to_le_bytes(), &3u32.to_le_bytes()])),
    ] {
        let found = error(bytes);
        assert!(matches!(found, CheckpointError::Value { .. } | CheckpointError::Unknown { .. }), "{what}: {found:?}");
    }
}

#[test]
fn keys_and_tensors_are_there_once() {
    let key = [text("k"), 0u32.to_le_bytes().to_vec(), vec![1]].concat();
    let tensor = tensor("t", &[0], 0, 0);
    for bytes in [file(3, 0, 2, &[&key, &key]), file(3, 2, 0, &[&tensor, &tensor, &[0; 64]])] {
        assert!(matches!(error(bytes), CheckpointError::Twice { .. }));
    }
}

#[test]
fn alignment_is_that_of_the_file() {
    let alignment = [text("general.alignment"), 4u32.to_le_bytes().to_vec(), 128u32.to_le_bytes().to_vec()].concat();
    let mut bytes = file(2, 1, 1, &[&alignment, &tensor("t", &[1], 0, 128)]);
    bytes.resize(128, 0); // the data begins at 128, the tensor at 256
    bytes.resize(256, 0xff);
    bytes.extend(1f32.to_le_bytes());
    let file = Gguf::parse(bytes).unwrap();
    assert_eq!((file.version(), file.alignment()), (2, 128));
    assert_eq!(file.floats("t").unwrap(), [1.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_file_never_panics(
        changes in prop::collection::vec((0usize..6000, any::<u8>()), 1..6),
        len in prop::option::of(0usize..63616),
    ) {
        let mut bytes = std::fs::read(reference("MXFP4")).unwrap(); // its header has 5742 bytes
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes.truncate(len.unwrap_or(usize::MAX));
        read_all(bytes);
    }

    #[test]
    fn counts_of_a_damaged_model_never_panic(
        at in 0usize..900,
        value in prop::sample::select(vec![0u32, 1, 3, u32::MAX]),
    ) {
        let mut bytes = std::fs::read(reference("Q8_0")).unwrap(); // sizes are within the first 900 bytes
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        read_all(bytes);
    }
}
