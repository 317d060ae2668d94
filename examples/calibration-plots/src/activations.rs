//! Ranges of activations.

use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{BlockHistogram, Histogram};
use burn_quant::config::HistogramConfig;
use burn_quant::ops::numerics::{Grid, IntFormat};
use burn_quant::{QuantError, calibrate};
use plot::{Axis, Look, Plot, Series};

use crate::data::{heavy, normal, values};

pub(crate) fn plots(device: &Device) -> Result<Vec<Plot>, QuantError> {
    let seen = values(heavy(21, [512, 256], device));
    let histogram = Histogram::of(&seen, &HistogramConfig::default());
    let largest = seen.iter().fold(0f32, |top, x| top.max(x.abs()));
    Ok(vec![
        max(&histogram, largest),
        percentile(&histogram, largest),
        entropy(&histogram, largest),
        histogram_mse(&histogram, &seen),
        moving_average(device),
        headroom(device),
    ])
}

fn int(bits: u8) -> IntFormat {
    IntFormat::signed(bits).expect("a format")
}

/// How often magnitudes occur, sixteen bins at a time.
fn counts(histogram: &Histogram) -> Series {
    let bins = histogram.counts.chunks(16).enumerate();
    let point =
        |(i, counts): (usize, &[u64])| (f64::from(histogram.edge(16 * i + 8)), counts.iter().sum::<u64>() as f64);
    Series::new("magnitudes", Look::Line, bins.map(point).filter(|(_, count)| *count > 0.0))
}

/// What a method makes of the magnitudes of an activation.
fn counted(name: &'static str, title: &str, series: Vec<Series>) -> Plot {
    Plot { name, title: title.into(), x: Axis::linear("magnitude"), y: Axis::log("count"), series }
}

fn max(histogram: &Histogram, largest: f32) -> Plot {
    let series = vec![counts(histogram), Series::mark("max", largest)];
    counted("max", "One range for an activation with tails", series)
}

fn percentile(histogram: &Histogram, largest: f32) -> Plot {
    let at = |p: f64| calibrate::percentile(histogram, p).expect("values");
    let mut series = vec![counts(histogram)];
    series.extend([99.0, 99.9, 99.99].map(|p| Series::mark(format!("{p} %"), at(p))));
    series.push(Series::mark("max", largest));
    counted("percentile", "Ranges by percentile", series)
}

fn entropy(histogram: &Histogram, largest: f32) -> Plot {
    let mut series = vec![counts(histogram)];
    for bits in [8, 6, 4] {
        let amax = calibrate::entropy(histogram, int(bits), 128, 1).expect("values");
        series.push(Series::mark(format!("{bits} bits"), amax));
    }
    series.push(Series::mark("max", largest));
    counted("entropy", "Ranges with the least divergence, by bits", series)
}

fn histogram_mse(histogram: &Histogram, seen: &[f32]) -> Plot {
    let error = |bits: u8, amax: f32| {
        let grid = int(bits).grid();
        let scale = grid.scale(amax);
        seen.iter().map(|x| f64::from(grid.fake_quant(*x, scale) - x).powi(2)).sum::<f64>() / seen.len() as f64
    };
    let ranges: Vec<f32> = (64..histogram.counts.len()).step_by(32).map(|bin| histogram.edge(bin)).collect();
    let mut series = Vec::new();
    for bits in [8, 6, 4] {
        let line = ranges.iter().map(|amax| (f64::from(*amax), error(bits, *amax)));
        series.push(Series::new(format!("{bits} bits"), Look::Line, line));
    }
    for (place, bits) in [(1, 6), (2, 4)] {
        let amax = calibrate::histogram_mse(histogram, int(bits).into(), 64, 1).expect("values");
        series.push(Series::mark(format!("chosen, {bits} bits"), amax).like(place));
    }
    let title = "Rounding error of an activation against its range".into();
    let y = Axis::log("mean squared error").lower_is_better();
    Plot { name: "histogram-mse", title, x: Axis::linear("range"), y, series }
}

/// A few batches are far from the others.
fn moving_average(device: &Device) -> Plot {
    let batch = |i: u64| {
        let x = values(normal(100 + i, [2048], device));
        let top = x.iter().fold(0f32, |top, x| top.max(x.abs()));
        vec![if i % 17 == 11 { 3.0 * top } else { top }]
    };
    let history: Vec<Vec<f32>> = (0..60).map(batch).collect();
    let average =
        |n: usize, momentum| f64::from(calibrate::moving_average(&history[..n], momentum).expect("batches")[0]);
    let mut series = vec![Series::new(
        "range of a batch",
        Look::Points,
        history.iter().enumerate().map(|(i, b)| (i as f64, f64::from(b[0]))),
    )];
    for momentum in [0.9, 0.99] {
        let line = (1..=history.len()).map(|n| ((n - 1) as f64, average(n, momentum)));
        series.push(Series::new(format!("average, momentum {momentum}"), Look::Line, line));
    }
    let title = "The range of each batch, and averages that follow it".into();
    Plot { name: "moving-average", title, x: Axis::linear("batch"), y: Axis::linear("range"), series }
}

/// Block ranges by their logarithm.
fn headroom(device: &Device) -> Plot {
    let x: Tensor<2> = heavy(22, [4096, 16], device) * normal(23, [4096, 1], device).exp();
    let ranges: Vec<f32> = values(x.abs().max_dim(1));
    let mut counts = vec![0u64; 512];
    for range in &ranges {
        counts[((range.log2() + 40.0) / 80.0 * 512.0) as usize] += 1;
    }
    let largest = ranges.iter().copied().fold(0.0, f32::max);
    let line = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let line = line.map(|(bin, count)| (-40.0 + (bin as f64 + 0.5) / 512.0 * 80.0, *count as f64));
    let series = Series::new("blocks", Look::Line, line.collect::<Vec<_>>());
    let seen = BlockHistogram { counts, largest };
    let amax = calibrate::activation_headroom(&seen, 1.0, 99.99, 16384.0).expect("blocks that are not zero");
    let marks = [("anchor", amax / 16384.0), ("largest block", largest), ("chosen: anchor · ρ", amax)];
    let marks = marks.map(|(name, value)| Series::mark(name, value.log2()));
    Plot {
        name: "activation-headroom",
        title: "Ranges of the blocks of an NVFP4 activation".into(),
        x: Axis::linear("log₂ of the range of a block"),
        y: Axis::log("blocks"),
        series: [vec![series], marks.to_vec()].concat(),
    }
}
