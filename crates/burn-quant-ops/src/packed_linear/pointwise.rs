//! Functions of each element of a result, as burn computes them, bit for bit.
//!
//! ```text
//! relu(x) = max(x, 0)      gelu(x) = x / 2 · (1 + erf(x / √2))      silu(x) = x / (1 + e⁻ˣ)
//! ```

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, silu};

/// A function of each element of the result of a layer.
///
/// # Source
///
/// GELU: Hendrycks and Gimpel 2016, arXiv:1606.08415, equation 2.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::Pointwise;
///
/// let x = Tensor::<1>::from_data([-2.0, 3.0], &Device::flex());
/// assert_eq!(Pointwise::Relu.apply(x).into_data().try_into_vec::<f32>().unwrap(), [0.0, 3.0]);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pointwise {
    /// `max(x, 0)`.
    Relu,
    /// `x / 2 · (1 + erf(x / √2))`.
    Gelu,
    /// `x / (1 + e⁻ˣ)`.
    Silu,
}

impl Pointwise {
    /// Applies the function, by burn's own op.
    ///
    /// The result has the shape and the dtype of `x`.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Pointwise::Relu => relu(x),
            Pointwise::Gelu => gelu(x),
            Pointwise::Silu => silu(x),
        }
    }
}

#[cfg(feature = "flex")]
impl crate::flex::Kernel for Pointwise {
    fn in_place(&self, _: usize, data: &mut [f32]) {
        match self {
            Pointwise::Relu => data.iter_mut().for_each(|x| *x = if x.is_nan() || *x > 0.0 { *x } else { 0.0 }),
            Pointwise::Gelu => super::flex::gelu(data),
            Pointwise::Silu => data.iter_mut().for_each(|x| *x *= sigmoid(*x)),
        }
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [std::mem::MaybeUninit<f32>]) {
        self.in_place(first, output.write_copy_of_slice(source));
    }
}

/// As the CPU backend of burn computes it.
#[cfg(feature = "flex")]
fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flex::Kernel;
    use burn::tensor::Device;

    /// One in 4093 of all f32, infinities and NaN among them, and a million around where most activations are.
    #[test]
    fn functions_have_the_bits_of_burns() {
        let all = (0..u32::MAX).step_by(4093).map(f32::from_bits);
        let near = (-500_000..500_000).map(|i| i as f32 * 2e-5);
        let values: Vec<f32> = all.chain(near).chain([f32::NAN, f32::INFINITY, -0.0]).collect();
        for function in [Pointwise::Relu, Pointwise::Gelu, Pointwise::Silu] {
            let x = Tensor::<1>::from_floats(values.as_slice(), &Device::flex());
            let expected: Vec<f32> = function.apply(x).into_data().try_into_vec().unwrap();
            let mut found = values.clone();
            function.in_place(0, &mut found);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{function:?}({:e}) is {found:e}, and of burn {expected:e}", values[i]);
            }
        }
    }
}
