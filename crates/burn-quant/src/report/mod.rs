//! What was done to a model: [`LayerReport`] by layer, and its quantizers as a table.

mod layers;

pub use layers::{LayerReport, StepReport};

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Quantizers, Range, Rounding, TensorQuantizer};

/// One line of a [`Summary`].
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    format: String,
    granularity: String,
    range: &'static str,
    amax: String,
}

/// All quantizers of a model: prints as an aligned table.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    lines: Vec<Line>,
    quantizers: usize,
    enabled: usize,
}

/// The quantizers of a model, one line each: name, format, granularity, static or dynamic, and range.
///
/// Ranges are read from the device.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::Linear;
/// use burn_quant::{QuantConfig, quantize_weights, summary};
///
/// let weight = Tensor::from_data([[0.5, -2.0], [0.25, 1.0]], &Device::flex());
/// let model = Linear { weight: burn::module::Param::from_tensor(weight), bias: None };
/// let (model, _) = quantize_weights(model, &QuantConfig::int8_weight_only())?;
/// let table = summary(&model).to_string();
/// assert!(table.contains("weight_quantizer  int8    per-channel  static  [5.0000e-1, 2.0000e0] (2)"), "{table}");
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn summary<M: Module>(model: &M) -> Summary {
    let quantizers = Quantizers::of(model);
    let lines = quantizers.iter().flat_map(|(name, quantizer)| lines(name, quantizer)).collect();
    let enabled = quantizers.iter().filter(|(_, quantizer)| quantizer.is_enabled()).count();
    Summary { lines, quantizers: quantizers.len(), enabled }
}

/// A line for a quantizer, and for each further stage of its chain.
fn lines(name: &str, quantizer: &TensorQuantizer) -> Vec<Line> {
    if !quantizer.is_enabled() {
        let nothing = String::new();
        let name = name.to_string();
        return vec![Line { name, format: "disabled".into(), granularity: nothing.clone(), range: "", amax: nothing }];
    }
    quantizer.stages(name).map(|(name, stage)| line(name, stage)).collect()
}

fn line(name: String, stage: &TensorQuantizer) -> Line {
    let config = stage.config();
    let (range, amax) = match config.range {
        _ if config.rounding == Rounding::Off => ("", String::new()),
        Range::Dynamic => ("dynamic", String::new()),
        Range::Constant(amax) => ("constant", format!("{amax:.4e}")),
        Range::Static => ("static", stage.amax().map_or("uncalibrated".into(), ends)),
    };
    Line { name, format: config.kind(), granularity: config.granularity.to_string(), range, amax }
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
        let rows: Vec<[String; 5]> =
            std::iter::once(head.map(String::from)).chain(self.lines.iter().map(cells)).collect();
        let widths: Vec<usize> =
            (0..5).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        for row in &rows {
            let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        write!(f, "{} quantizers, {} enabled", self.quantizers, self.enabled)
    }
}
