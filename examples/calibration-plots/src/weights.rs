//! Ranges of weights.

use burn::tensor::{Device, Tensor};
use burn_quant::config::RangeSearch;
use burn_quant::nn::QuantLinear;
use burn_quant::{Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, quantize, quantize_weights};
use plot::{Axis, Look, Plot, Series};

use crate::data::{OUTPUTS, correlated, layer, values};

pub(crate) fn plots(device: &Device) -> Result<Vec<Plot>, QuantError> {
    Ok(vec![mse(device)?, local_hessian(device)?])
}

fn weights(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config))
}

fn squared_error(layer: &QuantLinear) -> f64 {
    let change = layer.weight.val() - layer.weight.base();
    f64::from((change.clone() * change).mean().into_scalar::<f32>())
}

/// The error of a weight whose ranges are multiplied.
fn mse(device: &Device) -> Result<Plot, QuantError> {
    let mut series = Vec::new();
    for bits in [8, 4, 3] {
        let (max, _) = quantize_weights(layer(device), &weights(QuantizerConfig::int(bits).per_channel()))?;
        let scaled = |multiplier: f32| -> Result<(f64, f64), QuantError> {
            let mut quantizers = Quantizers::of(&max);
            let quantizer = quantizers.get_mut("weight_quantizer")?;
            let amax = quantizer.amax().expect("it is calibrated");
            quantizer.set_amax(amax * multiplier);
            Ok((f64::from(multiplier), squared_error(&quantizers.install(max.clone())?)))
        };
        let line = (5..=30).map(|i| scaled(i as f32 * 0.05)).collect::<Result<Vec<_>, _>>()?;
        series.push(Series::new(format!("{bits} bits"), Look::Line, line));
    }
    let config = weights(QuantizerConfig::int(3).per_channel());
    let (each, _) = quantize_weights(layer(device), &config.with_algorithm(Algorithm::Mse(RangeSearch::default())))?;
    let level = squared_error(&each);
    series.push(Series::level("3 bits, the best multiplier of each channel", level).like(2));
    Ok(Plot {
        name: "mse",
        title: "Rounding error of a weight against its range".into(),
        x: Axis::linear("range / largest magnitude"),
        y: Axis::log("mean squared error").lower_is_better(),
        series,
    })
}

/// The error of outputs under static NVFP4: ranges by max, by the error of the weight, and by that of the outputs.
fn local_hessian(device: &Device) -> Result<Plot, QuantError> {
    let (x, float) = (correlated(device), layer(device));
    let y = float.forward(x.clone());
    let sorted = |algorithm: Algorithm| -> Result<Vec<(f64, f64)>, QuantError> {
        let config = weights(QuantizerConfig::nvfp4_static()).with_algorithm(algorithm);
        let (quantized, _) = quantize(layer(device), &config, |layer: &QuantLinear| drop(layer.forward(x.clone())))?;
        let change: Tensor<2> = quantized.forward(x.clone()) - y.clone();
        let mut errors = values((change.clone() * change).mean_dim(0));
        errors.sort_by(f32::total_cmp);
        Ok(errors.into_iter().enumerate().map(|(i, e)| (i as f64 / OUTPUTS as f64, f64::from(e))).collect())
    };
    let series = vec![
        Series::new("max", Look::Line, sorted(Algorithm::Max)?),
        Series::new("mse, all E4M3 scales", Look::Line, sorted(Algorithm::Mse(RangeSearch::E4m3Scales))?),
        Series::new("local Hessian", Look::Line, sorted(Algorithm::local_hessian())?),
    ];
    Ok(Plot {
        name: "local-hessian",
        title: "Errors of the outputs of a layer in static NVFP4".into(),
        x: Axis::linear("share of the outputs, those with the least error first"),
        y: Axis::log("mean squared error of an output").lower_is_better(),
        series,
    })
}
