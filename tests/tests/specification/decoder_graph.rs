//! Language models as graphs and as files: rotary positions, keys that heads share, tied tables.

use burn::tensor::{Device, Int, Tensor};
use burn_quant::{QuantConfig, QuantError, compress, presets, quantize};
use burn_quant_graph::{capture, capture_with_free_axes};
use burn_quant_llm::{Decoder, DecoderConfig};
use burn_quant_onnx::Exporter;
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, count};
use crate::{assert_close, values};

/// A small SmolLM2.
fn decoder(device: &Device) -> Decoder {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 20,
        "tie_word_embeddings": true, "rope_theta": 100.0, "max_position_embeddings": 16,
    });
    Decoder::new(DecoderConfig::of_json(&json).unwrap(), device)
}

fn tokens([batch, len]: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = (0..batch * len).map(|i| (i * 7 % 20) as i32).collect();
    Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([batch, len])
}

fn logits(decoder: &Decoder, tokens: Tensor<2, Int>) -> Tensor<3> {
    decoder.forward(tokens, &mut decoder.cache())
}

/// Each preset, and packed weights where they have a form, bit for bit.
#[test]
fn the_graph_of_a_decoder_computes_what_it_does() {
    let (_, device) = device();
    let mut packed = 0;
    for preset in presets::all() {
        let calibrate = |decoder: &Decoder| drop(logits(decoder, tokens([2, 7], &device)));
        let decoder = match quantize(decoder(&device), &(preset.config)(), calibrate) {
            Ok((decoder, _)) => decoder,
            // for layers that it does not have
            Err(QuantError::NoMatch { .. } | QuantError::NoneMatched { .. }) => continue,
            Err(error) => panic!("{}: {error}", preset.name),
        };
        let check = |decoder: &Decoder, what: &str| {
            let x = tokens([2, 7], &device);
            let mut replay = capture(decoder, x.clone(), logits).unwrap().replay(&device).unwrap();
            let found: Tensor<3> = replay.run(x.clone()).unwrap();
            assert_eq!(found.into_data(), logits(decoder, x).into_data(), "{}, {what}", preset.name);
        };
        check(&decoder, "as quantized");
        if let Ok((decoder, _)) = compress(decoder) {
            check(&decoder, "packed");
            packed += 1;
        }
    }
    assert!(packed > 20, "{packed} presets have a packed form");
}

/// Prompts of any length in batches of any size.
#[test]
fn files_of_a_decoder_take_prompts_of_any_length() {
    let (_, device) = device();
    let mut files = Files::new();
    let sizes = || [[2, 5], [3, 5], [2, 7]].map(|sizes| tokens(sizes, &device));
    for (name, config) in [
        ("float", QuantConfig::new()),
        ("int8", presets::int8_smoothquant()),
        ("int4", presets::int4_blockwise_weight_only()),
        ("fp8", presets::fp8_default()),
    ] {
        let calibrate = |decoder: &Decoder| drop(logits(decoder, tokens([2, 7], &device)));
        let (decoder, _) = quantize(decoder(&device), &config, calibrate).unwrap();
        let graph = capture_with_free_axes(&decoder, sizes(), logits).unwrap();
        let mut replay = graph.replay(&device).unwrap();
        for sizes in [[1, 3], [4, 9], [2, 7]] {
            let x = tokens(sizes, &device);
            let found: Tensor<3> = replay.run(x.clone()).unwrap();
            let (found, expected) = (found.into_data(), logits(&decoder, x).into_data());
            match sizes[0] {
                // burn multiplies a batch of one without folding it
                1 => assert_close(found.as_slice().unwrap(), expected.as_slice().unwrap(), 1e-6, name),
                _ => assert_eq!(found, expected, "{name}, {sizes:?}"),
            }
        }
        for opset in [21, 23] {
            let onnx = Exporter::new().with_opset(opset).with_axis_names(["batch", "tokens"]).graph(&graph).unwrap();
            let fused = ["Attention", "RMSNormalization"].map(|operator| count(&onnx, operator));
            assert_eq!(fused, if opset < 23 { [0, 0] } else { [2, 5] }, "{name}: {onnx}");
            for (i, sizes) in [[1, 3], [4, 9]].into_iter().enumerate() {
                let x = tokens(sizes, &device);
                files.add(&format!("{name}_{opset}_{i}"), &onnx, x.clone(), logits(&decoder, x));
            }
        }
    }
    files.check();
}

/// Prompts that a window hides a part of, where those of the capture are shorter than the window.
#[test]
fn files_of_a_decoder_with_windows_take_prompts_of_any_length() {
    let (_, device) = device();
    let mut files = Files::new();
    // of one layer, of all, and as long as the longest prompt
    for (name, architecture, window, fused) in [
        ("qwen", "Qwen2ForCausalLM", 8, 1),
        ("mistral", "MistralForCausalLM", 8, 0),
        ("short", "MistralForCausalLM", 16, 2),
    ] {
        let mut json = serde_json::json!({
            "architectures": [architecture], "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
            "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 20,
            "rope_theta": 100.0, "max_position_embeddings": 16, "sliding_window": window,
        });
        if fused == 1 {
            json["use_sliding_window"] = true.into();
            json["max_window_layers"] = 1.into();
        }
        let decoder = Decoder::new(DecoderConfig::of_json(&json).unwrap(), &device);
        let sizes = [[2, 5], [3, 5], [2, 7]].map(|sizes| tokens(sizes, &device));
        let graph = capture_with_free_axes(&decoder, sizes, logits).unwrap();
        let mut replay = graph.replay(&device).unwrap();
        for sizes in [[2, 7], [3, 8], [2, 12]] {
            let x = tokens(sizes, &device);
            let (found, expected) = (replay.run(x.clone()).unwrap(), logits(&decoder, x));
            match sizes[1] <= 8 {
                true => assert_eq!(Tensor::<3>::into_data(found), expected.into_data(), "{name}, {sizes:?}"),
                // burn multiplies rows of heads that share keys where a window hides some
                false => assert_close(&values::<3>(found), &values(expected), 1e-5, name),
            }
        }
        for opset in [21, 23] {
            let onnx = Exporter::new().with_opset(opset).graph(&graph).unwrap();
            assert_eq!(count(&onnx, "Attention"), if opset < 23 { 0 } else { fused }, "{name}: {onnx}");
            for sizes in [[1, 3], [2, 12]] {
                let x = tokens(sizes, &device);
                files.add(&format!("{name}_{opset}_{}", sizes[1]), &onnx, x.clone(), logits(&decoder, x));
            }
        }
    }
    files.check();
}
