//! The multiple-choice knapsack: one choice of each group, the least sum of scores within a budget of cost.
//!
//! ```text
//! min Σ_g score(g, j_g)     so that     Σ_g cost(g, j_g) ≤ budget
//! ```
//!
//! Solved exactly, with no tolerance: scores of one model span ten orders of magnitude, where the tolerances of solvers for general
//! integer programs begin to matter, and 500 groups of 5 choices took one of them seconds.
//!
//! 1. the linear relaxation, by the convex hulls of the groups, gives a multiplier `λ` and a lower bound; rounding it, an upper one;
//! 2. a choice whose *reduced cost* `r = score + λ·cost − min_j (score + λ·cost)` exceeds the gap between them is in no solution;
//! 3. what is left open, few groups, goes through a list of states in which none is dominated and the sum of reduced costs stays
//!    within the gap.
//!
//! Source: Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 83(2); Kellerer, Pferschy, Pisinger 2004,
//! "Knapsack Problems", §11.

/// One choice of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) cost: f64,
    pub(super) score: f64,
}

/// Costs are sums of many numbers: a budget that is met but for their rounding is met.
const SLACK: f64 = 1e-12;

/// The index of the choice of each group, or the least cost there is if that is above the budget.
///
/// Of several solutions of equal score, one of the least cost.
pub(super) fn solve(groups: &[Vec<Item>], budget: f64) -> Result<Vec<usize>, f64> {
    let budget = budget * (1.0 + SLACK);
    let efficient: Vec<Vec<usize>> = groups.iter().map(|group| efficient(group)).collect();
    let cheapest: Vec<usize> = efficient.iter().map(|choices| choices[0]).collect();
    let least = cost(groups, &cheapest);
    if least > budget {
        return Err(least);
    }
    let (mut best, lambda) = relaxed(groups, &efficient, cheapest, budget);
    let mut upper = score(groups, &best);
    let penalised = |item: Item| item.score + lambda * item.cost;
    let at_multiplier: Vec<usize> = groups
        .iter()
        .zip(&efficient)
        .map(|(group, choices)| {
            *choices.iter().min_by(|a, b| penalised(group[**a]).total_cmp(&penalised(group[**b]))).expect("not empty")
        })
        .collect();
    let lower = at_multiplier.iter().zip(groups).map(|(j, group)| penalised(group[*j])).sum::<f64>() - lambda * budget;
    let reduced = |g: usize, j: usize| penalised(groups[g][j]) - penalised(groups[g][at_multiplier[g]]);
    let rounding = 1e-12 * (upper.abs() + lambda * budget);
    let open = |gap: f64| -> Vec<(usize, Vec<usize>)> {
        let choices = |g: usize| -> Vec<usize> {
            efficient[g].iter().copied().filter(|j| reduced(g, *j) <= gap + rounding).collect()
        };
        (0..groups.len()).map(|g| (g, choices(g))).collect()
    };

    let (mut core, mut fixed_cost) = (open(upper - lower), 0.0);
    core.retain(|(g, choices)| {
        if choices.len() == 1 {
            fixed_cost += groups[*g][choices[0]].cost;
        }
        choices.len() > 1
    });
    // groups that change for the least come first: their choices decide most
    let second = |(g, choices): &(usize, Vec<usize>)| {
        let rest = choices.iter().filter(|j| **j != at_multiplier[*g]);
        rest.map(|j| reduced(*g, *j)).fold(f64::INFINITY, f64::min)
    };
    core.sort_by(|a, b| second(a).total_cmp(&second(b)));
    // cost and score of the groups that are yet to come, at the multiplier and at their cheapest
    let mut rest = vec![(0.0, 0.0, 0.0); core.len() + 1];
    for (i, (g, choices)) in core.iter().enumerate().rev() {
        let (item, (cost, score, least)) = (groups[*g][at_multiplier[*g]], rest[i + 1]);
        rest[i] = (cost + item.cost, score + item.score, least + groups[*g][choices[0]].cost);
    }
    let fixed_score: f64 = (0..groups.len())
        .filter(|g| core.iter().all(|(open, _)| open != g))
        .map(|g| groups[g][at_multiplier[g]].score)
        .sum();

    let mut states = vec![State { cost: fixed_cost, score: fixed_score, reduced: 0.0, chosen: Vec::new() }];
    let mut found: Option<State> = None;
    for (i, (g, choices)) in core.iter().enumerate() {
        let mut next: Vec<State> = Vec::with_capacity(states.len() * choices.len());
        for state in &states {
            for &j in choices {
                let reached = state.with(groups[*g][j], reduced(*g, j), j);
                let (rest_cost, rest_score, rest_least) = rest[i + 1];
                if reached.cost + rest_least > budget || lower + reached.reduced > upper + rounding {
                    continue;
                }
                let (whole_cost, whole_score) = (reached.cost + rest_cost, reached.score + rest_score);
                if whole_cost <= budget && whole_score < upper {
                    upper = whole_score;
                    let remaining = core[i + 1..].iter().map(|(g, _)| at_multiplier[*g]);
                    let chosen = reached.chosen.iter().copied().chain(remaining).collect();
                    found = Some(State { chosen, ..reached.clone() });
                }
                next.push(reached);
            }
        }
        states = undominated(next);
    }
    let last = states
        .into_iter()
        .filter(|state| state.cost <= budget)
        .min_by(|a, b| a.score.total_cmp(&b.score).then(a.cost.total_cmp(&b.cost)));
    let candidates = found.into_iter().chain(last);
    let take = |state: State| {
        let mut chosen = at_multiplier.clone();
        core.iter().zip(&state.chosen).for_each(|((g, _), j)| chosen[*g] = *j);
        chosen
    };
    for chosen in candidates.map(take) {
        let [known, new] = [&best, &chosen].map(|chosen| (score(groups, chosen), cost(groups, chosen)));
        if new.1 <= budget && new < known {
            best = chosen;
        }
    }
    Ok(best)
}

