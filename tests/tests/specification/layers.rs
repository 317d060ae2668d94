//! The layers of `burn_quant::nn`: burn's layers by their records, fields and outputs, until a configuration says
//! otherwise.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{PaddingConfig2d, RnnState, attention, conv, norm, pool, transformer};
use burn::tensor::{Device, Int, Tensor};
use burn_quant::calibrate::{QuantizeOptions, SkipReason};
use burn_quant::nn as quant;
use burn_quant::nn::attention::MhaInput;
use burn_quant::place::{WeightLayout, WeightLayouts};
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, presets, quantize, quantize_with};
use burn_quant_tests::{device, devices};

use crate::{assert_close, spread, values};

/// A fresh layer of ours with the record of a layer of burn's computes what that computes, and `to_burn` gives that
/// layer back.
macro_rules! is_burns {
    ($test:ident: $burn:expr, $quant:expr, |$layer:ident, $device:ident| $output:expr) => {
        #[test]
        fn $test() {
            let (_, $device): (_, Device) = device();
            let float = $burn.init(&$device);
            let expected = {
                let $layer = &float;
                values($output)
            };
            let quantized = $quant.init(&$device).load_record(float.clone().into_record());
            let $layer = &quantized;
            assert_close(&values($output), &expected, 1e-5, "with the record of burn's layer");
            let back = quantized.to_burn().unwrap();
            let $layer = &back;
            assert_close(&values($output), &expected, 0.0, "burn's layer again");
            assert!(
                Quantizers::of(&quantized).iter().all(|(_, quantizer)| !quantizer.is_enabled()),
                "activation quantizers begin disabled"
            );
        }
    };
}

is_burns!(embedding: burn::nn::EmbeddingConfig::new(7, 4), quant::EmbeddingConfig::new(7, 4),
    |layer, device| layer.forward(Tensor::<2, Int>::from_data([[0, 6, 3]], &device)));
is_burns!(swiglu: burn::nn::SwiGluConfig::new(6, 4).with_bias(true), quant::SwiGluConfig::new(6, 4).with_bias(true),
    |layer, device| layer.forward(spread([2, 3, 6], &device)));
is_burns!(batch_norm: norm::BatchNormConfig::new(3), quant::BatchNormConfig::new(3),
    |layer, device| layer.forward(spread([2, 3, 4], &device)));
is_burns!(instance_norm: norm::InstanceNormConfig::new(3), quant::norm::InstanceNormConfig::new(3),
    |layer, device| layer.forward(spread([2, 3, 4, 4], &device)));
is_burns!(group_norm: norm::GroupNormConfig::new(2, 4), quant::GroupNormConfig::new(2, 4),
    |layer, device| layer.forward(spread([2, 4, 5], &device)));
is_burns!(layer_norm: norm::LayerNormConfig::new(6), quant::LayerNormConfig::new(6),
    |layer, device| layer.forward(spread([2, 3, 6], &device)));
is_burns!(rms_norm: norm::RmsNormConfig::new(6), quant::RmsNormConfig::new(6),
    |layer, device| layer.forward(spread([2, 3, 6], &device)));
is_burns!(deformable_convolution: conv::DeformConv2dConfig::new([2, 4], [3, 3]),
    quant::conv::DeformConv2dConfig::new([2, 4], [3, 3]),
    |layer, device| layer.forward(spread([1, 2, 5, 5], &device), spread([1, 18, 3, 3], &device), None));
is_burns!(feed_forward: transformer::PositionWiseFeedForwardConfig::new(6, 8),
    quant::transformer::PositionWiseFeedForwardConfig::new(6, 8),
    |layer, device| layer.forward(spread::<3>([2, 3, 6], &device)));
is_burns!(rnn: burn::nn::RnnConfig::new(3, 4, true).with_clip(Some(0.4)), quant::RnnConfig::new(3, 4,
    true).with_clip(Some(0.4)),
    |layer, device| layer.forward(spread([2, 5, 3], &device), Some(RnnState::new(spread([2, 4], &device)))).0);
is_burns!(rnn_in_reverse: burn::nn::RnnConfig::new(3, 4, false).with_reverse(true).with_batch_first(false),
    quant::RnnConfig::new(3, 4, false).with_reverse(true).with_batch_first(false),
    |layer, device| layer.forward(spread([5, 2, 3], &device), None).0);
