//! What an expression can query of a device.
use std::sync::Arc;

use crate::resource::quantity::Quantity;

/// The value of a device's attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `int`.
    Int(i64),
    /// `bool`.
    Bool(bool),
    /// `string`.
    String(Arc<str>),
    /// `version`: a semantic version 2.0.
    Version(Arc<str>),
    /// A list, or a type that is newer than this program. It exists but cannot be compared.
    Other,
}

/// The value of one capacity of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capacity {
    /// The amount.
    Amount(Quantity),
    /// The capacity exists, but its amount cannot be parsed.
    Other,
}

/// A device, as expressions see it. An attribute or capacity that is declared without a domain belongs to the driver's
/// domain.
pub trait Described {
    /// The name of its driver.
    fn driver(&self) -> &str;
    /// Whether several claims can each hold a share of it; `false` if not set.
    fn allows_multiple_allocations(&self) -> bool;
    /// An attribute, if the device has it.
    fn attribute(&self, domain: &str, name: &str) -> Option<&Attribute>;
    /// Whether it has an attribute of that domain.
    fn has_attributes_of(&self, domain: &str) -> bool;
    /// A capacity, if the device has it.
    fn capacity(&self, domain: &str, name: &str) -> Option<Capacity>;
}
