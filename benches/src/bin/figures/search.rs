//! Figures of auto-quantize: accuracy at equal bits, cost and memory of scoring, and of solving for another budget.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use auto_quantize::comparison::BUDGETS;
use auto_quantize::{Comparison, cnn, gpt, integers};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn_quant::search::{
    AutoQuantization, AutoQuantizeConfig, BaseResult, Choice, ScoreMethod, SearchGroup, SearchState, Unit,
};
use burn_quant_benches::{device, shortest};
use char_gpt::model::{CharGpt, Size};
use char_gpt::text::{Batch, Text};
use clap::ValueEnum;

use crate::{Figure, ratio};

/// Networks that the accuracy is the mean of.
const SEEDS: u64 = 10;

/// At each budget the worst difference to whatever else is within it.
pub(crate) fn accuracy() -> Vec<Figure> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let network = |seed| {
        let data = examples.join("fashion-mnist/data");
        cnn::run(&data, &device(), seed, 12, usize::MAX, false).expect("the example runs")
    };
    let networks: Vec<Comparison> = (1..=SEEDS).map(network).collect();
    let language = gpt::run(&char_gpt::Options {
        device: device(),
        seed: 1,
        text: examples.join("char-gpt/data/moby-dick.txt.gz"),
        steps: 1000,
        qat_steps: 0,
        windows: 128,
        weights: None,
        progress: false,
    });
    let mut figures = Vec::new();
    for budget in BUDGETS {
        let (auto, best) = at(&networks, budget, 0, f64::max);
        let name = format!("auto-quantize, {SEEDS} networks at {budget} bits, accuracy (best other)");
        figures.push(Figure::at_least(name, 100.0 * auto, 100.0 * best));
        let (auto, best) = at(&networks, budget, 1, f64::max);
        println!(
            "# {SEEDS} networks at {budget} bits, float answers kept: {:.2} %, best other {:.2} %",
            100.0 * auto,
            100.0 * best
        );
    }
    let language = [language.expect("the example runs")];
    for budget in BUDGETS {
        let (auto, best) = at(&language, budget, 0, f64::min);
        figures.push(Figure::at_most(
            format!("auto-quantize, char GPT at {budget} bits, bits/character (best other)"),
            auto,
            best,
        ));
    }
    figures
}

/// The mean over models of what the search is worth, and the best of the means of everything else.
fn at(models: &[Comparison], budget: f64, measure: usize, better: fn(f64, f64) -> f64) -> (f64, f64) {
    let (mut auto, mut others) = (0.0, BTreeMap::<&str, f64>::new());
    for model in models {
        let (own, all) = model.at(budget, measure).expect("the budget was compared");
        auto += own / models.len() as f64;
        all.into_iter().for_each(|(name, value)| *others.entry(name).or_default() += value / models.len() as f64);
    }
    (auto, others.into_values().reduce(better).expect("there are others"))
}

/// Batches of a measurement.
const BATCHES: usize = 3;

/// Everything that scoring and training are measured on.
struct Work {
    model: CharGpt,
    batches: Vec<Batch>,
    config: AutoQuantizeConfig,
}

impl Work {
    fn new(formats: usize) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/char-gpt/data/moby-dick.txt.gz");
        let text = Text::read(&path).expect("the text is in the repository");
        let device = device().autodiff();
        let model = CharGpt::new(text.characters(), Size::SMALL, &device);
        let formats = [3, 4, 5, 6, 8].map(|bits| integers(bits, 8)).into_iter().take(formats);
        let config = AutoQuantizeConfig::new(16.0, formats).with_batches(1, BATCHES);
        Self { model, batches: text.windows(16, 1, &device).take(BATCHES).collect(), config }
    }

    fn loss(logits: Tensor<3>, batch: &Batch) -> Tensor<1> {
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits.flatten::<2>(0, 1), batch.targets.clone().flatten::<1>(0, 1))
    }

    fn data(&self, device: &Device) -> Vec<Batch> {
        let moved = |batch: &Batch| Batch {
            inputs: batch.inputs.clone().to_device(device),
            targets: batch.targets.clone().to_device(device),
        };
        self.batches.iter().map(moved).collect()
    }

    /// A state whose formats are calibrated.
    fn calibrated(&self) -> SearchState {
        let mut states = Vec::new();
        let search = AutoQuantization::new(&self.config).with_checkpoint(|state| {
            states.push(state.clone());
            Ok(())
        });
        self.search(search);
        states.swap_remove(0)
    }

    fn search(&self, search: AutoQuantization<'_>) -> SearchState {
        let forward = |model: &CharGpt, batch: &Batch| model.forward(batch.inputs.clone());
        let found = search.by_gradient(self.model.clone(), |device| self.data(device), forward, Self::loss);
        found.expect("the model can be searched").1
    }

    fn score(&self, state: &SearchState) {
        self.search(AutoQuantization::new(&self.config).with_state(state.clone()));
    }

    fn train(&self) {
        let (mut model, mut optimizer) = (self.model.clone(), AdamWConfig::new().init());
        for batch in &self.batches {
            let loss = Self::loss(model.forward(batch.inputs.clone()), batch);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(1e-4, model, gradients);
        }
        device().sync().expect("the device is alive");
    }
}

