//! Tokens as codes: what a quantizer of keys or values makes of them, as a cache holds it.

use burn::tensor::{DType, Int, Tensor};
use burn_quant_ops::numerics::ScaleFormat;
use burn_quant_ops::{NotPacked, PackedRows, RowRanges, RowsLayout};

use super::refusal;
use crate::config::{Granularity, RangeSource};
use crate::error::NotPackedReason;
use crate::quantizer::{Buffer, TensorQuantizer};

/// How tokens are packed: the format of a quantizer and, where they are given, its ranges.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::error::NotPackedReason> {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_quant::QuantizerConfig;
/// use burn_quant::compress::TokenCodec;
/// use burn_quant::place::Role;
/// use burn_quant::quantizer::TensorQuantizer;
///
/// let quantizer = TensorQuantizer::new(QuantizerConfig::int(8).per_token().dynamic(), Role::ChannelsLast);
/// let codec = TokenCodec::of(&quantizer)?;
/// let keys = Tensor::<4>::random([1, 2, 5, 64], Distribution::Normal(0.0, 1.0), &Device::flex()); // five tokens
/// let packed = codec.pack(keys.clone());
/// assert_eq!(packed.bytes_per_token(), 2 * (64 + 4)); // of each of two heads: codes, and a range in f32
/// assert_eq!(packed.unpack().to_data(), quantizer.forward(keys).to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct TokenCodec {
    quantizer: TensorQuantizer,
    /// The range of the tensor under E4M3 scales.
    global_amax: f32,
}

impl TokenCodec {
    /// Makes the codec of a quantizer that acts on `[batch, heads, tokens, features]`.
    ///
    /// The range of the tensor that E4M3 scales stand under is read from the device, once.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] if the quantizer is off or was never calibrated, if it does more than round once, and unless
    /// its ranges are those of each token, or the same for all.
    pub fn of(quantizer: &TensorQuantizer) -> Result<Self, NotPackedReason> {
        if !quantizer.is_enabled() {
            return Err(NotPackedReason::Disabled);
        }
        refusal::check_around_zero(quantizer)?;
        let config = quantizer.config();
        let amax = quantizer.buffer(Buffer::Amax);
        if matches!(&config.granularity, Granularity::Axes(axes) if axes.len() != 4) {
            return Err(NotPackedReason::NotOfTokens);
        }
        let features = amax.as_ref().map_or(1, |amax| amax.dims()[0]).max(64);
        let groups = quantizer.groups(&[2, 3, 5, features]);
        let of_tokens = groups.counts()[..3] == [2, 3, 5];
        let of_all = groups.counts()[..3] == [1, 1, 1];
        match (config.scale, config.range) {
            (ScaleFormat::F32, RangeSource::Static | RangeSource::Constant(_)) if of_all => {}
            (ScaleFormat::F32, RangeSource::Dynamic) if of_tokens => {}
            (ScaleFormat::E8M0, _) if of_tokens => {}
            (ScaleFormat::E4M3(_), RangeSource::Static | RangeSource::Constant(_)) if of_tokens => {}
            (ScaleFormat::F32 | ScaleFormat::E4M3(_), RangeSource::Dynamic) => {
                return Err(NotPackedReason::ChangingRange);
            }
            _ => return Err(NotPackedReason::NotOfTokens),
        }
        RowsLayout::new(features, groups.size(3), config.format, config.scale).map_err(NotPacked::from)?;
        let global_amax = match (config.scale, config.range, amax) {
            (ScaleFormat::E4M3(_), RangeSource::Constant(amax), _) => amax,
            (ScaleFormat::E4M3(_), _, Some(amax)) => amax.without_autodiff().max().into_scalar::<f32>(),
            _ => 0.0,
        };
        Ok(Self { quantizer: quantizer.clone(), global_amax })
    }

