//! A part of an expression while it is parsed: how parts are combined, and which types they allow.
//!
//! The API server checks types before it stores an expression, so an expression with a type error never ran, and no `&&
//! false` next to the error decides it: the whole expression is [`Unreadable`]. The type of an attribute is known only
//! for a given device. If a type rule of CEL is not worth its code, the part is undecided instead.
use super::pattern::Pattern;
use super::tokens::Unreadable;
use super::tree::{Case, Comparison, Expression, Name, Order, Place};
use super::version;

/// The maximum depth of the tree. CEL itself allows 250 (`maxRecursionDepth`); typical expressions need ten.
const DEEPEST: u16 = 64;
/// The maximum number of patterns in an expression: each has a table in memory.
const MOST_PATTERNS: u8 = 8;

/// A part of an expression.
pub(super) enum Term {
    /// `device`.
    Device,
    /// `device.attributes`.
    Attributes,
    /// `device.capacity`.
    Capacities,
    /// `device.attributes["…"]`.
    AttributesOf(Box<str>),
    /// `device.capacity["…"]`.
    CapacitiesOf(Box<str>),
    /// `[…]`.
    List(Vec<Typed>),
    /// Unsupported names: variables of macros, functions, messages.
    Foreign,
    /// Everything else.
    Value(Typed),
}

/// A value, and what is known about it without a device.
pub(super) struct Typed {
    kind: Kind,
    node: Expression,
    depth: u16,
    /// Whether it was selected with `.name`, as `has()` requires.
    is_selected: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Known only for a given device, or never.
    Unknown,
    Bool,
    Int,
    Text,
    Amount,
    Version,
    /// A list or a map.
    Collection,
}

impl Kind {
    /// Checks that the value can have one of these types.
    fn may_be(self, kinds: &[Kind]) -> Result<(), Unreadable> {
        if self == Kind::Unknown || kinds.contains(&self) { Ok(()) } else { Err(Unreadable) }
    }

    /// Checks that both values can have the same type.
    fn may_meet(self, other: Kind) -> Result<(), Unreadable> {
        other.may_be(&[self]).or_else(|wrong| if self == Kind::Unknown { Ok(()) } else { Err(wrong) })
    }
}

impl Typed {
    pub(super) fn leaf(kind: Kind, node: Expression) -> Self {
        Self { kind, node, depth: 1, is_selected: false }
    }

    fn undecided(kind: Kind) -> Self {
        Self::leaf(kind, Expression::Undecided)
    }

    /// A node above other nodes; `below` is the depth of the deepest of these.
    fn above(kind: Kind, node: Expression, below: u16) -> Result<Self, Unreadable> {
        if below >= DEEPEST {
            return Err(Unreadable);
        }
        Ok(Self { depth: below + 1, ..Self::leaf(kind, node) })
    }

    /// The tree of a whole expression.
    pub(super) fn into_tree(self) -> Expression {
        self.node
    }

    fn selected(self) -> Self {
        Self { is_selected: true, ..self }
    }
}

impl Term {
    pub(super) fn leaf(kind: Kind, node: Expression) -> Self {
        Self::Value(Typed::leaf(kind, node))
    }

    pub(super) fn undecided() -> Self {
        Self::Value(Typed::undecided(Kind::Unknown))
    }

    /// Converts the term to a value.
    pub(super) fn value(self) -> Typed {
        match self {
            Self::Value(value) => value,
            Self::Foreign => Typed::undecided(Kind::Unknown),
            Self::Device
            | Self::Attributes
            | Self::Capacities
            | Self::AttributesOf(_)
            | Self::CapacitiesOf(_)
            | Self::List(_) => Typed::undecided(Kind::Collection),
        }
    }

    /// `self.name`.
    pub(super) fn select(self, name: &str) -> Self {
        match (self, name) {
            (Self::Foreign, _) => Self::Foreign,
            (Self::Device, "attributes") => Self::Attributes,
            (Self::Device, "capacity") => Self::Capacities,
            (Self::Device, "driver") => Self::leaf(Kind::Text, Expression::Driver),
            (Self::Device, "allowMultipleAllocations") => Self::leaf(Kind::Bool, Expression::AllowsMultipleAllocations),
            (term @ (Self::AttributesOf(_) | Self::CapacitiesOf(_)), name) => Self::Value(term.entry(name).selected()),
            _ => Self::Value(Typed::undecided(Kind::Unknown).selected()),
        }
    }

