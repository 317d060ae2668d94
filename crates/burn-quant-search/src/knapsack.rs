//! The multiple-choice knapsack: one choice of each group, the least sum of scores within a budget of cost.
//!
//! ```text
//! min Σ_g score(g, j_g)     so that     Σ_g cost(g, j_g) ≤ budget
//! ```
//!
//! Solved exactly, with no tolerance: scores of one model span ten orders of magnitude, where the tolerances of solvers
//! for general integer programs begin to matter, and 500 groups of 5 choices took one of them seconds.
//!
//! 1. the linear relaxation, by the convex hulls of the groups, gives a multiplier `λ` and a lower bound; rounding it,
//!    an upper one;
//! 2. a choice whose *reduced cost* `r = score + λ·cost − min_j (score + λ·cost)` exceeds the gap between them is in no
//!    solution;
//! 3. what is left open goes through a list of states, largest groups first, in which none is dominated, the sum of
//!    reduced costs stays within the gap, and the groups that are left can still bring the cost to the budget: at first
//!    with the best few thousand states only, which nearly closes the gap, then with all, as far as memory goes.
//!
//! The number of states can double with every group, where all choices are worth their cost alike. So it is limited,
//! and where states were left out, the least of their lower bounds says how far the solution may be from the best: the
//! *gap*, 0 where it is the best.
//!
//! Source: Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 83(2); Kellerer,
//! Pferschy, Pisinger 2004, "Knapsack Problems", §11.

/// One choice of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) cost: f64,
    pub(super) score: f64,
}

/// Costs are sums of many numbers: a budget that is met but for their rounding is met.
pub(super) const SLACK: f64 = 1e-12;

/// Whether a cost is within a budget.
pub(super) fn within(cost: f64, budget: f64) -> bool {
    cost <= budget * (1.0 + SLACK)
}

/// What was chosen, and how far its score may be above the least.
#[derive(Debug, PartialEq)]
pub(super) struct Solution {
    /// The index of the choice of each group.
    pub(super) chosen: Vec<usize>,
    /// 0 if no other solution is better.
    pub(super) gap: f64,
}

/// The best choices, or the least cost there is if that is above the budget.
///
/// Of several solutions of equal score, one of the least cost.
pub(super) fn solve(groups: &[Vec<Item>], budget: f64) -> Result<Solution, f64> {
    solve_within(groups, budget, LINKS)
}

/// Solves with about so many states in memory at most.
fn solve_within(groups: &[Vec<Item>], budget: f64, links: usize) -> Result<Solution, f64> {
    let budget = budget * (1.0 + SLACK);
    let efficient: Vec<Vec<usize>> = groups.iter().map(|group| efficient(group)).collect();
    let cheapest: Vec<usize> = efficient.iter().map(|choices| choices[0]).collect();
    let least = cost(groups, &cheapest);
    if least > budget {
        return Err(least);
    }
    let (best, lambda) = relaxed(groups, &efficient, cheapest, budget);
    let choices: usize = efficient.iter().map(Vec::len).sum();
    let mut search = Search::new(groups, efficient, budget, lambda, best);
    search.run(BEAM);
    let bound = search.run((links / choices.max(1)).max(BEAM));
    let score = score(groups, &search.best);
    Ok(Solution { chosen: search.best, gap: if bound < score { score - bound } else { 0.0 } })
}

/// States that are kept when the gap is to be closed quickly.
const BEAM: usize = 2000;

/// States of all groups together that are kept at most, of 16 bytes each: a second's work.
const LINKS: usize = 1 << 23;

struct Search<'a> {
    groups: &'a [Vec<Item>],
    efficient: Vec<Vec<usize>>,
    budget: f64,
    lambda: f64,
    /// The best choice of each group where a unit of cost is worth `λ`.
    at_multiplier: Vec<usize>,
    lower: f64,
    best: Vec<usize>,
}

/// Choices of some groups.
#[derive(Clone, Copy)]
struct State {
    cost: f64,
    score: f64,
    reduced: f64,
    /// The last choice, in the list of all.
    last: usize,
}

/// A choice, and where in the list the one before it is.
struct Link {
    before: usize,
    choice: usize,
}

