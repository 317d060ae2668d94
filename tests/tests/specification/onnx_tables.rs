//! ONNX of embeddings: tables that are stored as codes, and what is read of them.

use burn::tensor::{Int, Tensor};
use burn_quant::config::Format;
use burn_quant::nn::{QuantEmbedding, QuantEmbeddingConfig};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, quantize_weights};
use burn_quant_onnx::{ElementType, Exporter, OnnxModel, Profile, export};
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
        // bytes, what they stand for, and scales
        ("four_bits", QuantizerConfig::int(4).per_channel(), 3),
        ("four_bits_of_tensor", QuantizerConfig::int(4), 2),
        ("four_bits_in_blocks", QuantizerConfig::int(4).per_block(16), 3),
        ("fp8", QuantizerConfig::e4m3().per_channel(), 3),
        ("e5m2", QuantizerConfig::new(Format::E5M2).per_block(8), 3),
        ("nvfp4", QuantizerConfig::nvfp4(), 4), // scales are codes, too
    ] {
        let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config));
        let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 32).init(&device);
        let (table, _) = quantize_weights(table, &config).unwrap();
        let onnx = export(&table, lists(), QuantEmbedding::forward).unwrap();
        assert_eq!(count(&onnx, "Gather"), gathers, "{name}: {onnx}");
        files.add(name, &onnx, lists(), table.forward(lists()));
        // a range for each row is that of the row where one is read, too
        let one = || Tensor::<2, Int>::from_data([[9]], &device);
        let onnx = export(&table, one(), QuantEmbedding::forward).unwrap();
        assert_eq!(count(&onnx, "Gather"), gathers, "one row of {name}: {onnx}");
        files.add(&format!("one_row_of_{name}"), &onnx, one(), table.forward(one()));
        if matches!(name, "rows" | "blocks" | "four_bits" | "four_bits_in_blocks" | "fp8" | "nvfp4") {
            let (packed, report) = compress(table.clone()).unwrap();
            assert_eq!(report.packed.len(), 1);
            let onnx = export(&packed, lists(), QuantEmbedding::forward).unwrap();
            // columns of packed blocks are those of the table's rows: blocks lie along the other axis
            assert_eq!(count(&onnx, "Gather"), gathers, "packed {name}: {onnx}");
            assert_eq!(count(&onnx, "DequantizeLinear"), usize::from(matches!(name, "rows" | "blocks")), "{name}");
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

/// Codes of 4 bits and FP8 are stored as bytes only where rows alone are read: a head that shares the table reads all.
#[test]
fn a_table_that_is_read_whole_too_is_stored_once() {
    let (_, device) = device();
    let mut files = Files::new();
    let lists = || Tensor::<2, Int>::from_data([[1, 9, 4], [3, 0, 9]], &device);
    let tied = |table: &QuantEmbedding, x: Tensor<2, Int>| {
        let rows = table.forward(x);
        rows.clone().matmul(table.weight.val().transpose().unsqueeze()) + rows.sum_dim(2)
    };
    for (name, format, codes, odd) in [
        ("four_bits", QuantizerConfig::int(4), ElementType::Int4, 31),
        ("fp8", QuantizerConfig::e4m3(), ElementType::Float8E4M3FN, 32),
    ] {
        let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", format.per_channel()));
        let table = |features: usize| -> QuantEmbedding {
            let table: QuantEmbedding = QuantEmbeddingConfig::new(10, features).init(&device);
            quantize_weights(table, &config).unwrap().0
        };
        let stored = |onnx: &OnnxModel| -> Vec<(String, ElementType)> {
            let stored = onnx.stored().filter(|(name, ..)| name.starts_with("weight"));
            stored.map(|(name, element, _)| (name.to_string(), element)).collect()
        };
        let whole = vec![("weight".to_string(), codes), ("weight.scale".into(), ElementType::Float)];
        let (even, uneven) = (table(32), table(odd));
        let onnx = export(&even, lists(), tied).unwrap();
        assert_eq!(stored(&onnx), whole, "{name}: {onnx}");
        files.add(name, &onnx, lists(), tied(&even, lists()));

        // read twice by rows
        let twice = |table: &QuantEmbedding, x: Tensor<2, Int>| table.forward(x.clone()) * table.forward(x.flip([1]));
        let onnx = export(&even, lists(), twice).unwrap();
        let bytes = [("weight.scale".to_string(), ElementType::Float), ("weight.bytes".into(), ElementType::Uint8)];
        assert_eq!(stored(&onnx), bytes, "{name}: {onnx}");
        files.add(&format!("{name}_twice"), &onnx, lists(), twice(&even, lists()));

        // two codes of a byte may be of two rows
        let onnx = export(&uneven, lists(), QuantEmbedding::forward).unwrap();
        let expected = if odd == 31 { &whole[..] } else { &bytes[..] };
        assert_eq!(stored(&onnx), expected, "{name}: {onnx}");
        files.add(&format!("{name}_odd"), &onnx, lists(), uneven.forward(lists()));
    }
    files.check();
}

/// Whatever inputs are called, what is looked up is the table.
#[test]
fn an_input_may_have_the_name_of_a_table() {
    let (_, device) = device();
    let mut files = Files::new();
    let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel()));
    let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 32).init(&device);
    let (table, _) = quantize_weights(table, &config).unwrap();
    let lists = || Tensor::<2, Int>::from_data([[1, 9, 4], [3, 0, 9]], &device);
    for (i, [input, output]) in [["weight.bytes", "weight"], ["weight", "weight.scale"]].into_iter().enumerate() {
        let exporter = Exporter::new().with_input_names([input]).with_output_names([output]);
        let onnx = exporter.export(&table, lists(), QuantEmbedding::forward).unwrap();
        assert_eq!((onnx.input_names(), onnx.output_names()), (vec![input], vec![output]));
        files.add(&i.to_string(), &onnx, lists(), table.forward(lists()));
    }
    files.check();
}
