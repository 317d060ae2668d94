//! Fake quantization: what calibration finds, values, and both gradients, bit for bit.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::config::{BiasConfig, BiasSource, BlockScale, GradientRule, ScaleFormat};
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, quantize};

use burn_quant_tests::compare::largest;

use crate::config::by_axes;
use crate::index::{Case, Golden, Outcome, bitwise, close, frobenius, values, within};

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    let x = golden.data(case, case.input("x"));
    if !device.supports_dtype(x.dtype()) {
        return Outcome::NotYet(format!("{:?} on this device", x.dtype()));
    }
    match x.shape().num_dims() {
        1 => check::<1>(golden, case, device),
        2 => check::<2>(golden, case, device),
        3 => check::<3>(golden, case, device),
        4 => check::<4>(golden, case, device),
        rank => Err(format!("rank {rank}")),
    }
    .into()
}

#[derive(Module, Debug)]
struct Probe {
    quantizer: TensorQuantizer,
    parameter: Param<Tensor<1>>,
}

/// The buffers that a case gives.
const BUFFERS: [(&str, Buffer); 3] =
    [("amax", Buffer::Amax), ("global_amax", Buffer::GlobalAmax), ("bias", Buffer::Bias)];

/// All that a case may expect. `y_cuda_mx` is the reference's other kernel, which differs from the one that is
/// followed.
const EXPECTED: [&str; 8] =
    ["y", "grad_mask", "grad_pass_through", "grad_clip", "amax", "global_amax", "bias", "y_cuda_mx"];

fn check<const D: usize>(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    case.expects_only(&EXPECTED)?;
    let config = by_axes(&case.config, D);
    if case.other["amax_source"] == "max_calibration_on_x" {
        calibration::<D>(golden, case, device, &config)?;
    }
    let ignored = config.bias.is_some() && config.scale == ScaleFormat::E4M3(BlockScale::Dynamic);
    if ignored {
        // The reference calibrates the bias of an NVFP4 quantizer and then ignores it: its values are those without
        // one. burn-quant subtracts and adds the bias, which the specification tests.
        return values_and_gradients::<D>(golden, case, device, QuantizerConfig { bias: None, ..config });
    }
    values_and_gradients::<D>(golden, case, device, config)
}

/// One batch, from configuration to buffers.
fn calibration<const D: usize>(
    golden: &Golden,
    case: &Case,
    device: &Device,
    config: &QuantizerConfig,
) -> Result<(), String> {
    let x: Tensor<D> = golden.tensor(case, case.input("x"), device);
    let parameter = Param::from_tensor(Tensor::<1>::zeros([1], device));
    let probe = Probe { quantizer: TensorQuantizer::disabled(Role::ChannelsLast), parameter };
    // blocks of activations are dynamic in a model; of a tensor as it stands here they may be static, as a weight's
    let mut quantizers = Quantizers::of(&probe);
    let quantizer = quantizers.get_mut("quantizer").map_err(|e| e.to_string())?;
    quantizer.set_config(config.clone());
    let probe = quantizers.install(probe).map_err(|e| e.to_string())?;
    let rules = QuantConfig::new().with_rule(Rule::set("quantizer", config.clone()));
    let (probe, _) =
        quantize(probe, &rules, |probe| drop(probe.quantizer.forward(x.clone()))).map_err(|e| e.to_string())?;
    for (name, buffer) in BUFFERS {
        let Some(key) = case.expected.get(name) else { continue };
        let dynamic = |bias: &BiasConfig| bias.source == BiasSource::Dynamic;
        if buffer == Buffer::Amax && config.bias.as_ref().is_some_and(dynamic) {
            // The reference measures the range of a quantizer with a dynamic bias before the bias is subtracted,
            // burn-quant after it: less is lost. The values below are those for the reference's range.
            continue;
        }
        let Some(found) = probe.quantizer.buffer(buffer) else { return Err(format!("no {name}")) };
        let (found, expected) = (values(found), golden.values(case, key));
        let summed = config.rotation.is_some() || (buffer == Buffer::Bias);
        let centred = config.bias.is_some() && buffer == Buffer::Amax;
        if summed || centred {
            // sums differ in the last place with their order, and with them what is left around a mean
            close(name, &found, &expected, 1e-6)?;
        } else {
            bitwise(name, &found, &expected)?;
        }
    }
    Ok(())
}

