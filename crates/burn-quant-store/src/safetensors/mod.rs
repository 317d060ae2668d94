//! Quantized models in safetensors: a file that other frameworks read too.
//!
//! ```text
//! model ──weights──► codes, or floats ──codes, buffers, dtype──► tensors ──container──► model.safetensors
//!       ◄─Restore──── Record                          ◄──read──
//! ```
//!
//! # Tensors
//!
//! Every parameter of the model is a tensor under its path, and so is every buffer of a quantizer under the name of the
//! quantizer: `fc.weight`, `fc.bias`, `fc.weight_quantizer.amax`, `fc.input_quantizer.pre_quant_scale`. In the table
//! `w` is the path of a weight, `q` the name of its quantizer, and `x` that of its input.
//!
//! | tensor | type | shape | what |
//! |---|---|---|---|
//! | `w` | F64, F32, F16, BF16 | of the parameter | floats; so are weights without a packed form |
//! | `w` | I8, U8, F8_E4M3, F8_E5M2 | of the parameter | codes of 8 bits |
//! | `w` | U8 | `[rows, bytes]` | codes of 2 to 7 bits |
//! | `q.amax` | F32 | groups of `w` | ranges, for codes under f32 scales |
//! | `w_scale` | F8_E8M0, F8_E4M3 | groups of `w` | scales of a byte: MX, NVFP4 |
//! | `w_scale_2` | F32 | `[]` | what F8_E4M3 scales are multiplied with |
//! | `q.bias` | F32 | groups of biases | what is added to the values of codes |
//! | `x.pre_quant_scale` | F32 | `[channels]` | what inputs are multiplied with: SmoothQuant, AWQ |
//! | `x.low_rank_down` | F32 | `[in, rank]` | the first factor of a branch beside `w`: SVDQuant |
//! | `x.low_rank_up` | F32 | `[rank, out]` | the second |
//! | `x.amax`, `x.bias` | F32 | `[groups]` | the state of an activation quantizer |
//! | `q.amax`, `.amax_post`, `.global_amax` | F32 | groups that it keeps one for | the state of a weight quantizer |
//! | any other path | of the parameter | of the parameter | parameters that are not quantized |
//!
//! Codes of fewer bits than 8 lie in rows of whole bytes, one for each index of the first axis, which they fill from
//! the lowest bits up: of 4 bits, the first code of two is in the low half of a byte.
//!
//! Groups of a weight have its rank, and so broadcast over it: `[1, out]` for each output of a linear layer,
//! `[in/32, out]` in blocks of 32. A kernel `[out, in, k…]` in blocks counts as a matrix `[out, in·k…]`. Further stages
//! of a chain have `.1`, `.2` after the name of the quantizer.
//!
//! # Values
//!
//! In f32, in this order of operations, values are those of fake quantization bit for bit, but for the sign of zero:
//!
//! | codes | point | value |
//! |---|---|---|
//! | `int8`, `uint8` | the integer | `point / (max / amax)`, `max` = 127, 255 |
//! | `int2` to `int7`, `N` bits | `code − 2^(N−1)` | `point / (max / amax)`, `max` = `2^(N−1) − 1` |
//! | `uint2` to `uint7`, `N` bits | `code` | `point / (max / amax)`, `max` = `2^N − 1` |
//! | `e4m3` to `e1m2` | sign, exponent, mantissa | `point · (1 / (max · (1 / amax)))` |
//! | `nf4` | [`NF4_TABLE`](burn_quant_numerics::NF4_TABLE)`[code]` | `point · amax` |
//! | any, F8_E8M0 scales | as above | `point · scale` |
//! | any, F8_E4M3 scales | as above | `point · (scale · scale_2)` |
//!
//! `max` is the largest number of the format: 448, 57344, 28, 7.5, 6, 3.5 for E4M3, E5M2, E3M2, E2M3, E2M1, E1M2. For
//! these an `amax` of at most `2^-24` counts as 1. Where F8_E4M3 scales are dynamic and elements other than E2M1, the
//! scale is rounded once, from f64, and a value may differ in the last place.
//!
//! # Metadata
//!
//! | key | what |
//! |---|---|
//! | `format` | `burn-quant` |
//! | `burn-quant.schema` | `1.0`: newer ones are refused |
//! | `burn-quant.version` | the crate that wrote the file |
//! | `burn-quant.plan` | JSON: quantizer → configuration, role with the axes of channels and blocks, on or off |
//! | `burn-quant.weights` | JSON: path → how a weight is stored, and what its codes are |
//! | `burn-quant.digest` | SHA-256 of all of the above; a file without one is read too |
//!
//! A weight is stored as `codes` or, in a packed model, `packed`, with the name of its `quantizer`, its `shape`, its
//! `dtype` if that is not F32, the `elements` (`int4`, `e2m1`), their `bits`, the `group` of elements along each axis
//! that share a scale, and the range of the tensor, `global_amax`, which F8_E4M3 scales stand under. Others are
//! `rounded`, floats on the grid, or `unrounded`, the floats of the parameter, where the quantizer would change what it
//! has rounded: it rotates, has two ranges, or finds ranges in the data that come out otherwise.

