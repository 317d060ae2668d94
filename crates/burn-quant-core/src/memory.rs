//! The bytes that a model holds, by layer and format.

use std::collections::{BTreeMap, HashSet};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Tensor};

use crate::model::{Path, Visit, layer_of, visit};
use crate::quantizer::{Buffer, TensorQuantizer};

/// What one layer holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerMemory {
    /// The path of the layer; empty for parameters at the root of the model.
    pub layer: String,
    /// How its weights are held: `int8 packed`, `int8 in f32` where they are fake-quantized, `f32`.
    pub format: String,
    /// The bytes of its parameters and of all that its quantizers keep.
    pub bytes: usize,
    /// The bytes that its parameters take as floats of their dtype.
    pub float_bytes: usize,
}

/// The bytes that a model holds: prints as a table of its layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryReport {
    layers: Vec<LayerMemory>,
}

impl MemoryReport {
    /// Returns what each layer holds, in the order of the model.
    ///
    /// A layer is what owns a parameter.
    pub fn layers(&self) -> &[LayerMemory] {
        &self.layers
    }

    /// Returns the bytes of the whole model.
    ///
    /// Parameters that are tied count once.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// Returns the bytes of the whole model in float.
    ///
    /// It is what its parameters would take without any quantizer.
    pub fn float_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.float_bytes).sum()
    }

    /// Returns the layers, their bytes, and their bytes in float, by format.
    ///
    /// Formats are those of [`LayerMemory::format`].
    pub fn by_format(&self) -> BTreeMap<&str, (usize, usize, usize)> {
        self.layers.iter().fold(BTreeMap::new(), |mut formats, layer| {
            let (layers, bytes, float) = formats.entry(layer.format.as_str()).or_default();
            (*layers, *bytes, *float) = (*layers + 1, *bytes + layer.bytes, *float + layer.float_bytes);
            formats
        })
    }
}

/// Counts the bytes that a model holds: floats, codes, scales, ranges and factors of low rank, by layer and format.
///
/// Nothing is read from the device. Parameters that are integers or booleans of their own are not counted.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_quant::compress::memory;
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{compress, presets, quantize_weights};
///
/// let layer = LinearConfig::new(256, 64).with_bias(false).init(&Device::flex());
/// let (layer, _) = quantize_weights(layer, &presets::int8_weight_only())?;
/// assert_eq!(memory(&layer).bytes(), 256 * 64 * 4 + 64 * 4); // the weight in f32, and a range for each output
/// let (packed, _) = compress(layer)?;
/// assert_eq!(memory(&packed).bytes(), 256 * 64 + 64 * 4); // a byte for each weight, a scale for each output
/// assert_eq!(memory(&packed).layers()[0].format, "int8 packed");
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn memory<M: Module>(model: &M) -> MemoryReport {
    let mut count = Count::default();
    visit(model, &mut count);
    count.report()
}

#[derive(Default)]
struct Count {
    parameters: Vec<Counted>,
    quantizers: BTreeMap<String, TensorQuantizer>,
    known: HashSet<ParamId>,
}

struct Counted {
    path: String,
    quantizer: String,
    dtype: DType,
    bytes: usize,
}

impl Visit for Count {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        let dtype = if param.is_initialized() { param.base().dtype() } else { DType::F32 };
        let bytes = match self.known.insert(param.id) {
            true => param.lazy_shape().num_elements() * dtype.size(),
            false => 0, // it is another's
        };
        self.parameters.push(Counted { path: at.joined(), quantizer: at.weight_quantizer_name(), dtype, bytes });
    }

    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) {
        self.quantizers.insert(at.quantizer_name(), quantizer);
    }
}

impl Count {
    fn report(mut self) -> MemoryReport {
        let mut report = MemoryReport::default();
        for Counted { path, quantizer, dtype, bytes } in std::mem::take(&mut self.parameters) {
            let layer = report.layer(layer_of(&path));
            layer.float_bytes += bytes;
            let float = format!("{dtype:?}").to_lowercase();
            let Some(quantizer) = self.quantizers.remove(&quantizer).filter(TensorQuantizer::is_enabled) else {
                layer.bytes += bytes;
                if layer.format.is_empty() {
                    layer.format = float;
                }
                continue;
            };
            let kinds: Vec<String> = quantizer.stages("").map(|(_, stage)| stage.config().kind()).collect();
            let packed = quantizer.packed();
            layer.bytes += packed.map_or(bytes, |packed| packed.bytes()) + of_buffers(&quantizer);
            let held = if packed.is_some() { "packed".to_string() } else { format!("in {float}") };
            layer.format = format!("{} {held}", kinds.join(" + "));
        }
        for (name, quantizer) in &self.quantizers {
            let bytes = of_buffers(quantizer);
            if bytes > 0 {
                report.layer(layer_of(name)).bytes += bytes;
            }
        }
        report
            .layers
            .iter_mut()
            .filter(|layer| layer.format.is_empty())
            .for_each(|layer| layer.format = "ranges".into());
        report
    }
}

impl MemoryReport {
    fn layer(&mut self, path: &str) -> &mut LayerMemory {
        let place = self.layers.iter().position(|layer| layer.layer == path).unwrap_or_else(|| {
            self.layers.push(LayerMemory { layer: path.into(), format: String::new(), bytes: 0, float_bytes: 0 });
            self.layers.len() - 1
        });
        &mut self.layers[place]
    }
}

/// The bytes of the buffers of all stages, f32.
fn of_buffers(quantizer: &TensorQuantizer) -> usize {
    let of_stage = |stage: &TensorQuantizer| -> usize {
        let values = Buffer::ALL.into_iter().filter_map(|buffer| stage.buffer(buffer));
        values.map(|values| 4 * values.dims()[0]).sum()
    };
    quantizer.stages("").map(|(_, stage)| of_stage(stage)).sum()
}

impl std::fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = |bytes: usize, float: usize| match float {
            0 => String::new(),
            _ => format!("{:.1} %", 100.0 * bytes as f64 / float as f64),
        };
        let cells = |layer: &LayerMemory| {
            let name = if layer.layer.is_empty() { "(model)" } else { &layer.layer };
            let share = share(layer.bytes, layer.float_bytes);
            [name.to_string(), layer.format.clone(), layer.bytes.to_string(), share]
        };
        let (bytes, float) = (self.bytes(), self.float_bytes());
        let head = ["layer", "held as", "bytes", "of float"].map(String::from);
        let total = ["total".to_string(), String::new(), bytes.to_string(), share(bytes, float)];
        let rows: Vec<[String; 4]> =
            std::iter::once(head).chain(self.layers.iter().map(cells)).chain(std::iter::once(total)).collect();
        let widths: Vec<usize> =
            (0..4).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        for (i, [layer, format, bytes, share]) in rows.iter().enumerate() {
            let line = format!(
                "{layer:0$}  {format:1$}  {bytes:>2$}  {share:>3$}",
                widths[0], widths[1], widths[2], widths[3]
            );
            write!(f, "{}{}", if i == 0 { "" } else { "\n" }, line.trim_end())?;
        }
        Ok(())
    }
}
