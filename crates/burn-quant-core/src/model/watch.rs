//! Taps on the quantizers of a model, for as long as a value lives.

use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;

use super::{Map, Path, map};
use crate::quantizer::Tap;
use crate::quantizer::TensorQuantizer;

/// A model whose quantizers have taps. The taps end with this value: clones of the model go on without them.
#[derive(Debug)]
pub struct Watched<M> {
    model: M,
    /// What keeps the taps alive; quantizers hold them weakly.
    _taps: Vec<Arc<dyn Tap>>,
}

impl<M: Module> Watched<M> {
    /// Returns the model for validation, under the same taps.
    ///
    /// A weight whose quantizer has no tap is rounded once, and not at each call. `watch(model.valid(), …)` gives a
    /// model that rounds at each call: whatever installs taps may have changed the weight.
    pub fn into_valid(self) -> Self {
        Self { model: self.model.valid(), _taps: self._taps }
    }
}

impl<M> Deref for Watched<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.model
    }
}

/// Installs taps on the quantizers of a model: `tap` names one for each stage of each quantizer, or none.
///
/// The stages of a chain after the first have the name of the chain with `.1`, `.2` appended. Taps that were there are
/// replaced or removed.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use std::sync::{Arc, Mutex};
///
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::TensorQuantizer;
/// use burn_quant::tap::{AnyTensor, Flow, Tap, watch};
///
/// #[derive(Debug, Default)]
/// struct Shapes(Mutex<Vec<Vec<usize>>>);
///
/// impl Tap for Shapes {
///     fn input(&self, _: &TensorQuantizer, x: &AnyTensor) -> Flow {
///         self.0.lock().unwrap().push(x.shape().to_vec());
///         Flow::Quantize
///     }
/// }
///
/// let (device, seen) = (Device::flex(), Arc::new(Shapes::default()));
/// let layer = LinearConfig::new(4, 2).init(&device);
/// let watched = watch(layer, |name, _| (name == "input_quantizer").then(|| seen.clone() as Arc<dyn Tap>));
/// watched.forward(Tensor::<2>::ones([3, 4], &device));
/// assert_eq!(*seen.0.lock().unwrap(), [[3, 4]]);
/// # }
/// ```
pub fn watch<M: Module>(model: M, tap: impl FnMut(&str, &TensorQuantizer) -> Option<Arc<dyn Tap>>) -> Watched<M> {
    struct Install<F> {
        tap: F,
        taps: Vec<Arc<dyn Tap>>,
    }
    impl<F: FnMut(&str, &TensorQuantizer) -> Option<Arc<dyn Tap>>> Map for Install<F> {
        fn quantizer(&mut self, at: &Path, mut quantizer: TensorQuantizer) -> TensorQuantizer {
            quantizer.for_each_stage(&at.quantizer_name(), |name, stage| match (self.tap)(&name, stage) {
                Some(tap) => {
                    stage.set_tap(&tap);
                    self.taps.push(tap);
                }
                None => stage.clear_tap(),
            });
            quantizer
        }
    }
    let mut work = Install { tap, taps: Vec::new() };
    let model = map(model, &mut work);
    Watched { model, _taps: work.taps }
}
