//! Quantization-aware training inside burn's own learner: checkpoints, resuming, early stopping, accumulated gradients,
//! several devices.

use std::path::Path;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, ExecutionStrategy, InferenceStep, Learner, MetricEarlyStoppingStrategy, MultiDeviceOptim,
    StoppingCondition, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_quant::nn::QuantLinear;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, quantize};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

#[derive(Module, Debug)]
struct Classifier {
    hidden: QuantLinear,
    output: QuantLinear,
}

/// Points, and which of two classes they belong to.
#[derive(Clone, Debug)]
struct Points {
    x: Tensor<2>,
    classes: Tensor<1, Int>,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        let layer = |d_in, d_out, scale: f64| -> QuantLinear {
            let weight = Param::from_tensor(spread([d_in, d_out], device) * scale);
            burn::nn::Linear { weight, ..LinearConfig::new(d_in, d_out).with_bias(false).init(device) }.into()
        };
        Self { hidden: layer(4, 6, 0.7), output: layer(6, 2, 0.9) }
    }

    /// Weights of 4 bits with learned ranges, inputs of 8 bits with observed ones.
    fn quantized(device: &Device, observed: f64) -> Self {
        let config = QuantConfig::new()
            .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel().lsq()))
            .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).lsq()))
            .with_algorithm(Algorithm::LsqInit);
        let x = spread::<2>([8, 4], device) * observed;
        quantize(Self::new(device), &config, |model| drop(model.forward(x.clone()))).unwrap().0
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(x)))
    }

    fn classified(&self, points: Points) -> ClassificationOutput {
        let output = self.forward(points.x);
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        ClassificationOutput::new(loss.forward(output.clone(), points.classes.clone()), output, points.classes)
    }

    /// All that training may have moved: the weights and the ranges.
    fn state(&self) -> Vec<(String, Vec<f32>)> {
        let ranges = Quantizers::of(self);
        let range = |name: &str| values(ranges.get(name).unwrap().amax().unwrap().without_autodiff());
        let weight = |layer: &QuantLinear| values(layer.weight.base().without_autodiff());
        let mut state = vec![("hidden".into(), weight(&self.hidden)), ("output".into(), weight(&self.output))];
        for name in ["hidden.weight_quantizer", "hidden.input_quantizer", "output.weight_quantizer"] {
            state.push((name.into(), range(name)));
        }
        state
    }
}

impl TrainStep for Classifier {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, points: Points) -> TrainOutput<ClassificationOutput> {
        let item = self.classified(points);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Classifier {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, points: Points) -> ClassificationOutput {
        self.classified(points)
    }
}

/// Point `i` of the data: its class is which of two sums is larger.
struct Batch;

impl Batcher<usize, Points> for Batch {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Points {
        let point = |i: usize| [0, 1, 2, 3].map(|j| ((i * 37 + j * 23) % 29) as f32 / 14.0 - 1.0);
        let points: Vec<[f32; 4]> = items.iter().map(|i| point(*i)).collect();
        let classes: Vec<i32> = points.iter().map(|[a, b, c, d]| i32::from(a + b > c + d)).collect();
        let count = points.len();
        Points {
            x: Tensor::<1>::from_data(points.concat().as_slice(), device).reshape([count, 4]),
            classes: Tensor::from_data(classes.as_slice(), device),
        }
    }
}

fn loader(points: Vec<usize>, batch: usize) -> std::sync::Arc<dyn DataLoader<Points>> {
    DataLoaderBuilder::new(Batch).batch_size(batch).build(InMemDataset::new(points))
}

fn training(directory: &Path, batch: usize, epochs: usize) -> SupervisedTraining<Classifier> {
    training_on((0..32).collect(), directory, batch, epochs)
}

fn training_on(points: Vec<usize>, directory: &Path, batch: usize, epochs: usize) -> SupervisedTraining<Classifier> {
    SupervisedTraining::new(directory, loader(points, batch), loader((0..16).collect(), 16))
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .with_application_logger(None)
        .num_epochs(epochs)
}

fn adam() -> ModuleOptimizer {
    AdamConfig::new().init()
}

