//! What a quantizer remembers of the tensors that pass through it while the model is observed.
//!
//! Everything stays on the device until the end: an observed batch costs a few reductions, and a product of matrices where an
//! algorithm asks for the Gram matrix, but no synchronisation with the host.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};
use burn_quant_ops::{AxisGroups, Groups, group_amax};

use super::bias;
use crate::observe::{DeviceBlockHistogram, DeviceHistogram, GramSums};
use crate::{BiasMethod, ChannelNeeds, StatisticsNeeds};

/// A handle to what was seen; clones share it, so that a model which is cloned, moved or forked while it is observed still
/// reports to one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer {
    needs: StatisticsNeeds,
    seen: Arc<Mutex<Seen>>,
}

/// What a tensor is to its quantizer.
pub(crate) struct Observed {
    /// Which elements share a range; `None` if the quantizer is off, and only channels matter.
    pub(crate) groups: Option<Groups>,
    /// Whether negative values are to be noticed.
    pub(crate) unsigned: bool,
    /// Which elements share a bias, if one is calibrated.
    pub(crate) bias: Option<Groups>,
    /// The axis of channels.
    pub(crate) channel_axis: usize,
}

/// Running statistics on the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Largest magnitude of each group.
    pub(crate) amax: Option<Tensor<1>>,
    /// Lowest value, kept for unsigned formats only.
    pub(crate) lowest: Option<Tensor<1>>,
    /// What a bias is made of.
    pub(crate) bias: Option<SeenBias>,
    /// Sums over tokens.
    pub(crate) channels: Option<SeenChannels>,
    pub(crate) histogram: Option<DeviceHistogram>,
    pub(crate) blocks: Option<DeviceBlockHistogram>,
    /// Ranges of each call.
    pub(crate) history: Vec<Tensor<1>>,
    /// The first call with a NaN or an infinity, infinite if there is none.
    pub(crate) first_non_finite: Option<Tensor<1>>,
    /// Tensors seen.
    pub(crate) calls: u64,
    /// Set when the number of groups or channels changed: before, and then.
    pub(crate) changed: Option<(usize, usize)>,
}

/// What a bias, and the range around it, are made of.
#[derive(Clone, Debug)]
pub(crate) struct SeenBias {
    /// The shape of the lowest and highest values: 1 along the axes that neither bias nor range keeps.
    pub(crate) extent: Vec<usize>,
    /// The sum over calls of the mean of each bias group.
    pub(crate) means: Tensor<1>,
    pub(crate) lowest: Tensor<1>,
    pub(crate) highest: Tensor<1>,
}

/// Sums over tokens, per channel.
#[derive(Clone, Debug)]
pub(crate) struct SeenChannels {
    pub(crate) tokens: u64,
    pub(crate) amax: Tensor<1>,
    pub(crate) sum: Tensor<1>,
    pub(crate) sum_abs: Tensor<1>,
    pub(crate) gram: Option<GramSums>,
}

impl Observer {
    pub(crate) fn new(needs: StatisticsNeeds) -> Self {
        Self { needs, seen: Arc::default() }
    }

