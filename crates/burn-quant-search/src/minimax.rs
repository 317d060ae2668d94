//! The least largest score within a budget: of all thresholds under which some selection keeps its scores, the lowest
//! whose cheapest selection is within it.
//!
//! Source of the bisection: ModelOpt 0.47, `AutoQuantizeKLDivSearcher`.

use super::knapsack::{Item, within};

/// The cheapest choice of each group whose score is at most a threshold; the cheapest of all where there is none.
fn up_to(groups: &[Vec<Item>], threshold: f64) -> Vec<usize> {
    let cheapest = |group: &[Item], passes: &dyn Fn(&Item) -> bool| {
        let passing = (0..group.len()).filter(|j| passes(&group[*j]));
        passing.min_by(|a, b| group[*a].cost.total_cmp(&group[*b].cost))
    };
    let choice = |group: &Vec<Item>| {
        cheapest(group, &|item| item.score <= threshold).or_else(|| cheapest(group, &|_| true)).expect("not empty")
    };
    groups.iter().map(choice).collect()
}

fn is_within(groups: &[Vec<Item>], chosen: &[usize], budget: f64) -> bool {
    within(groups.iter().zip(chosen).map(|(group, j)| group[*j].cost).sum(), budget)
}

/// The least largest score: among the scores themselves, so it is exact.
pub(super) fn smallest_maximum(groups: &[Vec<Item>], budget: f64) -> Vec<usize> {
    let mut thresholds: Vec<f64> = groups.iter().flatten().map(|item| item.score).collect();
    thresholds.sort_by(f64::total_cmp);
    let first = thresholds.partition_point(|threshold| {
        let chosen = up_to(groups, *threshold);
        let reached = groups.iter().zip(&chosen).all(|(group, j)| group[*j].score <= *threshold);
        !reached || !is_within(groups, &chosen, budget)
    });
    up_to(groups, thresholds.get(first).copied().unwrap_or(f64::INFINITY))
}

/// The reference's bisection, with the selection it evaluates last.
pub(super) fn bisection(groups: &[Vec<Item>], budget: f64) -> Vec<usize> {
    let scores = || groups.iter().flatten().map(|item| item.score);
    let (mut low, mut high) = (scores().fold(f64::INFINITY, f64::min), scores().fold(0.0, f64::max));
    let mut chosen = up_to(groups, high);
    for _ in 0..100 {
        let threshold = (low + high) / 2.0;
        chosen = up_to(groups, threshold);
        if is_within(groups, &chosen, budget) { high = threshold } else { low = threshold }
    }
    chosen
}
