//! Error against bits: a row for each format.

use plot::{Axis, Row, Rows};

use crate::Outcome;

/// Draws the outcomes as SVG, those with the fewest bits first.
pub(crate) fn rows(outcomes: &[Outcome]) -> String {
    let row = |outcome: &Outcome| Row {
        name: outcome.format.into(),
        note: format!("{:.2}", outcome.bits),
        values: vec![outcome.gaussian_db, outcome.heavy_tailed_db],
        // every bit is worth 6.02 dB to a uniform grid
        tick: Some(6.02 * (outcome.bits - 1.0)),
    };
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by(|a, b| a.bits.total_cmp(&b.bits).then(a.gaussian_db.total_cmp(&b.gaussian_db)));
    let rows = Rows {
        title: "A million values in every format".into(),
        note: "bits".into(),
        x: Axis::linear("signal to noise, dB").higher_is_better(),
        dots: vec!["Gaussian".into(), "heavy-tailed".into()],
        tick: "6.02 dB for each bit after the first".into(),
        rows: sorted.into_iter().map(row).collect(),
    };
    rows.to_svg()
}
