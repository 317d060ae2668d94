//! The diagnosis, step by step.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_quant_core::layout::Role;
use burn_quant_core::memory::memory;
use burn_quant_core::model::{ModelIndex, Quantizers};
use burn_quant_core::quantizer::{AnyTensor, TensorQuantizer};
use burn_quant_core::summary::summary;

use crate::case::{self, Cases};
use crate::diagnosis::{Diagnosis, Metric, Overview, RecipeResult};
use crate::error::{DiagnoseError, WeightShape};
use crate::findings;
use crate::measure::{LayerNumbers, LayerSums, Passes, of_weights};
use crate::options::{DiagnoseOptions, DiagnoseProgress};
use crate::sensitivity::sensitivity;

/// Finds out what quantization does to a model: by quantizer, by layer, and to its output; and what to change.
///
/// Each batch goes through three times: through the float model, through the quantized model whose layers get the
/// inputs of the float model, and through the quantized model. `forward` runs one batch; it must do the same for both
/// models. Of several outputs it returns one, or all in one tensor. Sums stay on the device until the last batch. The
/// outputs of the layers of one batch are held at a time.
///
/// Layers are those of `burn_quant::nn` and those of yours that call
/// [`TensorQuantizer::layer`](burn_quant_core::quantizer::TensorQuantizer::layer). Of unmodified layers the weights are
/// looked at. A layer is compared with that of the same path: norms that were folded and layers that were equalized
/// are to be so in the float model, too. After quantization-aware training without a float model at hand, the float
/// model is the one that the training began with. Weights that were rounded while they were solved (GPTQ, AdaRound) are
/// looked at as they are.
///
/// # Errors
///
/// [`DiagnoseError::NoData`], [`DiagnoseError::OutputsDiffer`], [`DiagnoseError::WeightsDiffer`],
/// [`DiagnoseError::NeverCalibrated`], and [`QuantError::Packed`](burn_quant_core::error::QuantError::Packed) for a
/// packed model: diagnose it before it is compressed.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_quant::{nn, presets, quantize};
/// use burn_quant_report::{DiagnoseOptions, diagnose};
///
/// let device = Device::flex();
/// let float = nn::LinearConfig::new(16, 8).init(&device);
/// let batches: Vec<_> = (0..4).map(|_| Tensor::<2>::random([32, 16], Distribution::Default, &device)).collect();
/// let (quantized, _) = quantize(float.clone(), &presets::int8_default(), |model| {
///     batches.iter().for_each(|batch| drop(model.forward(batch.clone())));
/// })?;
///
/// let forward = |model: &nn::Linear, batch: &Tensor<2>| model.forward(batch.clone());
/// let diagnosis = diagnose(&float, &quantized, batches, forward, DiagnoseOptions::new())?;
/// println!("{diagnosis}"); // the worst layers, and what to do
/// assert!(diagnosis.overview.output_sqnr.unwrap() > 30.0); // decibels
/// std::fs::write(std::env::temp_dir().join("diagnosis.html"), diagnosis.html())?;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn diagnose<M: Module, B, const D: usize>(
    float: &M,
    quantized: &M,
    batches: impl IntoIterator<Item = B>,
    mut forward: impl FnMut(&M, &B) -> Tensor<D>,
    mut options: DiagnoseOptions<'_, M>,
) -> Result<Diagnosis, DiagnoseError> {
    let index = ModelIndex::of(quantized);
    index.refuse_packed()?;
    let uncalibrated = index.quantizers.iter().find(|(_, quantizer)| quantizer.is_uncalibrated());
    if let Some((name, _)) = uncalibrated {
        return Err(DiagnoseError::NeverCalibrated { name: name.into() });
    }
    check_weights(&ModelIndex::of(float), &index)?;
    let passes = Passes::new(float, quantized);
    let (mut output, mut done) = (LayerSums::default(), 0);
    for batch in batches {
        let expected = forward(passes.float(), &batch);
        drop(forward(passes.forced(), &batch));
        let found = forward(passes.free(), &batch);
        if expected.dims() != found.dims() {
            let (float, quantized) = (expected.dims().to_vec(), found.dims().to_vec());
            return Err(DiagnoseError::OutputsDiffer { batch: done, float, quantized });
        }
        let (expected, found) = (AnyTensor::from(expected), AnyTensor::from(found));
        output.add_own(Role::ChannelsLast, &expected, &found);
        output.add_free(&expected, &found);
        passes.next_batch();
        done += 1;
        (options.progress)(DiagnoseProgress::Batch { done });
    }
    if output.is_empty() {
        return Err(DiagnoseError::NoData);
    }
    let cases = cases(passes, float, quantized, &index.quantizers, options.worst_layers);
    let mut overview = overview(float, quantized, &index, done, output.on_host());
    overview.metric = options.metric.as_mut().map(|metric| Metric {
        name: metric.name.clone(),
        better: metric.better,
        float: (metric.of)(float),
        quantized: (metric.of)(quantized),
    });
    let sensitivity = match options.metric.as_mut().filter(|_| options.sensitivity) {
        Some(metric) => sensitivity(quantized, &cases, &mut metric.of, &mut options.progress),
        None => Vec::new(),
    };
    Ok(Diagnosis {
        title: options.title,
        overview,
        findings: findings::all(&cases),
        layers: cases.layers.into_iter().map(|layer| layer.shown).collect(),
        quantizers: cases.quantizers.into_iter().map(|quantizer| quantizer.shown).collect(),
        sensitivity,
        curve: options.curve,
        recipes: options.recipes,
        graph: options.graph,
    })
}

