//! What is folded: batch norms into layers, and weights for good.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::Warning;
use burn_quant::fold::with_folded_weights;
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::{BatchNorm, BatchNormConfig, QuantLinear};
use burn_quant::prepare::fold_batch_norm;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, Quantizers, fold_weights, presets, quantize, quantize_weights, summary,
};
use burn_quant_store::{StoreError, from_bytes, to_bytes};
use burn_quant_tests::device;

use crate::{assert_close, assert_same, spread, values};

/// A convolution and its norm, until that is folded.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: Option<BatchNorm>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = Conv2dConfig::new([2, 3], [3, 3]).with_bias(false).init(device);
        let mut norm: BatchNorm = BatchNormConfig::new(3).init(device);
        norm.gamma = Param::from_tensor(Tensor::from_data([2.0, 0.5, 1.0], device));
        norm.beta = Param::from_tensor(Tensor::from_data([0.25, -0.5, 0.0], device));
        Self { conv, norm: Some(norm) }
    }

    fn folded(mut self) -> Result<Self, QuantError> {
        if let Some(norm) = self.norm.take() {
            self.conv = fold_batch_norm(self.conv, norm)?;
        }
        Ok(self)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(x);
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

/// How many float tensors a model has.
struct Count(usize);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        self.0 += 1;
    }
}

/// Fold, quantize, train, save, and restore into a new model that was folded in the same way. No norm is left that
/// could follow the batches of the training, and folding what is folded changes nothing.
pub(super) fn f48() {
    let (_, plain) = device();
    let device = plain.autodiff();
    let x = spread::<4>([4, 2, 6, 6], &device);
    let float = Net::new(&device);
    let inference = float.valid();
    let expected = values(inference.forward(x.clone().without_autodiff()));
    let net = float.folded().unwrap();
    assert_close(&values(net.valid().forward(x.clone().without_autodiff())), &expected, 1e-5, "folded");

    let run = |net: &Net| drop(net.forward(x.clone().without_autodiff()));
    let (mut net, _) = quantize(net, &presets::int8_default(), run).unwrap();
    for _ in 0..3 {
        let gradients = (net.forward(x.clone()) - 0.5).powi_scalar(2).mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &net);
        net = SgdConfig::new().init().step(0.1, net, gradients);
    }
    let (y, trained) = (values(net.forward(x.clone())), values(net.valid().forward(x.clone().without_autodiff())));
    assert_same(&y, &trained, "in training as at inference: no statistics of batches");
    assert!(net.norm.is_none());
    let mut count = Count(0);
    net.visit(&mut count);
    assert_eq!(count.0, 2 + 2, "weight, bias, and the ranges of weight and input");

    let file = to_bytes(&net).unwrap();
    let restored = from_bytes(Net::new(&device).folded().unwrap(), file.clone()).unwrap();
    assert_same(&values(restored.forward(x.clone())), &y, "restored");
    let again = restored.folded().unwrap();
    assert_same(&values(again.forward(x.clone())), &y, "folded twice");
    // into a model with its norm it does not fit, and the error says what is there too many
    match from_bytes(Net::new(&device), file) {
        Err(StoreError::UnexpectedQuantizers { names }) => assert_eq!(names[0], "norm.input_quantizer"),
        other => panic!("another model: {:?}", other.map(drop)),
    }
}

fn linear(device: &Device) -> QuantLinear {
    Linear { weight: Param::from_tensor(spread([8, 4], device)), bias: None }.into()
}

/// A folded model is quantized on its inputs and has plain weights: the summary says not to train it, and quantizing it
/// again is a warning. Models that rules were applied to are not folded, whatever is off.
pub(super) fn f53() {
    let (_, device) = device();
    let x = spread::<2>([4, 8], &device);
    let config = presets::int8_default();
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let (layer, report) = quantize(linear(&device), &config, run).unwrap();
    assert_eq!((summary(&layer).folded().count(), report.warnings.len()), (0, 0));
    let folded = fold_weights(layer.clone()).unwrap();
    let table = summary(&folded);
    assert_eq!(table.folded().collect::<Vec<_>>(), ["weight"]);
    let said = "the weights of 1 layers are folded, first `weight`: do not train or quantize them again";
    assert!(table.to_string().ends_with(said), "{table}");
    // a record of it is folded too
    let restored = from_bytes(linear(&device), to_bytes(&folded).unwrap()).unwrap();
    assert_eq!(summary(&restored).folded().count(), 1);

    let (_, report) = quantize(folded.clone(), &config, run).unwrap();
    assert_eq!(report.warnings, [Warning::Folded { layer: "weight".into() }]);
    let (_, report) = quantize(layer, &config, run).unwrap();
    assert_eq!(report.warnings, [], "a quantized model keeps its float weights");
    // activations alone, or weights alone, are no folded model
    let mut inputs = config.clone();
    inputs.rules.push(burn_quant::Rule::disable("weight_quantizer"));
    let inputs = QuantConfig { rules: inputs.rules[1..].to_vec(), ..inputs };
    let (layer, report) = quantize(linear(&device), &inputs, run).unwrap();
    assert_eq!((summary(&layer).folded().count(), report.warnings.len()), (0, 0));
    let (layer, _) = quantize_weights(linear(&device), &presets::int8_weight_only()).unwrap();
    assert_eq!(summary(&fold_weights(layer).unwrap()).folded().count(), 0, "a plain model");
}

/// What runs folded for a while computes the same, has no quantizer of a weight, and leaves the model to the bit as it
/// was: weights, ranges and the branch beside a weight; also where it panics.
pub(super) fn f37_temporary_fold() {
    let (_, device) = device();
    let x = spread::<2>([16, 8], &device);
    let config = presets::int8_default().with_algorithm(Algorithm::svdquant(2));
    let (layer, _) = quantize(linear(&device), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
    let (file, y) = (to_bytes(&layer).unwrap(), values(layer.forward(x.clone())));
    let (names, folded) = with_folded_weights(&layer, |folded| {
        (Quantizers::of(folded).names().map(String::from).collect::<Vec<_>>(), values(folded.forward(x.clone())))
    })
    .unwrap();
    assert_eq!(names, ["input_quantizer", "output_quantizer"]);
    assert_same(&folded, &y, "folded");
    let panics = std::panic::AssertUnwindSafe(|| with_folded_weights(&layer, |_| panic!("in the middle")));
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(to_bytes(&layer).unwrap().to_vec(), file.to_vec());
    assert_same(&values(layer.forward(x)), &y, "afterwards");
}
