//! What the axes of a tensor mean: where channels and blocks lie, in activations and in the weights of burn's layers.

use serde::{Deserialize, Serialize};

/// What the tensors of a quantizer are, which tells it where channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Activations `[batch, ..., channels]`, as linear layers and attention have them.
    #[default]
    #[serde(alias = "features")]
    ChannelsLast,
    /// Activations `[batch, channels, ...]`, as convolutions have them.
    #[serde(alias = "images")]
    ChannelsFirst,
    /// The weight of a layer.
    Weight(WeightLayout),
}

impl Role {
    /// Returns the axis of channels of a tensor with `rank` axes: output channels of a weight, features of an
    /// activation.
    pub fn channel_axis(self, rank: usize) -> usize {
        match self {
            Role::ChannelsLast => rank.saturating_sub(1),
            Role::ChannelsFirst => 1.min(rank.saturating_sub(1)),
            Role::Weight(layout) => layout.channel_axis,
        }
    }

    /// Returns the axis that a product contracts, along which blocks lie: input channels of a weight, features of an
    /// activation.
    pub fn block_axis(self, rank: usize) -> usize {
        match self {
            Role::Weight(layout) => layout.block_axis,
            activation => activation.channel_axis(rank),
        }
    }

    /// How many indices of axis 0 belong to one group of a transposed convolution; `None` without groups.
    pub(crate) fn parts_of_first_axis(self, shape: &[usize]) -> Option<usize> {
        match self {
            Role::Weight(layout) if layout.groups > 1 && layout.channel_axis > 0 => Some(shape[0] / layout.groups),
            _ => None,
        }
    }
}

/// The axes of a weight that quantization speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WeightLayout {
    /// The axis of output channels: per-channel scales are kept along it.
    pub channel_axis: usize,
    /// The axis along which blocks lie: one that is summed over. Those of a kernel `[out, in, k...]` with `block_axis`
    /// 1 lie along all of `in · k...`, the elements that one output sums over.
    pub block_axis: usize,
    /// Groups of a transposed convolution, whose output channels are counted per group: a channel is an index of
    /// `channel_axis` within one of so many equal parts of axis 0.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
}

fn one() -> usize {
    1
}

fn is_one(groups: &usize) -> bool {
    *groups == 1
}

impl WeightLayout {
    /// Creates the layout of a weight without groups.
    ///
    /// Axes count from 0.
    pub fn new(channel_axis: usize, block_axis: usize) -> Self {
        Self { channel_axis, block_axis, groups: 1 }
    }

    /// Returns the layout of a transposed convolution in groups.
    ///
    /// Its output channels are counted in each group.
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups.max(1);
        self
    }

    /// The shape in which blocks divide a weight: a kernel `[out, in, k...]` counts as a matrix `[out, in · k...]`.
    pub(crate) fn block_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self { channel_axis: 0, block_axis: 1, .. }, [outputs, contracted @ ..]) => {
                vec![*outputs, contracted.iter().product()]
            }
            _ => shape.to_vec(),
        }
    }
}

/// burn's layers with a weight: the rank of the weight, its channel axis and its first contracted axis.
const BURNS: [(&str, usize, usize, usize); 9] = [
    ("Linear", 2, 1, 0),
    ("Conv1d", 3, 0, 1),
    ("Conv2d", 4, 0, 1),
    ("Conv3d", 5, 0, 1),
    ("ConvTranspose1d", 3, 1, 0),
    ("ConvTranspose2d", 4, 1, 0),
    ("ConvTranspose3d", 5, 1, 0),
    ("DeformConv2d", 4, 0, 1),
    ("Embedding", 2, 0, 1),
];

/// Layers of burn without a weight that is quantized, which have a quantized counterpart of the name `Quant...`.
const OTHERS: [&str; 32] = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm",
    "BiGru",
    "BiLstm",
    "BiRnn",
    "CrossAttention",
    "GateController",
    "GroupNorm",
    "Gru",
    "InstanceNorm",
    "LayerNorm",
    "LeakyRelu",
    "LocalResponseNorm",
    "Lstm",
    "MaxPool1d",
    "MaxPool2d",
    "MultiHeadAttention",
    "PositionWiseFeedForward",
    "RmsNorm",
    "Rnn",
    "SwiGlu",
    "TransformerDecoder",
    "TransformerDecoderAutoregressiveCache",
    "TransformerDecoderLayer",
    "TransformerDecoderLayerAutoregressiveCache",
    "TransformerEncoder",
    "TransformerEncoderAutoregressiveCache",
    "TransformerEncoderLayer",
];

/// Layers of burn that multiply with no weight matrix: rounding what comes into them costs accuracy and saves no
/// product.
const WITHOUT_PRODUCT: [&str; 14] = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LeakyRelu",
    "LocalResponseNorm",
    "MaxPool1d",
    "MaxPool2d",
    "RmsNorm",
];

/// Whether the layer of burn's of this name is a norm, a pool, or a rectifier.
pub(crate) fn has_no_product(burns: &str) -> bool {
    WITHOUT_PRODUCT.contains(&burns)
}

/// Returns the name of burn's layer for the name of a quantized one, `Linear` for `QuantLinear`; any other name
/// unchanged.
///
/// # Example
///
/// ```
/// use burn_quant::place::burn_layer_name;
///
/// assert_eq!(burn_layer_name("QuantLinear"), "Linear");
/// assert_eq!(burn_layer_name("QuantumNet"), "QuantumNet"); // not one of this crate
/// ```
pub fn burn_layer_name(container: &str) -> &str {
    let known = |name: &&str| BURNS.iter().any(|(burns, ..)| burns == name) || OTHERS.contains(name);
    container.strip_prefix("Quant").filter(known).unwrap_or(container)
}

/// Where the inputs and outputs of burn's layer with a weight, or of ours, have their channels.
pub(crate) fn role_of_inputs(container: &str) -> Option<Role> {
    let name = burn_layer_name(container);
    let (_, rank, ..) = BURNS.iter().find(|(burns, ..)| *burns == name)?;
    Some(if *rank > 2 { Role::ChannelsFirst } else { Role::ChannelsLast })
}

/// The rank and the layout of the weight of burn's layer.
pub fn burns(container: &str, field: &str) -> Option<(usize, WeightLayout)> {
    let name = burn_layer_name(container);
    let (_, rank, channel_axis, block_axis) =
        BURNS.iter().find(|(burns, ..)| *burns == name).filter(|_| field == "weight")?;
    Some((*rank, WeightLayout::new(*channel_axis, *block_axis)))
}
