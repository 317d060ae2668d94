//! A cache of keys and values in their formats: the numbers of one in floats, and a fraction of its bytes.

use burn::tensor::{DType, Device, Int, Tensor};
use burn_quant::config::{AxisGroups, BiasConfig, Format, Granularity};
use burn_quant::error::NotPackedReason;
use burn_quant::nn::attention::KvCache;
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Rule, TensorQuantizer, disable, quantize};
use burn_quant_llm::{Decoder, DecoderConfig};
use burn_quant_tests::{device, devices};

use crate::{assert_close, assert_same, spread, values};

fn quantizer(config: QuantizerConfig) -> TensorQuantizer {
    TensorQuantizer::new(config, Role::ChannelsLast)
}

/// A quantizer and the bytes of 64 features in its format.
///
/// On a GPU, where each compiles kernels of its own, one of each kind of range.
fn formats(device_name: &str, device: &Device) -> Vec<(&'static str, TensorQuantizer, usize)> {
    let calibrated = |config: QuantizerConfig| quantizer(config).calibrated_max(&spread::<4>([1, 3, 8, 64], device));
    let int = QuantizerConfig::int;
    let per_token = |config: QuantizerConfig| quantizer(config.per_token().dynamic());
    let dynamic = |config: QuantizerConfig| quantizer(config.dynamic());
    let all = vec![
        ("INT8", calibrated(int(8)), 64),
        ("INT8 per channel", calibrated(int(8).per_channel()), 64),
        ("INT8 constant", quantizer(int(8).constant(1.5)), 64),
        ("INT8 per token", per_token(int(8)), 64 + 4),
        ("INT4 in blocks", dynamic(int(4).per_block(32)), 32 + 8),
        ("INT3 in blocks", dynamic(int(3).per_block(20)), 32 + 16), // three bits take four
        ("INT2 per token", per_token(int(2)), 16 + 4),
        ("FP8", calibrated(QuantizerConfig::e4m3()), 64),
        ("E5M2 per token", per_token(QuantizerConfig::new(Format::E5M2)), 64 + 4),
        ("NF4 in blocks", dynamic(QuantizerConfig::new(Format::Nf4).per_block(32)), 32 + 8),
        ("MXFP4", quantizer(QuantizerConfig::mx(Format::E2M1)), 32 + 4), // two scales, filled up to a word
        ("MXFP8", quantizer(QuantizerConfig::mx(Format::E4M3)), 64 + 4),
        ("NVFP4", calibrated(QuantizerConfig::nvfp4()), 32 + 4),
        ("NVFP4 constant", quantizer(QuantizerConfig::nvfp4().constant(2.0)), 32 + 4),
    ];
    let on_gpus = ["INT8", "INT3 in blocks", "E5M2 per token", "MXFP4", "NVFP4"];
    all.into_iter().filter(|(name, ..)| device_name == "flex" || on_gpus.contains(name)).collect()
}

/// Five tokens at once, then two more, of a batch of two: what the quantizer makes of all of them.
#[test]
fn tokens_come_back_as_fake_quantization_left_them() {
    for (device_name, device) in devices() {
        for (name, quantizer, bytes) in formats(&device_name, &device) {
            let x = spread::<4>([2, 3, 7, 64], &device);
            let mut cache = KvCache::packed(&quantizer, &quantizer).unwrap();
            let (mut keys, mut all_values) = cache.extend(x.clone().narrow(2, 0, 5), x.clone().narrow(2, 0, 5) * 0.5);
            for token in 5..7 {
                let token = x.clone().narrow(2, token, 1);
                (keys, all_values) = cache.extend(token.clone(), token * 0.5);
            }
            let what = format!("{device_name}, {name}");
            let expected = [quantizer.forward(x.clone()), quantizer.forward(x * 0.5)].map(values);
            for (found, expected) in [keys, all_values].map(values).iter().zip(&expected) {
                match device_name.as_str() {
                    "flex" => assert_same(found, expected, &what),
                    // division on a GPU may be off by two units in the last place
                    _ => assert_close(found, expected, 3e-7, &what),
                }
            }
            assert_eq!((cache.tokens(), cache.bytes_per_token()), (7, 2 * 3 * bytes), "{what}");
        }
    }
}

