//! The quantizer of one tensor.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use burn_quant_ops::Groups;
use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat, Signedness};

use super::buffers::Buffers;
use super::packed::{FloatInputs, PackedWeight, PackedWords};
use super::tap::TapSlot;
use super::{AnyTensor, Buffer, Tap};
use crate::config::{BiasSource, LearnedAmax, QuantizerConfig, RangeSource};
use crate::error::{NotPackedReason, QuantError};
use crate::layout::Role;

/// Quantizes and dequantizes a tensor: a field of a layer, or attached to a weight.
///
/// ```text
/// x ► · pre_quant_scale ► rotation ► − bias ► rounding ► + bias ► inverse rotation ► the rest of the chain
/// ```
///
/// A new quantizer is disabled: it is exactly the identity until a configuration enables it, so a model with activation
/// quantizers trains in float like any other. Its buffers, the range `amax` above all, are recorded, moved and cloned
/// with the weights, and stay f32 when they are cast. No optimizer changes them, except ranges that a gradient rule
/// learns and the factors of a low-rank adapter.
///
/// As a field of your own module it needs a call of [`forward`](TensorQuantizer::forward) at the tensor it quantizes;
/// rules find it by the path of the field. As the reparameterization of a weight it is placed by `quantize`.
///
/// A configuration with further ones in [`then`](QuantizerConfig::then) makes a chain: each of its stages is a
/// quantizer with a range of its own, calibrated on the tensor as it comes in. The first stage has the name of the
/// chain, the others have it with `.1`, `.2` appended.
///
/// Clones are independent. While a model is watched they report to one place; once the watching ends they do not.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::{QuantizerConfig, TensorQuantizer};
/// use burn_quant::place::Role;
///
/// let x = Tensor::<1>::from_data([-1.0, 0.3, 0.6], &Device::flex());
/// let mut quantizer = TensorQuantizer::disabled(Role::ChannelsLast);
/// assert_eq!(quantizer.forward(x.clone()).to_data(), x.to_data());
///
/// quantizer.set_config(QuantizerConfig::int(2).dynamic());
/// quantizer.enable();
/// assert_eq!(quantizer.forward(x).into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.0, 1.0]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TensorQuantizer {
    /// On the heap, as a model with many quantizers lies on the stack.
    pub(super) config: Box<QuantizerConfig>,
    pub(super) role: Role,
    pub(super) enabled: bool,
    pub(super) tap: TapSlot,
    pub(super) buffers: Buffers,
    /// The stages after this one.
    pub(super) chain: Vec<TensorQuantizer>,
    /// Groups of channels of the convolution that it stands before, which its weight does not tell.
    convolution_groups: usize,
    /// The weight as it was rounded, in a copy of the model for validation.
    pub(super) rounded: Option<Arc<OnceLock<AnyTensor>>>,
    /// The weight, in a packed model.
    pub(super) packed: Option<Box<PackedWeight>>,
}

impl TensorQuantizer {
    /// Creates an enabled quantizer.
    ///
    /// A static one needs a range before its first [`forward`](TensorQuantizer::forward): calibrate, or
    /// [set it](TensorQuantizer::set_amax).
    pub fn new(config: QuantizerConfig, role: Role) -> Self {
        let mut quantizer = Self::stage(QuantizerConfig::default(), role);
        quantizer.set_config(config);
        quantizer
    }

    /// Creates a disabled quantizer, which is the identity until a rule configures it.
    ///
    /// It is the field of a layer of your own: `quantize` finds it by its name.
    pub fn disabled(role: Role) -> Self {
        Self { enabled: false, ..Self::new(QuantizerConfig::default(), role) }
    }

    fn stage(config: QuantizerConfig, role: Role) -> Self {
        let buffers = Buffers::new(matches!(role, Role::Weight(_)));
        Self {
            config: Box::new(config),
            role,
            enabled: true,
            tap: TapSlot::default(),
            buffers,
            chain: Vec::new(),
            convolution_groups: 1,
            rounded: None,
            packed: None,
        }
    }