    /// `self[key]`.
    pub(super) fn index(self, key: Self) -> Self {
        let Self::Value(Typed { node: Expression::Text(key), .. }) = key else { return Self::undecided() };
        match self {
            Self::Attributes => Self::AttributesOf(key),
            Self::Capacities => Self::CapacitiesOf(key),
            term => Self::Value(term.entry(&key)),
        }
    }

    /// An attribute or capacity in a domain.
    fn entry(self, name: &str) -> Typed {
        let name = |domain| Box::new(Name { domain, name: name.into() });
        match self {
            Self::AttributesOf(domain) => Typed::leaf(Kind::Unknown, Expression::Attribute(name(domain))),
            Self::CapacitiesOf(domain) => Typed::leaf(Kind::Amount, Expression::Capacity(name(domain))),
            _ => Typed::undecided(Kind::Unknown),
        }
    }

    /// `has(self)`.
    pub(super) fn presence(self) -> Result<Self, Unreadable> {
        let value = self.value();
        Ok(Self::leaf(
            Kind::Bool,
            match value.node {
                Expression::Attribute(name) if value.is_selected => Expression::HasAttribute(name),
                Expression::Capacity(name) if value.is_selected => Expression::HasCapacity(name),
                Expression::Attribute(_) | Expression::Capacity(_) => return Err(Unreadable),
                _ => Expression::Undecided,
            },
        ))
    }

    /// `!self`.
    pub(super) fn not(self) -> Result<Self, Unreadable> {
        let Typed { kind, node, depth, .. } = self.value();
        kind.may_be(&[Kind::Bool])?;
        Typed::above(Kind::Bool, Expression::Not(node.into()), depth).map(Self::Value)
    }

    /// `&&` or `||` of two or more terms.
    pub(super) fn joined(terms: Vec<Self>, node: fn(Vec<Expression>) -> Expression) -> Result<Self, Unreadable> {
        let mut below = 0;
        let mut nodes = Vec::with_capacity(terms.len());
        for term in terms {
            let part = term.value();
            part.kind.may_be(&[Kind::Bool])?;
            below = below.max(part.depth);
            nodes.push(part.node);
        }
        Typed::above(Kind::Bool, node(nodes), below).map(Self::Value)
    }

