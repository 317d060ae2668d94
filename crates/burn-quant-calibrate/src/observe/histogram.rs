//! How often magnitudes occur.

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::{BinWidth, HistogramConfig, Zeros};

/// Counts of magnitudes in bins of one width; bin `i` holds those from `origin + i·width` to the next edge.
///
/// Widths that are powers of two make histograms of any shards of the data merge exactly: the finer one is coarsened,
/// bin by bin. Bins beyond the largest magnitude are not kept.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::Histogram;
/// use burn_quant::config::HistogramConfig;
///
/// let config = HistogramConfig { bins: 16, ..HistogramConfig::default() };
/// let (left, right) = (Histogram::of(&[0.5, -1.0, 3.0], &config), Histogram::of(&[100.0, 0.0], &config));
/// let both = left.merge(&right).unwrap();
/// assert_eq!(both, Histogram::of(&[100.0, 3.0, 0.5, 0.0, -1.0], &config)); // whatever the order
/// assert_eq!((both.width, both.total()), (4.0, 5));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// The lower edge of the first bin.
    #[serde(default)]
    pub origin: f32,
    /// The width of a bin, in the units of the tensor.
    pub width: f32,
    /// How many magnitudes each bin holds.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts the magnitudes of values, as one batch.
    ///
    /// # Panics
    ///
    /// If a value is not finite.
    pub fn of(values: &[f32], config: &HistogramConfig) -> Self {
        let top = values.iter().fold(0f32, |top, x| top.max(x.abs()));
        assert!(values.iter().all(|x| x.is_finite()), "Histogram: the values are not finite");
        let width = match config.width {
            BinWidth::FirstBatch if top > 0.0 => top / config.bins as f32,
            _ => power_of_two(top, bound(config)),
        };
        let mut counts = vec![0u64; bound(config)];
        for x in values.iter().filter(|x| config.zeros == Zeros::Counted || **x != 0.0) {
            // the largest magnitude is in the last bin, though it may be its upper edge
            let bin = ((x.abs() / width) as usize).min(last_bin(top, width));
            counts[bin] += 1;
        }
        Self { origin: 0.0, width, counts }.trimmed()
    }

    /// Both together, if the width of one is that of the other times a power of two.
    pub fn merge(&self, other: &Self) -> Option<Self> {
        let (fine, coarse) = if self.width <= other.width { (self, other) } else { (other, self) };
        let ratio = coarse.width / fine.width;
        if fine.origin != coarse.origin || ratio != (ratio.log2().round()).exp2() || fine.width * ratio != coarse.width
        {
            return None;
        }
        let mut counts = coarse.counts.clone();
        for (bin, count) in fine.counts.iter().enumerate() {
            let bin = (bin as f64 / f64::from(ratio)) as usize;
            counts.resize(counts.len().max(bin + 1), 0);
            counts[bin] = counts[bin].saturating_add(*count);
        }
        Some(Self { counts, ..coarse.clone() })
    }

    /// Returns the lower edge of a bin; of the bin after the last, the upper edge of the last.
    ///
    /// In the units of the tensor.
    pub fn edge(&self, bin: usize) -> f32 {
        self.origin + bin as f32 * self.width
    }

    /// Returns the middle of a bin.
    ///
    /// In the units of the tensor.
    pub fn centre(&self, bin: usize) -> f32 {
        (self.edge(bin) + self.edge(bin + 1)) / 2.0
    }

    /// Returns how many magnitudes were counted.
    ///
    /// Zeros that are skipped are not among them.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    fn trimmed(mut self) -> Self {
        let kept = self.counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        self.counts.truncate(kept);
        self
    }

    /// The same with bins as wide as the largest magnitude asks for: what any order of batches leads to.
    fn coarsened(self, top: f32, bins: usize) -> Self {
        let width = power_of_two(top, bins);
        let empty = Self { origin: self.origin, width, counts: Vec::new() };
        if width > self.width { self.merge(&empty).expect("both widths are powers of two") } else { self }
    }
}

/// The bins that a histogram has at most when shards are to merge: `bins` to `2·bins` of them are in use.
fn bound(config: &HistogramConfig) -> usize {
    match config.width {
        BinWidth::PowerOfTwo => 2 * config.bins,
        // room to grow before bins are coarsened
        BinWidth::FirstBatch => 16 * config.bins,
    }
}

fn last_bin(top: f32, width: f32) -> usize {
    let bins = top / width;
    if bins >= 1.0 && bins.fract() == 0.0 { bins as usize - 1 } else { bins as usize }
}

/// The least power of two of which `bins` reach up to `top`.
fn power_of_two(top: f32, bins: usize) -> f32 {
    widths().find(|width| width * bins as f32 >= top).unwrap_or(1.0)
}

/// Powers of two, small to large.
fn widths() -> impl Iterator<Item = f32> {
    (-110..=127).map(|exponent: i32| f32::from_bits(((exponent + 127) as u32) << 23))
}