    /// Returns what the quantizer does.
    ///
    /// To change it, see [`set_config`](TensorQuantizer::set_config).
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// Returns what its tensors are: a weight, or activations with channels on one axis or the other.
    ///
    /// Granularities are resolved by it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the quantizer for tensors with another axis layout.
    ///
    /// The number of groups must not change: ranges are kept.
    pub fn for_layout(mut self, role: Role) -> Self {
        self.role = role;
        self.chain = self.chain.into_iter().map(|stage| stage.for_layout(role)).collect();
        self
    }

    /// Returns whether the quantizer does anything.
    ///
    /// A disabled quantizer is exactly the identity, except for a pre-quantization scale that it keeps.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Returns a tensor that the quantizer keeps, if it has it: f32, in the units of the quantized tensor.
    ///
    /// Shapes are those of [`Buffer`].
    pub fn buffer(&self, buffer: Buffer) -> Option<Tensor<1>> {
        self.buffers.get(buffer)
    }

    /// Returns the range of each group, f32 `[groups]` in the units of the tensor.
    ///
    /// `None` if it has none: it is dynamic, constant, or was never calibrated. The range after rounding, where it is
    /// separate, is [`Buffer::AmaxPost`].
    pub fn amax(&self) -> Option<Tensor<1>> {
        self.buffer(Buffer::Amax)
    }

    /// Changes what it does. A range or bias is kept if it is one of the same elements, after the same bias and
    /// rotation, and dropped otherwise. Separate ranges before and after rounding begin as the range that was there,
    /// and are dropped together where they are no longer separate.
    pub fn set_config(&mut self, config: QuantizerConfig) {
        let same_range = config.granularity == self.config.granularity
            && config.has_range_of_tensor() == self.config.has_range_of_tensor()
            && config.bias == self.config.bias
            && config.rotation == self.config.rotation;
        // neither of two ranges is the one of a quantizer that has one
        let one_of_two = self.config.has_two_ranges() && !config.has_two_ranges();
        if !same_range || config.range != RangeSource::Static || one_of_two {
            self.buffers.clear(Buffer::Amax);
            self.buffers.clear(Buffer::AmaxPost);
        }
        if !same_range || config.scale != self.config.scale {
            self.buffers.clear(Buffer::GlobalAmax);
        }
        if config.bias != self.config.bias {
            self.buffers.clear(Buffer::Bias);
        }
        self.chain.truncate(config.then.len());
        for (i, next) in config.then.iter().enumerate() {
            match self.chain.get_mut(i) {
                Some(stage) => stage.set_config(next.clone()),
                None => self.chain.push(Self::stage(next.clone(), self.role)),
            }
        }
        self.buffers.learn(learned_buffers(&config));
        *self.config = config;
        if self.config.has_two_ranges() && !self.buffers.has(Buffer::AmaxPost) {
            self.buffers.get(Buffer::Amax).into_iter().for_each(|amax| self.buffers.set(Buffer::AmaxPost, amax));
        }
    }

    /// Sets the range of each group, in the units of the tensor: finite numbers, of which the magnitude is taken.
    ///
    /// Separate ranges before and after rounding are both set; then set [`Buffer::AmaxPost`] if they differ.
    ///
    /// With dynamic block scales it is the range of the tensor, one element; with static ones set
    /// [`Buffer::GlobalAmax`] too.
    ///
    /// # Panics
    ///
    /// If the range is dynamic or constant: it has no tensor.
    pub fn set_amax(&mut self, amax: Tensor<1>) {
        self.set_buffer(Buffer::Amax, amax);
    }

