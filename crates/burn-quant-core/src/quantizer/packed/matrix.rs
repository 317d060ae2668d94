//! A weight as a matrix `[inputs, outputs]`, and back.
//!
//! ```text
//! linear        [in, out]                 as it is
//! convolution   [out, in / groups, k…]    [out, k…·in] transposed: a product sums over all but the first axis, of
//!                                         which channels come last, side by side as in a window of bytes;
//!                                         [out, in·k…] where blocks divide it, which lie as the weight does
//! transposed convolution   [in, out / groups, k…]
//!                                         [in / groups, out·k]: columns of the groups side by side;
//!                                         [in, out / groups·k] where blocks divide the inputs of a group
//! embedding     [vocabulary, features]    transposed: a block lies along the features
//! ```

use burn::tensor::Tensor;
use burn_quant_ops::{AxisGroups, Bias, Groups, Ranges};

use crate::error::NotPackedReason;
use crate::layout::Role;

/// How a weight becomes a matrix.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    shape: Vec<usize>,
    /// Whether outputs are the first axis.
    transposed: bool,
    /// Whether channels come last: a kernel whose outputs have a scale each or all together. Blocks lie as the weight
    /// does.
    windows: bool,
    /// Groups of channels of a transposed convolution whose columns lie side by side.
    channel_groups: usize,
}

