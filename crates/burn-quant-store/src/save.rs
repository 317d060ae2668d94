//! Model -> file.

use std::path::Path;

use burn::module::Module;
use burn_pack::Bytes;

use crate::StoreError;
use crate::file::{Kind, write};
use crate::record::Record;

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
    write(Record::of(model)?.into_contents(), Kind::Model, path.as_ref())
}

/// The bytes of the file that [`save`] writes.
///
/// # Errors
///
/// [`StoreError::Record`] if burn cannot record the model.
pub fn to_bytes<M: Module>(model: &M) -> Result<Bytes, StoreError> {
    let writer = Record::of(model)?.into_contents().pack(Kind::Model)?;
    writer.into_bytes().map_err(|e| StoreError::Record { reason: e.to_string() })
}
