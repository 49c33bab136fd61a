//! A list of quantities by resource name, decoded: `requests`, `limits`, `capacity` or `overhead`.
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::limits::{Excess, RESOURCES, TEXT_BYTES};
use crate::resource::Resource;
use crate::resource::quantity::{Quantity, Spelled};
use crate::steps;

/// Quantities by resource, each once. Unreadable quantities are absent, and counted. If there are more resources than permitted, the first
/// by name are kept, in whatever order they were added, so that every kept amount is correct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quantities {
    /// Quantities of resources that have a ladder.
    laddered: Entries<Resource>,
    /// Quantities of all others, which matter only for fit: `ephemeral-storage`, hugepages, volumes.
    others: Entries<Arc<str>>,
    /// How many values were not quantities.
    pub(crate) unreadable: u32,
    /// Which bound it exceeds, so that some are left out; `None` if it exceeds none.
    pub(crate) excess: Option<Excess>,
}

/// Sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entries<K>(Vec<(K, Quantity)>);

/// The key of a quantity.
trait Key: Clone + Ord {
    fn kind(&self) -> Kind;
}

/// Resources that share a bound, so that invented names cannot displace the resources that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Always kept, however many others there are; only a few resources are of this kind.
    Always,
    /// A device of a vendor whose devices are accelerators.
    Accelerator,
    /// Any other resource.
    Other,
}

/// The prefixes of these vendors' resources.
const MAKERS: [&str; 5] = ["nvidia.com/", "amd.com/", "habana.ai/", "google.com/", "gpu.intel.com/"];

impl Key for Resource {
    fn kind(&self) -> Kind {
        match self {
            Self::Extended(name) if MAKERS.iter().any(|maker| name.starts_with(maker)) => Kind::Accelerator,
            Self::Extended(_) => Kind::Other,
            Self::Cpu | Self::Memory | Self::Gpu => Kind::Always,
        }
    }
}

impl Key for Arc<str> {
    fn kind(&self) -> Kind {
        if matches!(&**self, "pods" | "ephemeral-storage") { Kind::Always } else { Kind::Other }
    }
}

impl Quantities {
    pub(crate) fn get(&self, resource: &Resource) -> Option<Quantity> {
        self.laddered.get(resource)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Resource, Quantity)> {
        self.laddered.iter()
    }

    pub(crate) fn set(&mut self, resource: &Resource, quantity: Quantity) {
        let excess = self.laddered.set(resource, quantity);
        self.exceed(excess);
    }

    /// The quantities of resources without a ladder.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&Arc<str>, Quantity)> {
        self.others.iter()
    }

    pub(crate) fn other(&self, name: &Arc<str>) -> Option<Quantity> {
        self.others.get(name)
    }

    pub(crate) fn set_other(&mut self, name: &Arc<str>, quantity: Quantity) {
        let excess = self.others.set(name, quantity);
        self.exceed(excess);
    }

    /// Notes that some entries are left out.
    fn exceed(&mut self, excess: Option<Excess>) {
        self.excess = self.excess.or(excess);
    }

    /// Adds every entry of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        let laddered = self.laddered.add(&other.laddered);
        let others = self.others.add(&other.others);
        self.exceed(laddered.or(others).or(other.excess));
    }

    /// These entries, each increased by the same entry of `other`.
    pub(crate) fn and_of(mut self, other: &Self) -> Self {
        self.laddered.0.iter_mut().for_each(|(key, sum)| *sum += other.laddered.get(key).unwrap_or_default());
        self.others.0.iter_mut().for_each(|(key, sum)| *sum += other.others.get(key).unwrap_or_default());
        self
    }

    /// Raises every entry to that of `other` if that is larger.
    pub(crate) fn raise(&mut self, other: &Self) {
        let laddered = self.laddered.raise(&other.laddered);
        let others = self.others.raise(&other.others);
        self.exceed(laddered.or(others).or(other.excess));
    }

    /// Copies every entry of `other` that is absent or 0 here.
    pub(crate) fn fill_in_zeros(&mut self, other: &Self) {
        self.laddered.0.retain(|(_, quantity)| !quantity.is_zero());
        self.others.0.retain(|(_, quantity)| !quantity.is_zero());
        self.fill_in(other);
    }

    /// Copies every entry of `other` that is absent here.
    pub(crate) fn fill_in(&mut self, other: &Self) {
        let laddered = self.laddered.fill_in(&other.laddered);
        let others = self.others.fill_in(&other.others);
        self.exceed(laddered.or(others).or(other.excess));
    }
}

impl<K> Default for Entries<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Key> Entries<K> {
    fn get(&self, key: &K) -> Option<Quantity> {
        self.at(key).ok().map(|at| self.0[at].1)
    }

    fn iter(&self) -> impl Iterator<Item = (&K, Quantity)> {
        self.0.iter().map(|(key, quantity)| (key, *quantity))
    }

    fn set(&mut self, key: &K, quantity: Quantity) -> Option<Excess> {
        match self.at(key) {
            Ok(at) => self.0[at].1 = quantity,
            Err(at) => return self.insert(at, key, quantity),
        }
        None
    }

