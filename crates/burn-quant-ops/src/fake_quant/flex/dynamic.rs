//! Ranges from the data: groups that lie together in memory are read from it once.
//!
//! ```text
//! batch of blocks, a few KiB ──► amax of each ──► factors of all, as vectors ──► round   all within the L1 cache
//! ```
//!
//! Two layouts do so: blocks and tokens, whose elements are consecutive, and blocks along an axis before the last, as
//! the weights of linear layers have them, whose elements stand in columns. Other groups are read twice.

use std::mem::MaybeUninit;

use burn_quant_numerics::{Grid, Scale};
use rayon::prelude::*;

use super::grids::Grids;
use super::rounding::Factors;
use crate::fake_quant::layout::Layout;
use crate::flex::{CHUNK, FlexElement, Kernel, TILE, apply, apply_into, vectorized};

/// Elements of a group beyond which it is read twice, all threads at once: 1 MiB of f32.
const LARGE: usize = 256 * 1024;

/// Whether the kernels of this file take groups of this layout.
pub(super) fn fits(layout: Layout) -> bool {
    match layout {
        Layout::Runs { block, .. } => block <= LARGE,
        Layout::Columns { columns, block, .. } => block * columns <= LARGE,
        Layout::Scattered => false,
    }
}

/// Blocks whose factors are computed together.
const BATCH: usize = 128;

/// Fake quantization of blocks whose elements are consecutive.
pub(super) struct Blocks<Fast, Exact> {
    pub(super) grids: Grids<Fast, Exact>,
    pub(super) row: usize,
    pub(super) block: usize,
}

/// The factors of a batch.
struct Batch {
    amax: [f32; BATCH],
    to_grid: [f32; BATCH],
    from_grid: [f32; BATCH],
}

impl Batch {
    const fn new() -> Self {
        Self { amax: [0.0; BATCH], to_grid: [0.0; BATCH], from_grid: [0.0; BATCH] }
    }

    #[inline(always)]
    fn scale<G: Grid>(&mut self, grid: G, len: usize) {
        let factors = self.to_grid[..len].iter_mut().zip(&mut self.from_grid[..len]);
        for ((to, from), amax) in factors.zip(&self.amax[..len]) {
            let scale = grid.scale(*amax);
            (*to, *from) = (scale.to_grid, scale.from_grid);
        }
    }

    #[inline(always)]
    fn of(&self, i: usize) -> Scale {
        Scale { to_grid: self.to_grid[i], from_grid: self.from_grid[i] }
    }
}

/// The size of blocks: known to the compiler for the usual ones, so that their loops have no ends to look for.
trait Size: Copy {
    fn get(self) -> usize;
}

#[derive(Clone, Copy)]
struct Known<const N: usize>;

impl<const N: usize> Size for Known<N> {
    #[inline(always)]
    fn get(self) -> usize {
        N
    }
}

#[derive(Clone, Copy)]
struct Any(usize);

impl Size for Any {
    #[inline(always)]
    fn get(self) -> usize {
        self.0
    }
}

/// Data that is read here and written there, or both in one place.
trait Place {
    fn len(&self) -> usize;
    fn read(&self, start: usize, len: usize) -> &[f32];
    fn write<G: Grid>(&mut self, start: usize, len: usize, grid: G, scale: Scale);
}

impl Place for &mut [f32] {
    #[inline(always)]
    fn len(&self) -> usize {
        (**self).len()
    }

    #[inline(always)]
    fn read(&self, start: usize, len: usize) -> &[f32] {
        &self[start..start + len]
    }

    #[inline(always)]
    fn write<G: Grid>(&mut self, start: usize, len: usize, grid: G, scale: Scale) {
        apply(&mut self[start..start + len], [], |x, []| grid.fake_quant(x, scale));
    }
}

impl Place for (&[f32], &mut [MaybeUninit<f32>]) {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn read(&self, start: usize, len: usize) -> &[f32] {
        &self.0[start..start + len]
    }

    #[inline(always)]
    fn write<G: Grid>(&mut self, start: usize, len: usize, grid: G, scale: Scale) {
        let (source, output) = (&self.0[start..start + len], &mut self.1[start..start + len]);
        apply_into(source, output, [], |x, []| grid.fake_quant(x, scale));
    }
}

impl<Fast: Grid, Exact: Grid> Blocks<Fast, Exact> {
    #[inline(always)]
    fn run(&self, mut data: impl Place) {
        vectorized(
            #[inline(always)]
            || match self.block {
                16 if self.row == 16 => self.rows(&mut data, Known::<16>),
                32 if self.row == 32 => self.rows(&mut data, Known::<32>),
                size => self.rows(&mut data, Any(size)),
            },
        );
    }

    #[inline(always)]
    fn rows(&self, data: &mut impl Place, size: impl Size) {
        let mut batch = Batch::new();
        let blocks = (TILE / size.get()).clamp(1, BATCH);
        // a row that is one block ends with it, so that many rows are a batch
        let row = if self.row == self.block { data.len() } else { self.row };
        for start in (0..data.len()).step_by(row.max(1)) {
            let end = data.len().min(start + row);
            for start in (start..end).step_by(blocks * size.get()) {
                self.batch(data, start, end.min(start + blocks * size.get()), size, &mut batch);
            }
        }
    }

