//! Times candle's quantized products, one line each, as `products` of burn-quant does: name, rows and columns of the
//! weight, batch, milliseconds.

use std::time::{Duration, Instant};

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::Cpu;
    for side in [4096usize, 1024] {
        let weight = Tensor::randn(0f32, 1.0, (side, side), &device)?;
        for (name, dtype) in [("candle Q8_0", GgmlDType::Q8_0), ("candle Q4_0", GgmlDType::Q4_0)] {
            let product = QMatMul::from_qtensor(QTensor::quantize(&weight, dtype)?)?;
            for batch in [1usize, 8, 32, 128, 512] {
                let x = Tensor::randn(0f32, 1.0, (batch, side), &device)?;
                println!("{name}\t{side}\t{batch}\t{}", milliseconds(|| product.forward(&x).map(drop))?);
            }
        }
    }
    Ok(())
}

/// The shortest of the runs of a quarter of a second.
fn milliseconds(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < Duration::from_millis(250) {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
