//! A linear layer that is about to be written.

use burn_quant_numerics::{Grid, IntFormat};

use super::QuantAlgo;
use crate::{Dtype, LowRank};

/// A quantized linear layer in float, with the ranges of its quantizers.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearState {
    /// Its format.
    pub algo: QuantAlgo,
    /// The type that its weight has in the model; values are numbers of it.
    pub dtype: Dtype,
    /// Rows of the weight.
    pub outputs: usize,
    /// Columns of the weight.
    pub inputs: usize,
    /// The weight `[outputs, inputs]`, after smoothing.
    pub weight: Vec<f32>,
    /// Its bias `[outputs]`.
    pub bias: Option<Vec<f32>>,
    /// Elements along the inputs that share a scale, in formats with blocks; 128 × 128 where they have two axes.
    pub block: usize,
    /// The range of the weight: one, one for each output, or one for each block, row-major; none in MX formats.
    pub weight_amax: Vec<f32>,
    /// The range of the tensor, where NVFP4 has calibrated blocks: then `weight_amax` is theirs.
    pub global_amax: Option<f32>,
    /// The range of the second stage of W4A8.
    pub second_amax: Option<f32>,
    /// The range of inputs; `None` if it is taken from them, which W4A8 with MXFP4 weights may do.
    pub input_amax: Option<f32>,
    /// What inputs are multiplied with, `[inputs]`; the weight has been divided by it.
    pub pre_quant_scale: Option<Vec<f32>>,
    /// The branch of low rank beside it.
    pub low_rank: Option<LowRank>,
}

impl LinearState {
    /// Takes the ranges of the weight anew, as the format has them; calibrated block ranges of NVFP4 are kept.
    ///
    /// `max |w|` of the tensor, of each output or of each block, and that of the rounded weight for the second stage of
    /// W4A8; NaN counts as nothing.
    pub fn recalibrate(&mut self) {
        let amax = |values: &[f32]| values.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        match self.algo {
            _ if self.global_amax.is_some() || self.algo.is_mx() => {}
            _ if self.has_row_blocks() => {
                self.weight_amax = self
                    .weight
                    .chunks_exact(self.inputs.max(1))
                    .flat_map(|row| row.chunks(self.block.max(1)).map(amax))
                    .collect();
                if self.second_amax.is_some() {
                    self.second_amax = Some(self.rounded_amax());
                }
            }
            QuantAlgo::Fp8Blocks => self.weight_amax = self.square_blocks(),
            _ if self.weight_amax.len() == 1 => self.weight_amax = vec![amax(&self.weight)],
            _ => self.weight_amax = self.weight.chunks_exact(self.inputs.max(1)).map(amax).collect(),
        }
    }

    /// Whether each block of a row has a range of its own.
    pub(crate) fn has_row_blocks(&self) -> bool {
        match self.algo {
            QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq => true,
            QuantAlgo::IntWeightOnly { .. } | QuantAlgo::IntPerToken { .. } => self.block > 0,
            _ => false,
        }
    }

    /// Multiplies each row of the weight, and its bias, with a factor. Ranges of rows follow, so that codes stay; one
    /// for the tensor is taken anew.
    pub(crate) fn scale_rows(&mut self, factors: &[f32]) {
        for (row, factor) in self.weight.chunks_exact_mut(self.inputs.max(1)).zip(factors) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        self.dtype.round(&mut self.weight);
        if let Some(bias) = &mut self.bias {
            bias.iter_mut().zip(factors).for_each(|(b, factor)| *b *= factor);
            self.dtype.round(bias);
        }
        let by_rows = self.weight_amax.len() >= self.outputs && self.outputs > 1 && self.algo != QuantAlgo::Fp8Blocks;
        match by_rows && self.second_amax.is_none() && self.global_amax.is_none() {
            true => {
                let of_row = self.weight_amax.len() / self.outputs;
                for (ranges, factor) in self.weight_amax.chunks_exact_mut(of_row).zip(factors) {
                    ranges.iter_mut().for_each(|amax| *amax *= factor.abs());
                }
            }
            false => self.recalibrate(),
        }
    }

    /// The largest magnitude of the weight rounded to INT4.
    fn rounded_amax(&self) -> f32 {
        let grid = IntFormat::signed(4).expect("four bits").grid();
        let blocks = self.weight.chunks_exact(self.inputs.max(1)).flat_map(|row| row.chunks(self.block.max(1)));
        let mut most = 0.0f32;
        for (block, amax) in blocks.zip(&self.weight_amax) {
            let scale = grid.scale(*amax);
            most = block.iter().fold(most, |most, w| most.max(grid.fake_quant(*w, scale).abs()));
        }
        let mut rounded = [most];
        self.dtype.round(&mut rounded);
        rounded[0]
    }

    /// `max |w|` of each square block, row-major.
    fn square_blocks(&self) -> Vec<f32> {
        let (block, columns) = (self.block.max(1), self.inputs.div_ceil(self.block.max(1)));
        let mut ranges = vec![0.0f32; self.outputs.div_ceil(block) * columns];
        for (output, row) in self.weight.chunks_exact(self.inputs.max(1)).enumerate() {
            for (input, x) in row.iter().enumerate() {
                let range = &mut ranges[output / block * columns + input / block];
                *range = range.max(x.abs());
            }
        }
        ranges
    }
}