/// Scoring against as many training steps, in turns; and the time of another budget.
pub(crate) fn cost() -> Vec<Figure> {
    let mut figures = Vec::new();
    for formats in [1, 5] {
        let work = Work::new(formats);
        let state = work.calibrated();
        let times = shortest(3, &mut [&mut || work.train(), &mut || work.score(&state)]);
        let name = format!("auto-quantize, scoring with {formats} formats / training steps");
        figures.push(Figure::at_most(name, ratio(&times), 2.0 + formats as f64));
    }
    let states: Vec<SearchState> = (1..=10).map(synthetic).collect();
    let slowest = |state: &SearchState| {
        let budgets = [4.5, 5.0, 6.0, 8.0, 12.0];
        let solve = |bits: &f64| {
            let start = std::time::Instant::now();
            state.solve(*bits).expect("the budget can be met");
            start.elapsed().as_secs_f64()
        };
        budgets.iter().map(solve).fold(0.0, f64::max)
    };
    let slowest = states.iter().map(slowest).fold(0.0, f64::max);
    figures.push(Figure::at_most("auto-quantize, another budget of 500 groups, 5 formats, s", slowest, 1.0));
    for formats in [1, 5] {
        let name = format!("auto-quantize, memory of scoring with {formats} formats / training");
        let memory = |what: &str| peak(what, formats);
        figures.push(Figure::at_most(name, memory("scoring") / memory("training"), 2.0));
    }
    figures
}

/// Groups of random sizes, whose scores fall by about 4 for each bit, over six orders of magnitude.
fn synthetic(seed: u64) -> SearchState {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut number = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let formats =
        [(Some("int4"), 4.25), (Some("int5"), 5.25), (Some("int6"), 6.25), (Some("int8"), 8.25), (None, 16.0)];
    let (mut groups, mut counted) = (Vec::new(), 0.0);
    for i in 0..500 {
        let (elements, sensitivity) = ((1e3 * 1e3f64.powf(number())).round(), 1e-6f64.powf(number()));
        counted += elements;
        let choices = formats.map(|(format, bits)| Choice {
            format: format.map(String::from),
            cost: bits * elements,
            score: Some(if format.is_none() { 0.0 } else { sensitivity * 4f64.powf(-bits) * (0.5 + number()) }),
            allowed: true,
        });
        let unit = Unit {
            layer: format!("layers.{i}"),
            weight: format!("layers.{i}.weight"),
            shape: vec![elements as usize],
            bias: None,
            weight_quantizer: format!("layers.{i}.weight_quantizer"),
            input_quantizer: None,
        };
        groups.push(SearchGroup { units: vec![unit], choices: choices.into() });
    }
    SearchState {
        config: AutoQuantizeConfig::new(8.0, []),
        method: ScoreMethod::Gradient,
        model: 0,
        groups,
        base: BaseResult::default(),
        other_bits: 0.0,
        counted,
        candidates: BTreeMap::new(),
        scored_batches: 1,
        unreached: Vec::new(),
        best: None,
    }
}

/// What a process of its own is to do once, and tell how much memory it took.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Memory {
    Training,
    Scoring,
}

/// The resident memory that a piece of work adds, in a process of its own.
fn peak(what: &str, formats: usize) -> f64 {
    let executable = std::env::current_exe().expect("this program has a path");
    let output = Command::new(executable).args(["--memory", what, "--formats", &formats.to_string()]).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("it prints a number");
    text.trim().parse().expect("it prints a number")
}

/// Does a piece of work and prints what it added to the resident memory at its peak, in bytes; Linux tells.
pub(crate) fn print_peak(memory: Memory, formats: usize) {
    let status = |key: &str| {
        let text = std::fs::read_to_string("/proc/self/status").expect("Linux tells the memory of a process");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line is there");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    };
    let work = Work::new(formats);
    let before = status("VmRSS:");
    match memory {
        // with the calibration before it, which takes less
        Memory::Scoring => work.score(&work.calibrated()),
        Memory::Training => work.train(),
    }
    println!("{}", status("VmHWM:") - before);
}
