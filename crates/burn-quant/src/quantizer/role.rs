//! Where channels and blocks lie in the tensors of a quantizer.

use serde::{Deserialize, Serialize};

use crate::WeightLayout;

/// What the tensors of a quantizer are, which tells it where channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Activations `[batch, ..., features]`: channels last.
    #[default]
    Features,
    /// Activations `[batch, channels, ...]`: channels second, as convolutions have them.
    Images,
    /// A weight.
    Weight(WeightLayout),
}

impl Role {
    pub(crate) fn channel_axis(self, rank: usize) -> usize {
        match self {
            Role::Features => rank.saturating_sub(1),
            Role::Images => 1.min(rank.saturating_sub(1)),
            Role::Weight(layout) => layout.channel_axis,
        }
    }

    pub(crate) fn block_axis(self, rank: usize) -> usize {
        match self {
            Role::Weight(layout) => layout.block_axis,
            activation => activation.channel_axis(rank),
        }
    }
}
