//! Convolutions whose results stay codes: ONNX Runtime multiplies in integers if the sums are rounded at once.
//!
//! ```text
//! burn:  conv ─► relu ─► pool ─► reshape ─► fake quant ─► next layer
//! file:  Conv ─► QuantizeLinear ─► Clip ─► MaxPool ─► Reshape ─► DequantizeLinear ─► next layer
//! ```
//!
//! Rounding to a grid that is symmetric around zero is monotone and leaves zero where it is, so it changes places with
//! a rectifier, with maxima, and with what only moves elements: the values are the same. ONNX Runtime makes a
//! `QLinearConv` of the first two nodes, whose sums are integers; it rounds them by a factor of its own, so that a
//! value at the border between two codes may come out one step beside burn's.

use burn::tensor::DType;
use burn_quant_graph::RecordedOp;
use burn_quant_graph::ir::{
    ActivationOperationIr, BaseOperationIr, ModuleOperationIr, OperationIr, TensorId, TensorIr,
};
use burn_quant_numerics::Format;
use burn_quant_ops::{Call, Groups, Scales};

use super::Lowering;
use super::codes::Division;
use crate::model::Attribute;
use crate::{OnnxError, Profile};

/// A tensor that is written as codes.
#[derive(Clone)]
pub(super) struct Coded {
    codes: String,
    scale: String,
    zero: String,
}

/// What a quantizer does.
pub(super) struct Rounding {
    format: Format,
    amax: f32,
    /// Its path.
    quantizer: String,
}