impl Matrix {
    pub(super) fn of(shape: &[usize], role: Role) -> Result<Self, NotPackedReason> {
        let Role::Weight(layout) = role else { return Err(NotPackedReason::NoWeight) };
        let (transposed, channel_groups) = match (shape.len(), layout.channel_axis, layout.block_axis) {
            (2, 1, 0) => (false, 1),
            (2.., 0, 1) => (true, 1),
            (3.., 1, 0) if layout.groups > 1 && shape[0].is_multiple_of(layout.groups) => (false, layout.groups),
            (3.., 1, 0) => (false, 1),
            _ => return Err(NotPackedReason::Layout { shape: shape.to_vec() }),
        };
        Ok(Self { shape: shape.to_vec(), transposed, windows: false, channel_groups })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether it is that of a convolution, whose inputs are windows.
    pub(super) fn sums_windows(&self) -> bool {
        self.windows
    }

    /// Whether the first axis is that of outputs.
    pub(super) fn has_outputs_first(&self) -> bool {
        self.transposed
    }

    /// The groups of channels whose columns lie side by side: more than one only of a transposed convolution.
    pub(super) fn channel_groups(&self) -> usize {
        self.channel_groups
    }

    /// Outputs and inputs, the first axis first.
    fn rows(&self) -> [usize; 2] {
        [self.shape[0], self.shape[1..].iter().product()]
    }

    /// The element of the weight, row by row, that is the one of an input and an output.
    pub(super) fn element(&self, input: usize, output: usize) -> usize {
        let [rows, columns] = self.rows();
        match self.transposed {
            false => (output / columns * (rows / self.channel_groups) + input) * columns + output % columns,
            true if self.windows => {
                let channels = self.shape[1].max(1);
                let places = columns / channels;
                output * columns + input % channels * places + input / channels
            }
            true => output * columns + input,
        }
    }

    pub(super) fn of_tensor<const D: usize>(&self, weight: Tensor<D>) -> Tensor<2> {
        match self.transposed {
            false if self.channel_groups > 1 => {
                let ([rows, columns], groups) = (self.rows(), self.channel_groups);
                let of_groups = weight.reshape([groups, rows / groups, columns]);
                of_groups.swap_dims(0, 1).reshape([rows / groups, groups * columns])
            }
            false => weight.reshape(self.rows()),
            true if self.windows => weight.permute(channels_last()).reshape(self.rows()).transpose(),
            true => weight.reshape(self.rows()).transpose(),
        }
    }

    pub(super) fn to_tensor<const D: usize>(&self, matrix: Tensor<2>) -> Tensor<D> {
        let shape = <[usize; D]>::try_from(self.shape.as_slice()).expect("a weight keeps its rank");
        if self.channel_groups > 1 {
            let ([rows, columns], groups) = (self.rows(), self.channel_groups);
            return matrix.reshape([rows / groups, groups, columns]).swap_dims(0, 1).reshape(shape);
        }
        if !self.transposed {
            return matrix.reshape(shape);
        }
        if !self.windows {
            return matrix.transpose().reshape(shape);
        }
        let order = channels_last::<D>();
        let mut back = [0; D];
        order.iter().enumerate().for_each(|(place, axis)| back[*axis as usize] = place as isize);
        matrix.transpose().reshape(order.map(|axis| shape[axis as usize])).permute(back)
    }

    /// The groups of the weight as groups of the matrix, which they decide the order of.
    pub(super) fn groups(&mut self, groups: &Groups) -> Result<Groups, NotPackedReason> {
        let axis = |count: usize, len: usize, size: usize| match count {
            1 => AxisGroups::Whole,
            count if count == len => AxisGroups::Each,
            _ => AxisGroups::Blocks(size),
        };
        let (shape, counts) = (groups.shape(), groups.counts());
        let [rows, columns] = self.rows();
        // all axes but the first are one: groups may divide it as they divide outputs of a transposed convolution, and
        // no otherwise unless they were one before
        let elements: usize = shape[2..].iter().product();
        let divided = if self.transposed { counts[1] } else { 1 };
        let each = !self.transposed && counts[1..] == shape[1..];
        if shape.len() > 2 && !each && divided * counts[2..].iter().product::<usize>() > 1 {
            return Err(NotPackedReason::Layout { shape: shape.to_vec() });
        }
        self.windows = self.transposed && self.shape.len() > 2 && counts[1..].iter().all(|count| *count == 1);
        let whole = counts.iter().all(|count| *count == 1);
        let fits = whole || self.are_channel_groups(groups) && shape[1].is_multiple_of(groups.size(1));
        self.channel_groups = if fits { self.channel_groups } else { 1 };
        // of groups side by side, those of inputs are groups of columns
        let (rows, columns) = (rows / self.channel_groups, columns * self.channel_groups);
        let of_rows = if self.channel_groups > 1 { 1 } else { counts[0] };
        let first = axis(of_rows, rows, groups.size(0));
        let second = axis(groups.len() / of_rows, columns, groups.size(1) * elements);
        Ok(match self.transposed {
            false => Groups::new(&[rows, columns], &[first, second]),
            true => Groups::new(&[columns, rows], &[second, first]),
        })
    }

    /// Whether the groups along the first axis are those of channels.
    fn are_channel_groups(&self, groups: &Groups) -> bool {
        groups.counts()[0] == self.channel_groups && groups.size(0) * self.channel_groups == self.shape[0]
    }

    /// Whether a bias of these groups is one of each output, or of all.
    pub(super) fn check_bias(&self, groups: &Groups) -> Result<(), NotPackedReason> {
        let (counts, axis) = (groups.counts(), usize::from(!self.transposed));
        let of_groups = |i: usize| i == 0 && self.channel_groups > 1 && self.are_channel_groups(groups);
        let of_outputs = counts.iter().enumerate().all(|(i, count)| i == axis || *count == 1 || of_groups(i));
        match of_outputs {
            true => Ok(()),
            false => Err(NotPackedReason::MoreThanRounding { what: "rounds around a bias that inputs do not share" }),
        }
    }

    /// A bias of groups that were checked, for each output of the matrix, f32 `[1, outputs]`.
    pub(super) fn bias(&self, Bias { values, groups }: Bias) -> Tensor<2> {
        let ([count], [rows, columns]) = (values.dims(), self.rows());
        match self.transposed {
            true => values.reshape([1, count]).expand([1, rows]),
            false => {
                let elements: usize = self.shape[2..].iter().product();
                let each = values.reshape([groups.counts()[0], groups.counts()[1], 1]);
                let each = each.expand([self.channel_groups, columns / elements, elements]);
                each.reshape([1, self.channel_groups * columns])
            }
        }
    }

    /// Ranges of groups in the order of the matrix.
    pub(super) fn ranges(&self, ranges: Ranges, groups: &Groups) -> Ranges {
        let counts = groups.counts();
        let ordered = |amax: Tensor<1>| match self.transposed {
            false => amax,
            true => {
                let (len, rows) = (amax.dims()[0], counts[0]);
                amax.reshape([rows, len / rows]).transpose().reshape([len])
            }
        };
        match ranges {
            Ranges::Static(amax) => Ranges::Static(ordered(amax)),
            Ranges::TwoLevelStatic { amax, global_amax, blocks } => {
                Ranges::TwoLevelStatic { amax: ordered(amax), global_amax, blocks }
            }
            other => other,
        }
    }
}

/// The axes of the weight of a convolution with its inputs last.
fn channels_last<const D: usize>() -> [isize; D] {
    std::array::from_fn(|place| match place {
        0 => 0,
        last if last == D - 1 => 1,
        place => place as isize + 1,
    })
}
