//! Weights of unmodified burn models: no line of model code changes.

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::config::{GradientRule, IntFormat};
use burn_quant::ops::{FakeQuant, Groups, fake_quant, group_amax};
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, fold_weights, presets, quantize_weights, summary};
use burn_quant_tests::compare::largest_distance;
use burn_quant_tests::{device, devices};

use crate::{assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    embedding: Embedding,
    conv: Conv2d,
    layers: Vec<Linear>,
    head: Option<Linear>,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(7, 4).init(device),
            conv: Conv2dConfig::new([1, 2], [2, 2]).init(device),
            layers: vec![LinearConfig::new(8, 6).init(device), LinearConfig::new(6, 6).init(device)],
            head: Some(LinearConfig::new(6, 3).init(device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.conv.forward(x).flatten(1, 3);
        let x = self.layers.iter().fold(x, |x, layer| relu(layer.forward(x)));
        self.head.as_ref().unwrap().forward(x)
    }
}

fn int8(weight: Tensor<2>) -> Tensor<2> {
    let groups = Groups::per_channel(&weight.dims(), 1);
    let amax = group_amax(weight.clone(), &groups);
    let spec = FakeQuant { format: IntFormat::signed(8).unwrap().into(), groups, gradient: GradientRule::PassThrough };
    fake_quant(weight, amax, spec)
}

#[test]
fn quantizers_are_found_in_nested_structs_vectors_and_options_in_the_order_of_fields() {
    let (_, device) = device();
    let (model, report) = quantize_weights(Net::new(&device), &presets::int8_weight_only()).unwrap();
    let names: Vec<String> = Quantizers::of(&model).names().map(String::from).collect();
    assert_eq!(
        names,
        [
            "embedding.weight_quantizer",
            "conv.weight_quantizer",
            "layers.0.weight_quantizer",
            "layers.1.weight_quantizer",
            "head.weight_quantizer"
        ]
    );
    let enabled = report.plan.quantizers.iter().filter(|(_, planned)| planned.enabled).count();
    assert_eq!(enabled, 4, "embeddings stay in float by default");
}

#[test]
fn the_forward_pass_sees_rounded_weights_and_the_model_keeps_its_own() {
    for (name, device) in devices() {
        let float = Net::new(&device);
        let (model, _) = quantize_weights(float.clone(), &presets::int8_weight_only()).unwrap();
        let (kept, seen) = (&model.layers[0].weight, int8(float.layers[0].weight.val()));
        assert_same(&values(kept.base()), &values(float.layers[0].weight.val()), &name);
        assert_same(&values(kept.val()), &values(seen), &name);
        assert_ne!(values(kept.val()), values(kept.base()), "{name}");
        assert_same(
            &values(model.embedding.weight.val()),
            &values(float.embedding.weight.val()),
            "disabled is identity",
        );
    }
}

#[test]
fn gradients_reach_the_weights_straight_through() {
    let (_, device) = device();
    let device = device.autodiff();
    let (model, _) = quantize_weights(Net::new(&device), &presets::int8_weight_only()).unwrap();
    let gradients = model.forward(spread([2, 1, 3, 3], &device)).sum().backward();
    // d(sum)/d(head.weight) is the input of the head, the same for every output
    let gradient = model.head.as_ref().unwrap().weight.base().grad(&gradients).unwrap();
    assert_eq!(gradient.dims(), [6, 3]);
    assert!(values(gradient).chunks(3).all(|row| row[0] == row[1] && row[1] == row[2]));
    assert!(model.conv.weight.base().grad(&gradients).is_some());
}

#[test]
fn folding_leaves_a_plain_model_with_the_same_outputs() {
    for (name, device) in devices() {
        let (model, _) = quantize_weights(Net::new(&device), &presets::int8_weight_only()).unwrap();
        let x = spread([2, 1, 3, 3], &device);
        let folded = fold_weights(model.clone()).unwrap();
        assert_same(&values(folded.forward(x.clone())), &values(model.forward(x)), &name);
        assert!(Quantizers::of(&folded).is_empty());
        let loaded = Net::new(&device).load_record(folded.clone().into_record());
        assert_same(&values(loaded.conv.weight.val()), &values(model.conv.weight.val()), "an ordinary record");
    }
}

#[test]
fn attention_is_quantized_by_its_linear_layers() {
    let (_, device) = device();
    let attention: MultiHeadAttention = MultiHeadAttentionConfig::new(8, 2).with_dropout(0.0).init(&device);
    let (model, _) = quantize_weights(attention.clone(), &presets::int8_weight_only()).unwrap();
    assert_eq!(
        Quantizers::of(&model).names().collect::<Vec<_>>(),
        ["query.weight_quantizer", "key.weight_quantizer", "value.weight_quantizer", "output.weight_quantizer"]
    );
    let x = spread([2, 3, 8], &device);
    let float = attention.forward(MhaInput::self_attn(x.clone())).context;
    let quantized = model.forward(MhaInput::self_attn(x)).context;
    let (float, quantized) = (values(float), values(quantized));
    let off = largest_distance(&quantized, &float);
    assert!(off > 0.0 && off < 0.05, "eight bits change little: {off}");
    // by default rules `output.*` stays in float: it names an output head, here a projection
    assert!(!Quantizers::of(&model).get("output.weight_quantizer").unwrap().is_enabled());
}

#[test]
fn recurrent_layers_are_quantized_gate_by_gate() {
    let (_, device) = device();
    let lstm: Lstm = LstmConfig::new(4, 3, true).init(&device);
    let (model, _) = quantize_weights(lstm, &presets::int4_blockwise_weight_only()).unwrap();
    let quantizers = Quantizers::of(&model);
    assert_eq!(quantizers.len(), 8, "four gates, each with an input and a hidden transform");
    assert!(quantizers.get("input_gate.input_transform.weight_quantizer").unwrap().is_enabled());
    let (output, _) = model.forward(spread([2, 5, 4], &device), None);
    assert_eq!(output.dims(), [2, 5, 3]);
    let folded = fold_weights(model.clone()).unwrap();
    let (folded, _) = folded.forward(spread([2, 5, 4], &device), None);
    assert_same(&values(folded), &values(output), "folded");
}

#[test]
fn a_weight_with_an_adapter_is_left_alone_unless_a_rule_enables_it() {
    use burn::module::Lora;
    use burn_quant::QuantError;
    let (_, device) = device();
    let model = vec![LinearConfig::new(8, 8).init(&device)].apply_lora(Lora::new(2, 4.0));
    let refused = quantize_weights(model.clone(), &presets::int8_weight_only()).unwrap_err();
    let QuantError::ForeignReparameterization { path, .. } = &refused else { panic!("{refused}") };
    assert_eq!(path, "0.weight");
    assert_eq!(fold_weights(model.clone()).unwrap_err(), refused);
    let off = QuantConfig::new().with_rule(Rule::disable("0.weight_quantizer"));
    let (model, _) = quantize_weights(model, &off).unwrap();
    assert!(Quantizers::of(&model).is_empty());
    assert!(model[0].weight.adapter().is_some());
}

#[test]
fn a_layout_for_another_rank_is_refused() {
    use burn_quant::calibrate::QuantizeOptions;
    use burn_quant::error::InvalidConfig;
    use burn_quant::place::{WeightLayout, WeightLayouts};
    use burn_quant::{QuantError, quantize_with};
    let (_, device) = device();
    let layouts = WeightLayouts::new().register("Linear", "weight", WeightLayout::new(3, 0));
    let linear = LinearConfig::new(4, 4).init(&device);
    let config = presets::int8_weight_only();
    let refused = quantize_with(linear, &config, QuantizeOptions::new().with_layouts(layouts), |_| {}).unwrap_err();
    let problem = InvalidConfig::Layout { axis: 3, rank: 2 };
    assert_eq!(refused, QuantError::Config { name: "weight_quantizer".into(), problem });
}

#[test]
fn the_summary_lists_every_quantizer_with_its_range() {
    let (_, device) = device();
    let mut linear = LinearConfig::new(2, 2).with_bias(false).init(&device);
    linear.weight = burn::module::Param::from_data([[0.5, -2.0], [0.25, 1.0]], &device);
    let layers = vec![linear.clone(), linear];
    let config = QuantConfig::new()
        .with_rule(Rule::set("0.*", QuantizerConfig::int(4).per_block(128)))
        .with_rule(Rule::set("1.*", QuantizerConfig::e4m3().dynamic()));
    let (model, _) = quantize_weights(layers, &config).unwrap();
    let expected = "\
quantizer           format  granularity  range    amax
0.weight_quantizer  int4    block 128    static   [5.0000e-1, 2.0000e0] (2)
1.weight_quantizer  e4m3    per-tensor   dynamic
2 of 2 quantizers enabled: 1 e4m3, 1 int4; 18.00 bits per parameter, 16 where it is in float";
    assert_eq!(summary(&model).to_string(), expected);
}
