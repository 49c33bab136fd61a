//! What an agent found on a node, as amounts of the resources that kubelet declares (ACCOUNTING.md §4).
//!
//! Owns the way from devices to amounts: MIG, replicas, what is lost, expected, broken, and in whose hands.
use std::collections::BTreeMap;

use crate::resource::Resource;

/// The hardware behind one resource, in that resource's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// What the machine has, or had.
    pub installed: i128,
    /// Of that, gone.
    pub lost: i128,
    /// Of that, there and broken.
    pub unhealthy: i128,
    /// Of the lost, in the hands of a pod. 0 where unknown.
    pub lost_assigned: i128,
    /// Of the unhealthy, in the hands of a pod. 0 where unknown.
    pub unhealthy_assigned: i128,
}

/// What an agent found on one node. A resource that is not there was not looked for, or could not be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<Resource, Hardware>);

impl Found {
    /// The hardware behind a resource.
    pub fn get(&self, resource: &Resource) -> Option<&Hardware> {
        self.0.get(resource)
    }

    /// Every resource that was found.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.0.keys()
    }
}