fn values_and_gradients<const D: usize>(
    golden: &Golden,
    case: &Case,
    device: &Device,
    config: QuantizerConfig,
) -> Result<(), String> {
    let rotated = config.rotation.is_some();
    let expected = golden.values(case, &case.expected["y"]);
    let upstream = golden.values(case, case.input("upstream"));
    // rotated gradients are given, others follow from the mask
    let gradient = |rule| match (rule, case.expected.get("grad_mask")) {
        (GradientRule::PassThrough, None) => golden.values(case, &case.expected["grad_pass_through"]),
        (GradientRule::Clipped, None) => golden.values(case, &case.expected["grad_clip"]),
        (GradientRule::PassThrough, Some(_)) => values(golden.tensor::<D>(case, case.input("upstream"), device)),
        (GradientRule::Clipped, Some(mask)) => {
            upstream.iter().zip(golden.values(case, mask)).map(|(u, m)| u * m).collect()
        }
        (GradientRule::Lsq | GradientRule::Pact, _) => unreachable!("the reference has no case that learns ranges"),
    };
    let compare = |what: &str, found: &[f32], expected: &[f32]| {
        if rotated { rounded_alike(what, found, expected) } else { bitwise(what, found, expected) }
    };
    let quantizer = |gradient| {
        let mut quantizer = TensorQuantizer::new(QuantizerConfig { gradient, ..config.clone() }, Role::ChannelsLast);
        for (name, buffer) in BUFFERS {
            if let (Some(key), true) = (case.expected.get(name), quantizer.keeps(buffer)) {
                let given = golden.values(case, key);
                quantizer.set_buffer(buffer, Tensor::from_data(given.as_slice(), (device, DType::F32)));
            }
        }
        quantizer
    };
    let x: Tensor<D> = golden.tensor(case, case.input("x"), device);
    compare("y", &values(quantizer(GradientRule::PassThrough).forward(x)), &expected)?;

    let autodiff = device.clone().autodiff();
    for (rule, name, device) in [
        (GradientRule::PassThrough, "pass-through gradient", autodiff.clone()),
        (GradientRule::Clipped, "clipped gradient", autodiff.clone()),
        (GradientRule::Clipped, "clipped gradient, checkpointed", autodiff.gradient_checkpointing()),
    ] {
        let x: Tensor<D> = golden.tensor::<D>(case, case.input("x"), &device).require_grad();
        let upstream: Tensor<D> = golden.tensor(case, case.input("upstream"), &device);
        let y = quantizer(rule).forward(x.clone());
        compare("y under autodiff", &values(y.clone().without_autodiff()), &expected)?;
        let gradients = (y * upstream.clone()).sum().backward();
        let found = values(x.grad(&gradients).ok_or("no gradient")?);
        compare(name, &found, &gradient(rule))?;
    }
    Ok(())
}

/// Equal to 1e-5 of the largest value, but for isolated values that a transform summed in another order rounds to the
/// next grid point: at most one in a hundred, and 2 % of the whole.
fn rounded_alike(what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
    let bound = 1e-5 * largest(expected);
    let off = found.iter().zip(expected).filter(|(f, e)| !within((**f).into(), (**e).into(), bound)).count();
    if found.len() == expected.len() && off * 100 <= expected.len() && frobenius(found, expected) <= 2e-2 {
        return Ok(());
    }
    close(what, found, expected, 1e-5)
}
