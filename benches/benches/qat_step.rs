//! What does quantization-aware training add to a training step?

use burn::tensor::Device;
use burn_quant_benches::{Mlp, Workload, device, pair, step};
use divan::Bencher;
use fashion_mnist::model::Cnn;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn steps<M: Workload>(bencher: Bencher, model: impl Fn(&Device) -> M, quantized: bool) {
    let device = device().autodiff();
    let (float, int8, batch, labels) = pair(model(&device), &device);
    let model = if quantized { int8 } else { float };
    bencher.bench_local(|| {
        let model = step(model.clone(), &batch, &labels, &device);
        device.sync().expect("the device is alive");
        model
    });
}

#[divan::bench(args = [false, true])]
fn mlp(bencher: Bencher, quantized: bool) {
    steps(bencher, Mlp::new, quantized);
}

#[divan::bench(args = [false, true])]
fn cnn(bencher: Bencher, quantized: bool) {
    steps(bencher, Cnn::new, quantized);
}
