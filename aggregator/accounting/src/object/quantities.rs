//! A list of quantities by resource name, as `requests`, `limits`, `capacity` and `overhead` are: decoded.
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::resource::Resource;
use crate::resource::quantity::{Quantity, Spelled};

/// Quantities by resource, each once. Those that could not be read are not there, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quantities {
    /// Of resources that have a ladder.
    laddered: Entries<Resource>,
    /// Of all others, which count for fit alone: `ephemeral-storage`, hugepages, volumes.
    others: Entries<Arc<str>>,
    /// How many were no quantity.
    pub(crate) unreadable: u32,
}

/// In the order in which they were named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entries<K>(Vec<(K, Quantity)>);

impl Quantities {
    pub(crate) fn get(&self, resource: &Resource) -> Option<Quantity> {
        self.laddered.get(resource)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Resource, Quantity)> {
        self.laddered.iter()
    }

    pub(crate) fn set(&mut self, resource: &Resource, quantity: Quantity) {
        self.laddered.set(resource, quantity);
    }

    /// Those of resources without a ladder.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&Arc<str>, Quantity)> {
        self.others.iter()
    }

    pub(crate) fn other(&self, name: &Arc<str>) -> Option<Quantity> {
        self.others.get(name)
    }

    pub(crate) fn set_other(&mut self, name: &Arc<str>, quantity: Quantity) {
        self.others.set(name, quantity);
    }

    /// Adds every entry of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.laddered.add(&other.laddered);
        self.others.add(&other.others);
    }

    /// Raises every entry to that of `other` where that is larger.
    pub(crate) fn raise(&mut self, other: &Self) {
        self.laddered.raise(&other.laddered);
        self.others.raise(&other.others);
    }

    /// Takes every entry of `other` that it has none of, or 0.
    pub(crate) fn fill_in_zeros(&mut self, other: &Self) {
        self.laddered.0.retain(|(_, quantity)| !quantity.is_zero());
        self.others.0.retain(|(_, quantity)| !quantity.is_zero());
        self.fill_in(other);
    }

    /// Takes every entry of `other` that it has none of.
    pub(crate) fn fill_in(&mut self, other: &Self) {
        self.laddered.fill_in(&other.laddered);
        self.others.fill_in(&other.others);
    }
}

impl<K> Default for Entries<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Clone + Eq> Entries<K> {
    fn get(&self, key: &K) -> Option<Quantity> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, quantity)| *quantity)
    }

    fn iter(&self) -> impl Iterator<Item = (&K, Quantity)> {
        self.0.iter().map(|(key, quantity)| (key, *quantity))
    }

    fn set(&mut self, key: &K, quantity: Quantity) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = quantity,
            None => self.0.push((key.clone(), quantity)),
        }
    }

    fn add(&mut self, other: &Self) {
        for (key, quantity) in other.iter() {
            let mut sum = self.get(key).unwrap_or_default();
            sum += quantity;
            self.set(key, sum);
        }
    }

    fn raise(&mut self, other: &Self) {
        for (key, quantity) in other.iter() {
            if self.get(key).is_none_or(|known| known < quantity) {
                self.set(key, quantity);
            }
        }
    }

    fn fill_in(&mut self, other: &Self) {
        for (key, quantity) in other.iter() {
            if self.get(key).is_none() {
                self.0.push((key.clone(), quantity));
            }
        }
    }
}

impl<'de> Deserialize<'de> for Quantities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantitiesVisitor)
    }
}

struct QuantitiesVisitor;

impl<'de> Visitor<'de> for QuantitiesVisitor {
    type Value = Quantities;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from resource names to quantities")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Quantities, E> {
        Ok(Quantities::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Quantities, A::Error> {
        let mut quantities = Quantities::default();
        while let Some((name, Spelled(quantity))) = map.next_entry::<String, Spelled>()? {
            let Ok(quantity) = quantity else {
                quantities.unreadable += 1;
                continue;
            };
            match Resource::named(&name) {
                Some(resource) => quantities.set(&resource, quantity),
                None => quantities.set_other(&name.into(), quantity),
            }
        }
        Ok(quantities)
    }
}