is_burns!(bidirectional_rnn: burn::nn::BiRnnConfig::new(3, 4, true), quant::BiRnnConfig::new(3, 4, true),
|layer, device| {
    let (states, last) = layer.forward(spread([2, 5, 3], &device), Some(RnnState::new(spread([2, 2, 4], &device))));
    Tensor::cat(vec![states.reshape([-1]), last.hidden.reshape([-1])], 0)
});
is_burns!(lstm: burn::nn::LstmConfig::new(3, 4, true).with_clip(Some(0.3)), quant::LstmConfig::new(3, 4,
    true).with_clip(Some(0.3)),
|layer, device| {
    let (states, last) = layer.forward(spread([2, 5, 3], &device), None);
    Tensor::cat(vec![states.reshape([-1]), last.cell.reshape([-1]), last.hidden.reshape([-1])], 0)
});
is_burns!(coupled_lstm_in_reverse: burn::nn::LstmConfig::new(3, 4,
    true).with_input_forget(true).with_reverse(true).with_batch_first(false),
    quant::LstmConfig::new(3, 4, true).with_input_forget(true).with_reverse(true).with_batch_first(false),
    |layer, device| layer.forward(spread([5, 2, 3], &device), None).0);
is_burns!(lstm_step_by_step: burn::nn::LstmConfig::new(3, 4, true), quant::LstmConfig::new(3, 4, true),
    |layer, device| layer.forward_iter(spread::<3>([2, 5, 3], &device).iter_dim(1).enumerate().rev(), None, 2, 5,
        &device).0);
is_burns!(bidirectional_lstm: burn::nn::BiLstmConfig::new(3, 4, true), quant::BiLstmConfig::new(3, 4, true),
|layer, device| {
    let state = burn::nn::LstmState::new(spread([2, 2, 4], &device), spread([2, 2, 4], &device));
    let (states, last) = layer.forward(spread([2, 5, 3], &device), Some(state));
    Tensor::cat(vec![states.reshape([-1]), last.cell.reshape([-1])], 0)
});
is_burns!(gru: burn::nn::GruConfig::new(3, 4, true), quant::GruConfig::new(3, 4, true),
    |layer, device| layer.forward(spread([2, 5, 3], &device), Some(spread([2, 4], &device))));
is_burns!(gru_with_reset_before: burn::nn::GruConfig::new(3, 4, true).with_reset_after(false).with_clip(Some(0.3)),
    quant::GruConfig::new(3, 4, true).with_reset_after(false).with_clip(Some(0.3)),
    |layer, device| layer.forward(spread([2, 5, 3], &device), None));
is_burns!(bidirectional_gru: burn::nn::BiGruConfig::new(3, 4, true), quant::BiGruConfig::new(3, 4, true),
|layer, device| {
    let (states, last) = layer.forward(spread([2, 5, 3], &device), Some(spread([2, 2, 4], &device)));
    Tensor::cat(vec![states.reshape([-1]), last.reshape([-1])], 0)
});

/// As [`is_burns`], for layers without parameters, whose configuration needs no device.
macro_rules! is_burns_without_parameters {
    ($test:ident: $burn:expr, $quant:expr, input $shape:expr) => {
        #[test]
        fn $test() {
            let (_, device): (_, Device) = device();
            let layer = $quant.init();
            let expected = values($burn.init().forward(spread($shape, &device)));
            assert_close(&values(layer.forward(spread($shape, &device))), &expected, 0.0, "burn's layer");
            assert!(!layer.input_quantizer.is_enabled() && !layer.output_quantizer.is_enabled());
        }
    };
}

is_burns_without_parameters!(avg_pool1d: pool::AvgPool1dConfig::new(2), quant::pool::AvgPool1dConfig::new(2), input [1,
    2, 6]);
is_burns_without_parameters!(avg_pool2d: pool::AvgPool2dConfig::new([2, 3]).with_ceil_mode(true),
    quant::pool::AvgPool2dConfig::new([2, 3]).with_ceil_mode(true), input [1, 2, 5, 7]);
is_burns_without_parameters!(max_pool1d: pool::MaxPool1dConfig::new(3).with_stride(1),
    quant::pool::MaxPool1dConfig::new(3).with_stride(1), input [1, 2, 6]);
