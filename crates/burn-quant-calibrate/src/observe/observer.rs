//! What a quantizer's tap remembers of the tensors that pass while the model is observed.
//!
//! Everything stays on the device until the end: an observed batch costs a few reductions, and a product of matrices
//! where an algorithm asks for the Gram matrix, but no synchronization with the host.

use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use burn::tensor::{DType, Device, Tensor};
use burn_quant_ops::{AxisGroups, Direction, Groups, group_amax};

use super::{DeviceBlockHistogram, DeviceHistogram, GramSums, InputStatistics, StatisticsRequest};
use burn_quant_core::config::BiasMethod;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::{AnyTensor, Flow, Tap, bias};
use burn_quant_core::with_rank;

/// Observes the tensors of one quantizer.
#[derive(Debug)]
pub(crate) struct Observer {
    request: StatisticsRequest,
    at: CaptureAt,
    running: Mutex<RunningStatistics>,
}

/// Which tensor is observed, and what the quantizer does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureAt {
    /// What comes to the quantizer, which passes it on in float.
    Float,
    /// What comes to the quantizer, which quantizes it.
    Input,
    /// What the quantizer makes of it.
    Output,
}

impl Tap for Observer {
    fn input(&self, quantizer: &TensorQuantizer, x: &AnyTensor) -> Flow {
        match self.at {
            CaptureAt::Float => {
                with_rank!(x, x => self.observe(x.without_autodiff(), quantizer));
                Flow::Bypass
            }
            CaptureAt::Input => {
                with_rank!(x, x => self.observe_channels(x.without_autodiff(), quantizer));
                Flow::Quantize
            }
            CaptureAt::Output => Flow::Quantize,
        }
    }

    fn output(&self, quantizer: &TensorQuantizer, y: &AnyTensor) {
        if self.at == CaptureAt::Output {
            with_rank!(y, y => self.observe_channels(y.without_autodiff(), quantizer));
        }
    }
}

/// Running statistics on the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunningStatistics {
    /// Largest magnitude of each group.
    pub(crate) amax: Option<Tensor<1>>,
    /// Lowest value, kept for unsigned formats only.
    pub(crate) lowest: Option<Tensor<1>>,
    /// What a bias is made of.
    pub(crate) bias: Option<RunningBias>,
    /// Sums over tokens.
    pub(crate) channels: Option<RunningChannels>,
    /// One for each device that tensors were on.
    pub(crate) histograms: Vec<DeviceHistogram>,
    /// One for each device that tensors were on.
    pub(crate) blocks: Vec<DeviceBlockHistogram>,
    /// Ranges of each call.
    pub(crate) history: Vec<Tensor<1>>,
    /// The thread of the first call.
    thread: Option<ThreadId>,
    /// Whether calls came from more than one thread, so that their order is chance.
    pub(crate) unordered: bool,
    /// The first call with a NaN or an infinity, infinite if there is none.
    pub(crate) first_non_finite: Option<Tensor<1>>,
    /// Tensors seen.
    pub(crate) calls: u64,
    /// Set when the number of groups or channels changed: before, and then.
    pub(crate) changed: Option<(usize, usize)>,
}

/// What a bias, and the range around it, are made of.
#[derive(Clone, Debug)]
pub(crate) struct RunningBias {
    /// The shape of the lowest and highest values: 1 along the axes that neither bias nor range keeps.
    pub(crate) extent: Vec<usize>,
    /// The sum over calls of the mean of each bias group.
    pub(crate) means: Tensor<1>,
    pub(crate) lowest: Tensor<1>,
    pub(crate) highest: Tensor<1>,
}

/// Sums over tokens, per channel.
#[derive(Clone, Debug)]
pub(crate) struct RunningChannels {
    pub(crate) tokens: u64,
    pub(crate) amax: Tensor<1>,
    pub(crate) sum: Tensor<1>,
    pub(crate) sum_abs: Tensor<1>,
    pub(crate) gram: Option<GramSums>,
}

impl Observer {
    pub(crate) fn new(request: StatisticsRequest, at: CaptureAt) -> Self {
        Self { request, at, running: Mutex::default() }
    }

    /// Adds a tensor that is not quantized: what ranges, biases, and algorithms want to know of it.
    pub(super) fn observe<const D: usize>(&self, x: Tensor<D>, quantizer: &TensorQuantizer) {
        let config = quantizer.config();
        if !quantizer.is_enabled() {
            return self.observe_channels(x, quantizer);
        }
        let x = quantizer.centred(quantizer.rotated(x, Direction::Forward));
        let finds = config.has_static_range() || config.has_static_bias();
        let lowest = (finds && quantizer.is_unsigned()).then(|| x.clone().min());
        let biases = quantizer.bias_groups(&x.dims()).filter(|_| config.has_static_bias());
        let bias = biases.map(|biases| RunningBias::of(&x, &quantizer.range_groups(&x.dims()), &biases));
        let amax = finds.then(|| quantizer.group_amax(x.clone()));
        self.add(x, quantizer, amax, lowest, bias);
    }

