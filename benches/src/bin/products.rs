//! Times products with packed weights, one line each: name, rows and columns of the weight, batch, milliseconds.
//!
//! `peers/run.sh` runs it in turns with other libraries. Threads are rayon's: `RAYON_NUM_THREADS=1`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::config::{Format, GradientRule, IntFormat};
use burn_quant::ops::{Activations, FakeQuant, Groups, PackedTensor, Ranges, packed_linear};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Product {
    name: &'static str,
    format: Format,
    block: Option<usize>,
    ranges: Ranges,
    activations: Activations,
    /// Those of its batches that are measured.
    batches: &'static [usize],
}

fn products(device: &Device) -> Vec<Product> {
    let int = |bits| Format::from(IntFormat::signed(bits).expect("such integers exist"));
    let global_amax = Tensor::from_data([5.5f32], device);
    let product = |name, format, block, activations| Product {
        name,
        format,
        block,
        ranges: Ranges::Dynamic,
        activations,
        batches: &[1, 8, 32, 128, 512],
    };
    let one = |product: Product, ranges| Product { ranges, batches: &[1], ..product };
    let (tokens, wide, float) = (Activations::Int8PerToken, Activations::Int15PerToken, Activations::Float);
    vec![
        product("W8, INT8 tokens", int(8), None, tokens.clone()),
        product("W4 block 32, INT8 tokens", int(4), Some(32), tokens.clone()),
        product("W4 block 128, INT8 tokens", int(4), Some(128), tokens),
        product("W4 block 32, INT15 tokens", int(4), Some(32), wide.clone()),
        product("W4 block 128, INT15 tokens", int(4), Some(128), wide),
        product("W4 block 32, float", int(4), Some(32), float.clone()),
        product("W4 block 128, float", int(4), Some(128), float.clone()),
        one(product("MXFP4, float", Format::E2M1, Some(32), float.clone()), Ranges::PowersOfTwo),
        one(product("NVFP4, float", Format::E2M1, Some(16), float.clone()), Ranges::TwoLevel { global_amax }),
        one(product("NF4, float", Format::Nf4, Some(64), float.clone()), Ranges::Dynamic),
        one(product("E4M3, float", Format::E4M3, None, float), Ranges::Dynamic),
    ]
}

/// The shortest of many calls, in milliseconds.
fn shortest(mut call: impl FnMut()) -> f64 {
    (0..2).for_each(|_| call());
    let (start, mut best, mut calls) = (Instant::now(), Duration::MAX, 0);
    while calls < 5 || start.elapsed() < Duration::from_millis(250) {
        let call_start = Instant::now();
        call();
        (best, calls) = (best.min(call_start.elapsed()), calls + 1);
    }
    best.as_secs_f64() * 1e3
}

fn main() {
    let device = Device::flex();
    let normal = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    for side in [4096, 1024] {
        for Product { name, format, block, ranges, activations, batches } in products(&device) {
            let groups = match block {
                None => Groups::per_channel(&[side, side], 1),
                Some(block) => Groups::blocks(&[side, side], 0, block),
            };
            let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
            let packed = || PackedTensor::pack(normal([side, side]), ranges.clone(), spec.clone()).expect("it packs");
            let weight = packed();
            for batch in batches {
                let x = normal([*batch, side]);
                let ms = shortest(|| drop(black_box(packed_linear(x.clone(), &weight, activations.clone()))));
                println!("{name}\t{side}\t{batch}\t{ms}");
            }
            if side == 4096 {
                // eight in turn, so that weights come from memory
                let (weights, x): (Vec<_>, _) = ((0..8).map(|_| packed()).collect(), normal([1, side]));
                let call = |weight| drop(black_box(packed_linear(x.clone(), weight, activations.clone())));
                println!("{name}\t{side}\t1 in turn\t{}", shortest(|| weights.iter().for_each(call)) / 8.0);
            }
        }
    }
}
