//! Networks that are trained here: recipes over ten seeds, few bits, a language model.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_quant::config::RangeSearch;
use burn_quant::train::Distillation;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, presets, quantize, summary};
use burn_quant_benches::device;
use fashion_mnist::data::{Batch, Dataset};
use fashion_mnist::experiment::w4a4;
use fashion_mnist::low_bit;
use fashion_mnist::model::Cnn;
use fashion_mnist::train::{BATCH, Schedule, accuracy, bar, loss, train, train_with};

use crate::tables::{Evidence, Made, example};

const SEEDS: u64 = 10;
/// Passes over the data, of the float training and of each after it.
const EPOCHS: u64 = 12;
/// Temperature of the distillation.
const TEMPERATURE: f64 = 2.0;

/// What the CNN is quantized by without training.
fn recipes() -> Vec<(&'static str, QuantConfig)> {
    let weights = |config: QuantizerConfig| QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config));
    let int4 = || weights(QuantizerConfig::int(4).per_channel());
    let mse = || Algorithm::Mse(RangeSearch::default());
    let both_mse = Algorithm::Sequence(vec![Algorithm::histogram_mse(), mse()]);
    let w4a8 = || int4().with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    vec![
        ("INT8", presets::int8_default()),
        ("FP8", presets::fp8_default()),
        ("W4A8", w4a8()),
        ("W4A8, by mean squared error", w4a8().with_algorithm(mse())),
        ("W4A8, AdaRound", w4a8().with_algorithm(Algorithm::adaround())),
        ("W4A8, GPTQ", w4a8().with_algorithm(Algorithm::gptq())),
        ("INT4 weights", int4()),
        ("INT3 weights", weights(QuantizerConfig::int(3).per_channel())),
        (
            "INT3 weights, AdaRound",
            weights(QuantizerConfig::int(3).per_channel()).with_algorithm(Algorithm::adaround()),
        ),
        ("W4A4", w4a4()),
        ("W4A4, by mean squared error", w4a4().with_algorithm(both_mse)),
    ]
}

/// The bits of a recipe, and its accuracy by seed.
#[derive(Default)]
struct Accuracies {
    bits: f64,
    of_seeds: Vec<f64>,
}

/// The network of the first example: recipes, and training after them, over ten seeds.
pub(crate) fn cnn() -> Made {
    let (plain, folder) = (device(), example("fashion-mnist/data"));
    let training = Dataset::read(&folder, "train")?;
    let test = Dataset::read(&folder, "test")?.batches(250, &plain);
    let mut found: Vec<(String, Accuracies)> = Vec::new();
    for seed in 1..=SEEDS {
        let mut add = |recipe: &str, model: &Cnn| {
            let percent = 100.0 * accuracy(model, &test);
            eprintln!("seed {seed}, {recipe}: {percent:.1} %");
            let place = found.iter().position(|(name, _)| name == recipe).unwrap_or_else(|| {
                found.push((recipe.to_string(), Accuracies::default()));
                found.len() - 1
            });
            let accuracies = &mut found[place].1;
            accuracies.bits = summary(model).bits_per_parameter(16);
            accuracies.of_seeds.push(percent);
        };
        let device = plain.clone().autodiff();
        device.seed(seed);
        let schedule = Schedule { epochs: EPOCHS, learning_rate: 2e-3, seed };
        let float = train(Cnn::new(&device), &training, schedule, &device, &bar("float", true));
        add("float", &float);
        let calibration: Vec<Batch> = training.shuffled(BATCH, seed, &device).take(8).collect();
        let calibrated = |config: &QuantConfig| {
            let run = |model: &Cnn| calibration.iter().for_each(|batch| drop(model.forward(batch.images.clone())));
            quantize(float.clone(), config, run).map(|(model, _)| model)
        };
        for (recipe, config) in recipes() {
            add(recipe, &calibrated(&config)?);
        }
        let schedule = Schedule { seed: seed + SEEDS, ..schedule };
        let begun = calibrated(&w4a4())?;
        let trained = train_with(begun.clone(), &training, schedule, &device, &bar("W4A4", true), loss);
        add("W4A4, trained", &trained);
        add("W4A4, trained with a teacher", &taught(begun, float.valid(), &training, schedule, &device));
    }
    let header = ["recipe", "bits", "accuracy, %", "lowest", "highest", "lost to float"].map(String::from).to_vec();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let float = found[0].1.of_seeds.clone();
    let row = |(recipe, Accuracies { bits, of_seeds }): &(String, Accuracies)| {
        let lost: Vec<f64> = float.iter().zip(of_seeds).map(|(float, quantized)| float - quantized).collect();
        let ends = [f64::min, f64::max].map(|end| of_seeds.iter().copied().reduce(end).unwrap_or(f64::NAN));
        let mut cells = vec![recipe.clone(), format!("{bits:.2}"), format!("{:.2}", mean(of_seeds))];
        cells.extend(ends.map(|end| format!("{end:.1}")));
        cells.push(format!("{:.2}", mean(&lost)));
        cells
    };
    Ok(Evidence { header, rows: found.iter().map(row).collect() })
}

