//! What calibration knows of the data: plain, mergeable, serialisable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BlockHistogram, GramMatrix, Histogram};
use burn_quant_core::error::QuantError;

/// What one quantizer saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// The largest magnitude of each group, in the units of the tensor.
    pub amax: Vec<f32>,
    /// The lowest value; kept for unsigned formats only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest: Option<f32>,
    /// What a calibrated bias is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<BiasStatistics>,
    /// Tensors seen.
    pub calls: u64,
    /// What algorithms of layers know of each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<ChannelStatistics>,
    /// How often magnitudes occur.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// How often ranges of blocks occur.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<BlockHistogram>,
    /// The largest magnitudes of each call, in their order; of calls from several threads, whose order is chance, from
    /// the smallest to the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Vec<f32>>,
    /// The first call with a NaN or an infinity, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_non_finite: Option<u64>,
}

impl Statistics {
    /// Largest magnitudes of groups, over some calls, and nothing else.
    pub fn of_amax(amax: Vec<f32>, calls: u64) -> Self {
        Self {
            amax,
            lowest: None,
            bias: None,
            calls,
            channels: None,
            histogram: None,
            blocks: None,
            history: Vec::new(),
            first_non_finite: None,
        }
    }

    /// A copy without what algorithms know of each channel.
    pub(super) fn without_channels(&self) -> Self {
        Self {
            amax: self.amax.clone(),
            lowest: self.lowest,
            bias: self.bias.clone(),
            calls: self.calls,
            channels: None,
            histogram: self.histogram.clone(),
            blocks: self.blocks.clone(),
            history: self.history.clone(),
            first_non_finite: self.first_non_finite,
        }
    }

    /// Whether a number that was seen is a NaN or an infinity.
    fn is_finite(&self) -> bool {
        let channels = self.channels.as_ref();
        let numbers = self.amax.iter().chain(channels.iter().flat_map(|channels| &channels.amax));
        self.first_non_finite.is_none() && numbers.into_iter().all(|amax| amax.is_finite())
    }
}

/// What algorithms of layers know of the inputs of one: sums over tokens, so that shards of any size merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelStatistics {
    /// Tokens seen.
    pub tokens: u64,
    /// The largest magnitude of each channel.
    pub amax: Vec<f32>,
    /// The sum of the values of each channel.
    pub sum: Vec<f32>,
    /// The sum of the magnitudes of each channel.
    pub sum_abs: Vec<f32>,
    /// Products of channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gram: Option<GramMatrix>,
}

impl ChannelStatistics {
    /// Whether all sums are numbers: those over large inputs overflow, as do their products.
    pub(crate) fn is_finite(&self) -> bool {
        let products = self.gram.iter().flat_map(|gram| &gram.upper);
        self.sum.iter().chain(&self.sum_abs).chain(products).all(|sum| sum.is_finite())
    }

    /// Both together, if they are of the same number of channels.
    fn merge(&mut self, other: &Self) -> bool {
        let lengths = |s: &Self| [s.amax.len(), s.sum.len(), s.sum_abs.len()];
        if lengths(self) != lengths(other) {
            return false;
        }
        let grams = match (&mut self.gram, &other.gram) {
            (Some(known), Some(seen)) => known.merge(seen),
            (None, None) => true,
            _ => false,
        };
        if grams {
            self.tokens += other.tokens;
            self.amax.iter_mut().zip(&other.amax).for_each(|(a, b)| *a = a.max(*b));
            self.sum.iter_mut().zip(&other.sum).for_each(|(a, b)| *a += b);
            self.sum_abs.iter_mut().zip(&other.sum_abs).for_each(|(a, b)| *a += b);
        }
        grams
    }
}

/// What the bias of a quantizer, and the range around it, are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasStatistics {
    /// The shape of `lowest` and `highest`: that of the tensor, with 1 for axes along which bias and range are shared.
    pub extent: Vec<usize>,
    /// The mean of each bias group, summed over calls.
    pub means: Vec<f32>,
    /// The lowest value at each place of `extent`.
    pub lowest: Vec<f32>,
    /// The highest value at each place of `extent`.
    pub highest: Vec<f32>,
}

impl BiasStatistics {
    /// Both together, if they are of tensors of the same extent.
    fn merge(&mut self, other: &Self) -> bool {
        let mergeable = self.extent == other.extent
            && self.means.len() == other.means.len()
            && self.lowest.len() == other.lowest.len()
            && self.highest.len() == other.highest.len();
        if mergeable {
            self.means.iter_mut().zip(&other.means).for_each(|(a, b)| *a += b);
            self.lowest.iter_mut().zip(&other.lowest).for_each(|(a, b)| *a = a.min(*b));
            self.highest.iter_mut().zip(&other.highest).for_each(|(a, b)| *a = a.max(*b));
        }
        mergeable
    }
}

