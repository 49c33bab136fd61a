//! A label selector in Kubernetes syntax: `pool=gpu,zone in (a,b),!spot`. Owns its grammar and whether labels match it.
//!
//! Source: k8s.io/apimachinery `pkg/labels/selector.go`, `Parse`.
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// See the module's documentation. The empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Exists,
    DoesNotExist,
    In(BTreeSet<String>),
    /// An absent label is not in the list, so it matches.
    NotIn(BTreeSet<String>),
    GreaterThan(i64),
    LessThan(i64),
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What was found.
        found: Found,
        /// What was expected.
        expected: &'static str,
    },
    /// No label can have this key.
    #[error("{0:?} is not a valid label key")]
    Key(String),
    /// No label can have this value.
    #[error("{0:?} is not a valid label value")]
    Value(String),
    /// `>` and `<` compare integers.
    #[error("{0:?} is not an integer")]
    Integer(String),
}

/// What was found in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A word or a symbol.
    Text(String),
    /// The end of the text.
    End,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

impl Selector {
    /// Whether labels match the whole selector; `label` returns the value of a key.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.condition.holds(label(&requirement.key)))
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value?.parse::<i64>().ok();
        match self {
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::GreaterThan(bound) => number().is_some_and(|value| value > *bound),
            Self::LessThan(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let tokens = Tokens::new(text);
        let mut requirements = Vec::new();
        if tokens.peek().is_none() {
            return Ok(Self::default());
        }
        let mut tokens = tokens;
        loop {
            requirements.push(tokens.requirement()?);
            match tokens.next() {
                None => return Ok(Self(requirements)),
                Some(Token::Symbol(",")) => {}
                found => return Err(unexpected(found, "\",\" or the end")),
            }
        }
    }
}

/// A word, or one of the symbols of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
}

/// The rest of the text.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self(text.trim_start())
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.split().map(|(token, _)| token)
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let (token, rest) = self.split()?;
        self.0 = rest.trim_start();
        Some(token)
    }

    fn split(&self) -> Option<(Token<'a>, &'a str)> {
        let is_symbol = |c: char| "=!(),<>".contains(c);
        let first = self.0.chars().next()?;
        if !is_symbol(first) {
            let end = self.0.find(|c: char| is_symbol(c) || c.is_whitespace()).unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(end);
            return Some((Token::Word(word), rest));
        }
        let end = if self.0.starts_with("==") || self.0.starts_with("!=") { 2 } else { 1 };
        let (symbol, rest) = self.0.split_at(end);
        Some((Token::Symbol(symbol), rest))
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some(Token::Symbol("!")) {
            self.next();
            return Ok(Requirement { key: self.key()?, condition: Condition::DoesNotExist });
        }
        let key = self.key()?;
        if matches!(self.peek(), None | Some(Token::Symbol(","))) {
            return Ok(Requirement { key, condition: Condition::Exists });
        }
        let condition = match self.next() {
            Some(Token::Symbol("=" | "==")) => Condition::In([self.value()?].into()),
            Some(Token::Symbol("!=")) => Condition::NotIn([self.value()?].into()),
            Some(Token::Word("in")) => Condition::In(self.values()?),
            Some(Token::Word("notin")) => Condition::NotIn(self.values()?),
            Some(Token::Symbol(">")) => Condition::GreaterThan(self.integer()?),
            Some(Token::Symbol("<")) => Condition::LessThan(self.integer()?),
            found => return Err(unexpected(found, "one of = == != in notin > <")),
        };
        Ok(Requirement { key, condition })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.next() {
            Some(Token::Word(key)) if is_key(key) => Ok(key.to_owned()),
            Some(Token::Word(key)) => Err(SelectorError::Key(key.to_owned())),
            found => Err(unexpected(found, "a label key")),
        }
    }

    /// One value; if there is none, the empty value.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            None | Some(Token::Symbol("," | ")")) => Ok(String::new()),
            Some(Token::Word(value)) if value.is_empty() || is_name(value) => {
                self.next();
                Ok(value.to_owned())
            }
            Some(Token::Word(value)) => Err(SelectorError::Value(value.to_owned())),
            found => Err(unexpected(found, "a value")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Some(Token::Symbol("(")) => {}
            found => return Err(unexpected(found, "\"(\"")),
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            match self.next() {
                Some(Token::Symbol(",")) => {}
                Some(Token::Symbol(")")) => return Ok(values),
                found => return Err(unexpected(found, "\",\" or \")\"")),
            }
        }
    }

    fn integer(&mut self) -> Result<i64, SelectorError> {
        match self.next() {
            Some(Token::Word(bound)) => bound.parse().map_err(|_| SelectorError::Integer(bound.to_owned())),
            found => Err(unexpected(found, "an integer")),
        }
    }
}