    /// `self == other` and the other comparisons.
    pub(super) fn compared(self, comparison: Comparison, other: Self) -> Result<Self, Unreadable> {
        let (left, right) = (self.value(), other.value());
        left.kind.may_meet(right.kind)?;
        if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            let ordered = [Kind::Bool, Kind::Int, Kind::Text];
            left.kind.may_be(&ordered)?;
            right.kind.may_be(&ordered)?;
        }
        Self::of_two(Kind::Bool, left, right, |sides| Expression::Compared(comparison, sides))
    }

    /// `self in other`.
    pub(super) fn within(self, other: Self) -> Result<Self, Unreadable> {
        let sought = self.value();
        match other {
            Self::List(elements) => sought.among(elements).map(Self::Value),
            Self::Attributes | Self::Capacities | Self::AttributesOf(_) | Self::CapacitiesOf(_) => {
                sought.kind.may_be(&[Kind::Text])?;
                let node = match (sought.node, other) {
                    (Expression::Text(domain), Self::Attributes) => Expression::HasDomain(domain),
                    (Expression::Text(name), Self::AttributesOf(domain)) => {
                        Expression::HasAttribute(Name { domain, name }.into())
                    }
                    _ => Expression::Undecided,
                };
                Ok(Self::leaf(Kind::Bool, node))
            }
            other => {
                other.value().kind.may_be(&[Kind::Collection])?;
                Ok(Self::leaf(Kind::Bool, Expression::Undecided))
            }
        }
    }

    /// `self.name(arguments)`. `patterns` counts the patterns of the expression.
    pub(super) fn call(self, name: &str, arguments: Vec<Self>, patterns: &mut u8) -> Result<Self, Unreadable> {
        if matches!(self, Self::Foreign) {
            return Ok(Self::undecided());
        }
        let count = arguments.len();
        let (target, first) = (self.value(), arguments.into_iter().next().map(Self::value));
        match (name, first, count) {
            ("startsWith", Some(part), 1) => Self::found(Place::Start, target, part),
            ("endsWith", Some(part), 1) => Self::found(Place::End, target, part),
            ("contains", Some(part), 1) => Self::found(Place::Anywhere, target, part),
            ("matches", Some(pattern), 1) => Self::matched(target, pattern, patterns),
            ("lowerAscii", None, 0) => Self::cased(Case::Lower, target),
            ("upperAscii", None, 0) => Self::cased(Case::Upper, target),
            ("compareTo", Some(other), 1) => Self::ordered(Order::CompareTo, target, other),
            ("isLessThan", Some(other), 1) => Self::ordered(Order::IsLessThan, target, other),
            ("isGreaterThan", Some(other), 1) => Self::ordered(Order::IsGreaterThan, target, other),
            _ => Ok(Self::undecided()),
        }
    }

    fn found(place: Place, whole: Typed, part: Typed) -> Result<Self, Unreadable> {
        whole.kind.may_be(&[Kind::Text])?;
        part.kind.may_be(&[Kind::Text])?;
        Self::of_two(Kind::Bool, whole, part, |sides| Expression::Found(place, sides))
    }

    fn matched(whole: Typed, pattern: Typed, patterns: &mut u8) -> Result<Self, Unreadable> {
        whole.kind.may_be(&[Kind::Text])?;
        pattern.kind.may_be(&[Kind::Text])?;
        let Expression::Text(text) = pattern.node else { return Ok(Self::leaf(Kind::Bool, Expression::Undecided)) };
        if *patterns == MOST_PATTERNS {
            return Err(Unreadable);
        }
        *patterns += 1;
        let Some(pattern) = Pattern::compile(&text) else { return Ok(Self::leaf(Kind::Bool, Expression::Undecided)) };
        let node = Expression::Matches(whole.node.into(), pattern.into());
        Typed::above(Kind::Bool, node, whole.depth).map(Self::Value)
    }

    fn cased(case: Case, text: Typed) -> Result<Self, Unreadable> {
        text.kind.may_be(&[Kind::Text])?;
        Typed::above(Kind::Text, Expression::Cased(case, text.node.into()), text.depth).map(Self::Value)
    }

    fn ordered(order: Order, left: Typed, right: Typed) -> Result<Self, Unreadable> {
        left.kind.may_be(&[Kind::Amount, Kind::Version])?;
        left.kind.may_meet(right.kind)?;
        right.kind.may_be(&[Kind::Amount, Kind::Version])?;
        let kind = if matches!(order, Order::CompareTo) { Kind::Int } else { Kind::Bool };
        Self::of_two(kind, left, right, |sides| Expression::Ordered(order, sides))
    }

    fn of_two(
        kind: Kind,
        left: Typed,
        right: Typed,
        node: impl FnOnce(Box<[Expression; 2]>) -> Expression,
    ) -> Result<Self, Unreadable> {
        let below = left.depth.max(right.depth);
        Typed::above(kind, node([left.node, right.node].into()), below).map(Self::Value)
    }
}

impl Typed {
    /// `self in [elements]`. Kubernetes requires elements of one type.
    fn among(self, elements: Vec<Self>) -> Result<Self, Unreadable> {
        let kind = elements.first().map_or(Kind::Unknown, |first| first.kind);
        for element in &elements {
            kind.may_meet(element.kind)?;
            self.kind.may_meet(element.kind)?;
        }
        if elements.iter().any(|element| element.kind != kind) {
            return Ok(Self::undecided(Kind::Bool));
        }
        let below = elements.iter().map(|element| element.depth).fold(self.depth, u16::max);
        let nodes = elements.into_iter().map(|element| element.node).collect();
        Self::above(Kind::Bool, Expression::In(self.node.into(), nodes), below)
    }
}

/// `quantity("…")`, `semver("…")`; no other function is supported. A literal that Kubernetes rejects is an error at run
/// time.
pub(super) fn function(name: &str, arguments: Vec<Term>) -> Result<Term, Unreadable> {
    let kind = match name {
        "quantity" => Kind::Amount,
        "semver" => Kind::Version,
        _ => return Ok(Term::undecided()),
    };
    let Ok([text]) = <[Term; 1]>::try_from(arguments).map(|[text]| [text.value()]) else {
        return Ok(Term::Value(Typed::undecided(kind)));
    };
    text.kind.may_be(&[Kind::Text])?;
    let node = match (text.node, kind) {
        (Expression::Text(text), Kind::Amount) => {
            text.parse().ok().map(|quantity| Expression::Amount(Box::new(quantity)))
        }
        (Expression::Text(text), _) => version::read(&text).map(|version| Expression::Version(version.into())),
        _ => None,
    };
    Ok(Term::leaf(kind, node.unwrap_or(Expression::Undecided)))
}
