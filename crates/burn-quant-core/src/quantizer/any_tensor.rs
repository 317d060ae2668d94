//! A float tensor whose rank is data: what crosses a trait object.

use burn::tensor::Tensor;

/// Holds a float tensor of any rank from 1 to 6.
///
/// Traits with const-generic methods have no trait objects, so a [`Tap`](super::Tap) sees tensors in this form.
#[derive(Clone, Debug)]
pub struct AnyTensor {
    flat: Tensor<1>,
    shape: Vec<usize>,
}

impl<const D: usize> From<Tensor<D>> for AnyTensor {
    fn from(x: Tensor<D>) -> Self {
        let shape = x.dims().to_vec();
        Self { flat: x.reshape([shape.iter().product::<usize>()]), shape }
    }
}

impl AnyTensor {
    /// Takes a flat tensor in the shape that it stands for.
    ///
    /// # Panics
    ///
    /// If the shape has another number of elements.
    pub fn new(flat: Tensor<1>, shape: Vec<usize>) -> Self {
        assert_eq!(flat.dims()[0], shape.iter().product::<usize>(), "AnyTensor: the shape has other elements");
        Self { flat, shape }
    }

    /// Returns the lengths of the axes.
    ///
    /// 1 to 6 axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements as one row.
    ///
    /// In row-major order.
    pub fn flat(&self) -> Tensor<1> {
        self.flat.clone()
    }

    /// Returns the tensor, whose rank the caller knows.
    ///
    /// # Panics
    ///
    /// If the rank is another.
    pub fn ranked<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.as_slice().try_into().expect("AnyTensor: the tensor has another rank");
        self.flat.clone().reshape(shape)
    }
}

/// Runs an expression with an [`AnyTensor`] as a tensor of its rank.
#[doc(hidden)] // of the toolkit's own crates
#[macro_export]
macro_rules! with_rank {
    ($any:expr, $x:ident => $body:expr) => {{
        let any: &$crate::quantizer::AnyTensor = $any;
        match any.shape().len() {
            1 => $crate::with_rank!(@arm any, 1, $x => $body),
            2 => $crate::with_rank!(@arm any, 2, $x => $body),
            3 => $crate::with_rank!(@arm any, 3, $x => $body),
            4 => $crate::with_rank!(@arm any, 4, $x => $body),
            5 => $crate::with_rank!(@arm any, 5, $x => $body),
            6 => $crate::with_rank!(@arm any, 6, $x => $body),
            rank => panic!("AnyTensor: a tensor has 1 to 6 axes, found {rank}"),
        }
    }};
    (@arm $any:ident, $rank:literal, $x:ident => $body:expr) => {{
        let $x: burn::tensor::Tensor<$rank> = $any.ranked();
        $body
    }};
}
