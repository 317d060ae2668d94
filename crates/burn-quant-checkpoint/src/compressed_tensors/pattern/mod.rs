//! Regular expressions of targets, matched as Python's `re.match` does: from the start of a name, not to its end.
//!
//! An expression is compiled to steps of a nondeterministic automaton, and all its threads run side by side, so that
//! no expression takes longer than `name² · steps`.
//!
//! Our choice: literals, `.`, `[...]`, `\d \w \s` and their opposites, `|`, groups, `* + ? {m,n}`, `^`, `$`, and
//! lookaheads that do not nest. Everything else is refused, so nothing is matched differently than in Python.

mod parse;

use parse::parse;

/// The most steps of an expression.
const MOST_STEPS: usize = 4096;

/// A set of characters.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    ranges: Vec<(char, char)>,
    negated: bool,
}

impl Class {
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != self.negated
    }

    /// The characters of `\d`, `\w`, `\s`.
    fn named(name: char) -> Option<Vec<(char, char)>> {
        Some(match name {
            'd' => vec![('0', '9')],
            'w' => vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            's' => vec![('\t', '\r'), (' ', ' ')],
            _ => return None,
        })
    }
}

enum Node {
    Class(Class),
    Sequence(Vec<Node>),
    Alternatives(Vec<Node>),
    Repeat { node: Box<Node>, least: usize, most: Option<usize> },
    Begin,
    End,
    Look { node: Box<Node>, negative: bool },
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Class(Class),
    Split(usize, usize),
    Jump(usize),
    Begin,
    End,
    /// What follows, up to its `Matched`, is looked at from here; threads go on behind it.
    Look {
        negative: bool,
        then: usize,
    },
    Matched,
}

/// A compiled regular expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Vec<Step>);

impl Pattern {
    /// Compiles an expression; `None` if it is wrong, or has what is not known here.
    pub(super) fn new(expression: &str) -> Option<Self> {
        let node = parse(expression)?;
        let mut steps = Vec::new();
        compile(&node, &mut steps)?;
        steps.push(Step::Matched);
        Some(Self(steps))
    }

    /// Returns whether the start of a name matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        let chars: Vec<char> = name.chars().collect();
        self.run(0, &chars, 0)
    }

    fn run(&self, first: usize, name: &[char], from: usize) -> bool {
        let mut threads = vec![first];
        for at in from..=name.len() {
            let mut seen = vec![false; self.0.len()];
            let mut next = Vec::new();
            while let Some(step) = threads.pop() {
                if std::mem::replace(&mut seen[step], true) {
                    continue;
                }
                match &self.0[step] {
                    Step::Matched => return true,
                    Step::Class(class) => {
                        if name.get(at).is_some_and(|c| class.has(*c)) {
                            next.push(step + 1);
                        }
                    }
                    Step::Split(one, other) => threads.extend([*one, *other]),
                    Step::Jump(to) => threads.push(*to),
                    Step::Begin if at == 0 => threads.push(step + 1),
                    Step::End if at == name.len() => threads.push(step + 1),
                    Step::Begin | Step::End => {}
                    Step::Look { negative, then } => {
                        if self.run(step + 1, name, at) != *negative {
                            threads.push(*then);
                        }
                    }
                }
            }
            threads = next;
        }
        false
    }
}

fn push(steps: &mut Vec<Step>, step: Step) -> Option<usize> {
    (steps.len() < MOST_STEPS).then(|| {
        steps.push(step);
        steps.len() - 1
    })
}

fn compile(node: &Node, steps: &mut Vec<Step>) -> Option<()> {
    match node {
        Node::Class(class) => drop(push(steps, Step::Class(class.clone()))?),
        Node::Begin => drop(push(steps, Step::Begin)?),
        Node::End => drop(push(steps, Step::End)?),
        Node::Sequence(nodes) => nodes.iter().try_for_each(|node| compile(node, steps))?,
        Node::Alternatives(nodes) => {
            let mut jumps = Vec::new();
            for (i, node) in nodes.iter().enumerate() {
                let split = if i + 1 < nodes.len() { Some(push(steps, Step::Jump(0))?) } else { None };
                compile(node, steps)?;
                if let Some(split) = split {
                    jumps.push(push(steps, Step::Jump(0))?);
                    steps[split] = Step::Split(split + 1, steps.len());
                }
            }
            let end = steps.len();
            jumps.into_iter().for_each(|jump| steps[jump] = Step::Jump(end));
        }
        Node::Repeat { node, least, most } => repeat(node, *least, *most, steps)?,
        Node::Look { node, negative } => {
            let look = push(steps, Step::Jump(0))?;
            compile(node, steps)?;
            push(steps, Step::Matched)?;
            steps[look] = Step::Look { negative: *negative, then: steps.len() };
        }
    }
    Some(())
}

fn repeat(node: &Node, least: usize, most: Option<usize>, steps: &mut Vec<Step>) -> Option<()> {
    for _ in 0..least {
        let before = steps.len();
        compile(node, steps)?;
        if steps.len() == before {
            return Some(()); // nothing, however often
        }
    }
    match most {
        None => {
            let split = push(steps, Step::Jump(0))?;
            compile(node, steps)?;
            push(steps, Step::Jump(split))?;
            steps[split] = Step::Split(split + 1, steps.len());
        }
        Some(most) => {
            let mut splits = Vec::new();
            for _ in least..most {
                splits.push(push(steps, Step::Jump(0))?);
                compile(node, steps)?;
            }
            let end = steps.len();
            splits.into_iter().for_each(|split| steps[split] = Step::Split(split + 1, end));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_of_published_checkpoints_match_as_in_python() {
        for (expression, name, is_match) in [
            (".*lm_head", "lm_head", true),
            ("lm_head", "model.lm_head", false), // from the start
            ("model", "model.layers.0", true),   // not to the end
            (".*mlp.gate$", "model.layers.0.mlp.gate", true),
            (".*mlp.gate$", "model.layers.0.mlp.gate_proj", false),
            (r"model\.layers\.(0|1|27)\..*", "model.layers.27.mlp", true),
            (r"model\.layers\.(0|1|27)\..*", "model.layers.2.mlp", false),
            (r".*\.experts\.\d+\.(gate|up)_proj$", "model.layers.3.mlp.experts.12.up_proj", true),
            (r".*\.experts\.[0-9]{1,2}\.w[^2]$", "x.experts.7.w1", true),
            (r".*\.experts\.[0-9]{1,2}\.w[^2]$", "x.experts.777.w1", false),
            (r"(?!.*vision).*q_proj", "model.vision.q_proj", false),
            (r"(?!.*vision).*q_proj", "model.text.q_proj", true),
            (r"^(?:a|b)+?c", "ababc", true),
            (r"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
        ] {
            assert_eq!(Pattern::new(expression).unwrap().matches(name), is_match, "{expression} on {name}");
        }
    }

    #[test]
    fn what_is_wrong_or_not_known_is_refused() {
        let (deep, long) = ("(".repeat(40), "((((a{9}){9}){9}){9}){9}");
        for expression in ["(", ")", "[a", "a**", "*", "(?<n>a)", r"\1", r"\bx", "a{2", "[z-a]", "(?i)a", &deep, long] {
            assert_eq!(Pattern::new(expression), None, "{expression}");
        }
        assert!(Pattern::new("(((){1000}){1000}){1000}").is_some(), "nothing, however often, takes no time");
    }
}