mod buffers;
mod codes;
mod container;
mod dtype;
mod read;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use self::container::{EXTENSION, SafetensorsFile};
use self::weights::StoredWeight;
use crate::StoreError;
use crate::file::read_with_extension;
use crate::restore::{Restore, RestoreReport};

/// How weights are stored, in the metadata.
const WEIGHTS: &str = "burn-quant.weights";

/// Saves a quantized model of any kind in one safetensors file, which other frameworks read too.
///
/// Weights that have a packed form are written as codes and scales, whether the model is packed or fake-quantized; all
/// other parameters as they are, f32, f16 and bf16 alike. The [module](self) has the tables of tensors, values and
/// metadata.
///
/// [`restore_safetensors`] gives a fake-quantized model back with the same outputs and ranges, and with *rounded*
/// weights: to go on training from the floats behind them, use [`save`](crate::save). Of packed weights the codes come
/// back.
///
/// The file is written beside its destination and moved into place. A path without an extension gets `.safetensors`.
///
/// # Errors
///
/// [`StoreError::Write`] if the file could not be written, [`StoreError::Folder`] if the path is that of a folder,
/// [`StoreError::NameTaken`] if a parameter has the name of a scale, and [`StoreError::NoElementType`] for a parameter
/// that burn quantized.
///
/// # Example
///
/// The codes of a weight, read by the crate `safetensors` alone:
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig;
/// use burn_quant::{presets, quantize_weights};
/// use burn_quant_store::{restore_safetensors, save_safetensors};
/// use safetensors::SafeTensors;
///
/// let (device, folder) = (Device::flex(), tempfile::tempdir()?);
/// let (layer, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &presets::int8_weight_only())?;
/// let path = folder.path().join("layer.safetensors");
/// save_safetensors(&layer, &path)?;
///
/// let bytes = std::fs::read(&path)?;
/// let file = SafeTensors::deserialize(&bytes)?;
/// let (codes, ranges) = (file.tensor("weight")?, file.tensor("weight_quantizer.amax")?); // I8 [8, 4], F32 [1, 4]
/// let amax: Vec<f32> = ranges.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
/// let value = |(i, code): (usize, &u8)| f32::from(*code as i8) / (127.0 / amax[i % 4]);
/// let values: Vec<f32> = codes.data().iter().enumerate().map(value).collect();
/// assert_eq!(values, layer.weight.val().into_data().try_to_vec::<f32>()?);
///
/// let restored = restore_safetensors(LinearConfig::new(8, 4).init(&device), &path)?;
/// assert_eq!(restored.weight.val().to_data(), layer.weight.val().to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn save_safetensors<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<(), StoreError> {
    write::file_of(model)?.write(path.as_ref())
}