impl Lowering<'_> {
    /// What a convolution's result is rounded to, if nothing else reads it before.
    pub(super) fn rounding_ahead(&self, x: &TensorIr, weight: &TensorIr, out: &TensorIr) -> Option<Rounding> {
        let rounded = |tensor: &TensorIr| self.fake_quant_of(self.graph.producer(tensor.id)?);
        let (of_x, _) = rounded(x)?;
        let of_int8 = |(call, _): (Call, _)| is_int8(&call) && call.bias.is_none();
        if !is_int8_of_tensor(&of_x) || !(self.int8_kernels.contains(&weight.id) || of_int8(rounded(weight)?)) {
            return None;
        }
        self.rounding_of_readers(out)
    }

    /// What a tensor is rounded to, if nothing else reads it before.
    pub(super) fn rounding_of_readers(&self, out: &TensorIr) -> Option<Rounding> {
        let (reader, call, amax) = self.rounding_reader(out).filter(|(_, call, _)| is_int8_of_tensor(call))?;
        let (amax, range) = (self.constant_floats(amax?)?[0], self.origin(amax?));
        let quantizer = range.and_then(|range| Some(range.rsplit_once('.')?.0.to_string()));
        let quantizer = quantizer.unwrap_or_else(|| self.layer_of(&self.graph.operations()[reader]));
        Some(Rounding { format: call.spec.format, amax, quantizer })
    }

    /// What rounds a tensor, how, and its range, if nothing else reads the tensor before but what works on codes, too.
    pub(super) fn rounding_reader(&self, out: &TensorIr) -> Option<(usize, Call, Option<TensorId>)> {
        if self.profile != Profile::OnnxRuntime {
            return None;
        }
        let mut id = out.id;
        loop {
            let readers = self.graph.consumers(id);
            let [reader] = readers[..] else { return None };
            if self.graph.outputs().iter().any(|output| output.id == id) {
                return None;
            }
            id = match &self.graph.operations()[reader] {
                OperationIr::Activation(ActivationOperationIr::Relu(op)) => op.out.id,
                OperationIr::Module(ModuleOperationIr::MaxPool1d(op)) => op.out.id,
                OperationIr::Module(ModuleOperationIr::MaxPool2d(op)) => op.out.id,
                OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => op.out.id,
                OperationIr::BaseFloat(BaseOperationIr::SwapDims(op)) => op.out.id,
                OperationIr::BaseFloat(BaseOperationIr::Permute(op)) => op.out.id,
                _ => {
                    let found = self.fake_quant_of(reader).or_else(|| self.rounding_of_product(reader, id));
                    return found.map(|(call, amax)| (reader, call, amax));
                }
            };
        }
    }

    /// The fake quantization at a place, and its range.
    fn fake_quant_of(&self, at: usize) -> Option<(Call, Option<TensorId>)> {
        let OperationIr::Custom(op) = &self.graph.operations()[at] else { return None };
        match RecordedOp::of(op, op.inputs[0].shape.as_slice()) {
            Ok(RecordedOp::FakeQuant(call)) => Some((call, op.inputs.get(1).map(|amax| amax.id))),
            _ => None,
        }
    }

    /// How the product or the convolution with a packed weight at a place rounds its activations, and their range.
    fn rounding_of_product(&self, at: usize, x: TensorId) -> Option<(Call, Option<TensorId>)> {
        let OperationIr::Custom(op) = &self.graph.operations()[at] else { return None };
        let shape = op.inputs[0].shape.as_slice();
        match RecordedOp::of(op, shape) {
            Ok(RecordedOp::PackedLinear(call)) if op.inputs[0].id == x => {
                Some((call.rounding(shape)?, op.inputs.get(3).map(|amax| amax.id)))
            }
            Ok(RecordedOp::PackedConv(call)) if op.inputs[0].id == x => {
                Some((call.rounding(shape), Some(op.inputs[3].id)))
            }
            Ok(RecordedOp::PackedConvTranspose(call)) if op.inputs[0].id == x => {
                Some((call.rounding(shape), Some(op.inputs[3].id)))
            }
            _ => None,
        }
    }

    /// Rounds a result at once.
    pub(super) fn as_codes(&mut self, mut result: String, rounding: Rounding, out: &TensorIr) {
        let layer = std::mem::replace(&mut self.layer, rounding.quantizer);
        if out.dtype != DType::F32 {
            result = self.emit("Cast", vec![result], vec![("to", Attribute::Int(1))]); // as scales are f32
        }
        let coded = self.quantized(rounding.format, rounding.amax, result);
        self.layer = layer;
        self.coded.insert(out.id, coded);
    }

    /// QuantizeLinear to INT8, by unsigned codes.
    fn quantized(&mut self, format: Format, amax: f32, x: String) -> Coded {
        let (scale, zero, narrow) = self.int8(format, amax);
        let mut codes = self.emit("QuantizeLinear", vec![x, scale.clone(), zero.clone()], vec![]);
        if narrow {
            let lowest = self.initializer("lowest", crate::ElementType::Uint8, &[], vec![1]);
            codes = self.emit("Clip", vec![codes, lowest], vec![]);
        }
        Coded { codes, scale, zero }
    }

    /// Rectifies codes: what is below zero becomes zero.
    pub(super) fn rectified_codes(&mut self, x: &TensorIr, out: &TensorIr) -> bool {
        let Some(Coded { codes, scale, zero }) = self.coded.get(&x.id).cloned() else { return false };
        let codes = self.emit("Clip", vec![codes, zero.clone()], vec![]);
        self.coded.insert(out.id, Coded { codes, scale, zero });
        true
    }

    /// Applies a node to codes as to values.
    pub(super) fn moved_codes(
        &mut self,
        x: &TensorIr,
        out: &TensorIr,
        operator: &'static str,
        others: Vec<String>,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> bool {
        let Some(Coded { codes, scale, zero }) = self.coded.get(&x.id).cloned() else { return false };
        let inputs = std::iter::once(codes).chain(others).collect();
        let codes = self.emit(operator, inputs, attributes);
        self.coded.insert(out.id, Coded { codes, scale, zero });
        true
    }

    /// The values of codes, where the fake quantization is that they were rounded for.
    pub(super) fn values_of_codes(&mut self, x: &TensorIr, out: &TensorIr) -> Result<bool, OnnxError> {
        let Some(values) = self.dequantized_codes(x) else { return Ok(false) };
        self.finish(values, out)?;
        Ok(true)
    }

    /// The values of a tensor that is written as codes.
    pub(super) fn dequantized_codes(&mut self, x: &TensorIr) -> Option<String> {
        let Coded { codes, scale, zero } = self.coded.get(&x.id).cloned()?;
        Some(self.emit("DequantizeLinear", vec![codes, scale, zero], vec![]))
    }
}

fn is_int8(call: &Call) -> bool {
    is_int8_format(call.spec.format) && call.scales == Scales::Static
}

/// With a sign.
pub(super) fn is_int8_format(format: Format) -> bool {
    matches!(format, Format::Int(int) if int.bits() == 8 && int.grid().lo() < 0)
}

/// With one range, symmetric around zero.
fn is_int8_of_tensor(call: &Call) -> bool {
    let of_tensor = |groups: &Groups| Division::of(groups) == Division::Tensor;
    is_int8(call) && call.bias.is_none() && of_tensor(&call.spec.groups)
}
