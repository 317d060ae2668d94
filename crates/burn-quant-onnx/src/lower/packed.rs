//! Packed weights: codes and scales are written as they are.
//!
//! ```text
//! packed_linear(x, words, scales)   x [rows, inputs], rounded ─► MatMul(x, DequantizeLinear(codes, scales))
//! packed_unpack(words, scales)      DequantizeLinear(codes, scales), in the shape that its one reader gives it
//! packed_columns(words, scales, i)  Transpose(DequantizeLinear(Gather(codes, i, axis 1), Gather(scales, i)))
//! packed_conv(x, words, scales)     Conv(x, DequantizeLinear(codes, scales)), whose codes are in the order of ONNX
//! ```
//!
//! The file is that of the model before it was packed, but for scales of whole tensors: they are those of outputs here.
//! Activations of 15 bits, which stand for floats where products of integers are faster, are floats.

use burn::tensor::TensorData;
use burn_quant_graph::ir::{BaseOperationIr, OperationIr, TensorId, TensorIr};
use burn_quant_numerics::{ScaleFormat, load_scale};
use burn_quant_ops::{AxisGroups, Call, Groups, PackedCall, PackedConvCall, PackedConvTransposeCall, PackedLayout};

use super::coded::is_int8_format;
use super::codes::packed_codes;
use super::modules::{Window, both, pairs};
use super::quantizers::Ranges;
use super::{Lowering, ints};
use crate::OnnxError;
use crate::model::Attribute;