/// Choices of some groups.
#[derive(Clone, Debug)]
struct State {
    cost: f64,
    score: f64,
    reduced: f64,
    chosen: Vec<usize>,
}

impl State {
    fn with(&self, item: Item, reduced: f64, choice: usize) -> Self {
        let mut chosen = Vec::with_capacity(self.chosen.len() + 1);
        chosen.extend_from_slice(&self.chosen);
        chosen.push(choice);
        Self { cost: self.cost + item.cost, score: self.score + item.score, reduced: self.reduced + reduced, chosen }
    }
}

/// Those that no other beats in both cost and score, by cost.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.score.total_cmp(&b.score)));
    let mut least = f64::INFINITY;
    states.retain(|state| {
        let better = state.score < least;
        least = least.min(state.score);
        better
    });
    states
}

/// The choices of a group that no other beats in both, cheapest first.
fn efficient(group: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by(|a, b| group[*a].cost.total_cmp(&group[*b].cost).then(group[*a].score.total_cmp(&group[*b].score)));
    let mut least = f64::INFINITY;
    order.retain(|j| {
        let better = group[*j].score < least;
        least = least.min(group[*j].score);
        better
    });
    order
}

/// The linear relaxation: from the cheapest choices, steps along the convex hulls, the most efficient first, as long as they fit; steps
/// after one that does not are tried too, so that the result is a good solution. With it the multiplier, the efficiency of the
/// first step that did not fit.
fn relaxed(groups: &[Vec<Item>], efficient: &[Vec<usize>], cheapest: Vec<usize>, budget: f64) -> (Vec<usize>, f64) {
    struct Step {
        group: usize,
        to: usize,
        cost: f64,
        gain: f64,
    }
    let mut steps = Vec::new();
    for (g, choices) in efficient.iter().enumerate() {
        for pair in hull(&groups[g], choices).windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|j| groups[g][j]);
            steps.push(Step { group: g, to: pair[1], cost: b.cost - a.cost, gain: a.score - b.score });
        }
    }
    steps.sort_by(|a, b| (b.gain / b.cost).total_cmp(&(a.gain / a.cost)));
    let (mut chosen, mut spent, mut lambda) = (cheapest, 0.0, None);
    spent += cost(groups, &chosen);
    let mut stopped = vec![false; groups.len()];
    for step in steps {
        if stopped[step.group] || spent + step.cost > budget {
            stopped[step.group] = true;
            lambda.get_or_insert(step.gain / step.cost);
            continue;
        }
        spent += step.cost;
        chosen[step.group] = step.to;
    }
    (chosen, lambda.unwrap_or(0.0))
}