is_burns_without_parameters!(max_pool2d: pool::MaxPool2dConfig::new([2, 2]), quant::pool::MaxPool2dConfig::new([2, 2]),
    input [1, 2, 6, 4]);
// other zeros on each side, top and left, bottom and right, and dilation
is_burns_without_parameters!(max_pool2d_padded:
    pool::MaxPool2dConfig::new([3, 2]).with_strides([2, 1]).with_dilation([1, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 0, 0, 2)),
    quant::pool::MaxPool2dConfig::new([3, 2]).with_strides([2, 1]).with_dilation([1, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 0, 0, 2)), input [1, 2, 7, 9]);
is_burns_without_parameters!(max_pool2d_same:
    pool::MaxPool2dConfig::new([3, 3]).with_strides([1, 1]).with_padding(PaddingConfig2d::Same),
    quant::pool::MaxPool2dConfig::new([3, 3]).with_strides([1, 1]).with_padding(PaddingConfig2d::Same),
    input [1, 2, 5, 4]);
is_burns_without_parameters!(adaptive_avg_pool1d: pool::AdaptiveAvgPool1dConfig::new(2),
    quant::pool::AdaptiveAvgPool1dConfig::new(2), input [1, 2, 6]);
is_burns_without_parameters!(adaptive_avg_pool2d: pool::AdaptiveAvgPool2dConfig::new([2, 1]),
    quant::pool::AdaptiveAvgPool2dConfig::new([2, 1]), input [1, 2, 6, 4]);
is_burns_without_parameters!(local_response_norm: norm::LocalResponseNormConfig::new(3),
    quant::LocalResponseNormConfig::new(3), input [1, 4, 3, 3]);
is_burns_without_parameters!(leaky_relu: burn::nn::LeakyReluConfig::new(), quant::LeakyReluConfig::new(), input [2, 5]);

/// A configuration is burn's: the same builders and defaults, text and files, and another `init`.
#[test]
fn a_configuration_has_burns_defaults_and_files() {
    let (burns, ours) = (burn::nn::LinearConfig::new(3, 2), quant::LinearConfig::new(3, 2));
    assert_eq!(ours.to_string(), burns.to_string(), "defaults included");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.json");
    burns.with_bias(false).save(&path).unwrap();
    let read = quant::LinearConfig::load(&path).unwrap();
    assert_eq!((read.d_input, read.d_output, read.bias), (3, 2, false));
    assert!(burn::nn::LinearConfig::from(read).init(&device().1).bias.is_none());
    for (burns, ours) in [
        (
            conv::Conv2dConfig::new([2, 4], [3, 3]).to_string(),
            quant::conv::Conv2dConfig::new([2, 4], [3, 3]).to_string(),
        ),
        (pool::MaxPool2dConfig::new([2, 2]).to_string(), quant::pool::MaxPool2dConfig::new([2, 2]).to_string()),
        (burn::nn::LstmConfig::new(3, 4, true).to_string(), quant::LstmConfig::new(3, 4, true).to_string()),
        (
            attention::CrossAttentionConfig::new(8, 6, 4, 2, 2).to_string(),
            quant::attention::QuantCrossAttentionConfig::new(8, 6, 4, 2, 2).to_string(),
        ),
    ] {
        assert_eq!(ours, burns);
    }
}

/// A wrapped layer is printed with its name, its parameters and its quantizers; both of its names stand for it in a
/// table of layouts; an embedding has no quantizer for its indices, even if somebody switches it on.
#[test]
fn a_layer_inside_the_wrapper_is_known_by_both_names() {
    let (_, device) = device();
    let layer = quant::LinearConfig::new(3, 2).init(&device);
    let printed = layer.to_string();
    for part in ["QuantLinear", "params: 8", "input_quantizer: disabled"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }

    let layout = WeightLayout::new(0, 1); // not burn's: rows are channels
    for name in ["Linear", "QuantLinear"] {
        let options = QuantizeOptions::new().with_layouts(WeightLayouts::new().register(name, "weight", layout));
        let int8 = presets::int8_weight_only();
        let (quantized, report) = quantize_with(layer.clone(), &int8, options, |_| {}).unwrap();
        assert_eq!(report.warnings, [], "{name}");
        let quantizers = Quantizers::of(&quantized);
        assert_eq!(quantizers.get("weight_quantizer").unwrap().amax().unwrap().dims(), [3], "a range for each row");
    }

    let mut embedding = quant::EmbeddingConfig::new(5, 4).init(&device);
    embedding.input_quantizer.enable();
    assert_eq!(Quantizers::of(&embedding).names().collect::<Vec<_>>(), ["output_quantizer"]);
    assert!(embedding.to_burn().is_ok());
}

