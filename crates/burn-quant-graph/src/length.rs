//! How long axes are, where sizes of the inputs are free.

use std::collections::BTreeMap;
use std::fmt;

use burn::backend::Slice;
use burn::backend::ir::{BaseOperationIr, IrVisitorMut, OperationIr, TensorId, TensorIr};
use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};

use crate::pairs;

/// The most free sizes that go into one length: of attention, scores of a batch of sequences have three.
const MOST: usize = 4;

/// A size of the inputs that is not bound to that of the capture: of the batch, or of sequences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeAxis {
    /// The inputs that have it, and which of their axes it is.
    pub of_inputs: Vec<(usize, usize)>,
    /// Its size in the graph.
    pub size: usize,
}

/// The length of an axis of a tensor, in a graph with free axes.
///
/// As text a free size is `n0`, `n1` and so on, in the order of [`Graph::free_axes`](crate::Graph::free_axes).
///
/// # Example
///
/// ```
/// use burn_quant_graph::Length;
///
/// let rows = Length::Free { times: 6, axes: vec![0, 1] }; // of a batch of sequences, six for each token
/// assert_eq!((rows.at(&[3, 5]), rows.to_string()), (90, "6·n0·n1".to_string()));
/// assert_eq!(Length::Fixed(8).at(&[3, 5]), 8);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Length {
    /// A length that is the same for inputs of any size.
    Fixed(usize),
    /// A length that follows the inputs: a number of times the product of free sizes.
    Free {
        /// The number.
        times: usize,
        /// The free axes in ascending order; one whose size is squared is there twice.
        axes: Vec<usize>,
    },
}

impl Length {
    /// Returns whether the length is the same for inputs of any size.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }

    /// Returns the length where the free axes have these sizes.
    ///
    /// # Panics
    ///
    /// If there are fewer sizes than free axes.
    pub fn at(&self, sizes: &[usize]) -> usize {
        match self {
            Self::Fixed(len) => *len,
            Self::Free { times, axes } => axes.iter().fold(*times, |len, axis| len * sizes[*axis]),
        }
    }

    /// The only product of free sizes that is as long as was seen, each time: `(sizes, length)`. `None` if no product
    /// is, or more than one.
    pub(crate) fn through(seen: &[(&[usize], usize)]) -> Option<Self> {
        let &(sizes, len) = seen.first()?;
        if seen.iter().all(|(_, other)| *other == len) {
            return Some(Self::Fixed(len));
        }
        let mut fitting = products(sizes.len()).into_iter().filter_map(|axes| {
            let product: usize = axes.iter().map(|axis| sizes[*axis]).product();
            let times = (product > 0 && len.is_multiple_of(product)).then(|| len / product)?;
            let length = Self::Free { times, axes };
            seen.iter().all(|(sizes, len)| length.at(sizes) == *len).then_some(length)
        });
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (times, axes) = match self {
            Self::Fixed(len) => return write!(f, "{len}"),
            Self::Free { times, axes } => (times, axes),
        };
        let of_axes = axes.iter().map(|axis| format!("n{axis}"));
        let words: Vec<String> = (*times != 1).then(|| times.to_string()).into_iter().chain(of_axes).collect();
        f.write_str(&words.join("·"))
    }
}

/// Products of one to four of so many sizes: the axes of each, in ascending order.
fn products(axes: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::new();
    let mut last = vec![vec![]];
    for _ in 0..MOST {
        last = last
            .iter()
            .flat_map(|product: &Vec<usize>| {
                let from = product.last().copied().unwrap_or(0);
                (from..axes).map(|axis| [product.as_slice(), &[axis]].concat())
            })
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// The free axes of a graph, and the lengths of its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FreeAxes {
    pub(crate) axes: Vec<FreeAxis>,
    /// Tensors whose axes are all fixed are left out.
    #[serde(with = "pairs")]
    pub(crate) lengths: BTreeMap<TensorId, Vec<Length>>,
    /// Constants that have another length for each size.
    #[serde(with = "pairs")]
    pub(crate) ranges: BTreeMap<TensorId, FreeRange>,
}

impl FreeAxes {
    /// The constants that have another length for each size.
    pub(crate) fn constants(&self, sizes: &[usize]) -> impl Iterator<Item = (TensorId, TensorData)> {
        self.ranges.iter().map(|(id, range)| (*id, range.numbers(self.lengths[id][0].at(sizes))))
    }

    /// The sizes of the graph.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.size).collect()
    }
}

