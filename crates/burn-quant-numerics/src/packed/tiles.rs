//! Tiles: the codes of a matrix as packed products read them, on every backend.
//!
//! A matrix `[inputs, outputs]` is cut into panels of 16 outputs, and each column of a panel into blocks of inputs that
//! share a scale. A step is four inputs of a column; a granule is the fewest steps that fill whole words.
//!
//! ```text
//! words   [panel] [granule] [word of the granule] [column of the panel]       u32
//! scales  [panel] [block] [column of the panel]                               f32, or bytes
//!
//! bits           8   4   2   6      1 and other odd numbers
//! granule        4   8   16  16     32 inputs
//! ```
//!
//! A code of `n` bits is divided as `n` is into powers of two: seven bits are four, two and one, from the lowest up.
//! Each part has words of its own, in which the step `i` of the word holds its bits at `part·i` of the four bytes: a
//! shift and a mask make the four codes of a step, one per byte, as products of bytes take them.
//!
//! ```text
//! step i of a word, part p at bit b       ((word >> p·i) & (2^p − 1)·0x01010101) << b
//! ```
//!
//! Blocks begin with a granule, and the matrix ends with one: what is missing is filled up with the code of zero.
//! Outputs are filled up to whole panels, with scales of zero.
//!
//! Our choice: 16 columns side by side are a vector of AVX-512, two of AVX2 or four of NEON, and neighbouring threads
//! of a GPU read neighbouring words.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::Tiles;
//!
//! let tiles = Tiles::new(8, 2, 8, 4)?; // 4 bits: eight inputs are a word
//! let mut words = [0; 16];
//! tiles.pack(&mut words, 8, |input, output| if output == 0 { input as u8 } else { 15 });
//! assert_eq!(words[..3], [0x73_62_51_40, 0xff_ff_ff_ff, 0x88_88_88_88]);
//! assert_eq!(tiles.code(&words, 6, 0), 6);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::PackError;

/// The layout of codes and scales of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    inputs: usize,
    outputs: usize,
    block: usize,
    bits: u8,
}

/// Outputs of a panel.
pub const PANEL: usize = 16;
/// Inputs of a step: the codes that are unpacked to one word.
pub const STEP: usize = 4;

impl Tiles {
    /// Creates the layout of a matrix whose columns have a scale for every `block` inputs.
    ///
    /// A scale for each output, or one for all, is a block of all inputs.
    ///
    /// # Errors
    ///
    /// [`PackError::EmptyBlock`], and [`PackError::Bits`] unless a code has 1 to 8 bits.
    pub const fn new(inputs: usize, outputs: usize, block: usize, bits: u8) -> Result<Self, PackError> {
        if block == 0 {
            return Err(PackError::EmptyBlock);
        }
        if bits == 0 || bits > 8 {
            return Err(PackError::Bits { found: bits });
        }
        let block = if block > inputs { if inputs == 0 { 1 } else { inputs } } else { block };
        Ok(Self { inputs, outputs, block, bits })
    }

    /// Returns the rows of the matrix.
    ///
    /// A product sums over them.
    pub const fn inputs(self) -> usize {
        self.inputs
    }

    /// Returns the columns of the matrix.
    ///
    /// Each is one sum of a product.
    pub const fn outputs(self) -> usize {
        self.outputs
    }

    /// Returns the inputs that share a scale.
    ///
    /// At most all.
    pub const fn block(self) -> usize {
        self.block
    }

    /// Returns the bits of a code.
    ///
    /// 1 to 8.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Returns the inputs that fill whole words.
    ///
    /// 4 for 8 bits, 8 for 4, 32 for 3.
    pub const fn granule(self) -> usize {
        let least_part = self.bits & self.bits.wrapping_neg();
        32 / least_part as usize
    }

    /// Returns the words of a granule of one column.
    ///
    /// One for 8, 4 and 2 bits, three for 3.
    pub const fn granule_words(self) -> usize {
        self.granule() * self.bits as usize / 32
    }

