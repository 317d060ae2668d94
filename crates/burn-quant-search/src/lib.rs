//! Auto-quantize: the best format of each layer within a budget of bits.
//!
//! ```text
//! model + formats
//!   ──► units, groups   which layers, which of them together                           units.rs
//!   ──► candidates      what each format makes of each layer: one calibration each     candidate.rs
//!   ──► scores          what each costs in loss: gradients, divergence, or statistics  gradient.rs and others
//!   ──► costs           what each takes in bits, exactly                               cost.rs, count.rs
//!   ──► selection       the least loss within the budget                               knapsack.rs, minimax.rs
//!   ──► model, SearchState, QuantConfig                                                state.rs, recipe.rs
//! ```
//!
//! [`auto_quantize`] does all of it; [`AutoQuantization`] has more to say. The [`SearchState`] is plain data: it
//! answers for another budget without another look at the data, and turns into an ordinary
//! [`QuantConfig`](burn_quant_calibrate::config::QuantConfig).
//!
//! # Source
//!
//! ModelOpt 0.47, `auto_quantize`. Other than there: bits are counted exactly by default ([`Cost`]); rules of a format
//! that are for some layers only are obeyed; the knapsack is solved exactly, however small the scores are; candidates
//! of a re-solved budget are applied without calibration; experts are scored at their own outputs.

mod auto_quantize;
mod candidate;
mod config;
mod cost;
mod count;
mod curve;
mod divergence;
mod drawing;
#[cfg(feature = "autodiff")]
mod gradient;
mod gram_score;
mod knapsack;
mod minimax;
mod operand;
#[cfg(feature = "autodiff")]
mod probe;
mod progress;
mod recipe;
mod state;
mod table;
mod units;

pub use auto_quantize::AutoQuantization;
#[cfg(feature = "autodiff")]
pub use auto_quantize::auto_quantize;
pub use candidate::{Candidate, QuantizerState};
pub use config::{AutoQuantizeConfig, Cost, Objective, SearchFormat, SearchOverride, default_groups};
pub use curve::{Curve, CurvePoint};
pub use progress::SearchProgress;
pub use state::{BaseResult, Choice, ScoreMethod, SearchGroup, SearchState, Selection};
pub use table::SearchTable;
pub use units::Unit;
