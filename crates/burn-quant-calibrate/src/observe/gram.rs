//! The Gram matrix of the inputs of a linear layer.
//!
//! ```text
//! G = Σ_t x_t x_tᵀ                      over tokens t, [in, in], f32
//! ‖X ΔW‖² = tr(ΔWᵀ G ΔW)    the squared error of the outputs of all tokens, for any change ΔW of the weight
//! ```
//!
//! `G` is symmetric. It is kept as strips of rows from the diagonal on, which halves its memory and the work of adding
//! a batch and of scoring a change.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use burn_quant_core::model::host;

/// A Gram matrix as plain data: the rows of the upper triangle, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GramMatrix {
    /// Channels.
    pub size: usize,
    /// `Σ_t x_ti x_tj` for `j >= i`, row by row: `size · (size + 1) / 2` numbers.
    pub upper: Vec<f32>,
}

impl GramMatrix {
    /// The element of a row and a column, in any order.
    ///
    /// # Panics
    ///
    /// If one of them is beyond the size.
    pub fn get(&self, row: usize, column: usize) -> f32 {
        let (row, column) = (row.min(column), row.max(column));
        self.upper[self.start(row) + column - row]
    }

    fn start(&self, row: usize) -> usize {
        row * self.size - row * row.saturating_sub(1) / 2
    }

    /// Adds another, of the same size and length.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let mergeable = self.size == other.size && self.upper.len() == other.upper.len();
        if mergeable {
            self.upper.iter_mut().zip(&other.upper).for_each(|(a, b)| *a += b);
        }
        mergeable
    }

    /// Whether the triangle is complete.
    pub(crate) fn is_whole(&self) -> bool {
        self.upper.len() == self.size * (self.size + 1) / 2
    }
}

/// A Gram matrix while it is summed up on the device: strip `i` holds its rows, from the column of its first row on.
#[derive(Clone, Debug)]
pub(crate) struct GramSums {
    size: usize,
    strips: Vec<Tensor<2>>,
}

/// A Gram matrix on the device, divided by the number of tokens, ready to score changes of a weight.
#[derive(Clone, Debug)]
pub struct Gram {
    size: usize,
    strips: Vec<Tensor<2>>,
    /// The strips with everything right of the diagonal block doubled: once for itself, once for its mirror image.
    doubled: Vec<Tensor<2>>,
}

/// Eight strips cost 9/16 of the whole matrix; smaller ones are slower to multiply.
const STRIPS: usize = 8;
const SMALLEST_STRIP: usize = 64;
/// Into how many parts outputs are divided to notice early that a change is bad.
const CHUNKS: usize = 2;

fn strips(size: usize) -> impl Iterator<Item = Range<usize>> {
    let step = size.div_ceil(STRIPS).max(SMALLEST_STRIP);
    (0..size).step_by(step).map(move |start| start..(start + step).min(size))
}

impl GramSums {
    /// Of one batch of tokens, `[tokens, in]`.
    pub(crate) fn of(x: Tensor<2>) -> Self {
        let [_, size] = x.dims();
        let x = x.cast(DType::F32);
        let strip = |rows: Range<usize>| {
            let left = x.clone().narrow(1, rows.start, rows.len()).transpose();
            left.matmul(x.clone().narrow(1, rows.start, size - rows.start))
        };
        Self { size, strips: strips(size).map(strip).collect() }
    }

    /// The sum of two, on the device of the first.
    pub(crate) fn plus(self, other: Self) -> Self {
        let sum = |(a, b): (Tensor<2>, Tensor<2>)| {
            let b = b.to_device(&a.device());
            a + b
        };
        Self { size: self.size, strips: self.strips.into_iter().zip(other.strips).map(sum).collect() }
    }

    /// The matrix on the host.
    pub(crate) fn on_host(self) -> GramMatrix {
        let mut upper = Vec::with_capacity(self.size * (self.size + 1) / 2);
        for strip in self.strips {
            let [_, width] = strip.dims();
            let strip: Vec<f32> = strip.into_data().convert::<f32>().try_into_vec().expect("f32 data");
            strip.chunks(width).enumerate().for_each(|(row, values)| upper.extend_from_slice(&values[row..]));
        }
        GramMatrix { size: self.size, upper }
    }
}

impl Gram {
    /// Returns the number of channels.
    ///
    /// The matrix is `[size, size]`.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The matrix on a device, divided by the number of tokens.
    pub(crate) fn on_device(matrix: &GramMatrix, tokens: u64, device: &Device) -> Self {
        let size = matrix.size;
        let by = 1.0 / tokens.max(1) as f32;
        let strip = |rows: Range<usize>| {
            let width = size - rows.start;
            let mut values = Vec::with_capacity(rows.len() * width);
            for row in rows.clone() {
                // below the diagonal the triangle is read by its mirror image
                (rows.start..row).for_each(|column| values.push(matrix.get(row, column) * by));
                let start = matrix.start(row);
                values.extend(matrix.upper[start..start + size - row].iter().map(|x| x * by));
            }
            Tensor::<1>::from_data(values.as_slice(), (device, DType::F32)).reshape([rows.len(), width])
        };
        Self::new(size, strips(size).map(strip).collect())
    }