/// Widths that fill no word and no block, and a dtype that is kept.
#[test]
fn features_and_blocks_of_any_number_are_packed() {
    for (device_name, device) in devices() {
        for (name, quantizer, _) in formats(&device_name, &device) {
            if quantizer.buffer(Buffer::Amax).is_some_and(|amax| amax.dims()[0] > 1) {
                continue; // a range for each of 64 features
            }
            // every width compiles kernels of its own on a GPU
            let widths: &[usize] = if device_name == "flex" { &[1, 5, 33, 70] } else { &[33] };
            for &features in widths {
                let x = spread::<4>([1, 2, 3, features], &device);
                let (keys, _) = KvCache::packed(&quantizer, &quantizer).unwrap().extend(x.clone(), x.clone());
                let what = format!("{device_name}, {name}, {features} features");
                assert_close(&values(keys), &values(quantizer.forward(x)), 3e-7, &what);
            }
        }
        if device.supports_dtype(DType::F16) {
            let (_, quantizer, _) = formats(&device_name, &device).remove(0);
            let x = spread::<4>([1, 1, 2, 64], &device).cast(DType::F16);
            let (keys, _) = KvCache::packed(&quantizer, &quantizer).unwrap().extend(x.clone(), x.clone());
            assert_eq!(keys.dtype(), DType::F16);
            assert_close(&values(keys), &values(quantizer.forward(x)), 1e-3, "f16");
        }
    }
}

/// In floats, tokens are written where there is room: what was returned before, and what a clone holds, stay as they
/// were.
#[test]
fn tokens_in_floats_stay_whatever_is_added_later() {
    for (name, device) in devices() {
        let x = spread::<4>([2, 3, 200, 4], &device);
        let upto = |n: usize| x.clone().narrow(2, 0, n);
        let mut cache = KvCache::new();
        let (mut n, mut held) = (0, Vec::new());
        for more in [3, 1, 1, 0, 4, 100, 1, 1] {
            let tokens = x.clone().slice([0..2, 0..3, n..n + more, 0..4]);
            n += more;
            let (keys, all_values) = cache.extend(tokens.clone(), tokens * 2.0);
            assert_same(&values(keys.clone()), &values(upto(n)), &format!("{name}, {n} keys"));
            assert_same(&values(all_values), &values(upto(n) * 2.0), &format!("{name}, {n} values"));
            held.push(keys);
        }
        assert_eq!((cache.tokens(), cache.bytes_per_token()), (n, 2 * 3 * 4 * 4), "{name}");
        let mut other = cache.clone();
        let ones = Tensor::<4>::ones([2, 3, 1, 4], &device);
        let (changed, _) = other.extend(ones.clone(), ones.clone());
        let token = x.clone().narrow(2, n, 1);
        let (keys, _) = cache.extend(token.clone(), token);
        assert_same(&values(keys), &values(upto(n + 1)), &format!("{name}, beside a clone"));
        assert_same(&values(changed), &values(Tensor::cat(vec![upto(n), ones], 2)), &format!("{name}, a clone"));
        for keys in held {
            let n = keys.dims()[2];
            assert_same(&values(keys), &values(upto(n)), &format!("{name}, {n} held"));
        }
    }
}

/// Outside the graph: what is cached is a constant to what is computed with it.
#[test]
fn a_packed_cache_passes_no_gradient() {
    let (_, device) = device();
    let device = device.autodiff();
    let quantizer = quantizer(QuantizerConfig::int(8).per_token().dynamic());
    let x = spread::<4>([1, 1, 2, 8], &device).require_grad();
    let (keys, values) = KvCache::packed(&quantizer, &quantizer).unwrap().extend(x.clone(), x.clone());
    let gradients = (x.clone() * keys.clone() * values).sum().backward();
    let expected = keys.clone() * keys; // values are the same
    assert_close(&crate::values(x.grad(&gradients).unwrap()), &crate::values(expected), 1e-6, "x alone");
}

