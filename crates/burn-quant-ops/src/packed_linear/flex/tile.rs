//! The two inner loops: a few rows times a few panels, in registers.
//!
//! ```text
//! integers    per block   i32 sums begin at −zero · Σ x, so that codes need no sign;  total += f32(sum) · scale
//!             in parts    sum = 128 · f32(sum of high parts) + f32(sum of low parts)
//! floats      per run     sum = Σ point · x, over 1024 inputs of a block at most;     total += sum · scale
//! ```
//!
//! Blocks are filled up, so the loops have no tails.

#![allow(unsafe_op_in_unsafe_fn)] // as in `vectors`
#![allow(clippy::needless_range_loop)] // closures would not be compiled with the features of the processor

use burn_quant_numerics::packed::{PANEL, STEP, Tiles};

use super::activations::PART;
use super::codes::{Codes, Points};
use super::vectors::Vectors;

/// Inputs that floats are summed over at a time: a long sum of equal signs would lose its last places.
const RUN: usize = 1024;

/// Scales of panels and blocks, 16 side by side.
#[derive(Clone, Copy)]
pub(super) enum Scales {
    F32(*const f32),
    E8m0(*const u8),
    E4m3(*const u8),
    /// One panel's, which all have.
    Same(*const f32),
}

// SAFETY: they point into a tensor's buffer, which is only read.
unsafe impl Send for Scales {}
// SAFETY: as above.
unsafe impl Sync for Scales {}

impl Scales {
    #[inline(always)]
    unsafe fn of<V: Vectors>(self, place: usize) -> V::Float {
        match self {
            Scales::F32(scales) => V::load(scales.add(place)),
            Scales::E8m0(scales) => V::e8m0(scales.add(place)),
            Scales::E4m3(scales) => V::e4m3(scales.add(place)),
            Scales::Same(scales) => V::load(scales),
        }
    }
}

/// Panels that are multiplied together.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) tiles: Tiles,
    /// The words of the first.
    pub(super) words: *const u32,
    /// Words from one to the next.
    pub(super) stride: usize,
    pub(super) scales: Scales,
    /// The number of the first.
    pub(super) first: usize,
    /// How many there are; a tile of more repeats the last.
    pub(super) count: usize,
}

impl Panels {
    /// The place of a panel among them.
    #[inline(always)]
    fn at(&self, panel: usize) -> usize {
        panel.min(self.count - 1)
    }
}

/// Where the words of each panel begin.
#[inline(always)]
unsafe fn pointers<const P: usize>(panels: &Panels) -> [*const u32; P] {
    let mut words = [panels.words; P];
    for p in 0..P {
        words[p] = panels.words.add(panels.at(p) * panels.stride);
    }
    words
}

