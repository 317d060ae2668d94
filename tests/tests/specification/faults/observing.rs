//! What is observed, where, for how long, and what it costs.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{Histogram, SkipReason, Warning};
use burn_quant::config::HistogramConfig;
use burn_quant::nn::{LinearConfig, QuantLinear};
use burn_quant::place::Role;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, disable, enable, presets,
    quantize, quantize_weights,
};
use burn_quant_tests::{device, processor};

use crate::{spread, values};

fn linear(device: &Device) -> QuantLinear {
    LinearConfig::new(4, 2).init(device)
}

/// An activation that was always zero is named, with what will happen.
pub(super) fn an_activation_of_zeros_is_a_warning() {
    let (_, device) = device();
    let zeros = Tensor::<2>::zeros([3, 4], &device);
    let (layer, report) =
        quantize(linear(&device), &presets::int8_default(), |layer| drop(layer.forward(zeros.clone()))).unwrap();
    assert_eq!(report.warnings, [Warning::OnlyZeros { quantizer: "input_quantizer".into() }]);
    assert!(report.to_string().contains("`input_quantizer` saw only zeros and will give only zeros"), "{report}");
    assert_eq!(
        values(layer.forward(spread([1, 4], &device))),
        values(layer.bias.as_ref().unwrap().val()),
        "as it says"
    );
}

/// Counts of a bin that a 32-bit integer could not hold are added up on the host.
pub(super) fn counts_do_not_wrap() {
    let config = HistogramConfig { bins: 16, ..HistogramConfig::default() };
    let half = Histogram { origin: 0.0, width: 0.125, counts: vec![i32::MAX as u64 - 1] };
    let both = half.merge(&half).unwrap();
    assert_eq!(both.total(), 2 * (i32::MAX as u64 - 1));
    // tensors on one device are counted there, in as many histograms as their elements need
    let (_, device) = device();
    let x = Tensor::<2>::ones([64, 4], &device);
    let config = presets::int8_default().with_algorithm(Algorithm::Percentile { percentile: 99.0, histogram: config });
    let (_, report) = quantize(linear(&device), &config, |layer| {
        (0..3).for_each(|_| drop(layer.forward(x.clone())));
    })
    .unwrap();
    let seen = report.statistics.get("input_quantizer").unwrap();
    assert_eq!(seen.histogram.as_ref().unwrap().total(), 3 * 64 * 4);
}

/// Two ways of counting, or of choosing a range, cannot both hold for one quantizer.
pub(super) fn two_ranges_for_one_activation_are_refused() {
    let (_, device) = device();
    let steps = |steps: Vec<Algorithm>| {
        let config = presets::int8_default().with_algorithm(Algorithm::Sequence(steps));
        quantize(linear(&device), &config, |layer| drop(layer.forward(spread::<2>([8, 4], &device)))).map(|_| ())
    };
    let conflict = |found: Result<(), QuantError>| match found.unwrap_err() {
        QuantError::StepsConflict { at, first, second, .. } => (at, first, second),
        other => panic!("{other}"),
    };
    let (at, first, second) = conflict(steps(vec![Algorithm::percentile(99.0), Algorithm::entropy()]));
    assert_eq!((at.as_str(), first.as_str(), second.as_str()), ("input_quantizer", "percentile", "entropy"));
    let (at, first, second) = conflict(steps(vec![Algorithm::percentile(99.0), Algorithm::smoothquant(0.5)]));
    assert_eq!((at.as_str(), first.as_str(), second.as_str()), ("input_quantizer", "smoothquant", "percentile"));
    let gptq = |inputs| {
        let order = burn_quant::config::ActOrder::Off;
        Algorithm::Gptq { damping: 0.01, block_size: 128, act_order: order, inputs }
    };
    let hessian = Algorithm::LocalHessian {
        search: burn_quant::config::RangeSearch::default(),
        block_size: 16,
        inputs: burn_quant::config::CalibrationInputs::Float,
    };
    let (at, ..) = conflict(steps(vec![hessian, gptq(burn_quant::config::CalibrationInputs::Quantized)]));
    assert_eq!(at, "the inputs of layers");
}