#[test]
fn attention_is_burns_with_masks() {
    let (_, device) = device();
    let float = attention::MultiHeadAttentionConfig::new(8, 2).with_dropout(0.0).with_key_bias(false).init(&device);
    let config = quant::attention::MultiHeadAttentionConfig::new(8, 2).with_dropout(0.0).with_key_bias(false);
    let layer = config.init(&device).load_record(float.clone().into_record());
    let (query, memory): (Tensor<3>, Tensor<3>) = (spread([2, 3, 8], &device), spread([2, 4, 8], &device));
    let pad = Tensor::<2, Int>::from_data([[0, 0, 0, 1], [0, 0, 0, 0]], &device).bool();
    let hidden = Tensor::<3, Int>::from_data([[[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]; 2], &device).bool();
    let expected = float.forward(
        attention::MhaInput::new(query.clone(), memory.clone(), memory.clone())
            .mask_pad(pad.clone())
            .mask_attn(hidden.clone()),
    );
    let input = MhaInput::new(query, memory.clone(), memory).mask_pad(pad).mask_attn(hidden);
    let found = layer.forward(input);
    assert_close(&values(found.weights), &values(expected.weights), 1e-5, "weights");
    assert_close(&values(found.context), &values(expected.context), 1e-5, "context");
}

#[test]
fn cross_attention_is_burns_with_grouped_queries() {
    let (_, device) = device();
    let float = attention::CrossAttentionConfig::new(8, 6, 4, 2, 3).with_dropout(0.0).init(&device);
    let config = quant::attention::CrossAttentionConfig::new(8, 6, 4, 2, 3).with_dropout(0.0);
    let layer = config.init(&device).load_record(float.clone().into_record());
    let (query, context): (Tensor<3>, Tensor<3>) = (spread([2, 3, 8], &device), spread([2, 5, 6], &device));
    let pad = Tensor::<2, Int>::from_data([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], &device).bool();
    let expected = values(float.forward(query.clone(), context.clone(), Some(pad.clone())));
    assert_close(&values(layer.forward(query.clone(), context.clone(), Some(pad))), &expected, 1e-5, "masked");
    let mut cache = quant::attention::CrossAttentionCache::new();
    let once = values(layer.forward_cache(query.clone(), context.clone(), None, &mut cache));
    let again = values(layer.forward_cache(query, context.zeros_like(), None, &mut cache));
    assert_eq!(once, again, "the first context is kept");
}

#[test]
fn transformers_are_burns_whichever_comes_first() {
    let (_, device) = device();
    for norm_first in [false, true] {
        let x: Tensor<3> = spread([2, 4, 8], &device);
        let float = transformer::TransformerEncoderConfig::new(8, 16, 2, 2)
            .with_dropout(0.0)
            .with_norm_first(norm_first)
            .init(&device);
        let encoder = quant::transformer::TransformerEncoderConfig::new(8, 16, 2, 2)
            .with_dropout(0.0)
            .with_norm_first(norm_first)
            .init(&device)
            .load_record(float.clone().into_record());
        let expected = values(float.forward(transformer::TransformerEncoderInput::new(x.clone())));
        let found = values(encoder.forward(quant::transformer::TransformerEncoderInput::new(x.clone())));
        assert_close(&found, &expected, 1e-5, "encoder");
        let back = values(encoder.to_burn().unwrap().forward(transformer::TransformerEncoderInput::new(x.clone())));
        assert_close(&back, &expected, 0.0, "burn's encoder again");

        let memory: Tensor<3> = spread([2, 3, 8], &device);
        let float = transformer::TransformerDecoderConfig::new(8, 16, 2, 2)
            .with_dropout(0.0)
            .with_norm_first(norm_first)
            .init(&device);
        let decoder = quant::transformer::TransformerDecoderConfig::new(8, 16, 2, 2)
            .with_dropout(0.0)
            .with_norm_first(norm_first)
            .init(&device)
            .load_record(float.clone().into_record());
        let expected = values(float.forward(transformer::TransformerDecoderInput::new(x.clone(), memory.clone())));
        let input = quant::transformer::TransformerDecoderInput::new(x.clone(), memory.clone());
        assert_close(&values(decoder.forward(input)), &expected, 1e-5, "decoder");
        let back = decoder.to_burn().unwrap().forward(transformer::TransformerDecoderInput::new(x, memory));
        assert_close(&values(back), &expected, 0.0, "burn's decoder again");
    }
}

/// A model whose source differs by one line.
macro_rules! a_model {
    ($module:ident, $($nn:ident)::+) => {
        mod $module {
            use burn::module::Module;
            use burn::tensor::{Device, Int, Tensor};
            use $($nn)::+;

            #[derive(Module, Debug)]
            pub(super) struct Tagger {
                embedding: nn::Embedding,
                norm: nn::LayerNorm,
                lstm: nn::BiLstm,
                conv: nn::conv::Conv1d,
                pool: nn::pool::AvgPool1d,
                dropout: nn::Dropout,
                head: nn::Linear,
            }

            impl Tagger {
                pub(super) fn new(device: &Device) -> Self {
                    Self {
                        embedding: nn::EmbeddingConfig::new(10, 8).init(device),
                        norm: nn::LayerNormConfig::new(8).with_epsilon(1e-6).init(device),
                        lstm: nn::BiLstmConfig::new(8, 4, true).init(device),
                        conv: nn::conv::Conv1dConfig::new(8, 8, 3).with_padding(nn::PaddingConfig1d::Same).init(device),
                        pool: nn::pool::AvgPool1dConfig::new(2).init(),
                        dropout: nn::DropoutConfig::new(0.1).init(),
                        head: nn::LinearConfig::new(8, 3).with_bias(false).init(device),
                    }
                }

                pub(super) fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
                    let x = self.norm.forward(self.embedding.forward(tokens));
                    let (x, _) = self.lstm.forward(x, None);
                    let x = self.pool.forward(self.conv.forward(x.swap_dims(1, 2))).swap_dims(1, 2);
                    self.head.forward(self.dropout.forward(x))
                }
            }
        }
    };
}