/// Returns the bytes of the file that [`save_safetensors`] writes.
///
/// # Errors
///
/// Those of [`save_safetensors`] that are not of files, and [`StoreError::Record`] if burn cannot record the model.
pub fn safetensors_to_bytes<M: Module>(model: &M) -> Result<Vec<u8>, StoreError> {
    write::file_of(model)?.to_bytes()
}

/// Restores a model that [`save_safetensors`] saved into one that was built fresh in float, on whatever device that is.
///
/// Of the model its structure and its device are used; quantizers, ranges and parameters are those of the file. For a
/// part of a model, or a model whose layers have other paths, use [`Restore::load_safetensors`].
///
/// Everything is checked before it is used, and sizes before memory is taken for them. A file that was edited on
/// purpose no longer has its digest: remove `burn-quant.digest` from its metadata.
///
/// # Errors
///
/// One for each way in which a file can be wrong or of another model, in a [`StoreError::InFile`]: see [`StoreError`].
///
/// # Example
///
/// See [`save_safetensors`].
pub fn restore_safetensors<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, StoreError> {
    Restore::new().load_safetensors(model, path).map(|(model, _)| model)
}

/// Restores a model from the bytes of a safetensors file, as [`restore_safetensors`] does.
///
/// # Errors
///
/// Those of [`restore_safetensors`].
pub fn safetensors_from_bytes<M: Module>(model: M, bytes: &[u8]) -> Result<M, StoreError> {
    Restore::new().load_safetensors_bytes(model, bytes).map(|(model, _)| model)
}

impl Restore {
    /// Restores a safetensors file into a model.
    ///
    /// # Errors
    ///
    /// Those of [`restore_safetensors`], and [`StoreError::SamePath`] if two paths of the file are renamed to one.
    pub fn load_safetensors<M: Module>(
        &self,
        model: M,
        path: impl AsRef<Path>,
    ) -> Result<(M, RestoreReport), StoreError> {
        let path = path.as_ref();
        let bytes = read_with_extension(path, EXTENSION)?;
        self.load_safetensors_bytes(model, &bytes).map_err(|error| error.in_file(path))
    }

    /// Restores the bytes of a safetensors file into a model.
    ///
    /// # Errors
    ///
    /// Those of [`Restore::load_safetensors`].
    pub fn load_safetensors_bytes<M: Module>(&self, model: M, bytes: &[u8]) -> Result<(M, RestoreReport), StoreError> {
        let (record, places) = read::record_of(SafetensorsFile::read(bytes)?)?;
        self.load_record(model, record).map_err(|error| read::in_names_of_file(error, &places))
    }
}

/// The shapes of parameters by path: those of tensors, and of codes those of their weights. Shapes of more elements
/// than can be counted are left out.
fn shapes_of<'a>(
    tensors: impl Iterator<Item = (&'a str, Vec<usize>)>,
    stored: impl Iterator<Item = (&'a str, &'a StoredWeight)>,
) -> BTreeMap<String, Vec<usize>> {
    let codes = stored.filter_map(|(path, stored)| match stored {
        StoredWeight::Packed(form) | StoredWeight::Codes(form) => Some((path, form.form.shape.clone())),
        StoredWeight::Rounded { .. } | StoredWeight::Unrounded { .. } => None,
    });
    let countable = |(_, shape): &(&str, Vec<usize>)| is_countable(shape);
    tensors.chain(codes).filter(countable).map(|(path, shape)| (path.to_string(), shape)).collect()
}

/// Whether the elements of a shape can be counted, and those of each of its parts.
fn is_countable(shape: &[usize]) -> bool {
    let elements = shape.iter().try_fold(1usize, |product, len| product.checked_mul((*len).max(1)));
    elements.is_some_and(|elements| isize::try_from(elements).is_ok())
}