/// Clones that the forward loop makes observe as long as it runs, and quantize afterwards.
pub(super) fn a_clone_does_not_go_on_observing() {
    let (_, device) = device();
    let kept = RefCell::new(None);
    let x = spread::<2>([3, 4], &device);
    let config = QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::int(4).dynamic()));
    let static_input = config.with_rule(Rule::set("input_quantizer", QuantizerConfig::int(4)));
    let (layer, report) = quantize(linear(&device), &static_input, |layer| {
        let clone = layer.clone();
        clone.forward(x.clone());
        *kept.borrow_mut() = Some(clone);
    })
    .unwrap();
    assert_eq!(report.statistics.get("input_quantizer").unwrap().calls, 1, "the clone reported");
    let clone = kept.into_inner().unwrap();
    // its weight is rounded again, and its input is what an uncalibrated one is: a panic that says so
    assert_eq!(values(clone.weight.val()), values(layer.weight.val()));
    let forward = std::panic::AssertUnwindSafe(|| clone.forward(x.clone()));
    let panic = std::panic::catch_unwind(forward).unwrap_err();
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains("never calibrated"), "{message}");
}

/// A model of many layers, with the traversals of it counted.
#[derive(Clone, Debug)]
struct Counted {
    layers: Vec<burn::nn::Linear>,
}

static TRAVERSALS: AtomicUsize = AtomicUsize::new(0);

impl Module for Counted {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        TRAVERSALS.fetch_add(1, Ordering::Relaxed);
        for (i, layer) in self.layers.iter().enumerate() {
            visitor.enter_module(&i.to_string(), "Vec");
            layer.visit(visitor);
            visitor.exit_module(&i.to_string(), "Vec");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        TRAVERSALS.fetch_add(1, Ordering::Relaxed);
        let map = |(i, layer): (usize, burn::nn::Linear)| {
            mapper.enter_module(&i.to_string(), "Vec");
            let layer = layer.map(mapper);
            mapper.exit_module(&i.to_string(), "Vec");
            layer
        };
        Self { layers: self.layers.into_iter().enumerate().map(map).collect() }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { layers: self.layers.to_device(device) }
    }

    fn fork(self, device: &Device) -> Self {
        Self { layers: self.layers.fork(device) }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.layers.collect_devices(devices)
    }

    fn materialize(self) -> Self {
        Self { layers: self.layers.materialize() }
    }

    fn valid(&self) -> Self {
        Self { layers: self.layers.valid() }
    }

    fn train(self) -> Self {
        Self { layers: Module::train(self.layers) }
    }
}

impl ModuleDisplayDefault for Counted {
    fn content(&self, content: Content) -> Option<Content> {
        Some(content)
    }
}

impl ModuleDisplay for Counted {}

/// A model is walked through as often as there are stages, whatever its size, and time grows with the layers.
pub(super) fn a_model_is_walked_through_a_few_times() {
    let device = processor();
    let model = |layers: usize| {
        let layer = || {
            let weight = Param::from_tensor(spread([2, 2], &device));
            burn::nn::Linear { weight, bias: None }
        };
        Counted { layers: (0..layers).map(|_| layer()).collect() }
    };
    let config = presets::int8_weight_only();
    for layers in [200, 2000] {
        let before = TRAVERSALS.load(Ordering::Relaxed);
        let (_, report) = quantize(model(layers), &config, |_| {}).unwrap();
        let traversals = TRAVERSALS.load(Ordering::Relaxed) - before;
        assert_eq!(report.statistics.len(), layers);
        assert!(traversals <= 12, "{traversals} traversals of {layers} layers");
    }

    // ten times the layers are ten times the work; of what grows with their square it would be a hundred times. A
    // machine with something else to do may measure more once, but not every time.
    let time = |layers: usize| {
        let model = model(layers);
        let start = processor_time();
        quantize_weights(model, &config).unwrap();
        processor_time() - start
    };
    let ratios = std::iter::repeat_with(|| time(2000).as_secs_f64() / time(200).as_secs_f64());
    let ratios: Vec<f64> = ratios.take(5).collect();
    assert!(ratios.iter().any(|&ratio| ratio < 40.0), "2000 layers take {ratios:?} times the time of 200");
}