    /// Returns the number of panels.
    ///
    /// The last may hold fewer than 16 outputs.
    pub const fn panels(self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Returns the number of blocks of a column.
    ///
    /// The last may be shorter.
    pub const fn blocks(self) -> usize {
        self.inputs.div_ceil(self.block)
    }

    /// Returns the inputs from the beginning of a block to that of the next, filled up.
    ///
    /// A whole number of granules.
    pub const fn padded_block(self) -> usize {
        self.block.next_multiple_of(self.granule())
    }

    /// Returns the inputs of a column, filled up.
    ///
    /// A whole number of granules: what a product reads of each row of its other factor.
    pub const fn padded_inputs(self) -> usize {
        let whole = self.inputs / self.block * self.padded_block();
        whole + (self.inputs % self.block).next_multiple_of(self.granule())
    }

    /// Returns the filled-up place of an input.
    ///
    /// Blocks begin at multiples of [`padded_block`](Tiles::padded_block).
    pub const fn place(self, input: usize) -> usize {
        input / self.block * self.padded_block() + input % self.block
    }

    /// Returns the filled-up inputs of a block: where it begins and where it ends.
    ///
    /// All are a whole number of steps.
    pub const fn block_range(self, block: usize) -> core::ops::Range<usize> {
        let start = block * self.padded_block();
        let end = start + self.padded_block();
        start..if end < self.padded_inputs() { end } else { self.padded_inputs() }
    }

    /// Returns the words of a panel.
    ///
    /// They lie one after the other.
    pub const fn panel_words(self) -> usize {
        self.padded_inputs() / self.granule() * self.granule_words() * PANEL
    }

    /// Returns the words of all codes.
    ///
    /// Four bytes each.
    pub const fn words(self) -> usize {
        self.panels() * self.panel_words()
    }

    /// Returns the number of scales, with those that fill up the last panel.
    ///
    /// One per block and output.
    pub const fn scales(self) -> usize {
        self.panels() * self.blocks() * PANEL
    }

    /// Returns the place of a scale.
    ///
    /// Those of a panel's block lie side by side.
    pub const fn scale_place(self, block: usize, output: usize) -> usize {
        (output / PANEL * self.blocks() + block) * PANEL + output % PANEL
    }

    /// Packs the codes that `code` gives for an input and an output; `zero` is the code that fills up.
    ///
    /// # Panics
    ///
    /// If there are not [`words`](Tiles::words) words.
    pub fn pack(self, words: &mut [u32], zero: u8, mut code: impl FnMut(usize, usize) -> u8) {
        assert_eq!(words.len(), self.words(), "Tiles: as many words as the layout has");
        for (panel, words) in words.chunks_exact_mut(self.panel_words().max(1)).enumerate() {
            let outputs = panel * PANEL..self.outputs.min((panel + 1) * PANEL);
            self.pack_panel(words, zero, |input, codes| {
                codes.iter_mut().zip(outputs.clone()).for_each(|(to, output)| *to = code(input, output));
            });
        }
    }

    /// Packs the codes of a panel: `codes` writes those of an input, of which the outputs that there are count.
    ///
    /// # Panics
    ///
    /// If there are not [`panel_words`](Tiles::panel_words) words.
    #[inline(always)] // into functions with the instructions of the processor
    pub fn pack_panel(self, words: &mut [u32], zero: u8, mut codes: impl FnMut(usize, &mut [u8; PANEL])) {
        assert_eq!(words.len(), self.panel_words(), "Tiles: as many words as the layout has");
        words.fill(0);
        let steps = self.granule() / STEP;
        let mut place = 0;
        for granule in words.chunks_exact_mut(self.granule_words() * PANEL) {
            for step in 0..steps {
                // the four codes of each column, the first in the lowest byte
                let mut columns = [0u32; PANEL];
                for byte in 0..STEP as u32 {
                    let (block, within) = (place / self.padded_block(), place % self.padded_block());
                    let input = block * self.block + within;
                    let mut row = [zero; PANEL];
                    if within < self.block && input < self.inputs {
                        codes(input, &mut row);
                    }
                    columns.iter_mut().zip(row).for_each(|(column, code)| *column |= u32::from(code) << (8 * byte));
                    place += 1;
                }
                for part in self.parts() {
                    let (word, shift) = part.of_step(step);
                    let words = &mut granule[word * PANEL..][..PANEL];
                    let bits = columns.iter().map(|column| ((column >> part.bit) & part.mask()) << shift);
                    words.iter_mut().zip(bits).for_each(|(word, bits)| *word |= bits);
                }
            }
        }
    }

    /// Returns the code of an input and an output.
    ///
    /// # Panics
    ///
    /// If the matrix has no such element.
    pub fn code(self, words: &[u32], input: usize, output: usize) -> u8 {
        assert!(input < self.inputs && output < self.outputs, "Tiles: the matrix has this element");
        let place = self.place(input);
        let step = self.step(words, output / PANEL, place / STEP, output % PANEL);
        step.to_le_bytes()[place % STEP]
    }

    /// Returns the four codes of a step of a column, the first in the lowest byte.
    ///
    /// Steps count through the filled-up inputs.
    #[inline(always)]
    pub fn step(self, words: &[u32], panel: usize, step: usize, column: usize) -> u32 {
        let steps = self.granule() / STEP;
        let base = panel * self.panel_words() + step / steps * self.granule_words() * PANEL + column;
        let mut codes = 0;
        for part in self.parts() {
            let (word, shift) = part.of_step(step % steps);
            codes |= ((words[base + word * PANEL] >> shift) & part.mask()) << part.bit;
        }
        codes
    }

    /// The parts of a code, from its lowest bits up.
    pub fn parts(self) -> impl Iterator<Item = Part> {
        let (mut bit, mut word) = (0, 0);
        [8, 4, 2, 1].into_iter().filter(move |width| u32::from(self.bits) & width != 0).map(move |width| {
            let part = Part { width, bit, first_word: word };
            bit += width;
            word += self.granule() * width as usize / 32;
            part
        })
    }
}

/// Some of the bits of a code, which have words of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many: 8, 4, 2 or 1.
    pub width: u32,
    /// Which: from this bit of the code on.
    pub bit: u32,
    /// The first of its words in the granule.
    pub first_word: usize,
}

