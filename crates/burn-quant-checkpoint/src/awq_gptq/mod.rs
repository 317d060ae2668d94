//! AutoAWQ and GPTQ: read only.
//!
//! ```text
//! w[o, i] = f16((q[i, o] − z[i / g, o]) · s[i / g, o])         weights are stored [in, out]: transposed
//! ```
//!
//! | | `qweight` I32 | `qzeros` I32 | `scales` F16 | packed |
//! |---|---|---|---|---|
//! | AWQ | `[in, out/8]` | `[in/g, out/8]` | `[in/g, out]` | outputs 0, 2, 4, 6, 1, 3, 5, 7 of eight |
//! | GPTQ | `[in·bits/32, out]` | `[in/g, out·bits/32]` | `[in/g, out]` | in order, 32 codes of 3 bits in 3 words |
//!
//! Lowest bits come first. GPTQ stores zero points less one, except in `checkpoint_format: gptq_v2`; one is added
//! without a mask, as its kernels do it, so a stored 15 of 4 bits is 16. The group of each input is in `g_idx`. Where
//! `desc_act` puts inputs of a group apart, every element is read with its own scale (blocks of one column), which is
//! exact.
//!
//! Source: AutoAWQ 0.2, `WQLinear_GEMM`; AutoGPTQ 0.7, `QuantLinear.pack`; GPTQModel, `checkpoint_format`. `make.py`
//! beside the test vectors has both packers in numpy.

mod config;

use burn_quant_numerics::packed::bits;
use config::{Config, Method};

use crate::columns;
use crate::compressed_tensors::words;
use crate::error::{finite, shape};
use crate::{
    CheckpointError, Dtype, Element, Folder, Inputs, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind, Tensor,
};

/// Reads the quantized layers of a folder of AutoAWQ, AutoGPTQ or GPTQModel.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::{Folder, awq_gptq::Quantization};
///
/// let folder = Folder::open("Qwen2.5-0.5B-Instruct-AWQ")?;
/// let quantization = Quantization::of(&folder)?.expect("a folder of AutoAWQ");
/// for name in quantization.layers(&folder)? {
///     let weight = quantization.layer(&folder, &name)?.weight.dequantize();
///     println!("{name}: {} weights", weight.len());
/// }
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    config: Config,
}

impl Quantization {
    /// Reads the configuration of a folder; `None` if it is not quantized, or by another method.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Value`] and [`CheckpointError::Unknown`] with the key: bits, versions and checkpoint formats
    /// that are not known here, and settings of single layers (`dynamic`).
    pub fn of(folder: &Folder) -> Result<Option<Self>, CheckpointError> {
        let config = folder.config().get("quantization_config").map(Config::parse).transpose()?.flatten();
        Ok(config.map(|config| Self { config }))
    }

    /// Returns the names of the layers that are stored quantized, sorted.
    ///
    /// They are those with a `qweight`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Ignored`] for a layer of `modules_to_not_convert`.
    pub fn layers(&self, folder: &Folder) -> Result<Vec<String>, CheckpointError> {
        let layers = folder.names().filter_map(|name| name.strip_suffix(".qweight")).map(|layer| {
            self.config.check(layer)?;
            Ok(layer.to_string())
        });
        layers.collect()
    }