/// Refuses models of two architectures: layers that only one of them has are compared with nothing.
///
/// Biases and the parameters of norms may differ, as they do where norms were folded.
fn check_weights(float: &ModelIndex, quantized: &ModelIndex) -> Result<(), DiagnoseError> {
    let weights = |index: &ModelIndex| -> BTreeMap<String, Vec<usize>> {
        let weights = index.parameters().iter().filter(|parameter| parameter.shape.len() > 1);
        weights.map(|weight| (weight.path.clone(), weight.shape.clone())).collect()
    };
    let (float, quantized) = (weights(float), weights(quantized));
    match float.keys().chain(quantized.keys()).find(|path| float.get(*path) != quantized.get(*path)) {
        None => Ok(()),
        Some(path) => Err(DiagnoseError::WeightsDiffer {
            path: path.clone(),
            float: WeightShape(float.get(path).cloned()),
            quantized: WeightShape(quantized.get(path).cloned()),
        }),
    }
}

/// Reads what the passes measured.
fn cases<M: Module>(
    passes: Passes<M>,
    float: &M,
    quantized: &M,
    quantizers: &Quantizers,
    worst_layers: usize,
) -> Cases {
    let (activations, layers) = passes.finish();
    let enabled = |name: &str| quantizers.find(name).is_some_and(TensorQuantizer::is_enabled);
    let activations = activations.into_iter().filter(|(name, _)| enabled(name));
    let activations = activations.map(|(name, sums)| (name, sums.on_host())).collect();
    let weights = of_weights(float, quantized, quantizers);
    let quantizers = case::quantizers(quantizers, activations, weights);
    let layers: Vec<(String, LayerNumbers)> = layers.into_iter().map(|(path, sums)| (path, sums.on_host())).collect();
    Cases { layers: case::layers(layers, &quantizers, worst_layers), quantizers }
}

fn overview<M: Module>(float: &M, quantized: &M, index: &ModelIndex, batches: u64, output: LayerNumbers) -> Overview {
    let enabled: Vec<&TensorQuantizer> =
        index.quantizers.iter().map(|(_, quantizer)| quantizer).filter(|quantizer| quantizer.is_enabled()).collect();
    let mut formats = BTreeMap::new();
    for quantizer in &enabled {
        *formats.entry(quantizer.config().kind()).or_default() += 1;
    }
    let parameters: f64 = index.parameters().iter().map(|it| it.shape.iter().product::<usize>() as f64).sum();
    let effective_bits = if parameters > 0.0 { summary(quantized).bits_per_parameter(16) } else { 0.0 };
    Overview {
        batches,
        quantizers: index.quantizers.len(),
        enabled: enabled.len(),
        formats,
        effective_bits,
        float_bytes: memory(float).float_bytes() as u64,
        quantized_bytes: (effective_bits * parameters / 8.0).ceil() as u64,
        output_sqnr: output.own_sqnr(),
        output_non_finite: output.non_finite,
        metric: None,
    }
}

impl Diagnosis {
    /// Returns this as a line of a comparison of recipes, for the diagnosis of another one.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::{DiagnoseOptions, Diagnosis};
    ///
    /// fn beside<'a, M>(first: &Diagnosis) -> DiagnoseOptions<'a, M> {
    ///     DiagnoseOptions::new().with_title("AWQ").with_recipes([first.as_recipe("max")])
    /// }
    /// assert_eq!(Diagnosis::default().as_recipe("max").name, "max");
    /// ```
    pub fn as_recipe(&self, name: impl Into<String>) -> RecipeResult {
        let worst = self.layers.iter().max_by(|a, b| a.share.total_cmp(&b.share));
        RecipeResult {
            name: name.into(),
            bits: self.overview.effective_bits,
            output_sqnr: self.overview.output_sqnr,
            metric: self.overview.metric.as_ref().map(|metric| metric.quantized).filter(|metric| metric.is_finite()),
            worst_layer: worst.map(|layer| layer.path.clone()),
        }
    }

    /// Writes the diagnosis as JSON. Numbers that are not finite are the words `inf`, `-inf` and `NaN`.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::Diagnosis;
    ///
    /// let mut diagnosis = Diagnosis::default();
    /// diagnosis.title = "encoder".into();
    /// assert_eq!(Diagnosis::from_json(&diagnosis.to_json()).unwrap(), diagnosis);
    /// ```
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with string keys")
    }

    /// Reads a diagnosis from JSON.
    ///
    /// # Errors
    ///
    /// Those of `serde_json`: the text is not JSON, or not a diagnosis.
    ///
    /// # Example
    ///
    /// See [`to_json`](Self::to_json).
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}
