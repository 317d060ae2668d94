//! Three calibration algorithms as a user's crate has them: a file each, and a row in one table.
//!
//! | algorithm | of | file |
//! |---|---|---|
//! | `mean_deviation` | activations | `mean_deviation.rs` |
//! | `fitted_scale` | layers | `fitted_scale.rs` |
//! | `lloyd` | convolution kernels, and all other weights that are not matrices | `lloyd.rs` |

mod fitted_scale;
mod lloyd;
mod mean_deviation;

pub use fitted_scale::FittedScale;
pub use lloyd::Lloyd;
pub use mean_deviation::MeanDeviation;

use burn_quant::calibrate::{AlgorithmOptions, CustomAlgorithms};

/// Returns the table of the algorithms, by the names that recipes have for them.
///
/// For [`QuantizeOptions::with_algorithms`](burn_quant::calibrate::QuantizeOptions::with_algorithms) and
/// [`AutoQuantization::with_algorithms`](burn_quant::search::AutoQuantization::with_algorithms).
pub fn algorithms() -> CustomAlgorithms {
    CustomAlgorithms::new()
        .with("mean_deviation", |options| Ok(Box::new(MeanDeviation { count: number(options, "count", 3.0)? })))
        .with("fitted_scale", |options| Ok(Box::new(FittedScale::with_options(options)?)))
        .with("lloyd", |options| Ok(Box::new(Lloyd { steps: number(options, "steps", 20.0)? as usize })))
}

/// The number of an option, or its default; an algorithm has no other option.
fn number(options: &AlgorithmOptions, name: &str, default: f64) -> Result<f64, String> {
    if let Some(unknown) = options.keys().find(|option| *option != name) {
        return Err(format!("`{unknown}` is not an option: there is `{name}`"));
    }
    let Some(value) = options.get(name) else { return Ok(default) };
    value.as_f64().filter(|value| *value > 0.0).ok_or(format!("`{name}` is a number above 0"))
}