    /// Adds a tensor.
    pub(crate) fn observe<const D: usize>(&self, x: &Tensor<D>, observed: &Observed) {
        let x = x.clone().without_autodiff();
        let lowest = observed.unsigned.then(|| x.clone().min());
        let bias = observed.bias.as_ref().zip(observed.groups.as_ref());
        let bias = bias.map(|(bias, groups)| SeenBias::of(&x, groups, bias));
        let amax = observed.groups.as_ref().map(|groups| group_amax(x.clone(), groups));
        let channels = self.needs.channels.map(|needs| SeenChannels::of(&x, observed.channel_axis, needs));
        let blocks = self.needs.blocks.map(|size| {
            let blocks = Groups::blocks(&x.dims(), observed.channel_axis, size);
            group_amax(x.clone(), &blocks)
        });

        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let call = seen.calls;
        seen.calls += 1;
        let ranges = amax.clone().or_else(|| channels.as_ref().map(|channels| channels.amax.clone()));
        if let Some(ranges) = ranges {
            // a sum is finite if all its terms are, but for an overflow that would spoil the statistics too
            let (sum, none) = (ranges.sum(), f32::INFINITY);
            let here = sum.full_like(call as f32).mask_fill(sum.is_finite(), none);
            seen.first_non_finite = Some(pair(seen.first_non_finite.take(), here, Tensor::min_pair));
        }
        if let Some(amax) = amax {
            if self.needs.history {
                seen.history.push(amax.clone());
            }
            match seen.amax.take() {
                Some(before) if before.dims() != amax.dims() => {
                    seen.changed.get_or_insert((before.dims()[0], amax.dims()[0]));
                    seen.amax = Some(before);
                    return;
                }
                before => seen.amax = Some(pair(before, amax, Tensor::max_pair)),
            }
        }
        if let Some(lowest) = lowest {
            seen.lowest = Some(pair(seen.lowest.take(), lowest, Tensor::min_pair));
        }
        match (seen.bias.take(), bias) {
            (Some(before), Some(bias)) if before.extent != bias.extent => {
                let sizes = [&before, &bias].map(|bias| bias.extent.iter().product());
                seen.changed.get_or_insert((sizes[0], sizes[1]));
                seen.bias = Some(before);
            }
            (before, Some(bias)) => seen.bias = Some(bias.after(before)),
            (before, None) => seen.bias = before,
        }
        match (seen.channels.take(), channels) {
            (Some(before), Some(channels)) if before.amax.dims() != channels.amax.dims() => {
                seen.changed.get_or_insert((before.amax.dims()[0], channels.amax.dims()[0]));
                seen.channels = Some(before);
            }
            (before, Some(channels)) => seen.channels = Some(channels.after(before)),
            (before, None) => seen.channels = before,
        }
        if let Some(config) = &self.needs.histogram {
            let elements = x.dims().iter().product::<usize>();
            seen.histogram = Some(DeviceHistogram::add(seen.histogram.take(), x.reshape([elements]), config));
        }
        if let Some(amax) = blocks {
            seen.blocks = Some(DeviceBlockHistogram::add(seen.blocks.take(), amax));
        }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SeenBias {
    fn of<const D: usize>(x: &Tensor<D>, ranges: &Groups, groups: &Groups) -> Self {
        let axes = ranges.counts().iter().zip(groups.counts());
        let axes: Vec<AxisGroups> = axes
            .map(|(range, bias)| if range.max(bias) == &1 { AxisGroups::Whole } else { AxisGroups::Each })
            .collect();
        let fine = Groups::new(groups.shape(), &axes);
        Self {
            extent: fine.counts().to_vec(),
            means: bias::measure(x.clone(), groups, BiasMethod::Mean),
            lowest: bias::lowest(x.clone(), &fine).reshape([fine.len()]),
            highest: bias::highest(x.clone(), &fine).reshape([fine.len()]),
        }
    }

    fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            extent: before.extent,
            means: pair(Some(before.means), self.means, |a, b| a + b),
            lowest: pair(Some(before.lowest), self.lowest, Tensor::min_pair),
            highest: pair(Some(before.highest), self.highest, Tensor::max_pair),
        }
    }
}

impl SeenChannels {
    /// All axes but that of the channels are tokens: images have theirs first.
    fn of<const D: usize>(x: &Tensor<D>, channel_axis: usize, needs: ChannelNeeds) -> Self {
        let channels = x.dims()[channel_axis];
        let tokens = x.dims().iter().product::<usize>() / channels;
        let x = x.clone().cast(DType::F32).movedim(channel_axis, D - 1).reshape([tokens, channels]);
        Self {
            tokens: tokens as u64,
            amax: group_amax(x.clone(), &Groups::per_channel(&[tokens, channels], 1)),
            sum: x.clone().sum_dim(0).reshape([channels]),
            sum_abs: x.clone().abs().sum_dim(0).reshape([channels]),
            gram: (needs == ChannelNeeds::Gram).then(|| GramSums::of(x)),
        }
    }

    fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            tokens: before.tokens + self.tokens,
            amax: pair(Some(before.amax), self.amax, Tensor::max_pair),
            sum: pair(Some(before.sum), self.sum, |a, b| a + b),
            sum_abs: pair(Some(before.sum_abs), self.sum_abs, |a, b| a + b),
            gram: before.gram.zip(self.gram).map(|(before, now)| before.plus(now)),
        }
    }
}

/// Two results together, on the device of the first.
fn pair(before: Option<Tensor<1>>, now: Tensor<1>, f: impl FnOnce(Tensor<1>, Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    match before {
        None => now,
        Some(before) => {
            let now = now.to_device(&before.device());
            f(before, now)
        }
    }
}
