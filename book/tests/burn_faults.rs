//! Faults of burn that the book warns of. A test here fails when burn has mended one: then the warning goes.

use burn::module::Param;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::tensor::{Device, Tensor};

/// The largest difference between burn's gradient of a weight and the true one, for inputs of a length.
///
/// The output is linear in the weight, so the gradient is the output of each unit weight.
fn error_of_gradient(length: usize) -> f32 {
    let device = Device::flex().autodiff();
    let conv = Conv1dConfig::new(4, 4, 3).with_groups(2).with_stride(2).with_bias(false).init(&device);
    let values: Vec<f32> = (0..4 * length).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::<1>::from_data(values.as_slice(), &device).reshape([1, 4, length]);
    let with = |weight: Tensor<3>| Conv1d { weight: Param::from_tensor(weight), ..conv.clone() };
    let loss = |conv: &Conv1d| conv.forward(x.clone()).sum();

    let layer = with(Tensor::zeros([4, 2, 3], &device));
    let gradients = loss(&layer).backward();
    let found = layer.weight.grad(&gradients).expect("a gradient");
    let found: Vec<f32> = found.into_data().try_into_vec().expect("f32");
    let unit = |i: usize| {
        let values: Vec<f32> = (0..24).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
        let layer = with(Tensor::<1>::from_data(values.as_slice(), &device).reshape([4, 2, 3]));
        loss(&layer).into_scalar::<f32>()
    };
    found.iter().enumerate().map(|(i, found)| (found - unit(i)).abs()).fold(0.0, f32::max)
}

#[test]
fn the_gradient_of_a_grouped_strided_convolution_is_wrong_where_the_stride_leaves_a_remainder() {
    assert!(error_of_gradient(9) < 1e-5, "(9 − 3) mod 2 = 0: it is right");
    assert!(error_of_gradient(8) > 1e-2, "(8 − 3) mod 2 = 1: burn has mended it, so take the warning out of the book");
}