/// What groups that are yet to come add to cost and score at the multiplier, and to cost at least and at most.
#[derive(Clone, Copy, Default)]
struct Rest {
    cost: f64,
    score: f64,
    least: f64,
    most: f64,
}

impl<'a> Search<'a> {
    fn new(groups: &'a [Vec<Item>], efficient: Vec<Vec<usize>>, budget: f64, lambda: f64, best: Vec<usize>) -> Self {
        let penalised = |item: Item| item.score + lambda * item.cost;
        let best_of = |(group, choices): (&Vec<Item>, &Vec<usize>)| {
            let order = |a: &&usize, b: &&usize| penalised(group[**a]).total_cmp(&penalised(group[**b]));
            *choices.iter().min_by(order).expect("a group has a choice")
        };
        let at_multiplier: Vec<usize> = groups.iter().zip(&efficient).map(best_of).collect();
        let sum: f64 = at_multiplier.iter().zip(groups).map(|(j, group)| penalised(group[*j])).sum();
        Self { groups, efficient, budget, lambda, at_multiplier, lower: sum - lambda * budget, best }
    }

    fn reduced(&self, g: usize, j: usize) -> f64 {
        let penalised = |item: Item| item.score + self.lambda * item.cost;
        penalised(self.groups[g][j]) - penalised(self.groups[g][self.at_multiplier[g]])
    }

    /// Groups with more than one choice whose reduced cost is within a gap, the largest first.
    fn core(&self, gap: f64) -> Vec<(usize, Vec<usize>)> {
        let open = |g: usize| {
            let left = self.efficient[g].iter().copied().filter(|j| self.reduced(g, *j) <= gap);
            (g, left.collect::<Vec<_>>())
        };
        let mut core: Vec<_> = (0..self.groups.len()).map(open).filter(|(_, choices)| choices.len() > 1).collect();
        // choices of a group come by cost
        let span = |(g, choices): &(usize, Vec<usize>)| {
            self.groups[*g][choices[choices.len() - 1]].cost - self.groups[*g][choices[0]].cost
        };
        core.sort_by(|a, b| span(b).total_cmp(&span(a)));
        core
    }

