//! Algorithms that change layers.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNormConfig, Linear};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::LayerReport;
use burn_quant::config::{ActOrder, CalibrationInputs};
use burn_quant::nn::QuantLinear;
use burn_quant::prepare::{LinearMap, equalize, fold_batch_norm};
use burn_quant::quantizer::Buffer;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, presets, quantize, quantize_weights,
};
use plot::{Axis, Look, Plot, Series};

use crate::data::{CHANNELS, correlated, heavy, layer, normal, output_error, values, with_outliers};

pub(crate) fn plots(device: &Device) -> Result<Vec<Plot>, QuantError> {
    Ok(vec![
        smoothquant(device)?,
        awq_lite(device)?,
        awq_clip(device)?,
        svdquant(device)?,
        gptq(device)?,
        adaround(device)?,
        bias_correction(device)?,
        batch_norm(device)?,
        equalization(device)?,
    ])
}

fn w4() -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
}

fn solved(config: &QuantConfig, x: &Tensor<2>) -> Result<(QuantLinear, LayerReport), QuantError> {
    let device = x.device();
    let (layer, report) = quantize(layer(&device), config, |layer: &QuantLinear| drop(layer.forward(x.clone())))?;
    let of_layer = report.layers.into_iter().next();
    Ok((layer, of_layer.unwrap_or_else(|| unreachable!("an algorithm of layers reports"))))
}

fn error(config: QuantConfig, x: &Tensor<2>) -> Result<f64, QuantError> {
    let device = x.device();
    let (quantized, _) = quantize(layer(&device), &config, |layer: &QuantLinear| drop(layer.forward(x.clone())))?;
    Ok(output_error(&quantized, &layer(&device), x))
}

fn by_index(values: impl IntoIterator<Item = f32>) -> Vec<(f64, f64)> {
    values.into_iter().enumerate().map(|(i, v)| (i as f64, f64::from(v))).collect()
}

/// Ranges of input channels before and after.
fn smoothquant(device: &Device) -> Result<Plot, QuantError> {
    let x = with_outliers(device);
    let mut series = vec![Series::new("before", Look::Line, by_index(values(x.clone().abs().max_dim(0))))];
    for alpha in [0.5, 1.0] {
        let config = presets::int8_default().with_algorithm(Algorithm::smoothquant(alpha));
        let (layer, _) = solved(&config, &x)?;
        let factor = layer.input_quantizer.buffer(Buffer::PreQuantScale).expect("it is smoothed");
        let smoothed = x.clone() * factor.unsqueeze::<2>();
        series.push(Series::new(
            format!("after, α = {alpha}"),
            Look::Line,
            by_index(values(smoothed.abs().max_dim(0))),
        ));
    }
    Ok(Plot {
        name: "smoothquant",
        title: "Ranges of the input channels of a layer".into(),
        x: Axis::linear("input channel"),
        y: Axis::log("range"),
        series,
    })
}

/// The error of outputs for each exponent.
fn awq_lite(device: &Device) -> Result<Plot, QuantError> {
    let mut series = Vec::new();
    for (name, x) in [("with outlier channels", with_outliers(device)), ("without", correlated(device))] {
        let nearest = error(w4(), &x)?;
        // a search of one step each: what an exponent by itself would give
        let at = |k: i32| -> Result<(f64, f64), QuantError> {
            let alpha = k as f32 * 0.05;
            Ok((f64::from(alpha), at_exponent(&x, alpha)? / nearest))
        };
        let line = series.len();
        series.push(Series::new(name, Look::Line, (0..=20).map(at).collect::<Result<Vec<_>, _>>()?));
        let (_, report) = solved(&w4().with_algorithm(Algorithm::awq_lite()), &x)?;
        series.push(Series::mark(format!("chosen, {name}"), report.steps[0].choices["alpha"]).like(line));
    }
    Ok(Plot {
        name: "awq-lite",
        title: "AWQ-lite: output error of 4-bit weights against the exponent".into(),
        x: Axis::linear("exponent α"),
        y: Axis::log("output error / nearest").lower_is_better(),
        series,
    })
}

/// The error with a scale of one exponent, by hand.
fn at_exponent(x: &Tensor<2>, alpha: f32) -> Result<f64, QuantError> {
    let device = x.device();
    let float = layer(&device);
    let weight = float.weight.val();
    let inputs = x.clone().abs().mean_dim(0).swap_dims(0, 1);
    let relative = weight.clone().abs().mean_dim(1) / weight.clone().abs().max().unsqueeze::<2>();
    let scale = inputs.powf_scalar(alpha) / relative.powf_scalar(1.0 - alpha);
    let scaled = Linear { weight: Param::from_tensor(weight.clone() * scale.clone()), bias: None };
    let (scaled, _) = quantize_weights(scaled, &w4())?;
    let change = x.clone().matmul(scaled.weight.val() / scale - weight);
    Ok(f64::from((change.clone() * change).mean().into_scalar::<f32>()))
}

