//! What calibration made of a model, compared with what the reference made of it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_quant::calibrate::Report;
use burn_quant::config::Granularity;
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::{Quantizers, TensorQuantizer};

use crate::index::{Case, Golden, bitwise, close, frobenius, values, within};

/// The exponents that AWQ chose, layer by layer; equal unless two losses are within 1e-4.
pub(super) fn check_choices(case: &Case, report: &Report) -> Result<(), String> {
    let Some(search) = case.other.get("search").and_then(|search| search.as_object()) else { return Ok(()) };
    for (layer, expected) in search.iter().filter(|(_, found)| found.get("best_alpha").is_some()) {
        let best = expected["best_alpha"].as_f64().expect("an exponent");
        let steps = report.layers.iter().filter(|found| &found.layer == layer).flat_map(|found| &found.steps);
        let alpha = steps.filter_map(|step| step.choices.get("alpha")).next().ok_or(format!("{layer}: no exponent"))?;
        if f64::from(*alpha) == best {
            continue;
        }
        let losses = expected["awq_loss"].as_object().expect("losses by exponent");
        let loss = |alpha: f64| {
            let of = losses.iter().find(|(key, _)| (key.parse::<f64>().expect("an exponent") - alpha).abs() < 1e-6);
            of.and_then(|(_, loss)| loss.as_f64()).unwrap_or(f64::INFINITY)
        };
        let (found, least) = (loss((*alpha).into()), loss(best));
        if !within(found, least, 1e-4 * least) {
            return Err(format!("{layer}: exponent {alpha}, expected {best}"));
        }
    }
    Ok(())
}

/// A quantizer by the reference's name, which numbers the stages of a chain from 0.
fn stage<'a>(quantizers: &'a Quantizers, name: &str) -> Result<&'a TensorQuantizer, String> {
    let (head, stage) = match name.rsplit_once('.') {
        Some((head, stage)) if stage.parse::<usize>().is_ok() => (head, stage.parse().expect("a number")),
        _ => (name, 0),
    };
    let chain = quantizers.get(head).map_err(|e| e.to_string())?;
    chain.stages(head).nth(stage).map(|(_, stage)| stage).ok_or(format!("{name}: no such stage"))
}

pub(super) fn check_amax<M: Module>(
    golden: &Golden,
    case: &Case,
    model: &M,
    name: &str,
    key: &str,
) -> Result<(), String> {
    let quantizers = Quantizers::of(model);
    let quantizer = stage(&quantizers, name)?;
    let amax = quantizer.amax().ok_or(format!("{name} has no amax"))?;
    let expected = golden.values(case, key);
    // burn keeps linear weights [in, out]: blocks along `in` are numbered by `in` first, the reference's by `out`
    let along_rows = matches!(quantizer.role(), Role::Weight(layout) if layout.block_axis == 0);
    // under dynamic block scales there is one range, that of the tensor
    let blocks = matches!(quantizer.config().granularity, Granularity::Block { .. }) && amax.dims() != [1];
    let found = if along_rows && blocks {
        let layer = name.trim_end_matches(".0").trim_end_matches(".weight_quantizer");
        let outputs = golden.data(case, &format!("param/{layer}.weight")).shape()[0];
        let per_output = amax.dims()[0] / outputs;
        values(amax.reshape([per_output, outputs]).transpose())
    } else {
        values(amax)
    };
    // ranges of a weight that no sum went into are equal bit for bit
    let of_data = ["max", "mse", "nvfp4_act_headroom", "gptq"];
    let algorithm = &case.config["algorithm"];
    let algorithm = algorithm.as_str().or(algorithm["method"].as_str()).unwrap_or("max");
    match quantizer.role() {
        Role::Weight(_) if of_data.contains(&algorithm) => bitwise(name, &found, &expected),
        // below the first layer activations are sums
        _ => close(name, &found, &expected, tolerance(case)),
    }
}

pub(super) fn is_half(case: &Case) -> bool {
    case.other.get("dtype").is_some_and(|dtype| dtype == "bf16" || dtype == "f16")
}

/// How far an output is from that of the float model, in decibels.
pub(super) fn sqnr(golden: &Golden, case: &Case, y: &[f32]) -> f64 {
    let float = golden.float_of(case);
    -20.0 * frobenius(y, &golden.values(float, &float.expected["y"])).log10()
}

/// The tolerance of scales, and of what is multiplied by them. The reference takes the means of a half-precision model
/// in half precision, burn-quant in f32: there they agree to a unit in the last place of the dtype.
fn tolerance(case: &Case) -> f64 {
    let tolerance = case.tolerance("params_rel").unwrap_or(1e-5);
    if is_half(case) { f64::max(tolerance, (-7f64).exp2()) } else { tolerance }
}

pub(super) fn check_buffer<M: Module>(
    golden: &Golden,
    case: &Case,
    model: &M,
    name: &str,
    buffer: Buffer,
    key: &str,
) -> Result<(), String> {
    let quantizers = Quantizers::of(model);
    let found = stage(&quantizers, name)?.buffer(buffer).ok_or(format!("{name} has no {}", buffer.name()))?;
    let what = format!("{name}, {}", buffer.name());
    let (mut found, expected) = (values(found), golden.values(case, key));
    if case.name.contains("smoothquant") {
        // a dead channel keeps its scale; the reference gives it the largest and shrinks its weights by as much
        for (found, expected) in found.iter_mut().zip(&expected).filter(|(f, e)| (**f, **e) == (1.0, 1e4)) {
            *found = *expected;
        }
    }
    close(&what, &found, &expected, tolerance(case))
}

/// A weight that calibration changed, before it is quantized.
pub(super) fn check_weight<M: Module>(
    golden: &Golden,
    case: &Case,
    model: &M,
    name: &str,
    key: &str,
) -> Result<(), String> {
    struct Find<'a> {
        path: Vec<String>,
        wanted: &'a str,
        found: Option<Vec<f32>>,
    }
    impl ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.path.join(".") == self.wanted {
                let weight = param.base();
                self.found = Some(values(if D == 2 { weight.swap_dims(0, 1) } else { weight }));
            }
        }
    }
    let mut find = Find { path: Vec::new(), wanted: name, found: None };
    model.visit(&mut find);
    let found = find.found.ok_or(format!("no parameter {name}"))?;
    close(name, &found, &golden.values(case, key), tolerance(case))
}

/// The product of the factors, which are unique only up to sign and rotation.
pub(super) fn check_low_rank<M: Module>(golden: &Golden, case: &Case, model: &M, name: &str) -> Result<(), String> {
    let slot = name.replace("weight_quantizer", "input_quantizer");
    let quantizers = Quantizers::of(model);
    let quantizer = quantizers.get(&slot).map_err(|e| e.to_string())?;
    let factor = |buffer| quantizer.buffer(buffer).ok_or(format!("{slot} has no {}", buffer.name()));
    let (down, up) = (factor(Buffer::LowRankDown)?, factor(Buffer::LowRankUp)?);
    let device = down.device();
    let a: Tensor<2> = golden.tensor(case, &case.expected[&format!("svdquant_lora_a/{name}")], &device);
    let b: Tensor<2> = golden.tensor(case, &case.expected[&format!("svdquant_lora_b/{name}")], &device);
    let ([_, inputs], [outputs, _]) = (a.dims(), b.dims());
    let rank = down.dims()[0] / inputs; // the reference's may be padded
    let down: Tensor<2> = down.reshape([inputs, rank]);
    let product = down.matmul(up.reshape([rank, outputs])).transpose();
    close(&format!("{name}, low rank"), &values(product), &values(b.matmul(a)), 1e-4)
}
