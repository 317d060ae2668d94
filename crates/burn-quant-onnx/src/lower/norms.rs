//! Norms that burn records as arithmetic, and that ONNX has as one operation.
//!
//! ```text
//! x / √(mean(x², last axis) + ε) · γ   ─►   RMSNormalization(x, γ)
//! ```
//!
//! From opset 23 on, and where nothing else reads what is computed on the way.

use burn::tensor::DType;
use burn_quant_graph::ir::{
    BaseOperationIr, BinaryOpIr, FloatOperationIr, NumericOperationIr, OperationIr, TensorId, TensorIr,
};

use super::Lowering;
use crate::OnnxError;
use crate::model::Attribute;

/// The opset that has it.
const RMS: i64 = 23;

impl Lowering<'_> {
    /// Writes a product that is the last step of such a norm as the norm; what comes before is left out, as nothing
    /// reads it then.
    pub(super) fn rms_norm(&mut self, product: &BinaryOpIr) -> Result<bool, OnnxError> {
        if self.model.opset < RMS {
            return Ok(false);
        }
        let [lhs, rhs] = [&product.lhs, &product.rhs];
        let found = self.rms_normalized(lhs).map(|norm| (norm, rhs)).or_else(|| Some((self.rms_normalized(rhs)?, lhs)));
        let Some(((x, epsilon), gamma)) = found else { return Ok(false) };
        let Some(gamma) = self.of_last_axis(gamma, &x) else { return Ok(false) };
        let inputs = vec![self.value(&x)?, self.value(&gamma)?];
        let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        if let Some((layer, _)) = self.origin(gamma.id).and_then(|name| name.rsplit_once('.')) {
            self.layer = layer.into();
        }
        self.emit_as(&product.out, "RMSNormalization", inputs, attributes);
        Ok(true)
    }

    /// What is divided by its root mean square, and the number that is added to the mean.
    fn rms_normalized(&self, tensor: &TensorIr) -> Option<(TensorIr, f32)> {
        use NumericOperationIr as Numeric;
        let numeric = |tensor: &TensorIr| match self.read_once(tensor.id)? {
            OperationIr::NumericFloat(DType::F32, op) => Some(op),
            _ => None,
        };
        let Numeric::Div(quotient) = numeric(tensor)? else { return None };
        let OperationIr::Float(DType::F32, FloatOperationIr::Sqrt(root)) = self.read_once(quotient.rhs.id)? else {
            return None;
        };
        let Numeric::AddScalar(sum) = numeric(&root.input)? else { return None };
        let Numeric::MeanDim(mean) = numeric(&sum.lhs)? else { return None };
        let x = &quotient.lhs;
        let is_square = match numeric(&mean.input)? {
            Numeric::Mul(square) => [square.lhs.id, square.rhs.id] == [x.id; 2],
            Numeric::PowiScalar(power) => power.lhs.id == x.id && power.rhs.elem::<f32>() == 2.0,
            _ => false,
        };
        (is_square && mean.axis + 1 == x.shape.len()).then(|| (x.clone(), sum.rhs.elem()))
    }

    /// The operation that computes a tensor, if one operation reads it and it is no output.
    pub(super) fn read_once(&self, id: TensorId) -> Option<&OperationIr> {
        let is_output = self.graph.outputs().iter().any(|output| output.id == id);
        let once = !is_output && self.graph.consumers(id).len() == 1;
        self.graph.producer(id).filter(|_| once).map(|at| &self.graph.operations()[at])
    }

    /// Factors of the elements of the last axis, without the axes of one before it.
    fn of_last_axis(&self, gamma: &TensorIr, x: &TensorIr) -> Option<TensorIr> {
        let len = *x.shape.iter().last()?;
        let is_vector = |tensor: &TensorIr| tensor.shape.as_slice() == [len];
        if is_vector(gamma) {
            return Some(gamma.clone());
        }
        let at = self.graph.producer(gamma.id)?;
        match &self.graph.operations()[at] {
            OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) if is_vector(&op.input) => {
                (gamma.shape.iter().last() == Some(&len)).then(|| op.input.clone())
            }
            _ => None,
        }
    }
}
