//! compressed-tensors: the folders of `llm-compressor`, as vLLM and `transformers` load them.
//!
//! ```text
//! config.json ──► Quantization: layer ──► Scheme          QuantizedLayer ──► write_layer ──► tensors
//!                    │                                          └──► Scheme::of ──► config ──► quantization_config
//! tensors ───────────┴──► QuantizedLayer
//! ```
//!
//! | format | weight | scales |
//! |---|---|---|
//! | `int-quantized` | `weight` I8 `[out, in]` | floats: tensor, channel, group, block |
//! | `float-quantized`, `naive-quantized` | `weight` F8_E4M3 (or I8) `[out, in]` | floats, as above |
//! | `pack-quantized` | `weight_packed` I32 `[out, ⌈in·bits/32⌉]`, `weight_shape` | floats, as above |
//! | `nvfp4-pack-quantized` | `weight_packed` U8 `[out, in/2]` | F8_E4M3 `[out, in/16]`, over `weight_global_scale` |
//! | `mxfp4-pack-quantized` | `weight_packed` U8 `[out, in/2]` | U8 `[out, in/32]`, powers of two |
//! | `mxfp6-pack-quantized` | `weight_packed` U8 `[out, in·3/4]` | U8 `[out, in/32]`, powers of two |
//! | `mxfp8-quantized` | `weight` F8_E4M3 `[out, in]` | U8 `[out, in/32]`, powers of two |
//!
//! Zero points, `weight_zero_point`, are I8 beside whole codes, and packed along the rows beside packed ones.
//!
//! Source: compressed-tensors 0.20.0. What its `decompress` returns, [`QuantizedMatrix::dequantize`] returns bit for
//! bit, in bfloat16 for NVFP4 and MX. Columns in another order (`weight_g_idx`, which older versions wrote) are read
//! exactly, as a scale for each element: the columns themselves stay where they are.

mod scheme;

mod config;
mod pattern;

mod activations;
mod blocks;
mod minifloats;
mod read;

mod export;
mod write;

pub(crate) mod words;

pub use scheme::{Args, Dynamic, Format, ScaleType, Scheme, Strategy};
pub use write::{config, write_kv, write_layer};

use burn_quant_numerics::Minifloat;
use serde_json::Value;

use crate::error::finite;
use crate::{CheckpointError, Element, Folder, KvQuantizer, QuantizedLayer, QuantizedMatrix};

/// Reads the quantized layers of a compressed-tensors folder.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::{Folder, compressed_tensors::Quantization};
///
/// let folder = Folder::open("Llama-3.2-1B-quantized.w4a16")?;
/// let quantization = Quantization::of(&folder)?.expect("a folder of compressed-tensors");
/// for name in quantization.layers(&folder)? {
///     let layer = quantization.layer(&folder, &name)?;
///     println!("{name}: {:?} in blocks of {}", layer.weight.element, layer.weight.block_inputs);
/// }
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    config: config::Config,
}

