//! Fake quantization: of a weight to its codes, of activations to a pair of nodes, or to arithmetic where no pair does
//! the same.

use burn::tensor::DType;
use burn_quant_graph::Length;
use burn_quant_graph::ir::{TensorId, TensorIr};
use burn_quant_numerics::{AnyGrid, BlockScale, Elements, Format, IntSpan, ScaleFormat};
use burn_quant_ops::{Call, Groups, Scales};

use super::Lowering;
use super::codes::{Codes, Division, Stored, StoredScales, codes, step, table};
use crate::model::Attribute;
use crate::{ElementType, OnnxError, Profile};

/// The tensors of a call beside what it rounds.
pub(super) struct Ranges<'a> {
    pub(super) amax: Option<&'a TensorIr>,
    global_amax: Option<&'a TensorIr>,
    bias: Option<&'a TensorIr>,
}

impl<'a> Ranges<'a> {
    pub(super) fn of(call: &Call, inputs: &'a [TensorIr]) -> Self {
        let mut rest = inputs[1..].iter();
        let statics = matches!(call.scales, Scales::TwoLevel(BlockScale::Static | BlockScale::StaticFourOverSix));
        let amax = (call.scales == Scales::Static || statics).then(|| rest.next()).flatten();
        let global_amax = matches!(call.scales, Scales::TwoLevel(_)).then(|| rest.next()).flatten();
        Self { amax, global_amax, bias: call.bias.is_some().then(|| rest.next()).flatten() }
    }

    /// Ranges that are given, or none.
    pub(super) fn of_amax(amax: Option<&'a TensorIr>) -> Self {
        Self { amax, global_amax: None, bias: None }
    }
}

/// A weight, its ranges and its bias, and how it is rounded.
pub(super) type RoundedBy = (TensorId, [Option<TensorId>; 3], Call);

