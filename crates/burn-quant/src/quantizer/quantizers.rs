//! All quantizers of a model, as plain data.

use std::collections::BTreeMap;

use burn::module::Module;

use super::{TensorQuantizer, discover};
use crate::QuantError;
use crate::config::near_misses;

/// The quantizers of a model by name, in the order of the model's fields: taken out, edited, put back.
///
/// They are found in any nesting of structs, `Vec`s, `Option`s, and inside the weights of unmodified burn layers; the model
/// needs nothing but `#[derive(Module)]`. The copies are independent of the model until they are installed.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig;
/// use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, quantize_weights};
///
/// let model = LinearConfig::new(4, 2).init(&Device::flex()); // burn's own layer
/// let (model, _) = quantize_weights(model, &QuantConfig::int8_weight_only())?;
///
/// let mut quantizers = Quantizers::of(&model);
/// assert_eq!(quantizers.names().collect::<Vec<_>>(), ["weight_quantizer"]);
/// quantizers.get_mut("weight_quantizer")?.set_config(QuantizerConfig::int(4).per_channel());
/// let model = quantizers.install(model)?;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, Default)]
pub struct Quantizers {
    found: Vec<discover::Found>,
}

impl Quantizers {
    /// Copies of all quantizers of a model.
    pub fn of<M: Module>(model: &M) -> Self {
        Self { found: discover::collect(model) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Their names, in the order of the model's fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|found| found.name.as_str())
    }

    /// Names and quantizers, in the order of the model's fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorQuantizer)> {
        self.found.iter().map(|found| (found.name.as_str(), &found.quantizer))
    }

    /// Names and quantizers, to be edited.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut TensorQuantizer)> {
        self.found.iter_mut().map(|found| (found.name.as_str(), &mut found.quantizer))
    }

    /// The quantizer of a name.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownQuantizer`] with the most similar names.
    pub fn get(&self, name: &str) -> Result<&TensorQuantizer, QuantError> {
        let found = self.found.iter().find(|found| found.name == name);
        found.map(|found| &found.quantizer).ok_or_else(|| self.unknown(name))
    }

    /// The quantizer of a name, to be edited.
    ///
    /// # Errors
    ///
    /// As [`Quantizers::get`].
    pub fn get_mut(&mut self, name: &str) -> Result<&mut TensorQuantizer, QuantError> {
        match self.found.iter().position(|found| found.name == name) {
            Some(i) => Ok(&mut self.found[i].quantizer),
            None => Err(self.unknown(name)),
        }
    }

    /// Puts the quantizers into a model, in place of those of the same names.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownQuantizer`] if the model lacks one of them.
    pub fn install<M: Module>(self, model: M) -> Result<M, QuantError> {
        let present = Self::of(&model);
        if let Some(missing) = self.names().find(|name| present.get(name).is_err()) {
            return Err(present.unknown(missing));
        }
        let replacements: BTreeMap<_, _> = self.found.into_iter().map(|f| (f.name, f.quantizer)).collect();
        Ok(discover::replace(model, replacements))
    }

    /// The type name of the struct that a quantizer belongs to, with its name.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found.iter().map(|found| (found.name.as_str(), found.container.as_str()))
    }

    /// Keeps those whose name passes.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.found.retain(|found| keep(&found.name));
    }

    pub(crate) fn unknown(&self, name: &str) -> QuantError {
        QuantError::UnknownQuantizer { name: name.into(), near_misses: near_misses(name, self.names()) }
    }
}