/// A histogram on the device: its width is data, so nothing has to wait for the host.
#[derive(Clone, Debug)]
pub(crate) struct DeviceHistogram {
    config: HistogramConfig,
    /// `[1]`
    width: Tensor<1>,
    /// `[1]`
    top: Tensor<1>,
    /// `[bound + 1]`; the last is for what is not counted.
    counts: Tensor<1, Int>,
    /// Elements in `counts`, which are 32-bit integers on most devices.
    counted: u64,
}

/// Elements that one histogram counts on the device: no bin overflows.
const MOST_COUNTED: u64 = i32::MAX as u64;

/// The histogram that takes up so many elements of a device, if there is one.
fn with_room<'a, H>(
    histograms: &'a mut [H],
    device: &Device,
    elements: u64,
    of: impl Fn(&H) -> (Device, u64),
) -> Option<&'a mut H> {
    histograms.iter_mut().find(|histogram| {
        let (own, counted) = of(histogram);
        own == *device && counted.saturating_add(elements) <= MOST_COUNTED
    })
}

impl DeviceHistogram {
    /// Counts the magnitudes of a tensor in a histogram of its device that has room for them, or in a new one.
    pub(crate) fn add_to(histograms: &mut Vec<Self>, x: Tensor<1>, config: &HistogramConfig) {
        let (device, elements) = (x.device(), x.dims()[0] as u64);
        let of = |histogram: &Self| (histogram.top.device(), histogram.counted);
        match with_room(histograms, &device, elements, of) {
            Some(histogram) => *histogram = Self::add(Some(histogram.clone()), x, config),
            None => {
                // bins as wide as those so far: histograms of the first batch's width merge only then
                let width = histograms.first().map(|first| first.width.clone().to_device(&device));
                let top = histograms.first().map(|first| first.top.clone().to_device(&device));
                let begun = width.zip(top).map(|(width, top)| Self { width, ..Self::empty(top, config) });
                histograms.push(Self::add(begun, x, config));
            }
        }
    }

    /// The magnitudes of one tensor, or of one more.
    fn add(before: Option<Self>, x: Tensor<1>, config: &HistogramConfig) -> Self {
        let elements = x.dims()[0] as u64;
        let x = x.cast(DType::F32).abs();
        let top = x.clone().max();
        let mut after = match before {
            None => Self::empty(top, config),
            Some(before) => before.grown(top),
        };
        let bins = bound(config);
        let places = (x.clone() / after.width.clone()).floor();
        let places = places.clone().min_pair(after.last_bin().expand(places.dims()));
        let places = match config.zeros {
            Zeros::Counted => places,
            Zeros::Skipped => places.mask_fill(x.equal_elem(0.0), bins as f32),
        };
        // what a NaN or an infinity is converted to differs from backend to backend
        let places = places.clone().mask_fill(places.is_finite().bool_not(), bins as f32).clamp(0.0, bins as f32).int();
        let ones = Tensor::ones_like(&places);
        after.counts = after.counts.scatter(0, places, ones, IndexingUpdateOp::Add);
        after.counted += elements;
        after
    }

    /// All that was counted, together; `None` if a magnitude was not finite or nothing was counted.
    ///
    /// # Errors
    ///
    /// The widths of two histograms that do not merge.
    pub(crate) fn all_on_host(histograms: Vec<Self>) -> Result<Option<Histogram>, (f32, f32)> {
        let mut all: Option<Histogram> = None;
        for histogram in histograms {
            let Some(next) = histogram.on_host() else { return Ok(None) };
            all = Some(match all {
                None => next,
                Some(before) => before.merge(&next).ok_or((before.width, next.width))?,
            });
        }
        Ok(all)
    }

    fn empty(top: Tensor<1>, config: &HistogramConfig) -> Self {
        let (bins, device) = (bound(config), top.device());
        let width = match config.width {
            BinWidth::PowerOfTwo => least(top.clone() / bins as f32, widths(), &device),
            BinWidth::FirstBatch => {
                let width = top.clone() / config.bins as f32;
                width.clone().mask_fill(width.equal_elem(0.0), 1.0)
            }
        };
        Self { config: *config, width, counts: Tensor::zeros([bins + 1], &device), top, counted: 0 }
    }

    /// Room for magnitudes up to `top`: bins become wider by a power of two, if they have to.
    fn grown(self, top: Tensor<1>) -> Self {
        let (bins, device) = (bound(&self.config), self.top.device());
        let top = self.top.max_pair(top.to_device(&device));
        let wanted = top.clone() / self.width.clone() / bins as f32;
        let ratio = least(wanted, widths().filter(|factor| *factor >= 1.0), &device);
        let bin = Tensor::<1, Int>::arange(0..bins as i64, &device).float().cast(DType::F32);
        let places = (bin / ratio.clone()).floor().int();
        let (counted, rest) = (self.counts.clone().narrow(0, 0, bins), self.counts.narrow(0, bins, 1));
        let counts = Tensor::zeros_like(&counted).scatter(0, places, counted, IndexingUpdateOp::Add);
        let counts = Tensor::cat(vec![counts, rest], 0);
        Self { width: self.width * ratio, top, counts, config: self.config, counted: self.counted }
    }

