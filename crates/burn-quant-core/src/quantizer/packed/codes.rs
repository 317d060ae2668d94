//! A packed weight in the order of its parameter: what a file holds that others read.
//!
//! ```text
//! words and scales of a matrix, in tiles  ──of──►  the code of each element, the scale of each group, row by row
//!                                  ◄──to_words──
//!                                                  ──values──►  the floats of fake quantization
//! ```

use burn_quant_ops::numerics::packed::PackError;
use burn_quant_ops::numerics::{AnyGrid, scale_words, store_scale};
use burn_quant_ops::{Groups, NotPacked, PackedLayout};

use super::matrix::Matrix;
use super::{PackedForm, PackedWeight, PackedWords, check_bias, refusal};
use crate::error::NotPackedReason;
use crate::quantizer::TensorQuantizer;

/// The codes and scales of a weight, row by row as the parameter is.
///
/// With the configuration of its quantizer they are the weight: packed again by [`WeightCodes::to_words`], in float by
/// [`WeightCodes::values`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::compress::{FloatInputs, WeightCodes};
/// use burn_quant::place::{Role, WeightLayout};
/// use burn_quant::{QuantizerConfig, TensorQuantizer};
///
/// let weight = Tensor::<2>::from_data([[7.0, -2.0], [-3.0, 0.5]], &Device::flex()); // two inputs, two outputs
/// let (config, role) = (QuantizerConfig::int(4).per_channel(), Role::Weight(WeightLayout::new(1, 0)));
/// let mut quantizer = TensorQuantizer::new(config, role);
/// quantizer.set_amax(Tensor::from_data([7.0, 3.5], &Device::flex()));
/// let codes = WeightCodes::of(&quantizer.packing(weight, FloatInputs::Exact)?).expect("a packed weight");
/// assert_eq!(codes.codes, [8 + 7, 8 - 4, 8 - 3, 8 + 1]); // zero has the code 8
/// assert_eq!(codes.scales, [7f32.to_bits(), 3.5f32.to_bits()]);
/// assert_eq!(codes.values(&quantizer)?, [7.0, -2.0, -3.0, 0.5]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightCodes {
    /// What they mean, beside the configuration of the quantizer.
    pub form: PackedForm,
    /// The code of each element, one a byte.
    pub codes: Vec<u8>,
    /// What is stored of the scale of each of the quantizer's groups: the bits of its range in f32, or its byte in E8M0
    /// or E4M3.
    pub scales: Vec<u32>,
    /// The bias of each of its groups of biases, if the quantizer rounds around one.
    pub bias: Option<Vec<f32>>,
}

impl WeightCodes {
    /// Reads the codes of the packed weight that a quantizer holds from the device; `None` if it holds none.
    pub fn of(quantizer: &TensorQuantizer) -> Option<Self> {
        let packed = quantizer.packed()?;
        let form = packed.form();
        let order = Order::of(&form, quantizer).expect("a packed weight has the form of its quantizer");
        let matrix = packed.packed();
        let mut codes = vec![0; order.elements()];
        for (place, code) in matrix.codes().into_iter().enumerate() {
            codes[order.element_at(place)] = code;
        }
        let mut scales = vec![0; order.groups.len()];
        for (place, scale) in matrix.stored_scales().into_iter().enumerate() {
            scales[order.group_at(place)] = scale;
        }
        let bias = order.biases.as_ref().zip(packed.offsets_on_host()).map(|(groups, offsets)| {
            let mut bias = vec![0.0; groups.len()];
            offsets.iter().enumerate().for_each(|(output, offset)| bias[order.bias_at(groups, output)] = *offset);
            bias
        });
        Some(Self { form, codes, scales, bias })
    }

    /// Returns whether a quantizer could have packed a weight of this form, whatever its values are.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] with the reason why not.
    pub fn check_form(form: &PackedForm, quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
        Order::of(form, quantizer).map(drop)
    }

    /// Returns what E4M3 scales are multiplied with; `None` for other scales.
    ///
    /// It is ModelOpt's `weight_scale_2`.
    pub fn tensor_scale(form: &PackedForm, quantizer: &TensorQuantizer) -> Option<f32> {
        let config = quantizer.config();
        match AnyGrid::new(config.format, config.scale, form.global_amax) {
            AnyGrid::TwoLevel(grid) => Some(grid.tensor_scale()),
            AnyGrid::Plain(_) | AnyGrid::Mx(_) => None,
        }
    }