    /// Reads a layer. Its inputs are floats, and its codes stand around zero points: [`Offset::ZeroPoints`].
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`], [`CheckpointError::Dtype`] and [`CheckpointError::Shape`] with the tensor that is
    /// not what the configuration says, [`CheckpointError::NotFinite`] for scales that are no numbers,
    /// [`CheckpointError::Element`] for a group that is not there, [`CheckpointError::Ignored`].
    pub fn layer(&self, folder: &Folder, layer: &str) -> Result<QuantizedLayer, CheckpointError> {
        self.config.check(layer)?;
        let weight = match self.config.method {
            Method::Awq => self.awq(folder, layer)?,
            Method::Gptq { .. } => self.gptq(folder, layer)?,
        };
        Ok(QuantizedLayer { weight, inputs: Inputs::Float, pre_quant_scale: None, low_rank: None })
    }

    fn awq(&self, folder: &Folder, layer: &str) -> Result<QuantizedMatrix, CheckpointError> {
        let [weight, zeros] = ["qweight", "qzeros"].map(|leaf| format!("{layer}.{leaf}"));
        let tensor = folder.tensor(&weight)?;
        let [inputs, eighth] = words_of(&weight, &tensor)?;
        let outputs = eighth * 8; // as many codes as are in memory
        let scales = self.scales(folder, layer, [outputs, inputs])?;
        let codes = words::transpose(&awq_codes(tensor.bytes()), outputs, 1);
        let stored = if self.config.zero_point { Some(folder.tensor(&zeros)?) } else { folder.find(&zeros)? };
        let zero_points = match stored {
            Some(tensor) => {
                expect(&zeros, &tensor, [scales.groups, eighth])?;
                words::transpose(&awq_codes(tensor.bytes()), outputs, 1).into_iter().map(f32::from).collect()
            }
            // the middle of the codes
            None => vec![8.0; outputs * scales.groups],
        };
        Ok(scales.matrix([outputs, inputs], 4, codes, zero_points))
    }

    fn gptq(&self, folder: &Folder, layer: &str) -> Result<QuantizedMatrix, CheckpointError> {
        let [weight, zeros, order] = ["qweight", "qzeros", "g_idx"].map(|leaf| format!("{layer}.{leaf}"));
        let width = usize::from(self.config.bits);
        let tensor = folder.tensor(&weight)?;
        let [height, outputs] = words_of(&weight, &tensor)?;
        if !height.is_multiple_of(if width == 3 { 3 } else { 1 }) {
            return Err(shape(&weight, "32 codes of 3 bits in 3 rows", tensor.shape()));
        }
        let inputs = height * 32 / width; // no more codes than bits in memory
        let columns = words::transpose(tensor.bytes(), outputs, 4);
        let codes = words::unpack(&columns, inputs, self.config.bits);
        let scales = self.scales(folder, layer, [outputs, inputs])?;
        let tensor = folder.tensor(&zeros)?;
        let wide = words::words(outputs, self.config.bits).filter(|_| (outputs * width).is_multiple_of(32));
        let wide = wide.ok_or_else(|| shape(&weight, "outputs that fill whole words", &[inputs, outputs]))?;
        expect(&zeros, &tensor, [scales.groups, wide])?;
        let less = f32::from(u8::from(self.config.method == Method::Gptq { zeros_less_one: true }));
        let zero_points = words::unpack(tensor.bytes(), outputs, self.config.bits);
        let zero_points = words::transpose(&zero_points, outputs, 1).into_iter().map(|z| f32::from(z) + less).collect();
        let matrix = scales.matrix([outputs, inputs], self.config.bits, codes, zero_points);
        match folder.find(&order)? {
            Some(groups) => columns::reorder(matrix, &order, &groups),
            None => Ok(matrix),
        }
    }

    /// The scales of a layer, transposed.
    fn scales(&self, folder: &Folder, layer: &str, [outputs, inputs]: [usize; 2]) -> Result<Scales, CheckpointError> {
        let name = format!("{layer}.scales");
        let tensor = folder.tensor(&name)?;
        let size = self.config.group_size.unwrap_or(inputs).min(inputs);
        let groups = inputs.div_ceil(size);
        if !matches!(tensor.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            return Err(CheckpointError::Dtype { name, expected: "F16, BF16 or F32", found: tensor.dtype() });
        }
        if tensor.shape() != [groups, outputs] {
            return Err(shape(&name, format!("[{groups}, {outputs}], groups of {size}"), tensor.shape()));
        }
        let stored = tensor.to_f32(&name)?;
        finite(&name, &stored)?;
        let scales = (0..outputs).flat_map(|o| (0..groups).map(move |g| g * outputs + o)).map(|at| stored[at]);
        Ok(Scales { scales: scales.collect(), groups, size, dtype: tensor.dtype() })
    }
}

/// Scales `[outputs, groups]`, of groups of so many inputs.
struct Scales {
    scales: Vec<f32>,
    groups: usize,
    size: usize,
    dtype: Dtype,
}

impl Scales {
    fn matrix(self, [outputs, inputs]: [usize; 2], bits: u8, codes: Vec<u8>, zeros: Vec<f32>) -> QuantizedMatrix {
        QuantizedMatrix {
            outputs,
            inputs,
            element: Element::Uint(bits),
            codes,
            block_outputs: 1,
            block_inputs: self.size,
            scales: self.scales,
            scale_kind: ScaleKind::Float,
            offset: Offset::ZeroPoints(zeros),
            then_e4m3: None,
            dtype: self.dtype,
        }
    }
}

/// The shape of a tensor of words, of two axes that are not empty.
fn words_of(name: &str, tensor: &Tensor) -> Result<[usize; 2], CheckpointError> {
    if tensor.dtype() != Dtype::I32 {
        return Err(CheckpointError::Dtype { name: name.into(), expected: "I32", found: tensor.dtype() });
    }
    match tensor.shape() {
        [rows, columns] if *rows > 0 && *columns > 0 => Ok([*rows, *columns]),
        found => Err(shape(name, "two axes that are not empty", found)),
    }
}

fn expect(name: &str, tensor: &Tensor, expected: [usize; 2]) -> Result<(), CheckpointError> {
    if words_of(name, tensor)? == expected { Ok(()) } else { Err(shape(name, format!("{expected:?}"), tensor.shape())) }
}

/// Codes of AWQ's words in their order: nibble `i` of a word is code `ORDER[i]` of eight.
fn awq_codes(packed: &[u8]) -> Vec<u8> {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let mut codes = vec![0; packed.len() * 2];
    for (word, eight) in packed.chunks_exact(4).zip(codes.chunks_exact_mut(8)) {
        let mut nibbles = [0u8; 8];
        bits::unpack(word, 4, &mut nibbles).expect("eight nibbles in a word");
        nibbles.into_iter().zip(ORDER).for_each(|(nibble, at)| eight[at] = nibble);
    }
    codes
}
