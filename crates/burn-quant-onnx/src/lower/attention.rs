//! Attention, as one operation of burn or as the arithmetic that burn's layers record.
//!
//! ```text
//! softmax(q·kᵀ · scale, masked, + bias) · v
//! ```
//!
//! From opset 23 on it is one operation in ONNX too, without masks. Of a row that is masked whole `attention` makes 0,
//! burn's layers the mean of the values, and `Softmax` NaN; what `Attention` makes of it ONNX leaves open. So a softmax
//! of `attention` is written out, and masked scores of layers stay arithmetic, unless fused attention is asked for.

use burn::tensor::DType;
use burn_quant_graph::Length;
use burn_quant_graph::ir::{
    ActivationOperationIr, AttentionOpIr, BaseOperationIr, FloatOperationIr, MatmulOpIr, NumericOperationIr,
    OperationIr, ScalarIr, TensorIr,
};

use super::Lowering;
use super::ints;
use crate::model::Attribute;
use crate::{ElementType, OnnxError};

/// The opset that has the operation.
pub(super) const FUSED: i64 = 23;

/// What is added to a score that takes no part, at most: its power is 0 in f32 unless all scores are as low.
const MASKED: f64 = -1e4;

/// Attention that is recorded as arithmetic.
struct Recorded {
    query: TensorIr,
    /// `[.., features, keys]`.
    turned_key: TensorIr,
    scale: f64,
    /// What takes no part.
    masks: Vec<TensorIr>,
}

