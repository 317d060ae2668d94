//! What is added to the values of codes: zero points, as real numbers.
//!
//! ```text
//! w = value(code) + o            o of the block of the input, and of the output: −zero point · scale, or a bias
//! x · W = x · value(codes) + Σ_b (Σ_{k in b} x_k) · o_b
//! ```
//!
//! Source: Jacob et al. 2018, arXiv:1712.05877, §2.3: sums of a row of activations stand for a product with ones.

use burn::tensor::{DType, Int, Tensor};

/// Offsets of a packed weight, f32.
#[derive(Clone, Debug)]
pub struct PackedOffsets {
    values: Tensor<2>,
    block: usize,
}

impl PackedOffsets {
    /// Creates offsets `[blocks, outputs]` of blocks of so many inputs; the last may be shorter.
    ///
    /// One for each output is a block of all inputs.
    ///
    /// # Panics
    ///
    /// If a block holds no inputs.
    pub fn new(values: Tensor<2>, block: usize) -> Self {
        assert!(block > 0, "PackedOffsets: a block holds at least one input");
        Self { values: values.cast(DType::F32), block }
    }

    /// Returns the offsets, f32 `[blocks, outputs]`.
    ///
    /// They are in the units of the weight.
    pub fn values(&self) -> Tensor<2> {
        self.values.clone()
    }

    /// Returns the inputs that share an offset.
    ///
    /// The last block may have fewer.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Whether they are those of a weight `[inputs, outputs]`.
    pub(super) fn are_of(&self, [inputs, outputs]: [usize; 2]) -> bool {
        self.values.dims() == [inputs.div_ceil(self.block), outputs]
    }

    /// Whether all inputs of an output share one.
    pub(super) fn are_shared(&self) -> bool {
        self.values.dims()[0] <= 1
    }

    /// Those of some outputs.
    pub(super) fn select(&self, outputs: Tensor<1, Int>) -> Self {
        Self { values: self.values.clone().select(1, outputs), block: self.block }
    }

    /// The offset of each input, f32 `[inputs, outputs]`, or `[1, outputs]` if inputs share it.
    pub(super) fn of_inputs(&self, inputs: usize) -> Tensor<2> {
        let [blocks, outputs] = self.values.dims();
        if outputs == 0 {
            return Tensor::zeros([inputs, outputs], (&self.values.device(), DType::F32));
        }
        if blocks <= 1 {
            return self.values.clone();
        }
        let each = self.values.clone().reshape([blocks, 1, outputs]).expand([blocks, self.block, outputs]);
        each.reshape([blocks * self.block, outputs]).narrow(0, 0, inputs)
    }

    /// `Σ_b (Σ_{k in b} x_k) · o_b`, f32 `[rows, outputs]`.
    pub(super) fn product(&self, x: Tensor<2>) -> Tensor<2> {
        let ([rows, inputs], [blocks, outputs]) = (x.dims(), self.values.dims());
        if rows * inputs * outputs == 0 {
            return Tensor::zeros([rows, outputs], (&x.device(), DType::F32));
        }
        if blocks <= 1 {
            return x.sum_dim(1) * self.values.clone();
        }
        let missing = blocks * self.block - inputs;
        let x = match missing {
            0 => x,
            missing => {
                let zeros = Tensor::zeros([rows, missing], (&x.device(), DType::F32));
                Tensor::cat(vec![x, zeros], 1)
            }
        };
        let sums = x.reshape([rows, blocks, self.block]).sum_dim(2).reshape([rows, blocks]);
        sums.matmul(self.values.clone())
    }
}
