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
    /// Tensors seen.
    pub calls: u64,
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
///     statistics.insert("fc.input_quantizer".into(), Statistics { amax: vec![amax], lowest: None, calls: 8 })?;
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
