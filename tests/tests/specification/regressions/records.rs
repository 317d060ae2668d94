//! What broke in the saving and resuming of other toolkits.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::LinearConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::{Quantizers, presets, quantize, summary};
use burn_quant_store::{StoreError, from_bytes, to_bytes};

use crate::{assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    fc: QuantLinear,
    head: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self { fc: LinearConfig::new(6, 5).init(device).into(), head: LinearConfig::new(5, 2).init(device).into() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.fc.forward(x).tanh())
    }

    fn loss(&self, step: usize, device: &Device) -> Tensor<1> {
        let x = spread::<2>([8, 6], device) * (1.0 - 0.1 * step as f32);
        (self.forward(x) - 0.5).powi_scalar(2).mean()
    }
}

fn trained(mut model: Net, steps: std::ops::Range<usize>, device: &Device) -> (Net, Vec<f32>) {
    let mut losses = Vec::new();
    for step in steps {
        let loss = model.loss(step, device);
        losses.push(values(loss.clone().without_autodiff())[0]);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = SgdConfig::new().init().step(0.1, model, gradients);
    }
    (model, losses)
}

/// All float parameters, in order.
struct Numbers(Vec<Vec<f32>>);

impl ModuleVisitor for Numbers {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(values(param.base().without_autodiff()));
    }
}

/// `0.9 · average + 0.1 · model`, as a moving average of weights is.
struct Average(std::vec::IntoIter<Vec<f32>>);

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let newest = self.0.next().expect("as many parameters");
        if !param.is_require_grad() {
            return param; // a range is a constant
        }
        param.map(|tensor| {
            let device = tensor.device();
            let newest = Tensor::<1>::from_data(newest.as_slice(), &device.clone().inner()).reshape(tensor.dims());
            let average = tensor.clone().without_autodiff() * 0.9 + newest * 0.1;
            Tensor::from_data(average.into_data(), &device).require_grad()
        })
    }
}

/// Ten steps at once, and five, a file, a fresh float model, and five more: the same losses to the last bit. Then the
/// moving average of the weights, which is a clone with ranges of its own.
pub(super) fn t41() {
    let (_, plain) = burn_quant_tests::device();
    let device = plain.clone().autodiff();
    let x = spread::<2>([8, 6], &device);
    let config = presets::int8_default();
    let (start, _) = quantize(Net::new(&device), &config, |net| drop(net.forward(x.clone()))).unwrap();

    let (half, _) = trained(start.clone(), 0..5, &device);
    let (_, expected) = trained(half.clone(), 5..10, &device);
    let resumed = from_bytes(Net::new(&device), to_bytes(&half).unwrap()).unwrap();
    let (_, losses) = trained(resumed, 5..10, &device);
    assert_eq!(losses, expected);

    let mut numbers = Numbers(Vec::new());
    half.visit(&mut numbers);
    let average = start.clone().map(&mut Average(numbers.0.into_iter()));
    assert_eq!(summary(&average), summary(&start), "an average has the ranges of calibration");
    let file = to_bytes(&average).unwrap();
    let restored = from_bytes(Net::new(&device), file).unwrap();
    assert_eq!(summary(&restored), summary(&average));
    assert_same(&values(restored.forward(x.clone())), &values(average.forward(x.clone())), "average");
    assert_ne!(values(average.fc.weight.base()), values(start.fc.weight.base()));

    // records of burn: float into quantized and quantized into float are errors, until they are told what is left out
    let float = Net::new(&device);
    let error = start.clone().try_load_record(float.clone().into_record()).unwrap_err().to_string();
    assert!(error.contains("amax"), "{error}");
    let loaded = start.clone().try_load_record(float.clone().into_record().allow_partial(true)).unwrap();
    assert_same(&values(loaded.fc.weight.base()), &values(float.fc.weight.base()), "weights of the float record");
    let ranges = |net: &Net| Quantizers::of(net).iter().filter_map(|(_, q)| q.amax()).map(values).collect::<Vec<_>>();
    assert_eq!(ranges(&loaded), ranges(&start), "ranges stay");
    let error = float.clone().try_load_record(start.clone().into_record()).unwrap_err().to_string();
    assert!(error.contains("amax"), "{error}");
    let back = float.try_load_record(start.clone().into_record().allow_unused(true)).unwrap();
    assert_same(&values(back.fc.weight.val()), &values(start.fc.weight.base()), "weights of the quantized record");
    // and a float record is not one of ours
    let bytes = Net::new(&device).into_record().into_bytes().unwrap();
    assert!(matches!(from_bytes(start, bytes), Err(StoreError::NotQuantized { .. })));
}