    /// Adds a tensor of which only channels matter.
    fn observe_channels<const D: usize>(&self, x: Tensor<D>, quantizer: &TensorQuantizer) {
        self.add(x, quantizer, None, None, None);
    }

    fn add<const D: usize>(
        &self,
        x: Tensor<D>,
        quantizer: &TensorQuantizer,
        amax: Option<Tensor<1>>,
        lowest: Option<Tensor<1>>,
        bias: Option<RunningBias>,
    ) {
        let axis = quantizer.role().channel_axis(D);
        let channels = self.request.channels.map(|request| RunningChannels::of(&x, axis, request));
        let blocks = self.request.blocks.map(|size| {
            let blocks = Groups::blocks(&x.dims(), axis, size);
            group_amax(x.clone(), &blocks)
        });

        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let call = running.calls;
        running.calls += 1;
        let ranges = amax.clone().or_else(|| channels.as_ref().map(|channels| channels.amax.clone()));
        if let Some(ranges) = ranges {
            // a sum is finite if all its terms are, but for an overflow that would spoil the statistics too
            let (sum, none) = (ranges.sum(), f32::INFINITY);
            let here = sum.full_like(call as f32).mask_fill(sum.is_finite(), none);
            running.first_non_finite = Some(pair(running.first_non_finite.take(), here, Tensor::min_pair));
        }
        if let Some(amax) = amax {
            if self.request.history {
                let thread = std::thread::current().id();
                running.unordered |= *running.thread.get_or_insert(thread) != thread;
                running.history.push(amax.clone());
            }
            match running.amax.take() {
                Some(before) if before.dims() != amax.dims() => {
                    running.changed.get_or_insert((before.dims()[0], amax.dims()[0]));
                    running.amax = Some(before);
                    return;
                }
                before => running.amax = Some(pair(before, amax, Tensor::max_pair)),
            }
        }
        if let Some(lowest) = lowest {
            running.lowest = Some(pair(running.lowest.take(), lowest, Tensor::min_pair));
        }
        match (running.bias.take(), bias) {
            (Some(before), Some(bias)) if before.extent != bias.extent => {
                let sizes = [&before, &bias].map(|bias| bias.extent.iter().product());
                running.changed.get_or_insert((sizes[0], sizes[1]));
                running.bias = Some(before);
            }
            (before, Some(bias)) => running.bias = Some(bias.after(before)),
            (before, None) => running.bias = before,
        }
        match (running.channels.take(), channels) {
            (Some(before), Some(channels)) if before.amax.dims() != channels.amax.dims() => {
                running.changed.get_or_insert((before.amax.dims()[0], channels.amax.dims()[0]));
                running.channels = Some(before);
            }
            (before, Some(channels)) => running.channels = Some(channels.after(before)),
            (before, None) => running.channels = before,
        }
        if let Some(config) = &self.request.histogram {
            let elements = x.dims().iter().product::<usize>();
            DeviceHistogram::add_to(&mut running.histograms, x.reshape([elements]), config);
        }
        if let Some(amax) = blocks {
            DeviceBlockHistogram::add_to(&mut running.blocks, amax);
        }
    }

    /// What was seen so far.
    pub(crate) fn running(&self) -> RunningStatistics {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RunningStatistics {
    /// Where the tensors were.
    pub(crate) fn device(&self) -> Option<Device> {
        let channels = self.channels.as_ref().map(|channels| &channels.amax);
        self.amax.as_ref().or(channels).or(self.bias.as_ref().map(|bias| &bias.lowest)).map(Tensor::device)
    }
}

impl RunningBias {
    fn of<const D: usize>(x: &Tensor<D>, ranges: &Groups, groups: &Groups) -> Self {
        // the contracted axes of a kernel in blocks count as one
        let ranges = |axis: usize| ranges.counts()[axis.min(ranges.counts().len() - 1)];
        let shared = |(axis, bias): (usize, &usize)| ranges(axis).max(*bias) == 1;
        let axes: Vec<AxisGroups> = (groups.counts().iter().enumerate())
            .map(|axis| if shared(axis) { AxisGroups::Whole } else { AxisGroups::Each })
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

impl RunningChannels {
    /// All axes but that of the channels are tokens: images have theirs first.
    fn of<const D: usize>(x: &Tensor<D>, channel_axis: usize, request: InputStatistics) -> Self {
        let channels = x.dims()[channel_axis];
        let tokens = x.dims().iter().product::<usize>() / channels;
        let x = x.clone().cast(DType::F32).movedim(channel_axis, D - 1).reshape([tokens, channels]);
        Self {
            tokens: tokens as u64,
            amax: group_amax(x.clone(), &Groups::per_channel(&[tokens, channels], 1)),
            sum: x.clone().sum_dim(0).reshape([channels]),
            sum_abs: x.clone().abs().sum_dim(0).reshape([channels]),
            gram: (request == InputStatistics::Gram).then(|| GramSums::of(x)),
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