    fn new(size: usize, strips: Vec<Tensor<2>>) -> Self {
        let double = |strip: &Tensor<2>| {
            let [rows, width] = strip.dims();
            if rows == width {
                return strip.clone();
            }
            let (diagonal, right) = (strip.clone().narrow(1, 0, rows), strip.clone().narrow(1, rows, width - rows));
            Tensor::cat(vec![diagonal, right * 2.0], 1)
        };
        let doubled = strips.iter().map(double).collect();
        Self { size, strips, doubled }
    }

    /// `tr(Δᵀ G Δ)` for a change `Δ` of a weight `[in, out]`, as `[1]`: the squared error of the outputs, summed over
    /// them.
    ///
    /// # Panics
    ///
    /// If the change has another number of rows.
    pub fn error(&self, change: Tensor<2>) -> Tensor<1> {
        assert_eq!(change.dims()[0], self.size, "Gram::error: one row per channel");
        let mut sum: Option<Tensor<1>> = None;
        for (rows, strip) in strips(self.size).zip(&self.doubled) {
            let own = change.clone().narrow(0, rows.start, rows.len());
            let below = change.clone().narrow(0, rows.start, self.size - rows.start);
            let part = (own * strip.clone().matmul(below)).sum();
            sum = Some(match sum {
                None => part,
                Some(sum) => sum + part,
            });
        }
        sum.expect("a weight has channels")
    }

    /// [`Gram::error`] on the host, or `None` as soon as it is known to be above a limit: the terms of outputs are not
    /// negative, so the sum over some of them is a lower bound. An error that is no number, or infinite, is above any
    /// limit.
    pub(crate) fn error_up_to(&self, change: Tensor<2>, limit: f32) -> Option<f32> {
        let outputs = change.dims()[1];
        let step = outputs.div_ceil(CHUNKS).max(SMALLEST_STRIP);
        let mut sum = 0.0;
        for start in (0..outputs).step_by(step) {
            let some = change.clone().narrow(1, start, step.min(outputs - start));
            sum += host(self.error(some))[0];
            if !sum.is_finite() || sum > limit {
                return None;
            }
        }
        Some(sum)
    }

    /// Multiplies the matrix with a change of a weight, `[in, out]`.
    ///
    /// `G Δ` is half the gradient of [`Gram::error`] at `Δ`.
    pub fn product(&self, change: Tensor<2>) -> Tensor<2> {
        let rows = strips(self.size)
            .zip(&self.strips)
            .map(|(rows, strip)| strip.clone().matmul(change.clone().narrow(0, rows.start, self.size - rows.start)));
        let upper: Tensor<2> = Tensor::cat(rows.collect(), 0);
        // what lies left of the diagonal blocks, from their mirror images
        strips(self.size).zip(&self.strips).fold(upper, |sum, (rows, strip)| {
            let beyond = self.size - rows.end;
            if beyond == 0 {
                return sum;
            }
            let mirrored = strip.clone().narrow(1, rows.len(), beyond).transpose();
            let part = mirrored.matmul(change.clone().narrow(0, rows.start, rows.len()));
            let [_, outputs] = part.dims();
            let tail = sum.clone().narrow(0, rows.end, beyond) + part;
            sum.slice_assign([rows.end..self.size, 0..outputs], tail)
        })
    }

    /// The blocks on the diagonal, `[blocks, size, size]`; the last one is padded with zeros.
    pub(crate) fn diagonal_blocks(&self, size: usize) -> Tensor<3> {
        let device = self.strips[0].device();
        let whole = self.whole();
        let blocks = (0..self.size).step_by(size).map(|start| {
            let len = size.min(self.size - start);
            let block = whole.clone().slice([start..start + len, start..start + len]);
            let padded = if len == size {
                block
            } else {
                let zeros = Tensor::zeros([size, size], (&device, DType::F32));
                zeros.slice_assign([0..len, 0..len], block)
            };
            padded.unsqueeze::<3>()
        });
        Tensor::cat(blocks.collect(), 0)
    }

    /// The whole matrix, `[in, in]`.
    pub fn whole(&self) -> Tensor<2> {
        let device = self.strips[0].device();
        let rows = strips(self.size).zip(&self.strips).map(|(rows, strip)| {
            let mut parts = Vec::new();
            for (above, mirrored) in
                strips(self.size).zip(&self.strips).take_while(|(above, _)| above.end <= rows.start)
            {
                parts.push(mirrored.clone().narrow(1, rows.start - above.start, rows.len()).transpose());
            }
            parts.push(strip.clone());
            Tensor::cat(parts, 1)
        });
        Tensor::cat(rows.collect(), 0).to_device(&device)
    }

    /// The matrix of inputs that are multiplied by a factor per channel, `[in]`.
    pub(crate) fn scaled(self, factor: &Tensor<1>) -> Self {
        let size = self.size;
        let scale = |(rows, strip): (Range<usize>, Tensor<2>)| {
            let down = factor.clone().narrow(0, rows.start, rows.len()).unsqueeze_dim::<2>(1);
            let across = factor.clone().narrow(0, rows.start, size - rows.start).unsqueeze_dim::<2>(0);
            strip * down * across
        };
        Self::new(size, strips(size).zip(self.strips).map(scale).collect())
    }
}
