//! The taps of the three passes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{Quantizers, Watched, layer_of, watch};
use burn_quant_core::quantizer::{AnyTensor, Bypass, Flow, LayerCall, Tap, TensorQuantizer};

use super::sample::SharedPlaces;
use super::{LayerSums, QuantizerSums};

/// What is known of the activation quantizer of one name, and of the layer behind it.
#[derive(Debug, Default)]
struct Watch {
    /// The outputs of the float model in this batch.
    float: Vec<AnyTensor>,
    /// Outputs of the forced pass that were compared in this batch.
    forced: usize,
    /// Outputs of the free pass that were compared in this batch.
    free: usize,
    /// Tensors that wait for what rounding makes of them.
    waiting: VecDeque<AnyTensor>,
    quantizer: QuantizerSums,
    layer: LayerSums,
    /// The place of the layer in the order of the first calls.
    order: Option<usize>,
}

type Shared = Arc<Mutex<Watch>>;

fn lock(watch: &Shared) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the outputs of the layers of the float model.
#[derive(Debug)]
struct FloatTap {
    watch: Shared,
    calls: Arc<Mutex<usize>>,
}

impl Tap for FloatTap {
    fn input(&self, _: &TensorQuantizer, _: &AnyTensor) -> Flow {
        Flow::Bypass
    }

    fn watches_layer(&self) -> bool {
        true
    }

    fn layer(&self, call: LayerCall) -> AnyTensor {
        let mut watch = lock(&self.watch);
        if watch.order.is_none() {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            watch.order = Some(*calls);
            *calls += 1;
        }
        watch.float.push(call.output.clone());
        call.output
    }
}

/// Compares the layers of the quantized model: in the forced pass each by itself, handing on the output of the float
/// model; in the free pass as it comes.
///
/// Both passes go through one model, whose weights are rounded once.
#[derive(Debug)]
struct QuantizedTap {
    watch: Shared,
    places: Arc<SharedPlaces>,
    role: Role,
    free: Arc<AtomicBool>,
}

impl QuantizedTap {
    fn is_free(&self) -> bool {
        self.free.load(Ordering::Relaxed)
    }
}

impl Tap for QuantizedTap {
    fn input(&self, quantizer: &TensorQuantizer, x: &AnyTensor) -> Flow {
        if quantizer.is_enabled() && !self.is_free() {
            lock(&self.watch).waiting.push_back(x.clone());
        }
        Flow::Quantize
    }

    fn output(&self, _: &TensorQuantizer, y: &AnyTensor) {
        let mut watch = lock(&self.watch);
        if let Some(x) = watch.waiting.pop_front() {
            watch.quantizer.add(self.role, &x, y, &self.places);
        }
    }

    fn watches_layer(&self) -> bool {
        true
    }

    fn layer(&self, call: LayerCall) -> AnyTensor {
        let mut watch = lock(&self.watch);
        let calls = if self.is_free() { &mut watch.free } else { &mut watch.forced };
        let place = *calls;
        *calls += 1;
        let float = watch.float.get(place).cloned().filter(|float| float.shape() == call.output.shape());
        match float {
            Some(float) if self.is_free() => {
                watch.layer.add_free(&float, &call.output);
                call.output
            }
            Some(float) => {
                watch.layer.add_own(self.role, &float, &call.output);
                in_dtype_of(&float, &call.output)
            }
            None => call.output,
        }
    }
}

/// A float output in the dtype, and on the device, that the quantized model computes in.
fn in_dtype_of(float: &AnyTensor, quantized: &AnyTensor) -> AnyTensor {
    let like = quantized.flat();
    let flat = float.flat().without_autodiff().to_device(&like.device().without_autodiff()).cast(like.dtype());
    AnyTensor::new(flat, float.shape().to_vec())
}

/// The models of the three passes, watched.
pub(crate) struct Passes<M> {
    /// The float model.
    float: Watched<M>,
    /// The quantized model.
    quantized: Watched<M>,
    /// Whether its layers get what it computes, and not the inputs of the float model.
    free: Arc<AtomicBool>,
    watches: BTreeMap<String, Shared>,
}

