//! Static ranges that do not fit the data: each other's, of something else, far too small, far too large.
//!
//! ```text
//! fit = range / largest magnitude of the data      1 after calibration with `max` on the same data
//! ```
//!
//! Ranges that minimize an error clip a little: down to a third is left alone. Ranges of other data are larger: up to
//! four times is left alone. Beyond that it counts what a range that fits would gain: nothing in E4M3, whose values are
//! as dense at small magnitudes, and nothing where a few large values are clipped so that the others are not lost.

use burn_quant_calibrate::config::Algorithm;
use burn_quant_core::config::{RangeSource, Rule};
use burn_quant_ops::numerics::ScaleFormat;

use super::{about, for_layer, literal, number, percent};
use crate::case::{Cases, QuantizerCase, is_misfit};
use crate::diagnosis::{Ends, Finding, FindingKind, Operand, Severity};

/// What ranges that fit gain at least, in decibels.
const GAIN: f64 = 3.0;
/// Scales of blocks take up what the range of their tensor has too much, down to this signal to noise, in decibels.
const BLOCKS: f64 = 12.0;
/// How far ranges that were exchanged may be from fitting.
const LIKE: f32 = 1.25;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let misfits: Vec<&QuantizerCase> = cases.quantizers.iter().filter(|case| misfits(case)).collect();
    let mut found = Vec::new();
    let mut exchanged: Vec<&str> = Vec::new(); // with a quantizer whose finding says so
    for case in &misfits {
        if exchanged.contains(&case.shown.name.as_str()) {
            continue;
        }
        let is_partner = |other: &&&QuantizerCase| {
            let name = other.shown.name.as_str();
            name != case.shown.name && !exchanged.contains(&name) && are_swapped(case, other)
        };
        let finding = match (misfits.iter().find(is_partner), swapped_groups(case)) {
            _ if first_of_no_range(case).is_some() => no_range(cases, case),
            (Some(other), _) => {
                exchanged.push(&other.shown.name);
                Some(swapped(cases, case, other))
            }
            (None, Some(pair)) => Some(swapped_channels(cases, case, pair)),
            (None, None) if is_placeholder(case, &cases.quantizers) => uncalibrated(cases, case),
            (None, None) => misfit(cases, case),
        };
        found.extend(finding);
    }
    found
}

fn fit(amax: f32, seen: f32) -> f32 {
    if seen > 0.0 { amax / seen } else { 1.0 }
}

/// Whether some groups do not fit. Data that are not finite fit nothing.
fn misfits(case: &QuantizerCase) -> bool {
    let known = case.config.range != RangeSource::Dynamic && case.amax.len() == case.seen.len();
    let finite = case.seen.iter().all(|seen| seen.is_finite());
    known && finite && case.amax.iter().zip(&case.seen).any(|(amax, seen)| is_misfit(*amax, *seen))
}

/// Whether a range is nothing that values can be rounded to.
fn is_no_range(amax: f32, seen: f32) -> bool {
    !amax.is_finite() || (amax == 0.0 && seen > 0.0)
}

/// Whether ranges that fit gain something, as far as it is known.
fn gains(case: &QuantizerCase) -> bool {
    match (case.config.scale, case.refit) {
        (ScaleFormat::F32, refit) => refit.is_none_or(|gain| gain >= GAIN),
        _ => case.shown.sqnr.is_none_or(|sqnr| sqnr < BLOCKS),
    }
}

/// Whether the ranges of two quantizers of one group each fit when they are exchanged.
fn are_swapped(a: &QuantizerCase, b: &QuantizerCase) -> bool {
    let like = |fit: f32| (1.0 / LIKE..=LIKE).contains(&fit);
    match (&a.amax[..], &b.amax[..], &a.seen[..], &b.seen[..]) {
        ([a_amax], [b_amax], [a_seen], [b_seen]) => like(fit(*a_amax, *b_seen)) && like(fit(*b_amax, *a_seen)),
        _ => false,
    }
}

/// Two channels whose ranges fit when they are exchanged.
fn swapped_groups(case: &QuantizerCase) -> Option<(usize, usize)> {
    let like = |fit: f32| (1.0 / LIKE..=LIKE).contains(&fit);
    let off: Vec<usize> = (0..case.amax.len()).filter(|i| is_misfit(case.amax[*i], case.seen[*i])).collect();
    let &[a, b] = &off[..] else { return None };
    (like(fit(case.amax[a], case.seen[b])) && like(fit(case.amax[b], case.seen[a]))).then_some((a, b))
}

/// Whether the range looks like one that nobody measured: 1, or the same number for channels that differ, or for
/// quantizers whose data differ.
fn is_placeholder(case: &QuantizerCase, all: &[QuantizerCase]) -> bool {
    let (Some(amax), Some(seen)) = (Ends::of(&case.amax), Ends::of(&case.seen)) else { return false };
    let one = amax.lowest == 1.0 && amax.highest == 1.0;
    let same = amax.count > 1 && amax.lowest == amax.highest && seen.highest > 1.1 * seen.lowest;
    let alike = |other: &QuantizerCase| other.amax == case.amax && other.seen != case.seen;
    let constant = matches!(case.config.range, RangeSource::Constant(_));
    !constant && (one || same || (amax.count == 1 && all.iter().any(alike)))
}

