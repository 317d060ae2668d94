//! The quantizers of a model as a table.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use burn::tensor::Tensor;
use burn_quant_ops::has_kernels;

use crate::bits;
use crate::config::{RangeSource, Rounding};
use crate::layout::Role;
use crate::model::ModelIndex;
use crate::model::Quantizers;
use crate::quantizer::{Buffer, TensorQuantizer};

/// What stands for the format of a quantizer that is off.
const DISABLED: &str = "disabled";

/// One line of a [`Summary`].
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    format: String,
    granularity: String,
    range: &'static str,
    amax: String,
}

/// The quantizers of a model, their formats, and what the model takes: prints as an aligned table of those that are on.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    lines: Vec<Line>,
    shown: Shown,
    quantizers: usize,
    enabled: usize,
    /// How many quantizers have a format, by its name.
    formats: BTreeMap<String, usize>,
    /// Bits of everything that is not in float.
    coded_bits: f64,
    /// Numbers in float.
    floats: f64,
    /// All parameters.
    parameters: f64,
    /// Devices of the model that burn's own ops quantize on.
    without_kernels: BTreeSet<String>,
    /// Layers whose weights have no quantizer while their activations are quantized.
    folded: Vec<String>,
}

/// Which lines are printed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Enabled,
    All,
}

impl Summary {
    /// Lists disabled quantizers too.
    ///
    /// Without it only enabled quantizers are listed.
    pub fn with_disabled(mut self) -> Self {
        self.shown = Shown::All;
        self
    }

    /// Returns the devices of the model without fused kernels: quantization is composed of burn's own ops there,
    /// several times slower. It happens where a backend is a feature of burn and not of burn-quant.
    pub fn devices_without_kernels(&self) -> impl Iterator<Item = &str> {
        self.without_kernels.iter().map(String::as_str)
    }

    /// Returns the paths of layers that are folded: activations are quantized, and the weight was rounded for good.
    /// Training moves such a weight off its grid, and quantizing it again adds to its error.
    pub fn folded(&self) -> impl Iterator<Item = &str> {
        self.folded.iter().map(String::as_str)
    }

    /// Bits per parameter of a file that keeps codes, scales, and everything that is not quantized as floats of so many
    /// bits; as `search::Cost::Exact` counts.
    pub fn bits_per_parameter(&self, float_bits: u8) -> f64 {
        (self.coded_bits + self.floats * f64::from(float_bits)) / self.parameters
    }
}

/// Lists the quantizers of a model that are on, one line each: name, format, granularity, static or dynamic, and range.
/// After them how many there are of each format, and bits per parameter; then layers that are folded, and devices
/// without fused kernels, if any.
///
/// [`Summary::with_disabled`] shows those that are off too. Ranges are read from the device.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::Linear;
/// use burn_quant::{presets, quantize_weights, summary};
///
/// let weight = Tensor::from_data([[0.5, -2.0], [0.25, 1.0]], &Device::flex());
/// let model = Linear { weight: burn::module::Param::from_tensor(weight), bias: None };
/// let (model, _) = quantize_weights(model, &presets::int8_weight_only())?;
/// let table = summary(&model).to_string();
/// assert!(table.contains("weight_quantizer  int8    per-channel  static  [5.0000e-1, 2.0000e0] (2)"), "{table}");
/// // four codes of 8 bits, two scales of 32
/// let last = "1 of 1 quantizers enabled: 1 int8; 24.00 bits per parameter, 16 where it is in float";
/// assert!(table.ends_with(last), "{table}");
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn summary<M: Module>(model: &M) -> Summary {
    let quantizers = Quantizers::of(model);
    let mut summary = Summary {
        lines: quantizers.iter().flat_map(|(name, quantizer)| lines(name, quantizer)).collect(),
        shown: Shown::Enabled,
        quantizers: quantizers.len(),
        enabled: 0,
        formats: BTreeMap::new(),
        coded_bits: 0.0,
        floats: 0.0,
        parameters: 0.0,
        without_kernels: BTreeSet::new(),
        folded: Vec::new(),
    };
    for (name, quantizer) in quantizers.iter().filter(|(_, quantizer)| quantizer.is_enabled()) {
        let kinds: Vec<String> = quantizer.stages(name).map(|(_, stage)| stage.config().kind()).collect();
        *summary.formats.entry(kinds.join(" + ")).or_default() += 1;
        summary.enabled += 1;
        if !matches!(quantizer.role(), Role::Weight(_)) {
            summary.coded_bits += bits::of_input(quantizer);
        }
    }
    let index = ModelIndex::lazy_of(model);
    summary.folded = index.folded();
    let quantized = quantizers.iter().filter_map(|(name, _)| index.device_of(name));
    for device in quantized.filter(|device| !has_kernels(device)) {
        summary.without_kernels.insert(format!("{:?}", device.without_autodiff().as_dispatch()));
    }
    for parameter in index.parameters() {
        let elements = parameter.shape.iter().product::<usize>() as f64;
        summary.parameters += elements;
        match quantizers.get(&parameter.quantizer) {
            Ok(quantizer) if quantizer.is_enabled() => {
                // bits are linear in those of a float: branches of low rank are in float
                let coded = bits::of_layer(&parameter.shape, quantizer, None, 0);
                summary.coded_bits += coded;
                summary.floats += bits::of_layer(&parameter.shape, quantizer, None, 1) - coded;
            }
            _ => summary.floats += elements,
        }
    }
    summary
}

