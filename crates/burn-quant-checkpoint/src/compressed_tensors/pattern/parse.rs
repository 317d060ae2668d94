//! The grammar of regular expressions.

use super::{Class, Node};

/// The most groups that lie in each other.
const DEEPEST: usize = 32;
/// The most repetitions in `{m,n}`.
const MOST_REPETITIONS: usize = 1000;

/// Parses an expression; `None` if it is wrong, or has what is not known here.
pub(super) fn parse(expression: &str) -> Option<Node> {
    let chars: Vec<char> = expression.chars().collect();
    let mut parser = Parser { chars: &chars, at: 0, depth: 0, looks: false };
    let node = parser.alternatives()?;
    (parser.at == chars.len()).then_some(node)
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
    /// Whether it is within a lookahead.
    looks: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn takes(&mut self, text: &str) -> bool {
        let is_next = text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        self.at += if is_next { text.chars().count() } else { 0 };
        is_next
    }

    fn alternatives(&mut self) -> Option<Node> {
        let mut nodes = vec![self.sequence()?];
        while self.takes("|") {
            nodes.push(self.sequence()?);
        }
        if nodes.len() == 1 { nodes.pop() } else { Some(Node::Alternatives(nodes)) }
    }

    fn sequence(&mut self) -> Option<Node> {
        let mut nodes = Vec::new();
        while self.peek().is_some_and(|c| !matches!(c, '|' | ')')) {
            let node = self.atom()?;
            nodes.push(self.repeated(node)?);
        }
        Some(Node::Sequence(nodes))
    }

    fn atom(&mut self) -> Option<Node> {
        Some(match self.next()? {
            '^' => Node::Begin,
            '$' => Node::End,
            '.' => Node::Class(Class { ranges: vec![('\n', '\n')], negated: true }),
            '[' => Node::Class(self.class()?),
            '\\' => Node::Class(self.escape()?),
            '(' => self.group()?,
            '*' | '+' | '?' | '{' | '}' | ']' => return None,
            c => Node::Class(Class { ranges: vec![(c, c)], negated: false }),
        })
    }

    fn group(&mut self) -> Option<Node> {
        let (was_look, look) = (self.looks, if self.takes("?=") { Some(false) } else { None });
        let look = if look.is_none() && self.takes("?!") { Some(true) } else { look };
        let is_plain = look.is_none() && (self.takes("?:") || self.peek() != Some('?'));
        if (look.is_some() && was_look) || (look.is_none() && !is_plain) || self.depth == DEEPEST {
            return None;
        }
        self.depth += 1;
        self.looks |= look.is_some();
        let node = self.alternatives()?;
        self.looks = was_look;
        self.depth -= 1;
        self.takes(")").then(|| match look {
            Some(negative) => Node::Look { node: Box::new(node), negative },
            None => node,
        })
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<Class> {
        let c = self.next()?;
        match Class::named(c.to_ascii_lowercase()) {
            Some(ranges) => Some(Class { ranges, negated: c.is_ascii_uppercase() }),
            None => (!c.is_ascii_alphanumeric()).then(|| Class { ranges: vec![(c, c)], negated: false }),
        }
    }

    fn class(&mut self) -> Option<Class> {
        let negated = self.takes("^");
        let mut ranges = Vec::new();
        loop {
            let first = match self.next()? {
                ']' if !ranges.is_empty() => return Some(Class { ranges, negated }),
                '\\' => {
                    let class = self.escape()?;
                    match class.ranges[..] {
                        [(first, last)] if first == last && !class.negated => first,
                        _ if class.negated => return None,
                        _ => {
                            ranges.extend(class.ranges);
                            continue;
                        }
                    }
                }
                c => c,
            };
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|c| *c != ']');
            let last = if is_range {
                self.at += 1;
                self.next().filter(|last| *last != '\\' && *last >= first)?
            } else {
                first
            };
            ranges.push((first, last));
        }
    }

    fn repeated(&mut self, node: Node) -> Option<Node> {
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                return self.counted(node);
            }
            _ => return Some(node),
        };
        self.at += 1;
        self.lazily(Node::Repeat { node: Box::new(node), least, most })
    }

    fn counted(&mut self, node: Node) -> Option<Node> {
        let least = self.number()?;
        let most = match self.next()? {
            '}' => Some(least),
            ',' if self.takes("}") => None,
            ',' => {
                let most = self.number()?;
                if !self.takes("}") || most < least {
                    return None;
                }
                Some(most)
            }
            _ => return None,
        };
        self.lazily(Node::Repeat { node: Box::new(node), least, most })
    }

    /// Which of the matches is taken does not matter here, so `*?` is `*`; two repetitions of one atom are wrong.
    fn lazily(&mut self, node: Node) -> Option<Node> {
        self.takes("?");
        (!matches!(self.peek(), Some('*' | '+' | '?' | '{'))).then_some(node)
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0) * 10 + digit as usize).filter(|n| *n <= MOST_REPETITIONS);
            number?;
        }
        number
    }
}