/// `R` rows of codes in `N` parts times `P` panels: sums in units of the scales of rows. `x` is `[step][R][N]`, `sums`
/// `[block][R][N]`.
#[inline(always)]
pub(super) unsafe fn integers<V: Vectors, C: Codes<V>, const R: usize, const P: usize, const N: usize>(
    codes: C,
    zero: i32,
    panels: Panels,
    x: *const V::Step,
    sums: *const i32,
) -> [[V::Float; P]; R] {
    let Panels { tiles, scales, first, .. } = panels;
    let (blocks, block_steps, all) = (tiles.blocks(), tiles.padded_block() / STEP, tiles.padded_inputs() / STEP);
    let mut totals = [[V::floats(0.0); P]; R];
    let mut words = pointers::<P>(&panels);
    let mut step = 0;
    for block in 0..blocks {
        let end = all.min(step + block_steps);
        let mut sum = [[[V::splat(0); P]; N]; R];
        for row in 0..R {
            for part in 0..N {
                let of_x = *sums.add((block * R + row) * N + part);
                sum[row][part] = [V::splat(zero.wrapping_neg().wrapping_mul(of_x)); P];
            }
        }
        // sums of 16 bits for as many steps as they hold, where they are faster
        while V::HAS_SHORTS && C::SHORT_STEPS > 0 && step < end {
            let few = end.min(step + C::SHORT_STEPS);
            let mut short = [[[V::no_shorts(); P]; N]; R];
            while step < few {
                let mut panel = [V::splat(0); P];
                for p in 0..P {
                    panel[p] = V::words(words[p]);
                    words[p] = words[p].add(PANEL);
                }
                for i in 0..C::STEPS {
                    for row in 0..R {
                        for part in 0..N {
                            let x = &*x.add(((step + i) * R + row) * N + part);
                            for p in 0..P {
                                short[row][part][p] = V::short_dot(short[row][part][p], codes.of_step(panel[p], i), x);
                            }
                        }
                    }
                }
                step += C::STEPS;
            }
            for row in 0..R {
                for part in 0..N {
                    for p in 0..P {
                        sum[row][part][p] = V::add_shorts(sum[row][part][p], short[row][part][p]);
                    }
                }
            }
        }
        // two rows and two steps at a time, where there is an instruction for it
        if V::HAS_PAIRS && R.is_multiple_of(2) {
            let mut pairs = [[[V::no_pairs(); P]; N]; R]; // of every second row
            while step + 2 <= end {
                let mut operands = [[V::splat(0); 2]; P];
                for p in 0..P {
                    let first = V::words(words[p]);
                    operands[p] = match C::STEPS {
                        1 => [codes.of_step(first, 0), codes.of_step(V::words(words[p].add(PANEL)), 0)],
                        _ => [codes.of_step(first, 0), codes.of_step(first, 1)],
                    };
                    words[p] = words[p].add(2 / C::STEPS * PANEL);
                }
                for row in (0..R).step_by(2) {
                    let (first, second) = (x.add((step * R + row) * N), x.add(((step + 1) * R + row) * N));
                    for part in 0..N {
                        for p in 0..P {
                            let (first, second) = (first.add(part), second.add(part));
                            pairs[row][part][p] = V::pair_dot::<N>(pairs[row][part][p], operands[p], first, second);
                        }
                    }
                }
                step += 2;
            }
            for row in (0..R).step_by(2) {
                for part in 0..N {
                    for p in 0..P {
                        let both = [sum[row][part][p], sum[row + 1][part][p]];
                        [sum[row][part][p], sum[row + 1][part][p]] = V::add_pairs(both, pairs[row][part][p]);
                    }
                }
            }
        }
        while step < end {
            let mut panel = [V::splat(0); P];
            for p in 0..P {
                panel[p] = V::words(words[p]);
                words[p] = words[p].add(PANEL);
            }
            for i in 0..C::STEPS {
                let mut operands = [V::splat(0); P];
                for p in 0..P {
                    operands[p] = codes.of_step(panel[p], i);
                }
                for row in 0..R {
                    for part in 0..N {
                        let x = &*x.add(((step + i) * R + row) * N + part);
                        for p in 0..P {
                            sum[row][part][p] = if C::SMALL {
                                V::dot::<true>(sum[row][part][p], operands[p], x)
                            } else {
                                V::dot::<false>(sum[row][part][p], operands[p], x)
                            };
                        }
                    }
                }
            }
            step += C::STEPS;
        }
        let mut scale = [V::floats(0.0); P];
        for p in 0..P {
            scale[p] = scales.of::<V>(((first + panels.at(p)) * blocks + block) * PANEL);
        }
        for row in 0..R {
            for p in 0..P {
                let mut whole = V::to_float(sum[row][0][p]);
                for part in 1..N {
                    whole = V::multiply_add(whole, V::floats(PART), V::to_float(sum[row][part][p]));
                }
                totals[row][p] = V::multiply_add(whole, scale[p], totals[row][p]);
            }
        }
    }
    totals
}

/// `R` rows of floats times `P` panels: sums. `x` is `[filled-up input][R]`.
#[inline(always)]
pub(super) unsafe fn floats<V: Vectors, C: Points<V>, const R: usize, const P: usize>(
    points: C,
    panels: Panels,
    x: *const f32,
) -> [[V::Float; P]; R] {
    let Panels { tiles, scales, first, .. } = panels;
    let (blocks, all) = (tiles.blocks(), tiles.padded_inputs());
    let mut totals = [[V::floats(0.0); P]; R];
    let mut words = pointers::<P>(&panels);
    let mut input = 0;
    for block in 0..blocks {
        let end = all.min(input + tiles.padded_block());
        let mut scale = [V::floats(0.0); P];
        for p in 0..P {
            scale[p] = scales.of::<V>(((first + panels.at(p)) * blocks + block) * PANEL);
        }
        while input < end {
            let part = end.min(input + RUN);
            let mut sum = [[V::floats(0.0); P]; R];
            while input < part {
                let mut panel = [points.prepare(V::splat(0)); P];
                for p in 0..P {
                    panel[p] = points.prepare(V::words(words[p]));
                    words[p] = words[p].add(PANEL);
                }
                for i in 0..C::INPUTS {
                    let mut operands = [V::floats(0.0); P];
                    for p in 0..P {
                        operands[p] = points.of_input(panel[p], i);
                    }
                    for row in 0..R {
                        let x = V::floats(*x.add((input + i) * R + row));
                        for p in 0..P {
                            sum[row][p] = V::multiply_add(operands[p], x, sum[row][p]);
                        }
                    }
                }
                input += C::INPUTS;
            }
            for row in 0..R {
                for p in 0..P {
                    totals[row][p] = V::multiply_add(sum[row][p], scale[p], totals[row][p]);
                }
            }
        }
    }
    totals
}
