//! How long does quantizing a model take, and how much memory beyond the model's own?

use burn::tensor::{Distribution, Tensor};
use burn_quant::{presets, quantize, quantize_weights};
use burn_quant_benches::{Mlp, device};
use divan::{AllocProfiler, Bencher};
use mimalloc::MiMalloc;

/// Counts what is allocated: divan prints the peak beside the time.
#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

#[divan::bench]
fn int8_weights_of_an_mlp(bencher: Bencher) {
    let model = Mlp::new(&device());
    let config = presets::int8_weight_only();
    bencher.bench_local(|| quantize_weights(model.clone(), &config).expect("the model quantizes"));
}

/// Eight batches of 128; the forward pass of the float model is in the time.
#[divan::bench]
fn int8_of_an_mlp_with_eight_batches(bencher: Bencher) {
    let device = device();
    let model = Mlp::new(&device);
    let config = presets::int8_default();
    let batch = Tensor::<2>::random([128, 784], Distribution::Uniform(0.0, 1.0), &device);
    bencher.bench_local(|| {
        let forward = |model: &Mlp| (0..8).for_each(|_| drop(model.forward(batch.clone())));
        quantize(model.clone(), &config, forward).expect("the model quantizes")
    });
}
