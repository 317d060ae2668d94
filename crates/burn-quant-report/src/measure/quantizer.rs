//! Sums of what a quantizer does to its tensors.

use burn::tensor::Tensor;
use burn_quant_core::layout::Role;
use burn_quant_core::model::host;
use burn_quant_core::quantizer::AnyTensor;
use burn_quant_core::quantizer::groups::group_sums;
use burn_quant_ops::{AxisGroups, Groups};

use super::sample::{CALLS, Sample, SharedPlaces};
use super::{SampledValues, add, amax, median, raise, total, wide};

/// Sums over the calls of one quantizer, on the device.
#[derive(Debug, Default)]
pub(crate) struct QuantizerSums {
    calls: u64,
    /// Channels of all calls so far; 0 if calls differ.
    channels: usize,
    signal: Option<Tensor<1>>,
    noise: Option<Tensor<1>>,
    amax: Option<Tensor<1>>,
    tokens: u64,
    token_amax: Option<Tensor<1>>,
    token_squares: Option<Tensor<1>>,
    /// Tokens whose noise was measured, and the sum of their noises over their signals.
    noisy_tokens: u64,
    token_noise: Option<Tensor<1>>,
    sample: Sample,
}

impl QuantizerSums {
    /// Adds a tensor before and after rounding: its noise in the first calls, its magnitudes in all.
    pub(crate) fn add(&mut self, role: Role, x: &AnyTensor, y: &AnyTensor, places: &SharedPlaces) {
        let shape = x.shape().to_vec();
        if shape.contains(&0) {
            return;
        }
        let (x, y) = (wide(x), wide(y));
        let groups = self.groups(role, &shape);
        let tokens = (role == Role::ChannelsLast && shape.len() > 1).then(|| tokens(&shape));
        if self.calls < CALLS as u64 {
            let (signal, noise) = (x.clone().square(), (y.clone() - x.clone()).square());
            if let Some(tokens) = &tokens {
                let signals = group_sums(signal.clone(), tokens).clamp_min(f32::MIN_POSITIVE);
                add(&mut self.token_noise, (group_sums(noise.clone(), tokens) / signals).sum());
                self.noisy_tokens += tokens.len() as u64;
            }
            add(&mut self.signal, group_sums(signal, &groups));
            add(&mut self.noise, group_sums(noise, &groups));
        }
        raise(&mut self.amax, amax(x.clone(), &groups));
        if let Some(tokens) = tokens {
            let of_tokens = amax(x.clone(), &tokens);
            raise(&mut self.token_amax, of_tokens.clone().max());
            add(&mut self.token_squares, of_tokens.square().sum());
            self.tokens += tokens.len() as u64;
        }
        self.sample.add(&shape, &x, &y, places);
        self.calls += 1;
    }

    /// The channels of a tensor; the whole of it if calls have different channels.
    fn groups(&mut self, role: Role, shape: &[usize]) -> Groups {
        let axis = role.channel_axis(shape.len());
        let channels = shape[axis];
        if self.calls == 0 {
            self.channels = channels;
        } else if self.channels != channels && self.channels != 0 {
            self.channels = 0;
            [&mut self.signal, &mut self.noise].into_iter().for_each(|sum| *sum = sum.take().map(Tensor::sum));
            self.amax = self.amax.take().map(Tensor::max);
        }
        match self.channels {
            0 => Groups::per_tensor(shape),
            _ => Groups::per_channel(shape, axis),
        }
    }

    /// Brings the sums to the host.
    pub(crate) fn on_host(self) -> QuantizerNumbers {
        let numbers = |sum: Option<Tensor<1>>| sum.map(host).unwrap_or_default();
        let first = |sum: Option<Tensor<1>>| sum.map(|sum| f64::from(host(sum)[0]));
        let mean_square = first(self.token_squares).map(|sum| (sum / self.tokens as f64).sqrt());
        QuantizerNumbers {
            calls: self.calls,
            has_channels: self.channels != 0,
            signal: numbers(self.signal),
            noise: numbers(self.noise),
            amax: numbers(self.amax),
            token_ratio: first(self.token_amax).zip(mean_square).and_then(|(max, mean)| ratio(max, mean)),
            token_sqnr: first(self.token_noise).and_then(|sum| super::decibels(self.noisy_tokens as f64, sum)),
            sample: self.sample.on_host(),
        }
    }
}

/// What was measured of one quantizer.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuantizerNumbers {
    /// Calls.
    pub(crate) calls: u64,
    /// Whether the numbers are of channels, and not of the whole tensor.
    pub(crate) has_channels: bool,
    /// Sums of squares of each channel.
    pub(crate) signal: Vec<f32>,
    /// Sums of squared errors of each channel.
    pub(crate) noise: Vec<f32>,
    /// The largest magnitude of each channel.
    pub(crate) amax: Vec<f32>,
    /// The largest magnitude of a token, divided by the root mean square of those of all tokens.
    pub(crate) token_ratio: Option<f64>,
    /// Signal to noise of the mean token, in decibels.
    pub(crate) token_sqnr: Option<f64>,
    /// Some elements.
    pub(crate) sample: Vec<SampledValues>,
}

impl QuantizerNumbers {
    /// Signal to noise of the whole tensor, in decibels.
    pub(crate) fn sqnr(&self) -> Option<f64> {
        super::decibels(total(&self.signal), total(&self.noise))
    }

    /// The median of the channels' signal to noise.
    pub(crate) fn channel_sqnr(&self) -> Option<f64> {
        let channels = self.signal.iter().zip(&self.noise);
        median(channels.filter_map(|(signal, noise)| super::decibels((*signal).into(), (*noise).into())).collect())
    }

    /// The largest magnitude of a channel, and of which, divided by that of the median channel.
    pub(crate) fn outlier(&self) -> Option<(usize, f64)> {
        let largest = self.amax.iter().enumerate().filter(|_| self.has_channels);
        let (channel, amax) = largest.max_by(|a, b| a.1.total_cmp(b.1))?;
        let middle = median(self.amax.iter().map(|amax| f64::from(*amax)).collect())?;
        Some((channel, ratio(f64::from(*amax), middle)?))
    }

    /// Channels that are zero in all data.
    pub(crate) fn dead(&self) -> Vec<usize> {
        channels_where(&self.amax, |channel| self.has_channels && self.amax[channel] == 0.0)
    }

    /// Channels that are not zero, and of which rounding leaves nothing.
    pub(crate) fn lost(&self) -> Vec<usize> {
        // what becomes zero has itself as its error; sums of squares are rounded
        channels_where(&self.amax, |channel| {
            let (signal, noise) = (self.signal[channel], self.noise[channel]);
            self.has_channels && signal > 0.0 && (noise - signal).abs() <= 1e-4 * signal
        })
    }
}

fn channels_where(channels: &[f32], wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    (0..channels.len()).filter(|channel| wanted(*channel)).collect()
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    let ratio = of / to;
    ratio.is_finite().then_some(ratio)
}

/// A group for each token.
fn tokens(shape: &[usize]) -> Groups {
    let mut axes = vec![AxisGroups::Each; shape.len()];
    axes[shape.len() - 1] = AxisGroups::Whole;
    Groups::new(shape, &axes)
}
