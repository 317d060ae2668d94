//! Does a fused fake quantization cost more than copying the tensor?
//!
//! Forward, and forward with backward, against a one-thread clone of the same 64 MiB and against `x * 1.0`.

use burn::tensor::{Device, Tensor};
use burn_quant::config::GradientRule;
use burn_quant::ops::{Groups, fake_quant, group_amax};
use burn_quant_benches::{SIDE, device, dynamic_specs, input, int8, specs};
use divan::Bencher;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn wait(device: &Device) {
    device.sync().expect("the device is alive");
}

#[divan::bench]
fn clone_of_the_data(bencher: Bencher) {
    let data = vec![1f32; SIDE * SIDE];
    bencher.bench(|| divan::black_box(data.clone()));
}

#[divan::bench]
fn multiply_by_one(bencher: Bencher) {
    let (device, x) = (device(), input(&device()));
    bencher.bench(|| {
        let y = x.clone() * 1.0;
        wait(&device);
        y
    });
}

#[divan::bench(args = 0..6)]
fn forward(bencher: Bencher, spec: usize) {
    let (device, x) = (device(), input(&device()));
    let (_, spec) = specs().swap_remove(spec);
    let amax = group_amax(x.clone(), &spec.groups);
    bencher.bench(|| {
        let y = fake_quant(x.clone(), amax.clone(), spec.clone());
        wait(&device);
        y
    });
}

/// NVFP4, MXFP8, MXFP4, INT8 per token: ranges found in the data, in one pass.
#[divan::bench(args = 0..4)]
fn forward_with_ranges_from_the_data(bencher: Bencher, spec: usize) {
    let (device, x) = (device(), input(&device()));
    let (_, ranges, spec) = dynamic_specs(&device).swap_remove(spec);
    bencher.bench(|| {
        let y = fake_quant(x.clone(), ranges.clone(), spec.clone());
        wait(&device);
        y
    });
}

#[divan::bench]
fn amax_per_tensor(bencher: Bencher) {
    let (device, x) = (device(), input(&device()));
    let groups = Groups::per_tensor(&[SIDE, SIDE]);
    bencher.bench(|| {
        let amax = group_amax(x.clone(), &groups);
        wait(&device);
        amax
    });
}

#[divan::bench]
fn forward_and_backward_of_multiply_by_one(bencher: Bencher) {
    backward(bencher, |x| x * 1.0);
}

#[divan::bench]
fn forward_and_backward_pass_through(bencher: Bencher) {
    let (spec, amax) =
        (int8(Groups::per_tensor(&[SIDE, SIDE]), GradientRule::PassThrough), Tensor::ones([1], &device()));
    backward(bencher, |x| fake_quant(x, amax.clone(), spec.clone()));
}

#[divan::bench]
fn forward_and_backward_clipped(bencher: Bencher) {
    let (spec, amax) = (int8(Groups::per_tensor(&[SIDE, SIDE]), GradientRule::Clipped), Tensor::ones([1], &device()));
    backward(bencher, |x| fake_quant(x, amax.clone(), spec.clone()));
}

fn backward(bencher: Bencher, op: impl Fn(Tensor<2>) -> Tensor<2>) {
    let device = device().autodiff();
    let x = input(&device).require_grad();
    bencher.bench_local(|| {
        let gradients = op(x.clone()).sum().backward();
        let gradient = x.grad(&gradients);
        wait(&device);
        gradient
    });
}
