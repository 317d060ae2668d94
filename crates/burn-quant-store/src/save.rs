//! Model -> file.

use std::path::Path;

use burn::module::Module;
use burn_pack::{Bytes, Reader};
use burn_quant_core::error::QuantError;
use burn_quant_core::model::ModelIndex;
use burn_quant_core::place::Plan;

use crate::StoreError;
use crate::file::{Contents, Kind, write};

/// Saves the weights and quantizers of a model in one burnpack file.
///
/// The file is written beside its destination and moved into place: a reader sees the old file or the new one, never a
/// part. A path without an extension gets `.bpk`; any other, as `model.v1`, is the name of the file as it is.
///
/// [`restore`](crate::restore) reads it back. burn alone reads the weights, in float, if it is told that there is more
/// in the file: `ModuleRecord::load(path)?.allow_unused(true)`; ranges, pre-quantization scales and branches are left
/// out, so that after AWQ, SmoothQuant or SVDQuant those weights are not the model.
///
/// # Errors
///
/// [`StoreError::Write`] if the file could not be written, [`StoreError::Folder`] if the path is that of a folder,
/// [`StoreError::Packed`] if weights are packed: files hold floats and their quantizers.
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
/// [`StoreError::Record`] if burn cannot record the model, [`StoreError::Packed`] if weights are packed.
pub fn to_bytes<M: Module>(model: &M) -> Result<Bytes, StoreError> {
    contents(model)?.pack(Kind::Model)?.into_bytes().map_err(|e| StoreError::Record { reason: e.to_string() })
}

fn contents<M: Module>(model: &M) -> Result<Contents, StoreError> {
    let packed = |error| match error {
        QuantError::Packed { path } => StoreError::Packed { path },
        other => StoreError::Quantizers(other),
    };
    ModelIndex::lazy_of(model).refuse_packed().map_err(packed)?;
    // burn's own record decides which tensors there are and in what form; only its bytes are public
    let record = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
    let bytes = model.clone().into_record().into_bytes().map_err(|e| record(&e))?;
    let tensors = Reader::from_bytes(bytes).and_then(Reader::into_tensors).map_err(|e| record(&e))?;
    let plan = serde_json::to_string(&Plan::of(model)).expect("a plan is plain data with string keys");
    Ok(Contents { description: plan, tensors })
}