/// A line for a quantizer, and for each further stage of its chain.
fn lines(name: &str, quantizer: &TensorQuantizer) -> Vec<Line> {
    if !quantizer.is_enabled() {
        let nothing = String::new();
        let name = name.to_string();
        return vec![Line { name, format: DISABLED.into(), granularity: nothing.clone(), range: "", amax: nothing }];
    }
    quantizer.stages(name).map(|(name, stage)| line(name, stage)).collect()
}

fn line(name: String, stage: &TensorQuantizer) -> Line {
    let config = stage.config();
    let (range, amax) = match config.range {
        _ if config.rounding == Rounding::Off => ("", String::new()),
        _ if stage.packed().is_some() => ("packed", String::new()), // ranges are in its scales
        RangeSource::Dynamic => ("dynamic", String::new()),
        RangeSource::Constant(amax) => ("constant", format!("{amax:.4e}")),
        RangeSource::Static => ("static", ranges(stage)),
    };
    Line { name, format: config.kind(), granularity: config.granularity.to_string(), range, amax }
}

/// The range, or the ranges before and after rounding.
fn ranges(stage: &TensorQuantizer) -> String {
    match (stage.amax().map(ends), stage.buffer(Buffer::AmaxPost).map(ends)) {
        (None, _) => "uncalibrated".into(),
        (Some(amax), None) => amax,
        (Some(pre), Some(post)) => format!("{pre} -> {post}"),
    }
}

/// One value, or the lowest and the highest of several.
fn ends(amax: Tensor<1>) -> String {
    let values: Vec<f32> = amax.into_data().convert::<f32>().try_into_vec().expect("f32 data");
    let lowest = values.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = values.iter().copied().fold(0.0, f32::max);
    match values.len() {
        1 => format!("{highest:.4e}"),
        n => format!("[{lowest:.4e}, {highest:.4e}] ({n})"),
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["quantizer", "format", "granularity", "range", "amax"];
        let cells =
            |l: &Line| [l.name.clone(), l.format.clone(), l.granularity.clone(), l.range.into(), l.amax.clone()];
        let shown = self.lines.iter().filter(|line| self.shown == Shown::All || line.format != DISABLED);
        let rows: Vec<[String; 5]> = std::iter::once(head.map(String::from)).chain(shown.map(cells)).collect();
        let widths: Vec<usize> =
            (0..5).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        for row in &rows {
            let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        write!(f, "{} of {} quantizers enabled", self.enabled, self.quantizers)?;
        for (i, (format, count)) in self.formats.iter().enumerate() {
            write!(f, "{} {count} {format}", if i == 0 { ":" } else { "," })?;
        }
        if self.parameters > 0.0 {
            write!(f, "; {:.2} bits per parameter, 16 where it is in float", self.bits_per_parameter(16))?;
        }
        if let Some(first) = self.folded.first() {
            let count = self.folded.len();
            write!(
                f,
                "\nthe weights of {count} layers are folded, first `{first}`: do not train or quantize them again"
            )?;
        }
        for device in &self.without_kernels {
            write!(
                f,
                "\nno fused kernels on {device}, burn's own ops run there: enable its feature in burn-quant too"
            )?;
        }
        Ok(())
    }
}
