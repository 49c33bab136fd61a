//! Evaluates a compiled expression for a device. Each node is visited once; the depth was limited when the tree was
//! built.
use std::borrow::Cow;
use std::cmp::Ordering;

use semver::Version;

use super::device::{Attribute, Capacity, Described};
use super::tree::{Case, Comparison, Expression, Name, Order, Place};
use super::version;
use crate::resource::quantity::Quantity;

/// The value of a node. `None` (`Option`) means undecided.
enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    Amount(Quantity),
    Version(Cow<'a, Version>),
}

/// The result; `None` if it is undecided or not a boolean.
pub(super) fn decide(tree: &Expression, device: &dyn Described) -> Option<bool> {
    match value(tree, device)? {
        Value::Bool(answer) => Some(answer),
        _ => None,
    }
}

fn value<'a>(node: &'a Expression, device: &'a dyn Described) -> Option<Value<'a>> {
    Some(match node {
        Expression::Undecided => return None,
        Expression::Bool(value) => Value::Bool(*value),
        Expression::Int(value) => Value::Int(*value),
        Expression::Text(text) => Value::Text(Cow::Borrowed(text)),
        Expression::Amount(quantity) => Value::Amount(**quantity),
        Expression::Version(version) => Value::Version(Cow::Borrowed(version)),
        Expression::Driver => Value::Text(Cow::Borrowed(device.driver())),
        Expression::AllowsMultipleAllocations => Value::Bool(device.allows_multiple_allocations()),
        Expression::Attribute(name) => return attribute(name, device),
        Expression::Capacity(name) => match device.capacity(&name.domain, &name.name)? {
            Capacity::Amount(quantity) => Value::Amount(quantity),
            Capacity::Other => return None,
        },
        Expression::HasDomain(domain) => Value::Bool(device.has_attributes_of(domain)),
        Expression::HasAttribute(name) => Value::Bool(device.attribute(&name.domain, &name.name).is_some()),
        Expression::HasCapacity(name) => Value::Bool(device.capacity(&name.domain, &name.name).is_some()),
        Expression::Not(inner) => Value::Bool(!decide(inner, device)?),
        Expression::All(parts) => Value::Bool(!until(parts, device, false)?),
        Expression::Any(parts) => Value::Bool(until(parts, device, true)?),
        Expression::Compared(comparison, sides) => {
            let [left, right] = both(sides, device)?;
            Value::Bool(compared(*comparison, &left, &right)?)
        }
        Expression::In(sought, among) => Value::Bool(is_in(&value(sought, device)?, among, device)?),
        Expression::Found(place, sides) => {
            let [Value::Text(whole), Value::Text(part)] = both(sides, device)? else { return None };
            Value::Bool(match place {
                Place::Start => whole.starts_with(&*part),
                Place::End => whole.ends_with(&*part),
                Place::Anywhere => whole.contains(&*part),
            })
        }
        Expression::Matches(whole, pattern) => {
            let Value::Text(whole) = value(whole, device)? else { return None };
            Value::Bool(pattern.matches(&whole)?)
        }
        Expression::Cased(case, inner) => {
            let Value::Text(text) = value(inner, device)? else { return None };
            Value::Text(Cow::Owned(match case {
                Case::Lower => text.to_ascii_lowercase(),
                Case::Upper => text.to_ascii_uppercase(),
            }))
        }
        Expression::Ordered(order, sides) => {
            let [left, right] = both(sides, device)?;
            let ordering = precedence(&left, &right)?;
            match order {
                Order::CompareTo => Value::Int(ordering as i64),
                Order::IsLessThan => Value::Bool(ordering.is_lt()),
                Order::IsGreaterThan => Value::Bool(ordering.is_gt()),
            }
        }
    })
}

fn attribute<'a>(name: &Name, device: &'a dyn Described) -> Option<Value<'a>> {
    Some(match device.attribute(&name.domain, &name.name)? {
        Attribute::Int(value) => Value::Int(*value),
        Attribute::Bool(value) => Value::Bool(*value),
        Attribute::String(text) => Value::Text(Cow::Borrowed(text)),
        Attribute::Version(text) => Value::Version(Cow::Owned(version::read(text)?)),
        Attribute::Other => return None,
    })
}

fn both<'a>(sides: &'a [Expression; 2], device: &'a dyn Described) -> Option<[Value<'a>; 2]> {
    Some([value(&sides[0], device)?, value(&sides[1], device)?])
}

/// Whether a part evaluates to `end`, which decides the result whatever the other parts are. `None` if no part does and
/// one is undecided or not a boolean.
fn until(parts: &[Expression], device: &dyn Described, end: bool) -> Option<bool> {
    let mut found = Some(false);
    for part in parts {
        match decide(part, device) {
            Some(answer) if answer == end => return Some(true),
            Some(_) => {}
            None => found = None,
        }
    }
    found
}

/// CEL evaluates the whole list first, so an undecided element makes the result undecided, even if another element is
/// equal.
fn is_in(sought: &Value, among: &[Expression], device: &dyn Described) -> Option<bool> {
    let elements: Vec<_> = among.iter().map(|element| value(element, device)).collect::<Option<_>>()?;
    let mut found = Some(false);
    for element in &elements {
        match equal(sought, element) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

fn compared(comparison: Comparison, left: &Value, right: &Value) -> Option<bool> {
    let ordering = || match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        // By bytes, as Go compares strings.
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        _ => None,
    };
    match comparison {
        Comparison::Equal => equal(left, right),
        Comparison::NotEqual => equal(left, right).map(|equal| !equal),
        Comparison::Less => ordering().map(Ordering::is_lt),
        Comparison::LessOrEqual => ordering().map(Ordering::is_le),
        Comparison::Greater => ordering().map(Ordering::is_gt),
        Comparison::GreaterOrEqual => ordering().map(Ordering::is_ge),
    }
}

/// Values of different types are not equal. Comparing a quantity or version with another type is an error; comparing
/// two of them is also left undecided.
fn equal(left: &Value, right: &Value) -> Option<bool> {
    match (left, right) {
        (Value::Amount(_) | Value::Version(_), _) | (_, Value::Amount(_) | Value::Version(_)) => None,
        (Value::Bool(left), Value::Bool(right)) => Some(left == right),
        (Value::Int(left), Value::Int(right)) => Some(left == right),
        (Value::Text(left), Value::Text(right)) => Some(left == right),
        _ => Some(false),
    }
}

/// Compares by value: the spelling of a quantity and what follows the `+` of a version do not matter.
fn precedence(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Amount(left), Value::Amount(right)) => {
            // Quantities that were truncated may look equal although they differ.
            let nanos = |quantity: &Quantity| Some(quantity.nanos()).filter(|nanos| *nanos < i128::MAX);
            Some(nanos(left)?.cmp(&nanos(right)?))
        }
        (Value::Version(left), Value::Version(right)) => Some(left.cmp_precedence(right)),
        _ => None,
    }
}