    /// Sets the range of each group, checked: reads the values from the device.
    ///
    /// # Errors
    ///
    /// [`QuantError::Range`] if a value is negative, infinite or not a number, or if the range is dynamic or constant.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant::{QuantizerConfig, TensorQuantizer};
    /// use burn_quant::place::Role;
    ///
    /// let mut quantizer = TensorQuantizer::new(QuantizerConfig::int(8), Role::ChannelsLast);
    /// assert!(quantizer.try_set_amax(Tensor::from_data([f32::NAN], &Device::flex())).is_err());
    /// # }
    /// ```
    pub fn try_set_amax(&mut self, amax: Tensor<1>) -> Result<(), QuantError> {
        if !self.keeps(Buffer::Amax) {
            return Err(QuantError::Range { found: "a range".into(), expected: "none, as it is dynamic or constant" });
        }
        let values: Vec<f32> = amax.clone().into_data().convert::<f32>().try_into_vec().expect("f32 data");
        if let Some(found) = values.iter().find(|value| !value.is_finite() || **value < 0.0) {
            return Err(QuantError::Range { found: found.to_string(), expected: "finite and not negative" });
        }
        self.set_amax(amax);
        Ok(())
    }

    /// Sets a tensor that it keeps, in the units of the quantized tensor; f32 whatever it was. [`Buffer::Amax`] sets
    /// [`Buffer::AmaxPost`] too, where there is one.
    ///
    /// # Panics
    ///
    /// If the configuration has no use for it: a range of a quantizer that is not static, a global range without static
    /// block scales, a bias of a quantizer without a static one.
    pub fn set_buffer(&mut self, buffer: Buffer, values: Tensor<1>) {
        assert!(
            self.keeps(buffer),
            "TensorQuantizer: `{}` is not set, as its configuration does not use it",
            buffer.name()
        );
        if buffer == Buffer::Amax && self.config.has_two_ranges() {
            self.buffers.set(Buffer::AmaxPost, values.clone());
        }
        self.buffers.set(buffer, values);
    }

    /// Returns whether the configuration has a use for a buffer.
    ///
    /// A buffer without use cannot be set.
    pub fn keeps(&self, buffer: Buffer) -> bool {
        if self.packed.is_some() {
            return matches!(buffer, Buffer::LowRankDown | Buffer::LowRankUp); // ranges are in the scales
        }
        match buffer {
            Buffer::Amax => self.config.range == RangeSource::Static,
            Buffer::AmaxPost => self.config.range == RangeSource::Static && self.config.has_two_ranges(),
            Buffer::GlobalAmax => self.has_static_blocks(),
            Buffer::Bias => self.config.bias.as_ref().is_some_and(|bias| bias.source == BiasSource::Static),
            Buffer::PreQuantScale | Buffer::LowRankDown | Buffer::LowRankUp => true,
        }
    }

    /// Removes a tensor that the quantizer keeps.
    ///
    /// A static quantizer without a range is uncalibrated.
    pub fn clear_buffer(&mut self, buffer: Buffer) {
        self.buffers.clear(buffer);
    }

    /// Returns the weight as codes and scales, in a packed model.
    ///
    /// `None` if the weight is held in float.
    pub fn packed(&self) -> Option<&PackedWeight> {
        self.packed.as_deref()
    }

    /// Whether it can take the place of a quantizer of a model: a packed weight stays what it is.
    pub(crate) fn can_replace(&self, present: &Self) -> bool {
        match &self.packed {
            Some(packed) => packed.is_of(self),
            None => present.packed.is_none(),
        }
    }

    /// Checks whether a weight of this shape has a packed form, as far as its values do not matter.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] with the reason why not.
    pub fn check_packing(&self, shape: &[usize]) -> Result<(), NotPackedReason> {
        PackedWeight::check(shape, self)
    }

    /// Returns the quantizer with the weight that it rounds packed: it holds codes and scales, and its ranges
    /// and biases with them.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] with the reason why the weight has no packed form.
    pub fn packing<const D: usize>(
        &self,
        weight: Tensor<D>,
        float_inputs: FloatInputs,
    ) -> Result<Self, NotPackedReason> {
        Ok(self.holding(PackedWeight::pack(weight, self, float_inputs)?))
    }

