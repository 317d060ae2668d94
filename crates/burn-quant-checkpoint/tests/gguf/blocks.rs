//! Blocks of all types: decoded, encoded, and as codes and scales.

use burn_quant_checkpoint::gguf::{GgmlType, Gguf, GgufWriter, HalfScales, Metadata, PlannedTensor};
use burn_quant_checkpoint::gguf::{decode, encode, encode_matrix};
use burn_quant_checkpoint::{
    CheckpointError, Dtype, Element, Minifloat, NotExportable, Offset, QuantizedMatrix, ScaleKind,
};
use proptest::prelude::*;

use super::{bits, floats, tensor};

const DECODED: [&str; 12] =
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"];

fn type_of(name: &str) -> GgmlType {
    GgmlType::of_name(name).unwrap()
}

/// Stores blocks as a matrix of one row, and reads it as codes and scales.
fn matrix(ggml: GgmlType, blocks: &[u8]) -> Result<QuantizedMatrix, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.gguf");
    let inputs = blocks.len() / ggml.block_bytes() * ggml.block();
    let plan = [PlannedTensor::new("w", [1, inputs], ggml)];
    let mut writer = GgufWriter::create(&path, &Metadata::new(), &plan).unwrap();
    writer.tensor("w", blocks).unwrap();
    writer.finish().unwrap();
    Gguf::open(&path).unwrap().matrix("w")
}

/// A matrix of one row of 64 codes, in blocks of 32.
fn codes(element: Element, codes: impl Fn(u8) -> u8, scales: [f32; 2]) -> QuantizedMatrix {
    QuantizedMatrix {
        outputs: 1,
        inputs: 64,
        element,
        codes: (0..64).map(codes).collect(),
        block_outputs: 1,
        block_inputs: 32,
        scales: scales.to_vec(),
        scale_kind: ScaleKind::Float,
        offset: Offset::None,
        then_e4m3: None,
        dtype: Dtype::F32,
    }
}