a_model!(with_burns_layers, burn::nn);
a_model!(with_our_layers, burn_quant::nn);

#[test]
fn a_model_moves_over_by_one_line_with_its_records_and_every_product_is_quantized() {
    let (_, device) = device();
    let tokens = Tensor::<2, Int>::from_data([[1, 9, 4, 2], [0, 3, 3, 7]], &device);
    let float = with_burns_layers::Tagger::new(&device);
    let expected = values(float.forward(tokens.clone()));
    let model = with_our_layers::Tagger::new(&device).load_record(float.into_record());
    assert_close(&values(model.forward(tokens.clone())), &expected, 1e-5, "float");

    let (model, _) = quantize(model, &presets::int8_default(), |model| drop(model.forward(tokens.clone()))).unwrap();
    let found = values(model.forward(tokens));
    assert_close(&found, &expected, 0.05, "8 bits are close");
    assert_ne!(found, expected, "and not the same");
    let quantizers = Quantizers::of(&model);
    let enabled: Vec<&str> = quantizers.iter().filter(|(_, q)| q.is_enabled()).map(|(name, _)| name).collect();
    let products = 2 * (2 * 4 * 2 + 1 + 1); // two gates' layers, four gates, two directions; convolution, head
    assert_eq!(enabled.len(), products, "a weight and an input each: {enabled:?}");
    assert!(enabled.iter().all(|name| !name.starts_with("norm") && !name.starts_with("pool")), "these stay in float");
}

#[test]
fn a_rule_that_names_the_container_quantizes_around_a_norm() {
    let (_, device) = device();
    let layer = quant::LayerNormConfig::new(4).init(&device);
    let x: Tensor<2> = spread([3, 4], &device);
    let rule = Rule::set("*input_quantizer", QuantizerConfig::int(8)).within("LayerNorm");
    let config = QuantConfig::new().with_rule(rule);
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(x.clone()))).unwrap();
    assert!(layer.input_quantizer.is_enabled() && !layer.output_quantizer.is_enabled());
    let rounded = layer.input_quantizer.forward(x.clone());
    assert_close(
        &values(layer.forward(x)),
        &values(std::ops::Deref::deref(&layer).forward(rounded)),
        0.0,
        "norm of the rounded",
    );
}

