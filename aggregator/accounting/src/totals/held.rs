//! How long the containers of a node held devices. Owns what was last seen of this time, by name, because kubelet's list has no UID.
use std::cmp::Ordering;
use std::sync::Arc;

use super::row::Row;
use super::since::Since;
use super::{Now, kept};
use crate::cluster::Cluster;

/// The held times of one node, each by container and resource.
#[derive(Debug, Default)]
pub(super) struct NodeHeld(Row<HeldTime>);

/// What was last seen of a container's devices of one resource.
#[derive(Debug)]
pub(super) struct HeldTime {
    pub(super) namespace: Arc<str>,
    pub(super) pod: Arc<str>,
    pub(super) container: Arc<str>,
    pub(super) resource: Arc<str>,
    gone: Option<Now>,
    pub(super) held_ns: Since,
}

/// The key of a held time.
#[derive(Clone, Copy)]
pub(super) struct HeldName<'a> {
    pub(super) namespace: &'a Arc<str>,
    pub(super) pod: &'a Arc<str>,
    pub(super) container: &'a str,
    pub(super) resource: &'a str,
}

impl HeldName<'_> {
    fn is(&self, held: &HeldTime) -> bool {
        held.namespace == *self.namespace
            && held.pod == *self.pod
            && *held.container == *self.container
            && *held.resource == *self.resource
    }

    /// How another entry compares with this key.
    fn order(&self, held: &HeldTime) -> Ordering {
        let names = (held.namespace.cmp(self.namespace), held.pod.cmp(self.pod));
        let parts = || (*held.container).cmp(self.container).then_with(|| (*held.resource).cmp(self.resource));
        names.0.then(names.1).then_with(parts)
    }
}

impl NodeHeld {
    pub(super) fn all(&self) -> &[HeldTime] {
        self.0.all()
    }

    pub(super) fn get(&self, name: HeldName<'_>) -> Option<&Since> {
        self.0.get(|held| name.order(held)).map(|held| &held.held_ns)
    }

    /// Whether anything is known of this pod.
    pub(super) fn has_pod(&self, namespace: &str, pod: &str) -> bool {
        self.0.get(|held| (&*held.namespace, &*held.pod).cmp(&(namespace, pod))).is_some()
    }

    /// What is known; if nothing is, a new entry.
    pub(super) fn get_or_new(&mut self, name: HeldName<'_>) -> &mut Since {
        let new = |others: &[HeldTime]| {
            // Nearly all containers of a node that hold devices have the same name and the same resource, so their texts are shared.
            let like = |text: fn(&HeldTime) -> &Arc<str>, new: &str| {
                let known = others.iter().map(text).find(|known| ***known == *new);
                known.map_or_else(|| new.into(), Arc::clone)
            };
            HeldTime {
                namespace: name.namespace.clone(),
                pod: name.pod.clone(),
                container: like(|held| &held.container, name.container),
                resource: like(|held| &held.resource, name.resource),
                gone: None,
                held_ns: Since::default(),
            }
        };
        &mut self.0.get_or_put(|held| name.is(held), |held| name.order(held), new).held_ns
    }

    /// Drops entries of pods that the node no longer has, after an hour.
    pub(super) fn tidy(&mut self, cluster: &Cluster, node: &str, now: Now) {
        self.0.retain(|held| {
            let there = cluster.pod(&held.namespace, &held.pod).is_some_and(|pod| pod.node.as_deref() == Some(node));
            kept(&mut held.gone, there, now)
        });
    }
}
