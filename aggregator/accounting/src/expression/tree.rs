//! A compiled expression. Everything that is not supported is one kind of node, [`Expression::Undecided`].
use semver::Version;

use super::pattern::Pattern;
use crate::resource::quantity::Quantity;

/// A part of an expression.
#[derive(Debug)]
pub(super) enum Expression {
    /// Undecided for every device.
    Undecided,
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    Amount(Box<Quantity>),
    Version(Box<Version>),
    Driver,
    AllowsMultipleAllocations,
    Attribute(Box<Name>),
    Capacity(Box<Name>),
    HasDomain(Box<str>),
    HasAttribute(Box<Name>),
    HasCapacity(Box<Name>),
    Not(Box<Expression>),
    /// `&&` of two or more parts.
    All(Vec<Expression>),
    /// `||` of two or more parts.
    Any(Vec<Expression>),
    Compared(Comparison, Box<[Expression; 2]>),
    /// Whether the first is an element of the second.
    In(Box<Expression>, Vec<Expression>),
    /// Whether the first contains the second.
    Found(Place, Box<[Expression; 2]>),
    Matches(Box<Expression>, Box<Pattern>),
    Cased(Case, Box<Expression>),
    /// Compares two quantities or two versions.
    Ordered(Order, Box<[Expression; 2]>),
}

/// The name of an attribute or capacity.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) domain: Box<str>,
    pub(super) name: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where in a text another text is searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Start,
    End,
    Anywhere,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Case {
    Lower,
    Upper,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    CompareTo,
    IsLessThan,
    IsGreaterThan,
}
