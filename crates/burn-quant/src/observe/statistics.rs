//! What calibration knows of the data: plain, mergeable, serialisable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::QuantError;

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
/// use burn_quant::{ModelStatistics, Statistics};
///
/// let shard = |amax: f32| {
///     let mut statistics = ModelStatistics::default();
///     statistics.insert("fc.input_quantizer".into(), Statistics { amax: vec![amax], lowest: None, bias: None, calls: 8 })?;
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
        if seen.amax.iter().any(|amax| !amax.is_finite()) {
            return Err(QuantError::NonFinite { name, calls: seen.calls });
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
        known.amax.iter_mut().zip(&seen.amax).for_each(|(known, seen)| *known = known.max(*seen));
        known.lowest = known.lowest.into_iter().chain(seen.lowest).reduce(f32::min);
        known.calls += seen.calls;
        Ok(())
    }

    /// Both together: maxima of maxima, minima of minima, sums of counts. The order does not matter.
    ///
    /// # Errors
    ///
    /// [`QuantError::GroupsChanged`] if the two are of different models.
    pub fn merge(mut self, other: Self) -> Result<Self, QuantError> {
        for (name, seen) in other.quantizers {
            self.insert(name, seen)?;
        }
        Ok(self)
    }

    /// What a quantizer saw.
    pub fn get(&self, name: &str) -> Option<&Statistics> {
        self.quantizers.get(name)
    }

    /// Names and what they saw, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Statistics)> {
        self.quantizers.iter().map(|(name, seen)| (name.as_str(), seen))
    }

    /// Quantizers with statistics.
    pub fn len(&self) -> usize {
        self.quantizers.len()
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.quantizers.is_empty()
    }
}
