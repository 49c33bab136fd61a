//! A list of quantities by resource name, as `requests`, `limits`, `capacity` and `overhead` are: decoded.
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::quantity::{Quantity, Spelled};
use crate::resource::Resource;

/// Quantities of the resources that count, each once. Those that could not be read are not there, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quantities {
    entries: Vec<(Resource, Quantity)>,
    /// How many were no quantity.
    pub(crate) unreadable: u32,
}

impl Quantities {
    pub(crate) fn get(&self, resource: &Resource) -> Option<Quantity> {
        self.entries.iter().find(|(known, _)| known == resource).map(|(_, quantity)| *quantity)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Resource, Quantity)> {
        self.entries.iter().map(|(resource, quantity)| (resource, *quantity))
    }

    pub(crate) fn set(&mut self, resource: &Resource, quantity: Quantity) {
        match self.entries.iter_mut().find(|(known, _)| known == resource) {
            Some((_, known)) => *known = quantity,
            None => self.entries.push((resource.clone(), quantity)),
        }
    }

    /// Adds every entry of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        for (resource, quantity) in other.iter() {
            let mut sum = self.get(resource).unwrap_or_default();
            sum += quantity;
            self.set(resource, sum);
        }
    }

    /// Raises every entry to that of `other` where that is larger.
    pub(crate) fn raise(&mut self, other: &Self) {
        for (resource, quantity) in other.iter() {
            if self.get(resource).is_none_or(|known| known < quantity) {
                self.set(resource, quantity);
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
            let Some(resource) = Resource::named(&name) else { continue };
            match quantity {
                Ok(quantity) => quantities.set(&resource, quantity),
                Err(_) => quantities.unreadable += 1,
            }
        }
        Ok(quantities)
    }
}