impl Part {
    /// The bits of a part in each of the four codes of a step, before they are shifted to their place.
    #[inline(always)]
    pub const fn mask(self) -> u32 {
        ((1 << self.width) - 1) * 0x0101_0101
    }

    /// The word of the granule that holds a step, and how far it is shifted.
    #[inline(always)]
    pub const fn of_step(self, step: usize) -> (usize, u32) {
        let steps = 8 / self.width as usize;
        (self.first_word + step / steps, self.width * (step % steps) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn granules_are_the_fewest_inputs_that_fill_words() {
        let granule = |bits| {
            let tiles = Tiles::new(64, 16, 64, bits).unwrap();
            (tiles.granule(), tiles.granule_words())
        };
        let expected = [(32, 1), (16, 1), (32, 3), (8, 1), (32, 5), (16, 3), (32, 7), (4, 1)];
        assert_eq!((1..=8).map(granule).collect::<vec::Vec<_>>(), expected);
    }

    #[test]
    fn blocks_and_panels_are_filled_up() {
        let tiles = Tiles::new(300, 20, 128, 4).unwrap(); // blocks of 128, 128 and 44 inputs
        assert_eq!((tiles.blocks(), tiles.padded_inputs(), tiles.panels()), (3, 304, 2));
        assert_eq!((tiles.block_range(0), tiles.block_range(2)), (0..128, 256..304));
        assert_eq!(tiles.words(), 2 * 304 / 8 * 16);
        let tiles = Tiles::new(10, 1, 5, 4).unwrap(); // a block of 5 is filled up to 8
        assert_eq!((tiles.padded_inputs(), tiles.place(4), tiles.place(5)), (16, 4, 8));
        assert_eq!(Tiles::new(0, 3, 7, 8).unwrap().words(), 0);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert_eq!(Tiles::new(4, 4, 0, 8), Err(PackError::EmptyBlock));
        assert_eq!(Tiles::new(4, 4, 4, 9), Err(PackError::Bits { found: 9 }));
    }

    proptest! {
        #[test]
        fn every_code_comes_back(inputs in 1usize..90, outputs in 1usize..40, block in 1usize..100, bits in 1u8..=8) {
            let tiles = Tiles::new(inputs, outputs, block, bits).unwrap();
            let noise = |input: usize, output: usize| (input * 40_503 + output * 10_007 + 11) >> 3;
            let code = |input: usize, output: usize| noise(input, output) as u8 & (u8::MAX >> (8 - bits));
            let mut words = vec![!0; tiles.words()];
            tiles.pack(&mut words, 0, code);
            for input in 0..inputs {
                for output in 0..outputs {
                    prop_assert_eq!(tiles.code(&words, input, output), code(input, output), "[{}, {}]", input, output);
                }
            }
            let places: std::collections::BTreeSet<usize> = (0..tiles.blocks())
                .flat_map(|block| (0..outputs).map(move |output| tiles.scale_place(block, output)))
                .collect();
            prop_assert_eq!(places.len(), tiles.blocks() * outputs);
            prop_assert!(places.iter().all(|place| *place < tiles.scales()));
        }
    }
}
