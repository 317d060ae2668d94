//! GPTQ: weights are rounded one input channel after the other, and what is left corrects the error made so far.
//!
//! ```text
//! H = 2 XᵀX / tokens + λ·mean(diag)·I        λ: damping
//! H⁻¹ = Uᵀ U                                 U upper triangular
//! for each channel j:   q = Q(W)[j,:];  e = (W[j,:] − q) / U[j,j];  W[j,:] ← q;  W[k,:] ← W[k,:] − U[j,k]·e  for k > j
//! ```
//!
//! Channels are corrected a block at a time: within the block at once, beyond it when the block is done. Static ranges
//! are those of the weight before rounding; those of dynamic blocks follow the weight as it changes.
//!
//! Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323, algorithm 1 (its channels are columns, ours are rows: burn
//! keeps `[in, out]`); ModelOpt 0.47, `gptq`. The factor `U` is that of f64 arithmetic: the inverse of the triangle of
//! a Cholesky factorization in reverse order, so the inverse of `H` is never formed. The order by activations is "act
//! order" of the published code.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::group_amax;
use burn_quant_ops::numerics::{AnyGrid, BlockScale, Grid, ScaleFormat};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_upper_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};

use super::awq_clip::element_amax;
use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, host};
use crate::config::ActOrder;
use crate::observe::InputStatistics;
use burn_quant_core::config::{Granularity, RangeSource};
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

/// GPTQ of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gptq {
    pub(crate) damping: f32,
    pub(crate) block_size: usize,
    pub(crate) act_order: ActOrder,
}

impl CalibrationAlgorithm for Gptq {
    fn name(&self) -> &str {
        "gptq"
    }

    fn stage(&self) -> Stage {
        Stage::Round
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let gram = layer.gram()?.whole();
        let [inputs, outputs] = layer.weight().dims();
        let mut rounding = Rounding::of(layer)?;
        let mut weight = host(layer.weight().reshape([inputs * outputs]));
        let gram = host(gram.reshape([inputs * inputs]));
        let dead = |row: usize| weight[row * outputs..][..outputs].iter().all(|w| *w == 0.0);
        let dead: Vec<bool> = (0..inputs).map(dead).collect();
        let hessian = |i: usize, j: usize| match (dead[i] || dead[j], i == j) {
            (true, true) => 1.0,
            (true, false) => 0.0,
            _ => 2.0 * f64::from(gram[i * inputs + j]),
        };
        let mut order: Vec<usize> = (0..inputs).collect();
        if self.act_order == ActOrder::On {
            order.sort_by(|a, b| hessian(*b, *b).total_cmp(&hessian(*a, *a)));
        }
        let factor = inverse_factor(|i, j| hessian(order[i], order[j]), inputs, self.damping.into())
            .ok_or(SkipReason::Singular)?;
        rounding.set_order(&order, outputs);
        permute(&mut weight, outputs, &order);
        correct(&mut weight, outputs, &factor, self.block_size, &rounding);
        let mut back = vec![0; inputs];
        order.iter().enumerate().for_each(|(place, row)| back[*row] = place);
        permute(&mut weight, outputs, &back);
        let device = layer.weight().device();
        let weight = Tensor::<1>::from_data(weight.as_slice(), (&device, DType::F32)).reshape([inputs, outputs]);
        Ok(Solution::new(layer.with_weight(weight)))
    }
}

