//! What calibration and a step of quantization-aware training cost, and what calibration gains for it.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use burn_quant::train::Distillation;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, presets, quantize};
use burn_quant_benches::calibration::{Stack, tokens, w4};
use burn_quant_benches::{Mlp, Workload, batch, device, shortest, step, step_by};
use fashion_mnist::model::Cnn;

use crate::tables::{Evidence, Made};

/// Turns of which the shortest counts.
const TURNS: usize = 3;
/// What takes longer has one turn.
const LONG: Duration = Duration::from_secs(10);

/// A recipe, and the one that its error is compared with.
struct Calibration {
    name: &'static str,
    config: QuantConfig,
    base: &'static str,
}

fn calibrations() -> Vec<Calibration> {
    let four = |name, algorithm| Calibration { name, config: w4().with_algorithm(algorithm), base: NEAREST };
    let eight = |name, algorithm| {
        let config = presets::int8_default().with_algorithm(algorithm);
        Calibration { name, config, base: MAX }
    };
    vec![
        eight(MAX, Algorithm::Max),
        eight("W8A8, ranges of inputs by squared error", Algorithm::histogram_mse()),
        eight("W8A8, SmoothQuant", Algorithm::smoothquant(0.5)),
        four(NEAREST, Algorithm::Max),
        four("W4, ranges by squared error", Algorithm::Mse(Default::default())),
        four("W4, AWQ", Algorithm::awq_lite()),
        four("W4, AWQ and clipping", Algorithm::awq_full()),
        four("W4, GPTQ", Algorithm::gptq()),
        four("W4, AdaRound", Algorithm::adaround()),
        four("W4, SVDQuant of rank 32", Algorithm::svdquant(32)),
    ]
}

const MAX: &str = "W8A8, `max`";
const NEAREST: &str = "W4, to the nearest";

/// Both parts of the table.
pub(crate) fn costs() -> Made {
    let mut rows = calibration()?;
    let device = device().autodiff();
    rows.extend(training("a perceptron of three layers", Mlp::new(&device), &device)?);
    rows.extend(training("the small network", Cnn::new(&device), &device)?);
    let header = ["work", "unit", "units", "error of outputs"].map(String::from).to_vec();
    Ok(Evidence { header, rows })
}

/// The unit is a forward pass of the calibration data in float; errors are those of other data.
fn calibration() -> Result<Vec<Vec<String>>, Box<dyn std::error::Error>> {
    let device = device();
    let (model, x, fresh) = (Stack::new(20.0, &device), tokens(1, &device), tokens(2, &device));
    let calibrations = calibrations();
    let calibrated = |config: &QuantConfig| {
        let result = quantize(model.clone(), config, |model| drop(model.forward(x.clone())));
        device.sync().expect("the device is alive");
        result.map(|(model, _)| model)
    };
    let mut forward = || {
        drop(model.forward(x.clone()));
        device.sync().expect("the device is alive");
    };
    let unit = shortest(TURNS, &mut [&mut forward])[0];
    let (mut errors, mut times) = (Vec::new(), Vec::new());
    for Calibration { name, config, .. } in &calibrations {
        let (mut time, mut error) = (Duration::MAX, f64::NAN);
        for _ in 0..TURNS {
            let start = Instant::now();
            let calibrated = calibrated(config)?;
            time = time.min(start.elapsed());
            error = calibrated.error(&model, &fresh);
            if time > LONG {
                break;
            }
        }
        eprintln!("{name}: {:.1} forward passes, error {error:.2e}", time.as_secs_f64() / unit.as_secs_f64());
        errors.push(error);
        times.push(time);
    }
    let row = |(i, calibration): (usize, &Calibration)| {
        let base = calibrations.iter().position(|other| other.name == calibration.base).unwrap_or(i);
        let error = if base == i { "1".into() } else { format!("{:.2}", errors[i] / errors[base]) };
        let cost = format!("{:.1}", times[i].as_secs_f64() / unit.as_secs_f64());
        vec![calibration.name.to_string(), "forward pass".into(), cost, error]
    };
    Ok(calibrations.iter().enumerate().map(row).collect())
}

/// INT8 weights and inputs, whose ranges are learned.
fn learned() -> QuantConfig {
    let int8 = || QuantizerConfig::int(8).lsq();
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", int8().per_channel()))
        .with_rule(Rule::set("*input_quantizer", int8()))
        .with_algorithm(Algorithm::LsqInit)
}

/// The unit is a step of training in float: forward, backward, update.
fn training<M: Workload>(
    name: &str,
    float: M,
    device: &Device,
) -> Result<Vec<Vec<String>>, Box<dyn std::error::Error>> {
    let (batch, labels) = batch::<M>(device);
    let clipped = presets::int8_default().with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).clipped()));
    let quantized = |config: &QuantConfig| {
        quantize(float.clone(), config, |model| drop(model.logits(&batch))).map(|(model, _)| model)
    };
    let (straight, clipped, learned) =
        (quantized(&presets::int8_default())?, quantized(&clipped)?, quantized(&learned())?);
    let teacher = float.valid();
    let run = |model: &M| {
        let model = step(model.clone(), &batch, &labels, device);
        device.sync().expect("the device is alive");
        drop(model);
    };
    let taught = || {
        let model = step_by(straight.clone(), |model| {
            let wanted = teacher.logits(&batch.clone().inner());
            Distillation::new(2.0).loss(model.logits(&batch), Tensor::from_inner(wanted))
        });
        device.sync().expect("the device is alive");
        drop(model);
    };
    let times = shortest(
        30,
        &mut [&mut || run(&float), &mut || run(&straight), &mut || run(&clipped), &mut || run(&learned), &mut || {
            taught()
        }],
    );
    let kinds = ["W8A8", "W8A8, clipped gradients", "W8A8, learned ranges", "W8A8, with a teacher"];
    let row = |(kind, time): (&&str, &Duration)| {
        let cost = format!("{:.2}", time.as_secs_f64() / times[0].as_secs_f64());
        vec![format!("a step of {name}, {kind}"), "step in float".into(), cost, "–".into()]
    };
    Ok(kinds.iter().zip(&times[1..]).map(row).collect())
}