    /// Returns the quantizer with a packed weight that was read from a file.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] if these are no words of a weight that this quantizer rounds.
    pub fn holding_words(&self, words: &PackedWords, device: &Device) -> Result<Self, NotPackedReason> {
        Ok(self.holding(PackedWeight::from_words(words, self, device)?))
    }

    fn holding(&self, packed: PackedWeight) -> Self {
        let mut quantizer = self.clone();
        [Buffer::Amax, Buffer::GlobalAmax, Buffer::Bias].into_iter().for_each(|buffer| quantizer.buffers.clear(buffer));
        quantizer.rounded = None;
        quantizer.packed = Some(Box::new(packed));
        quantizer
    }

    /// Switches the quantizer on, with all stages of its chain.
    ///
    /// One that is static and was never calibrated panics in its next forward pass; `enable` by glob is an error there.
    pub fn enable(&mut self) {
        self.enabled = true;
    }

    /// Switches it off, with its chain; it keeps its configuration and buffers. A pre-quantization scale still acts:
    /// the weights that follow have been divided by it.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    /// Returns whether the quantizer, or a stage of its chain, needs a range or a bias and has none.
    ///
    /// Such a quantizer panics in its forward pass.
    pub fn is_uncalibrated(&self) -> bool {
        let lacks = |stage: &Self| {
            let two_ranges = stage.config.has_two_ranges();
            (stage.config.has_static_range() && !stage.buffers.has(Buffer::Amax))
                || (stage.config.has_static_range() && two_ranges && !stage.buffers.has(Buffer::AmaxPost))
                || (stage.config.has_static_range()
                    && stage.has_static_blocks()
                    && !stage.buffers.has(Buffer::GlobalAmax))
                || (stage.config.has_static_bias() && !stage.buffers.has(Buffer::Bias))
        };
        self.enabled && self.packed.is_none() && (lacks(self) || self.chain.iter().any(lacks))
    }

    /// Returns whether the quantizer, or a stage of its chain, has a range or a bias to find in calibration.
    ///
    /// Dynamic and constant ranges need none.
    pub fn needs_calibration(&self) -> bool {
        self.enabled && self.packed.is_none() && self.config.needs_calibration()
    }

