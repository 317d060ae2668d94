//! Which parameters are weights, and what their axes mean: the table that makes weights of unmodified layers known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The axes of a weight that quantization speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightLayout {
    /// The axis of output channels: per-channel scales are kept along it.
    pub channel_axis: usize,
    /// The axis along which blocks lie: one that is summed over.
    pub block_axis: usize,
}

/// Weight layouts by type name of the container and name of the field.
///
/// The table starts with burn's layers; register those of your own, and the layers of other crates. A later registration of
/// the same field replaces an earlier one.
///
/// | container | weight | channel axis | block axis |
/// |---|---|---|---|
/// | `Linear` (and all that is made of it: attention, recurrent layers) | `[in, out]` | 1 | 0 |
/// | `Conv1d`, `Conv2d`, `Conv3d`, `DeformConv2d` | `[out, in / groups, kernel...]` | 0 | last |
/// | `ConvTranspose1d`, `2d`, `3d` | `[in, out / groups, kernel...]` | 1 | last |
/// | `Embedding` | `[tokens, features]` | 0 | 1 |
///
/// ModelOpt quantizes transposed convolutions per *input* channel; this table says output channels, as its name for the
/// granularity does.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::module::{Module, Param};
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::{QuantConfig, Quantization, Quantizers, WeightLayout, WeightLayouts};
///
/// #[derive(Module, Debug)]
/// struct Projection { kernel: Param<Tensor<2>> } // [out, in], unlike burn's Linear
///
/// let model = Projection { kernel: Param::from_tensor(Tensor::ones([8, 4], &Device::flex())) };
/// let layouts = WeightLayouts::new().register("Projection", "kernel", WeightLayout { channel_axis: 0, block_axis: 1 });
/// let (model, _) = Quantization::new(&QuantConfig::int8_weight_only()).with_layouts(layouts).run_weights(model)?;
/// assert_eq!(Quantizers::of(&model).get("kernel_weight_quantizer")?.amax().unwrap().dims(), [8]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightLayouts {
    table: BTreeMap<(String, String), WeightLayout>,
}

impl Default for WeightLayouts {
    fn default() -> Self {
        Self::new()
    }
}

impl WeightLayouts {
    /// The layers of burn, and the quantized layers of [`nn`](crate::nn).
    pub fn new() -> Self {
        let layout = |channel_axis, block_axis| WeightLayout { channel_axis, block_axis };
        let mut layouts = Self { table: BTreeMap::new() };
        for (name, weight) in [
            ("Linear", layout(1, 0)),
            ("Conv1d", layout(0, 2)),
            ("Conv2d", layout(0, 3)),
            ("Conv3d", layout(0, 4)),
            ("ConvTranspose1d", layout(1, 2)),
            ("ConvTranspose2d", layout(1, 3)),
            ("ConvTranspose3d", layout(1, 4)),
            ("DeformConv2d", layout(0, 3)),
            ("Embedding", layout(0, 1)),
        ] {
            layouts = layouts.register(name, "weight", weight).register(format!("Quant{name}"), "weight", weight);
        }
        layouts
    }

    /// Makes a field of a struct known as a weight.
    pub fn register(mut self, container: impl Into<String>, field: impl Into<String>, layout: WeightLayout) -> Self {
        self.table.insert((container.into(), field.into()), layout);
        self
    }

    /// The layout of a field, if it is a weight.
    pub fn get(&self, container: &str, field: &str) -> Option<WeightLayout> {
        self.table.get(&(container.to_string(), field.to_string())).copied()
    }
}
