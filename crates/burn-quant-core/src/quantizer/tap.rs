//! The one hook of the project: whatever watches a model is a [`Tap`] on its quantizers.
//!
//! ```text
//! x ──► smoothing ──► Tap::input ──► rounding ──► Tap::output ──► layer ──► Tap::layer
//! ```
//!
//! A quantizer holds its tap weakly. The taps belong to the scope that installed them, [`watch`](crate::model::watch),
//! and end with it: a clone that was made meanwhile quantizes like any other afterwards.

use std::sync::{Arc, Weak};

use burn::tensor::Tensor;

use super::{AnyTensor, TensorQuantizer};

/// What a quantizer does with a tensor that its tap has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Quantizes it, if the quantizer is enabled.
    Quantize,
    /// Passes it on in float.
    Bypass,
}

/// Watches the tensors of one quantizer, and the layer that it belongs to.
///
/// Every method has a default that changes nothing.
pub trait Tap: std::fmt::Debug + Send + Sync {
    /// Sees a tensor that came to the quantizer, after smoothing, and decides whether it is quantized.
    fn input(&self, quantizer: &TensorQuantizer, x: &AnyTensor) -> Flow {
        let _ = (quantizer, x);
        Flow::Quantize
    }

    /// Sees what left the quantizer: the tensor itself if the quantizer is disabled. Not called after [`Flow::Bypass`].
    fn output(&self, quantizer: &TensorQuantizer, y: &AnyTensor) {
        let _ = (quantizer, y);
    }

    /// Whether [`Tap::layer`] is to be called.
    fn watches_layer(&self) -> bool {
        false
    }

    /// Sees one call of the layer behind the quantizer; the tensor that it returns takes the place of the output.
    fn layer(&self, call: LayerCall) -> AnyTensor {
        call.output
    }
}

/// Computes the output of a layer, without its bias, from any input and weight.
pub type Product = Box<dyn Fn(&AnyTensor, &AnyTensor) -> AnyTensor + Send>;

/// One call of a layer.
pub struct LayerCall {
    /// The input as it came to the quantizer.
    pub input: AnyTensor,
    /// The output.
    pub output: AnyTensor,
    /// The function between them.
    pub product: Product,
}

impl std::fmt::Debug for LayerCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerCall({:?} -> {:?})", self.input.shape(), self.output.shape())
    }
}

/// Passes every tensor on in float.
#[derive(Clone, Copy, Debug)]
pub struct Bypass;

impl Tap for Bypass {
    fn input(&self, _: &TensorQuantizer, _: &AnyTensor) -> Flow {
        Flow::Bypass
    }
}

/// The tap of a quantizer, if the scope that installed it lasts.
#[derive(Clone, Debug, Default)]
pub(super) struct TapSlot(Option<Weak<dyn Tap>>);

impl TapSlot {
    pub(super) fn of(tap: &Arc<dyn Tap>) -> Self {
        Self(Some(Arc::downgrade(tap)))
    }

    pub(super) fn get(&self) -> Option<Arc<dyn Tap>> {
        self.0.as_ref()?.upgrade()
    }
}

impl TensorQuantizer {
    /// Runs the layer that this quantizer stands before: quantizes the input, multiplies, adds the branch of low rank
    /// if there is one, and shows the call to a [`Tap`].
    ///
    /// ```text
    /// y = product(Q(x ⊙ s), weight, bias) + (x ⊙ s) · down · up
    /// ```
    ///
    /// `product` computes the layer from any input and weight; its bias may be left out. A layer of yours that calls
    /// this can be scored by gradients, as those of `nn` can.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::module::{Module, Param};
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant::TensorQuantizer;
    /// use burn_quant::place::Role;
    ///
    /// #[derive(Module, Debug)]
    /// struct Projection { weight: Param<Tensor<2>>, input_quantizer: TensorQuantizer }
    ///
    /// impl Projection {
    ///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
    ///         self.input_quantizer.layer(x, self.weight.val(), None, |x, weight, _| x.matmul(weight))
    ///     }
    /// }
    /// # let weight = Param::from_tensor(Tensor::ones([3, 2], &Device::flex()));
    /// # let layer = Projection { weight, input_quantizer: TensorQuantizer::disabled(Role::ChannelsLast) };
    /// # let y = layer.forward(Tensor::ones([1, 3], &Device::flex()));
    /// # assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [3.0, 3.0]);
    /// # }
    /// ```
    pub fn layer<const D: usize, const W: usize>(
        &self,
        input: Tensor<D>,
        weight: Tensor<W>,
        bias: Option<Tensor<1>>,
        product: impl Fn(Tensor<D>, Tensor<W>, Option<Tensor<1>>) -> Tensor<D> + Send + 'static,
    ) -> Tensor<D> {
        let tap = self.tap.get().filter(|tap| tap.watches_layer());
        let seen = tap.map(|tap| (tap, AnyTensor::from(input.clone())));
        let branch = self.low_rank(&input);
        let output = product(self.forward(input), weight, bias);
        let output = match branch {
            None => output,
            Some(branch) => output + branch,
        };
        let Some((tap, input)) = seen else { return output };
        let product: Product = Box::new(move |x, weight| product(x.ranked(), weight.ranked(), None).into());
        tap.layer(LayerCall { input, output: output.into(), product }).ranked()
    }
}
