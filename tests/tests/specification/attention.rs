//! The quantizers of attention's products, and caches of quantized keys and values.

use burn::module::{Module, Param};
use burn::nn::attention::generate_autoregressive_mask;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use burn_quant::config::{BlockScale, Format, Granularity, ScaleFormat};
use burn_quant::nn::attention::{KvCache, MhaCache, MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn_quant::nn::transformer::{
    TransformerDecoderConfig, TransformerDecoderInput, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn_quant::place::Role;
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, quantize};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn attention(device: &Device) -> MultiHeadAttention {
    MultiHeadAttentionConfig::new(32, 2).with_dropout(0.0).init(device)
}

/// The same layer on every call: weights as large as those that burn draws, no biases.
fn fixed_attention(device: &Device) -> MultiHeadAttention {
    let mut layer = attention(device);
    let weights = spread([4, 32, 32], device) * 0.088;
    let linears = [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.output];
    for (linear, weight) in linears.into_iter().zip(weights.iter_dim(0)) {
        linear.weight = Param::from_tensor(weight.reshape([32, 32]));
        linear.bias = None;
    }
    layer
}

fn causal(x: &Tensor<3>) -> MhaInput {
    let [batch, tokens, _] = x.dims();
    MhaInput::self_attn(x.clone()).mask_attn(generate_autoregressive_mask(batch, tokens, &x.device()))
}

/// Formats of keys and values whose tokens are rounded without each other.
fn kv_formats() -> [(&'static str, QuantizerConfig); 5] {
    let e4m3 = QuantizerConfig::new(Format::E4M3);
    let nvfp4 = QuantizerConfig {
        scale: ScaleFormat::E4M3(BlockScale::Dynamic),
        granularity: Granularity::Block { size: 16 },
        ..QuantizerConfig::new(Format::E2M1)
    };
    [
        ("FP8", e4m3.clone()),
        ("FP8 per channel", e4m3.clone().per_channel()),
        ("FP8 per token", QuantizerConfig { granularity: Granularity::PerToken, ..e4m3 }.dynamic()),
        ("NVFP4", nvfp4),
        ("INT8 per token", QuantizerConfig { granularity: Granularity::PerToken, ..QuantizerConfig::int(8) }.dynamic()),
    ]
}

fn kv_cache(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*[kv]_bmm_quantizer", config))
}

/// Products by hand, of the layer's own projections and quantizers.
#[test]
fn every_operand_of_both_products_is_quantized() {
    let (_, device) = device();
    let x: Tensor<3> = spread([2, 5, 32], &device);
    let config = QuantConfig::new().with_rule(Rule::set("*_bmm_quantizer", QuantizerConfig::int(4)));
    let (layer, _) = quantize(attention(&device), &config, |layer| drop(layer.forward(causal(&x)))).unwrap();

    let heads = |x: Tensor<3>| x.reshape([2, 5, 2, 16]).swap_dims(1, 2);
    let q = layer.q_bmm_quantizer.forward(heads(layer.query.forward(x.clone())));
    let k = layer.k_bmm_quantizer.forward(heads(layer.key.forward(x.clone())));
    let v = layer.v_bmm_quantizer.forward(heads(layer.value.forward(x.clone())));
    let hidden = generate_autoregressive_mask(2, 5, &device).unsqueeze_dim::<4>(1);
    let scores = (q.matmul(k.transpose()) / 4.0).mask_fill(hidden, -1.0e4);
    let p = layer.p_bmm_quantizer.forward(softmax(scores, 3));
    let context = p.clone().matmul(v).swap_dims(1, 2).reshape([2, 5, 32]);

    let found = layer.forward(causal(&x));
    assert_close(&values(found.weights), &values(p), 1e-5, "weights");
    assert_close(&values(found.context), &values(layer.output.forward(context)), 1e-5, "context");
    let amax = Quantizers::of(&layer).get("p_bmm_quantizer").unwrap().amax().unwrap();
    assert_eq!(values(amax), [1.0], "the first token attends to itself alone");
}

#[test]
fn gradients_reach_the_inputs_through_all_four_quantizers() {
    let (_, device) = device();
    let device = device.autodiff();
    let x: Tensor<3> = spread([1, 4, 32], &device);
    let config = QuantConfig::new().with_rule(Rule::set("*_bmm_quantizer", QuantizerConfig::int(8)));
    let (layer, _) =
        quantize(fixed_attention(&device), &config, |layer| drop(layer.forward(causal(&x.clone().inner())))).unwrap();
    let gradient = |layer: &MultiHeadAttention| {
        let x = x.clone().require_grad();
        let gradients = layer.forward(causal(&x)).context.powi_scalar(2).sum().backward();
        values(x.grad(&gradients).unwrap())
    };
    let float = attention_without_quantizers(&layer);
    assert_close(&gradient(&layer), &gradient(&float), 0.02, "8 bits: nearly the float gradient");
}

#[test]
fn attention_of_tokens_one_by_one_is_that_of_all_of_them() {
    let (_, device) = device();
    let x: Tensor<3> = spread([2, 6, 32], &device);
    for (name, config) in kv_formats() {
        let (layer, _) =
            quantize(attention(&device), &kv_cache(config), |layer| drop(layer.forward(causal(&x)))).unwrap();
        let whole = values(layer.forward(causal(&x)).context);
        let mut cache = MhaCache::autoregressive();
        let mut last = Vec::new();
        for tokens in 1..=6 {
            last = values(layer.forward_cache(causal(&x.clone().narrow(1, 0, tokens)), &mut cache).context);
        }
        assert_close(&last, &whole, 1e-5, name);
        let float = values(attention_without_quantizers(&layer).forward(causal(&x)).context);
        assert_ne!(whole, float, "{name} rounds");
    }
}

/// Keys and values as codes, of tokens that come one by one and of a memory that is computed once. On a GPU divisions
/// of codes by scales are rounded otherwise than in fake quantization.
#[test]
fn packed_caches_compute_what_those_in_floats_do() {
    let (backend, device) = device();
    let tolerance = if backend == "flex" { 0.0 } else { 1e-6 };
    let x: Tensor<3> = spread([2, 5, 32], &device);
    let input = |tokens: usize| x.clone().narrow(1, 0, tokens);
    for (name, config) in kv_formats() {
        let (layer, _) =
            quantize(attention(&device), &kv_cache(config), |layer| drop(layer.forward(causal(&x)))).unwrap();
        let floats = MhaCache::autoregressive();
        let Ok(codes) = floats.clone().packed(&layer) else { panic!("{name} has a packed form") };
        let memory = (MhaCache::autoregressive_cross_attention(), MhaCache::autoregressive_cross_attention());
        let memory = (memory.0, memory.1.packed(&layer).unwrap());
        for (mut floats, mut codes, crosses) in [(floats, codes, false), (memory.0, memory.1, true)] {
            for tokens in 1..=5 {
                let of = || match crosses {
                    false => causal(&input(tokens)),
                    true => MhaInput::new(input(tokens), x.clone(), x.clone()),
                };
                let expected = values(layer.forward_cache(of(), &mut floats).context);
                let found = values(layer.forward_cache(of(), &mut codes).context);
                assert_close(&found, &expected, tolerance, &format!("{name}, {tokens} tokens, memory: {crosses}"));
            }
            assert!(codes.bytes_per_token() * 3 < floats.bytes_per_token(), "{name}: {}", codes.bytes_per_token());
        }
    }
    let off = MhaCache::autoregressive().packed(&attention(&device));
    let expected = "keys cannot be cached as codes: its quantizer is switched off; give that quantizer a format that \
                    can, or take a cache in floats";
    assert_eq!(off.unwrap_err().to_string(), expected);
}

/// An error says which layer cannot be cached as codes, and whether keys or values; a cache of another model is refused
/// where layers would be left out.
#[test]
fn caches_name_the_layer_they_are_for() {
    let (_, device) = device();
    let x: Tensor<3> = spread([1, 2, 32], &device);
    let encoder = |layers: usize| TransformerEncoderConfig::new(32, 48, 2, layers).with_dropout(0.0).init(&device);
    let decoder = |layers: usize| TransformerDecoderConfig::new(32, 48, 2, layers).with_dropout(0.0).init(&device);
    let of_encoder = || TransformerEncoderInput::new(x.clone());
    let of_decoder = || TransformerDecoderInput::new(x.clone(), x.clone());
    let config = kv_cache(QuantizerConfig::new(Format::E4M3));

    let (two, _) = quantize(encoder(2), &config, |encoder| drop(encoder.forward(of_encoder()))).unwrap();
    let some = burn_quant::disable(two.clone(), "layers.1.mha.v_bmm_quantizer").unwrap();
    let error = some.new_packed_autoregressive_cache().unwrap_err().to_string();
    assert!(error.starts_with("values of `layers.1.mha` cannot be cached as codes: its quantizer is"), "{error}");
    let mut of_two = two.new_packed_autoregressive_cache().unwrap();
    let three = std::panic::AssertUnwindSafe(|| encoder(3).forward_autoregressive_inference(of_encoder(), &mut of_two));
    let message = *std::panic::catch_unwind(three).unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("the cache is for 2 layers, the transformer has 3"), "{message}");

    let (two, _) = quantize(decoder(2), &config, |decoder| drop(decoder.forward(of_decoder()))).unwrap();
    let some = burn_quant::disable(two.clone(), "layers.0.cross_attn.k_bmm_quantizer").unwrap();
    let error = some.new_packed_autoregressive_cache().unwrap_err().to_string();
    assert!(error.starts_with("keys of `layers.0.cross_attn` cannot be cached as codes"), "{error}");
    let mut of_two = two.new_packed_autoregressive_cache().unwrap();
    let one = std::panic::AssertUnwindSafe(|| decoder(1).forward_autoregressive_inference(of_decoder(), &mut of_two));
    let message = *std::panic::catch_unwind(one).unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("the cache is for 2 layers, the transformer has 1"), "{message}");
}

