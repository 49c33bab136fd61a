//! The text form of a ResourceSlice, in every version, and how it is converted.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::{CounterSet, Counters, Described, Device, PARENT_UUID, Reach, Slice, UUID};
use crate::expression::{Attribute, Capacity};
use crate::object::constraints::NodeSelector;
use crate::object::limits::{DEVICE_CONDITIONS, DEVICE_FACTS, DEVICES, Excess, TEXT_BYTES, over};
use crate::object::meta::{Meta, nullable, rank};
use crate::object::needed::Needed::{self, Fields, Whole};
use crate::object::node::{RawTaint, Taint};
use crate::resource::quantity::{Quantity, Spelled};

/// The fields of [`RawSlice`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", Fields(&[("name", Whole), ("uid", Whole), ("resourceVersion", Whole)])),
    ("spec", Whole),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawSlice {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    #[serde(deserialize_with = "nullable")]
    driver: String,
    #[serde(deserialize_with = "nullable")]
    pool: RawPool,
    #[serde(flatten)]
    reach: RawReach,
    #[serde(deserialize_with = "nullable")]
    per_device_node_selection: bool,
    #[serde(deserialize_with = "nullable")]
    shared_counters: Vec<RawCounterSet>,
    #[serde(deserialize_with = "nullable")]
    devices: Vec<RawDevice>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPool {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    generation: i64,
    #[serde(deserialize_with = "nullable")]
    resource_slice_count: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawReach {
    #[serde(deserialize_with = "nullable")]
    node_name: String,
    #[serde(deserialize_with = "nullable")]
    all_nodes: bool,
    node_selector: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCounterSet {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    counters: BTreeMap<String, RawAmount>,
}

#[derive(Deserialize)]
struct RawAmount {
    value: Option<Spelled>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawDevice {
    #[serde(deserialize_with = "nullable")]
    name: String,
    /// v1beta1 has all other fields here.
    basic: Option<RawFacts>,
    #[serde(flatten)]
    facts: RawFacts,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawFacts {
    #[serde(deserialize_with = "nullable")]
    attributes: BTreeMap<String, RawAttribute>,
    #[serde(deserialize_with = "nullable")]
    capacity: BTreeMap<String, RawAmount>,
    #[serde(deserialize_with = "nullable")]
    consumes_counters: Vec<RawConsumed>,
    #[serde(flatten)]
    reach: RawReach,
    #[serde(deserialize_with = "nullable")]
    taints: Vec<RawTaint>,
    #[serde(deserialize_with = "nullable")]
    allow_multiple_allocations: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAttribute {
    int: Option<i64>,
    bool: Option<bool>,
    string: Option<String>,
    version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawConsumed {
    #[serde(deserialize_with = "nullable")]
    counter_set: String,
    #[serde(deserialize_with = "nullable")]
    counters: BTreeMap<String, RawAmount>,
}

impl From<RawReach> for Reach {
    fn from(raw: RawReach) -> Self {
        match raw {
            RawReach { node_name, .. } if !node_name.is_empty() => Self::Node(node_name.into()),
            RawReach { all_nodes: true, .. } => Self::All,
            RawReach { node_selector: Some(selector), .. } => Self::Selected(Arc::new(selector)),
            _ => Self::Unknown,
        }
    }
}

impl RawReach {
    fn size(&self) -> usize {
        self.node_selector.as_ref().map_or(0, NodeSelector::size)
    }
}

/// Domain and name of an attribute or a capacity; a name without a domain is in the driver's domain.
pub(crate) fn qualified<'a>(name: &'a str, driver: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((driver, name))
}

impl From<RawSlice> for Slice {
    fn from(raw: RawSlice) -> Self {
        let RawSlice { api_version, metadata, spec } = raw;
        let excess = excess(&spec);
        let mut reading = Reading { driver: spec.driver.into(), ..Reading::default() };
        let reach = if spec.per_device_node_selection { Reach::PerDevice } else { spec.reach.into() };
        let sets = spec
            .shared_counters
            .into_iter()
            .map(|set| CounterSet { name: set.name.into(), counters: reading.counters(set.counters) });
        let counter_sets = if excess.is_some() { Box::default() } else { sets.collect() };
        let devices = spec.devices.into_iter().map(|device| reading.device(device));
        let devices = if excess.is_some() { Box::default() } else { devices.collect() };
        Self {
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            rank: rank(&api_version),
            driver: reading.driver,
            pool: spec.pool.name.into(),
            generation: spec.pool.generation,
            slices: spec.pool.resource_slice_count,
            reach,
            counter_sets,
            devices,
            uuids: reading.uuids.into(),
            unreadable: reading.unreadable,
            excess,
        }
    }
}

/// Which bound a slice exceeds.
fn excess(spec: &RawSpec) -> Option<Excess> {
    let amounts = |counters: &BTreeMap<String, RawAmount>| counters.len();
    let facts = spec.devices.iter().flat_map(|device| [Some(&device.facts), device.basic.as_ref()]).flatten();
    let (mut count, mut conditions) = (0, spec.reach.size());
    for of in facts {
        count += of.attributes.len() + of.capacity.len() + of.taints.len() + of.consumes_counters.len();
        count += of.consumes_counters.iter().map(|consumed| amounts(&consumed.counters)).sum::<usize>();
        conditions += of.reach.size();
    }
    count += spec.shared_counters.iter().map(|set| 1 + amounts(&set.counters)).sum::<usize>();
    let long = [&spec.driver, &spec.pool.name].into_iter().chain(spec.devices.iter().map(|device| &device.name));
    over(spec.devices.len(), DEVICES, Excess::Devices)
        .or(over(count, DEVICE_FACTS, Excess::Devices))
        .or(over(conditions, DEVICE_CONDITIONS, Excess::Conditions))
        .or(long.map(String::len).max().and_then(|longest| over(longest, TEXT_BYTES, Excess::Text)))
}

/// What was read of a slice so far.
#[derive(Default)]
struct Reading {
    driver: Arc<str>,
    uuids: Vec<Attribute>,
    places: HashMap<Arc<str>, u16>,
    unreadable: u32,
}

impl Reading {
    fn device(&mut self, raw: RawDevice) -> Device {
        let facts = raw.basic.unwrap_or(raw.facts);
        let mut device = Device { described: Arc::default(), uuid: None, parent: None };
        let mut described = Described {
            name: raw.name.into(),
            taints: facts.taints.into_iter().map(Taint::from).collect(),
            reach: facts.reach.into(),
            is_shareable: facts.allow_multiple_allocations,
            ..Described::default()
        };
        let mut attributes = Vec::with_capacity(facts.attributes.len());
        for (name, value) in facts.attributes {
            let (domain, id) = qualified(&name, &self.driver);
            match (id, value) {
                (UUID, RawAttribute { string: Some(uuid), .. }) if *domain == *self.driver => {
                    device.uuid = self.place(uuid);
                }
                (PARENT_UUID, RawAttribute { string: Some(uuid), .. }) if *domain == *self.driver => {
                    device.parent = self.place(uuid);
                }
                (id, value) => attributes.push((Arc::from(domain), Arc::from(id), Attribute::from(value))),
            }
        }
        attributes.sort_by(|(d, n, _), (domain, name, _)| (d, n).cmp(&(domain, name)));
        described.attributes = attributes.into();
        let mut capacities = Vec::with_capacity(facts.capacity.len());
        for (name, amount) in facts.capacity {
            let (domain, id) = qualified(&name, &self.driver);
            let (domain, id) = (Arc::from(domain), Arc::from(id));
            let capacity = self.quantity(amount).map_or(Capacity::Other, Capacity::Amount);
            capacities.push((domain, id, capacity));
        }
        capacities.sort();
        described.capacities = capacities.into();
        let consumed = facts.consumes_counters.into_iter();
        described.consumes = consumed.map(|of| (of.counter_set.into(), self.counters(of.counters))).collect();
        device.described = Arc::new(described);
        device
    }

    /// The index of a UUID among those of the slice; `None` if it is empty.
    fn place(&mut self, uuid: String) -> Option<u16> {
        if uuid.is_empty() {
            return None;
        }
        if let Some(known) = self.places.get(uuid.as_str()) {
            return Some(*known);
        }
        // A slice has fewer devices than that.
        let place = u16::try_from(self.uuids.len()).ok()?;
        let uuid: Arc<str> = uuid.into();
        self.uuids.push(Attribute::String(uuid.clone()));
        self.places.insert(uuid, place);
        Some(place)
    }

    fn counters(&mut self, raw: BTreeMap<String, RawAmount>) -> Counters {
        let counters = raw.into_iter().filter_map(|(name, amount)| Some((name.into(), self.quantity(amount)?)));
        counters.collect()
    }

    fn quantity(&mut self, raw: RawAmount) -> Option<Quantity> {
        let Spelled(quantity) = raw.value?;
        self.unreadable += u32::from(quantity.is_err());
        quantity.ok()
    }
}

impl From<RawAttribute> for Attribute {
    fn from(raw: RawAttribute) -> Self {
        match raw {
            RawAttribute { int: Some(int), .. } => Self::Int(int),
            RawAttribute { bool: Some(bool), .. } => Self::Bool(bool),
            RawAttribute { string: Some(string), .. } => Self::String(string.into()),
            RawAttribute { version: Some(version), .. } => Self::Version(version.into()),
            _ => Self::Other,
        }
    }
}
