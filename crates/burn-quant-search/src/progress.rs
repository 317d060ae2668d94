//! How far a search has come, and how long the rest takes.

use std::time::{Duration, Instant};

/// How far a search has come.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SearchProgress {
    /// The layers are known.
    Planned {
        /// Groups of layers.
        groups: usize,
        /// Formats.
        formats: usize,
    },
    /// A format is calibrated.
    Calibrated {
        /// Its name.
        format: String,
        /// Formats so far.
        done: usize,
        /// All formats.
        of: usize,
        /// An estimate of the time that the others take.
        remaining: Duration,
    },
    /// A batch is scored.
    Scored {
        /// Batches so far.
        done: usize,
        /// Batches at most.
        of: usize,
        /// An estimate of the time that the others take.
        remaining: Duration,
    },
    /// The formats are chosen.
    Solved,
}

/// Estimates what is left of equal steps.
pub(super) struct Clock {
    start: Instant,
    pub(super) done: usize,
    of: usize,
}

impl Clock {
    pub(super) fn new(of: usize) -> Self {
        Self { start: Instant::now(), done: 0, of }
    }

    pub(super) fn tick(&mut self) -> (usize, Duration) {
        self.done += 1;
        let left = self.of.saturating_sub(self.done);
        (self.done, self.start.elapsed() / self.done as u32 * left as u32)
    }

    pub(super) fn scored(&mut self) -> SearchProgress {
        let (done, remaining) = self.tick();
        SearchProgress::Scored { done, of: self.of, remaining }
    }
}