fn reason(result: Result<Vec<u8>, CheckpointError>) -> NotExportable {
    match result.unwrap_err() {
        CheckpointError::NotExportable { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_are_decoded_as_ggml_decodes_them_bit_for_bit() {
    for name in DECODED {
        let blocks = tensor("blocks.safetensors", name);
        let expected = floats("blocks.safetensors", &format!("{name}.values"));
        let values = decode(name, type_of(name), &blocks).unwrap();
        assert_eq!(bits(&values), bits(&expected), "{name}");
    }
}

#[test]
fn codes_and_scales_mean_what_is_decoded_bit_for_bit() {
    for (name, element, block) in [
        ("Q4_0", Element::Int(4), 32),
        ("Q5_0", Element::Int(5), 32),
        ("Q8_0", Element::Int(8), 32),
        ("Q4_1", Element::Uint(4), 32),
        ("Q5_1", Element::Uint(5), 32),
        ("Q2_K", Element::Uint(2), 16),
        ("Q3_K", Element::Int(3), 16),
        ("Q4_K", Element::Uint(4), 32),
        ("Q5_K", Element::Uint(5), 32),
        ("Q6_K", Element::Int(6), 16),
        ("MXFP4", Element::Float(Minifloat::E2M1), 32),
    ] {
        let matrix = matrix(type_of(name), &tensor("blocks.safetensors", name)).unwrap();
        assert_eq!((matrix.element, matrix.block_inputs), (element, block), "{name}");
        let expected = floats("blocks.safetensors", &format!("{name}.values"));
        assert_eq!(bits(&matrix.dequantize()), bits(&expected), "{name}");
    }
}

#[test]
fn a_table_of_its_own_is_no_grid_of_codes() {
    let result = matrix(GgmlType::IQ4_NL, &tensor("blocks.safetensors", "IQ4_NL"));
    assert!(matches!(result, Err(CheckpointError::Unknown { found, .. }) if found == "IQ4_NL"));
    assert!(!GgmlType::IQ2_XXS.is_decoded());
    assert!(decode("w", GgmlType::IQ2_XXS, &[0; 66]).is_err());
}

#[test]
fn the_scale_of_mxfp4_that_is_not_a_number_is_refused() {
    let result = matrix(GgmlType::MXFP4, &[255; 17]);
    assert!(matches!(result, Err(CheckpointError::Element { found: 255, .. })), "{result:?}");
}

#[test]
fn floats_are_encoded_as_gguf_python_encodes_them_byte_for_byte() {
    let values = floats("encoded.safetensors", "values");
    for name in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"] {
        let expected = tensor("encoded.safetensors", name);
        assert!(encode(name, type_of(name), &values).unwrap() == expected, "{name}");
    }
}

#[test]
fn a_code_of_four_bits_is_kept_and_its_scale_becomes_half_precision() {
    // codes -8..=7; a third is rounded to f16, a half is not
    let matrix = codes(Element::Int(4), |i| (i % 16).wrapping_sub(8), [0.5, 1.0 / 3.0]);
    let mut rounded = HalfScales::default();
    let blocks = encode_matrix("w", GgmlType::Q4_0, &matrix, &mut rounded).unwrap();
    assert_eq!(blocks[..4], [0x00, 0x38, 0x00, 0x11]); // 0.5; elements 0 and 16, 1 and 17 share a byte
    assert_eq!((rounded.scales, rounded.changed, rounded.subnormal), (2, 1, 0));
    assert!(rounded.largest > 0.0 && rounded.largest <= 2f32.powi(-11), "{}", rounded.largest);
    assert_eq!(self::matrix(GgmlType::Q4_0, &blocks).unwrap().codes, matrix.codes);
}

#[test]
fn matrices_find_the_type_that_holds_their_codes() {
    let int8 = codes(Element::Int(8), |i| i.wrapping_mul(4), [0.25, 2.0]);
    let uint4 = QuantizedMatrix {
        offset: Offset::ZeroPoints(vec![7.0, 3.0]),
        ..codes(Element::Uint(4), |i| i % 16, [0.25, 2.0])
    };
    let minima = QuantizedMatrix { offset: Offset::Minima(vec![-1.5, 0.25]), ..uint4.clone() };
    let signed = QuantizedMatrix {
        offset: Offset::ZeroPoints(vec![-1.0, 3.0]),
        ..codes(Element::Int(4), |i| (i % 16).wrapping_sub(8), [0.25, 2.0])
    };
    let mxfp4 = QuantizedMatrix {
        scale_kind: ScaleKind::E8M0(vec![125, 128]),
        ..codes(Element::Float(Minifloat::E2M1), |i| i % 8 + i % 2 * 8, [0.25, 2.0])
    };
    for (matrix, expected) in [
        (int8, GgmlType::Q8_0),
        (uint4, GgmlType::Q4_1),
        (minima, GgmlType::Q4_1),
        (signed, GgmlType::Q4_1),
        (mxfp4, GgmlType::MXFP4),
    ] {
        let ggml = GgmlType::of_matrix(&matrix).unwrap();
        assert_eq!(ggml, expected);
        let mut rounded = HalfScales::default();
        let blocks = encode_matrix("w", ggml, &matrix, &mut rounded).unwrap();
        assert_eq!(rounded.changed, 0); // powers of two
        assert_eq!(decode("w", ggml, &blocks).unwrap(), matrix.dequantize(), "{ggml}");
    }
}

#[test]
fn a_scale_of_a_larger_block_is_repeated() {
    let matrix = QuantizedMatrix {
        outputs: 2,
        inputs: 96,
        codes: (0..192).map(|i| (i % 16) as u8).collect(),
        block_outputs: 2,
        block_inputs: 64, // and a last one of 32
        scales: vec![0.5, 4.0],
        ..codes(Element::Uint(4), |_| 0, [0.0; 2])
    };
    let blocks = encode_matrix("w", GgmlType::Q4_1, &matrix, &mut HalfScales::default()).unwrap();
    let scales: Vec<_> = blocks.as_chunks::<20>().0.iter().map(|block| block[1]).collect();
    assert_eq!(scales, [0x38, 0x38, 0x44, 0x38, 0x38, 0x44]); // high bytes of 0.5 and 4 in f16
    assert_eq!(decode("w", GgmlType::Q4_1, &blocks).unwrap(), matrix.dequantize());
}

#[test]
fn what_a_type_cannot_hold_is_refused_with_its_reason() {
    let matrix = codes(Element::Int(4), |_| 1, [1.0, 1.0]);
    let encode_as =
        |ggml, matrix: &QuantizedMatrix| reason(encode_matrix("w", ggml, matrix, &mut HalfScales::default()));

    let ragged = QuantizedMatrix { inputs: 16, outputs: 4, block_inputs: 16, ..matrix.clone() };
    let expected = NotExportable::Ragged { axis: "inputs", len: 16, block: 32 };
    assert_eq!(encode_as(GgmlType::Q4_0, &ragged), expected);

    let small = QuantizedMatrix { block_inputs: 16, scales: vec![1.0; 4], ..matrix.clone() };
    assert!(matches!(encode_as(GgmlType::Q4_0, &small), NotExportable::Block { found: 16, .. }));

    let large = QuantizedMatrix { scales: vec![1.0, 65520.0], ..matrix.clone() }; // rounds up to infinity
    assert_eq!(encode_as(GgmlType::Q4_0, &large), NotExportable::HalfScale { found: 65520.0 });

    let foreign = QuantizedMatrix { codes: vec![8; 64], ..matrix.clone() }; // of -8..=7
    assert!(matches!(encode_as(GgmlType::Q4_0, &foreign), NotExportable::Code { found: 8, .. }));

    assert!(matches!(encode_as(GgmlType::MXFP4, &matrix), NotExportable::Format { .. }));
    assert!(matches!(encode_as(GgmlType::Q4_K, &matrix), NotExportable::Format { .. }));
    assert!(matches!(reason(encode("w", GgmlType::Q4_K, &[0.0; 256])), NotExportable::Format { .. }));
    assert!(matches!(reason(encode("w", GgmlType::Q4_0, &[0.0; 48])), NotExportable::Ragged { len: 48, .. }));
    assert!(matches!(reason(encode("w", GgmlType::Q8_0, &[f32::NAN; 32])), NotExportable::NotANumber { .. }));
    assert!(matches!(reason(encode("w", GgmlType::Q8_0, &[1e9; 32])), NotExportable::HalfScale { .. }));
}

#[test]
fn a_scale_below_the_normal_numbers_of_f16_is_rounded_and_told() {
    let matrix = codes(Element::Int(4), |_| 7, [3e-8, 1.0]);
    let mut rounded = HalfScales::default();
    let blocks = encode_matrix("w", GgmlType::Q4_0, &matrix, &mut rounded).unwrap();
    assert_eq!((rounded.changed, rounded.subnormal), (1, 1));
    let worst = decode("w", GgmlType::Q4_0, &blocks).unwrap()[0] - matrix.dequantize()[0];
    assert!(worst.abs() <= 7.0 * 2f32.powi(-25), "{worst}");
}

#[test]
fn a_float_type_gets_the_values_of_a_matrix() {
    let matrix = codes(Element::Int(8), |i| i, [0.5, 0.25]);
    let bytes = encode_matrix("w", GgmlType::F32, &matrix, &mut HalfScales::default()).unwrap();
    assert_eq!(decode("w", GgmlType::F32, &bytes).unwrap(), matrix.dequantize());
}

proptest! {
    #[test]
    fn codes_and_half_scales_survive_a_file(
        (bits, wide) in (2u8..=8, 1usize..4),
        seed in prop::collection::vec((any::<u8>(), -14i32..10), 1..12),
    ) {
        let element = Element::Int(bits);
        let outputs = seed.len();
        let matrix = QuantizedMatrix {
            outputs,
            inputs: 32 * wide,
            block_outputs: 1,
            block_inputs: 32 * wide, // a scale for each row
            codes: (0..outputs * 32 * wide)
                .map(|i| ((seed[i % outputs].0.wrapping_mul(i as u8) << (8 - bits)) as i8 >> (8 - bits)) as u8)
                .collect(),
            scales: seed.iter().map(|(_, power)| 1.5 * 2f32.powi(*power)).collect(),
            ..codes(element, |_| 0, [0.0; 2])
        };
        let ggml = GgmlType::of_matrix(&matrix).unwrap();
        let mut rounded = HalfScales::default();
        let blocks = encode_matrix("w", ggml, &matrix, &mut rounded).unwrap();
        prop_assert_eq!(rounded.changed, 0);
        prop_assert_eq!(decode("w", ggml, &blocks).unwrap(), matrix.dequantize());
    }

    #[test]
    fn encoding_is_within_half_a_step_and_stable_for_8_bits(
        values in prop::collection::vec(-1e4f32..1e4, 32),
    ) {
        let blocks = encode("w", GgmlType::Q8_0, &values).unwrap();
        let decoded = decode("w", GgmlType::Q8_0, &blocks).unwrap();
        let amax = values.iter().fold(0f32, |a, x| a.max(x.abs()));
        // half a step, and 127 steps that are off by half a unit of f16, which has 11 bits
        let bound = amax * (0.5 / 127.0 + 2f32.powi(-11)) * 1.0001;
        for (x, y) in values.iter().zip(&decoded) {
            prop_assert!((x - y).abs() <= bound, "{x} became {y}");
        }
    }
}