/// Trains a network to answer as another one does.
fn taught(network: Cnn, teacher: Cnn, training: &Dataset, schedule: Schedule, device: &Device) -> Cnn {
    train_with(network, training, schedule, device, &bar("W4A4, taught", true), |network, batch| {
        let labels = teacher.forward(batch.images.clone().inner());
        Distillation::new(TEMPERATURE).loss(network.forward(batch.images), Tensor::from_inner(labels))
    })
}

/// The accuracy of ResNet-18 on ImageNet in float, and by bits with LSQ and with PACT: table 1 of Esser et al., 2020.
const PAPER_FLOAT: f64 = 70.5;
const LSQ: [(u8, f64); 3] = [(4, 71.1), (3, 70.2), (2, 67.6)];
const PACT: [(u8, f64); 3] = [(4, 69.2), (3, 68.1), (2, 64.4)];

/// The residual network of 20 layers with few bits, beside what the papers lose.
pub(crate) fn residual() -> Made {
    let results = low_bit::run(&low_bit::Options {
        device: device(),
        seed: 1,
        data: example("fashion-mnist/data"),
        bits: vec![4, 3, 2],
        epochs: 20,
        images: usize::MAX,
        temperature: TEMPERATURE,
        progress: true,
    })?;
    let percent = |fraction: f64| format!("{:.1}", 100.0 * fraction);
    let paper = |accuracies: &[(u8, f64)], bits: u8| {
        let found = accuracies.iter().find(|(of, _)| *of == bits);
        found.map_or("–".into(), |(_, accuracy)| format!("{:.1}", PAPER_FLOAT - accuracy))
    };
    let float = percent(results.float);
    let mut rows = vec![vec!["float".into(), float, "–".into(), "–".into(), "–".into(), "–".into()]];
    for network in &results.quantized {
        let lost = results.drop(network.bits).ok_or("each network has a result")?;
        rows.push(vec![
            format!("W{0}A{0}", network.bits),
            percent(network.trained),
            percent(network.calibrated),
            format!("{lost:.1}"),
            paper(&LSQ, network.bits),
            paper(&PACT, network.bits),
        ]);
    }
    let header = ["bits", "accuracy, %", "before training", "lost to float", "LSQ in its paper", "PACT there"];
    Ok(Evidence { header: header.map(String::from).to_vec(), rows })
}

/// The character-level language model by recipe.
pub(crate) fn char_gpt() -> Made {
    let results = char_gpt::experiment::run(&char_gpt::experiment::Options {
        device: device(),
        seed: 1,
        text: example("char-gpt/data/moby-dick.txt.gz"),
        steps: 1000,
        qat_steps: 200,
        windows: 256,
        weights: None,
        progress: true,
    })?;
    let float = results.rows[0].bits;
    let row = |row: &char_gpt::experiment::Row| {
        let more = 100.0 * (row.bits / float - 1.0);
        vec![
            row.recipe.clone(),
            format!("{:.2}", row.bits_per_parameter),
            format!("{:.4}", row.bits),
            format!("{more:+.2} %"),
        ]
    };
    let header = ["recipe", "bits", "bits per character", "to float"].map(String::from).to_vec();
    Ok(Evidence { header, rows: results.rows.iter().map(row).collect() })
}