    /// Packs tokens `[batch, heads, tokens, features]`, each on its own.
    ///
    /// There is no gradient. A value that is not a number becomes zero, unless the range is that of its token, in f32,
    /// which then makes the token no number either.
    ///
    /// # Panics
    ///
    /// If there is a calibrated range for each of another number of features.
    pub fn pack(&self, x: Tensor<4>) -> PackedTokens {
        let ([batch, heads, tokens, features], config, dtype) = (x.dims(), self.quantizer.config(), x.dtype());
        let groups = self.quantizer.groups(&[batch, heads, tokens, features]);
        let layout = RowsLayout::new(features, groups.size(3), config.format, config.scale).expect("it was checked");
        let layout = layout.with_global_amax(self.global_amax);
        let blocks = layout.blocks();
        let ranges = match (config.scale, config.range) {
            (ScaleFormat::F32, RangeSource::Constant(amax)) => {
                RowRanges::Given(Tensor::full([blocks], amax, (&x.device(), DType::F32)))
            }
            (ScaleFormat::F32, RangeSource::Static) => RowRanges::Given(self.quantizer.calibrated(Buffer::Amax)),
            _ => RowRanges::OfRow,
        };
        if x.shape().num_elements() == 0 {
            let device = x.device();
            let own = |amax: RowRanges| matches!(amax, RowRanges::OfRow) && config.scale == ScaleFormat::F32;
            let none = |len: usize| Tensor::<4>::zeros([batch, heads, tokens, len], (&device, DType::F32));
            let given = if let RowRanges::Given(given) = &ranges { Some(given.clone()) } else { None };
            let words = none(layout.words()).int().cast(DType::I32);
            return PackedTokens { words, ranges: own(ranges).then(|| none(blocks)), given, layout, dtype };
        }
        let rows = PackedRows::pack(x.reshape([batch * heads * tokens, features]), ranges, layout);
        PackedTokens {
            words: rows.words.reshape([batch, heads, tokens, layout.words()]),
            ranges: rows.ranges.map(|ranges| ranges.reshape([batch, heads, tokens, blocks])),
            given: rows.given,
            layout,
            dtype,
        }
    }
}

/// Tokens as codes and scales, `[batch, heads, tokens, features]`: keys or values of the tokens so far.
#[derive(Clone, Debug)]
pub struct PackedTokens {
    /// `[batch, heads, tokens, words]`.
    words: Tensor<4, Int>,
    /// `[batch, heads, tokens, blocks]`, if tokens have f32 ranges of their own.
    ranges: Option<Tensor<4>>,
    /// The f32 ranges of all tokens.
    given: Option<Tensor<1>>,
    layout: RowsLayout,
    dtype: DType,
}

impl PackedTokens {
    /// Adds tokens that the same codec packed.
    ///
    /// # Panics
    ///
    /// If the batch, the heads, the features or the dtype are others.
    pub fn extend(&mut self, more: Self) {
        assert_eq!(self.layout, more.layout, "PackedTokens: tokens of one codec, and as many features");
        self.dtype = if self.tokens() == 0 { more.dtype } else { self.dtype };
        assert_eq!(self.dtype, more.dtype, "PackedTokens: tokens of one dtype");
        self.words = Tensor::cat(vec![self.words.clone(), more.words], 2);
        self.ranges = self.ranges.take().zip(more.ranges).map(|(all, more)| Tensor::cat(vec![all, more], 2));
    }

    /// Returns the values of all tokens, as fake quantization leaves them where they were numbers, in the dtype that
    /// they came in.
    ///
    /// `[batch, heads, tokens, features]`.
    pub fn unpack(&self) -> Tensor<4> {
        let [batch, heads, tokens, words] = self.words.dims();
        let (rows, blocks) = (batch * heads * tokens, self.layout.blocks());
        if rows * self.layout.features() == 0 {
            let shape = [batch, heads, tokens, self.layout.features()];
            return Tensor::zeros(shape, (&self.words.device(), self.dtype));
        }
        let packed = PackedRows {
            words: self.words.clone().reshape([rows, words]),
            ranges: self.ranges.clone().map(|ranges| ranges.reshape([rows, blocks])),
            given: self.given.clone(),
            layout: self.layout,
        };
        packed.unpack().reshape([batch, heads, tokens, self.layout.features()]).cast(self.dtype)
    }

    /// Returns the number of tokens.
    ///
    /// Each has rows for the batch and the heads.
    pub fn tokens(&self) -> usize {
        self.words.dims()[2]
    }

    /// Returns the bytes that a token takes, of all heads: codes, scales, and ranges of its own.
    ///
    /// In a batch, for each of its sequences.
    pub fn bytes_per_token(&self) -> usize {
        let ranges = if self.ranges.is_some() { 4 * self.layout.blocks() } else { 0 };
        self.words.dims()[1] * (self.layout.bytes() + ranges)
    }
}