/// The lower convex hull of choices that are sorted by cost.
fn hull(group: &[Item], choices: &[usize]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for &j in choices {
        while let [.., a, b] = hull[..] {
            let (a, b, c) = (group[a], group[b], group[j]);
            let convex = (a.score - b.score) * (c.cost - b.cost) > (b.score - c.score) * (b.cost - a.cost);
            if convex {
                break;
            }
            hull.pop();
        }
        hull.push(j);
    }
    hull
}

fn cost(groups: &[Vec<Item>], chosen: &[usize]) -> f64 {
    groups.iter().zip(chosen).map(|(group, j)| group[*j].cost).sum()
}

fn score(groups: &[Vec<Item>], chosen: &[usize]) -> f64 {
    groups.iter().zip(chosen).map(|(group, j)| group[*j].score).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(pairs: &[(f64, f64)]) -> Vec<Item> {
        pairs.iter().map(|(cost, score)| Item { cost: *cost, score: *score }).collect()
    }

    #[test]
    fn the_most_efficient_step_is_not_always_the_best() {
        // greedy takes the second group's step (gain 3 for 2) and has no room for the first's (gain 4 for 3)
        let groups = [items(&[(1.0, 4.0), (4.0, 0.0)]), items(&[(1.0, 3.0), (3.0, 0.0)])];
        assert_eq!(solve(&groups, 5.0), Ok(vec![1, 0]));
        assert_eq!(solve(&groups, 4.9), Ok(vec![0, 1]));
        assert_eq!(solve(&groups, 7.0), Ok(vec![1, 1]));
    }

    #[test]
    fn a_choice_inside_the_hull_can_be_the_solution() {
        let groups = [items(&[(1.0, 10.0), (3.0, 8.0), (5.0, 0.0)])];
        assert_eq!(solve(&groups, 4.0), Ok(vec![1]));
    }

    #[test]
    fn the_least_cost_is_said_where_the_budget_is_below_it() {
        assert_eq!(solve(&[items(&[(2.0, 1.0), (4.0, 0.0)]), items(&[(3.0, 0.0)])], 4.0), Err(5.0));
    }

    /// A sequence of numbers in [0, 1).
    fn numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    #[test]
    fn no_other_choice_is_better() {
        for seed in 1..=300 {
            let mut number = numbers(seed);
            let groups: Vec<Vec<Item>> = (0..1 + (number() * 6.0) as usize)
                .map(|_| {
                    let choices = 1 + (number() * 4.0) as usize;
                    // scores over twelve orders of magnitude
                    (0..choices)
                        .map(|_| Item { cost: (number() * 20.0).round(), score: 10f64.powf(-12.0 * number()) })
                        .collect()
                })
                .collect();
            let budget = number() * 20.0 * groups.len() as f64;
            let (mut all, mut best) = (vec![vec![]], f64::INFINITY);
            for group in &groups {
                all = all
                    .iter()
                    .flat_map(|c: &Vec<usize>| (0..group.len()).map(move |j| [c.as_slice(), &[j]].concat()))
                    .collect();
            }
            for chosen in all.iter().filter(|chosen| cost(&groups, chosen) <= budget) {
                best = best.min(score(&groups, chosen));
            }
            match solve(&groups, budget) {
                Ok(chosen) => {
                    assert!(cost(&groups, &chosen) <= budget * (1.0 + SLACK));
                    assert_eq!(score(&groups, &chosen), best, "seed {seed}");
                }
                Err(least) => assert!(best.is_infinite() && least > budget),
            }
        }
    }
}
