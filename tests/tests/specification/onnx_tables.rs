//! ONNX of embeddings: tables that are stored as codes, and what is read of them.

use burn::tensor::{Int, Tensor};
use burn_quant::nn::{QuantEmbedding, QuantEmbeddingConfig};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, quantize_weights};
use burn_quant_onnx::{Exporter, Profile, export};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, count};

/// Only rows that are read become values, of a table whose codes can be gathered.
#[test]
fn tables_of_codes_are_read_by_their_rows() {
    let (_, device) = device();
    let mut files = Files::new();
    let lists = || Tensor::<2, Int>::from_data([[1, 9, 4], [3, 0, 9]], &device);
    let int8 = || QuantizerConfig::int(8);
    for (name, config, gathers) in [
        ("tensor", int8(), 1),
        ("rows", int8().per_channel(), 3),
        ("blocks", int8().per_block(16), 3),
        ("twelve_bits", QuantizerConfig::int(12).per_channel(), 2),
        ("four_bits", QuantizerConfig::int(4).per_channel(), 1), // of values
        ("fp8", QuantizerConfig::e4m3().per_channel(), 1),
    ] {
        let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config));
        let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 32).init(&device);
        let (table, _) = quantize_weights(table, &config).unwrap();
        let onnx = export(&table, lists(), QuantEmbedding::forward).unwrap();
        assert_eq!(count(&onnx, "Gather"), gathers, "{name}: {onnx}");
        files.add(name, &onnx, lists(), table.forward(lists()));
        if matches!(name, "rows" | "blocks" | "four_bits") {
            let (packed, report) = compress(table.clone()).unwrap();
            assert_eq!(report.packed.len(), 1);
            let onnx = export(&packed, lists(), QuantEmbedding::forward).unwrap();
            assert_eq!(count(&onnx, "Gather"), gathers, "packed {name}: {onnx}");
            files.add(&format!("packed_{name}"), &onnx, lists(), packed.forward(lists()));
        }
        let whole = Exporter::new().with_profile(Profile::TensorRt);
        let onnx = whole.export(&table, lists(), QuantEmbedding::forward).unwrap();
        assert_eq!(count(&onnx, "Gather"), 1, "{name}: {onnx}");
    }
    files.check();
}

/// A table that is read twice is stored once; batches may have any size.
#[test]
fn a_table_that_is_read_twice_is_stored_once() {
    let (_, device) = device();
    let mut files = Files::new();
    let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(8).per_channel()));
    let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 32).init(&device);
    let (table, _) = quantize_weights(table, &config).unwrap();
    let lists = |batch: usize| {
        let count = (batch * 4) as i64;
        (Tensor::<1, Int>::arange(0..count, &device) * 3).remainder_scalar(10).reshape([batch, 4])
    };
    let twice = |table: &QuantEmbedding, x: Tensor<2, Int>| table.forward(x.clone()) * table.forward(x.flip([1])) + 1.0;
    let onnx = files.add_any_size("twice", &table, lists, twice);
    let stored: Vec<&str> = onnx.stored().map(|(name, ..)| name).filter(|name| name.starts_with("weight")).collect();
    assert_eq!(stored, ["weight", "weight.scale", "weight.zero_point"]);
    assert_eq!((count(&onnx, "Gather"), count(&onnx, "DequantizeLinear")), (6, 2), "{onnx}");
    files.check();
}