/// One step of the layer by hand: `h = tanh(q(x) q(W_x) + q(h) q(W_h))`, with ranges of the float layer.
#[test]
fn a_recurrent_layer_quantizes_inputs_and_hidden_states_of_every_step() {
    let (_, device) = device();
    let layer = quant::RnnConfig::new(3, 4, false).init(&device);
    let x: Tensor<3> = spread([2, 5, 3], &device);
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(4)));
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(x.clone(), None))).unwrap();
    let (inputs, hidden) = (&layer.gate.input_transform, &layer.gate.hidden_transform);
    let mut h = Tensor::<2>::zeros([2, 4], &device);
    for t in 0..5 {
        let step = x.clone().narrow(1, t, 1).squeeze_dim::<2>(1);
        h = (inputs.forward(step) + hidden.forward(h)).tanh();
    }
    let (_, last) = layer.forward(x, None);
    assert_close(&values(last.hidden), &values(h), 1e-5, "the last state");
}

#[derive(Module, Debug)]
struct Mixture {
    router: burn::nn::Linear,
    experts: Vec<quant::QuantSwiGlu>,
}

impl Mixture {
    /// Each token goes to the expert whose router output is largest; experts without tokens do not run.
    fn forward(&self, tokens: Tensor<2>) -> Tensor<2> {
        let expert = self.router.forward(tokens.clone()).argmax(1).into_data().convert::<i64>();
        let expert: Vec<i64> = expert.try_into_vec().unwrap();
        let rows = expert.into_iter().enumerate();
        let rows = rows.map(|(row, e)| self.experts[e as usize].forward(tokens.clone().narrow(0, row, 1)));
        Tensor::cat(rows.collect(), 0)
    }
}

#[test]
fn every_expert_is_calibrated_and_those_without_tokens_borrow_ranges() {
    let (_, device) = device();
    let experts = (0..3).map(|_| quant::SwiGluConfig::new(4, 4).init(&device)).collect();
    let mut router = burn::nn::LinearConfig::new(4, 3).with_bias(false).init(&device);
    // the largest of the first three features names the expert
    let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]];
    router.weight = burn::module::Param::from_tensor(Tensor::from_data(identity, &device));
    let model = Mixture { router, experts };
    let tokens = Tensor::<2>::from_data([[1.0, 0.0, 0.0, -7.0], [0.0, 1.0, 0.0, 2.0]], &device); // none for expert 2
    let (model, report) =
        quantize(model, &presets::int8_default(), |model| drop(model.forward(tokens.clone()))).unwrap();

    let quantizers = Quantizers::of(&model);
    let amax = |expert: usize| {
        let name = format!("experts.{expert}.linear_inner.input_quantizer");
        values(quantizers.get(&name).unwrap().amax().unwrap())
    };
    assert_eq!([amax(0), amax(1), amax(2)], [[7.0], [2.0], [7.0]], "the largest of its siblings");
    let borrowing: Vec<&str> = report.layers.iter().map(|layer| layer.layer.as_str()).collect();
    assert_eq!(borrowing, ["experts.2.linear_inner.input_quantizer", "experts.2.linear_outer.input_quantizer"]);
    assert!(report.layers.iter().all(|layer| layer.steps[0].skipped == Some(SkipReason::NoTokens)));
    assert!(values(model.experts[2].forward(tokens)).iter().all(|y| y.is_finite()), "it can run");
}

/// A batch of nothing has a result of nothing, whichever length is 0.
#[test]
fn linear_layers_take_batches_of_nothing() {
    for (name, device) in devices() {
        let layer = quant::LinearConfig::new(24, 5).init(&device);
        let run = |layer: &quant::Linear| drop(layer.forward(spread::<2>([4, 24], &device)));
        let (int8, _) = quantize(layer.clone(), &presets::int8_default(), run).unwrap();
        for layer in [layer, int8] {
            for [batch, tokens] in [[0, 2], [2, 0], [0, 0]] {
                let y = layer.forward(Tensor::<3>::zeros([batch, tokens, 24], &device));
                assert_eq!(y.dims(), [batch, tokens, 5], "{name}");
            }
            assert_eq!(layer.forward(Tensor::<2>::zeros([0, 24], &device)).dims(), [0, 5], "{name}");
        }
    }
}