    /// Returns the stages of the chain with their names, this one first, which has the name given.
    ///
    /// The following ones have a number after it: `fc.weight_quantizer.1`.
    pub fn stages<'a>(&'a self, name: &str) -> impl Iterator<Item = (String, &'a TensorQuantizer)> {
        let names = (0..=self.chain.len()).map(|i| stage_name(name, i)).collect::<Vec<_>>();
        names.into_iter().zip(std::iter::once(self).chain(&self.chain))
    }

    /// Calls `f` with the stages of the chain and their names, this one first.
    ///
    /// Stages can be edited.
    pub fn for_each_stage(&mut self, name: &str, mut f: impl FnMut(String, &mut TensorQuantizer)) {
        let mut chain = std::mem::take(&mut self.chain);
        f(stage_name(name, 0), self);
        chain.iter_mut().enumerate().for_each(|(i, stage)| f(stage_name(name, i + 1), stage));
        self.chain = chain;
    }

    /// Returns a stage of the chain to be edited: 0 is the quantizer itself.
    ///
    /// `None` beyond the last stage.
    pub fn stage_mut(&mut self, stage: usize) -> Option<&mut TensorQuantizer> {
        if stage == 0 { Some(self) } else { self.chain.get_mut(stage - 1) }
    }

    /// The groups that its granularity makes of a tensor of this shape.
    ///
    /// # Panics
    ///
    /// If the granularity lists axes for another rank.
    pub fn groups(&self, shape: &[usize]) -> Groups {
        self.config.granularity.groups(self.role, shape)
    }

    /// The groups of a tensor of this shape that have a range: those of its granularity, or one where block scales are
    /// dynamic.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::groups`].
    pub fn range_groups(&self, shape: &[usize]) -> Groups {
        if self.config.has_range_of_tensor() { Groups::per_tensor(shape) } else { self.groups(shape) }
    }

    /// The groups of a tensor of this shape that have a bias.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::groups`].
    pub fn bias_groups(&self, shape: &[usize]) -> Option<Groups> {
        Some(self.config.bias.as_ref()?.granularity.groups(self.role, shape))
    }

    /// Returns how many numbers a buffer has for a tensor of this shape; `None` for the factors of a branch, whose rank
    /// is free.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::groups`].
    pub fn buffer_len(&self, buffer: Buffer, shape: &[usize]) -> Option<usize> {
        match buffer {
            Buffer::Amax | Buffer::AmaxPost => Some(self.range_groups(shape).len()),
            Buffer::GlobalAmax => Some(1),
            Buffer::Bias => Some(self.bias_groups(shape).map_or(0, |groups| groups.len())),
            Buffer::PreQuantScale => Some(shape[self.role.block_axis(shape.len())]),
            Buffer::LowRankDown | Buffer::LowRankUp => None,
        }
    }

    /// Shows what comes to this stage to a tap, as long as somebody else holds it.
    pub(crate) fn set_tap(&mut self, tap: &Arc<dyn Tap>) {
        self.tap = TapSlot::of(tap);
    }

    /// Returns the quantizer of the inputs of a convolution in groups of channels.
    ///
    /// Which weights share a channel's scale depends on the groups.
    pub fn before_convolution(mut self, groups: usize) -> Self {
        self.convolution_groups = groups;
        self
    }

    pub(crate) fn convolution_groups(&self) -> usize {
        self.convolution_groups
    }

    /// Whether it changes nothing, as a layer without it would.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] with the name of the field.
    pub fn refuse(&self, field: &str) -> Result<(), QuantError> {
        self.refuse_enabled(field)?;
        match self.buffers.has(Buffer::PreQuantScale) {
            true => Err(QuantError::NotBurn { quantizer: field.into(), what: "scales its input" }),
            false => Ok(()),
        }
    }

    /// Whether it rounds nothing.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] with the name of the field.
    pub fn refuse_enabled(&self, field: &str) -> Result<(), QuantError> {
        match self.enabled {
            true => Err(QuantError::NotBurn { quantizer: field.into(), what: "is enabled" }),
            false => Ok(()),
        }
    }

    pub(crate) fn clear_tap(&mut self) {
        self.tap = TapSlot::default();
    }

    /// Returns where the quantizer's tensors are, if it keeps some.
    ///
    /// A dynamic quantizer keeps none and works on any device.
    pub fn device(&self) -> Option<Device> {
        self.buffers.device().or_else(|| self.chain.iter().find_map(Self::device))
    }

    /// Returns whether the codes are unsigned integers, which negative values do not have.
    ///
    /// Negative calibration data is then an error.
    pub fn is_unsigned(&self) -> bool {
        matches!(self.config.format, Format::Int(int) if int.signedness() == Signedness::Unsigned)
    }

    /// Returns whether the blocks have static E4M3 scales.
    ///
    /// Then there is a range for each block, and one for the tensor.
    pub fn has_static_blocks(&self) -> bool {
        matches!(self.config.scale, ScaleFormat::E4M3(BlockScale::Static | BlockScale::StaticFourOverSix))
    }
}

/// The ranges that training changes.
fn learned_buffers(config: &QuantizerConfig) -> &'static [Buffer] {
    match config.learned_ranges.map(|ranges| ranges.learned) {
        None if !config.gradient.learns_range() => &[],
        None | Some(LearnedAmax::Tied | LearnedAmax::Pre) => &[Buffer::Amax],
        Some(LearnedAmax::Post) => &[Buffer::AmaxPost],
        Some(LearnedAmax::PreAndPost) => &[Buffer::Amax, Buffer::AmaxPost],
    }
}

/// The name of a stage of a chain: that of the chain, with the number of the stage after the first.
fn stage_name(name: &str, stage: usize) -> String {
    if stage == 0 { name.into() } else { format!("{name}.{stage}") }
}