impl<M: Module> Passes<M> {
    /// Watches both models.
    pub(crate) fn new(float: &M, quantized: &M) -> Self {
        let quantizers = Quantizers::of(quantized);
        let activations = quantizers.iter().filter(|(_, quantizer)| !matches!(quantizer.role(), Role::Weight(_)));
        let watches: BTreeMap<String, Shared> =
            activations.map(|(name, _)| (name.to_string(), Shared::default())).collect();
        let (bypass, calls): (Arc<dyn Tap>, _) = (Arc::new(Bypass), Arc::default());
        let float = watch(float.valid(), |name, _| match watches.get(name) {
            Some(watch) => Some(Arc::new(FloatTap { watch: watch.clone(), calls: Arc::clone(&calls) })),
            None => Some(bypass.clone()),
        });
        let (places, free) = (Arc::<SharedPlaces>::default(), Arc::<AtomicBool>::default());
        let quantized = watch(quantized.clone(), |name, quantizer| {
            let (watch, role) = (watches.get(name)?.clone(), quantizer.role());
            Some(Arc::new(QuantizedTap { watch, places: places.clone(), role, free: free.clone() }))
        });
        Self { float, quantized: quantized.into_valid(), free, watches }
    }

    /// The float model, for the first pass.
    pub(crate) fn float(&self) -> &M {
        &self.float
    }

    /// The quantized model whose layers get the inputs of the float model, for the second pass.
    pub(crate) fn forced(&self) -> &M {
        self.free.store(false, Ordering::Relaxed);
        &self.quantized
    }

    /// The quantized model, for the third pass.
    pub(crate) fn free(&self) -> &M {
        self.free.store(true, Ordering::Relaxed);
        &self.quantized
    }

    /// Forgets the outputs of a batch.
    pub(crate) fn next_batch(&self) {
        for watch in self.watches.values() {
            let mut watch = lock(watch);
            watch.float.clear();
            watch.waiting.clear();
            (watch.forced, watch.free) = (0, 0);
        }
    }

    /// Ends the passes: the sums by quantizer, and those by layer in the order of calls.
    pub(crate) fn finish(self) -> (BTreeMap<String, QuantizerSums>, Vec<(String, LayerSums)>) {
        drop((self.float, self.quantized));
        let (mut quantizers, mut layers) = (BTreeMap::new(), Vec::new());
        for (name, watch) in self.watches {
            let watch = std::mem::take(&mut *lock(&watch));
            if let Some(order) = watch.order {
                layers.push((order, layer_of(&name).to_string(), watch.layer));
            }
            quantizers.insert(name, watch.quantizer);
        }
        layers.sort_by_key(|(order, ..)| *order);
        (quantizers, layers.into_iter().map(|(_, path, sums)| (path, sums)).collect())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tensor};
    use burn_quant::{QuantizerConfig, Rule, nn, presets, quantize_weights};

    use super::*;

    /// Elements of the input that were looked at in three passes of one batch.
    fn sampled(input: Rule) -> usize {
        let device = Device::flex();
        let float = nn::LinearConfig::new(2, 2).init(&device);
        let config = presets::int8_weight_only().with_rule(input);
        let (quantized, _) = quantize_weights(float.clone(), &config).unwrap();
        let (passes, x) = (Passes::new(&float, &quantized), Tensor::<2>::ones([3, 2], &device));
        passes.float().forward(x.clone());
        passes.forced().forward(x.clone());
        passes.free().forward(x);
        let (mut quantizers, layers) = passes.finish();
        assert_eq!(layers.len(), 1);
        let sample = quantizers.remove("input_quantizer").unwrap().on_host().sample;
        sample.iter().map(|values| values.x.len()).sum()
    }

    #[test]
    fn inputs_are_sampled_in_one_pass_and_only_where_they_are_rounded() {
        assert_eq!(sampled(Rule::disable("*input_quantizer")), 0);
        assert_eq!(sampled(Rule::set("*input_quantizer", QuantizerConfig::int(8).constant(1.0))), 6);
    }
}