    fn add(&mut self, other: &Self) -> Option<Excess> {
        other.iter().fold(None, |excess, (key, quantity)| {
            let mut sum = self.get(key).unwrap_or_default();
            sum += quantity;
            excess.or(self.set(key, sum))
        })
    }

    fn raise(&mut self, other: &Self) -> Option<Excess> {
        other.iter().fold(None, |excess, (key, quantity)| {
            let is_larger = self.get(key).is_none_or(|known| known < quantity);
            excess.or(is_larger.then(|| self.set(key, quantity)).flatten())
        })
    }

    fn fill_in(&mut self, other: &Self) -> Option<Excess> {
        other.iter().fold(None, |excess, (key, quantity)| match self.at(key) {
            Ok(_) => excess,
            Err(at) => excess.or(self.insert(at, key, quantity)),
        })
    }

    fn at(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| {
            steps::took(1);
            known.cmp(key)
        })
    }

    /// Inserts a new entry. If there are too many entries of its kind, the last by name is dropped. Entries of 0 have a bound of their own,
    /// so that a request for nothing does not displace a request for something.
    fn insert(&mut self, at: usize, key: &K, quantity: Quantity) -> Option<Excess> {
        steps::took(self.0.len() - at);
        self.0.insert(at, (key.clone(), quantity));
        if self.0.len() <= RESOURCES || key.kind() == Kind::Always {
            return None;
        }
        let shares = |(other, amount): &(K, Quantity)| {
            other.kind() != Kind::Always
                && amount.is_zero() == quantity.is_zero()
                && (quantity.is_zero() || other.kind() == key.kind())
        };
        steps::took(self.0.len());
        if self.0.iter().filter(|entry| shares(entry)).count() <= RESOURCES {
            return None;
        }
        let last = self.0.iter().rposition(shares)?;
        self.0.remove(last);
        Some(Excess::Resources)
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
            if name.len() > TEXT_BYTES {
                quantities.exceed(Some(Excess::Text));
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: impl Iterator<Item = usize>) -> Quantities {
        let mut quantities = Quantities::default();
        for name in names {
            quantities.set(&Resource::Extended(format!("example.com/{name:05}").into()), "1".parse().unwrap());
        }
        quantities
    }

    #[test]
    fn as_many_resources_as_there_may_be_are_all_there() {
        assert_eq!(of(0..RESOURCES).excess, None);
        assert_eq!(of(0..=RESOURCES).excess, Some(Excess::Resources));
    }

    #[test]
    fn what_is_there_of_too_many_does_not_rest_on_their_order_and_its_sums_are_right() {
        let (mut up, mut down) = (of(0..300), of((0..300).rev()));
        assert_eq!(up, down);
        up.add(&of(100..200));
        down.add(&of((100..200).rev()));
        assert_eq!(up, down);
        let named = |name: usize| up.get(&Resource::Extended(format!("example.com/{name:05}").into()));
        let nanos = |name| named(name).map(Quantity::nanos);
        assert_eq!((nanos(0), nanos(RESOURCES - 1)), (Some(1_000_000_000), Some(2_000_000_000)));
        assert_eq!(named(RESOURCES), None);
    }

    #[test]
    fn cpu_memory_and_places_for_pods_are_never_surplus() {
        let mut quantities = of(0..300);
        for name in ["cpu", "memory", "nvidia.com/gpu"] {
            quantities.set(&Resource::named(name).unwrap(), "7".parse().unwrap());
        }
        (0..300).for_each(|name| quantities.set_other(&format!("a{name}").into(), "1".parse().unwrap()));
        quantities.set_other(&"pods".into(), "110".parse().unwrap());
        for name in ["cpu", "memory", "nvidia.com/gpu"] {
            assert_eq!(quantities.get(&Resource::named(name).unwrap()), "7".parse().ok(), "{name}");
        }
        assert_eq!(quantities.other(&"pods".into()), "110".parse().ok());
    }

    #[test]
    fn a_resource_whose_name_no_node_can_have_is_left_out() {
        let longest = format!("example.com/{}", "x".repeat(TEXT_BYTES - 12));
        let read = |name: &str| serde_json::from_value::<Quantities>(serde_json::json!({ name: "1" })).unwrap();
        assert_eq!(read(&longest).excess, None);
        assert_eq!(read(&format!("{longest}x")).excess, Some(Excess::Text));
    }

    #[test]
    fn neither_invented_names_nor_requests_for_nothing_push_out_a_gpu() {
        let mig: Resource = Resource::named("nvidia.com/mig-1g.10gb").unwrap();
        for (maker, amount) in [("akri.sh/camera", "1"), ("a.com/r", "0"), ("nvidia.com/a", "0")] {
            let mut quantities = Quantities::default();
            for number in 0..300 {
                quantities.set(&Resource::named(&format!("{maker}-{number:03}")).unwrap(), amount.parse().unwrap());
            }
            quantities.set(&mig, "1".parse().unwrap());
            assert_eq!(quantities.get(&mig), "1".parse().ok(), "beside {maker}: {amount}");
            assert_eq!(quantities.excess, Some(Excess::Resources));
        }
    }
}
