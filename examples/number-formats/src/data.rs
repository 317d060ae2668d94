//! What is quantized: a matrix of normal values, and one with outliers.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// Standard normal values.
pub(crate) fn gaussian(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
    fill(shape, seed, device, normal)
}

/// Student's t with 4 degrees of freedom, whose fourth moment is infinite: a few values in a million are beyond 30, as
/// in the activations of large language models.
pub(crate) fn heavy_tailed(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
    fill(shape, seed, device, |rng| {
        let squares: f32 = (0..4).map(|_| normal(rng).powi(2)).sum();
        normal(rng) / (squares / 4.0).sqrt()
    })
}

fn fill(shape: [usize; 2], seed: u64, device: &Device, mut value: impl FnMut(&mut StdRng) -> f32) -> Tensor<2> {
    let mut rng = StdRng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| value(&mut rng)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Box and Muller's transform of two uniform values.
fn normal(rng: &mut impl Rng) -> f32 {
    let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}