    /// Packs the codes again, as a quantizer that is on had packed them.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] unless there are as many codes, scales and biases as such a weight has. What they are is
    /// checked when a quantizer [holds them](TensorQuantizer::holding_words).
    pub fn to_words(&self, quantizer: &TensorQuantizer) -> Result<PackedWords, NotPackedReason> {
        let order = self.checked_order(quantizer)?;
        let (tiles, format) = (order.layout.tiles(), order.layout.scale());
        let zero = order.layout.grid().elements().code(0.0);
        let mut words = vec![0; tiles.words()];
        tiles.pack(&mut words, zero, |input, output| self.codes[order.matrix.element(input, output)]);
        let mut scales = vec![0; scale_words(tiles, format)];
        for place in 0..tiles.blocks() * tiles.outputs() {
            let at = tiles.scale_place(place / tiles.outputs(), place % tiles.outputs());
            store_scale(format, &mut scales, at, self.scales[order.group_at(place)]);
        }
        let offsets = order.biases.as_ref().zip(self.bias.as_ref()).map(|(groups, bias)| {
            let offset = |output: usize| bias[order.bias_at(groups, output)];
            (0..tiles.outputs()).map(offset).collect()
        });
        let form = PackedForm { channel_groups: order.matrix.channel_groups(), ..self.form.clone() };
        Ok(PackedWords { form, words, scales, offsets })
    }

    /// Returns the floats that the codes stand for: what the quantizer made of the weight, bit for bit but for the sign
    /// of zero.
    ///
    /// A weight of f16 or bf16 around a bias may differ by the rounding of its sum.
    ///
    /// # Errors
    ///
    /// [`NotPackedReason`] unless there are as many codes, scales and biases as such a weight has, all of them numbers.
    pub fn values(&self, quantizer: &TensorQuantizer) -> Result<Vec<f32>, NotPackedReason> {
        let order = self.checked_order(quantizer)?;
        self.scales.iter().try_for_each(|scale| order.layout.check_scale(*scale))?;
        self.bias.as_deref().map_or(Ok(()), check_bias)?;
        let grid = order.layout.grid();
        if let Some(found) = self.codes.iter().find(|code| !grid.elements().point(**code).is_finite()) {
            return Err(NotPacked::Code { found: *found }.into());
        }
        let scales: Vec<_> = self.scales.iter().map(|scale| grid.scale_of_stored(*scale)).collect();
        let value = |(i, code): (usize, &u8)| {
            let value = grid.value(*code, scales[order.groups.of_element(i)]);
            match order.biases.as_ref().zip(self.bias.as_ref()) {
                Some((groups, bias)) => value + bias[groups.of_element(i)],
                None => value,
            }
        };
        Ok(self.codes.iter().enumerate().map(value).collect())
    }

    fn checked_order(&self, quantizer: &TensorQuantizer) -> Result<Order, NotPackedReason> {
        let order = Order::of(&self.form, quantizer)?;
        let biases = order.biases.as_ref().map_or(0, Groups::len);
        for (what, expected, found) in [
            ("codes", order.elements(), self.codes.len()),
            ("scales", order.groups.len(), self.scales.len()),
            ("biases", biases, self.bias.as_ref().map_or(0, Vec::len)),
        ] {
            if found != expected {
                return Err(NotPacked::from(PackError::Length { what, expected, found }).into());
            }
        }
        Ok(order)
    }
}

/// Where the elements and groups of a weight are in its matrix, and where in the parameter.
struct Order {
    matrix: Matrix,
    layout: PackedLayout,
    groups: Groups,
    biases: Option<Groups>,
}

impl Order {
    fn of(form: &PackedForm, quantizer: &TensorQuantizer) -> Result<Self, NotPackedReason> {
        refusal::check_form(quantizer)?;
        let (matrix, layout) = PackedWeight::layout(&form.shape, quantizer)?;
        let (groups, biases) = (quantizer.groups(&form.shape), quantizer.bias_groups(&form.shape));
        Ok(Self { matrix, layout: layout.with_global_amax(form.global_amax), groups, biases })
    }

    fn elements(&self) -> usize {
        self.matrix.shape().iter().product()
    }

    /// The element of the parameter at a place of the matrix, row by row.
    fn element_at(&self, place: usize) -> usize {
        self.matrix.element(place / self.layout.outputs(), place % self.layout.outputs())
    }

    /// The group that has its scale at a place of the matrix of scales, row by row `[blocks, outputs]`.
    fn group_at(&self, place: usize) -> usize {
        let (block, output) = (place / self.layout.outputs(), place % self.layout.outputs());
        self.groups.of_element(self.matrix.element(block * self.layout.block(), output))
    }

    /// The group of biases that an output of the matrix belongs to.
    fn bias_at(&self, groups: &Groups, output: usize) -> usize {
        groups.of_element(self.matrix.element(0, output))
    }
}
