//! Layers that are linear in their input: what their output and input channels are.

use burn::module::{Param, Reparameterization};
use burn::tensor::{Device, Tensor};
use burn_nn::Linear;
use burn_nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};

use burn_quant_core::error::QuantError;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::parameter::in_place_of;
use burn_quant_nn::{ActivationQuantized, SingleOperation};

/// A layer that is linear in its input, but for a bias.
///
/// Its weight is seen as `[groups, out / groups, in / groups, kernel]`: the channels of a grouped convolution are
/// numbered group by group. Implement it for a layer of yours to fold and equalize it.
pub trait LinearMap: Sized {
    /// The weight, `[groups, out / groups, in / groups, kernel]`.
    fn weight(&self) -> Tensor<4>;

    /// The bias, `[out]`.
    fn bias(&self) -> Option<Tensor<1>>;

    /// The layer with another weight, in the form of [`LinearMap::weight`], and another bias.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlreadyQuantized`] if its weight has a quantizer: the ranges would be those of another weight.
    fn with(self, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Self, QuantError>;
}

/// A parameter with another value.
fn replaced<const D: usize>(param: Param<Tensor<D>>, value: Tensor<D>) -> Result<Param<Tensor<D>>, QuantError> {
    if param.reparameterization::<TensorQuantizer>().is_some() {
        return Err(QuantError::AlreadyQuantized { by: TensorQuantizer::NAME });
    }
    Ok(param.map(|old| in_place_of(&old, value)))
}

/// A bias with another value; a layer that had none gets one.
fn replaced_bias(
    param: Option<Param<Tensor<1>>>,
    value: Option<Tensor<1>>,
    device: &Device,
) -> Option<Param<Tensor<1>>> {
    match (param, value) {
        (param, None) => param,
        (None, Some(value)) => Some(Param::from_tensor(value.to_device(device))),
        (Some(param), Some(value)) => Some(param.map(|old| in_place_of(&old, value))),
    }
}

/// A layer with activation quantizers is the map of burn's layer inside it.
impl<L: SingleOperation + LinearMap> LinearMap for ActivationQuantized<L> {
    fn weight(&self) -> Tensor<4> {
        (**self).weight()
    }

    fn bias(&self) -> Option<Tensor<1>> {
        (**self).bias()
    }

    fn with(self, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Self, QuantError> {
        self.try_map_layer(|layer| layer.with(weight, bias))
    }
}

impl LinearMap for Linear {
    fn weight(&self) -> Tensor<4> {
        let weight = self.weight.base().without_autodiff().transpose();
        let [outputs, inputs] = weight.dims();
        weight.reshape([1, outputs, inputs, 1])
    }

    fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(|bias| bias.val().without_autodiff())
    }

    fn with(mut self, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Self, QuantError> {
        let [_, outputs, inputs, _] = weight.dims();
        self.weight = replaced(self.weight, weight.reshape([outputs, inputs]).transpose())?;
        self.bias = replaced_bias(self.bias, bias, &self.weight.lazy_device());
        Ok(self)
    }
}

macro_rules! convolution {
    ($($layer:ident),+) => {$(
        impl LinearMap for $layer {
            fn weight(&self) -> Tensor<4> {
                let weight = self.weight.base().without_autodiff();
                let [outputs, inputs, ..] = weight.dims();
                let kernel = weight.dims()[2..].iter().product();
                weight.reshape([self.groups, outputs / self.groups, inputs, kernel])
            }

            fn bias(&self) -> Option<Tensor<1>> {
                self.bias.as_ref().map(|bias| bias.val().without_autodiff())
            }

            fn with(mut self, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Self, QuantError> {
                let shape = self.weight.lazy_shape();
                self.weight = replaced(self.weight, weight.reshape(shape))?;
                self.bias = replaced_bias(self.bias, bias, &self.weight.lazy_device());
                Ok(self)
            }
        }
    )+};
}

macro_rules! transposed_convolution {
    ($($layer:ident),+) => {$(
        impl LinearMap for $layer {
            fn weight(&self) -> Tensor<4> {
                let weight = self.weight.base().without_autodiff();
                let [inputs, outputs, ..] = weight.dims();
                let kernel = weight.dims()[2..].iter().product();
                let weight: Tensor<4> = weight.reshape([self.groups, inputs / self.groups, outputs, kernel]);
                weight.swap_dims(1, 2)
            }

            fn bias(&self) -> Option<Tensor<1>> {
                self.bias.as_ref().map(|bias| bias.val().without_autodiff())
            }

            fn with(mut self, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Self, QuantError> {
                let shape = self.weight.lazy_shape();
                self.weight = replaced(self.weight, weight.swap_dims(1, 2).reshape(shape))?;
                self.bias = replaced_bias(self.bias, bias, &self.weight.lazy_device());
                Ok(self)
            }
        }
    )+};
}

convolution!(Conv1d, Conv2d, Conv3d);
transposed_convolution!(ConvTranspose1d, ConvTranspose2d, ConvTranspose3d);

/// A value per output channel, `[out]`, in the form of a weight.
pub(super) fn along_outputs(values: Tensor<1>, weight: &Tensor<4>) -> Tensor<4> {
    let [groups, outputs, _, _] = weight.dims();
    values.reshape([groups, outputs, 1, 1])
}

/// A value per input channel, `[in]`, in the form of a weight.
pub(super) fn along_inputs(values: Tensor<1>, weight: &Tensor<4>) -> Tensor<4> {
    let [groups, _, inputs, _] = weight.dims();
    values.reshape([groups, 1, inputs, 1])
}