/// `U` of `H⁻¹ = Uᵀ U`, row by row.
///
/// Reversing rows and columns turns the upper triangle `R` of `H = R Rᵀ` into the lower one that a Cholesky
/// factorization gives; then `U = R⁻¹`.
fn inverse_factor(hessian: impl Fn(usize, usize) -> f64, size: usize, damping: f64) -> Option<Vec<f32>> {
    let mean = (0..size).map(|i| hessian(i, i)).sum::<f64>() / size as f64;
    let damp = damping * mean;
    let last = size - 1;
    // each matrix goes as soon as the next is made: two of them at a time
    let reversed =
        Mat::<f64>::from_fn(size, size, |i, j| hessian(last - i, last - j) + if i == j { damp } else { 0.0 });
    let factorized = reversed.llt(Side::Lower).ok()?;
    drop(reversed);
    let lower = factorized.L();
    let upper = Mat::<f64>::from_fn(size, size, |i, j| if i <= j { lower[(last - i, last - j)] } else { 0.0 });
    drop(factorized);
    let mut inverse = Mat::<f64>::zeros(size, size);
    invert_upper_triangular(inverse.as_mut(), upper.as_ref(), Par::rayon(0));
    drop(upper);
    let values = (0..size).flat_map(|i| (0..size).map(move |j| (i, j)));
    let values: Vec<f32> = values.map(|(i, j)| if i <= j { inverse[(i, j)] as f32 } else { 0.0 }).collect();
    values.iter().all(|x| x.is_finite()).then_some(values)
}

fn permute(rows: &mut Vec<f32>, width: usize, order: &[usize]) {
    if order.iter().enumerate().all(|(place, row)| place == *row) {
        return;
    }
    *rows = order.iter().flat_map(|row| rows[row * width..][..width].iter().copied()).collect();
}

/// Rounds all rows, each correcting those after it.
fn correct(weight: &mut [f32], outputs: usize, factor: &[f32], block_size: usize, rounding: &Rounding) {
    let inputs = weight.len() / outputs;
    let mut errors = vec![0f32; block_size.min(inputs) * outputs];
    let mut rounded = vec![0f32; outputs];
    for start in (0..inputs).step_by(block_size) {
        let end = (start + block_size).min(inputs);
        for j in start..end {
            rounding.row(weight, outputs, j, &mut rounded);
            let diagonal = factor[j * inputs + j];
            let error = &mut errors[(j - start) * outputs..][..outputs];
            let (done, rest) = weight.split_at_mut((j + 1) * outputs);
            let row = &mut done[j * outputs..];
            for ((e, w), q) in error.iter_mut().zip(row.iter_mut()).zip(&rounded) {
                *e = (*w - q) / diagonal;
                *w = *q;
            }
            for (k, row) in rest.chunks_exact_mut(outputs).enumerate().take(end - j - 1) {
                let share = factor[j * inputs + j + 1 + k];
                row.iter_mut().zip(&*error).for_each(|(w, e)| *w -= share * e);
            }
        }
        if end < inputs {
            let shares =
                MatRef::from_row_major_slice(factor, inputs, inputs).submatrix(start, end, end - start, inputs - end);
            let errors = MatRef::from_row_major_slice(&errors[..(end - start) * outputs], end - start, outputs);
            let rest = MatMut::from_row_major_slice_mut(&mut weight[end * outputs..], inputs - end, outputs);
            matmul(rest, Accum::Add, shares.transpose(), errors, -1.0, Par::rayon(0));
        }
    }
}

/// The weight's quantizer on the host, a row at a time.
struct Rounding(Vec<StageRounding>);

struct StageRounding {
    grid: AnyGrid,
    ranges: Ranges,
}

enum Ranges {
    /// The range of each element.
    Fixed(Vec<f32>),
    /// Those of dynamic blocks: for each row, the rows of its block.
    Blocks(Vec<Vec<usize>>),
}

impl Rounding {
    fn of(layer: &LayerProblem) -> Result<Self, SkipReason> {
        let quantizer = layer.weight_quantizer();
        quantizer.stages("").map(|(_, stage)| StageRounding::of(layer, stage)).collect::<Result<_, _>>().map(Self)
    }