/// What all quantizers of a model saw, by name.
///
/// # Example
///
/// Two shards of the data, observed apart, are worth the same as both at once:
///
/// ```
/// use burn_quant::calibrate::{ModelStatistics, Statistics};
///
/// let shard = |amax: f32| {
///     let mut statistics = ModelStatistics::default();
///     statistics.insert("fc.input_quantizer".into(), Statistics::of_amax(vec![amax], 8))?;
///     Ok::<_, burn_quant::QuantError>(statistics)
/// };
/// let both = shard(1.5)?.merge(shard(2.0)?)?;
/// assert_eq!(both.get("fc.input_quantizer").unwrap().amax, [2.0]);
/// # Ok::<(), burn_quant::QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelStatistics {
    quantizers: BTreeMap<String, Statistics>,
}

impl ModelStatistics {
    /// Adds what one quantizer saw to what is known of it.
    ///
    /// # Errors
    ///
    /// [`QuantError::NonFinite`], [`QuantError::NegativeUnsigned`], and [`QuantError::GroupsChanged`].
    pub fn insert(&mut self, name: String, seen: Statistics) -> Result<(), QuantError> {
        if !seen.is_finite() {
            return Err(QuantError::NonFinite { name, batch: seen.first_non_finite });
        }
        if let Some(lowest) = seen.lowest.filter(|lowest| *lowest < 0.0) {
            return Err(QuantError::NegativeUnsigned { name, lowest });
        }
        let Some(known) = self.quantizers.get_mut(&name) else {
            self.quantizers.insert(name, seen);
            return Ok(());
        };
        if known.amax.len() != seen.amax.len() {
            return Err(QuantError::GroupsChanged { name, expected: known.amax.len(), found: seen.amax.len() });
        }
        let merged = match (&mut known.bias, &seen.bias) {
            (Some(known), Some(seen)) => known.merge(seen),
            (None, None) => true,
            _ => false,
        };
        if !merged {
            let groups = |bias: &Option<BiasStatistics>| bias.as_ref().map_or(0, |bias| bias.lowest.len());
            return Err(QuantError::GroupsChanged { name, expected: groups(&known.bias), found: groups(&seen.bias) });
        }
        let merged = match (&mut known.channels, &seen.channels) {
            (Some(known), Some(seen)) => known.merge(seen),
            (None, None) => true,
            _ => false,
        };
        if !merged {
            let channels = |s: &Option<ChannelStatistics>| s.as_ref().map_or(0, |channels| channels.amax.len());
            let (expected, found) = (channels(&known.channels), channels(&seen.channels));
            return Err(QuantError::GroupsChanged { name, expected, found });
        }
        if let (Some(left), Some(right)) = (&known.histogram, &seen.histogram) {
            let differ = || QuantError::HistogramsDiffer { name: name.clone(), left: left.width, right: right.width };
            known.histogram = Some(left.merge(right).ok_or_else(differ)?);
        }
        if let (Some(known), Some(seen)) = (&mut known.blocks, &seen.blocks) {
            known.merge(seen);
        }
        known.amax.iter_mut().zip(&seen.amax).for_each(|(known, seen)| *known = known.max(*seen));
        known.lowest = known.lowest.into_iter().chain(seen.lowest).reduce(f32::min);
        known.calls += seen.calls;
        known.history.extend(seen.history);
        Ok(())
    }

    /// Adds products of channels that a further pass over the same data gave.
    pub(crate) fn set_gram(&mut self, name: &str, gram: Option<GramMatrix>) {
        if let Some(channels) = self.quantizers.get_mut(name).and_then(|seen| seen.channels.as_mut()) {
            channels.gram = gram;
        }
    }

    /// Both together: maxima of maxima, minima of minima, sums of counts. The order does not matter, but for
    /// [`Statistics::history`], which continues that of `self`; f32 sums depend on it in the last places.
    ///
    /// # Errors
    ///
    /// [`QuantError::GroupsChanged`] if the two are of different models, and [`QuantError::HistogramsDiffer`].
    pub fn merge(mut self, other: Self) -> Result<Self, QuantError> {
        for (name, seen) in other.quantizers {
            self.insert(name, seen)?;
        }
        Ok(self)
    }

    /// Returns what a quantizer saw.
    ///
    /// `None` for a quantizer without statistics.
    pub fn get(&self, name: &str) -> Option<&Statistics> {
        self.quantizers.get(name)
    }

    /// Returns names and what they saw, by name.
    ///
    /// In alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Statistics)> {
        self.quantizers.iter().map(|(name, seen)| (name.as_str(), seen))
    }

    /// Returns the number of quantizers with statistics.
    ///
    /// Stages of a chain count by themselves.
    pub fn len(&self) -> usize {
        self.quantizers.len()
    }

    /// Returns whether nothing was observed.
    ///
    /// Shards without data are.
    pub fn is_empty(&self) -> bool {
        self.quantizers.is_empty()
    }
}
