//! Sums of what quantization does to the output of a layer.

use burn::tensor::{DType, Tensor};
use burn_quant_core::layout::Role;
use burn_quant_core::model::host;
use burn_quant_core::quantizer::AnyTensor;
use burn_quant_core::quantizer::groups::group_sums;
use burn_quant_ops::Groups;

use super::{add, amax, decibels, raise, total, wide};

/// Sums over the calls of one layer, on the device.
#[derive(Debug, Default)]
pub(crate) struct LayerSums {
    calls: u64,
    elements: f64,
    signal: Option<Tensor<1>>,
    own: Option<Tensor<1>>,
    own_mean: Option<Tensor<1>>,
    free: Option<Tensor<1>>,
    float_amax: Option<Tensor<1>>,
    free_amax: Option<Tensor<1>>,
    free_elements: f64,
    /// How many of them are NaN or infinite.
    outside: Option<Tensor<1>>,
    dtype: Option<DType>,
}

impl LayerSums {
    /// Adds an output of the layer by itself. One without elements, as that of an expert without tokens, says nothing.
    pub(crate) fn add_own(&mut self, role: Role, float: &AnyTensor, quantized: &AnyTensor) {
        if float.shape().contains(&0) {
            return;
        }
        let groups = channels(role, float.shape());
        let (float, quantized) = (wide(float), wide(quantized));
        let noise = quantized - float.clone();
        self.elements += noise.dims()[0] as f64;
        self.calls += 1;
        add(&mut self.own_mean, noise.clone().sum());
        raise(&mut self.float_amax, amax(float.clone(), &Groups::per_tensor(groups.shape())));
        add_channels(&mut self.signal, float.square(), &groups);
        add_channels(&mut self.own, noise.square(), &groups);
    }

    /// Adds an output of the layer in the quantized model.
    pub(crate) fn add_free(&mut self, float: &AnyTensor, quantized: &AnyTensor) {
        if float.shape().contains(&0) {
            return;
        }
        self.dtype = Some(quantized.flat().dtype());
        let whole = Groups::per_tensor(float.shape());
        let (float, quantized) = (wide(float), wide(quantized));
        self.free_elements += quantized.dims()[0] as f64;
        let outside = quantized.clone().is_finite().bool_not();
        add(&mut self.outside, outside.float().cast(DType::F32).sum());
        raise(&mut self.free_amax, amax(quantized.clone(), &whole));
        add(&mut self.free, (quantized - float).square().sum());
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// Brings the sums to the host.
    pub(crate) fn on_host(self) -> LayerNumbers {
        let numbers = |sum: Option<Tensor<1>>| sum.map(host).unwrap_or_default();
        let first = |sum: Option<Tensor<1>>| sum.map_or(0.0, |sum| host(sum)[0]);
        LayerNumbers {
            calls: self.calls,
            elements: self.elements,
            signal: numbers(self.signal),
            own: numbers(self.own),
            own_sum: first(self.own_mean).into(),
            free: self.free.map(|sum| host(sum)[0].into()),
            float_amax: first(self.float_amax),
            free_amax: first(self.free_amax),
            non_finite: f64::from(first(self.outside)) / self.free_elements.max(1.0),
            dtype: self.dtype,
        }
    }
}

/// What was measured of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerNumbers {
    /// Calls.
    pub(crate) calls: u64,
    elements: f64,
    /// Sums of squares of each channel of the float output.
    signal: Vec<f32>,
    /// Sums of squared errors of each channel, of the layer by itself.
    own: Vec<f32>,
    own_sum: f64,
    /// Squared errors in the quantized model; `None` where its outputs have other shapes, as those of experts.
    free: Option<f64>,
    /// The largest magnitude of the float output.
    pub(crate) float_amax: f32,
    /// The largest magnitude of the output in the quantized model.
    pub(crate) free_amax: f32,
    /// Values of that which are not finite, as a share.
    pub(crate) non_finite: f64,
    /// What the quantized model computes in.
    pub(crate) dtype: Option<DType>,
}

impl LayerNumbers {
    /// Signal to noise of the layer by itself, in decibels.
    pub(crate) fn own_sqnr(&self) -> Option<f64> {
        decibels(total(&self.signal), total(&self.own))
    }

    /// Signal to noise in the quantized model, in decibels.
    pub(crate) fn sqnr(&self) -> Option<f64> {
        decibels(total(&self.signal), self.free?)
    }

    /// The noise of the layer by itself over its signal; 0 where either is unknown.
    pub(crate) fn own_ratio(&self) -> f64 {
        let ratio = total(&self.own) / total(&self.signal);
        if ratio.is_finite() { ratio } else { 0.0 }
    }

    /// The mean of the error of the layer by itself, over its root mean square.
    pub(crate) fn shift(&self) -> Option<f64> {
        let shift = self.own_sum / (self.elements * total(&self.own)).sqrt();
        shift.is_finite().then_some(shift)
    }

    /// Signal to noise of each channel, the layer by itself.
    pub(crate) fn channel_sqnr(&self, most: usize) -> Vec<f32> {
        let channels = self.signal.iter().zip(&self.own).take(most);
        channels.map(|(signal, own)| decibels((*signal).into(), (*own).into()).unwrap_or(0.0) as f32).collect()
    }
}

fn channels(role: Role, shape: &[usize]) -> Groups {
    Groups::per_channel(shape, role.channel_axis(shape.len()))
}

/// Adds the sums of channels, or of everything where calls have different channels.
fn add_channels(sum: &mut Option<Tensor<1>>, squares: Tensor<1>, groups: &Groups) {
    match sum.as_ref().map(|sum| sum.dims()[0]) {
        Some(channels) if channels != groups.len() => {
            *sum = sum.take().map(Tensor::sum);
            add(sum, squares.sum());
        }
        _ => add(sum, group_sums(squares, groups)),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(values: [f32; 2]) -> AnyTensor {
        let x: Tensor<2> = Tensor::<1>::from_floats(values, &Device::flex()).reshape([1, 2]);
        x.into()
    }

    /// 25 over 0.25 is 20 dB.
    fn sums() -> LayerSums {
        let mut sums = LayerSums::default();
        sums.add_own(Role::ChannelsLast, &tensor([3.0, 4.0]), &tensor([3.0, 4.5]));
        sums
    }

    #[test]
    fn a_layer_that_was_not_compared_in_the_model_has_no_noise_there() {
        let is_20 = |decibels: Option<f64>| decibels.is_some_and(|it| (it - 20.0).abs() < 1e-6);
        let numbers = sums().on_host();
        assert!(is_20(numbers.own_sqnr()), "{:?}", numbers.own_sqnr());
        assert_eq!(numbers.sqnr(), None);
        let mut compared = sums();
        compared.add_free(&tensor([3.0, 4.0]), &tensor([3.5, 4.0]));
        let numbers = compared.on_host();
        assert!(is_20(numbers.sqnr()), "{:?}", numbers.sqnr());
    }

    #[test]
    fn what_is_not_finite_is_counted() {
        let mut sums = sums();
        sums.add_free(&tensor([3.0, 4.0]), &tensor([3.0, f32::NAN]));
        sums.add_free(&tensor([3.0, 4.0]), &tensor([3.0, 4.0]));
        assert_eq!(sums.on_host().non_finite, 0.25);
    }
}
