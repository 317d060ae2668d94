//! Model -> file.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::Module;
use burn_pack::{Bytes, Reader};
use burn_quant_core::compress::{for_record, packed_forms};
use burn_quant_core::place::Plan;

use crate::StoreError;
use crate::check::weight_of;
use crate::file::{Contents, Kind, write};

/// Saves the weights and quantizers of a model in one burnpack file.
///
/// The file is written beside its destination and moved into place: a reader sees the old file or the new one, never a
/// part. Packed weights are saved as codes and scales, all others as floats with their quantizers. A path without
/// an extension gets `.bpk`; any other, as `model.v1`, is the name of the file as it is.
///
/// [`restore`](crate::restore) reads it back. burn alone reads the weights, in float, if it is told that there is more
/// in the file: `ModuleRecord::load(path)?.allow_unused(true)`; ranges, pre-quantization scales and branches are left
/// out, so that after AWQ, SmoothQuant or SVDQuant those weights are not the model.
///
/// # Errors
///
/// [`StoreError::Write`] if the file could not be written, [`StoreError::Folder`] if the path is that of a folder.
///
/// # Example
///
/// See the [crate's page](crate).
pub fn save<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<(), StoreError> {
    write(contents(model)?, Kind::Model, path.as_ref())
}

/// The bytes of the file that [`save`] writes.
///
/// # Errors
///
/// [`StoreError::Record`] if burn cannot record the model.
pub fn to_bytes<M: Module>(model: &M) -> Result<Bytes, StoreError> {
    contents(model)?.pack(Kind::Model)?.into_bytes().map_err(|e| StoreError::Record { reason: e.to_string() })
}

fn contents<M: Module>(model: &M) -> Result<Contents, StoreError> {
    // burn's own record decides which tensors there are and in what form; only its bytes are public
    let record = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
    let forms = packed_forms(model);
    let bytes = for_record(model.clone()).into_record().into_bytes().map_err(|e| record(&e))?;
    let mut tensors = Reader::from_bytes(bytes).and_then(Reader::into_tensors).map_err(|e| record(&e))?;
    let placeholders: BTreeSet<String> = forms.keys().map(|name| weight_of(name)).collect();
    tensors.retain(|tensor| !placeholders.contains(&tensor.name));
    let packed = (!forms.is_empty()).then(|| serde_json::to_string(&forms).expect("forms are plain data"));
    let plan = serde_json::to_string(&Plan::of(model)).expect("a plan is plain data with string keys");
    Ok(Contents { description: plan, packed, tensors })
}
