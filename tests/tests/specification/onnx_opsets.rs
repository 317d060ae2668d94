//! Operations that ONNX has from a later opset on.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};
use burn_quant_onnx::{ElementType, Exporter, OnnxError};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, Nothing, count};
use crate::spread;

#[derive(Module, Debug)]
struct Normed {
    norm: RmsNorm,
    fc: Linear,
}

impl Normed {
    fn new(device: &Device) -> Self {
        let mut norm = RmsNormConfig::new(8).with_epsilon(1e-3).init(device);
        norm.gamma = norm.gamma.map(|gamma| gamma + spread([8], device));
        Self { norm, fc: LinearConfig::new(8, 8).init(device) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc.forward(self.norm.forward(x.clone())) + x
    }
}

/// From opset 23 on; what something else reads too stays arithmetic.
#[test]
fn root_mean_square_norms_are_one_node_where_onnx_has_it() {
    let (_, device) = device();
    let mut files = Files::new();
    let tokens = |batch| spread::<3>([batch, 5, 8], &device);
    let model = Normed::new(&device);
    let of =
        |opset: i64| Exporter::new().with_opset(opset).export_any_size(&model, [3, 5].map(tokens), Normed::forward);
    for opset in 21..=24 {
        let onnx = of(opset).unwrap();
        assert_eq!(onnx.opset(), opset);
        let found = ["RMSNormalization", "Sqrt", "Div", "Mul", "ReduceMean"].map(|operator| count(&onnx, operator));
        assert_eq!(found, if opset < 23 { [0, 1, 1, 2, 1] } else { [1, 0, 0, 0, 0] }, "{opset}: {onnx}");
        let gamma = onnx.stored().find(|(name, ..)| *name == "norm.gamma");
        let shape: &[usize] = if opset < 23 { &[1, 1, 8] } else { &[8] };
        assert_eq!(gamma, Some(("norm.gamma", ElementType::Float, shape)));
        files.add(&format!("rms_{opset}"), &onnx, tokens(4), model.forward(tokens(4)));
    }
    let error = of(25).unwrap_err();
    assert!(matches!(error, OnnxError::Opset { found: 25, .. }), "{error}");
    assert_eq!(error.to_string(), "opset 25 is not written; ask for 21 to 24");

    let exporter = Exporter::new().with_opset(23);
    let x = tokens(2);
    type Pass = fn(&Normed, Tensor<3>) -> Tensor<3>;
    let unlike: [(&str, Pass); 3] = [
        ("read_twice", |model, x| {
            let root = (x.clone().square().mean_dim(2) + 0.1).sqrt();
            (x / root.clone()) * model.norm.gamma.val().unsqueeze() + root
        }),
        ("other_axis", |model, x| {
            let root = (x.clone().square().mean_dim(1) + 0.1).sqrt();
            (x / root) * model.norm.gamma.val().unsqueeze()
        }),
        ("other_power", |model, x| {
            let root = ((x.clone() * (x.clone() + 1.0)).abs().mean_dim(2) + 0.1).sqrt();
            (x / root) * model.norm.gamma.val().unsqueeze()
        }),
    ];
    for (name, forward) in unlike {
        let onnx = exporter.export(&model, x.clone(), forward).unwrap();
        assert_eq!((count(&onnx, "RMSNormalization"), count(&onnx, "Sqrt")), (0, 1), "{name}: {onnx}");
        files.add(name, &onnx, x.clone(), forward(&model, x.clone()));
    }
    let other_side: Pass = |model, x| {
        let root = (x.clone().square().mean_dim(2) + 0.1).sqrt();
        model.norm.gamma.val().unsqueeze() * (x / root)
    };
    let onnx = exporter.export(&model, x.clone(), other_side).unwrap();
    assert_eq!(count(&onnx, "RMSNormalization"), 1, "{onnx}");
    files.add("other_side", &onnx, x.clone(), other_side(&model, x));
    files.check();
}

#[test]
fn attention_is_one_node_where_onnx_computes_the_same() {
    let (_, device) = device();
    let mut files = Files::new();
    let heads = |batch: usize, len: usize| spread::<4>([batch, 2, len, 8], &device);
    let options = |is_causal| AttentionModuleOptions { is_causal, scale: Some(0.4), ..Default::default() };
    let causal = |_: &Nothing, x: Tensor<4>| attention(x.clone(), x.clone(), x, None, None, options(true));
    let exporter = Exporter::new().with_opset(23);
    let onnx = exporter.export_any_size(&Nothing, [3, 5].map(|batch| heads(batch, 4)), causal).unwrap();
    assert_eq!(onnx.operators(), [("Attention", 1), ("Identity", 1)]);
    files.add("causal", &onnx, heads(4, 4), causal(&Nothing, heads(4, 4)));

    for (name, is_causal, expected) in [("cross", false, 1), ("cross_causal", true, 0)] {
        let forward =
            |_: &Nothing, (q, k): (Tensor<4>, Tensor<4>)| attention(q, k.clone(), k, None, None, options(is_causal));
        let inputs = || (heads(2, 3), heads(2, 6));
        let onnx = exporter.export(&Nothing, inputs(), forward).unwrap();
        assert_eq!(count(&onnx, "Attention"), expected, "{name}: {onnx}");
        files.add(name, &onnx, inputs(), forward(&Nothing, inputs()));
    }
    files.check();
}
