//! A ResourceSlice, decoded: devices that a driver offers on a node, and what distinguishes them.
//!
//! A large cluster has 80,000 devices, and partitionable GPUs are offered in about forty alternatives each. Nearly everything about a
//! device is the same for the corresponding device of every other node. So the common part is in memory once ([`Described`]), and a device
//! consists of a reference to it and its own UUIDs.
mod text;

use std::sync::Arc;

use super::constraints::NodeSelector;
use super::limits::Excess;
use super::node::{Node, Taint};
use crate::expression::{self, Attribute, Capacity};
use crate::resource::quantity::Quantity;

pub(crate) use self::text::{NEEDED, RawSlice, qualified};

/// The attribute in which NVIDIA's driver states a device's UUID.
const UUID: &str = "uuid";
/// The attribute in which it states the UUID of the GPU that an instance is a part of.
const PARENT_UUID: &str = "parentUUID";

/// A ResourceSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The rank of the API version that this was read from. If an object is present in two versions, the newer one counts.
    pub rank: u8,
    /// The driver that offers the devices.
    pub driver: Arc<str>,
    /// The pool that they are in.
    pub pool: Arc<str>,
    /// The generation of the pool to which this slice belongs. Only the highest generation counts.
    pub generation: i64,
    /// How many slices this generation of the pool has.
    pub slices: i64,
    /// From which nodes the devices can be used.
    pub reach: Reach,
    /// The counters that overlapping devices share. They belong to the pool.
    pub counter_sets: Box<[CounterSet]>,
    /// The devices, in the order of the slice.
    pub devices: Box<[Device]>,
    /// UUIDs of the devices and of their parents, each once; as attributes, because expressions may refer to them.
    uuids: Box<[Attribute]>,
    /// The number of quantities that could not be read.
    pub unreadable: u32,
    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

/// From which nodes devices can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// From this node, on which the devices are.
    Node(Arc<str>),
    /// From all nodes.
    All,
    /// From the nodes that the selector matches.
    Selected(Arc<NodeSelector>),
    /// Each device states it.
    PerDevice,
    /// A form that this program does not know; the scheduler allocates none of these devices.
    #[default]
    Unknown,
}

impl Reach {
    /// Whether pods on a node can use the devices. False for [`Self::PerDevice`], because the slice does not contain the answer.
    pub fn includes(&self, node: &Node) -> bool {
        match self {
            Self::Node(name) => *name == node.name,
            Self::All => true,
            Self::Selected(selector) => selector.selects(node),
            Self::PerDevice | Self::Unknown => false,
        }
    }
}

/// Counters from which overlapping devices consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterSet {
    /// Its name, unique in the pool.
    pub name: Arc<str>,
    /// The counters, sorted by name.
    pub counters: Counters,
}

/// Amounts by name, sorted by name.
pub type Counters = Box<[(Arc<str>, Quantity)]>;

/// Domain, name and value.
pub type Qualified<T> = (Arc<str>, Arc<str>, T);

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Everything about the device except its UUIDs.
    pub described: Arc<Described>,
    /// The index of its UUID among those of the slice.
    uuid: Option<u16>,
    parent: Option<u16>,
}

/// Everything about a device except its UUIDs: usually the same as for a device on every other node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Described {
    /// Its name, unique in the pool.
    pub name: Arc<str>,
    /// Attributes, sorted by domain and name.
    pub attributes: Box<[Qualified<Attribute>]>,
    /// Capacities, sorted by domain and name.
    pub capacities: Box<[Qualified<Capacity>]>,
    /// The counters that it consumes, by counter set, in the order of the slice.
    pub consumes: Box<[(Arc<str>, Counters)]>,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// From which nodes it can be used, if each device states that.
    pub reach: Reach,
    /// Whether several claims may each have a share of it.
    pub is_shareable: bool,
}