    /// Improves the best solution, keeping at most so many states of a group; with all of them, to the optimum. Returns
    /// a lower bound of the solutions that were left out, infinite if there are none.
    fn run(&mut self, most: usize) -> f64 {
        let groups = self.groups;
        let mut upper = score(groups, &self.best);
        let rounding = 1e-12 * (upper.abs() + self.lambda * self.budget);
        let core = self.core(upper - self.lower + rounding);
        let mut rest = vec![Rest::default(); core.len() + 1];
        for (i, (g, choices)) in core.iter().enumerate().rev() {
            let (item, after) = (groups[*g][self.at_multiplier[*g]], rest[i + 1]);
            rest[i] = Rest {
                cost: after.cost + item.cost,
                score: after.score + item.score,
                least: after.least + groups[*g][choices[0]].cost,
                most: after.most + groups[*g][choices[choices.len() - 1]].cost,
            };
        }
        let fixed = |value: fn(&Item) -> f64| -> f64 {
            let open: std::collections::BTreeSet<usize> = core.iter().map(|(g, _)| *g).collect();
            (0..groups.len()).filter(|g| !open.contains(g)).map(|g| value(&groups[g][self.at_multiplier[g]])).sum()
        };
        let start =
            State { cost: fixed(|item| item.cost), score: fixed(|item| item.score), reduced: 0.0, last: usize::MAX };
        let (mut states, mut links, mut found) = (vec![start], Vec::<Link>::new(), None::<(usize, State)>);
        let mut left_out = f64::INFINITY;
        for (i, (g, choices)) in core.iter().enumerate() {
            let after = rest[i + 1];
            let mut next = Vec::with_capacity(states.len() * choices.len());
            for state in &states {
                for &j in choices {
                    let item = groups[*g][j];
                    let mut reached = State {
                        cost: state.cost + item.cost,
                        score: state.score + item.score,
                        reduced: state.reduced + self.reduced(*g, j),
                        last: state.last,
                    };
                    // what stays of the budget costs λ for each unit too
                    let left = (self.budget - reached.cost - after.most).max(0.0);
                    let bound = self.lower + reached.reduced + self.lambda * left;
                    if reached.cost + after.least > self.budget || bound > upper + rounding {
                        continue;
                    }
                    links.push(Link { before: state.last, choice: j });
                    reached.last = links.len() - 1;
                    let whole = reached.score + after.score;
                    if reached.cost + after.cost <= self.budget && whole < upper {
                        (upper, found) = (whole, Some((i, reached)));
                    }
                    next.push(reached);
                }
            }
            states = undominated(next);
            if states.len() > most {
                states.sort_by(|a, b| a.reduced.total_cmp(&b.reduced));
                left_out = left_out.min(self.lower + states[most].reduced);
                states.truncate(most);
            }
        }
        let last = states.iter().filter(|state| state.cost <= self.budget);
        let last = last.min_by(|a, b| a.score.total_cmp(&b.score).then(a.cost.total_cmp(&b.cost)));
        let last = last.map(|state| (core.len().saturating_sub(1), *state)).filter(|_| !core.is_empty());
        for (i, state) in found.into_iter().chain(last) {
            let mut chosen = self.at_multiplier.clone();
            let mut link = state.last;
            for (g, _) in core[..=i].iter().rev() {
                chosen[*g] = links[link].choice;
                link = links[link].before;
            }
            let [known, new] = [&self.best, &chosen].map(|chosen| (score(groups, chosen), cost(groups, chosen)));
            if new.1 <= self.budget && new < known {
                self.best = chosen;
            }
        }
        if core.is_empty() && cost(groups, &self.at_multiplier) <= self.budget {
            let [known, new] = [&self.best, &self.at_multiplier].map(|chosen| score(groups, chosen));
            if new < known {
                self.best = self.at_multiplier.clone();
            }
        }
        left_out
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

/// The linear relaxation: from the cheapest choices, steps along the convex hulls, the most efficient first, as long as
/// they fit; steps after one that does not are tried too, so that the result is a good solution. With it the
/// multiplier, the efficiency of the first step that did not fit.
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

    /// The best solution, with nothing left out.
    fn exact(chosen: &[usize]) -> Result<Solution, f64> {
        Ok(Solution { chosen: chosen.to_vec(), gap: 0.0 })
    }

    #[test]
    fn the_most_efficient_step_is_not_always_the_best() {
        // greedy takes the second group's step (gain 3 for 2) and has no room for the first's (gain 4 for 3)
        let groups = [items(&[(1.0, 4.0), (4.0, 0.0)]), items(&[(1.0, 3.0), (3.0, 0.0)])];
        assert_eq!(solve(&groups, 5.0), exact(&[1, 0]));
        assert_eq!(solve(&groups, 4.9), exact(&[0, 1]));
        assert_eq!(solve(&groups, 7.0), exact(&[1, 1]));
    }

    #[test]
    fn a_choice_inside_the_hull_can_be_the_solution() {
        let groups = [items(&[(1.0, 10.0), (3.0, 8.0), (5.0, 0.0)])];
        assert_eq!(solve(&groups, 4.0), exact(&[1]));
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
                Ok(Solution { chosen, gap }) => {
                    assert_eq!(gap, 0.0, "seed {seed}");
                    assert!(within(cost(&groups, &chosen), budget));
                    assert_eq!(score(&groups, &chosen), best, "seed {seed}");
                }
                Err(least) => assert!(best.is_infinite() && least > budget),
            }
        }
    }

    #[test]
    fn the_gap_bounds_what_a_limit_on_states_may_lose() {
        // scores fall by what is paid: no state is better than another, and their number doubles with every group
        let mut number = numbers(1);
        let groups: Vec<Vec<Item>> = (0..24)
            .map(|_| {
                let cost = 1.0 + number();
                items(&[(0.0, cost), (cost, 0.0)])
            })
            .collect();
        let all: f64 = groups.iter().map(|group| group[1].cost).sum();
        let budget = all / 2.0;
        let limited = solve_within(&groups, budget, 1).unwrap();
        let found = score(&groups, &limited.chosen);
        // the relaxation spends all of the budget: no solution is better than that
        assert!(limited.gap > 0.0 && (found - limited.gap - (all - budget)).abs() < 1e-9, "{limited:?}");
    }
}
