//! A linear layer, as algorithms see it: both halves of everything that a step may move between weight and input.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::Groups;

use super::SkipReason;
use crate::observe::{ChannelStatistics, Gram};
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

/// What is known of the inputs of a layer, on its device.
#[derive(Clone, Debug)]
pub struct LayerInput {
    /// Tokens seen.
    pub tokens: u64,
    /// The largest magnitude of each channel, `[in]`.
    pub amax: Tensor<1>,
    /// The mean of each channel, `[in]`.
    pub mean: Tensor<1>,
    /// The mean magnitude of each channel, `[in]`.
    pub mean_abs: Tensor<1>,
    /// Products of channels, divided by the number of tokens; `None` unless the algorithm asked for them.
    pub gram: Option<Gram>,
}

impl LayerInput {
    pub(super) fn new(seen: &ChannelStatistics, weight: &Tensor<2>) -> Self {
        let device = weight.device();
        let tensor = |values: &[f32]| Tensor::<1>::from_data(values, (&device, DType::F32));
        let mean = |sums: &[f32]| tensor(sums) / seen.tokens.max(1) as f32;
        Self {
            tokens: seen.tokens,
            amax: tensor(&seen.amax),
            mean: mean(&seen.sum),
            mean_abs: mean(&seen.sum_abs),
            gram: seen.gram.as_ref().map(|gram| Gram::on_device(gram, seen.tokens, &device)),
        }
    }

    /// The inputs times a factor per channel.
    fn scaled(self, factor: &Tensor<1>) -> Self {
        Self {
            tokens: self.tokens,
            amax: self.amax * factor.clone(),
            mean: self.mean * factor.clone(),
            mean_abs: self.mean_abs * factor.clone(),
            gram: self.gram.map(|gram| gram.scaled(factor)),
        }
    }
}

/// A linear layer with its quantizers and what is known of its inputs: what a
/// [`CalibrationAlgorithm`](super::CalibrationAlgorithm) gets, and what it returns a changed copy of.
///
/// ```text
/// y = Qi(x ⊙ s) · Qw(W) + (x ⊙ s) · down · up + bias
/// ```
///
/// The weight is `[in, out]` and f32, whatever its layout and dtype in the model. What belongs together changes
/// together: [`smoothed`](LayerProblem::smoothed) divides the weight and the branch by what it multiplies inputs by.
/// Copies are cheap: tensors are shared until they are changed.
#[derive(Clone, Debug)]
pub struct LayerProblem {
    name: String,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    weight_quantizer: TensorQuantizer,
    input_quantizer: Option<TensorQuantizer>,
    input: Option<LayerInput>,
    /// Whether sums over the inputs were too large for f32, so that nothing is known of them.
    overflowed: bool,
    /// What inputs have been multiplied by since they were observed, `[in]`.
    scale: Option<Tensor<1>>,
    low_rank: Option<(Tensor<2>, Tensor<2>)>,
    takes_low_rank: bool,
    /// What the weight is kept in.
    dtype: DType,
    original: Original,
}

/// A layer as it was before calibration.
#[derive(Clone, Debug)]
struct Original {
    /// `[in, out]`
    weight: Tensor<2>,
    /// The weight with the branch that was there, `[in, out]`: what outputs came from.
    effective: Tensor<2>,
    input: Option<LayerInput>,
}

impl LayerProblem {
    pub(super) fn new(
        name: String,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        weight_quantizer: TensorQuantizer,
        input: Option<(TensorQuantizer, Option<&ChannelStatistics>)>,
        takes_low_rank: bool,
    ) -> Self {
        let dtype = weight.dtype();
        let weight = canonical(weight, &weight_quantizer).cast(DType::F32);
        let (input_quantizer, seen) = match input {
            Some((quantizer, seen)) => (Some(quantizer), seen),
            None => (None, None),
        };
        let overflowed = seen.is_some_and(|seen| !seen.is_finite());
        let input = seen.filter(|seen| seen.tokens > 0 && !overflowed).map(|seen| LayerInput::new(seen, &weight));
        let low_rank = input_quantizer.as_ref().and_then(|quantizer| branch_of(quantizer, weight.dims()));
        let effective = match &low_rank {
            None => weight.clone(),
            Some((down, up)) => weight.clone() + down.clone().matmul(up.clone()),
        };
        Self {
            name,
            original: Original { weight: weight.clone(), effective, input: input.clone() },
            weight,
            bias: bias.map(|bias| bias.cast(DType::F32)),
            weight_quantizer,
            input_quantizer,
            input,
            overflowed,
            scale: None,
            low_rank,
            takes_low_rank,
            dtype,
        }
    }

