//! Attention of layers as one operation of ONNX.

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Int, Tensor};
use burn_quant::nn::attention as quant;
use burn_quant::{QuantizerConfig, Rule, presets, quantize};
use burn_quant_onnx::Exporter;
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, Nothing, count};
use crate::spread;

/// The attention of layers is arithmetic in a graph: the same node, where nothing reads what is computed on the way.
#[test]
fn attention_of_layers_is_one_node_where_it_is_asked_for() {
    let (_, device) = device();
    let mut files = Files::new();
    let mha = MultiHeadAttentionConfig::new(16, 2).with_dropout(0.0).init(&device);
    let tokens = |batch: usize| spread::<3>([batch, 6, 16], &device);
    type Pass = fn(&MultiHeadAttention, (Tensor<3>, Tensor<2, Bool>)) -> Tensor<3>;
    let causal = |x: &Tensor<3>| generate_autoregressive_mask(x.dims()[0], x.dims()[1], &x.device());
    let passes: [(&str, bool, Pass); 3] = [
        ("plain", false, |mha, (x, _)| mha.forward(MhaInput::self_attn(x)).context),
        ("padded", true, |mha, (x, padding)| mha.forward(MhaInput::self_attn(x).mask_pad(padding)).context),
        ("both", true, |mha, (x, padding)| {
            let mask = generate_autoregressive_mask(x.dims()[0], x.dims()[1], &x.device());
            mha.forward(MhaInput::self_attn(x).mask_pad(padding).mask_attn(mask)).context
        }),
    ];
    let inputs = |batch: usize| {
        // the last token of each other sequence
        let last = Tensor::<2, Int>::from_data([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], &device);
        (tokens(batch), last.repeat(&[3, 1]).narrow(0, 0, batch).equal_elem(1))
    };
    for (name, is_masked, forward) in passes {
        for (exporter, expected) in [
            (Exporter::new(), 0),
            (Exporter::new().with_opset(23), usize::from(!is_masked)),
            (Exporter::new().with_fused_attention(), 1),
        ] {
            let onnx = exporter.export_any_size(&mha, [3, 5].map(inputs), forward).unwrap();
            assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
            assert_eq!(count(&onnx, "Softmax"), 1 - expected, "{name}: {onnx}");
            if expected == 1 {
                assert!(onnx.opset() == 23 || onnx.opset() == 24);
                let name = format!("{name}_{}", files.len());
                files.add(&name, &onnx, inputs(4), forward(&mha, inputs(4)));
            }
        }
    }

    let exporter = Exporter::new().with_fused_attention();
    let forward = |mha: &quant::MultiHeadAttention, x: Tensor<3>| {
        let mask = causal(&x);
        mha.forward(quant::MhaInput::self_attn(x).mask_attn(mask)).context
    };
    let x = tokens(3);
    let of_shares = Rule::set("*p_bmm_quantizer", QuantizerConfig::int(8).constant(1.0));
    for (name, config, expected) in
        [("int8", presets::int8_default(), 1), ("rounded_shares", presets::int8_default().with_rule(of_shares), 0)]
    {
        let run = |mha: &quant::MultiHeadAttention| drop(forward(mha, x.clone()));
        let mha = quant::MultiHeadAttentionConfig::new(16, 2).with_dropout(0.0).init(&device);
        let (mha, _) = quantize(mha, &config, run).unwrap();
        let onnx = exporter.export(&mha, x.clone(), forward).unwrap();
        assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
        files.add(name, &onnx, x.clone(), forward(&mha, x.clone()));
    }

    type Scores = fn(&Nothing, (Tensor<4>, Tensor<4, Bool>)) -> Tensor<4>;
    let unlike: [(&str, Scores); 4] = [
        ("read_scores", |_, (x, _)| {
            let scores = x.clone().matmul(x.clone().swap_dims(2, 3)) * 0.5;
            softmax(scores.clone(), 3).matmul(x) + scores.sum_dim(3)
        }),
        ("other_axis", |_, (x, _)| softmax(x.clone().matmul(x.clone().swap_dims(2, 3)), 2).matmul(x)),
        ("masked_before_scale", |_, (x, mask)| {
            let scores = x.clone().matmul(x.clone().swap_dims(2, 3)).mask_fill(mask, -1e4) * 1e-4;
            softmax(scores, 3).matmul(x)
        }),
        ("masked_a_little", |_, (x, mask)| {
            softmax(x.clone().matmul(x.clone().swap_dims(2, 3)).mask_fill(mask, -1.0), 3).matmul(x)
        }),
    ];
    let mask = Tensor::<2, Bool>::tril_mask([4, 4], 0, &device).reshape([1, 1, 4, 4]);
    let inputs = (spread::<4>([2, 2, 4, 8], &device), mask);
    for (name, forward) in unlike {
        let onnx = exporter.export(&Nothing, inputs.clone(), forward).unwrap();
        assert_eq!(count(&onnx, "Attention"), 0, "{name}: {onnx}");
        files.add(name, &onnx, inputs.clone(), forward(&Nothing, inputs.clone()));
    }
    // keys that lie turned in the model
    let turned = |_: &Nothing, (x, mask): (Tensor<4>, Tensor<4, Bool>)| {
        let shares = softmax(x.clone().matmul(x.clone().reshape([2, 2, 8, 4])).mask_fill(mask, f32::MIN), 3);
        shares.matmul(x)
    };
    let onnx = exporter.export(&Nothing, inputs.clone(), turned).unwrap();
    assert_eq!((count(&onnx, "Attention"), count(&onnx, "Transpose")), (1, 1), "{onnx}");
    files.add("turned", &onnx, inputs.clone(), turned(&Nothing, inputs));
    files.check();
}

