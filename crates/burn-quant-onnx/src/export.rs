//! From a model to a file.

use std::collections::BTreeSet;

use burn::module::Module;
use burn_quant_graph::{Graph, Values, capture, capture_with_free_axes};

use crate::lower::{Lowering, OPSETS, Options};
use crate::{OnnxError, OnnxModel, Profile};

/// Captures a forward pass and writes it in ONNX: names, opset and all else as they come.
///
/// `inputs` is a tensor, or several in a tuple, as examples; their shapes are those of the file.
///
/// # Errors
///
/// [`OnnxError::Graph`] if the pass cannot be captured, [`OnnxError::NoLowering`] for an operation, or a number format,
/// that ONNX does not have.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_quant::{nn, presets, quantize};
/// use burn_quant_onnx::{ElementType, export};
///
/// let device = Device::flex();
/// let layer = nn::LinearConfig::new(64, 32).init(&device);
/// let x = Tensor::<2>::random([8, 64], Distribution::Normal(0.0, 1.0), &device);
/// let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(x.clone())))?;
///
/// let onnx = export(&layer, x, |layer: &nn::Linear, x: Tensor<2>| layer.forward(x))?;
/// assert_eq!(onnx.stored().next(), Some(("weight", ElementType::Uint8, &[64, 32][..]))); // codes
/// # let folder = std::env::temp_dir();
/// onnx.save(folder.join("linear.onnx"))?;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn export<M: Module, I: Values, O: Values>(
    model: &M,
    inputs: I,
    forward: impl FnOnce(&M, I) -> O,
) -> Result<OnnxModel, OnnxError> {
    Exporter::new().export(model, inputs, forward)
}

/// How a model is written in ONNX.
#[derive(Clone, Debug, Default)]
pub struct Exporter {
    profile: Profile,
    signed_weights: bool,
    fused_attention: bool,
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
    axes: Option<Vec<String>>,
    opset: Option<i64>,
}

impl Exporter {
    /// Creates an exporter with the settings that [`export`] has.
    ///
    /// Inputs are called `input`, or `input.0` and so on if there are several; outputs alike.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the runtime that the file is for.
    ///
    /// ONNX Runtime unless it is set.
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Writes INT8 weights as signed codes for ONNX Runtime, too.
    ///
    /// For processors with VNNI, and for Arm, whose kernels are made for them. By default codes are unsigned, with a
    /// zero point of 128. The values are the same, and so is what is computed, with one exception: on a processor
    /// without VNNI ONNX Runtime adds products of signed weights in 16 bits, which overflow, unless its session option
    /// `session.x64quantprecision` is `1`.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant::{nn, presets, quantize_weights};
    /// use burn_quant_onnx::{ElementType, Exporter};
    ///
    /// let device = Device::flex();
    /// let layer = nn::LinearConfig::new(64, 32).init(&device);
    /// let (layer, _) = quantize_weights(layer, &presets::int8_weight_only())?;
    /// let x = Tensor::<2>::zeros([8, 64], &device);
    /// let onnx = Exporter::new().with_signed_weights().export(&layer, x, |layer: &nn::Linear, x| layer.forward(x))?;
    /// assert_eq!(onnx.stored().next(), Some(("weight", ElementType::Int8, &[64, 32][..])));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// ```
    pub fn with_signed_weights(mut self) -> Self {
        self.signed_weights = true;
        self
    }

    /// Names the inputs.
    ///
    /// As many as there are, in their order; none is that of another input or of an output.
    pub fn with_input_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.inputs = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Names the outputs.
    ///
    /// As many as there are, in their order; none is that of another output or of an input.
    pub fn with_output_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.outputs = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Names the axes whose sizes are free.
    ///
    /// As many as there are, in their order; `batch`, `sequence`, `axis.2` and so on unless they are set.
    pub fn with_axis_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.axes = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Asks for an opset, 21 to 24.
    ///
    /// 21 unless it is set. The file has a higher one if it needs that: 22 for bf16, 23 for FP4, 24 for scales in E8M0.
    /// From 23 on an `RmsNorm` is written as `RMSNormalization`, and attention without masks as `Attention`.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_onnx::OnnxError> {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_nn::{RmsNorm, RmsNormConfig};
    /// use burn_quant_onnx::Exporter;
    ///
    /// let device = Device::flex();
    /// let norm = RmsNormConfig::new(8).init(&device);
    /// let x = Tensor::<2>::zeros([3, 8], &device);
    /// let onnx = Exporter::new().with_opset(23).export(&norm, x, |norm: &RmsNorm, x: Tensor<2>| norm.forward(x))?;
    /// assert_eq!(onnx.operators(), [("Identity", 1), ("RMSNormalization", 1)]);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// ```
    pub fn with_opset(mut self, opset: i64) -> Self {
        self.opset = Some(opset);
        self
    }