impl Slice {
    /// The devices, each with its slice.
    pub fn devices(&self) -> impl Iterator<Item = Listed<'_>> {
        self.devices.iter().map(|device| Listed { slice: self, device })
    }

    fn uuid(&self, at: Option<u16>) -> Option<&Attribute> {
        self.uuids.get(usize::from(at?))
    }

    /// Replaces values that other slices have, too, by those that `share` and `describe` return, so that each is in memory once.
    pub(crate) fn share(
        &mut self,
        mut share: impl FnMut(&Arc<str>) -> Arc<str>,
        mut describe: impl FnMut(&Arc<Described>) -> Arc<Described>,
    ) {
        self.driver = share(&self.driver);
        self.pool = share(&self.pool);
        if let Reach::Node(node) = &mut self.reach {
            *node = share(node);
        }
        for set in &mut self.counter_sets {
            set.name = share(&set.name);
            for (name, _) in &mut set.counters {
                *name = share(name);
            }
        }
        for device in &mut self.devices {
            device.described = describe(&device.described);
        }
    }
}

/// What devices have in common: [`Listed::likeness`]. Valid while the slices exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Likeness {
    driver: usize,
    described: usize,
    has_uuids: [bool; 2],
}

/// A device and the slice that lists it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The slice.
    pub slice: &'a Slice,
    device: &'a Device,
}

impl<'a> Listed<'a> {
    /// Everything about it except its UUIDs.
    pub fn described(self) -> &'a Described {
        &self.device.described
    }

    /// Its name.
    pub fn name(self) -> &'a Arc<str> {
        &self.device.described.name
    }

    /// Its UUID, as its driver states it.
    pub fn uuid(self) -> Option<&'a Arc<str>> {
        self.slice.uuid(self.device.uuid).and_then(text)
    }

    /// The UUID of the device that it is a part of.
    pub fn parent_uuid(self) -> Option<&'a Arc<str>> {
        self.slice.uuid(self.device.parent).and_then(text)
    }

    /// What an expression can read of it, except its UUIDs. Devices with an equal likeness differ only in their UUIDs.
    pub(crate) fn likeness(self) -> Likeness {
        let driver = Arc::as_ptr(&self.slice.driver).cast::<()>() as usize;
        let described = Arc::as_ptr(&self.device.described) as usize;
        Likeness { driver, described, has_uuids: [self.device.uuid.is_some(), self.device.parent.is_some()] }
    }

    /// The node that it is on; `None` if it can be used from several nodes, or from none.
    pub fn node(self) -> Option<&'a Arc<str>> {
        match self.reach() {
            Reach::Node(node) => Some(node),
            _ => None,
        }
    }

    /// From which nodes it can be used.
    pub fn reach(self) -> &'a Reach {
        match &self.slice.reach {
            Reach::PerDevice => &self.device.described.reach,
            reach => reach,
        }
    }

    /// The text value of an attribute in the driver's own domain.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.attribute_of(&self.slice.driver, name).and_then(text).map(|text| &**text)
    }

    /// An attribute.
    pub fn attribute_of(self, domain: &str, name: &str) -> Option<&'a Attribute> {
        if *domain == *self.slice.driver {
            match name {
                UUID => return self.slice.uuid(self.device.uuid),
                PARENT_UUID => return self.slice.uuid(self.device.parent),
                _ => {}
            }
        }
        let attributes = &self.device.described.attributes;
        let at = attributes.binary_search_by(|(d, n, _)| (&**d, &**n).cmp(&(domain, name))).ok()?;
        Some(&attributes[at].2)
    }
}

impl expression::Described for Listed<'_> {
    fn driver(&self) -> &str {
        &self.slice.driver
    }

    fn allows_multiple_allocations(&self) -> bool {
        self.device.described.is_shareable
    }

    fn attribute(&self, domain: &str, name: &str) -> Option<&Attribute> {
        self.attribute_of(domain, name)
    }

    fn has_attributes_of(&self, domain: &str) -> bool {
        let has_uuid = self.device.uuid.is_some() || self.device.parent.is_some();
        (*domain == *self.slice.driver && has_uuid)
            || self.device.described.attributes.iter().any(|(known, ..)| **known == *domain)
    }

    fn capacity(&self, domain: &str, name: &str) -> Option<Capacity> {
        let capacities = &self.device.described.capacities;
        let at = capacities.binary_search_by(|(d, n, _)| (&**d, &**n).cmp(&(domain, name))).ok()?;
        Some(capacities[at].2)
    }
}

fn text(attribute: &Attribute) -> Option<&Arc<str>> {
    match attribute {
        Attribute::String(text) => Some(text),
        _ => None,
    }
}