fn unexpected(found: Option<Token<'_>>, expected: &'static str) -> SelectorError {
    let found = match found {
        Some(Token::Word(text) | Token::Symbol(text)) => Found::Text(text.to_owned()),
        None => Found::End,
    };
    SelectorError::Unexpected { found, expected }
}

/// Whether this is a label key: an optional DNS subdomain with a slash, and a name.
pub(super) fn is_key(key: &str) -> bool {
    let Some((prefix, name)) = key.split_once('/') else { return is_name(key) };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
            && !label.is_empty()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    prefix.len() <= 253 && prefix.split('.').all(label) && is_name(name)
}

/// Whether this can follow the slash of a key, or be a value: up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at either
/// end.
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    (1..=63).contains(&bytes.len())
        && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector: Selector = selector.parse().unwrap_or_else(|error| panic!("{selector}: {error}"));
        selector.selects(|key| labels.iter().find(|(known, _)| *known == key).map(|(_, value)| *value))
    }

    fn check(selector: &str, chosen: &[&[(&str, &str)]], others: &[&[(&str, &str)]]) {
        for labels in chosen {
            assert!(selects(selector, labels), "{selector} selects {labels:?}");
        }
        for labels in others {
            assert!(!selects(selector, labels), "{selector} does not select {labels:?}");
        }
    }

    #[test]
    fn the_empty_selector_selects_all() {
        check("", &[&[], &[("a", "b")]], &[]);
        check("  ", &[&[]], &[]);
    }

    #[test]
    fn a_value_is_the_same_or_another() {
        for selector in ["pool=gpu", "pool==gpu", " pool = gpu ", "pool in (gpu)"] {
            check(selector, &[&[("pool", "gpu")]], &[&[("pool", "cpu")], &[]]);
        }
        for selector in ["pool!=gpu", "pool notin (gpu)"] {
            check(selector, &[&[("pool", "cpu")], &[]], &[&[("pool", "gpu")]]);
        }
        check("pool=", &[&[("pool", "")]], &[&[], &[("pool", "gpu")]]);
    }

    #[test]
    fn a_value_is_one_of_several_or_none() {
        check("zone in (a, b)", &[&[("zone", "a")], &[("zone", "b")]], &[&[("zone", "c")], &[]]);
        check("zone notin (a,b)", &[&[("zone", "c")], &[]], &[&[("zone", "a")]]);
        check("zone in (,a)", &[&[("zone", "")], &[("zone", "a")]], &[&[]]);
        check("zone in ()", &[&[("zone", "")]], &[&[]]);
        check("in in (in,notin)", &[&[("in", "notin")]], &[&[("in", "x")]]);
    }

    #[test]
    fn a_label_is_there_or_not() {
        check("nvidia.com/gpu.present", &[&[("nvidia.com/gpu.present", "")]], &[&[]]);
        check("!spot", &[&[]], &[&[("spot", "")]]);
        check("! spot", &[&[]], &[&[("spot", "yes")]]);
    }

    #[test]
    fn a_number_is_larger_or_smaller() {
        check("gpus>3", &[&[("gpus", "4")]], &[&[("gpus", "3")], &[("gpus", "many")], &[]]);
        check("gpus < 3", &[&[("gpus", "-2")]], &[&[("gpus", "3")], &[]]);
    }

    #[test]
    fn all_requirements_must_hold() {
        let both = "pool=gpu,!spot,zone in (a,b)";
        check(
            both,
            &[&[("pool", "gpu"), ("zone", "a")]],
            &[&[("pool", "gpu"), ("zone", "a"), ("spot", "")], &[("zone", "a")]],
        );
    }

    #[test]
    fn what_is_no_selector_is_said_with_the_place() {
        for (text, expected) in [
            ("pool=gpu,", "expected a label key, found the end"),
            (",pool", "expected a label key, found \",\""),
            ("pool gpu", "expected one of = == != in notin > <, found \"gpu\""),
            ("pool=a b", "expected \",\" or the end, found \"b\""),
            ("pool in a", "expected \"(\", found \"a\""),
            ("pool in (a", "expected \",\" or \")\", found the end"),
            ("pool=(a)", "expected a value, found \"(\""),
            ("!", "expected a label key, found the end"),
            ("-pool", "\"-pool\" is not a valid label key"),
            ("UPPER.example/x", "\"UPPER.example/x\" is not a valid label key"),
            ("pool=a/b", "\"a/b\" is not a valid label value"),
            ("gpus>x", "\"x\" is not an integer"),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), expected, "{text}");
        }
    }
}