/// What products broadcast, and scales without a root, the node of ONNX has not.
#[test]
fn attention_that_onnx_does_not_have_is_arithmetic() {
    let (_, device) = device();
    let mut files = Files::new();
    let exporter = Exporter::new().with_fused_attention();
    let x = |heads: [usize; 4]| spread::<4>(heads, &device);
    type Three = (Tensor<4>, Tensor<4>, Tensor<4>);
    let forward = |_: &Nothing, (q, k, v): Three| softmax(q.matmul(k.swap_dims(2, 3)) * 0.3, 3).matmul(v);
    for (name, q, k, v, expected) in [
        ("features_of_values", [2, 3, 4, 8], [2, 3, 5, 8], [2, 3, 5, 6], 1),
        ("one_head_of_values", [2, 3, 4, 8], [2, 3, 5, 8], [2, 1, 5, 8], 0),
        ("values_of_one", [2, 3, 4, 8], [2, 3, 5, 8], [1, 3, 5, 8], 0),
        ("more_heads_of_values", [1, 1, 4, 8], [1, 1, 5, 8], [2, 3, 5, 8], 0),
    ] {
        let inputs = (x(q), x(k), x(v));
        let onnx = exporter.export(&Nothing, inputs.clone(), forward).unwrap();
        assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
        files.add(name, &onnx, inputs.clone(), forward(&Nothing, inputs));
    }

    let masked = |_: &Nothing, (q, k, mask): (Tensor<4>, Tensor<4>, Tensor<4, Bool>)| {
        softmax((q.matmul(k.clone().swap_dims(2, 3)) * 0.3).mask_fill(mask, -1e9), 3).matmul(k)
    };
    for (name, heads, mask, is_masked, expected) in [
        // a column for all keys masks whole rows, or none
        ("one_column", [2, 2], [1, 2, 4, 1], false, 1),
        ("one_element", [2, 2], [2, 1, 1, 1], false, 1),
        ("one_row", [2, 2], [2, 1, 1, 5], true, 1),
        ("more_heads_of_masks", [1, 1], [2, 3, 4, 5], true, 0),
    ] {
        let [batch, heads] = heads;
        let count_of: usize = mask.iter().product();
        let places = Tensor::<1, Int>::arange(0..count_of as i64, &device).reshape(mask);
        let mask = if is_masked { places.remainder_scalar(3).equal_elem(1) } else { places.lower_elem(0) };
        let inputs = (x([batch, heads, 4, 8]), x([batch, heads, 5, 8]), mask);
        let onnx = exporter.export(&Nothing, inputs.clone(), masked).unwrap();
        assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
        files.add(name, &onnx, inputs.clone(), masked(&Nothing, inputs));
    }

    for (name, scale, expected) in [("scaled", 0.3, 1), ("turned_around", -0.3, 0), ("all_equal", 0.0, 0)] {
        let options = AttentionModuleOptions { scale: Some(scale), ..Default::default() };
        let forward = |_: &Nothing, x: Tensor<4>| attention(x.clone(), x.clone(), x, None, None, options);
        let onnx = exporter.export(&Nothing, x([2, 2, 4, 8]), forward).unwrap();
        assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
        files.add(name, &onnx, x([2, 2, 4, 8]), forward(&Nothing, x([2, 2, 4, 8])));
    }
    files.check();
}