/// The error of outputs with one clip ratio for all blocks, and with the best of each.
fn awq_clip(device: &Device) -> Result<Plot, QuantError> {
    let x = with_outliers(device);
    let (max, _) = quantize_weights(layer(device), &w4())?;
    let nearest = output_error(&max, &layer(device), &x);
    let with = |ratio: f32| -> Result<(f64, f64), QuantError> {
        let mut quantizers = Quantizers::of(&max);
        let quantizer = quantizers.get_mut("weight_quantizer")?;
        let amax = quantizer.amax().expect("it is calibrated");
        quantizer.set_amax(amax * ratio);
        let clipped = quantizers.install(max.clone())?;
        Ok((f64::from(ratio), output_error(&clipped, &layer(device), &x) / nearest))
    };
    let all = (10..=20).map(|i| with(i as f32 * 0.05)).collect::<Result<Vec<_>, _>>()?;
    let each = error(w4().with_algorithm(Algorithm::awq_clip()), &x)? / nearest;
    let series = vec![
        Series::new("one ratio for all blocks", Look::Line, all),
        Series::level("the best ratio of each block", each),
    ];
    Ok(Plot {
        name: "awq-clip",
        title: "AWQ-clip: output error of 4-bit weights against the clip ratio".into(),
        x: Axis::linear("clip ratio"),
        y: Axis::linear("output error / nearest").lower_is_better(),
        series,
    })
}

/// The error of outputs by rank.
fn svdquant(device: &Device) -> Result<Plot, QuantError> {
    let x = with_outliers(device);
    let both = |format: QuantizerConfig| {
        QuantConfig::new()
            .with_rule(Rule::set("*weight_quantizer", format.clone()))
            .with_rule(Rule::set("*input_quantizer", format))
    };
    let mut series = Vec::new();
    for (name, config) in [("NVFP4", both(QuantizerConfig::nvfp4())), ("4-bit weights alone", w4())] {
        let nearest = error(config.clone(), &x)?;
        let at = |rank: usize| -> Result<(f64, f64), QuantError> {
            Ok((rank as f64, error(config.clone().with_algorithm(Algorithm::svdquant(rank)), &x)? / nearest))
        };
        let line = [1, 2, 4, 8, 12, 16, 24, 32].into_iter().map(at).collect::<Result<Vec<_>, _>>()?;
        series.push(Series::new(name, Look::Line, line));
    }
    Ok(Plot {
        name: "svdquant",
        title: "SVDQuant: output error against the rank of the branch".into(),
        x: Axis::linear("rank of the branch"),
        y: Axis::log("output error / max").lower_is_better(),
        series,
    })
}

fn int(bits: u8, algorithm: Algorithm) -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(bits).per_channel()))
        .with_algorithm(algorithm)
}

fn by_bits(name: &str, x: &Tensor<2>, algorithm: &Algorithm) -> Result<Series, QuantError> {
    let at =
        |bits: u8| -> Result<(f64, f64), QuantError> { Ok((bits.into(), error(int(bits, algorithm.clone()), x)?)) };
    Ok(Series::new(name, Look::Line, (2..=8).map(at).collect::<Result<Vec<_>, _>>()?))
}

fn gptq(device: &Device) -> Result<Plot, QuantError> {
    let x = correlated(device);
    let order = ActOrder::On;
    let act_order =
        Algorithm::Gptq { damping: 0.01, block_size: 128, act_order: order, inputs: CalibrationInputs::Float };
    let series = vec![
        by_bits("nearest", &x, &Algorithm::Max)?,
        by_bits("GPTQ", &x, &Algorithm::gptq())?,
        by_bits("GPTQ, strongest channels first", &x, &act_order)?,
    ];
    Ok(Plot {
        name: "gptq",
        title: "GPTQ: output error against bits per weight".into(),
        x: Axis::linear("bits per weight"),
        y: Axis::log("mean squared error of an output").lower_is_better(),
        series,
    })
}

fn adaround(device: &Device) -> Result<Plot, QuantError> {
    let x = correlated(device);
    let nearest = error(int(3, Algorithm::Max), &x)?;
    let at = |iterations: usize| -> Result<(f64, f64), QuantError> {
        let algorithm = Algorithm::AdaRound { iterations, regularization: 3.0 };
        Ok((iterations as f64, error(int(3, algorithm), &x)? / nearest))
    };
    let line = [50, 100, 200, 400, 700, 1000].into_iter().map(at).collect::<Result<Vec<_>, _>>()?;
    let gptq = error(int(3, Algorithm::gptq()), &x)? / nearest;
    let series = vec![Series::new("AdaRound", Look::Line, line), Series::level("GPTQ", gptq)];
    Ok(Plot {
        name: "adaround",
        title: "AdaRound: output error of 3-bit weights against iterations".into(),
        x: Axis::linear("iterations"),
        y: Axis::linear("output error / nearest").lower_is_better(),
        series,
    })
}