impl Lowering<'_> {
    pub(super) fn attention(&mut self, op: &AttentionOpIr) -> Result<(), OnnxError> {
        let dtype = op.query.dtype;
        let (query, mut key, mut value) = (self.value(&op.query)?, self.value(&op.key)?, self.value(&op.value)?);
        let scale = scale_of(op);
        if self.is_attention_of_onnx(op) {
            let causal = ("is_causal", Attribute::Int(op.options.is_causal.into()));
            let attributes = vec![causal, ("scale", Attribute::Float(scale as f32))];
            self.emit_as(&op.out, "Attention", vec![query, key, value], attributes);
            return Ok(());
        }
        let [heads, groups] = [&op.query, &op.key].map(|tensor| tensor.shape[1]);
        if heads != groups {
            key = self.shared(key, &op.key, heads)?;
            value = self.shared(value, &op.value, heads)?;
        }
        let key = self.emit("Transpose", vec![key], vec![("perm", ints([0, 1, 3, 2]))]);
        let mut scores = self.emit("MatMul", vec![query, key], vec![]);
        let scale = self.scalar(ScalarIr::Float(scale), dtype)?;
        scores = self.emit("Mul", vec![scores, scale], vec![]);
        if let Some(cap) = op.options.softcap {
            let cap = self.scalar(cap, dtype)?;
            scores = self.emit("Div", vec![scores, cap.clone()], vec![]);
            scores = self.emit("Tanh", vec![scores], vec![]);
            scores = self.emit("Mul", vec![scores, cap], vec![]);
        }
        let lowest = ScalarIr::Float(f64::NEG_INFINITY);
        if let Some(mask) = &op.mask {
            let (mask, lowest) = (self.value(mask)?, self.scalar(lowest, dtype)?);
            scores = self.emit("Where", vec![mask, lowest, scores], vec![]);
        }
        if op.options.is_causal {
            let (mask, lowest) = (self.later_keys(op)?, self.scalar(lowest, dtype)?);
            scores = self.emit("Where", vec![mask, lowest, scores], vec![]);
        }
        if let Some(bias) = &op.attn_bias {
            let bias = self.value(bias)?;
            scores = self.emit("Add", vec![scores, bias], vec![]);
        }
        let shares = if self.may_mask_rows(op) {
            self.softmax_of_masked(scores, dtype)?
        } else {
            self.emit("Softmax", vec![scores], vec![("axis", Attribute::Int(-1))])
        };
        self.emit_as(&op.out, "MatMul", vec![shares, value], vec![]);
        Ok(())
    }

    /// Writes the product of shares and values as attention, if the shares are a softmax of products of four axes that
    /// nothing else reads; what comes before is left out then.
    pub(super) fn recorded_attention(&mut self, product: &MatmulOpIr) -> Result<bool, OnnxError> {
        if self.model.opset < FUSED {
            return Ok(false);
        }
        let Some(Recorded { query, turned_key, scale, masks }) = self.shares(&product.lhs) else { return Ok(false) };
        let of_heads = query.shape[..2] == turned_key.shape[..2] && query.shape[..2] == product.rhs.shape[..2];
        if !of_heads || !masks.is_empty() && !self.fused_attention {
            return Ok(false);
        }
        let key = match self.graph.producer(turned_key.id).map(|at| &self.graph.operations()[at]) {
            Some(OperationIr::BaseFloat(BaseOperationIr::SwapDims(op))) if [op.dim1, op.dim2] == [2, 3] => {
                self.value(&op.input)?
            }
            _ => {
                let turned = self.value(&turned_key)?;
                self.emit("Transpose", vec![turned], vec![("perm", ints([0, 1, 3, 2]))])
            }
        };
        let mut inputs = vec![self.value(&query)?, key, self.value(&product.rhs)?];
        let is_one = |axis: usize| masks.iter().all(|mask| mask.shape[axis] == 1);
        let repeated = [2, 3].map(is_one);
        let masks = masks.iter().map(|mask| self.value(mask)).collect::<Result<Vec<_>, _>>()?;
        if let Some(masked) = masks.into_iter().reduce(|a, b| self.emit("Or", vec![a, b], vec![])) {
            let mut kept = self.emit("Not", vec![masked], vec![]);
            if repeated.contains(&true) {
                // ONNX Runtime wants a row for each query, and a column for each key
                let lengths = self.graph.lengths(&product.lhs);
                let [queries, keys] = [2, 3].map(|axis| match repeated[axis - 2] {
                    true => lengths[axis].clone(),
                    false => Length::Fixed(1),
                });
                let shape = self.shape(&[Length::Fixed(1), Length::Fixed(1), queries, keys])?;
                kept = self.emit("Expand", vec![kept, shape], vec![]);
            }
            inputs.push(kept);
        }
        self.emit_as(&product.out, "Attention", inputs, vec![("scale", Attribute::Float(scale as f32))]);
        Ok(true)
    }

    /// The attention whose shares a tensor is.
    fn shares(&self, tensor: &TensorIr) -> Option<Recorded> {
        let OperationIr::Activation(ActivationOperationIr::Softmax(softmax)) = self.read_once(tensor.id)? else {
            return None;
        };
        let mut scores = (tensor.shape.len() == 4 && softmax.axis == 3).then_some(&softmax.input)?;
        let (mut scale, mut masks) = (1.0, Vec::new());
        loop {
            match self.read_once(scores.id)? {
                // scaled behind a mask, what is masked would be larger
                OperationIr::BaseFloat(BaseOperationIr::MaskFill(op))
                    if op.value.elem::<f64>() <= MASKED && scale == 1.0 =>
                {
                    masks.push(op.mask.clone());
                    scores = &op.tensor;
                }
                OperationIr::NumericFloat(_, NumericOperationIr::DivScalar(op)) => {
                    scale /= op.rhs.elem::<f64>();
                    scores = &op.lhs;
                }
                OperationIr::NumericFloat(_, NumericOperationIr::MulScalar(op)) => {
                    scale *= op.rhs.elem::<f64>();
                    scores = &op.lhs;
                }
                OperationIr::Float(_, FloatOperationIr::Matmul(op)) => {
                    // a mask of more heads makes more scores of them
                    let (query, turned_key) = (op.lhs.clone(), op.rhs.clone());
                    let is_attention = is_scale(scale) && op.out.shape == tensor.shape;
                    return is_attention.then_some(Recorded { query, turned_key, scale, masks });
                }
                _ => return None,
            }
        }
    }

    /// Whether the operation of ONNX computes the same: it aligns the first query with the first key, and leaves open
    /// what a row is that is masked whole.
    fn is_attention_of_onnx(&self, op: &AttentionOpIr) -> bool {
        let axis = |tensor: &TensorIr| self.graph.lengths(tensor)[2].clone();
        let aligned = !op.options.is_causal || axis(&op.query) == axis(&op.key);
        let is_plain = op.options.softcap.is_none() && is_scale(scale_of(op));
        self.model.opset >= FUSED && aligned && is_plain && !self.may_mask_rows(op)
    }

    /// Whether a row may have no key that it looks at.
    fn may_mask_rows(&self, op: &AttentionOpIr) -> bool {
        let more_queries = op.query.shape[2] > op.key.shape[2];
        op.mask.is_some() || op.attn_bias.is_some() || op.options.is_causal && more_queries
    }

    /// Keys or values `[batch, groups, tokens, features]` for each head: as many heads in turn share those of a group.
    fn shared(&mut self, value: String, tensor: &TensorIr, heads: usize) -> Result<String, OnnxError> {
        let lengths = self.graph.lengths(tensor);
        let [batch, tokens, features] = [0, 2, 3].map(|axis| lengths[axis].clone());
        let groups = tensor.shape[1];
        let axes = self.integers("axes", &[2]);
        let value = self.emit("Unsqueeze", vec![value, axes], vec![]);
        let one = || Length::Fixed(1);
        let times = self.shape(&[one(), one(), Length::Fixed(heads / groups), one(), one()])?;
        let value = self.emit("Expand", vec![value, times], vec![]);
        let shape = self.shape(&[batch, Length::Fixed(heads), tokens, features])?;
        Ok(self.emit("Reshape", vec![value, shape], vec![]))
    }

    /// The keys behind each query, where the last query is that of the last key.
    fn later_keys(&mut self, op: &AttentionOpIr) -> Result<String, OnnxError> {
        let [queries, keys] = [&op.query, &op.key].map(|tensor| self.graph.lengths(tensor)[2].clone());
        if queries == keys && !queries.is_fixed() {
            // all pairs, above the diagonal
            let shape = self.shape(&[queries, keys])?;
            let all = self.initializer("all", ElementType::Bool, &[1, 1], vec![1]);
            let all = self.emit("Expand", vec![all, shape], vec![]);
            let one = self.initializer("one", ElementType::Int64, &[], 1i64.to_le_bytes().to_vec());
            return Ok(self.emit("Trilu", vec![all, one], vec![("upper", Attribute::Int(1))]));
        }
        for length in [&queries, &keys] {
            self.fixed(length, "later tokens are masked")?;
        }
        let (queries, keys) = (op.query.shape[2], op.key.shape[2]);
        let is_later = |i: usize| u8::from(i % keys + queries > i / keys + keys);
        Ok(self.initializer("later", ElementType::Bool, &[queries, keys], (0..queries * keys).map(is_later).collect()))
    }

    fn softmax_of_masked(&mut self, scores: String, dtype: DType) -> Result<String, OnnxError> {
        let Some(limits) = dtype.finfo() else { return Err(self.refused(format!("scores in {dtype:?}"))) };
        let last = self.integers("axes", &[-1]);
        let keep = || vec![("keepdims", Attribute::Int(1))];
        let lowest = self.scalar(ScalarIr::Float(limits.min), dtype)?;
        let largest = self.emit("ReduceMax", vec![scores.clone(), last.clone()], keep());
        let largest = self.emit("Max", vec![largest, lowest], vec![]);
        let below = self.emit("Sub", vec![scores, largest], vec![]);
        let powers = self.emit("Exp", vec![below], vec![]);
        let least = self.scalar(ScalarIr::Float(limits.min_positive), dtype)?;
        let sum = self.emit("ReduceSum", vec![powers.clone(), last], keep());
        let sum = self.emit("Max", vec![sum, least], vec![]);
        Ok(self.emit("Div", vec![powers, sum], vec![]))
    }
}

/// What scores are multiplied with.
fn scale_of(op: &AttentionOpIr) -> f64 {
    op.options.scale.map_or_else(|| 1.0 / (op.query.shape[3] as f64).sqrt(), |scale| scale.elem())
}

/// Whether ONNX takes a number for the scale of attention: it multiplies queries and keys with its root.
fn is_scale(scale: f64) -> bool {
    scale as f32 > 0.0 && (scale as f32).is_finite()
}
