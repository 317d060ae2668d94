//! A model as named tensors, and what they mean: what every kind of file holds.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Reparameterization};
use burn_pack::{Reader, Tensor};
use burn_quant_core::compress::{PackedForm, for_record, packed_forms};
use burn_quant_core::place::Plan;
use burn_quant_core::quantizer::TensorQuantizer;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::check::weight_of;
use crate::file::Contents;

/// A model as named tensors, and what they mean.
#[derive(Default)]
pub(crate) struct Record {
    /// What the quantizers do, by name.
    pub(crate) plan: Plan,
    /// What the words of packed weights mean, by the names of their quantizers.
    pub(crate) forms: BTreeMap<String, PackedForm>,
    /// Parameters and buffers under burn's paths. A packed weight has words, scales and offsets instead of floats.
    pub(crate) tensors: Vec<Tensor>,
}

impl Record {
    /// Takes a model apart.
    pub(crate) fn of<M: Module>(model: &M) -> Result<Self, StoreError> {
        // burn's own record decides which tensors there are and in what form; only its bytes are public
        let refused = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
        let forms = packed_forms(model);
        let bytes = for_record(model.clone()).into_record().into_bytes().map_err(|e| refused(&e))?;
        let mut tensors = Reader::from_bytes(bytes).and_then(Reader::into_tensors).map_err(|e| refused(&e))?;
        let placeholders: BTreeSet<String> = forms.keys().map(|name| weight_of(name)).collect();
        tensors.retain(|tensor| !placeholders.contains(&tensor.name));
        Ok(Self { plan: Plan::of(model), forms, tensors })
    }

    /// Reads the contents of a burnpack file.
    pub(crate) fn read(Contents { description, packed, tensors }: Contents) -> Result<Self, StoreError> {
        let plan = parsed("plan", &description)?;
        let forms = packed.map_or(Ok(BTreeMap::new()), |packed| parsed("packed weights", &packed))?;
        Ok(Self { plan, forms, tensors })
    }

    /// The contents of a burnpack file.
    pub(crate) fn into_contents(self) -> Contents {
        let packed = !self.forms.is_empty();
        let packed = packed.then(|| serde_json::to_string(&self.forms).expect("forms are plain data"));
        let description = serde_json::to_string(&self.plan).expect("a plan is plain data with string keys");
        Contents { description, packed, tensors: self.tensors }
    }
}

/// Reads JSON of the metadata.
pub(crate) fn parsed<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|e| StoreError::Damaged { reason: format!("{what}: {e}") })
}

/// The tensor of the codes of a packed weight, by the name of its quantizer.
pub(crate) fn words_of(name: &str) -> String {
    format!("{}.{}.words", weight_of(name), TensorQuantizer::NAME)
}

/// The tensor of its scales.
pub(crate) fn scales_of(name: &str) -> String {
    format!("{}.{}.scales", weight_of(name), TensorQuantizer::NAME)
}

/// The tensor of the bias of each of its outputs.
pub(crate) fn offsets_of(name: &str) -> String {
    format!("{}.{}.offsets", weight_of(name), TensorQuantizer::NAME)
}
