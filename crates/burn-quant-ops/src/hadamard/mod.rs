//! The Walsh-Hadamard transform of blocks along an axis, with random signs: an orthogonal rotation and its inverse.
//!
//! ```text
//! forward   y = x · D · H / √n          per block of n elements
//! inverse   x = y · H · D / √n          H = Hᵀ in Sylvester's order, H[i, j] = (−1)^popcount(i & j);  D = diag(±1)
//! ```
//!
//! `log2 n` steps of sums and differences, `n log2 n` additions, no matrix.
//!
//! * `reference` the composition of burn's own ops; runs on the GPU backends
//! * `flex` the CPU kernel: a block is read once, transformed in the cache, and written once
//! * `autodiff` the gradient: the transform is orthogonal, so it is the inverse transform

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "flex")]
mod flex;
mod reference;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

use crate::backend::has_kernel;

/// Which rotation, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hadamard {
    /// The axis along which blocks lie.
    pub axis: usize,
    /// Elements of a block: a power of two that divides the axis.
    pub block: usize,
    /// The seed of the signs; without one, all are positive.
    pub signs: Option<u64>,
    /// Forward, or back.
    pub direction: Direction,
}

/// A rotation, or its inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Signs, then the transform.
    Forward,
    /// The transform, then the signs.
    Inverse,
}

impl Hadamard {
    /// Returns the rotation that undoes this one.
    ///
    /// The transform is orthogonal, so it is the transpose.
    pub fn inverse(self) -> Self {
        let direction = match self.direction {
            Direction::Forward => Direction::Inverse,
            Direction::Inverse => Direction::Forward,
        };
        Self { direction, ..self }
    }

    /// Returns the rotation as a matrix for an axis of `len` elements: the row `[x of a block]` times it is the row
    /// rotated, `[len / block, block, block]`.
    ///
    /// One matrix for each block, as signs are those of the axis.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_ops::{Direction, Hadamard};
    ///
    /// let rotation = Hadamard { axis: 0, block: 2, signs: None, direction: Direction::Forward };
    /// let half = 0.5f32.sqrt();
    /// assert_eq!(rotation.matrices(2), [half, half, half, -half]);
    /// ```
    pub fn matrices(self, len: usize) -> Vec<f32> {
        let (block, norm) = (self.block, self.norm());
        let signs = self.signs_of(len).unwrap_or_else(|| vec![1.0; len]);
        let element = |at: usize| {
            let (first, row, column) = (at / (block * block) * block, at / block % block, at % block);
            let sign = match self.direction {
                Direction::Forward => signs[first + row],
                Direction::Inverse => signs[first + column],
            };
            let parity = (row & column).count_ones() % 2;
            sign * if parity == 0 { norm } else { -norm }
        };
        (0..len * block).map(element).collect()
    }

    /// `block^-1/2`, which makes the rotation keep lengths.
    pub(crate) fn norm(self) -> f32 {
        1.0 / (self.block as f32).sqrt()
    }

    /// The signs of an axis of `len` elements, ±1: the top bits of a SplitMix64 sequence, so that they depend on
    /// nothing but the seed. Source: Steele et al. 2014, "Fast splittable pseudorandom number generators", OOPSLA.
    pub(crate) fn signs_of(self, len: usize) -> Option<Vec<f32>> {
        let mut state = self.signs?;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Some((0..len).map(|_| if next() >> 63 == 0 { 1.0 } else { -1.0 }).collect())
    }
}

/// The backend side of [`hadamard()`]; call that.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Autodiff: cfg(feature = "autodiff"),
    Capture: cfg(feature = "capture"),
    Fusion: cfg(feature = "fusion")
)]
pub trait HadamardOps: Backend {
    /// The transform of any float, computed in f32.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = x, shape = x)]
    fn hadamard(x: FloatTensor<Self>, rotation: Hadamard) -> FloatTensor<Self> {
        reference::hadamard::<Self>(x, rotation)
    }
}

#[cfg(feature = "cube")]
impl HadamardOps for burn_cubecl::CubeBackend {}

/// Rotates blocks of a tensor along an axis by a Walsh-Hadamard matrix, with random signs if a seed is given.
///
/// `y = x · D · H / √block`, or `x · H · D / √block` for the inverse; computed in f32, rounded once to the dtype of
/// `x`. Differentiable: the gradient is the inverse rotation of the gradient.
///
/// # Shapes and units
///
/// `x`: any shape; the result: the same.
///
/// # Panics
///
/// If `x` has no such axis, or the block is not a power of two that divides it.
///
/// # Source
///
/// Sylvester's construction; ModelOpt 0.47, `rotate`; random signs as in Ashkboos et al. 2024, "QuaRot",
/// arXiv:2404.00456.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::{Direction, Hadamard, hadamard};
///
/// let x = Tensor::<1>::from_data([4.0, 0.0, 0.0, 0.0], &Device::flex()); // an outlier
/// let rotation = Hadamard { axis: 0, block: 4, signs: None, direction: Direction::Forward };
/// let y = hadamard(x.clone(), rotation);
/// assert_eq!(y.clone().into_data().try_into_vec::<f32>().unwrap(), [2.0; 4]); // is spread over its block
/// assert_eq!(hadamard(y, rotation.inverse()).to_data(), x.to_data());
/// # }
/// ```
pub fn hadamard<const D: usize>(x: Tensor<D>, rotation: Hadamard) -> Tensor<D> {
    let shape = x.shape();
    let Hadamard { axis, block, .. } = rotation;
    assert!(axis < D, "hadamard: x has {D} axes, and no axis {axis}");
    let fits = block.is_power_of_two() && shape[axis].is_multiple_of(block);
    assert!(fits, "hadamard: the block is a power of two that divides the axis, found {block} of {}", shape[axis]);
    if shape.num_elements() == 0 {
        return x;
    }
    match x.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => dispatch(x, rotation),
        DType::F64 => dispatch(x.cast(DType::F32), rotation).cast(DType::F64),
        other => panic!("hadamard: x is f64, f32, f16 or bf16, found {other:?}"),
    }
}

fn dispatch<const D: usize>(x: Tensor<D>, rotation: Hadamard) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(if has_kernel(&x.kind) {
        <Dispatch as HadamardOps>::hadamard(x, rotation)
    } else {
        reference::hadamard::<Dispatch>(x, rotation)
    })
}