impl Quantization {
    /// Reads the configuration of a folder; `None` if it is not quantized, or by another method.
    ///
    /// # Errors
    ///
    /// As [`Quantization::parse`].
    pub fn of(folder: &Folder) -> Result<Option<Self>, CheckpointError> {
        match folder.config().get("quantization_config") {
            Some(json) if json.get("quant_method").and_then(Value::as_str) == Some("compressed-tensors") => {
                Self::parse(json).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Reads `quantization_config`.
    ///
    /// Keys that are absent or null have the package's defaults.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Value`] and [`CheckpointError::Unknown`] with the key: number formats, strategies and
    /// formats that are not known here, regular expressions with more than targets need, sparsity, transforms, and a
    /// status other than `compressed`.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_checkpoint::Element;
    /// use burn_quant_checkpoint::compressed_tensors::{Quantization, Strategy};
    ///
    /// let json = serde_json::json!({
    ///     "quant_method": "compressed-tensors",
    ///     "format": "pack-quantized",
    ///     "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 128}}},
    ///     "ignore": ["re:.*lm_head"],
    /// });
    /// let quantization = Quantization::parse(&json)?;
    /// let weights = quantization.scheme("model.layers.0.mlp.up_proj").unwrap().weights;
    /// assert_eq!((weights.element, weights.strategy), (Element::Int(4), Strategy::Group(128)));
    /// assert_eq!(quantization.scheme("lm_head"), None);
    /// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
    /// ```
    pub fn parse(quantization_config: &Value) -> Result<Self, CheckpointError> {
        Ok(Self { config: config::Config::parse(quantization_config)? })
    }

    /// Returns how a layer is quantized: the scheme of the most exact target, by name, pattern or class.
    ///
    /// `None` if it is in `ignore`, or if no group targets it.
    pub fn scheme(&self, layer: &str) -> Option<&Scheme> {
        self.config.scheme(layer).filter(|_| !self.config.ignores(layer))
    }

    /// Returns how keys and values are quantized before they are kept: `kv_cache_scheme`.
    ///
    /// `None` if they are not.
    pub fn kv_scheme(&self) -> Option<&Args> {
        self.config.kv_cache.as_ref()
    }

    /// Returns the names of the layers that are stored quantized, sorted.
    ///
    /// They are those with a `weight_scale`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Ignored`] and [`CheckpointError::Untargeted`] for a layer whose tensors and configuration
    /// contradict each other.
    pub fn layers(&self, folder: &Folder) -> Result<Vec<String>, CheckpointError> {
        let packed = folder.names().filter_map(|name| name.strip_suffix(".weight_packed"));
        let scaled = folder.names().filter_map(|name| name.strip_suffix(".weight_scale"));
        let mut layers: Vec<String> = packed.chain(scaled).map(str::to_string).collect();
        layers.sort_unstable();
        layers.dedup();
        layers.iter().try_for_each(|layer| self.targeted(layer).map(drop))?;
        Ok(layers)
    }

    /// The scheme that a quantized layer must have.
    fn targeted(&self, layer: &str) -> Result<&Scheme, CheckpointError> {
        if self.config.ignores(layer) {
            return Err(CheckpointError::Ignored { name: layer.into(), key: "ignore" });
        }
        self.config.scheme(layer).ok_or_else(|| CheckpointError::Untargeted { name: layer.into() })
    }

    /// Reads the weight of a layer, whatever is done to its inputs.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`], [`CheckpointError::Dtype`] and [`CheckpointError::Shape`] with the tensor that is
    /// not what the scheme says, [`CheckpointError::NotFinite`] for scales that are no numbers,
    /// [`CheckpointError::Element`] for integers outside their range, [`CheckpointError::Unknown`] for a scheme that
    /// its format does not have, [`CheckpointError::Ignored`] and [`CheckpointError::Untargeted`].
    pub fn weight(&self, folder: &Folder, layer: &str) -> Result<QuantizedMatrix, CheckpointError> {
        read::weight(folder, layer, self.targeted(layer)?)
    }

    /// Reads a layer: weight, and what is done to its inputs.
    ///
    /// # Errors
    ///
    /// As [`Quantization::weight`], and [`CheckpointError::Unknown`] for activations that
    /// [`Inputs`](crate::Inputs) does not have:
    /// quantized outputs, zero points, float scales for groups of a token. Weights can be read in any case.
    pub fn layer(&self, folder: &Folder, layer: &str) -> Result<QuantizedLayer, CheckpointError> {
        let scheme = self.targeted(layer)?;
        let (weight, inputs) = (read::weight(folder, layer, scheme)?, activations::inputs(folder, layer, scheme)?);
        Ok(QuantizedLayer { weight, inputs, pre_quant_scale: None, low_rank: None })
    }

    /// Reads the quantizers of the keys and the values of an attention layer, such as `model.layers.0.self_attn`.
    ///
    /// `None` without a `kv_cache_scheme`. The package stores the step of a code, which for E4M3 is `amax / 448` and
    /// so the scale of a [`KvQuantizer`]; that of INT8 is multiplied with `127 / 448`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] for other than symmetric static scales of a whole tensor, and as
    /// [`Quantization::weight`] for `k_scale` and `v_scale`.
    pub fn kv(&self, folder: &Folder, attention: &str) -> Result<Option<[KvQuantizer; 2]>, CheckpointError> {
        let Some(args) = self.kv_scheme() else {
            return Ok(None);
        };
        let factor = match args.element {
            Element::Float(Minifloat::E4M3) => 1.0,
            Element::Int(8) => 127.0 / 448.0,
            _ => f32::NAN,
        };
        let is_static = args.dynamic == Dynamic::Static && args.strategy == Strategy::Tensor;
        if factor.is_nan() || !is_static || !args.symmetric {
            return Err(CheckpointError::Unknown {
                what: "kv_cache_scheme".into(),
                found: args.to_json().to_string(),
                known: "symmetric static E4M3 or INT8 with a scale of the tensor",
            });
        }
        let read = |leaf: &str| {
            let name = format!("{attention}.{leaf}");
            let scale = folder.tensor(&name)?.to_scalar(&name)?;
            finite(&name, &[scale])?;
            Ok(KvQuantizer { element: args.element, scale: scale * factor, bias: None })
        };
        Ok(Some([read("k_scale")?, read("v_scale")?]))
    }
}