#[test]
fn a_training_that_resumes_from_a_checkpoint_ends_where_one_without_a_break_ends() {
    let device = device().1.autodiff();
    let folder = tempfile::tempdir().unwrap();
    let whole = training(&folder.path().join("whole"), 8, 4)
        .launch(Learner::new(Classifier::quantized(&device, 1.0), adam(), 0.02))
        .model;
    assert_ne!(whole.state(), Classifier::quantized(&device, 1.0).state(), "weights and ranges are trained");

    let path = folder.path().join("broken off");
    training(&path, 8, 2).with_default_checkpointers().launch(Learner::new(
        Classifier::quantized(&device, 1.0),
        adam(),
        0.02,
    ));
    // the script starts anew; that it observed other data is of no consequence: ranges come from the checkpoint
    let again = Classifier::quantized(&device, 3.0);
    assert_ne!(again.state(), Classifier::quantized(&device, 1.0).state());
    let resumed = training(&path, 8, 4)
        .with_default_checkpointers()
        .checkpoint(2)
        .launch(Learner::new(again, adam(), 0.02))
        .model;
    for ((name, found), (_, expected)) in resumed.state().iter().zip(&whole.state()) {
        assert_close(found, expected, 1e-6, name);
    }
    assert_eq!(Quantizers::of(&resumed).len(), Quantizers::of(&whole).len());
}

#[test]
fn training_with_quantizers_learns_and_stops_when_it_gets_no_better() {
    let device = device().1.autodiff();
    let folder = tempfile::tempdir().unwrap();
    let stopping = || {
        MetricEarlyStoppingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            Direction::Lowest,
            Split::Valid,
            StoppingCondition::NoImprovementSince { n_epochs: 2 },
        )
    };
    let loss = |model: &Classifier| {
        let points = Batch.batch((0..16).collect(), &device.clone().without_autodiff());
        values(model.classified(points).loss)[0]
    };
    let before = loss(&Classifier::quantized(&device, 1.0).valid());
    let trained = training(&folder.path().join("learns"), 8, 8)
        .launch(Learner::new(Classifier::quantized(&device, 1.0), adam(), 0.02))
        .model;
    assert!(loss(&trained) < 0.8 * before, "{} after {before}", loss(&trained));

    // without a rate the first epoch stays the best; the third is the last
    let path = folder.path().join("stands still");
    training(&path, 8, 8).early_stopping(stopping()).launch(Learner::new(
        Classifier::quantized(&device, 1.0),
        adam(),
        0.0,
    ));
    let epochs = std::fs::read_dir(path.join("valid")).unwrap().count();
    assert_eq!(epochs, 3);
}

#[test]
fn accumulated_gradients_and_two_workers_are_one_batch() {
    let device = device().1.autodiff();
    let folder = tempfile::tempdir().unwrap();
    let sgd = || SgdConfig::new().init();
    let learner = |rate: f64| Learner::new(Classifier::quantized(&device, 1.0), sgd(), rate);
    let whole = training(&folder.path().join("whole"), 16, 2).launch(learner(0.1)).model;
    // a mean over 16 is half the sum of two means over 8
    let accumulated =
        training(&folder.path().join("accumulated"), 8, 2).grads_accumulation(2).launch(learner(0.05)).model;
    // two workers read a half of the data each
    let both = [0..8, 16..24, 8..16, 24..32].into_iter().flatten().collect();
    let both = training_on(both, &folder.path().join("both"), 16, 2).launch(learner(0.1)).model;
    let workers =
        ExecutionStrategy::MultiDevice(vec![device.clone(), device.clone()], MultiDeviceOptim::OptimMainDevice);
    let shared = training(&folder.path().join("shared"), 8, 2)
        .with_training_strategy(workers.into())
        .launch(learner(0.05))
        .model;
    for (what, found, expected) in [("accumulated", accumulated, whole), ("two workers", shared, both)] {
        for ((name, found), (_, expected)) in found.state().iter().zip(&expected.state()) {
            assert_close(found, expected, 1e-5, &format!("{name}, {what}"));
        }
    }
}