/// A constant of integers that counts along a free axis: positions of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeRange {
    /// The first number.
    pub start: i64,
    /// From a number to the next.
    pub step: i64,
    /// The dtype of the constant.
    pub dtype: DType,
}

impl FreeRange {
    /// The numbers of a constant, if it counts.
    pub(crate) fn of(data: &TensorData) -> Option<Self> {
        if data.shape().len() != 1 || !(data.dtype().is_int() || data.dtype().is_uint()) {
            return None;
        }
        let numbers: Vec<i64> = data.iter::<i64>().collect();
        let (start, step) = (*numbers.first()?, numbers.get(1)?.checked_sub(numbers[0])?);
        let counts = numbers.windows(2).all(|pair| pair[0].checked_add(step) == Some(pair[1]));
        (counts && step != 0).then_some(Self { start, step, dtype: data.dtype() })
    }

    fn numbers(self, len: usize) -> TensorData {
        let numbers: Vec<i64> = (0..len as i64).map(|place| self.start + place * self.step).collect();
        TensorData::new(numbers, [len]).convert_dtype(self.dtype)
    }
}

/// Gives the free axes other sizes.
pub(crate) struct Resize<'a> {
    pub(crate) free: &'a FreeAxes,
    pub(crate) sizes: &'a [usize],
}

impl Resize<'_> {
    /// Resizes the tensors of an operation, and what else of it follows their sizes.
    pub(crate) fn operation(&mut self, operation: &mut OperationIr) {
        operation.visit_mut(self);
        let (OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op)) = operation else {
            return;
        };
        match op {
            BaseOperationIr::Slice(op) => self.ranges(&mut op.ranges, &op.out),
            BaseOperationIr::SliceAssign(op) => self.ranges(&mut op.ranges, &op.value),
            BaseOperationIr::RepeatDim(op) if self.is_free(&op.out, op.dim) => {
                op.times = op.out.shape[op.dim] / op.tensor.shape[op.dim].max(1);
            }
            _ => {}
        }
    }

    /// A range that is as long as a free axis of the part.
    fn ranges(&self, ranges: &mut [Slice], part: &TensorIr) {
        for (axis, range) in ranges.iter_mut().enumerate().filter(|(axis, _)| self.is_free(part, *axis)) {
            range.end = Some(range.start + part.shape[axis] as isize);
        }
    }

    fn is_free(&self, tensor: &TensorIr, axis: usize) -> bool {
        self.free.lengths.get(&tensor.id).is_some_and(|lengths| !lengths[axis].is_fixed())
    }
}

impl IrVisitorMut for Resize<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        let Some(lengths) = self.free.lengths.get(&tensor.id) else { return };
        let shape: Vec<usize> = lengths.iter().map(|length| length.at(self.sizes)).collect();
        tensor.shape = shape.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(lens: [usize; 3]) -> Option<Length> {
        let sizes: [&[usize]; 3] = [&[3, 5], &[4, 5], &[3, 7]];
        Length::through(&[(sizes[0], lens[0]), (sizes[1], lens[1]), (sizes[2], lens[2])])
    }

    #[test]
    fn lengths_are_products_of_free_sizes_or_none() {
        let free = |times, axes: &[usize]| Some(Length::Free { times, axes: axes.to_vec() });
        assert_eq!(through([15, 15, 15]), Some(Length::Fixed(15))); // no product, though 3 times 5 is as long
        assert_eq!(through([15, 20, 21]), free(1, &[0, 1]));
        assert_eq!(through([30, 40, 42]), free(2, &[0, 1]));
        assert_eq!(through([15, 20, 15]), free(5, &[0]));
        assert_eq!(through([9, 16, 9]), free(1, &[0, 0]));
        assert_eq!(through([75, 100, 147]), free(1, &[0, 1, 1]));
        assert_eq!(through([6, 7, 6]), None); // n0 + 3
        assert_eq!(through([8, 9, 10]), None); // n0 + n1
        assert_eq!(through([2, 2, 3]), None); // half of n1
    }

    #[test]
    fn what_two_products_explain_is_none_of_them() {
        let sizes: [&[usize]; 2] = [&[2, 4], &[3, 6]]; // both sizes grow by a half
        assert_eq!(Length::through(&[(sizes[0], 4), (sizes[1], 6)]), None);
    }
}
