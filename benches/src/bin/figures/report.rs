//! Figures of the diagnosis: what it finds, what it costs, how large its page is.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::nn::{Linear, LinearConfig};
use burn_quant::{presets, quantize};
use burn_quant_benches::{device, moby_dick};
use burn_quant_report::{DiagnoseOptions, Diagnosis, diagnose};
use diagnose::{Fault, Trial};
use pretrained::smollm::{self, SmolLm};

use crate::Figure;

/// Linear layers, one after the other.
#[derive(Module, Debug)]
struct Layers {
    layers: Vec<Linear>,
}

impl Layers {
    fn new(layers: usize, width: usize, device: &Device) -> Self {
        Self { layers: (0..layers).map(|_| LinearConfig::new(width, width).init(device)).collect() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| relu(layer.forward(x)))
    }
}

fn batches(count: usize, rows: usize, width: usize, device: &Device) -> Vec<Tensor<2>> {
    (0..count).map(|_| Tensor::random([rows, width], Distribution::Normal(0.0, 1.0), device)).collect()
}

fn int8(float: &Layers, batches: &[Tensor<2>]) -> Layers {
    let calibrated = quantize(float.clone(), &presets::int8_default(), |model| {
        batches.iter().for_each(|batch| drop(model.forward(batch.clone())));
    });
    calibrated.expect("finite data").0
}

fn diagnosed(float: &Layers, quantized: &Layers, batches: &[Tensor<2>]) -> Diagnosis {
    let forward = |model: &Layers, batch: &&Tensor<2>| model.forward((*batch).clone());
    diagnose(float, quantized, batches, forward, DiagnoseOptions::new()).expect("both models run")
}

/// Planted faults that are named first, at their place, and that the first finding mends.
pub(crate) fn faults() -> Vec<Figure> {
    let device = device();
    let faults = || Fault::all().iter().filter(|fault| **fault != Fault::Healthy);
    let found = |fault: &Fault| {
        let trial = Trial::run(*fault, &device).expect("the example runs");
        let first = trial.diagnosis.findings.first().expect("something is found");
        let mended = trial.result().mended.is_some_and(|sqnr| sqnr > 25.0);
        (Some(first.kind), first.at.as_str()) == (fault.finding(), fault.place()) && mended
    };
    let named = faults().filter(|fault| found(fault)).count();
    vec![Figure::at_least("planted faults named first and mended", named as f64, faults().count() as f64)]
}

/// KiB of the page of a model with 200 layers and 400 quantizers.
pub(crate) fn page() -> Vec<Figure> {
    let device = device();
    let (float, batches) = (Layers::new(200, 64, &device), batches(1, 32, 64, &device));
    let page = diagnosed(&float, &int8(&float, &batches), &batches).html();
    vec![Figure::at_most("page of 200 layers, KiB", page.len() as f64 / 1024.0, 300.0)]
}

/// A diagnosis without sensitivity, against a pass over the data through the quantized model; two seconds are free.
pub(crate) fn cost() -> Vec<Figure> {
    const FREE: f64 = 2.0;
    let device = device();
    let (float, batches) = (Layers::new(12, 1024, &device), batches(24, 512, 1024, &device));
    let quantized = int8(&float, &batches);
    let valid = quantized.valid();
    let pass = || batches.iter().for_each(|batch| drop(valid.forward(batch.clone())));
    let seconds = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        device.sync().expect("the device is alive");
        start.elapsed().as_secs_f64()
    };
    pass(); // weights are rounded once
    let (mut one, mut all) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        one = one.min(seconds(&pass));
        all = all.min(seconds(&|| drop(diagnosed(&float, &quantized, &batches))));
    }
    println!("# diagnosis {all:.2} s, one pass {one:.2} s: {:.2} passes", all / one);
    vec![Figure::at_most("diagnosis less 2 s / pass of the quantized model", (all - FREE).max(0.0) / one, 3.0)]
}

/// Only where the variable `BURN_QUANT_MODELS` names the folder that `examples/pretrained/fetch.sh` filled.
pub(crate) fn smollm() -> Vec<Figure> {
    const RECIPE: &str = "INT8, a range per token";
    let Some(models) = std::env::var_os("BURN_QUANT_MODELS").map(std::path::PathBuf::from) else {
        println!("# SmolLM2: not measured, as BURN_QUANT_MODELS names no folder with the published models");
        return Vec::new();
    };
    let model = SmolLm::open(&models.join(smollm::FILE), &device()).expect("the model is there");
    let texts = model.texts(&moby_dick(), 4, 8).expect("the text is long enough");
    let recipes = smollm::recipes().into_iter().filter(|(name, _)| *name == RECIPE);
    let table = smollm::evaluate(&model, &texts, &device(), recipes).expect("the example runs");
    let perplexity = |recipe| table.get(recipe, "perplexity").expect("the recipe is there");
    let ratio = perplexity(RECIPE) / perplexity("float (dequantized Q4_1)");
    vec![Figure::at_most("SmolLM2 INT8 per token, perplexity / float", ratio, 1.05)]
}