/// What this thread computed for, whatever the other tests do meanwhile.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[derive(Module, Debug)]
struct Experts {
    experts: Vec<QuantLinear>,
}

/// Learned ranges of an expert without tokens begin where its siblings' largest magnitude is.
pub(super) fn an_expert_without_tokens_can_learn_its_range() {
    let (_, device) = device();
    let model = Experts { experts: (0..2).map(|_| linear(&device)).collect() };
    let rules = QuantConfig::new().with_rule(Rule::set("*_quantizer", QuantizerConfig::int(4).lsq()));
    let config = rules.with_rule(Rule::disable("*output_quantizer")).with_algorithm(Algorithm::LsqInit);
    let x = spread::<2>([8, 4], &device);
    let (model, report) = quantize(model, &config, |model| drop(model.experts[0].forward(x.clone()))).unwrap();
    let of = |expert: usize| {
        let name = format!("experts.{expert}.input_quantizer");
        values(Quantizers::of(&model).get(&name).unwrap().amax().unwrap())[0]
    };
    assert_eq!(of(1), report.statistics.get("experts.0.input_quantizer").unwrap().amax[0]);
    let second = report.layers.iter().find(|layer| layer.layer == "experts.1.input_quantizer").unwrap();
    assert!(second.steps.iter().all(|step| step.skipped == Some(SkipReason::NoTokens)), "{second}");
}

/// A NaN is in a call of the quantizer, or in a weight: the error says which.
pub(super) fn a_nan_is_where_the_error_says() {
    let (_, device) = device();
    let x = spread::<2>([3, 4], &device);
    let nan = x.clone().slice_fill([0..1, 0..1], f32::NAN);
    let error = quantize(linear(&device), &presets::int8_default(), |layer| {
        [&x, &x, &nan].into_iter().for_each(|x| drop(layer.forward(x.clone())));
    })
    .unwrap_err();
    assert_eq!(error, QuantError::NonFinite { name: "input_quantizer".into(), batch: Some(2) });
    assert!(error.to_string().contains("in its 3rd call"), "{error}");
    let mut broken = linear(&device);
    broken.weight = Param::from_tensor(spread([4, 2], &device).slice_fill([0..1, 0..1], f32::INFINITY));
    let error = quantize_weights(broken, &presets::int8_weight_only()).unwrap_err();
    assert_eq!(error, QuantError::NonFiniteWeight { name: "weight_quantizer".into() });
}

#[derive(Module, Debug)]
struct Prefixes {
    up: TensorQuantizer,
    upper: QuantLinear,
}

/// The name of one quantizer is the beginning of another's.
pub(super) fn a_prefix_is_not_a_name() {
    let (_, device) = device();
    let model = Prefixes { up: TensorQuantizer::disabled(Role::ChannelsLast), upper: linear(&device) };
    let config = QuantConfig::new()
        .with_rule(Rule::set("up", QuantizerConfig::int(8)))
        .with_rule(Rule::set("upper.weight_quantizer", QuantizerConfig::int(4).per_block(2)))
        .with_algorithm(Algorithm::awq_lite());
    // `upper.input_quantizer` is disabled, and only wanted for its channels: data need not reach it
    let x = spread::<2>([3, 4], &device);
    let (model, _) = quantize(model, &config, |model| drop(model.up.forward(x.clone()))).unwrap();
    assert!(model.up.amax().is_some());
}

/// A layer that looks at itself while it is walked through.
#[derive(Clone, Debug)]
struct Curious(QuantLinear);

impl Module for Curious {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        assert_eq!(Module::num_params(&self.0), 10 + ranges(&self.0), "burn counts parameters");
        let attached = self.0.weight.reparameterization::<TensorQuantizer>().is_some();
        assert_eq!(Quantizers::of(&self.0).len(), 2 + usize::from(attached), "and we count quantizers");
        self.0.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let inner = disable(self.0, "input_quantizer").unwrap(); // a traversal of its own
        Self(inner.map(mapper))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn train(self) -> Self {
        Self(Module::train(self.0))
    }
}