impl Lowering<'_> {
    /// A product with a packed weight.
    pub(super) fn packed_linear(
        &mut self,
        call: &PackedCall,
        inputs: &[TensorIr],
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let weight = self.packed_weight(call.layout, &inputs[1], &inputs[2])?;
        let x = match call.rounding(inputs[0].shape.as_slice()) {
            Some(rounding) => self.rounded_input(&rounding, &inputs[0], inputs.get(3))?,
            None => self.value(&inputs[0])?,
        };
        self.emit_as(out, "MatMul", vec![x, weight], vec![]);
        Ok(())
    }

    /// Activations as a packed product rounds them: codes that are there already, or a pair under the quantizer's path.
    fn rounded_input(&mut self, rounding: &Call, x: &TensorIr, range: Option<&TensorIr>) -> Result<String, OnnxError> {
        if let Some(values) = self.dequantized_codes(x) {
            return Ok(values);
        }
        let quantizer = range.and_then(|range| self.origin(range.id)?.rsplit_once('.')).map(|(at, _)| at);
        let quantizer = quantizer.map_or_else(|| self.layer.clone(), String::from);
        let layer = std::mem::replace(&mut self.layer, quantizer);
        let x = self.rounded_activations(rounding, x, &Ranges::of_amax(range))?;
        self.layer = layer;
        Ok(x)
    }

    /// A convolution with a packed kernel, whose codes are put in the order of ONNX: `[out, in / groups, k…]` of
    /// `[k… · in / groups, out]`.
    pub(super) fn packed_conv(
        &mut self,
        call: &PackedConvCall,
        inputs: &[TensorIr],
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let (layout, conv) = (call.layout, &call.conv);
        let kernel = self.packed_kernel(call, inputs)?;
        let x = self.rounded_input(&call.rounding(inputs[0].shape.as_slice()), &inputs[0], inputs.get(3))?;
        let window = Window {
            kernel: conv.kernel().to_vec(),
            stride: conv.stride().to_vec(),
            padding: pairs(conv.padding()),
            dilation: conv.dilation().to_vec(),
        };
        let in_integers = is_int8_format(layout.format()) && !call.has_offsets;
        let rounding = self.rounding_of_readers(out).filter(|_| in_integers);
        let bias = call.has_bias.then(|| &inputs[4]);
        self.convolved("Conv", ([x, kernel], bias), out, window, (conv.groups(), &[]), rounding)
    }

    /// The kernel of such a convolution, which is stored once.
    fn packed_kernel(&mut self, call: &PackedConvCall, inputs: &[TensorIr]) -> Result<String, OnnxError> {
        let (layout, conv) = (call.layout, &call.conv);
        let elements: usize = conv.kernel().iter().product();
        let channels = layout.inputs() / elements;
        let shape: Vec<usize> = [layout.outputs(), channels].into_iter().chain(conv.kernel().iter().copied()).collect();
        let written = (inputs[1].id, shape, Vec::new());
        if let Some(kernel) = self.kernels.get(&written) {
            return Ok(kernel.clone());
        }
        let shape = &written.1;
        let (name, codes, scales) = self.packed_parts(layout, &inputs[1], &inputs[2])?;
        let place = |at: usize| {
            let (output, channel, element) = (at / layout.inputs(), at / elements % channels, at % elements);
            codes[(element * channels + channel) * layout.outputs() + output]
        };
        let codes: Vec<u8> = (0..codes.len()).map(place).collect();
        let groups = Groups::per_channel(shape, 0);
        let mut kernel = self.dequantized(&name, packed_codes(layout, &codes, &scales), layout.format(), &groups);
        if call.has_offsets {
            let offsets = self.value(inputs.last().expect("offsets are the last input"))?;
            let outputs: Vec<i64> = std::iter::once(-1).chain(vec![1; shape.len() - 1]).collect();
            let outputs = self.integers("shape", &outputs);
            let offsets = self.emit("Reshape", vec![offsets, outputs], vec![]);
            kernel = self.emit("Add", vec![kernel, offsets], vec![]);
        }
        self.kernels.insert(written, kernel.clone());
        Ok(kernel)
    }

    /// A transposed convolution with a packed kernel: `[in, out / groups, k…]` of `[in / groups, out · k…]`.
    pub(super) fn packed_conv_transpose(
        &mut self,
        call: &PackedConvTransposeCall,
        inputs: &[TensorIr],
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let (layout, conv) = (call.layout, &call.conv);
        let mut kernel = self.packed_weight(layout, &inputs[1], &inputs[2])?;
        if call.has_offsets {
            let offsets = self.value(inputs.last().expect("offsets are the last input"))?;
            kernel = self.emit("Add", vec![kernel, offsets], vec![]);
        }
        let (groups, elements) = (conv.groups(), conv.kernel().iter().product::<usize>());
        let outputs = layout.outputs() / groups / elements;
        if groups > 1 {
            let shape = [layout.inputs(), groups, layout.outputs() / groups].map(|len| len as i64);
            let shape = self.integers("shape", &shape);
            kernel = self.emit("Reshape", vec![kernel, shape], vec![]);
            kernel = self.emit("Transpose", vec![kernel], vec![("perm", ints([1, 0, 2]))]);
        }
        let shape = [layout.inputs() * groups, outputs].into_iter().chain(conv.kernel().iter().copied());
        let shape = self.integers("shape", &shape.map(|len| len as i64).collect::<Vec<_>>());
        kernel = self.emit("Reshape", vec![kernel, shape], vec![]);
        let x = self.rounded_input(&call.rounding(inputs[0].shape.as_slice()), &inputs[0], inputs.get(3))?;
        let window = Window {
            kernel: conv.kernel().to_vec(),
            stride: conv.stride().to_vec(),
            padding: both(conv.padding()),
            dilation: conv.dilation().to_vec(),
        };
        let bias = call.has_bias.then(|| &inputs[4]);
        self.convolved("ConvTranspose", ([x, kernel], bias), out, window, (groups, conv.padding_out()), None)
    }

    /// A packed weight as floats. Those of convolutions are moved to their places here: runtimes look for codes right
    /// before a convolution.
    pub(super) fn packed_unpack(
        &mut self,
        layout: PackedLayout,
        inputs: &[TensorIr],
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        if let Some(moved) = self.moved(out).filter(|moved| layout.tiles().blocks() == 1 && moved.is_of_outputs(layout))
        {
            let written = (inputs[0].id, moved.shape, moved.elements);
            let value = match self.kernels.get(&written) {
                Some(kernel) => kernel.clone(),
                None => {
                    let (name, codes, scales) = self.packed_parts(layout, &inputs[0], &inputs[1])?;
                    let codes: Vec<u8> = written.2.iter().map(|element| codes[*element]).collect();
                    let (codes, groups) = (packed_codes(layout, &codes, &scales), Groups::per_channel(&written.1, 0));
                    let value = self.dequantized(&name, codes, layout.format(), &groups);
                    self.kernels.insert(written, value.clone());
                    value
                }
            };
            if is_int8_format(layout.format()) && layout.scale() == ScaleFormat::F32 {
                self.int8_kernels.extend(moved.tensors.last());
            }
            self.names.extend(moved.tensors.into_iter().map(|tensor| (tensor, value.clone())));
            return Ok(());
        }
        let weight = self.packed_weight(layout, &inputs[0], &inputs[1])?;
        self.names.insert(out.id, weight);
        Ok(())
    }

    /// Some columns of a packed weight: what an embedding reads.
    pub(super) fn packed_columns(
        &mut self,
        layout: PackedLayout,
        inputs: &[TensorIr],
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let (weight, indices) = (self.packed_weight(layout, &inputs[0], &inputs[1])?, self.value(&inputs[2])?);
        let columns = self.gathered(weight, 1, indices, self.is_read_by_rows(inputs[0].id));
        self.emit_as(out, "Transpose", vec![columns], vec![("perm", Attribute::Ints(vec![1, 0]))]);
        Ok(())
    }

    /// The values of a packed weight `[inputs, outputs]`, which is stored once.
    fn packed_weight(
        &mut self,
        layout: PackedLayout,
        words: &TensorIr,
        scales: &TensorIr,
    ) -> Result<String, OnnxError> {
        if let Some(value) = self.packed.get(&words.id) {
            return Ok(value.clone());
        }
        let (name, codes, scales) = self.packed_parts(layout, words, scales)?;
        let inputs = if layout.tiles().blocks() > 1 { AxisGroups::Blocks(layout.block()) } else { AxisGroups::Whole };
        let groups = Groups::new(&[layout.inputs(), layout.outputs()], &[inputs, AxisGroups::Each]);
        let value = self.dequantized(&name, packed_codes(layout, &codes, &scales), layout.format(), &groups);
        self.packed.insert(words.id, value.clone());
        Ok(value)
    }

    /// The path of a packed weight, its codes `[inputs, outputs]`, and what is stored of scales `[blocks, outputs]`.
    fn packed_parts(
        &mut self,
        layout: PackedLayout,
        words: &TensorIr,
        scales: &TensorIr,
    ) -> Result<(String, Vec<u8>, Vec<u32>), OnnxError> {
        let (tiles, format) = (layout.tiles(), layout.scale());
        let (stored_words, stored_scales) = (self.words(words.id)?, self.words(scales.id)?);
        let codes: Vec<u8> = (0..layout.inputs() * layout.outputs())
            .map(|i| tiles.code(&stored_words, i / layout.outputs(), i % layout.outputs()))
            .collect();
        let scales: Vec<u32> = (0..tiles.blocks() * layout.outputs())
            .map(|i| load_scale(format, &stored_scales, tiles.scale_place(i / layout.outputs(), i % layout.outputs())))
            .collect();
        let name = match self.origin(words.id).and_then(|name| name.strip_suffix(".words")) {
            // the words are those of the quantizer of a parameter
            Some(quantizer) => quantizer.rsplit_once('.').map_or(quantizer, |(weight, _)| weight).to_string(),
            None => self.fresh("weight"),
        };
        Ok((name, codes, scales))
    }

    /// Where the elements of a tensor go until something else than a move reads them.
    fn moved(&self, out: &TensorIr) -> Option<Moved> {
        let shape = out.shape.as_slice().to_vec();
        let elements = (0..shape.iter().product()).collect();
        let mut moved = Moved { tensors: vec![out.id], shape, elements };
        loop {
            let id = *moved.tensors.last()?;
            let readers = self.graph.consumers(id);
            let is_output = self.graph.outputs().iter().any(|output| output.id == id);
            let [reader] = readers[..] else { return None };
            let out = match &self.graph.operations()[reader] {
                _ if is_output => return None,
                OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => {
                    moved.shape = op.out.shape.as_slice().to_vec();
                    &op.out
                }
                OperationIr::BaseFloat(BaseOperationIr::SwapDims(op)) => {
                    let mut axes: Vec<usize> = (0..moved.shape.len()).collect();
                    axes.swap(op.dim1, op.dim2);
                    moved.permute(&axes);
                    &op.out
                }
                OperationIr::BaseFloat(BaseOperationIr::Permute(op)) => {
                    moved.permute(&op.axes);
                    &op.out
                }
                _ => return (moved.tensors.len() > 1).then_some(moved),
            };
            moved.tensors.push(out.id);
        }
    }

    /// What a packed weight keeps, in words of 32 bits: codes, or scales.
    fn words(&self, id: TensorId) -> Result<Vec<u32>, OnnxError> {
        let data: Option<&TensorData> = self.constant(id);
        let bytes = data.ok_or_else(|| self.refused("its codes are computed from the input"))?.as_bytes();
        Ok(bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect())
    }
}