    #[inline(always)]
    fn batch(&self, data: &mut impl Place, start: usize, end: usize, size: impl Size, batch: &mut Batch) {
        let whole = (end - start) / size.get();
        let rest = (end - start) % size.get();
        let grids = &self.grids;
        for i in 0..whole {
            batch.amax[i] = grids.exact.amax(data.read(start + i * size.get(), size.get()));
        }
        if rest > 0 {
            batch.amax[whole] = grids.exact.amax(data.read(end - rest, rest));
        }
        let count = whole + usize::from(rest > 0);
        if (grids.fits)(&grids.fast, &batch.amax[..count]) {
            self.write(data, start, whole, rest, size, grids.fast, batch);
        } else {
            self.write(data, start, whole, rest, size, grids.exact, batch);
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // one loop, twice
    fn write<G: Grid>(
        &self,
        data: &mut impl Place,
        start: usize,
        whole: usize,
        rest: usize,
        size: impl Size,
        grid: G,
        batch: &mut Batch,
    ) {
        batch.scale(grid, whole + usize::from(rest > 0));
        for i in 0..whole {
            data.write(start + i * size.get(), size.get(), grid, batch.of(i));
        }
        if rest > 0 {
            data.write(start + whole * size.get(), rest, grid, batch.of(whole));
        }
    }
}

impl<Fast: Grid, Exact: Grid> Kernel for Blocks<Fast, Exact> {
    fn granule(&self) -> usize {
        self.row
    }

    fn in_place(&self, _first: usize, data: &mut [f32]) {
        self.run(data);
    }

    fn into(&self, _first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        self.run((source, output));
    }
}

/// Fake quantization of blocks whose elements stand in columns, into a new vector.
pub(super) fn columns<E: FlexElement, Fast: Grid, Exact: Grid>(
    source: &[E],
    rows: usize,
    columns: usize,
    block: usize,
    grids: &Grids<Fast, Exact>,
) -> Vec<E> {
    let mut output: Vec<E> = Vec::with_capacity(source.len());
    let spare = &mut output.spare_capacity_mut()[..source.len()];
    let slab = |(source, output): (&[E], &mut [MaybeUninit<E>])| self::slab(source, output, columns, grids);
    if source.len() <= CHUNK {
        for (source, output) in source.chunks(rows * columns).zip(spare.chunks_mut(rows * columns)) {
            source.chunks(block * columns).zip(output.chunks_mut(block * columns)).for_each(slab);
        }
    } else {
        let matrices = source.par_chunks(rows * columns).zip(spare.par_chunks_mut(rows * columns));
        matrices.for_each(|(source, output)| {
            source.par_chunks(block * columns).zip(output.par_chunks_mut(block * columns)).for_each(slab);
        });
    }
    // SAFETY: the slabs cover the vector, and `slab` writes every element of its own.
    unsafe { output.set_len(source.len()) };
    output
}

/// The blocks between two rows: read row by row for the ranges, and again, from the cache, to round.
fn slab<E: FlexElement, Fast: Grid, Exact: Grid>(
    source: &[E],
    output: &mut [MaybeUninit<E>],
    columns: usize,
    grids: &Grids<Fast, Exact>,
) {
    let mut bits = vec![0u32; columns];
    let plain = |x: f32| x.to_bits() & 0x7fff_ffff;
    largest(source, columns, &mut bits, plain);
    if bits.iter().any(|bits| *bits >= f32::INFINITY.to_bits()) {
        bits.fill(0);
        largest(source, columns, &mut bits, |x| grids.exact.magnitude(x)); // what is not finite counts as the grid says
    }
    let amax: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    if (grids.fits)(&grids.fast, &amax) {
        round(source, output, columns, &Row::new(grids.fast, &amax));
    } else {
        round(source, output, columns, &Row::new(grids.exact, &amax));
    }
}

/// The largest magnitudes of columns.
#[inline(always)]
fn largest<E: FlexElement>(source: &[E], columns: usize, bits: &mut [u32], magnitude: impl Fn(f32) -> u32) {
    for row in source.chunks(columns) {
        E::scan(row, |first, part| {
            vectorized(
                #[inline(always)]
                || {
                    for (bits, x) in bits[first..].iter_mut().zip(part) {
                        *bits = (*bits).max(magnitude(*x));
                    }
                },
            );
        });
    }
}

fn round<E: FlexElement>(source: &[E], output: &mut [MaybeUninit<E>], columns: usize, kernel: &impl Kernel) {
    for (source, output) in source.chunks(columns).zip(output.chunks_mut(columns)) {
        E::map(0, source, output, kernel);
    }
}

/// The elements of a row, each with the factors of its column.
struct Row<G> {
    grid: G,
    factors: Factors,
}

impl<G: Grid> Row<G> {
    fn new(grid: G, amax: &[f32]) -> Self {
        Self { grid, factors: Factors::new(grid, amax) }
    }
}

impl<G: Grid> Kernel for Row<G> {
    fn in_place(&self, first: usize, data: &mut [f32]) {
        let (grid, Factors { to_grid, from_grid }) = (self.grid, &self.factors);
        vectorized(
            #[inline(always)]
            || {
                apply(data, [&to_grid[first..], &from_grid[first..]], |x, [to_grid, from_grid]| {
                    grid.fake_quant(x, Scale { to_grid, from_grid })
                });
            },
        );
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        let (grid, Factors { to_grid, from_grid }) = (self.grid, &self.factors);
        vectorized(
            #[inline(always)]
            || {
                apply_into(source, output, [&to_grid[first..], &from_grid[first..]], |x, [to_grid, from_grid]| {
                    grid.fake_quant(x, Scale { to_grid, from_grid })
                });
            },
        );
    }
}