    /// Returns the path of the layer in the model.
    ///
    /// Reports name the layer by it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the weight before it is quantized, `[in, out]`.
    ///
    /// Earlier steps may have smoothed or corrected it.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.clone()
    }

    /// Returns the weight before calibration, `[in, out]`.
    ///
    /// No step has changed it.
    pub fn original_weight(&self) -> Tensor<2> {
        self.original.weight.clone()
    }

    /// Returns the bias, `[out]`.
    ///
    /// `None` if the layer has none.
    pub fn bias(&self) -> Option<Tensor<1>> {
        self.bias.clone()
    }

    /// Returns the quantizer of the weight.
    ///
    /// Its range is that of `max`, or of the steps so far.
    pub fn weight_quantizer(&self) -> &TensorQuantizer {
        &self.weight_quantizer
    }

    /// The quantizer of the input, which may be off.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NoActivationQuantizer`] if the layer has none.
    pub fn input_quantizer(&self) -> Result<&TensorQuantizer, SkipReason> {
        self.input_quantizer.as_ref().ok_or(SkipReason::NoActivationQuantizer)
    }

    /// What is known of the inputs as they are now: smoothed, if the layer is.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NoActivationQuantizer`] if the layer has no quantizer for its inputs, [`SkipReason::NoData`] if no
    /// data reached it, [`SkipReason::Overflow`] if sums over the data are too large for f32.
    pub fn input(&self) -> Result<&LayerInput, SkipReason> {
        self.input_quantizer()?;
        self.input.as_ref().ok_or(if self.overflowed { SkipReason::Overflow } else { SkipReason::NoData })
    }

    /// The Gram matrix of the inputs as they are now.
    ///
    /// # Errors
    ///
    /// As [`LayerProblem::input`], and [`SkipReason::NoData`] if it was not collected.
    pub fn gram(&self) -> Result<&Gram, SkipReason> {
        self.input()?.gram.as_ref().ok_or(SkipReason::NoData)
    }

    /// Returns what the weight becomes under its quantizer, `[in, out]`.
    ///
    /// All stages of a chain act.
    pub fn quantized_weight(&self) -> Tensor<2> {
        self.quantize(self.weight_quantizer(), self.weight())
    }

    /// Quantizes a weight `[in, out]` with a quantizer of this layer's layout.
    ///
    /// The layer is unchanged.
    pub fn quantize(&self, quantizer: &TensorQuantizer, weight: Tensor<2>) -> Tensor<2> {
        canonical(quantizer.forward(canonical(weight, quantizer)), quantizer)
    }

    /// Returns a quantizer with the ranges of a weight `[in, out]` by `max`.
    ///
    /// It runs on the device without synchronisation.
    pub fn calibrate_max(&self, quantizer: &TensorQuantizer, weight: Tensor<2>) -> TensorQuantizer {
        quantizer.calibrated_max(&canonical(weight, quantizer))
    }

    /// The weight that, without quantization of inputs, gives the same outputs as the layer does now, `[in, out]`; for
    /// the inputs as they were observed.
    pub fn effective_weight(&self) -> Tensor<2> {
        let weight = match &self.low_rank {
            None => self.quantized_weight(),
            Some((down, up)) => self.quantized_weight() + down.clone().matmul(up.clone()),
        };
        match &self.scale {
            None => weight,
            Some(scale) => weight * scale.clone().unsqueeze_dim::<2>(1),
        }
    }

    /// Returns the mean squared error of an output that quantizing the weight causes, `[1]`.
    ///
    /// `tr(ΔWᵀ G ΔW) / out`; `None` without a Gram matrix.
    pub fn output_error(&self) -> Option<Tensor<1>> {
        self.output_error_of(self.weight_error())
    }

    /// What the effective weight differs from the original one by, `[in, out]`.
    pub(crate) fn weight_error(&self) -> Tensor<2> {
        self.effective_weight() - self.original.effective.clone()
    }

    /// [`LayerProblem::output_error`] of a change of the original weight.
    pub(crate) fn output_error_of(&self, change: Tensor<2>) -> Option<Tensor<1>> {
        let gram = self.original.input.as_ref()?.gram.as_ref()?;
        Some(gram.error(change) / self.original.weight.dims()[1] as f32)
    }

    /// Returns the mean square of an output, `[1]`.
    ///
    /// `tr(Wᵀ G W) / out`; `None` without a Gram matrix.
    pub fn output_power(&self) -> Option<Tensor<1>> {
        self.output_error_of(self.original.effective.clone())
    }

    /// Returns the mean of each output's error, `[out]`.
    ///
    /// `None` without data.
    pub fn output_shift(&self) -> Option<Tensor<1>> {
        let mean = self.original.input.as_ref()?.mean.clone().unsqueeze_dim::<2>(0);
        let shift = mean.matmul(self.weight_error());
        Some(shift.squeeze_dim(0))
    }

    /// The same with another weight, `[in, out]`, and unchanged ranges; it is rounded to the dtype that the model keeps
    /// it in.
    pub fn with_weight(&self, weight: Tensor<2>) -> Self {
        Self { weight: weight.cast(self.dtype).cast(DType::F32), ..self.clone() }
    }

    /// Returns the layer with another bias, `[out]`.
    ///
    /// A layer without one gets it.
    pub fn with_bias(&self, bias: Tensor<1>) -> Self {
        Self { bias: Some(bias), ..self.clone() }
    }

    /// Returns the layer with another quantizer of its weight: other ranges, as a rule.
    ///
    /// The weight is unchanged.
    pub fn with_weight_quantizer(&self, weight_quantizer: TensorQuantizer) -> Self {
        Self { weight_quantizer, ..self.clone() }
    }

    /// Returns the layer with the ranges of its weight by `max`.
    ///
    /// It undoes what a clipping step chose.
    pub fn with_max_weight_range(&self) -> Self {
        self.with_weight_quantizer(self.calibrate_max(&self.weight_quantizer, self.weight()))
    }

    /// The same with inputs multiplied by a factor per channel, `[in]`, and the weight divided by it: the same outputs,
    /// but for rounding. Ranges of weight and input become those of the new values by `max`.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NoActivationQuantizer`] and [`SkipReason::NoData`] as [`LayerProblem::input`]; what
    /// [`LayerProblem::can_smooth`] says.
    pub fn smoothed(&self, factor: Tensor<1>) -> Result<Self, SkipReason> {
        let factor = self.within_dtype(factor);
        let input = self.input()?.clone().scaled(&factor);
        let mut quantizer = self.can_smooth()?.clone();
        if quantizer.is_enabled() && quantizer.config().has_static_range() {
            let single = quantizer.range_groups(&[1, input.amax.dims()[0]]).len() == 1;
            quantizer.set_amax(if single { input.amax.clone().max() } else { input.amax.clone() });
        }
        let before = quantizer.buffer(Buffer::PreQuantScale);
        quantizer.set_buffer(
            Buffer::PreQuantScale,
            match before {
                None => factor.clone(),
                Some(before) => before * factor.clone(),
            },
        );
        let scale = match &self.scale {
            None => factor.clone(),
            Some(scale) => scale.clone() * factor.clone(),
        };
        let rows = factor.unsqueeze_dim::<2>(1);
        let weight = self.weight.clone() / rows.clone();
        let smoothed =
            Self { input: Some(input), input_quantizer: Some(quantizer), scale: Some(scale), ..self.clone() };
        // the branch multiplies the same inputs as the weight
        let smoothed = match self.low_rank.clone() {
            None => smoothed,
            Some((down, up)) => smoothed.with_branch(down / rows, up)?,
        };
        Ok(smoothed.with_weight(weight).with_max_weight_range())
    }

    /// Raises the factors by which a weight would leave the range of f16, if it is kept in f16.
    fn within_dtype(&self, factor: Tensor<1>) -> Tensor<1> {
        /// A power of two below the largest f16, 65504.
        const LARGEST: f32 = 32768.0;
        if self.dtype != DType::F16 {
            return factor;
        }
        let rows = self.weight.dims()[0];
        let least: Tensor<1> = self.weight.clone().abs().max_dim(1).reshape([rows]) / LARGEST;
        factor.max_pair(least)
    }

    /// The quantizer of the input, if a factor per channel can go before it.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NoActivationQuantizer`]; [`SkipReason::InputChain`]; [`SkipReason::Rotated`];
    /// [`SkipReason::InputGranularity`] if the new range cannot be told from those of channels.
    pub fn can_smooth(&self) -> Result<&TensorQuantizer, SkipReason> {
        let quantizer = self.input_quantizer()?;
        let config = quantizer.config();
        if !quantizer.is_enabled() {
            return Ok(quantizer);
        }
        if !config.then.is_empty() {
            return Err(SkipReason::InputChain);
        }
        if config.rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        let channels = self.original.weight.dims()[0];
        let (groups, centred) = (quantizer.range_groups(&[2, channels]), config.bias.is_some());
        let derivable = matches!(groups.counts(), [1, n] if [1, channels].contains(n)) && !centred;
        if config.has_static_range() && !derivable || config.has_static_bias() {
            return Err(SkipReason::InputGranularity);
        }
        Ok(quantizer)
    }

    /// Adds a branch of low rank beside the weight: `down` `[in, rank]`, `up` `[rank, out]`, for smoothed inputs that
    /// are not quantized. Beside a branch that is there already it stands as further ranks.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NoBranch`] if the layer cannot compute one.
    pub fn with_low_rank(&self, down: Tensor<2>, up: Tensor<2>) -> Result<Self, SkipReason> {
        match self.low_rank.clone() {
            None => self.with_branch(down, up),
            Some((left, right)) => self.with_branch(Tensor::cat(vec![left, down], 1), Tensor::cat(vec![right, up], 0)),
        }
    }

    /// Returns the branch of low rank as `down`, `[in, rank]`, and `up`, `[rank, out]`.
    ///
    /// `None` without one.
    pub fn low_rank(&self) -> Option<(Tensor<2>, Tensor<2>)> {
        self.low_rank.clone()
    }

    fn with_branch(&self, down: Tensor<2>, up: Tensor<2>) -> Result<Self, SkipReason> {
        let mut quantizer = self.input_quantizer()?.clone();
        if !self.takes_low_rank {
            return Err(SkipReason::NoBranch);
        }
        let flat = |x: Tensor<2>| {
            let [rows, columns] = x.dims();
            x.reshape([rows * columns])
        };
        quantizer.set_buffer(Buffer::LowRankDown, flat(down.clone()));
        quantizer.set_buffer(Buffer::LowRankUp, flat(up.clone()));
        Ok(Self { input_quantizer: Some(quantizer), low_rank: Some((down, up)), ..self.clone() })
    }

    /// Which elements of the weight share a range, as groups of `[in, out]`.
    ///
    /// # Errors
    ///
    /// [`SkipReason::WeightChain`] and [`SkipReason::Rotated`] for a weight whose ranges are not those of its elements.
    pub fn weight_groups(&self) -> Result<Groups, SkipReason> {
        let config = self.weight_quantizer.config();
        if !config.then.is_empty() {
            return Err(SkipReason::WeightChain);
        }
        if config.rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        Ok(self.native_groups(&self.weight_quantizer))
    }

    /// The groups of a quantizer of the weight, in the weight's own layout.
    pub(super) fn native_groups(&self, quantizer: &TensorQuantizer) -> Groups {
        let [inputs, outputs] = self.original.weight.dims();
        if is_transposed(quantizer) {
            quantizer.groups(&[outputs, inputs])
        } else {
            quantizer.groups(&[inputs, outputs])
        }
    }

    /// A tensor `[in, out]` in the layout that the weight has in the model.
    pub(super) fn native(&self, x: Tensor<2>) -> Tensor<2> {
        canonical(x, &self.weight_quantizer)
    }

    /// Returns what the inputs have been multiplied by since they were observed, `[in]`.
    ///
    /// `None` if no step smoothed the layer.
    pub fn scale(&self) -> Option<Tensor<1>> {
        self.scale.clone()
    }

    /// The same without the effect of smoothing, but with a scale of ones: what an algorithm leaves where no data
    /// arrived.
    pub(super) fn with_scale_of_ones(&self) -> Self {
        let mut same = self.clone();
        if let Some(quantizer) = &mut same.input_quantizer
            && quantizer.buffer(Buffer::PreQuantScale).is_none()
        {
            let ones = Tensor::ones([self.original.weight.dims()[0]], (&self.original.weight.device(), DType::F32));
            quantizer.set_buffer(Buffer::PreQuantScale, ones);
        }
        same
    }

    pub(super) fn set_global_amax(&mut self, amax: Tensor<1>) {
        self.weight_quantizer.set_buffer(Buffer::GlobalAmax, amax);
    }

    /// The parts that go back into the model: weight in its own layout, bias, quantizers.
    #[allow(clippy::type_complexity)]
    pub(super) fn into_parts(self) -> (Tensor<2>, Option<Tensor<1>>, TensorQuantizer, Option<TensorQuantizer>) {
        (canonical(self.weight, &self.weight_quantizer), self.bias, self.weight_quantizer, self.input_quantizer)
    }
}

/// The branch that a quantizer of inputs keeps, as factors of a weight `[in, out]`.
fn branch_of(quantizer: &TensorQuantizer, [inputs, outputs]: [usize; 2]) -> Option<(Tensor<2>, Tensor<2>)> {
    let (down, up) = quantizer.buffer(Buffer::LowRankDown).zip(quantizer.buffer(Buffer::LowRankUp))?;
    let rank = down.dims()[0] / inputs.max(1);
    let (down, up) = (down.without_autodiff(), up.without_autodiff());
    Some((down.reshape([inputs, rank]), up.reshape([rank, outputs])))
}

/// Whether a weight is `[out, in]` in the model.
fn is_transposed(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(layout) if layout.block_axis == 1)
}

/// A weight as `[in, out]`; or, from there, in the layout of the model.
fn canonical(weight: Tensor<2>, quantizer: &TensorQuantizer) -> Tensor<2> {
    if is_transposed(quantizer) { weight.transpose() } else { weight }
}
