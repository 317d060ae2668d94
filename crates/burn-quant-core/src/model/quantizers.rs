//! All quantizers of a model, as plain data.

use std::collections::HashMap;

use burn::module::Module;

use super::{Map, Path, Visit, map, visit};
use crate::config::near_misses;
use crate::error::QuantError;
use crate::quantizer::TensorQuantizer;

/// A quantizer, its name, and the type name of the struct it belongs to.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    container: String,
    quantizer: TensorQuantizer,
}

/// The quantizers of a model by name, in the order of the model's fields: taken out, edited, put back.
///
/// They are found in any nesting of structs, `Vec`s, `Option`s, and inside the weights of unmodified burn layers; the
/// model needs nothing but `#[derive(Module)]`. The copies are independent of the model until they are installed.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig;
/// use burn_quant::{QuantizerConfig, Quantizers, presets, quantize_weights};
///
/// let model = LinearConfig::new(4, 2).init(&Device::flex()); // burn's own layer
/// let (model, _) = quantize_weights(model, &presets::int8_weight_only())?;
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
    found: Vec<Found>,
    places: HashMap<String, usize>,
}

impl Quantizers {
    /// Copies all quantizers of a model, in the order of its fields.
    ///
    /// Tensors are shared with the model, not copied; to write changes back, see [`install`](Quantizers::install).
    pub fn of<M: Module>(model: &M) -> Self {
        let mut quantizers = Self::default();
        visit(model, &mut quantizers);
        quantizers
    }

    pub(super) fn push(&mut self, name: String, container: &str, quantizer: TensorQuantizer) {
        self.places.insert(name.clone(), self.found.len());
        self.found.push(Found { name, container: container.into(), quantizer });
    }

    /// Returns the number of quantizers, enabled or not.
    ///
    /// A chain counts once.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns whether the model has no quantizers, as a folded model of burn's own layers.
    ///
    /// Disabled quantizers count.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns the names of the quantizers, in the order of the model's fields.
    ///
    /// A name is the path of the quantizer: `decoder.fc1.weight_quantizer`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|found| found.name.as_str())
    }

    /// Returns names and quantizers, in the order of the model's fields.
    ///
    /// Heads of chains only; their stages are [`TensorQuantizer::stages`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorQuantizer)> {
        self.found.iter().map(|found| (found.name.as_str(), &found.quantizer))
    }

    /// Returns names and quantizers to be edited, in the order of the model's fields.
    ///
    /// The model changes when they are [installed](Quantizers::install).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut TensorQuantizer)> {
        self.found.iter_mut().map(|found| (found.name.as_str(), &mut found.quantizer))
    }

    /// Returns the quantizer with this name, if there is one.
    ///
    /// [`get`](Quantizers::get) returns an error with the most similar names.
    pub fn find(&self, name: &str) -> Option<&TensorQuantizer> {
        self.places.get(name).map(|place| &self.found[*place].quantizer)
    }

    /// The type name of the struct that a quantizer belongs to.
    pub(crate) fn container_of(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.found[*place].container.as_str())
    }

    /// Returns the quantizer with this name to be edited, if there is one.
    ///
    /// [`get_mut`](Quantizers::get_mut) returns an error with the most similar names.
    pub fn find_mut(&mut self, name: &str) -> Option<&mut TensorQuantizer> {
        self.places.get(name).map(|place| &mut self.found[*place].quantizer)
    }

    /// Returns the quantizer of a name.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownQuantizer`] with the most similar names.
    pub fn get(&self, name: &str) -> Result<&TensorQuantizer, QuantError> {
        self.find(name).ok_or_else(|| self.unknown(name))
    }

    /// Returns the quantizer of a name, to be edited.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownQuantizer`] with the most similar names.
    pub fn get_mut(&mut self, name: &str) -> Result<&mut TensorQuantizer, QuantError> {
        match self.places.get(name) {
            Some(place) => Ok(&mut self.found[*place].quantizer),
            None => Err(self.unknown(name)),
        }
    }

    /// Puts the quantizers into a model, in place of those of the same names.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownQuantizer`] if the model lacks one of them, [`QuantError::Packed`] if one does something
    /// else than the codes that the model, or the quantizer, holds in the place of the weight.
    pub fn install<M: Module>(self, model: M) -> Result<M, QuantError> {
        struct Install {
            quantizers: HashMap<String, TensorQuantizer>,
            kept: Vec<String>,
            packed: Option<String>,
        }
        impl Map for Install {
            fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) -> TensorQuantizer {
                let name = at.quantizer_name();
                let replacement = self.quantizers.remove(&name);
                if replacement.as_ref().is_some_and(|new| !new.can_replace(&quantizer)) {
                    self.packed.get_or_insert_with(|| name.clone());
                }
                self.kept.push(name);
                replacement.unwrap_or(quantizer)
            }
        }
        let quantizers = self.found.into_iter().map(|found| (found.name, found.quantizer)).collect();
        let mut work = Install { quantizers, kept: Vec::new(), packed: None };
        let model = map(model, &mut work);
        if let Some(path) = work.packed {
            return Err(QuantError::Packed { path });
        }
        match work.quantizers.into_keys().min() {
            None => Ok(model),
            Some(name) => {
                let near_misses = near_misses(&name, work.kept.iter().map(String::as_str));
                Err(QuantError::UnknownQuantizer { name, near_misses })
            }
        }
    }

    /// Returns names with the type name of the struct that each quantizer belongs to.
    ///
    /// It is what [`Rule::within`](crate::config::Rule::within) compares.
    pub fn containers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found.iter().map(|found| (found.name.as_str(), found.container.as_str()))
    }

    /// Keeps the quantizers whose name passes, and forgets the others.
    ///
    /// The model is unchanged: installing leaves what is not here as it is.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.found.retain(|found| keep(&found.name));
        self.places = self.found.iter().enumerate().map(|(place, found)| (found.name.clone(), place)).collect();
    }

    /// Returns the error that says that there is no quantizer of this name.
    ///
    /// It holds the three most similar names.
    pub fn unknown(&self, name: &str) -> QuantError {
        QuantError::UnknownQuantizer { name: name.into(), near_misses: near_misses(name, self.names()) }
    }
}

impl Visit for Quantizers {
    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) {
        self.push(at.quantizer_name(), at.container(), quantizer);
    }
}
