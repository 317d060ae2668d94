//! Which parameters are weights, and what their axes mean: the table that makes weights of unmodified layers known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::matcher;
use crate::error::QuantError;
use crate::layout::WeightLayout;
use crate::layout::{burn_layer_name, burns};
use crate::model::{ModelIndex, ParameterRef, layer_of, within};
use crate::quantizer::TensorQuantizer;

/// Weight layouts by type name of the container and name of the field.
///
/// The table starts with burn's layers; register those of your own, and the layers of other crates. A later
/// registration of the same field replaces an earlier one, and a registration by path comes before all others.
///
/// | container | weight | channel axis | blocks along |
/// |---|---|---|---|
/// | `Linear` (and all that is made of it: attention, recurrent layers) | `[in, out]` | 1 | `in` |
/// | `Conv1d`, `Conv2d`, `Conv3d`, `DeformConv2d` | `[out, in / groups, kernel...]` | 0 | `in / groups · kernel` |
/// | `ConvTranspose1d`, `2d`, `3d` | `[in, out / groups, kernel...]` | 1, in each group | `in` |
/// | `Embedding` | `[tokens, features]` | 0 | `features` |
///
/// burn tells the type name of a struct without its crate. A struct of yours that is called `Linear` is known by its
/// shapes not to be burn's: by another bias, or by further parameters. Where it has neither, register it by path.
///
/// The number of groups of a transposed convolution is known from its bias, or from the layers of `nn`.
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
/// use burn_quant::{Quantizers, presets, quantize_with};
/// use burn_quant::calibrate::QuantizeOptions;
/// use burn_quant::place::{WeightLayout, WeightLayouts};
///
/// #[derive(Module, Debug)]
/// struct Projection { kernel: Param<Tensor<2>> } // [out, in], unlike burn's Linear
///
/// let model = Projection { kernel: Param::from_tensor(Tensor::ones([8, 4], &Device::flex())) };
/// let layouts = WeightLayouts::new().register("Projection", "kernel", WeightLayout::new(0, 1));
/// let options = QuantizeOptions::new().with_layouts(layouts);
/// let (model, _) = quantize_with(model, &presets::int8_weight_only(), options, |_| {})?;
/// assert_eq!(Quantizers::of(&model).get("kernel_weight_quantizer")?.amax().unwrap().dims(), [8]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightLayouts {
    /// Layouts of the caller, by container and field.
    registered: BTreeMap<(String, String), WeightLayout>,
    /// Layouts of the caller, by a glob of the parameter's path; the last that matches counts.
    paths: Vec<(String, WeightLayout)>,
}

impl Default for WeightLayouts {
    fn default() -> Self {
        Self::new()
    }
}

impl WeightLayouts {
    /// Creates the table of burn's layers and the quantized layers of `nn`.
    ///
    /// Structs of your own are [registered](WeightLayouts::register).
    pub fn new() -> Self {
        Self { registered: BTreeMap::new(), paths: Vec::new() }
    }

    /// Makes a field of a struct known as a weight.
    ///
    /// burn's layer and the quantized one are the same: `Linear` and `QuantLinear`.
    pub fn register(mut self, container: impl Into<String>, field: impl Into<String>, layout: WeightLayout) -> Self {
        self.registered.insert((burn_layer_name(&container.into()).to_string(), field.into()), layout);
        self
    }

    /// Makes the parameters whose path matches a glob known as weights.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::place::{WeightLayout, WeightLayouts};
    ///
    /// let layouts = WeightLayouts::new().register_at("encoder.*.kernel", WeightLayout::new(0, 1));
    /// assert_ne!(layouts, WeightLayouts::new());
    /// ```
    pub fn register_at(mut self, path: impl Into<String>, layout: WeightLayout) -> Self {
        self.paths.push((path.into(), layout));
        self
    }

    /// Returns the layout that is registered for a field, or that burn's layer of the name has.
    pub fn get(&self, container: &str, field: &str) -> Option<WeightLayout> {
        let registered = self.registered.get(&(burn_layer_name(container).to_string(), field.to_string())).copied();
        registered.or_else(|| burns(container, field).map(|(_, layout)| layout))
    }

    /// Finds the layouts of the weights of a model.
    pub(crate) fn resolve(&self, index: &ModelIndex) -> Result<Resolved, QuantError> {
        let paths: Vec<_> =
            self.paths.iter().map(|(glob, layout)| Ok((matcher(glob)?, *layout))).collect::<Result<_, QuantError>>()?;
        let mut resolved = Resolved::default();
        let (mut used_paths, mut used) = (vec![false; paths.len()], BTreeSet::new());
        for weight in index.parameters() {
            let key = (burn_layer_name(&weight.container).to_string(), weight.field.clone());
            let by_path = paths.iter().rposition(|(glob, _)| glob.is_match(&weight.path));
            let layout = if let Some(place) = by_path {
                used_paths[place] = true;
                Some(paths[place].1)
            } else if let Some(layout) = self.registered.get(&key) {
                used.insert(key);
                Some(*layout)
            } else {
                burns_layout(index, weight)
            };
            if let Some(layout) = layout {
                resolved.layouts.insert(weight.path.clone(), layout);
            }
        }
        let unused = self.paths.iter().zip(used_paths).filter(|(_, used)| !used).map(|((glob, _), _)| glob.clone());
        let misspelt = self.registered.keys().filter(|key| !used.contains(*key));
        resolved.unused = unused.chain(misspelt.map(|(container, field)| format!("{container}.{field}"))).collect();
        Ok(resolved)
    }
}

/// The layouts of the weights of a model.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    layouts: HashMap<String, WeightLayout>,
    /// Registrations that no parameter of the model has.
    pub unused: Vec<String>,
}

impl Resolved {
    pub(crate) fn get(&self, path: &str) -> Option<WeightLayout> {
        self.layouts.get(path).copied()
    }
}

/// The layout of a weight, if the struct that owns it is burn's layer of its name in all that can be seen.
fn burns_layout(index: &ModelIndex, weight: &ParameterRef) -> Option<WeightLayout> {
    let (rank, layout) = burns(&weight.container, &weight.field)?;
    if weight.shape.len() != rank {
        return None;
    }
    let layer = layer_of(&weight.path);
    let mut siblings = index.parameters_of(layer).filter(|other| other.container == weight.container);
    if siblings.any(|other| !matches!(other.field.as_str(), "weight" | "bias")) {
        return None;
    }
    let outputs = weight.shape[layout.channel_axis];
    let transposed = burn_layer_name(&weight.container).starts_with("ConvTranspose");
    let input = index.quantizers.find(&within(layer, "input_quantizer")).filter(|_| transposed);
    let layout = layout.with_groups(input.map_or(1, TensorQuantizer::convolution_groups));
    let Some(bias) = index.parameter_at(&within(layer, "bias")) else { return Some(layout) };
    match bias.shape.as_slice() {
        [len] if *len == outputs => Some(layout.with_groups(1)),
        [len] if transposed && outputs > 0 && len.is_multiple_of(outputs) => Some(layout.with_groups(len / outputs)),
        _ => None,
    }
}