    /// Rows come in this order from now on.
    fn set_order(&mut self, order: &[usize], outputs: usize) {
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, row)| place[*row] = i);
        for stage in &mut self.0 {
            match &mut stage.ranges {
                Ranges::Fixed(amax) => permute(amax, outputs, order),
                Ranges::Blocks(blocks) => {
                    let moved = |row: &usize| blocks[*row].iter().map(|row| place[*row]).collect();
                    *blocks = order.iter().map(moved).collect();
                }
            }
        }
    }

    /// A row of the weight, rounded.
    fn row(&self, weight: &[f32], outputs: usize, row: usize, rounded: &mut [f32]) {
        rounded.copy_from_slice(&weight[row * outputs..][..outputs]);
        for stage in &self.0 {
            let grid = stage.grid;
            match &stage.ranges {
                Ranges::Fixed(amax) => {
                    let amax = &amax[row * outputs..][..outputs];
                    rounded.iter_mut().zip(amax).for_each(|(q, amax)| *q = grid.fake_quant(*q, grid.scale(*amax)));
                }
                Ranges::Blocks(blocks) => {
                    let mut bits = vec![0u32; outputs];
                    for row in &blocks[row] {
                        let values = &weight[row * outputs..][..outputs];
                        bits.iter_mut().zip(values).for_each(|(bits, w)| *bits = (*bits).max(grid.magnitude(*w)));
                    }
                    let amax = bits.into_iter().map(f32::from_bits);
                    rounded.iter_mut().zip(amax).for_each(|(q, amax)| *q = grid.fake_quant(*q, grid.scale(amax)));
                }
            }
        }
    }
}

impl StageRounding {
    fn of(layer: &LayerProblem, stage: &TensorQuantizer) -> Result<Self, SkipReason> {
        let config = stage.config();
        if config.rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        if config.bias.is_some() {
            return Err(SkipReason::WeightBias);
        }
        let [inputs, _] = layer.weight().dims();
        let calibrated = |buffer| stage.buffer(buffer).ok_or(SkipReason::NoData);
        let of_weight = |groups| group_amax(layer.native(layer.weight()), &groups);
        let whole = || host(layer.weight().abs().max())[0];
        let global = match (config.scale, config.range) {
            (ScaleFormat::E4M3(BlockScale::Dynamic), RangeSource::Static) => host(calibrated(Buffer::Amax)?)[0],
            (ScaleFormat::E4M3(BlockScale::Dynamic), RangeSource::Constant(amax)) => amax,
            (ScaleFormat::E4M3(BlockScale::Dynamic), RangeSource::Dynamic) => whole(),
            (ScaleFormat::E4M3(_), _) => host(calibrated(Buffer::GlobalAmax)?)[0],
            _ => 0.0,
        };
        let grid = AnyGrid::new(config.format, config.scale, global);
        let dynamic = config.range == RangeSource::Dynamic || config.scale == ScaleFormat::E4M3(BlockScale::Dynamic);
        let ranges = match (dynamic, config.range, &config.granularity) {
            (true, _, Granularity::Block { size }) => {
                let block = |row: usize| {
                    let start = row / size * size;
                    (start..(start + size).min(inputs)).collect()
                };
                Ranges::Blocks((0..inputs).map(block).collect())
            }
            // a range per output follows the whole column, as it is when a row is rounded
            (true, _, Granularity::PerChannel) => Ranges::Blocks(vec![(0..inputs).collect(); inputs]),
            (true, ..) => fixed(layer, stage, of_weight(layer.native_groups(stage))),
            (false, RangeSource::Constant(amax), _) => {
                let one = of_weight(layer.native_groups(stage));
                fixed(layer, stage, one.full_like(amax))
            }
            (false, ..) => fixed(layer, stage, calibrated(Buffer::Amax)?),
        };
        Ok(Self { grid, ranges })
    }
}

fn fixed(layer: &LayerProblem, stage: &TensorQuantizer, amax: Tensor<1>) -> Ranges {
    let amax = element_amax(layer, stage, amax);
    let elements = amax.dims().iter().product::<usize>();
    Ranges::Fixed(host(amax.reshape([elements])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        // H = [[4, 2], [2, 3]]; H⁻¹ = [[3, −2], [−2, 4]] / 8 = Uᵀ U
        let h = [[4.0, 2.0], [2.0, 3.0]];
        let u = inverse_factor(|i, j| h[i][j], 2, 0.0).unwrap();
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(u[0] * u[0], 3.0 / 8.0);
        close(u[0] * u[1], -2.0 / 8.0);
        close(u[1] * u[1] + u[3] * u[3], 4.0 / 8.0);
        assert_eq!(u[2], 0.0);
        assert_eq!(inverse_factor(|_, _| 1.0, 2, 0.0), None, "a singular matrix has none");
    }
}
