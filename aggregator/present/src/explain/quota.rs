//! Amounts of quota, and the values of one flavor and resource.
use std::collections::BTreeMap;

use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;
use serde::{Serialize, Serializer};

use super::amount::{Rounding, number, unit_of};
use super::ladder::{ByResource, whole};

/// An amount of quota in millicores, bytes or devices: in JSON a number, or the text `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// So much.
    Units(i64),
    /// More than any number.
    Unlimited,
}

/// What is missing from the quota of one flavor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// What is missing.
    pub missing: Quota,
    /// What is left.
    pub available: Quota,
    /// The most that its queue could use if nobody used anything.
    pub most: Quota,
    /// The part of `most` that the queue must borrow.
    pub borrowed: Quota,
}

/// Kueue's own words: reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Says {
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

impl Says {
    /// The rest of a sentence whose subject is Kueue: `says Pending: couldn't assign flavors`. Kueue may give only one of the two.
    pub fn words(&self) -> String {
        match (self.reason.as_str(), self.message.as_str()) {
            (reason, "") => format!("says {reason}"),
            ("", message) => format!("says: {message}"),
            (reason, message) => format!("says {reason}: {message}"),
        }
    }
}

impl From<Amount> for Quota {
    fn from(amount: Amount) -> Self {
        amount.units().map_or(Self::Unlimited, |units| Self::Units(whole(units)))
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Units(units) => serializer.serialize_i64(*units),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl Quota {
    /// The number without its unit.
    pub fn number(self, resource: &Resource, rounding: Rounding) -> String {
        match self {
            Self::Units(units) => number(resource, units as f64, rounding),
            Self::Unlimited => "unlimited".to_owned(),
        }
    }

    /// The number with its unit.
    pub fn words(self, resource: &Resource, rounding: Rounding) -> String {
        match self {
            Self::Units(units) => super::amount::words(resource, units.into(), rounding),
            Self::Unlimited => format!("unlimited {}", unit_of(resource, "unlimited")),
        }
    }
}

/// One value for each flavor and resource, by flavor.
pub(super) fn by_flavor<T>(
    values: impl IntoIterator<Item = ((impl AsRef<str>, Resource), T)>,
) -> BTreeMap<String, ByResource<T>> {
    let mut all: BTreeMap<String, Vec<(Resource, T)>> = BTreeMap::new();
    for ((flavor, resource), value) in values {
        all.entry(flavor.as_ref().to_owned()).or_default().push((resource, value));
    }
    all.into_iter().map(|(flavor, values)| (flavor, values.into_iter().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kueue_says_needs_no_reason_and_no_message() {
        let check = |reason: &str, message: &str, expected: &str| {
            assert_eq!(Says { reason: reason.into(), message: message.into() }.words(), expected);
        };
        check("Pending", "no quota", "says Pending: no quota");
        check("Pending", "", "says Pending");
        check("", "no quota", "says: no quota");
    }
}