fn attention_without_quantizers(layer: &MultiHeadAttention) -> MultiHeadAttention {
    burn_quant::disable(layer.clone(), "*").unwrap()
}

#[test]
fn transformers_generate_with_a_quantized_cache_what_they_compute_at_once() {
    let (_, device) = device();
    let (x, memory): (Tensor<3>, Tensor<3>) = (spread([1, 5, 32], &device), spread([1, 3, 32], &device));
    let hidden = |tokens: usize| generate_autoregressive_mask(1, tokens, &device);
    for norm_first in [false, true] {
        let config = kv_cache(QuantizerConfig::new(Format::E4M3));
        let encoder = TransformerEncoderConfig::new(32, 48, 2, 2).with_dropout(0.0).with_norm_first(norm_first);
        let input = |tokens| TransformerEncoderInput::new(x.clone().narrow(1, 0, tokens)).mask_attn(hidden(tokens));
        let (encoder, _) = quantize(encoder.init(&device), &config, |encoder| drop(encoder.forward(input(5)))).unwrap();
        let mut cache = encoder.new_autoregressive_cache();
        let mut last = Vec::new();
        for tokens in 1..=5 {
            last = values(encoder.forward_autoregressive_inference(input(tokens), &mut cache));
        }
        assert_close(&last, &values(encoder.forward(input(5))), 1e-5, "encoder");

        let decoder = TransformerDecoderConfig::new(32, 48, 2, 2).with_dropout(0.0).with_norm_first(norm_first);
        let input = |tokens| {
            TransformerDecoderInput::new(x.clone().narrow(1, 0, tokens), memory.clone())
                .target_mask_attn(hidden(tokens))
        };
        let (decoder, _) = quantize(decoder.init(&device), &config, |decoder| drop(decoder.forward(input(5)))).unwrap();
        let mut cache = decoder.new_autoregressive_cache();
        for tokens in 1..=5 {
            last = values(decoder.forward_autoregressive_inference(input(tokens), &mut cache));
        }
        assert_close(&last, &values(decoder.forward(input(5))), 1e-5, "decoder");
    }
}

