//! Linear layers, which burn records in one of two ways by the sizes of their inputs.
//!
//! ```text
//! folded into rows      Reshape(x) [b·s, k], Matmul, Reshape(bias) [1, n], Add, Reshape [b, s, n]
//! batch by batch        Reshape(weight) [1, k, n], Matmul, Reshape(bias) [1, 1, n], Add
//! ```
//!
//! Both compute the same. Where captures differ in that, all are given the second.

use burn::backend::ir::{
    BaseOperationIr, BinaryOpIr, FloatOperationIr, MatmulOpIr, NumericOperationIr, OperationIr, ShapeOpIr, TensorIr,
    TensorStatus,
};

use crate::{Graph, operation_name};

/// A capture at other sizes of the free axes.
pub(crate) struct Sample {
    pub(crate) sizes: Vec<usize>,
    pub(crate) graph: Graph,
}

/// Gives linear layers of several captures one form, if they have different ones.
pub(crate) fn unified(graph: &mut Graph, others: &mut [Sample]) {
    let names = |graph: &Graph| graph.operations().iter().map(operation_name).collect::<Vec<_>>();
    let ours = names(graph);
    if others.iter().all(|other| names(&other.graph) == ours) {
        return;
    }
    unfold(graph);
    others.iter_mut().for_each(|other| unfold(&mut other.graph));
}

fn unfold(graph: &mut Graph) {
    let folded = std::mem::take(&mut graph.operations);
    let mut rest = &folded[..];
    while let Some((first, others)) = rest.split_first() {
        match batch_by_batch(rest) {
            Some((operations, count)) => {
                graph.operations.extend(operations);
                rest = &rest[count..];
            }
            None => {
                graph.operations.push(first.clone());
                rest = others;
            }
        }
    }
}

fn reshape(operation: Option<&OperationIr>) -> Option<&ShapeOpIr> {
    match operation? {
        OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => Some(op),
        _ => None,
    }
}

/// The operations of a layer that is folded into rows in the other form, and how many they were.
fn batch_by_batch(operations: &[OperationIr]) -> Option<(Vec<OperationIr>, usize)> {
    let rows = reshape(operations.first())?;
    let OperationIr::Float(dtype, FloatOperationIr::Matmul(product)) = operations.get(1)? else { return None };
    let (x, rank) = (&rows.input, rows.input.shape.len());
    let is_folded = rank > 2 && product.lhs.id == rows.out.id && product.rhs.shape.len() == 2;
    if !is_folded || rows.out.shape.len() != 2 || x.shape[rank - 1] != rows.out.shape[1] {
        return None;
    }
    let (bias, unfold, count) = match (reshape(operations.get(2)), operations.get(3)) {
        (Some(row), Some(OperationIr::NumericFloat(dtype, NumericOperationIr::Add(sum))))
            if sum.lhs.id == product.out.id && sum.rhs.id == row.out.id && row.input.shape.len() == 1 =>
        {
            (Some((row, *dtype, sum)), reshape(operations.get(4)).filter(|last| last.input.id == sum.out.id)?, 5)
        }
        _ => (None, reshape(operations.get(2)).filter(|last| last.input.id == product.out.id)?, 3),
    };
    let out = &unfold.out;
    if out.shape.len() != rank || out.shape[..rank - 1] != x.shape[..rank - 1] {
        return None;
    }
    let of_one = |tensor: &TensorIr| -> TensorIr {
        let ones = std::iter::repeat_n(1, rank - tensor.shape.len());
        let shape: Vec<usize> = ones.chain(tensor.shape.iter().copied()).collect();
        TensorIr { shape: shape.into(), ..tensor.clone() }
    };
    // the ids of rows are free: the weight with axes of one has theirs
    let weight = TensorIr { id: rows.out.id, status: TensorStatus::NotInit, ..of_one(&product.rhs) };
    let read = |tensor: &TensorIr| TensorIr { status: TensorStatus::ReadWrite, ..tensor.clone() };
    let product_out = match bias {
        Some(_) => TensorIr { shape: out.shape.clone(), ..product.out.clone() },
        None => out.clone(),
    };
    let mut unfolded = vec![
        OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr { input: product.rhs.clone(), out: weight.clone() })),
        OperationIr::Float(
            *dtype,
            FloatOperationIr::Matmul(MatmulOpIr { lhs: x.clone(), rhs: read(&weight), out: product_out.clone() }),
        ),
    ];
    if let Some((row, dtype, sum)) = bias {
        let row_out = of_one(&row.out);
        unfolded.push(OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr {
            input: row.input.clone(),
            out: row_out.clone(),
        })));
        let sum = BinaryOpIr {
            lhs: TensorIr { shape: product_out.shape, ..sum.lhs.clone() },
            rhs: TensorIr { shape: row_out.shape, ..sum.rhs.clone() },
            out: out.clone(),
        };
        unfolded.push(OperationIr::NumericFloat(dtype, NumericOperationIr::Add(sum)));
    }
    Some((unfolded, count))
}
