//! Fake quantization: values and both gradients, bit for bit.

use burn::tensor::{DType, Device, Tensor};
use burn_quant::ops::{Groups, group_amax};
use burn_quant::{GradientRule, Granularity, Range, Role, TensorQuantizer};

use crate::config::{by_axes, not_yet};
use crate::index::{Case, Golden, Outcome, bitwise, values};

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    if let Some(why) = not_yet(&case.config) {
        return Outcome::NotYet(why);
    }
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

fn check<const D: usize>(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let config = by_axes(&case.config, D);
    let expected = golden.values(case, &case.expected["y"]);
    let mask = golden.values(case, &case.expected["grad_mask"]);
    let amax = case.expected.get("amax").map(|key| golden.values(case, key));
    let x: Tensor<D> = golden.tensor(case, case.input("x"), device);

    if let (Some(amax), true) = (&amax, case.other["amax_source"] == "max_calibration_on_x") {
        let Granularity::Axes(axes) = &config.granularity else { unreachable!("golden configs list axes") };
        bitwise("amax", &values(group_amax(x.clone(), &Groups::new(&x.dims(), axes))), amax)?;
    }
    let quantizer = |gradient| {
        let mut quantizer = TensorQuantizer::new(config.clone(), Role::Features);
        if config.range == Range::Static {
            let amax = amax.as_ref().expect("a static case has an amax");
            quantizer.set_amax(Tensor::from_data(amax.as_slice(), (device, DType::F32)));
        }
        let mut config = config.clone();
        config.gradient = gradient;
        quantizer.set_config(config);
        quantizer
    };
    bitwise("y", &values(quantizer(GradientRule::PassThrough).forward(x)), &expected)?;

    let upstream = golden.values(case, case.input("upstream"));
    let masked: Vec<f32> = upstream.iter().zip(&mask).map(|(u, m)| u * m).collect();
    let autodiff = device.clone().autodiff();
    for (rule, name, device) in [
        (GradientRule::PassThrough, "pass-through gradient", autodiff.clone()),
        (GradientRule::Clipped, "clipped gradient", autodiff.clone()),
        (GradientRule::Clipped, "clipped gradient, checkpointed", autodiff.gradient_checkpointing()),
    ] {
        let x: Tensor<D> = golden.tensor::<D>(case, case.input("x"), &device).require_grad();
        let upstream: Tensor<D> = golden.tensor(case, case.input("upstream"), &device);
        let y = quantizer(rule).forward(x.clone());
        bitwise("y under autodiff", &values(y.clone().without_autodiff()), &expected)?;
        let gradients = (y * upstream.clone()).sum().backward();
        let found = values(x.grad(&gradients).ok_or("no gradient")?);
        let expected = if rule == GradientRule::Clipped { &masked } else { &values(upstream.without_autodiff()) };
        bitwise(name, &found, expected)?;
    }
    Ok(())
}