/// A tensor that is moved before it is read.
struct Moved {
    /// What it is on its way.
    tensors: Vec<TensorId>,
    /// The shape that it is read in.
    shape: Vec<usize>,
    /// The elements of the tensor at the beginning, in the order that they are read in.
    elements: Vec<usize>,
}

impl Moved {
    fn permute(&mut self, axes: &[usize]) {
        let strides: Vec<usize> =
            (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product::<usize>()).collect();
        let shape: Vec<usize> = axes.iter().map(|axis| self.shape[*axis]).collect();
        let place = |mut i: usize| {
            let mut place = 0;
            for (len, axis) in shape.iter().zip(axes).rev() {
                place += i % len * strides[*axis];
                i /= len;
            }
            place
        };
        self.elements = (0..self.elements.len()).map(|i| self.elements[place(i)]).collect();
        self.shape = shape;
    }

    /// Whether the first axis is that of the outputs of a weight `[inputs, outputs]`.
    fn is_of_outputs(&self, layout: PackedLayout) -> bool {
        let output = |(i, element): (usize, &usize)| i / layout.inputs().max(1) == element % layout.outputs();
        self.shape.first() == Some(&layout.outputs()) && self.elements.iter().enumerate().all(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_quant_numerics::IntFormat;

    #[test]
    fn elements_are_moved_as_the_operations_say() {
        let mut moved = Moved { tensors: Vec::new(), shape: vec![6, 2], elements: (0..12).collect() };
        moved.permute(&[1, 0]); // the outputs first
        assert_eq!((&moved.shape[..], &moved.elements[..]), (&[2, 6][..], &[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11][..]));
        let int8 = IntFormat::signed(8).unwrap().into();
        let layout = PackedLayout::new(6, 2, 6, int8, burn_quant_numerics::ScaleFormat::F32).unwrap();
        assert!(moved.is_of_outputs(layout));
        moved.shape = vec![2, 3, 2];
        assert!(moved.is_of_outputs(layout));
        moved.permute(&[0, 2, 1]);
        assert_eq!(moved.elements, [0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11]);
        assert!(moved.is_of_outputs(layout));
        moved.permute(&[1, 0, 2]);
        assert!(!moved.is_of_outputs(layout));
    }
}
