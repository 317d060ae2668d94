//! Rows of numbers as codes: what a cache holds of each token.
//!
//! ```text
//! x [rows, features] ──► codes, and a scale for each block of a row ──► [rows, words]
//!
//! a row   codes, the first in the lowest bits, of 1, 2, 4 or 8 bits each, filled up to a word
//!         scales in E8M0 or E4M3, a byte each, filled up to a word        ranges in f32 stand apart
//! ```
//!
//! * `reference` the composition of burn's own ops; runs on every device but the CPU
//! * `flex` the CPU kernel
//!
//! A row is packed on its own and never moves within its words, so rows are appended by concatenation. There is no
//! gradient: what is cached is not trained.

#[cfg(feature = "flex")]
mod flex;
mod reference;

use burn::tensor::{DType, Int, Tensor};
use burn_quant_numerics::packed::PackError;
use burn_quant_numerics::{AnyGrid, BlockScale, Format, ScaleFormat};

use crate::backend::is_flex;
use crate::{Groups, group_amax};

/// The formats of packed rows: with it, words are numbers.
///
/// # Example
///
/// ```
/// use burn_quant_ops::RowsLayout;
/// use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat};
///
/// let nvfp4 = RowsLayout::new(64, 16, Format::E2M1, ScaleFormat::E4M3(BlockScale::Dynamic))?;
/// assert_eq!(nvfp4.bytes(), 64 / 2 + 64 / 16); // and 256 in f32
/// # Ok::<(), burn_quant_ops::numerics::packed::PackError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowsLayout {
    features: usize,
    block: usize,
    format: Format,
    scale: ScaleFormat,
    global_amax: f32,
}

impl RowsLayout {
    /// Creates the layout of rows with a scale for every `block` features.
    ///
    /// # Errors
    ///
    /// [`PackError::EmptyBlock`], and [`PackError::Format`] for codes of more than 8 bits, for NF4 with other than f32
    /// scales, and for E4M3 scales that are not dynamic.
    pub fn new(features: usize, block: usize, format: Format, scale: ScaleFormat) -> Result<Self, PackError> {
        if block == 0 {
            return Err(PackError::EmptyBlock);
        }
        let given = matches!(scale, ScaleFormat::E4M3(blocks) if blocks != BlockScale::Dynamic);
        if format.bits() > 8 || (format == Format::Nf4 && scale != ScaleFormat::F32) || given {
            return Err(PackError::Format { found: format });
        }
        Ok(Self { features, block: block.min(features.max(1)), format, scale, global_amax: 0.0 })
    }

    /// Sets the range of the tensor, which E4M3 scales stand under.
    ///
    /// Other scales do not use it.
    pub fn with_global_amax(self, global_amax: f32) -> Self {
        Self { global_amax, ..self }
    }

    /// Returns the numbers of a row.
    ///
    /// The last axis of what is packed.
    pub fn features(self) -> usize {
        self.features
    }

    /// Returns the features that share a scale.
    ///
    /// The last block of a row may have fewer.
    pub fn block(self) -> usize {
        self.block
    }

    /// Returns the scales of a row.
    ///
    /// One for each block.
    pub fn blocks(self) -> usize {
        self.features.div_ceil(self.block)
    }

    /// Returns the bits that a code takes: those of the format, filled up to 1, 2, 4 or 8.
    ///
    /// Codes lie in whole bytes.
    pub fn width(self) -> usize {
        usize::from(self.format.bits()).next_power_of_two()
    }

    /// Returns the words of a row.
    ///
    /// Its codes, and scales of a byte.
    pub fn words(self) -> usize {
        self.code_words() + self.scale_words()
    }

    /// Returns the bytes of a row.
    ///
    /// Its words, without ranges in f32.
    pub fn bytes(self) -> usize {
        4 * self.words()
    }

    fn code_words(self) -> usize {
        (self.features * self.width()).div_ceil(32)
    }

    fn scale_words(self) -> usize {
        match self.scale {
            ScaleFormat::F32 => 0,
            ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => self.blocks().div_ceil(4),
        }
    }

    fn grid(self) -> AnyGrid {
        AnyGrid::new(self.format, self.scale, self.global_amax)
    }
}

/// Where f32 ranges of rows come from.
///
/// Other scales are always those of the values.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // tensors are handles
pub enum RowRanges {
    /// One for each block, f32 `[blocks]`, the same in all rows.
    Given(Tensor<1>),
    /// The largest magnitude of each block.
    OfRow,
}

/// Rows of numbers as codes and scales.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::{IntFormat, ScaleFormat};
/// use burn_quant_ops::{PackedRows, RowRanges, RowsLayout};
///
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let layout = RowsLayout::new(3, 3, int8, ScaleFormat::F32).unwrap();
/// let token = Tensor::<2>::from_data([[127.0, -2.4, 0.0]], &Device::flex());
/// let packed = PackedRows::pack(token, RowRanges::OfRow, layout);
/// assert_eq!(packed.unpack().into_data().try_into_vec::<f32>().unwrap(), [127.0, -2.0, 0.0]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PackedRows {
    /// The codes and the scales of a byte, `[rows, words]`.
    pub words: Tensor<2, Int>,
    /// The f32 ranges of each row, `[rows, blocks]`, if they are its own.
    pub ranges: Option<Tensor<2>>,
    /// The f32 ranges that all rows have, `[blocks]`.
    pub given: Option<Tensor<1>>,
    /// What the words mean.
    pub layout: RowsLayout,
}

impl PackedRows {
    /// Packs rows: the codes of what [`fake_quant`](crate::fake_quant()) makes of them in blocks along the last axis.
    ///
    /// No gradient, on any device without waiting for it. A value that is not a number has the code of zero: it is kept
    /// only where it makes the range of its block, in f32, no number either.
    ///
    /// # Panics
    ///
    /// If rows have not as many features as the layout, or there is not one range for each block.
    pub fn pack(x: Tensor<2>, ranges: RowRanges, layout: RowsLayout) -> Self {
        let [rows, features] = x.dims();
        assert_eq!(features, layout.features, "PackedRows: rows have as many features as the layout");
        let x = x.without_autodiff().cast(DType::F32);
        let blocks = layout.blocks();
        let (ranges, given) = match (layout.scale, ranges) {
            (ScaleFormat::F32, RowRanges::Given(given)) => {
                assert_eq!(given.dims(), [blocks], "PackedRows: one range for each block of a row");
                (None, Some(given.without_autodiff()))
            }
            (ScaleFormat::F32, RowRanges::OfRow) => {
                let amax = group_amax(x.clone(), &Groups::blocks(&[rows, features], 1, layout.block));
                (Some(amax.reshape([rows, blocks])), None)
            }
            (ScaleFormat::E8M0 | ScaleFormat::E4M3(_), _) => (None, None),
        };
        let words = match is_flex(&x.device()) {
            #[cfg(feature = "flex")]
            true => flex::pack(x, ranges.as_ref(), given.as_ref(), layout),
            _ => reference::pack(x, ranges.as_ref(), given.as_ref(), layout),
        };
        Self { words, ranges, given, layout }
    }

    /// Returns the values, f32 `[rows, features]`: those of fake quantization.
    ///
    /// Bit for bit on the CPU, elsewhere but for the rounding of divisions.
    pub fn unpack(&self) -> Tensor<2> {
        let (words, ranges, given) = (self.words.clone(), self.ranges.as_ref(), self.given.as_ref());
        match is_flex(&words.device()) {
            #[cfg(feature = "flex")]
            true => flex::unpack(words, ranges, given, self.layout),
            _ => reference::unpack(words, ranges, given, self.layout),
        }
    }
}