/// Attention of a layer that is written by hand: its activation quantizers are fields, its cache a [`KvCache`].
#[derive(Module, Debug)]
struct OwnAttention {
    k_bmm_quantizer: TensorQuantizer,
    v_bmm_quantizer: TensorQuantizer,
}

impl OwnAttention {
    fn forward(&self, x: Tensor<4>, cache: &mut KvCache) -> Tensor<4> {
        let (keys, values) =
            cache.extend_quantized(x.clone(), x.clone() * 0.5, &self.k_bmm_quantizer, &self.v_bmm_quantizer);
        softmax(x.matmul(keys.transpose()), 3).matmul(values)
    }
}

#[test]
fn a_cache_of_ones_own_layer_keeps_what_was_quantized() {
    let (_, device) = device();
    let off = || TensorQuantizer::disabled(Role::ChannelsLast);
    let x: Tensor<4> = spread([1, 2, 4, 16], &device);
    for (name, config) in kv_formats() {
        let layer = OwnAttention { k_bmm_quantizer: off(), v_bmm_quantizer: off() };
        let calibrate = |layer: &OwnAttention| drop(layer.forward(x.clone(), &mut KvCache::new()));
        let (layer, _) = quantize(layer, &kv_cache(config), calibrate).unwrap();
        let whole = values(layer.forward(x.clone(), &mut KvCache::new()).narrow(2, 3, 1));
        let packed = KvCache::packed(&layer.k_bmm_quantizer, &layer.v_bmm_quantizer).unwrap();
        for mut cache in [KvCache::new(), packed] {
            let steps = (0..4).map(|t| values(layer.forward(x.clone().narrow(2, t, 1), &mut cache)));
            assert_close(&steps.last().unwrap(), &whole, 1e-5, name);
            assert_eq!(cache.tokens(), 4);
        }
    }
}
