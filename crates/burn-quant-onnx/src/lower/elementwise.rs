//! Operations of elements, one by one: those of floats, of integers and of booleans, and activations.

use std::f64::consts::{FRAC_PI_2, PI};

use burn::tensor::DType;
use burn_quant_graph::ir::{
    ActivationOperationIr, BinaryOpIr, BoolOperationIr, CrossOpIr, FloatOperationIr, IntOperationIr, ScalarIr,
    ScalarOpIr, TensorIr,
};

use super::Lowering;
use crate::model::Attribute;
use crate::{ElementType, OnnxError};

impl Lowering<'_> {
    pub(super) fn float(&mut self, op: &FloatOperationIr) -> Result<(), OnnxError> {
        use FloatOperationIr as Op;
        match op {
            Op::Matmul(op) if self.recorded_attention(op)? => Ok(()),
            Op::Matmul(op) => {
                let rhs = self.as_matrix(&op.rhs);
                self.plain(&op.out, "MatMul", &[&op.lhs, &rhs])
            }
            Op::Exp(op) => self.plain(&op.out, "Exp", &[&op.input]),
            Op::Log(op) => self.plain(&op.out, "Log", &[&op.input]),
            Op::Erf(op) => self.plain(&op.out, "Erf", &[&op.input]),
            Op::Sqrt(op) => self.plain(&op.out, "Sqrt", &[&op.input]),
            Op::Sin(op) => self.plain(&op.out, "Sin", &[&op.input]),
            Op::Cos(op) => self.plain(&op.out, "Cos", &[&op.input]),
            Op::Tan(op) => self.plain(&op.out, "Tan", &[&op.input]),
            Op::Sinh(op) => self.plain(&op.out, "Sinh", &[&op.input]),
            Op::Cosh(op) => self.plain(&op.out, "Cosh", &[&op.input]),
            Op::Tanh(op) => self.plain(&op.out, "Tanh", &[&op.input]),
            Op::ArcCos(op) => self.plain(&op.out, "Acos", &[&op.input]),
            Op::ArcCosh(op) => self.plain(&op.out, "Acosh", &[&op.input]),
            Op::ArcSin(op) => self.plain(&op.out, "Asin", &[&op.input]),
            Op::ArcSinh(op) => self.plain(&op.out, "Asinh", &[&op.input]),
            Op::ArcTan(op) => self.plain(&op.out, "Atan", &[&op.input]),
            Op::ArcTanh(op) => self.plain(&op.out, "Atanh", &[&op.input]),
            Op::Round(op) => self.plain(&op.out, "Round", &[&op.input]),
            Op::Floor(op) => self.plain(&op.out, "Floor", &[&op.input]),
            Op::Ceil(op) => self.plain(&op.out, "Ceil", &[&op.input]),
            Op::Trunc(op) => self.truncated(&op.input, &op.out),
            Op::Cross(op) => self.cross(op),
            Op::GridSample2d(op) => self.grid_sample(op),
            Op::Recip(op) => self.plain(&op.out, "Reciprocal", &[&op.input]),
            Op::IsNan(op) => self.plain(&op.out, "IsNaN", &[&op.input]),
            Op::IsInf(op) => self.plain(&op.out, "IsInf", &[&op.input]),
            Op::Powf(op) => self.plain(&op.out, "Pow", &[&op.lhs, &op.rhs]),
            Op::PowfScalar(op) => self.with_scalar(&op.out, "Pow", &op.lhs, op.rhs),
            Op::IntoInt(op) => self.cast(&op.input, &op.out),
            Op::Log1p(op) => {
                let (input, one) = (self.value(&op.input)?, self.scalar(ScalarIr::Int(1), op.input.dtype)?);
                let sum = self.emit("Add", vec![input, one], vec![]);
                self.emit_as(&op.out, "Log", vec![sum], vec![]);
                Ok(())
            }
            Op::Random(_) => Err(self.refused("a file computes the same each time; draw numbers before")),
            Op::Hypot(op) => self.hypotenuse(op),
            Op::ArcTan2(op) => self.angle(op),
            Op::Quantize(_) | Op::Dequantize(_) => Err(self.refused("compute it before, or without it")),
        }
    }

    pub(super) fn int(&mut self, op: &IntOperationIr) -> Result<(), OnnxError> {
        use IntOperationIr as Op;
        match op {
            Op::IntoFloat(op) => self.cast(&op.input, &op.out),
            Op::Matmul(op) => self.plain(&op.out, "MatMul", &[&op.lhs, &op.rhs]),
            Op::BitwiseAnd(op) => self.plain(&op.out, "BitwiseAnd", &[&op.lhs, &op.rhs]),
            Op::BitwiseAndScalar(op) => self.with_scalar(&op.out, "BitwiseAnd", &op.lhs, op.rhs),
            Op::BitwiseOr(op) => self.plain(&op.out, "BitwiseOr", &[&op.lhs, &op.rhs]),
            Op::BitwiseOrScalar(op) => self.with_scalar(&op.out, "BitwiseOr", &op.lhs, op.rhs),
            Op::BitwiseXor(op) => self.plain(&op.out, "BitwiseXor", &[&op.lhs, &op.rhs]),
            Op::BitwiseXorScalar(op) => self.with_scalar(&op.out, "BitwiseXor", &op.lhs, op.rhs),
            Op::BitwiseNot(op) => self.plain(&op.out, "BitwiseNot", &[&op.input]),
            Op::BitwiseLeftShiftScalar(op) => self.shifted(op, "LEFT"),
            Op::BitwiseRightShiftScalar(op) => self.shifted(op, "RIGHT"),
            Op::BitwiseLeftShift(op) => self.shifted_by(op, "LEFT"),
            Op::BitwiseRightShift(op) => self.shifted_by(op, "RIGHT"),
        }
    }

    /// Bits moved by a number of places: ONNX shifts unsigned integers; of others products and quotients are taken, the
    /// latter rounded down as a shift rounds.
    fn shifted(&mut self, op: &ScalarOpIr, direction: &'static str) -> Result<(), OnnxError> {
        let (dtype, places) = (op.lhs.dtype, op.rhs.elem::<i64>());
        // a power of two that a signed integer has
        if !(0..dtype.size() as i64 * 8 - 1).contains(&places) {
            return Err(self.refused(format!("a shift by {places}; shift {dtype:?} by less than their bits")));
        }
        if let DType::U8 | DType::U32 | DType::U64 = dtype {
            let inputs = vec![self.value(&op.lhs)?, self.scalar(ScalarIr::Int(places), dtype)?];
            self.emit_as(&op.out, "BitShift", inputs, vec![("direction", Attribute::Text(direction))]);
            return Ok(());
        }
        let (value, power) = (self.value(&op.lhs)?, self.scalar(ScalarIr::Int(1 << places), dtype)?);
        self.times_power(value, power, direction, &op.out);
        Ok(())
    }

    /// The same by a tensor of places, each less than the bits that a number has.
    fn shifted_by(&mut self, op: &BinaryOpIr, direction: &'static str) -> Result<(), OnnxError> {
        let (value, places) = (self.value(&op.lhs)?, self.value(&op.rhs)?);
        let dtype = op.lhs.dtype;
        if let DType::U8 | DType::U32 | DType::U64 = dtype {
            self.emit_as(&op.out, "BitShift", vec![value, places], vec![("direction", Attribute::Text(direction))]);
            return Ok(());
        }
        let two = self.scalar(ScalarIr::Int(2), dtype)?;
        let power = self.emit("Pow", vec![two, places], vec![]);
        self.times_power(value, power, direction, &op.out);
        Ok(())
    }

    /// A signed integer times a power of two, or divided by it and rounded down.
    fn times_power(&mut self, value: String, power: String, direction: &str, out: &TensorIr) {
        if direction == "LEFT" {
            return self.emit_as(out, "Mul", vec![value, power], vec![]);
        }
        let rest = self.emit("Mod", vec![value.clone(), power.clone()], vec![]);
        let value = self.emit("Sub", vec![value, rest], vec![]);
        self.emit_as(out, "Div", vec![value, power], vec![]);
    }

    /// The angle of `(x, y)`: that of the quotient, turned by half a circle to the left of zero.
    fn angle(&mut self, op: &BinaryOpIr) -> Result<(), OnnxError> {
        let (y, x, dtype) = (self.value(&op.lhs)?, self.value(&op.rhs)?, op.out.dtype);
        let number = |lowering: &mut Self, value: f64| lowering.scalar(ScalarIr::Float(value), dtype);
        let (zero, half, quarter) = (number(self, 0.0)?, number(self, PI)?, number(self, FRAC_PI_2)?);
        let [is_left, is_below] = [&x, &y].map(|value| self.emit("Less", vec![value.clone(), zero.clone()], vec![]));
        let sign = self.emit("Sign", vec![y.clone()], vec![]);
        let quotient = self.emit("Div", vec![y, x.clone()], vec![]);
        let angle = self.emit("Atan", vec![quotient], vec![]);
        let opposite = self.emit("Neg", vec![half.clone()], vec![]);
        let turn = self.emit("Where", vec![is_below, opposite, half], vec![]);
        let turned = self.emit("Add", vec![angle.clone(), turn], vec![]);
        let angle = self.emit("Where", vec![is_left, turned, angle], vec![]);
        // straight up, straight down, and nowhere
        let is_upright = self.emit("Equal", vec![x, zero], vec![]);
        let upright = self.emit("Mul", vec![sign, quarter], vec![]);
        self.emit_as(&op.out, "Where", vec![is_upright, upright, angle], vec![]);
        Ok(())
    }

    /// `√(x² + y²)`, in doubles, whose squares of floats are exact.
    fn hypotenuse(&mut self, op: &BinaryOpIr) -> Result<(), OnnxError> {
        if op.out.dtype != DType::F32 {
            return Err(self.refused(format!("it is of {:?}; cast to f32 before", op.out.dtype)));
        }
        let to = |element: ElementType| vec![("to", Attribute::Int(element as i64))];
        let mut squares = Vec::new();
        for side in [&op.lhs, &op.rhs] {
            let value = self.value(side)?;
            let value = self.emit("Cast", vec![value], to(ElementType::Double));
            squares.push(self.emit("Mul", vec![value.clone(), value], vec![]));
        }
        let sum = self.emit("Add", squares, vec![]);
        let root = self.emit("Sqrt", vec![sum], vec![]);
        self.emit_as(&op.out, "Cast", vec![root], to(ElementType::Float));
        Ok(())
    }

    pub(super) fn bool(&mut self, op: &BoolOperationIr) -> Result<(), OnnxError> {
        use BoolOperationIr as Op;
        match op {
            Op::IntoFloat(op) | Op::IntoInt(op) => self.cast(&op.input, &op.out),
            Op::Not(op) => self.plain(&op.out, "Not", &[&op.input]),
            Op::And(op) => self.plain(&op.out, "And", &[&op.lhs, &op.rhs]),
            Op::Or(op) => self.plain(&op.out, "Or", &[&op.lhs, &op.rhs]),
            Op::Xor(op) => self.plain(&op.out, "Xor", &[&op.lhs, &op.rhs]),
        }
    }

    pub(super) fn activation(&mut self, op: &ActivationOperationIr) -> Result<(), OnnxError> {
        use ActivationOperationIr as Op;
        let along = |axis: usize| vec![("axis", Attribute::Int(axis as i64))];
        match op {
            Op::Relu(op) if self.rectified_codes(&op.input, &op.out) => Ok(()),
            Op::Relu(op) => self.plain(&op.out, "Relu", &[&op.input]),
            Op::Gelu(op) => self.plain(&op.out, "Gelu", &[&op.input]),
            Op::Sigmoid(op) => self.plain(&op.out, "Sigmoid", &[&op.input]),
            Op::PRelu(op) => {
                // one slope for each channel, the second axis
                let channels = op.rhs.shape.num_elements();
                let shape: Vec<i64> =
                    [channels as i64].into_iter().chain(vec![1; op.lhs.shape.len().saturating_sub(2)]).collect();
                let (x, slopes, shape) = (self.value(&op.lhs)?, self.value(&op.rhs)?, self.integers("shape", &shape));
                let slopes = self.emit("Reshape", vec![slopes, shape], vec![]);
                self.emit_as(&op.out, "PRelu", vec![x, slopes], vec![]);
                Ok(())
            }
            Op::LeakyRelu(op) => {
                let x = self.value(&op.lhs)?;
                self.emit_as(&op.out, "LeakyRelu", vec![x], vec![("alpha", Attribute::Float(op.rhs.elem()))]);
                Ok(())
            }
            Op::HardSigmoid(op) => {
                let x = self.value(&op.tensor)?;
                let slope = ("alpha", Attribute::Float(op.alpha.elem()));
                self.emit_as(&op.out, "HardSigmoid", vec![x], vec![slope, ("beta", Attribute::Float(op.beta.elem()))]);
                Ok(())
            }
            Op::LogSigmoid(op) => {
                let x = self.value(&op.input)?;
                let negative = self.emit("Neg", vec![x], vec![]);
                let softplus = self.emit("Softplus", vec![negative], vec![]);
                self.emit_as(&op.out, "Neg", vec![softplus], vec![]);
                Ok(())
            }
            Op::Softmax(op) => {
                let x = self.value(&op.input)?;
                self.emit_as(&op.out, "Softmax", vec![x], along(op.axis));
                Ok(())
            }
            Op::LogSoftmax(op) => {
                let x = self.value(&op.input)?;
                self.emit_as(&op.out, "LogSoftmax", vec![x], along(op.axis));
                Ok(())
            }
            Op::Softmin(op) => {
                let x = self.value(&op.input)?;
                let negative = self.emit("Neg", vec![x], vec![]);
                self.emit_as(&op.out, "Softmax", vec![negative], along(op.axis));
                Ok(())
            }
            Op::ReluBackward(_) | Op::GeluBackward(_) | Op::SigmoidBackward(_) | Op::LogSigmoidBackward(_) => {
                Err(self.refused("gradients are not exported"))
            }
        }
    }

    /// `x - y·floor(x / y)`, which has the sign of `y`; `Mod` has it for integers alone, and that of `x` for floats.
    pub(super) fn remainder(&mut self, x: String, y: String, out: &TensorIr) -> Result<(), OnnxError> {
        if !out.dtype.is_float() {
            self.emit_as(out, "Mod", vec![x, y], vec![]);
            return Ok(());
        }
        let rest = self.emit("Mod", vec![x, y.clone()], vec![("fmod", Attribute::Int(1))]);
        let zero = self.scalar(ScalarIr::Int(0), out.dtype)?;
        let none = self.emit("Equal", vec![rest.clone(), zero.clone()], vec![]);
        let [below, divisor_below] =
            [&rest, &y].map(|value| self.emit("Less", vec![value.clone(), zero.clone()], vec![]));
        let differ = self.emit("Xor", vec![below, divisor_below], vec![]);
        let some = self.emit("Not", vec![none], vec![]);
        let moves = self.emit("And", vec![some, differ], vec![]);
        let moved = self.emit("Add", vec![rest.clone(), y], vec![]);
        self.emit_as(out, "Where", vec![moves, moved, rest], vec![]);
        Ok(())
    }

    /// Towards zero: the sign times the floor of the magnitude.
    fn truncated(&mut self, input: &TensorIr, out: &TensorIr) -> Result<(), OnnxError> {
        let x = self.value(input)?;
        let sign = self.emit("Sign", vec![x.clone()], vec![]);
        let magnitude = self.emit("Abs", vec![x], vec![]);
        let whole = self.emit("Floor", vec![magnitude], vec![]);
        self.emit_as(out, "Mul", vec![sign, whole], vec![]);
        Ok(())
    }

    /// `x₁y₂ - x₂y₁` and so on, along an axis of three.
    fn cross(&mut self, op: &CrossOpIr) -> Result<(), OnnxError> {
        let (x, y) = (self.value(&op.lhs)?, self.value(&op.rhs)?);
        let mut turned = |value: &String, places: [i64; 3]| {
            let places = self.integers("places", &places);
            self.emit("Gather", vec![value.clone(), places], vec![("axis", Attribute::Int(op.dim as i64))])
        };
        let factors = [(turned(&x, [1, 2, 0]), turned(&y, [2, 0, 1])), (turned(&x, [2, 0, 1]), turned(&y, [1, 2, 0]))];
        let [plus, minus] = factors.map(|(x, y)| self.emit("Mul", vec![x, y], vec![]));
        self.emit_as(&op.out, "Sub", vec![plus, minus], vec![]);
        Ok(())
    }
}