fn swapped(cases: &Cases, case: &QuantizerCase, other: &QuantizerCase) -> Finding {
    let message = format!(
        "The range is {}, the data reach {}; for `{}` it is the other way round, {} and {}: the two ranges were \
         exchanged.",
        number(case.amax[0].into()),
        number(case.seen[0].into()),
        other.shown.name,
        number(other.amax[0].into()),
        number(other.seen[0].into()),
    );
    let mut finding = again(cases, case, FindingKind::SwappedRanges, message);
    let mut rules = again(cases, other, FindingKind::SwappedRanges, String::new()).rules;
    finding.rules.append(&mut rules);
    finding
}

fn swapped_channels(cases: &Cases, case: &QuantizerCase, (a, b): (usize, usize)) -> Finding {
    let message = format!(
        "The ranges of the channels {a} and {b} are {} and {}, while the values reach {} and {}: exchanged.",
        number(case.amax[a].into()),
        number(case.amax[b].into()),
        number(case.seen[a].into()),
        number(case.seen[b].into()),
    );
    again(cases, case, FindingKind::SwappedRanges, message)
}

fn uncalibrated(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let (amax, seen) = (Ends::of(&case.amax)?, Ends::of(&case.seen)?);
    let groups = if amax.count == 1 { "The range is".into() } else { format!("All {} ranges are", amax.count) };
    let message = format!(
        "{groups} {}, and the data reach {}: a number that was set, not measured.",
        number(amax.highest.into()),
        number(seen.highest.into()),
    );
    Some(again(cases, case, FindingKind::Uncalibrated, message))
}

/// The first range that is none, and what its data reach.
fn first_of_no_range(case: &QuantizerCase) -> Option<(f32, f32)> {
    let mut ranges = case.amax.iter().copied().zip(case.seen.iter().copied());
    ranges.find(|(amax, seen)| is_no_range(*amax, *seen))
}

fn no_range(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let (amax, seen) = first_of_no_range(case)?;
    let what = if amax == 0.0 { "everything becomes zero" } else { "nothing can be rounded to it" };
    let message = format!("A range is {amax}, and the data reach {}: {what}.", number(seen.into()));
    Some(again(cases, case, FindingKind::Uncalibrated, message))
}

fn misfit(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let fits: Vec<f32> = case.amax.iter().zip(&case.seen).map(|(amax, seen)| fit(*amax, *seen)).collect();
    let off = case.amax.iter().zip(&case.seen).filter(|(amax, seen)| is_misfit(**amax, **seen)).count();
    let ends = Ends::of(&fits)?;
    let of = if fits.len() == 1 { String::new() } else { format!(" in {off} of {} groups", fits.len()) };
    if ends.lowest < 1.0 / 3.0 {
        let message = format!(
            "The data reach {} times as far as the range{of}; {} of the values are clipped.",
            number((1.0 / ends.lowest).into()),
            percent(case.shown.clipped),
        );
        return Some(if gains(case) {
            again(cases, case, FindingKind::Saturated, message)
        } else {
            let advice = match case.shown.operand {
                Operand::Weight => "Leave it: a range that holds everything rounds the other values away.",
                _ => "Leave it, or give each token a range: one that holds everything rounds the other values away.",
            };
            about(cases, case, FindingKind::Saturated, Severity::Note, (message, advice.into()))
        });
    }
    // a range that is too large costs bits; that of a channel that other data used may be right
    let weight = case.shown.operand == Operand::Weight;
    if !gains(case) || (!weight && off * 2 < fits.len()) {
        return None;
    }
    let message = format!(
        "The range is {} times as large as the data{of}: {:.1} bits of the format are not used.",
        number(ends.highest.into()),
        ends.highest.log2(),
    );
    Some(again(cases, case, FindingKind::Unused, message))
}

/// A range that has to be found again; one that the recipe has set, from data.
fn again(cases: &Cases, case: &QuantizerCase, kind: FindingKind, message: String) -> Finding {
    let constant = matches!(case.config.range, RangeSource::Constant(_));
    let advice = if constant {
        "Let calibration find this range, with data like these, instead of a constant."
    } else {
        "Calibrate this quantizer again, with data like these."
    };
    let advice = advice.to_string();
    let mut config = case.config.clone();
    config.learned_ranges = None;
    config.range = RangeSource::Static;
    about(cases, case, kind, Severity::Broken, (message, advice))
        .with_rule(Rule::set(literal(&case.shown.name), config))
        .with_step(for_layer(&case.shown.layer, Algorithm::Max))
}
