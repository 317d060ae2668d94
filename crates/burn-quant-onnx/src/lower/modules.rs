//! Layers that are one operation.

use burn_quant_graph::ir::{ModuleOperationIr, TensorIr};

use super::coded::Rounding;
use super::{Lowering, ints};
use crate::model::{Attribute, Node};
use crate::{ElementType, OnnxError, Profile};

/// The geometry of a window over some axes.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    /// Before each axis, then after each.
    pub(super) padding: Vec<usize>,
    pub(super) dilation: Vec<usize>,
}

impl Window {
    pub(super) fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("kernel_shape", ints(self.kernel.clone())),
            ("strides", ints(self.stride.clone())),
            ("pads", ints(self.padding.clone())),
            ("dilations", ints(self.dilation.clone())),
        ]
    }
}

/// Padding that is the same on both sides.
pub(super) fn both(padding: &[usize]) -> Vec<usize> {
    [padding, padding].concat()
}

pub(super) fn pairs(padding: &[(usize, usize)]) -> Vec<usize> {
    padding.iter().map(|pair| pair.0).chain(padding.iter().map(|pair| pair.1)).collect()
}

impl Lowering<'_> {
    pub(super) fn module(&mut self, op: &ModuleOperationIr) -> Result<(), OnnxError> {
        use ModuleOperationIr as Op;
        macro_rules! convolution {
            ($op:expr, $padding:expr) => {{
                let (op, options) = ($op, &$op.options);
                let window = Window {
                    kernel: op.weight.shape[2..].to_vec(),
                    stride: options.stride.to_vec(),
                    padding: $padding(&options.padding),
                    dilation: options.dilation.to_vec(),
                };
                self.convolution("Conv", (&op.x, &op.weight, op.bias.as_ref()), &op.out, window, options.groups, &[])
            }};
        }
        macro_rules! transposed {
            ($op:expr) => {{
                let (op, options) = ($op, &$op.options);
                let window = Window {
                    kernel: op.weight.shape[2..].to_vec(),
                    stride: options.stride.to_vec(),
                    padding: both(&options.padding),
                    dilation: options.dilation.to_vec(),
                };
                let tensors = (&op.x, &op.weight, op.bias.as_ref());
                self.convolution("ConvTranspose", tensors, &op.out, window, options.groups, &options.padding_out)
            }};
        }
        match op {
            Op::Linear(op) => {
                let (x, weight) = (self.value(&op.x)?, self.value(&op.weight)?);
                match &op.bias {
                    None => self.emit_as(&op.out, "MatMul", vec![x, weight], vec![]),
                    Some(bias) => {
                        let product = self.emit("MatMul", vec![x, weight], vec![]);
                        let bias = self.value(bias)?;
                        self.emit_as(&op.out, "Add", vec![product, bias], vec![]);
                    }
                }
                Ok(())
            }
            Op::Embedding(op) => self.gather(&op.weights, 0, &op.indices, &op.out),
            Op::Conv1d(op) => convolution!(op, |padding: &[(usize, usize)]| pairs(padding)),
            Op::Conv2d(op) => convolution!(op, |padding: &[(usize, usize)]| pairs(padding)),
            Op::Conv3d(op) => convolution!(op, |padding: &[usize]| both(padding)),
            Op::ConvTranspose1d(op) => transposed!(op),
            Op::ConvTranspose2d(op) => transposed!(op),
            Op::ConvTranspose3d(op) => transposed!(op),
            Op::BatchNorm(op) => {
                let tensors = [&op.x, &op.gamma, &op.beta, &op.mean, &op.variance];
                let inputs = tensors.into_iter().map(|tensor| self.value(tensor)).collect::<Result<_, _>>()?;
                let epsilon = ("epsilon", Attribute::Float(op.epsilon.elem()));
                self.emit_as(&op.out, "BatchNormalization", inputs, vec![epsilon]);
                Ok(())
            }
            Op::LayerNorm(op) => {
                let tensors = [Some(&op.input), Some(&op.gamma), op.beta.as_ref()];
                let inputs =
                    tensors.into_iter().flatten().map(|tensor| self.value(tensor)).collect::<Result<_, _>>()?;
                let axis = ("axis", Attribute::Int(-1));
                let epsilon = ("epsilon", Attribute::Float(op.epsilon.elem()));
                self.emit_as(&op.out, "LayerNormalization", inputs, vec![axis, epsilon]);
                Ok(())
            }
            Op::MaxPool1d(op) => {
                let window = Window {
                    kernel: vec![op.kernel_size],
                    stride: vec![op.stride],
                    padding: both(&[op.padding]),
                    dilation: vec![op.dilation],
                };
                self.pool("MaxPool", &op.x, &op.out, window, op.ceil_mode, None)
            }
            Op::MaxPool2d(op) => {
                let window = Window {
                    kernel: op.kernel_size.to_vec(),
                    stride: op.stride.to_vec(),
                    padding: both(&op.padding),
                    dilation: op.dilation.to_vec(),
                };
                self.pool("MaxPool", &op.x, &op.out, window, op.ceil_mode, None)
            }
            Op::AvgPool1d(op) => {
                let window = Window {
                    kernel: vec![op.kernel_size],
                    stride: vec![op.stride],
                    padding: both(&[op.padding]),
                    dilation: vec![1],
                };
                self.pool("AveragePool", &op.x, &op.out, window, op.ceil_mode, Some(op.count_include_pad))
            }
            Op::AvgPool2d(op) => {
                let window = Window {
                    kernel: op.kernel_size.to_vec(),
                    stride: op.stride.to_vec(),
                    padding: both(&op.padding),
                    dilation: vec![1; 2],
                };
                self.pool("AveragePool", &op.x, &op.out, window, op.ceil_mode, Some(op.count_include_pad))
            }
            Op::AdaptiveAvgPool1d(op) => self.adaptive_pool(&op.x, &op.out, &[op.output_size]),
            Op::AdaptiveAvgPool2d(op) => self.adaptive_pool(&op.x, &op.out, &op.output_size),
            Op::AdaptiveAvgPool3d(op) => self.adaptive_pool(&op.x, &op.out, &op.output_size),
            Op::MaxPool1dWithIndices(op) => {
                let window = Window {
                    kernel: vec![op.kernel_size],
                    stride: vec![op.stride],
                    padding: both(&[op.padding]),
                    dilation: vec![op.dilation],
                };
                self.max_pool_with_places(&op.x, [&op.out, &op.out_indices], &window, op.ceil_mode)
            }
            Op::MaxPool2dWithIndices(op) => {
                let window = Window {
                    kernel: op.kernel_size.to_vec(),
                    stride: op.stride.to_vec(),
                    padding: both(&op.padding),
                    dilation: op.dilation.to_vec(),
                };
                self.max_pool_with_places(&op.x, [&op.out, &op.out_indices], &window, op.ceil_mode)
            }
            Op::Interpolate(op) => self.interpolate(op),
            Op::Unfold4d(op) => self.unfold4d(op),
            Op::DeformableConv2d(op) => self.deformable(op),
            Op::Attention(op) => self.attention(op),
            _ => Err(self.refused("compute it before, or of other layers")),
        }
    }

    fn convolution(
        &mut self,
        operator: &'static str,
        (x, weight, bias): (&TensorIr, &TensorIr, Option<&TensorIr>),
        out: &TensorIr,
        window: Window,
        groups: usize,
        padding_out: &[usize],
    ) -> Result<(), OnnxError> {
        let rounding = self.rounding_ahead(x, weight, out).filter(|_| operator == "Conv");
        let values = [self.value(x)?, self.value(weight)?];
        self.convolved(operator, (values, bias), out, window, (groups, padding_out), rounding)
    }

    /// A convolution of values, which is rounded at once if that is known.
    pub(super) fn convolved(
        &mut self,
        operator: &'static str,
        (values, bias): ([String; 2], Option<&TensorIr>),
        out: &TensorIr,
        window: Window,
        (groups, padding_out): (usize, &[usize]),
        rounding: Option<Rounding>,
    ) -> Result<(), OnnxError> {
        // ONNX Runtime rounds what is constant of a convolution between codes: its kernel to 8 bits, its bias to steps
        // of input times kernel. It does not where a sum comes next, or where a kernel is computed
        let is_rounded = rounding.is_none() && self.is_between_codes(&values, out);
        let [x, mut kernel] = values;
        let axes = window.kernel.len();
        let (mut apart, mut within) = (None, bias);
        if is_rounded && self.is_constant(&kernel) {
            let one = self.initializer("one", ElementType::Uint8, &[], vec![1]);
            let scale = self.floats("scale", &[], &[1.0]);
            let one = self.emit("DequantizeLinear", vec![one, scale], vec![]); // which stays a node
            kernel = self.emit("Mul", vec![kernel, one], vec![]);
        } else if is_rounded {
            (apart, within) = (bias, None);
        }
        let mut inputs = vec![x, kernel];
        if let Some(bias) = within {
            inputs.push(self.value(bias)?);
        }
        let mut attributes = window.attributes();
        attributes.push(("group", Attribute::Int(groups as i64)));
        if !padding_out.is_empty() {
            attributes.push(("output_padding", ints(padding_out.iter().copied())));
        }
        if let Some(rounding) = rounding {
            let result = self.emit(operator, inputs, attributes);
            self.as_codes(result, rounding, out);
            return Ok(());
        }
        let Some(bias) = apart else {
            self.emit_as(out, operator, inputs, attributes);
            return Ok(());
        };
        let bias = self.value(bias)?;
        let result = self.emit(operator, inputs, attributes);
        let shape: Vec<i64> = std::iter::once(-1).chain(vec![1; axes]).collect();
        let shape = self.integers("shape", &shape);
        let bias = self.emit("Reshape", vec![bias, shape], vec![]);
        self.emit_as(out, "Add", vec![result, bias], vec![]);
        Ok(())
    }

    /// Whether an input is codes of integers, and the kernel is constant, which the runtime may first merge with what
    /// comes next, or codes: of 8 bits only if the result is rounded next, as the steps of its bias are small.
    fn is_between_codes(&self, [x, kernel]: &[String; 2], out: &TensorIr) -> bool {
        let stored = |name: &String| self.model.initializers.iter().find(|stored| stored.name == *name);
        let of_codes = |value: &String| self.node_of(value).filter(|node| node.operator == "DequantizeLinear");
        let zero = of_codes(x).and_then(|node| stored(node.inputs.get(2)?));
        let of_integers = zero.is_some_and(|zero| matches!(zero.element, ElementType::Uint8 | ElementType::Int8));
        if self.profile != Profile::OnnxRuntime || !of_integers {
            return false;
        }
        match of_codes(kernel).map(|node| stored(&node.inputs[0]).map(|codes| codes.element)) {
            Some(Some(ElementType::Uint8 | ElementType::Int8)) => self.rounding_reader(out).is_some(),
            Some(_) => true,
            None => self.is_constant(kernel),
        }
    }

    /// Whether a value is a constant, or what a runtime makes one of: it leaves codes that become values.
    fn is_constant(&self, value: &String) -> bool {
        match self.node_of(value) {
            Some(node) => {
                node.operator != "DequantizeLinear" && node.inputs.iter().all(|input| self.is_constant(input))
            }
            None => self.model.initializers.iter().any(|stored| stored.name == *value),
        }
    }

    fn node_of(&self, value: &String) -> Option<&Node> {
        self.model.nodes.iter().rev().find(|node| node.outputs.contains(value))
    }

    fn pool(
        &mut self,
        operator: &'static str,
        x: &TensorIr,
        out: &TensorIr,
        window: Window,
        ceil: bool,
        counts_padding: Option<bool>,
    ) -> Result<(), OnnxError> {
        let mut attributes = window.attributes();
        attributes.push(("ceil_mode", Attribute::Int(ceil.into())));
        attributes.extend(counts_padding.map(|counts| ("count_include_pad", Attribute::Int(counts.into()))));
        if self.moved_codes(x, out, operator, vec![], attributes.clone()) {
            return Ok(());
        }
        let x = self.value(x)?;
        self.emit_as(out, operator, vec![x], attributes);
        Ok(())
    }

    /// Means of windows: of one size, where the axes are whole multiples of the result's; of several, as products with
    /// what each pixel counts.
    fn adaptive_pool(&mut self, x: &TensorIr, out: &TensorIr, output: &[usize]) -> Result<(), OnnxError> {
        let input = &x.shape[2..];
        if output.iter().all(|len| *len == 1) {
            return self.plain(out, "GlobalAveragePool", &[x]);
        }
        for length in &self.graph.lengths(x)[2..] {
            self.fixed(length, "it is divided into windows")?;
        }
        if input.iter().zip(output).all(|(input, output)| *output > 0 && input.is_multiple_of(*output)) {
            let kernel: Vec<usize> = input.iter().zip(output).map(|(input, output)| input / output).collect();
            let axes = kernel.len();
            let window = Window { stride: kernel.clone(), kernel, padding: vec![0; 2 * axes], dilation: vec![1; axes] };
            return self.pool("AveragePool", x, out, window, false, Some(false));
        }
        let mut value = self.value(x)?;
        match (input, output) {
            ([width], [columns]) => value = self.means_of_columns(value, *width, *columns),
            ([height, width], [rows, columns]) => {
                value = self.means_of_columns(value, *width, *columns);
                let shares = self.floats("shares", &[*rows, *height], &transposed(&shares(*height, *rows), *rows));
                value = self.emit("MatMul", vec![shares, value], vec![]);
            }
            _ => {
                let reason = format!("{input:?} is no whole multiple of {output:?}, so that windows differ in size");
                return Err(self.refused(reason));
            }
        }
        self.names.insert(out.id, value);
        Ok(())
    }

    fn means_of_columns(&mut self, value: String, width: usize, columns: usize) -> String {
        let shares = self.floats("shares", &[width, columns], &shares(width, columns));
        self.emit("MatMul", vec![value, shares], vec![])
    }
}

/// What each of the elements of an axis counts in the mean of each window, `[input, output]`.
fn shares(input: usize, output: usize) -> Vec<f32> {
    let mut shares = vec![0.0; input * output];
    for window in 0..output {
        let (start, end) = (window * input / output, ((window + 1) * input).div_ceil(output));
        (start..end).for_each(|element| shares[element * output + window] = 1.0 / (end - start) as f32);
    }
    shares
}

/// A matrix with as many columns, transposed.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_adaptive_pools_overlap_where_they_differ() {
        // of 5 elements 3 means: those of 0..2, 1..4 and 3..5
        let third = 1.0 / 3.0;
        let of_windows = [[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, third, third, third, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5]];
        assert_eq!(transposed(&shares(5, 3), 3), of_windows.concat());
    }
}