impl ModuleDisplayDefault for Curious {
    fn content(&self, content: Content) -> Option<Content> {
        Some(content)
    }
}

impl ModuleDisplay for Curious {}

fn ranges(layer: &QuantLinear) -> usize {
    layer
        .weight
        .reparameterization::<TensorQuantizer>()
        .and_then(TensorQuantizer::amax)
        .map_or(0, |amax| amax.dims()[0])
}

/// Traversals may be nested, and devices are those of the data where a model has no parameters.
pub(super) fn traversals_may_be_nested() {
    let (_, device) = device();
    let model = Curious(linear(&device));
    let (model, _) = quantize_weights(model, &presets::int8_weight_only()).unwrap();
    let names: Vec<String> = Quantizers::of(&model).names().map(String::from).collect();
    assert_eq!(names, ["weight_quantizer", "input_quantizer", "output_quantizer"]);
    let model = enable(disable(model, "*").unwrap(), "weight_quantizer").unwrap();
    assert!(model.0.weight.reparameterization::<TensorQuantizer>().unwrap().is_enabled());

    let alone = TensorQuantizer::disabled(Role::ChannelsLast);
    let config = QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::int(8)));
    let x = spread::<2>([3, 4], &device);
    let (alone, _) = quantize(alone, &config, |quantizer| drop(quantizer.forward(x.clone()))).unwrap();
    assert_eq!(alone.amax().unwrap().device(), device);
}

/// An average over batches depends on their order. Of batches that several threads run no order is known: they count
/// from the smallest to the largest, whichever comes first.
pub(super) fn an_average_does_not_depend_on_threads() {
    let (_, device) = device();
    let config = QuantConfig::new()
        .with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8)))
        .with_algorithm(Algorithm::MovingAverage { momentum: 0.5 });
    let batch = |largest: f32| Tensor::<2>::from_data([[largest, 0.0, -0.5, 0.25]], &device);
    let range = |run: &dyn Fn(&QuantLinear)| {
        let (layer, _) = quantize(linear(&device), &config, run).unwrap();
        values(Quantizers::of(&layer).get("input_quantizer").unwrap().amax().unwrap())[0]
    };
    // one thread: 8, then 8/2 + 2/2 = 5, then 5/2 + 4/2 = 4.5
    let one = range(&|layer| [8.0, 2.0, 4.0].into_iter().for_each(|largest| drop(layer.forward(batch(largest)))));
    assert_eq!(one, 4.5);
    // several: 2, then 2/2 + 4/2 = 3, then 3/2 + 8/2 = 5.5
    for order in [[8.0, 2.0, 4.0], [2.0, 8.0, 4.0], [4.0, 2.0, 8.0]] {
        let several = range(&|layer| {
            for largest in order {
                let (layer, batch) = (layer.clone(), batch(largest));
                std::thread::spawn(move || drop(layer.forward(batch))).join().unwrap();
            }
        });
        assert_eq!(several, 5.5, "{order:?}");
    }
}

/// What experts without tokens borrow are ranges: their layers have no Gram matrix, and are left as they are.
pub(super) fn experts_borrow_ranges_and_no_matrices() {
    let (_, device) = device();
    let model = Experts { experts: (0..3).map(|_| linear(&device)).collect() };
    let rules = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(2)))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    let config = rules.with_algorithm(Algorithm::gptq());
    let x = spread::<2>([32, 4], &device);
    let (solved, report) = quantize(model.clone(), &config, |model| drop(model.experts[0].forward(x.clone()))).unwrap();
    for i in 1..3 {
        let layer = report.layers.iter().find(|layer| layer.layer == format!("experts.{i}")).unwrap();
        assert_eq!(layer.steps[0].skipped, Some(SkipReason::NoData), "{layer}");
        assert_eq!(values(solved.experts[i].weight.base()), values(model.experts[i].weight.val()));
        let range = |i: usize| values(solved.experts[i].input_quantizer.amax().unwrap());
        assert_eq!(range(i), range(0));
        assert!(report.statistics.get(&format!("experts.{i}.input_quantizer")).is_none(), "nothing was seen");
    }
}