impl Lowering<'_> {
    pub(super) fn fake_quant(&mut self, call: &Call, inputs: &[TensorIr], out: &TensorIr) -> Result<(), OnnxError> {
        if self.values_of_codes(&inputs[0], out)? || self.rounded_rows(call, inputs, out)? {
            return Ok(());
        }
        let ranges = Ranges::of(call, inputs);
        match self.constant_floats(inputs[0].id) {
            Some(values) => {
                let value = self.weight_value(call, &inputs[0], values, &ranges)?;
                self.finish(value, out)
            }
            None => {
                // a range for each index of the free axis is one of the data: others were calibrated for its size
                let (groups, lengths) = (&call.spec.groups, self.graph.lengths(&inputs[0]));
                for (length, count) in lengths.iter().zip(groups.counts()) {
                    if *count > 1 && !call.scales.is_dynamic() {
                        self.fixed(length, "ranges are of its indices")?;
                    }
                }
                self.activations(call, &inputs[0], &ranges, out)
            }
        }
    }

    /// The values of a tensor that is there from the beginning.
    pub(super) fn constant_floats(&self, id: TensorId) -> Option<Vec<f32>> {
        let data = self.constant(id)?.clone();
        data.convert::<f32>().try_into_vec().ok()
    }

    fn given(&self, range: Option<&TensorIr>) -> Result<Option<Vec<f32>>, OnnxError> {
        let Some(range) = range else { return Ok(None) };
        let values = self.constant_floats(range.id);
        values.map(Some).ok_or_else(|| self.refused("its range is computed from the input; calibrate it"))
    }

    /// A rounded weight as its codes, which are floats again; written once.
    pub(super) fn weight_value(
        &mut self,
        call: &Call,
        x: &TensorIr,
        values: Vec<f32>,
        ranges: &Ranges,
    ) -> Result<String, OnnxError> {
        let source = |id: TensorId| self.reshaped.get(&id).map_or(id, |(source, _)| *source);
        let of = [ranges.amax, ranges.global_amax, ranges.bias].map(|range| range.map(|range| source(range.id)));
        let key = (x.id, of, call.clone());
        if let Some((_, value)) = self.rounded.iter().find(|(written, _)| *written == key) {
            return Ok(value.clone());
        }
        let (amax, global) = (self.given(ranges.amax)?, self.given(ranges.global_amax)?);
        let bias = self.given(ranges.bias)?;
        let name = match self.origin(x.id).map(String::from) {
            Some(name) => name,
            None => self.fresh("weight"),
        };
        let centred: Vec<f32> = match (&bias, &call.bias) {
            (Some(bias), Some(groups)) => {
                values.iter().enumerate().map(|(i, value)| value - bias[groups.of_element(i)]).collect()
            }
            _ => values,
        };
        let codes = codes(&centred, amax.as_deref(), global.map_or(0.0, |global| global[0]), call);
        let groups = &call.spec.groups;
        let mut value = self.dequantized(&name, codes, call.spec.format, groups);
        if let (Some(bias), Some(groups)) = (bias, &call.bias) {
            let bias = self.of_groups(&format!("{name}.bias"), &bias, groups);
            value = self.emit("Add", vec![value, bias], vec![]);
        }
        self.rounded.push((key, value.clone()));
        Ok(value)
    }

    /// A result in f32 as a tensor of the graph.
    pub(super) fn finish(&mut self, value: String, out: &TensorIr) -> Result<(), OnnxError> {
        let value = match out.dtype {
            DType::F32 => value,
            dtype => {
                let to = self.element(dtype)?;
                self.emit("Cast", vec![value], vec![("to", Attribute::Int(to as i64))])
            }
        };
        self.names.insert(out.id, value);
        Ok(())
    }

    /// Stored codes as floats.
    pub(super) fn dequantized(&mut self, name: &str, codes: Codes, format: Format, groups: &Groups) -> String {
        let Codes { stored, mut bytes, scales } = codes;
        let (mut element, division) = (stored.element(), Division::of(groups));
        let mut zero = 0;
        let of_products = matches!(division, Division::Tensor | Division::Axis(_));
        let without_signs = self.profile == Profile::OnnxRuntime && !self.signed_weights;
        if element == ElementType::Int8 && of_products && without_signs {
            // the same values in unsigned codes: where a processor has no VNNI, ONNX Runtime adds pairs of products of
            // unsigned activations and signed weights in 16 bits, which overflow; those of unsigned codes are exact
            (element, zero) = (ElementType::Uint8, 128);
            bytes.iter_mut().for_each(|code| *code ^= 128);
        }
        let stored_name = self.stored_as(name.to_string(), element, groups.shape(), bytes);
        let numbers = matches!(stored, Stored::Number(_)) && division != Division::Other;
        let dims: Vec<usize> = match division {
            Division::Tensor => vec![],
            Division::Axis(axis) => vec![groups.counts()[axis]],
            Division::Blocks { .. } | Division::Other => groups.counts().to_vec(),
        };
        let scale_name = format!("{name}.scale");
        let scales = match scales {
            StoredScales::F32(scales) => {
                let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                self.stored_as(scale_name, ElementType::Float, &dims, bytes)
            }
            StoredScales::E8M0(codes) => {
                let scales = self.stored_as(scale_name, ElementType::Float8E8M0, &dims, codes);
                match numbers {
                    true => scales,
                    false => self.emit("Cast", vec![scales], vec![("to", Attribute::Int(1))]),
                }
            }
            StoredScales::E4M3(codes, of_tensor) => {
                let codes = self.stored_as(scale_name, ElementType::Float8E4M3FN, &dims, codes);
                let bytes = of_tensor.to_le_bytes().to_vec();
                let of_tensor = self.stored_as(format!("{name}.scale_of_scales"), ElementType::Float, &[], bytes);
                self.emit("DequantizeLinear", vec![codes, of_tensor], vec![])
            }
        };
        if numbers {
            let mut inputs = vec![stored_name, scales];
            if let ElementType::Int8 | ElementType::Uint8 = element {
                // ONNX Runtime looks for integer products only where zero points are written
                let zeros = vec![zero; dims.iter().product()];
                inputs.push(self.stored_as(format!("{name}.zero_point"), element, &dims, zeros));
            }
            let mut attributes = match division {
                Division::Axis(axis) => vec![("axis", Attribute::Int(axis as i64))],
                Division::Blocks { axis, size } => {
                    vec![("axis", Attribute::Int(axis as i64)), ("block_size", Attribute::Int(size as i64))]
                }
                Division::Tensor | Division::Other => vec![],
            };
            if self.model.opset >= 24 {
                attributes.push(("output_dtype", Attribute::Int(1)));
            }
            return self.emit("DequantizeLinear", inputs, attributes);
        }
        let points = match stored {
            Stored::Number(_) => self.emit("Cast", vec![stored_name], vec![("to", Attribute::Int(1))]),
            Stored::Place(_) => {
                let table = table(format);
                let table = self.floats("table", &[table.len()], &table);
                let to = ElementType::Int32 as i64;
                let places = self.emit("Cast", vec![stored_name], vec![("to", Attribute::Int(to))]);
                self.emit("Gather", vec![table, places], vec![])
            }
        };
        let scales = self.spread(scales, groups, division);
        self.emit("Mul", vec![points, scales], vec![])
    }

    /// Scales of groups as a factor of all elements: those of blocks are repeated.
    fn spread(&mut self, mut scales: String, groups: &Groups, division: Division) -> String {
        if let Division::Axis(_) = division {
            let shape: Vec<i64> = groups.counts().iter().map(|count| *count as i64).collect();
            let shape = self.integers("shape", &shape);
            scales = self.emit("Reshape", vec![scales, shape], vec![]);
        }
        for (axis, (count, len)) in groups.counts().iter().zip(groups.shape()).enumerate() {
            if *count > 1 && count != len {
                let blocks: Vec<i64> = (0..*len).map(|i| (i / groups.size(axis)) as i64).collect();
                let blocks = self.integers("blocks", &blocks);
                scales = self.emit("Gather", vec![scales, blocks], vec![("axis", Attribute::Int(axis as i64))]);
            }
        }
        scales
    }

    /// Numbers of groups, as a tensor that meets all elements.
    fn of_groups(&mut self, name: &str, values: &[f32], groups: &Groups) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored = self.stored_as(name.into(), ElementType::Float, groups.counts(), bytes);
        self.spread(stored, groups, Division::Other)
    }

    fn activations(&mut self, call: &Call, x: &TensorIr, ranges: &Ranges, out: &TensorIr) -> Result<(), OnnxError> {
        let value = self.rounded_activations(call, x, ranges)?;
        self.finish(value, out)
    }

    /// Rounded activations, in f32.
    pub(super) fn rounded_activations(
        &mut self,
        call: &Call,
        x: &TensorIr,
        ranges: &Ranges,
    ) -> Result<String, OnnxError> {
        let (amax, lengths) = (self.given(ranges.amax)?, self.graph.lengths(x));
        let mut value = self.value(x)?;
        if x.dtype != DType::F32 {
            value = self.emit("Cast", vec![value], vec![("to", Attribute::Int(1))]);
        }
        let bias = match (self.given(ranges.bias)?, &call.bias) {
            (Some(bias), Some(groups)) => Some(self.of_groups("bias", &bias, groups)),
            _ => None,
        };
        if let Some(bias) = &bias {
            value = self.emit("Sub", vec![value, bias.clone()], vec![]);
        }
        value = match (amax, call.scales) {
            (Some(amax), Scales::Static)
                if Division::of(&call.spec.groups) == Division::Tensor && !self.loses_a_rectifier(call, &value) =>
            {
                self.pair(call.spec.format, amax[0], value)?
            }
            (amax, Scales::Static | Scales::Dynamic) => self.rounded(call, amax, value, &lengths)?,
            (None, Scales::PowersOfTwo) => self.rounded(call, None, value, &lengths)?,
            (None, Scales::TwoLevel(BlockScale::Dynamic)) => {
                let global = self.given(ranges.global_amax)?.expect("two-level scales stand under a range");
                self.two_levels(call, global[0], value, &lengths)?
            }
            _ => return Err(self.refused("activations in static blocks have no form here; make them dynamic")),
        };
        if let Some(bias) = bias {
            value = self.emit("Add", vec![value, bias], vec![]);
        }
        Ok(value)
    }

    /// Whether ONNX Runtime would drop a rectifier before a pair: 1.32 takes the zero point of FP8 for its lowest code,
    /// as it is that of unsigned integers, and the rectifier for done by it.
    fn loses_a_rectifier(&self, call: &Call, x: &str) -> bool {
        let floats = !matches!(call.spec.format, Format::Int(_));
        let producer = |name: &str| self.model.nodes.iter().rev().find(|node| node.outputs[0] == name);
        let mut node = producer(x).filter(|_| floats && self.profile == Profile::OnnxRuntime);
        while let Some(found) = node {
            match found.operator {
                "Relu" | "Clip" => return true,
                // pairs are moved before these, and where there are no kernels for f16, casts are dropped
                "Cast" | "MaxPool" | "Reshape" | "Transpose" | "Slice" | "Expand" => node = producer(&found.inputs[0]),
                _ => return false,
            }
        }
        false
    }

    /// The step and the zero point of INT8 in unsigned codes, and whether the grid lacks the lowest of them.
    pub(super) fn int8(&mut self, format: Format, amax: f32) -> (String, String, bool) {
        let grid = AnyGrid::new(format, ScaleFormat::F32, 0.0);
        let scale = self.floats("scale", &[], &[step(Elements::of(format), grid, amax)]);
        let zero = self.initializer("zero_point", ElementType::Uint8, &[], vec![128]);
        let narrow = matches!(format, Format::Int(int) if int.span() == IntSpan::Narrow);
        (scale, zero, narrow)
    }

    /// QuantizeLinear and DequantizeLinear, for one range.
    fn pair(&mut self, format: Format, amax: f32, x: String) -> Result<String, OnnxError> {
        let element = match Stored::of(format) {
            Stored::Number(element) if !matches!(element, ElementType::Float4E2M1) => element,
            _ => return Err(self.refused(format!("ONNX has no {format} activations; make weights of it"))),
        };
        let grid = AnyGrid::new(format, ScaleFormat::F32, 0.0);
        let scale = step(Elements::of(format), grid, amax);
        // what the type holds beyond the grid
        let narrow = match format {
            Format::Int(int) => int.span() == IntSpan::Narrow || !matches!(int.bits(), 4 | 8 | 16),
            _ => false,
        };
        let mut x = x;
        if let (Format::Int(int), true) = (format, narrow) {
            let [lo, hi] = [int.grid().lo(), int.grid().hi()].map(|code| code as f32 * scale);
            let [lo, hi] = [self.floats("lowest", &[], &[lo]), self.floats("highest", &[], &[hi])];
            x = self.emit("Clip", vec![x, lo, hi], vec![]);
        }
        let scale = self.floats("scale", &[], &[scale]);
        let (element, zero) = match (element, self.profile) {
            // the same values in unsigned codes: ONNX Runtime moves pairs over reshapes, and loses signs there
            (ElementType::Int8, Profile::OnnxRuntime) => (ElementType::Uint8, vec![128]),
            (ElementType::Int16 | ElementType::Uint16, _) => (element, vec![0; 2]),
            _ => (element, vec![0]),
        };
        let zero = self.initializer("zero_point", element, &[], zero);
        let codes = self.emit("QuantizeLinear", vec![x, scale.clone(), zero.clone()], vec![]);
        Ok(self.emit("DequantizeLinear", vec![codes, scale, zero], vec![]))
    }

    /// Arithmetic: `round(x / scale) · scale`, clipped, with given ranges or those of the data.
    fn rounded(
        &mut self,
        call: &Call,
        amax: Option<Vec<f32>>,
        x: String,
        lengths: &[Length],
    ) -> Result<String, OnnxError> {
        let (groups, format) = (&call.spec.groups, call.spec.format);
        let (x, groups, shape) = self.in_blocks(x, groups, lengths)?;
        let grid = AnyGrid::new(format, call.scales.format(), 0.0);
        let elements = Elements::of(format);
        let scale = match amax {
            Some(amax) => {
                let steps: Vec<f32> = amax.iter().map(|amax| step(elements, grid, *amax)).collect();
                self.of_groups("scale", &steps, &groups)
            }
            None => {
                let range = self.range_of(x.clone(), &groups);
                let max = self.floats("max", &[], &[grid.elements().max_of_format()]);
                let scale = self.emit("Div", vec![range, max], vec![]);
                match call.scales {
                    Scales::PowersOfTwo => self.power_of_two(scale),
                    _ => self.or_one(scale),
                }
            }
        };
        let symmetric = call.scales.format() != ScaleFormat::F32;
        let units = self.emit("Div", vec![x, scale.clone()], vec![]);
        let points = self.points(format, symmetric, units)?;
        let y = self.emit("Mul", vec![points, scale], vec![]);
        self.out_of_blocks(y, shape, lengths)
    }

    /// Blocks with scales in E4M3 under the range of the tensor.
    fn two_levels(
        &mut self,
        call: &Call,
        global_amax: f32,
        x: String,
        lengths: &[Length],
    ) -> Result<String, OnnxError> {
        let format = call.spec.format;
        let AnyGrid::TwoLevel(grid) = AnyGrid::new(format, call.scales.format(), global_amax) else {
            unreachable!("two-level scales have a grid of two levels")
        };
        let (x, groups, shape) = self.in_blocks(x, &call.spec.groups, lengths)?;
        let range = self.range_of(x.clone(), &groups);
        let unit = grid.tensor_scale();
        let unit_of_range = self.floats("max", &[], &[unit * format.max()]);
        let units = self.emit("Div", vec![range, unit_of_range], vec![]);
        let most = self.floats("most", &[], &[448.0]);
        let units = self.emit("Min", vec![units, most], vec![]);
        let e4m3 = ElementType::Float8E4M3FN as i64;
        let codes = self.emit("Cast", vec![units], vec![("to", Attribute::Int(e4m3))]);
        let units = self.emit("Cast", vec![codes], vec![("to", Attribute::Int(1))]);
        let unit = self.floats("unit", &[], &[unit]);
        let scale = self.emit("Mul", vec![units, unit], vec![]);
        let least = self.floats("least", &[], &[grid.least_scale().max(f32::MIN_POSITIVE)]);
        let small = self.emit("Less", vec![scale.clone(), least], vec![]);
        let one = self.floats("one", &[], &[1.0]);
        let scale = self.emit("Where", vec![small, one, scale], vec![]);
        let units = self.emit("Div", vec![x, scale.clone()], vec![]);
        let points = self.points(format, true, units)?;
        let y = self.emit("Mul", vec![points, scale], vec![]);
        self.out_of_blocks(y, shape, lengths)
    }

    /// The nearest points of a format.
    fn points(&mut self, format: Format, symmetric: bool, units: String) -> Result<String, OnnxError> {
        let (lo, hi) = match Elements::of(format) {
            Elements::Int(grid) => {
                let grid = if symmetric { grid.symmetric() } else { grid };
                (grid.lo() as f32, grid.hi() as f32)
            }
            _ => (-format.max(), format.max()),
        };
        let [lo, hi] = [self.floats("lowest", &[], &[lo]), self.floats("highest", &[], &[hi])];
        match (format, Stored::of(format)) {
            (Format::Int(_), _) => {
                let rounded = self.emit("Round", vec![units], vec![]);
                Ok(self.emit("Clip", vec![rounded, lo, hi], vec![]))
            }
            (_, Stored::Number(element)) => {
                let clipped = self.emit("Clip", vec![units, lo, hi], vec![]);
                let codes = self.emit("Cast", vec![clipped], vec![("to", Attribute::Int(element as i64))]);
                Ok(self.emit("Cast", vec![codes], vec![("to", Attribute::Int(1))]))
            }
            (_, Stored::Place(_)) => self.small_floats(format, units, lo, hi),
        }
    }

    /// Floats of 6 and of 4 bits that ONNX does not have. Above their smallest normal number they are those of FP8 with
    /// as many bits of mantissa; below it their steps are even.
    fn small_floats(&mut self, format: Format, units: String, lo: String, hi: String) -> Result<String, OnnxError> {
        let Some(minifloat) = format.minifloat() else {
            return Err(self.refused(format!("ONNX has no {format} activations; make weights of it")));
        };
        let like = if minifloat.mantissa_bits() == 2 { ElementType::Float8E5M2 } else { ElementType::Float8E4M3FN };
        let clipped = self.emit("Clip", vec![units, lo, hi], vec![]);
        let codes = self.emit("Cast", vec![clipped.clone()], vec![("to", Attribute::Int(like as i64))]);
        let normal = self.emit("Cast", vec![codes], vec![("to", Attribute::Int(1))]);
        let step = minifloat.min_normal() / (1u32 << minifloat.mantissa_bits()) as f32;
        let step = self.floats("step", &[], &[step]);
        let steps = self.emit("Div", vec![clipped.clone(), step.clone()], vec![]);
        let steps = self.emit("Round", vec![steps], vec![]);
        let subnormal = self.emit("Mul", vec![steps, step], vec![]);
        let magnitude = self.emit("Abs", vec![clipped], vec![]);
        let least = self.floats("min_normal", &[], &[minifloat.min_normal()]);
        let below = self.emit("Less", vec![magnitude, least], vec![]);
        Ok(self.emit("Where", vec![below, subnormal, normal], vec![]))
    }

    /// The largest magnitude of each group, with an axis for each of the tensor's.
    fn range_of(&mut self, x: String, groups: &Groups) -> String {
        let whole = (0..groups.shape().len()).filter(|axis| groups.counts()[*axis] == 1);
        let axes: Vec<i64> = whole.map(|axis| axis as i64).collect();
        let magnitude = self.emit("Abs", vec![x], vec![]);
        let axes = self.integers("axes", &axes);
        self.emit("ReduceMax", vec![magnitude, axes], vec![("keepdims", Attribute::Int(1))])
    }

    /// One in the place of a scale of zero.
    fn or_one(&mut self, scale: String) -> String {
        let [zero, one] = [self.floats("zero", &[], &[0.0]), self.floats("one", &[], &[1.0])];
        let none = self.emit("Equal", vec![scale.clone(), zero], vec![]);
        self.emit("Where", vec![none, one, scale], vec![])
    }

    /// The next power of two, by way of E8M0.
    fn power_of_two(&mut self, scale: String) -> String {
        let scale = self.or_one(scale);
        let to = ElementType::Float8E8M0 as i64;
        let attributes = vec![("to", Attribute::Int(to)), ("round_mode", Attribute::Text("up"))];
        let codes = self.emit("Cast", vec![scale], attributes);
        self.emit("Cast", vec![codes], vec![("to", Attribute::Int(1))])
    }

    /// Blocks of an axis as an axis of their own, and the shape before; other groups as they are.
    fn in_blocks(
        &mut self,
        x: String,
        groups: &Groups,
        lengths: &[Length],
    ) -> Result<(String, Groups, Option<Split>), OnnxError> {
        use burn_quant_ops::AxisGroups::{Each, Whole};
        let (shape, counts) = (groups.shape(), groups.counts());
        let divided: Vec<usize> =
            (0..shape.len()).filter(|axis| counts[*axis] > 1 && counts[*axis] != shape[*axis]).collect();
        match divided[..] {
            [] => Ok((x, groups.clone(), None)),
            [axis] => {
                let (len, size) = (shape[axis], groups.size(axis));
                let missing = counts[axis] * size - len;
                let x = match missing {
                    0 => x,
                    // zeros, which change no range
                    _ => {
                        let mut pads = vec![0; 2 * shape.len()];
                        pads[shape.len() + axis] = missing as i64;
                        let pads = self.integers("pads", &pads);
                        self.emit("Pad", vec![x, pads], vec![])
                    }
                };
                let mut split = shape.to_vec();
                split.splice(axis..=axis, [counts[axis], size]);
                let mut axes: Vec<_> =
                    counts.iter().zip(shape).map(|(count, _)| if *count == 1 { Whole } else { Each }).collect();
                axes.splice(axis..=axis, [Each, Whole]);
                self.fixed(&lengths[axis], "blocks are of it")?;
                let mut in_blocks = lengths.to_vec();
                in_blocks.splice(axis..=axis, [counts[axis], size].map(Length::Fixed));
                let dims = self.target(lengths, &in_blocks)?;
                let x = self.emit("Reshape", vec![x, dims], vec![]);
                Ok((x, Groups::new(&split, &axes), Some(Split { lengths: in_blocks, axis, len, missing })))
            }
            _ => Err(self.refused(format!("blocks of {counts:?} do not divide activations of {shape:?}"))),
        }
    }

    fn out_of_blocks(&mut self, y: String, split: Option<Split>, lengths: &[Length]) -> Result<String, OnnxError> {
        let Some(Split { lengths: in_blocks, axis, len, missing }) = split else { return Ok(y) };
        let mut filled_up = lengths.to_vec();
        filled_up[axis] = Length::Fixed(len + missing);
        let target = self.target(&in_blocks, &filled_up)?;
        let y = self.emit("Reshape", vec![y, target], vec![]);
        if missing == 0 {
            return Ok(y);
        }
        let mut inputs = vec![y];
        for (what, value) in [("starts", 0), ("ends", len), ("axes", axis)] {
            inputs.push(self.integers(what, &[value as i64]));
        }
        Ok(self.emit("Slice", inputs, vec![]))
    }
}

/// A tensor, an axis of which was divided into blocks, the last filled up.
struct Split {
    lengths: Vec<Length>,
    axis: usize,
    /// How long the axis was.
    len: usize,
    missing: usize,
}

/// The number that the range of a format is divided by.
trait MaxOfFormat {
    fn max_of_format(self) -> f32;
}

impl MaxOfFormat for Elements {
    fn max_of_format(self) -> f32 {
        burn_quant_numerics::Grid::max(self)
    }
}