/// The mean of each output's error.
fn bias_correction(device: &Device) -> Result<Plot, QuantError> {
    let (x, float) = (correlated(device), layer(device));
    let y = float.forward(x.clone());
    let shift = |algorithm: Algorithm| -> Result<Vec<(f64, f64)>, QuantError> {
        let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
        let (quantized, _) = quantize(layer(device), &int(3, algorithm), run)?;
        Ok(by_index(values((quantized.forward(x.clone()) - y.clone()).mean_dim(0))))
    };
    let series = vec![
        Series::new("before", Look::Points, shift(Algorithm::Max)?),
        Series::new("after", Look::Points, shift(Algorithm::BiasCorrection)?),
    ];
    Ok(Plot {
        name: "bias-correction",
        title: "Mean errors of the outputs of a layer with 3-bit weights".into(),
        x: Axis::linear("output"),
        y: Axis::linear("mean of its error"),
        series,
    })
}

/// The error of a convolution and its norm, with the norm beside it and folded.
fn batch_norm(device: &Device) -> Result<Plot, QuantError> {
    let channels = 16;
    device.seed(30);
    let mut norm = BatchNormConfig::new(channels).init(device);
    norm.gamma = Param::from_tensor(normal(31, [channels], device).exp());
    let conv: Conv2d = Conv2dConfig::new([8, channels], [3, 3]).with_bias(false).init(device);
    let x = normal(32, [8, 8, 12, 12], device);
    let y = norm.forward(conv.forward(x.clone()));
    let folded = fold_batch_norm(conv.clone(), norm.clone())?;
    let lines = [
        ("norm folded, a scale per channel", &folded, None, true),
        ("norm folded, one scale", &folded, None, false),
        ("norm beside it, a scale per channel", &conv, Some(&norm), true),
    ];
    let mut series = Vec::new();
    for (name, conv, norm, per_channel) in lines {
        let at = |bits: u8| -> Result<(f64, f64), QuantError> {
            let config = QuantizerConfig::int(bits);
            let config = if per_channel { config.per_channel() } else { config };
            let config = QuantConfig::new().with_rule(Rule::set("*", config));
            let (quantized, _) = quantize_weights(conv.clone(), &config)?;
            let quantized = quantized.forward(x.clone());
            let change = norm.map_or(quantized.clone(), |norm| norm.forward(quantized)) - y.clone();
            Ok((f64::from(bits), f64::from((change.clone() * change).mean().into_scalar::<f32>())))
        };
        let look = if name.contains("beside") { Look::Points } else { Look::Line };
        series.push(Series::new(name, look, (3..=8).map(at).collect::<Result<Vec<_>, _>>()?));
    }
    Ok(Plot {
        name: "batch-norm-folding",
        title: "A convolution and its batch norm: output error against bits per weight".into(),
        x: Axis::linear("bits per weight"),
        y: Axis::log("mean squared error after the norm").lower_is_better(),
        series,
    })
}

/// The ranges of the channels between two layers, before and after.
fn equalization(device: &Device) -> Result<Plot, QuantError> {
    let linear = |seed, inputs, outputs, gain: Option<Tensor<2>>| {
        let weight = heavy(seed, [inputs, outputs], device) / (inputs as f32).sqrt();
        let weight = gain.map_or(weight.clone(), |gain| weight * gain);
        Linear { weight: Param::from_tensor(weight), bias: None }
    };
    let gain = normal(43, [1, CHANNELS], device).exp();
    let (first, second) = (linear(41, CHANNELS, CHANNELS, Some(gain)), linear(42, CHANNELS, 32, None));
    let ranges = |layer: &Linear| values(layer.weight().abs().max_dim(3).max_dim(2));
    let before = ranges(&first);
    let (first, _second) = equalize(first, second)?;
    let after = ranges(&first);
    let mut channels: Vec<usize> = (0..before.len()).collect();
    channels.sort_by(|a, b| before[*a].total_cmp(&before[*b]));
    let sorted = |ranges: &[f32]| by_index(channels.iter().map(|channel| ranges[*channel]));
    let series =
        vec![Series::new("before", Look::Line, sorted(&before)), Series::new("after", Look::Points, sorted(&after))];
    Ok(Plot {
        name: "equalization",
        title: "Ranges of the channels between two layers, in the first of them".into(),
        x: Axis::linear("channel, by its range before"),
        y: Axis::log("range"),
        series,
    })
}