#[test]
fn quantizers_that_codes_of_tokens_cannot_hold_are_refused() {
    let (_, device) = device();
    let refused = |quantizer: &TensorQuantizer| match KvCache::packed(quantizer, quantizer) {
        Err(QuantError::NotCached { tokens: "keys", reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let int8 = || QuantizerConfig::int(8);
    assert_eq!(refused(&TensorQuantizer::disabled(Role::ChannelsLast)), NotPackedReason::Disabled);
    assert_eq!(refused(&quantizer(int8())), NotPackedReason::Uncalibrated);
    assert_eq!(refused(&quantizer(int8().dynamic())), NotPackedReason::ChangingRange);
    assert_eq!(refused(&quantizer(QuantizerConfig::nvfp4().dynamic())), NotPackedReason::ChangingRange);
    let of_heads = QuantizerConfig {
        granularity: Granularity::Axes(vec![AxisGroups::Whole, AxisGroups::Each, AxisGroups::Whole, AxisGroups::Whole]),
        ..int8()
    };
    let of_heads = quantizer(of_heads).calibrated_max(&spread::<4>([1, 3, 2, 8], &device));
    assert_eq!(refused(&of_heads), NotPackedReason::NotOfTokens);
    let two_axes = QuantizerConfig { granularity: Granularity::Axes(vec![AxisGroups::Whole; 2]), ..int8() };
    assert_eq!(refused(&quantizer(two_axes.constant(1.0))), NotPackedReason::NotOfTokens);
    let biased = quantizer(int8().per_token().dynamic().with_bias(BiasConfig::new(Granularity::PerToken).dynamic()));
    assert!(matches!(refused(&biased), NotPackedReason::MoreThanRounding { .. }));
    let wide = quantizer(QuantizerConfig::int(12).per_token().dynamic());
    assert!(matches!(refused(&wide), NotPackedReason::Codes { .. }));
}

/// No token and no feature: nothing to pack, and shapes that stay.
#[test]
fn nothing_is_packed_to_nothing() {
    let (device_name, device) = device();
    for (name, quantizer, _) in formats(device_name, &device) {
        let empty = Tensor::<4>::zeros([1, 2, 0, 64], &device);
        let mut cache = KvCache::packed(&quantizer, &quantizer).unwrap();
        let (keys, _) = cache.extend(empty.clone(), empty);
        assert_eq!(keys.dims(), [1, 2, 0, 64], "{name}");
        let token = spread::<4>([1, 2, 1, 64], &device);
        let (keys, _) = cache.extend(token.clone(), token.clone());
        assert_close(&values(keys), &values(quantizer.forward(token)), 3e-7, name);
    }
}

/// A language model says which of its layers, and refuses a cache of one with fewer, which would leave layers out.
#[test]
fn caches_of_language_models_are_of_their_layers() {
    let (_, device) = device();
    let decoder = |layers: usize| {
        let json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1,
            "num_hidden_layers": layers, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "vocab_size": 4,
        });
        Decoder::new(DecoderConfig::of_json(&json).unwrap(), &device)
    };
    let tokens = || Tensor::<2, Int>::from_data([[1, 2]], &device);
    let int8 = QuantizerConfig::int(8).per_token().dynamic();
    let config = QuantConfig::new().with_rule(Rule::set("*[kv]_bmm_quantizer", int8));
    let two = decoder(2);
    let (two, _) = quantize(two, &config, |two| drop(two.forward(tokens(), &mut two.cache()))).unwrap();
    let mut of_two = two.packed_cache().unwrap();
    let some = disable(two, "model.layers.1.self_attn.k_bmm_quantizer").unwrap();
    let error = some.packed_cache().unwrap_err().to_string();
    assert!(error.starts_with("keys of `model.layers.1.self_attn` cannot be cached as codes"), "{error}");
    let three = std::panic::AssertUnwindSafe(|| decoder(3).forward(tokens(), &mut of_two));
    let message = *std::panic::catch_unwind(three).unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("the cache is for 2 layers, the decoder has 3"), "{message}");
}