    /// The bin of the largest magnitude, which may be its upper edge.
    fn last_bin(&self) -> Tensor<1> {
        let bins = self.top.clone() / self.width.clone();
        (bins.clone().ceil() - 1.0).max_pair(bins.zeros_like())
    }

    /// What was counted; `None` if a magnitude was not finite.
    fn on_host(self) -> Option<Histogram> {
        let scalar = |value: Tensor<1>| value.into_data().convert::<f32>().try_into_vec::<f32>().expect("f32 data")[0];
        let (width, top) = (scalar(self.width), scalar(self.top));
        let counts = self.counts.into_data().convert::<i64>().try_into_vec::<i64>().expect("integers");
        let counts = counts[..counts.len() - 1].iter().map(|count| *count as u64).collect();
        let histogram = Histogram { origin: 0.0, width, counts }.trimmed();
        let canonical = match self.config.width {
            BinWidth::PowerOfTwo => histogram.coarsened(top, bound(&self.config)),
            BinWidth::FirstBatch => histogram,
        };
        top.is_finite().then_some(canonical)
    }
}

/// The least of the candidates that is not below `wanted`, `[1]`.
fn least(wanted: Tensor<1>, candidates: impl Iterator<Item = f32>, device: &Device) -> Tensor<1> {
    let candidates = candidates.collect::<Vec<f32>>();
    let largest = candidates[candidates.len() - 1];
    let candidates = Tensor::<1>::from_data(candidates.as_slice(), (device, DType::F32));
    let too_small = candidates.clone().lower(wanted.expand(candidates.dims()));
    candidates.mask_fill(too_small, largest).min()
}

/// A histogram of the logarithms of block ranges: 512 bins over `log2 = −40..40`, and the largest range.
///
/// Blocks of zeros are not counted. Shards merge exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockHistogram {
    /// How many blocks each bin holds.
    pub counts: Vec<u64>,
    /// The largest range of a block.
    pub largest: f32,
}

impl BlockHistogram {
    pub(crate) const BINS: usize = 512;
    pub(crate) const LOWEST: f32 = -40.0;
    pub(crate) const HIGHEST: f32 = 40.0;

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a = a.saturating_add(*b));
        self.largest = self.largest.max(other.largest);
    }
}

/// A [`BlockHistogram`] on the device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceBlockHistogram {
    /// `[BINS + 1]`; the last is for blocks of zeros.
    counts: Tensor<1, Int>,
    largest: Tensor<1>,
    /// Blocks in `counts`.
    counted: u64,
}

impl DeviceBlockHistogram {
    /// Counts the ranges of the blocks of a tensor in a histogram of its device that has room for them, or in a new
    /// one.
    pub(crate) fn add_to(histograms: &mut Vec<Self>, amax: Tensor<1>) {
        let (device, blocks) = (amax.device(), amax.dims()[0] as u64);
        let of = |histogram: &Self| (histogram.largest.device(), histogram.counted);
        match with_room(histograms, &device, blocks, of) {
            Some(histogram) => *histogram = Self::add(Some(histogram.clone()), amax),
            None => histograms.push(Self::add(None, amax)),
        }
    }

    /// The ranges of the blocks of one tensor, or of one more.
    fn add(before: Option<Self>, amax: Tensor<1>) -> Self {
        let (bins, device, blocks) = (BlockHistogram::BINS, amax.device(), amax.dims()[0] as u64);
        let bins_per_octave = bins as f32 / (BlockHistogram::HIGHEST - BlockHistogram::LOWEST);
        let places = ((amax.clone().log() / std::f32::consts::LN_2 - BlockHistogram::LOWEST) * bins_per_octave).floor();
        let places = places.clamp(0.0, bins as f32 - 1.0);
        let exclude_from_budget = amax.clone().equal_elem(0.0).bool_or(amax.clone().is_finite().bool_not());
        let places = places.mask_fill(exclude_from_budget, bins as f32).int();
        let largest = amax.max();
        let before = before.unwrap_or_else(|| Self {
            counts: Tensor::zeros([bins + 1], &device),
            largest: Tensor::zeros([1], (&device, DType::F32)),
            counted: 0,
        });
        let ones = Tensor::ones_like(&places);
        let counts = before.counts.scatter(0, places, ones, IndexingUpdateOp::Add);
        Self { counts, largest: before.largest.max_pair(largest), counted: before.counted + blocks }
    }

    /// All that was counted, together; `None` if nothing was.
    pub(crate) fn all_on_host(histograms: Vec<Self>) -> Option<BlockHistogram> {
        histograms.into_iter().map(Self::on_host).reduce(|mut all, next| {
            all.merge(&next);
            all
        })
    }

    fn on_host(self) -> BlockHistogram {
        let counts = self.counts.into_data().convert::<i64>().try_into_vec::<i64>().expect("integers");
        let counts = counts[..BlockHistogram::BINS].iter().map(|count| *count as u64).collect();
        let largest = self.largest.into_data().convert::<f32>().try_into_vec::<f32>().expect("f32 data")[0];
        BlockHistogram { counts, largest }
    }
}
