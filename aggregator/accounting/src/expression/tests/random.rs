//! Random expressions: their results are compared with a second evaluation that does not use text, trees or limits.
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// An expression of the supported subset, before it is written as text. The types are what the expression claims: a
/// `Bool` may contain an attribute that is not a boolean.
#[derive(Clone, Debug)]
enum Bool {
    Literal(bool),
    Shared,
    Attribute(&'static str),
    Has(&'static str),
    HasIn(&'static str),
    DomainIn(&'static str),
    HasCapacity(&'static str),
    Not(Box<Bool>),
    And(Vec<Bool>),
    Or(Vec<Bool>),
    IntIs(&'static str, Int, Int),
    TextIs(&'static str, Text, Text),
    AnswerIs(&'static str, Box<Bool>, Box<Bool>),
    /// Two attributes of any type.
    Same(&'static str, &'static str),
    IntIn(Int, Vec<i64>),
    TextIn(Text, Vec<&'static str>),
    TextHas(&'static str, Text, Text),
    CapacityIs(&'static str, &'static str, &'static str),
    VersionIs(&'static str, &'static str, &'static str),
}

#[derive(Clone, Debug)]
enum Int {
    Literal(i64),
    Attribute(&'static str),
    Capacity(&'static str, &'static str),
    Version(&'static str, &'static str),
}

#[derive(Clone, Debug)]
enum Text {
    Literal(&'static str),
    Driver,
    Attribute(&'static str),
    Cased(&'static str, Box<Text>),
}

const NAMES: &[&str] = &["model", "index", "mig", "vfio", "version", "list", "missing"];
const TEXTS: &[&str] = &["", "a", "A", "gpu", "NVIDIA", "3", "gpu.example.com", "NVIDIA A100-SXM4-80GB", "a'b\\\""];
const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
const ORDERS: &[&str] = &["isLessThan", "isGreaterThan"];
const CAPACITIES: &[&str] = &["memory", "half", "missing"];
/// In billionths.
const QUANTITIES: &[(&str, i128)] = &[
    ("0.5", 500_000_000),
    ("500m", 500_000_000),
    ("80Gi", 85_899_345_920_000_000_000),
    ("81G", 81_000_000_000_000_000_000),
    ("1 Gi", -1),
];
/// Versions in ascending order; strings that are not versions come last.
const VERSIONS: &[&str] = &["1.2.3-a", "1.2.3-a.1", "1.2.3", "1.10.0", "1.2"];

/// A value in the second evaluation.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Plain {
    Bool(bool),
    Int(i64),
    Text(String),
    /// A version: not comparable by operators.
    Version,
    /// A list: it exists and is never decided.
    List,
}

fn attribute(name: &str) -> Option<Plain> {
    match name {
        "model" => Some(Plain::Text("NVIDIA A100-SXM4-80GB".into())),
        "index" => Some(Plain::Int(3)),
        "mig" => Some(Plain::Bool(true)),
        "vfio" => Some(Plain::Bool(false)),
        "version" => Some(Plain::Version),
        "list" => Some(Plain::List),
        _ => None,
    }
}

/// Yes, no, or undecided.
type Answer = Option<bool>;

fn compare(comparison: &str, left: Option<Plain>, right: Option<Plain>) -> Answer {
    let (left, right) = (left?, right?);
    if [&left, &right].into_iter().any(|side| matches!(side, Plain::Version | Plain::List)) {
        return None;
    }
    let same_type = std::mem::discriminant(&left) == std::mem::discriminant(&right);
    match comparison {
        "==" => Some(left == right),
        "!=" => Some(left != right),
        _ if !same_type => None,
        "<" => Some(left < right),
        "<=" => Some(left <= right),
        ">" => Some(left > right),
        _ => Some(left >= right),
    }
}

fn one_of(sought: Option<Plain>, among: impl Iterator<Item = Plain>) -> Answer {
    let sought = sought.filter(|sought| *sought != Plain::List)?;
    // `in` an empty list is false whatever the sought value is.
    let answers: Vec<Answer> = among.map(|element| compare("==", Some(sought.clone()), Some(element))).collect();
    answers.iter().copied().reduce(|found, answer| Some(found? || answer?)).unwrap_or(Some(false))
}

/// One part that is `end` decides; otherwise all parts must be decided.
fn joined(parts: &[Bool], end: bool) -> Answer {
    let answers: Vec<Answer> = parts.iter().map(Bool::answer).collect();
    let is_ended = answers.contains(&Some(end));
    let is_open = answers.contains(&None);
    if is_ended { Some(end) } else { (!is_open).then_some(!end) }
}

fn capacity(name: &str, quantity: &str) -> Option<i64> {
    let of = |quantity: &str| QUANTITIES.iter().find(|(text, _)| *text == quantity).map(|(_, nanos)| *nanos);
    let amount = match name {
        "memory" => of("80Gi"),
        "half" => of("0.5"),
        _ => None,
    }?;
    let other = of(quantity).filter(|nanos| *nanos >= 0)?;
    Some((amount - other).signum() as i64)
}

fn version(name: &str, other: &str) -> Option<i64> {
    if name != "version" || other == "1.2" {
        return None;
    }
    let place = |text| VERSIONS.iter().position(|known| *known == text).unwrap() as i64;
    Some((place("1.2.3") - place(other)).signum())
}

impl Int {
    fn value(&self) -> Option<Plain> {
        match self {
            Self::Literal(value) => Some(Plain::Int(*value)),
            Self::Attribute(name) => attribute(name),
            Self::Capacity(name, quantity) => capacity(name, quantity).map(Plain::Int),
            Self::Version(name, other) => version(name, other).map(Plain::Int),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Literal(value) => value.to_string(),
            Self::Attribute(name) => attribute_text(name),
            Self::Capacity(name, quantity) => format!("{}.compareTo(quantity({quantity:?}))", capacity_text(name)),
            Self::Version(name, other) => format!("{}.compareTo(semver('{other}'))", attribute_text(name)),
        }
    }
}

impl Text {
    fn value(&self) -> Option<Plain> {
        match self {
            Self::Literal(text) => Some(Plain::Text((*text).into())),
            Self::Driver => Some(Plain::Text("gpu.example.com".into())),
            Self::Attribute(name) => attribute(name),
            Self::Cased(case, text) => match text.value()? {
                Plain::Text(text) if *case == "lowerAscii" => Some(Plain::Text(text.to_lowercase())),
                Plain::Text(text) => Some(Plain::Text(text.to_uppercase())),
                _ => None,
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Literal(text) => format!("{text:?}"),
            Self::Driver => "device.driver".into(),
            Self::Attribute(name) => attribute_text(name),
            Self::Cased(case, text) => format!("{}.{case}()", text.text()),
        }
    }
}

impl Bool {
    /// The attribute as a value: it may be of any type.
    fn value(&self) -> Option<Plain> {
        match self {
            Self::Attribute(name) => attribute(name),
            other => other.answer().map(Plain::Bool),
        }
    }

    fn answer(&self) -> Answer {
        match self {
            Self::Literal(value) => Some(*value),
            Self::Shared => Some(true),
            Self::Attribute(name) => match attribute(name)? {
                Plain::Bool(value) => Some(value),
                _ => None,
            },
            Self::Has(name) | Self::HasIn(name) => Some(attribute(name).is_some()),
            Self::DomainIn(domain) => Some(*domain == "d.io"),
            Self::HasCapacity(name) => Some(*name != "missing"),
            Self::Not(inner) => inner.answer().map(|answer| !answer),
            Self::And(parts) => joined(parts, false),
            Self::Or(parts) => joined(parts, true),
            Self::IntIs(comparison, left, right) => compare(comparison, left.value(), right.value()),
            Self::TextIs(comparison, left, right) => compare(comparison, left.value(), right.value()),
            Self::AnswerIs(comparison, left, right) => compare(comparison, left.value(), right.value()),
            Self::Same(left, right) => compare("==", attribute(left), attribute(right)),
            Self::IntIn(sought, among) => one_of(sought.value(), among.iter().map(|value| Plain::Int(*value))),
            Self::TextIn(sought, among) => one_of(sought.value(), among.iter().map(|text| Plain::Text((*text).into()))),
            Self::TextHas(place, whole, part) => match (whole.value()?, part.value()?) {
                (Plain::Text(whole), Plain::Text(part)) => Some(match *place {
                    "startsWith" => whole.find(&part) == Some(0),
                    "endsWith" => whole.len() >= part.len() && whole[whole.len() - part.len()..] == part,
                    _ => part.is_empty() || whole.split(&part).count() > 1,
                }),
                _ => None,
            },
            Self::CapacityIs(order, name, quantity) => capacity(name, quantity).map(|sign| sign == sign_of(order)),
            Self::VersionIs(order, name, other) => version(name, other).map(|sign| sign == sign_of(order)),
        }
    }

    fn text(&self) -> String {
        let joined = |parts: &[Self], operator| parts.iter().map(Self::nested).collect::<Vec<_>>().join(operator);
        match self {
            Self::Literal(value) => value.to_string(),
            Self::Shared => "device.allowMultipleAllocations".into(),
            Self::Attribute(name) => attribute_text(name),
            Self::Has(name) => format!("has(device.attributes['d.io'].{name})"),
            Self::HasIn(name) => format!("'{name}' in device.attributes[\"d.io\"]"),
            Self::DomainIn(domain) => format!("'''{domain}''' in device.attributes"),
            Self::HasCapacity(name) => format!("has({})", capacity_text(name)),
            Self::Not(inner) => format!("!{}", inner.nested()),
            Self::And(parts) => joined(parts, " && "),
            Self::Or(parts) => joined(parts, "||"),
            Self::IntIs(comparison, left, right) => format!("{} {comparison} {}", left.text(), right.text()),
            Self::TextIs(comparison, left, right) => format!("{}{comparison}{}", left.text(), right.text()),
            Self::AnswerIs(comparison, left, right) => format!("{} {comparison} {}", left.nested(), right.nested()),
            Self::Same(left, right) => format!("{} == {}", attribute_text(left), attribute_text(right)),
            Self::IntIn(sought, among) => format!("{} in {among:?}", sought.text()),
            Self::TextIn(sought, among) => format!("{} in {among:?}", sought.text()),
            Self::TextHas(place, whole, part) => format!("{}.{place}({})", whole.text(), part.text()),
            Self::CapacityIs(order, name, quantity) => {
                format!("{}.{order}(quantity('{quantity}'))", capacity_text(name))
            }
            Self::VersionIs(order, name, other) => format!("{}.{order}(semver('{other}'))", attribute_text(name)),
        }
    }

    /// In parentheses, unless they are not needed.
    fn nested(&self) -> String {
        match self {
            Self::Literal(_) | Self::Shared | Self::Attribute(_) | Self::Has(_) => self.text(),
            _ => format!("({})", self.text()),
        }
    }
}

fn sign_of(order: &str) -> i64 {
    if order == "isLessThan" { -1 } else { 1 }
}

/// An attribute, in one of two equivalent spellings.
fn attribute_text(name: &str) -> String {
    let by_key = ["vfio", "version", "list"].contains(&name);
    if by_key { format!("device.attributes['d.io']['{name}']") } else { format!("device.attributes[\"d.io\"].{name}") }
}

fn capacity_text(name: &str) -> String {
    format!("device.capacity['d.io'].{name}")
}

fn ints() -> impl Strategy<Value = Int> {
    let quantities = QUANTITIES.iter().map(|(text, _)| *text).collect::<Vec<_>>();
    prop_oneof![
        (-2..5_i64).prop_map(Int::Literal),
        select(NAMES).prop_map(Int::Attribute),
        (select(CAPACITIES), select(quantities)).prop_map(|(name, quantity)| Int::Capacity(name, quantity)),
        (select(NAMES), select(VERSIONS)).prop_map(|(name, other)| Int::Version(name, other)),
    ]
}

fn texts() -> impl Strategy<Value = Text> {
    let leaves = prop_oneof![
        select(TEXTS).prop_map(Text::Literal),
        Just(Text::Driver),
        select(NAMES).prop_map(Text::Attribute),
    ];
    leaves.prop_recursive(2, 4, 1, |inner| {
        let cases: &[&str] = &["lowerAscii", "upperAscii"];
        (select(cases), inner).prop_map(|(case, text)| Text::Cased(case, Box::new(text)))
    })
}

fn bools() -> impl Strategy<Value = Bool> {
    let quantities = QUANTITIES.iter().map(|(text, _)| *text).collect::<Vec<_>>();
    let domains: &[&str] = &["d.io", "unknown.io"];
    let places: &[&str] = &["startsWith", "endsWith", "contains"];
    let present = prop_oneof![
        select(NAMES).prop_map(Bool::Has),
        select(NAMES).prop_map(Bool::HasIn),
        select(domains).prop_map(Bool::DomainIn),
        select(CAPACITIES).prop_map(Bool::HasCapacity),
    ];
    let leaves = prop_oneof![
        any::<bool>().prop_map(Bool::Literal),
        Just(Bool::Shared),
        select(NAMES).prop_map(Bool::Attribute),
        present,
        (select(COMPARISONS), ints(), ints())
            .prop_map(|(comparison, left, right)| Bool::IntIs(comparison, left, right)),
        (select(COMPARISONS), texts(), texts())
            .prop_map(|(comparison, left, right)| Bool::TextIs(comparison, left, right)),
        (select(NAMES), select(NAMES)).prop_map(|(left, right)| Bool::Same(left, right)),
        (ints(), prop::collection::vec(-2..5_i64, 0..4)).prop_map(|(sought, among)| Bool::IntIn(sought, among)),
        (texts(), prop::collection::vec(select(TEXTS), 0..4)).prop_map(|(sought, among)| Bool::TextIn(sought, among)),
        (select(places), texts(), texts()).prop_map(|(place, whole, part)| Bool::TextHas(place, whole, part)),
        (select(ORDERS), select(CAPACITIES), select(quantities))
            .prop_map(|(order, name, quantity)| Bool::CapacityIs(order, name, quantity)),
        (select(ORDERS), select(NAMES), select(VERSIONS))
            .prop_map(|(order, name, other)| Bool::VersionIs(order, name, other)),
    ];
    leaves.prop_recursive(4, 24, 4, |inner| {
        let few = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.clone().prop_map(|inner| Bool::Not(Box::new(inner))),
            few.clone().prop_map(Bool::And),
            few.prop_map(Bool::Or),
            (select(COMPARISONS), inner.clone(), inner).prop_map(|(comparison, left, right)| Bool::AnswerIs(
                comparison,
                Box::new(left),
                Box::new(right)
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_expressions_answer_what_a_second_evaluation_answers(expression in bools()) {
        let expected = match expression.answer() {
            Some(true) => Verdict::Yes,
            Some(false) => Verdict::No,
            None => Verdict::Undecided,
        };
        let text = expression.text();
        prop_assert_eq!(answer(&text), expected, "{}", text);
    }
}

#[test]
fn random_expressions_have_all_three_answers_often() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut counts = [0; 3];
    for _ in 0..1000 {
        let answer = bools().new_tree(&mut runner).unwrap().current().answer();
        counts[answer.map_or(2, usize::from)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}