    /// Writes attention with masks as one `Attention`, in opset 23 or higher.
    ///
    /// That of `MultiHeadAttention` and of code like it, where nothing else reads scores or shares, as a quantizer of
    /// them would. Attention without masks is one node from opset 23 on anyway. A query whose keys are all masked gets
    /// what the runtime makes of it, which ONNX leaves open; in burn it is the mean of all values. A mask of a number,
    /// -1e4 or less, leaves keys out, which in burn count where all other scores are as low.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_onnx::OnnxError> {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
    /// use burn_quant_onnx::Exporter;
    ///
    /// let device = Device::flex();
    /// let mha = MultiHeadAttentionConfig::new(16, 2).init(&device);
    /// let forward = |mha: &MultiHeadAttention, x: Tensor<3>| {
    ///     let mask = generate_autoregressive_mask(x.dims()[0], x.dims()[1], &x.device());
    ///     mha.forward(MhaInput::self_attn(x).mask_attn(mask)).context
    /// };
    /// let onnx = Exporter::new().with_fused_attention().export(&mha, Tensor::zeros([2, 6, 16], &device), forward)?;
    /// assert!(onnx.operators().contains(&("Attention", 1)));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// ```
    pub fn with_fused_attention(mut self) -> Self {
        self.fused_attention = true;
        self
    }

    /// Captures a forward pass with inputs of several sizes, and writes it for any size of the axes in which they
    /// differ.
    ///
    /// Two inputs free one axis; for more there is one more input each, which differs from the first in that axis
    /// alone.
    ///
    /// # Errors
    ///
    /// Those of [`Exporter::export`] and of [`capture_with_free_axes`], and [`OnnxError::NoLowering`] where a pass does
    /// something with an axis that a file for any size does not, as to take a part of it.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_onnx::OnnxError> {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_nn::{Linear, LinearConfig};
    /// use burn_quant_onnx::Exporter;
    ///
    /// let device = Device::flex();
    /// let linear = LinearConfig::new(8, 4).init(&device);
    /// let batches = [3, 5].map(|batch| Tensor::<2>::zeros([batch, 8], &device));
    /// let forward = |linear: &Linear, x: Tensor<2>| linear.forward(x);
    /// let onnx = Exporter::new().export_any_size(&linear, batches, forward)?; // [batch, 8] to [batch, 4]
    /// # let _ = onnx;
    ///
    /// let inputs = [[3, 5], [4, 5], [3, 7]].map(|[batch, tokens]| Tensor::<3>::zeros([batch, tokens, 8], &device));
    /// let forward = |linear: &Linear, x: Tensor<3>| linear.forward(x);
    /// let onnx = Exporter::new().with_axis_names(["batch", "tokens"]).export_any_size(&linear, inputs, forward)?;
    /// assert!(onnx.to_string().contains("output: Float [batch, tokens, 4]"));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// ```
    pub fn export_any_size<M: Module, I: Values, O: Values, const N: usize>(
        &self,
        model: &M,
        inputs: [I; N],
        forward: impl Fn(&M, I) -> O,
    ) -> Result<OnnxModel, OnnxError> {
        self.graph(&capture_with_free_axes(model, inputs, forward)?)
    }

    /// Captures a forward pass and writes it.
    ///
    /// # Errors
    ///
    /// Those of [`export`], [`OnnxError::Names`] for another number of names, [`OnnxError::Name`] for one that several
    /// have or that is empty, and [`OnnxError::Opset`] for an opset that is not written.
    pub fn export<M: Module, I: Values, O: Values>(
        &self,
        model: &M,
        inputs: I,
        forward: impl FnOnce(&M, I) -> O,
    ) -> Result<OnnxModel, OnnxError> {
        self.graph(&capture(model, inputs, forward)?)
    }

    /// Writes a graph.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn graph(&self, graph: &Graph) -> Result<OnnxModel, OnnxError> {
        let names = |boundary: &'static str, given: &Option<Vec<String>>, count: usize| match given {
            Some(names) if names.len() != count => {
                Err(OnnxError::Names { boundary, expected: count, found: names.len() })
            }
            Some(names) => Ok(names.clone()),
            None if count == 1 => Ok(vec![boundary.trim_end_matches('s').to_string()]),
            None => Ok((0..count).map(|i| format!("{}.{i}", boundary.trim_end_matches('s'))).collect()),
        };
        let inputs = names("inputs", &self.inputs, graph.inputs().len())?;
        let outputs = names("outputs", &self.outputs, graph.outputs().len())?;
        let axes = match &self.axes {
            _ if graph.free_axes().is_empty() => Vec::new(),
            Some(names) => names.clone(),
            None => (0..graph.free_axes().len()).map(axis_name).collect(),
        };
        if axes.len() != graph.free_axes().len() {
            let (expected, found) = (graph.free_axes().len(), axes.len());
            return Err(OnnxError::Names { boundary: "free axes", expected, found });
        }
        of_one_each(inputs.iter().chain(&outputs), "inputs and outputs")?;
        of_one_each(axes.iter(), "free axes")?;
        let opset = self.opset.unwrap_or(*OPSETS.start());
        if !OPSETS.contains(&opset) {
            return Err(OnnxError::Opset { expected: OPSETS, found: opset });
        }
        let Self { profile, signed_weights, fused_attention, .. } = *self;
        Lowering::new(graph, Options { profile, signed_weights, fused_attention, opset }, axes).run(inputs, outputs)
    }
}

/// Refuses names of nothing, and of several.
fn of_one_each<'a>(names: impl Iterator<Item = &'a String>, boundary: &'static str) -> Result<(), OnnxError> {
    let mut found = BTreeSet::new();
    for name in names {
        if name.is_empty() || !found.insert(name) {
            return Err(OnnxError::Name { boundary, name: name.clone() });
        }
    }
    Ok(())
}

/// What a free axis is called unless it is named.
fn axis_name(index: usize) -> String {
    match index {
        0 => "batch".into(),
        1 => "sequence".into(),
        index => format!("axis.{index}"),
    }
}
