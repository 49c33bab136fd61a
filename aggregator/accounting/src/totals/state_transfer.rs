//! The state transfer of totals: what a starting replica takes over from another, and what it gives. Owns how two histories become one in
//! which nothing is counted twice.
//!
//! A total is what was counted up to the last seen value of each counter. If both replicas know the same AppWrapper, the larger total is
//! kept, and of each counter the value that was seen later. So no total exceeds what one of the two replicas counted up to that value, and
//! later growth is counted from there. If it cannot be determined which value was seen later, because a node or a cgroup restarted between
//! the two, nothing is taken over; a moment later both replicas have seen the restart.
use std::sync::Arc;

use mcad_wire::parts::Part;
use mcad_wire::state_transfer::{self, ClusterHeld, Counter, DeviceParts, PodUses, StateTransfer};

use super::devices::DeviceTotals;
use super::held::{HeldName, HeldTime};
use super::life::Life;
use super::parts::{NodeParts, Row, Vacant};
use super::pods::PodCgroup;
use super::since::Since;
use super::{ByNode, Known, NodeTotals, Total, Totals};
use crate::cluster::Cluster;
use crate::gpu_use::{Use, Uses};
use crate::object::AppWrapperName;

/// One of the two replicas has not yet seen that a node or a cgroup restarted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two replicas have different values of {0}")]
pub struct Differ(String);

impl Totals {
    /// Writes everything that is known.
    pub fn tell<'a>(&self, nodes: impl Iterator<Item = (&'a Arc<str>, &'a NodeTotals)>, transfer: &mut StateTransfer) {
        transfer.totals = self.appwrappers.iter().map(|(name, known)| total_to_wire(name, known)).collect();
        for (name, node) in nodes {
            transfer.pods.extend(node.pods.all().iter().map(|pod| pod_to_wire(name, pod)));
            transfer.held.extend(node.held.all().iter().map(|held| held_to_wire(name, held)));
            transfer.nodes.extend(node_to_wire(name, node));
        }
        transfer.cluster_held = self
            .held_ns
            .as_ref()
            .map(|held| ClusterHeld { appwrapper_ns: held.appwrapper.to_wire(), other_ns: held.other.to_wire() });
    }

    /// Takes over what another replica knows, either all or nothing. Entries of objects that the cluster does not have are not kept.
    pub fn learn(
        &mut self,
        cluster: &Cluster,
        transfer: &StateTransfer,
        nodes: &mut impl ByNode,
    ) -> Result<(), Differ> {
        compare(nodes, transfer)?;
        for node in transfer.nodes.iter().filter(|node| cluster.has_node(&node.name)) {
            learn_node(nodes, cluster, node);
        }
        for pod in &transfer.pods {
            learn_pod(nodes, cluster, pod);
        }
        for held in &transfer.held {
            learn_held(nodes, cluster, held);
        }
        for theirs in &transfer.totals {
            self.learn_total(cluster, theirs);
        }
        if let Some(ClusterHeld { appwrapper_ns, other_ns }) = &transfer.cluster_held {
            let known = self.held_ns.get_or_insert_default();
            larger(&mut known.appwrapper, Uses::from_wire(appwrapper_ns));
            larger(&mut known.other, Uses::from_wire(other_ns));
        }
        Ok(())
    }

    fn learn_total(&mut self, cluster: &Cluster, theirs: &state_transfer::Total) {
        let name = AppWrapperName { namespace: theirs.namespace.as_str().into(), name: theirs.name.as_str().into() };
        if cluster.appwrapper(&name).is_none_or(|there| *there.uid != *theirs.uid) {
            return;
        }
        let Some(known) = self.total(cluster, &name) else { return };
        // `None` is less than any value.
        known.cpu_ns = known.cpu_ns.max(theirs.cpu_ns);
        known.oom_kills = known.oom_kills.max(theirs.oom_kills);
        known.run_queue_wait_ns = known.run_queue_wait_ns.max(theirs.run_queue_wait_ns);
        // Busy and idle time add up to held time, so they are taken over together.
        if known.gpu_held_ns < theirs.gpu_held_ns {
            (known.gpu_held_ns, known.gpu_busy_ns) = (theirs.gpu_held_ns, theirs.gpu_busy_ns);
            known.gpu_idle_ns = None;
            let mut idle = Uses::from_wire(&theirs.gpu_idle_ns);
            let idle_ns = theirs.gpu_held_ns.unwrap_or(0).saturating_sub(theirs.gpu_busy_ns.unwrap_or(0));
            // A replica of an older version does not know why they idled.
            idle.add(Use::Part(Part::Unknown), idle_ns.saturating_sub(idle.idle_sum()));
            known.add_idle(&idle);
        } else if known.gpu_held_ns.is_none() {
            known.gpu_busy_ns = known.gpu_busy_ns.max(theirs.gpu_busy_ns);
        }
    }
}

/// Of two totals, the one with more time.
fn larger(known: &mut Uses, theirs: Uses) {
    if known.sum() < theirs.sum() {
        *known = theirs;
    }
}

/// Checks that, for everything both replicas have seen, it is known which of them saw it later.
fn compare(nodes: &impl ByNode, transfer: &StateTransfer) -> Result<(), Differ> {
    for node in &transfer.nodes {
        let known = nodes.get(node.name.as_str()).and_then(|known| known.life.as_ref());
        if let (Some(known), Some(theirs)) = (known, &node.life)
            && **known.boot() != *theirs.boot_id
        {
            return Err(Differ(format!("the boot ID of node {}", node.name)));
        }
    }
    for pod in &transfer.pods {
        let node = nodes.get(pod.node.as_str());
        let known = node.and_then(|node| node.pods.get(&pod.uid)).and_then(|known| known.cgroup.as_ref());
        if let (Some((boot, id)), Some(theirs)) = (known, &pod.boot_id)
            && (**boot != **theirs || *id != pod.cgroup)
        {
            return Err(Differ(format!("the cgroup of pod {}", pod.uid)));
        }
    }
    for held in &transfer.held {
        let (namespace, pod) = (held.namespace.as_str().into(), held.pod.as_str().into());
        let node = nodes.get(held.node.as_str());
        let known = node.and_then(|node| node.held.get(name_of(held, &namespace, &pod)));
        if known.is_some_and(|known| known.is_of_another_boot(held.held.as_ref())) {
            return Err(Differ(format!("the boot ID of the node of pod {}/{}", held.namespace, held.pod)));
        }
    }
    Ok(())
}

/// A node's last report may have lacked its devices, so each device carries the time at which it was seen.
fn learn_node(nodes: &mut impl ByNode, cluster: &Cluster, theirs: &state_transfer::NodeDevices) {
    let (Some(life), Some(node)) = (theirs.life.as_ref().map(Life::from_wire), cluster.node(&theirs.name)) else {
        return;
    };
    let ours = nodes.get_or_new(node.name.clone());
    ours.parts.learn(theirs);
    ours.held_at_ms = ours.held_at_ms.max(theirs.held_at_ms);
    for theirs in &theirs.pods {
        let Some(pod) = cluster.pod(&theirs.namespace, &theirs.pod) else { continue };
        let known = ours.pods_idle_ns.entry((pod.namespace.clone(), pod.name.clone())).or_default();
        larger(known, Uses::from_wire(&theirs.uses_ns));
    }
    let NodeTotals { life: our_life, devices, .. } = ours;
    let is_ours_later = our_life.as_ref().is_some_and(|ours| ours.is_later_than(&life));
    // If the replica that heard from the node later knows nothing of a device, nobody holds the device.
    if !is_ours_later {
        devices.retain(|device| theirs.devices.iter().any(|theirs| *theirs.uuid == *device.uuid));
    }
    for theirs in theirs.devices.iter().map(DeviceTotals::from_wire) {
        match devices.binary_search_by(|device| device.uuid.cmp(&theirs.uuid)) {
            Ok(at) if devices[at].busy_ns.is_later_than(&theirs.busy_ns) => {}
            Ok(at) => devices[at] = theirs,
            Err(_) if is_ours_later => {}
            Err(free) => devices.insert(free, theirs),
        }
    }
    if !is_ours_later {
        *our_life = Some(life);
    }
}

fn learn_pod(nodes: &mut impl ByNode, cluster: &Cluster, theirs: &state_transfer::Pod) {
    let owner = AppWrapperName { namespace: theirs.namespace.as_str().into(), name: theirs.appwrapper.as_str().into() };
    let is_ours = cluster.appwrapper(&owner).is_some_and(|appwrapper| *appwrapper.uid == *theirs.appwrapper_uid);
    if !is_ours && cluster.pod_of_uid(&theirs.uid).is_none() {
        return;
    }
    let pods = &mut node_mut(nodes, cluster, &theirs.node).pods;
    let known = pods.get_or_new(&theirs.uid.as_str().into(), &owner, &theirs.appwrapper_uid.as_str().into());
    let Some(boot) = &theirs.boot_id else { return };
    known.cgroup.get_or_insert_with(|| (boot.as_str().into(), theirs.cgroup));
    // A probe's counter may restart with its agent, so the larger value is not always the later one. The kernel's CPU time shows which is
    // later: without CPU time there is no run-queue wait.
    known.run_queue_wait_ns = match known.cpu_ns.cmp(&theirs.cpu_ns) {
        std::cmp::Ordering::Less => theirs.run_queue_wait_ns,
        std::cmp::Ordering::Equal => known.run_queue_wait_ns.max(theirs.run_queue_wait_ns),
        std::cmp::Ordering::Greater => known.run_queue_wait_ns,
    };
    known.cpu_ns = known.cpu_ns.max(theirs.cpu_ns);
    known.oom_kills = known.oom_kills.max(theirs.oom_kills);
}

fn learn_held(nodes: &mut impl ByNode, cluster: &Cluster, theirs: &state_transfer::HeldTime) {
    // Replicas of an older version do not state the pod's node.
    let there = cluster.pod(&theirs.namespace, &theirs.pod).and_then(|pod| pod.node.as_deref());
    let Some(node) = Some(&*theirs.node).filter(|node| !node.is_empty()).or(there) else { return };
    let (namespace, pod) = (theirs.namespace.as_str().into(), theirs.pod.as_str().into());
    let known = node_mut(nodes, cluster, node).held.get_or_new(name_of(theirs, &namespace, &pod));
    known.learn(theirs.held.as_ref());
}

/// What is known of a node; an empty state if nothing is known, even if the cluster does not have the node yet.
fn node_mut<'a>(nodes: &'a mut impl ByNode, cluster: &Cluster, name: &str) -> &'a mut NodeTotals {
    let name = cluster.node(name).map_or_else(|| name.into(), |node| node.name.clone());
    nodes.get_or_new(name)
}

fn total_to_wire(name: &AppWrapperName, known: &Known) -> state_transfer::Total {
    let Total { cpu_ns, gpu_held_ns, gpu_busy_ns, oom_kills, run_queue_wait_ns, ref gpu_idle_ns } = known.total;
    state_transfer::Total {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        uid: known.uid.to_string(),
        cpu_ns,
        gpu_held_ns,
        gpu_busy_ns,
        oom_kills,
        run_queue_wait_ns,
        gpu_idle_ns: gpu_idle_ns.as_ref().map(|idle| idle.to_wire()).unwrap_or_default(),
    }
}

fn pod_to_wire(node: &Arc<str>, pod: &PodCgroup) -> state_transfer::Pod {
    let [cpu_ns, oom_kills, run_queue_wait_ns] = pod.counted_up_to();
    state_transfer::Pod {
        uid: pod.uid.to_string(),
        namespace: pod.owner.namespace.to_string(),
        appwrapper: pod.owner.name.to_string(),
        appwrapper_uid: pod.owner_uid.to_string(),
        node: node.to_string(),
        boot_id: pod.cgroup.as_ref().map(|(boot, _)| boot.to_string()),
        cgroup: pod.cgroup.as_ref().map_or(0, |(_, id)| *id),
        cpu_ns,
        oom_kills,
        run_queue_wait_ns,
    }
}

fn held_to_wire(node: &Arc<str>, held: &HeldTime) -> state_transfer::HeldTime {
    state_transfer::HeldTime {
        namespace: held.namespace.to_string(),
        pod: held.pod.to_string(),
        container: held.container.to_string(),
        resource: held.resource.to_string(),
        held: held.held_ns.to_wire(),
        node: node.to_string(),
    }
}

fn name_of<'a>(theirs: &'a state_transfer::HeldTime, namespace: &'a Arc<str>, pod: &'a Arc<str>) -> HeldName<'a> {
    HeldName { namespace, pod, container: &theirs.container, resource: &theirs.resource }
}

fn node_to_wire(name: &Arc<str>, node: &NodeTotals) -> Option<state_transfer::NodeDevices> {
    let devices = node.devices.iter().map(|device| state_transfer::DeviceState {
        uuid: device.uuid.to_string(),
        busy: device.busy_ns.to_wire(),
        holders: device
            .holders
            .iter()
            .map(|(pod, parts)| state_transfer::DeviceHolder { pod: pod.to_string(), parts: *parts })
            .collect(),
    });
    Some(state_transfer::NodeDevices {
        name: name.to_string(),
        life: Some(node.life.as_ref()?.to_wire()),
        devices: devices.collect(),
        held_at_ms: node.held_at_ms,
        parts_life: node.parts.life.as_ref().map(Life::to_wire),
        vacant: node.parts.vacant.iter().map(Vacant::to_wire).collect(),
        rows: node.parts.rows.iter().map(Row::to_wire).collect(),
        pods: node
            .pods_idle_ns
            .iter()
            .map(|((namespace, pod), uses)| PodUses {
                namespace: namespace.to_string(),
                pod: pod.to_string(),
                uses_ns: uses.to_wire(),
            })
            .collect(),
    })
}

impl NodeParts {
    /// Takes over the totals of another replica if it heard from the agent later.
    fn learn(&mut self, theirs: &state_transfer::NodeDevices) {
        let Some(life) = theirs.parts_life.as_ref().map(Life::from_wire) else { return };
        if self.life.as_ref().is_some_and(|ours| ours.is_later_than(&life)) {
            return;
        }
        self.life = Some(life);
        self.vacant = theirs.vacant.iter().map(Vacant::from_wire).collect();
        self.vacant.sort_unstable_by(|a, b| a.uuid.cmp(&b.uuid));
        self.rows = theirs.rows.iter().map(Row::from_wire).collect();
        self.rows.sort_unstable_by(|a, b| a.order((&b.uuid, &b.pod_uid, &b.container_id)));
    }
}

impl Vacant {
    fn to_wire(&self) -> DeviceParts {
        DeviceParts { uuid: self.uuid.to_string(), parts: self.parts.to_wire(), ..DeviceParts::default() }
    }

    fn from_wire(wire: &DeviceParts) -> Self {
        Self { uuid: wire.uuid.as_str().into(), parts: Uses::from_wire(&wire.parts) }
    }
}

impl Row {
    fn to_wire(&self) -> DeviceParts {
        DeviceParts {
            uuid: self.uuid.to_string(),
            pod_uid: self.pod_uid.to_string(),
            container_id: self.container_id.to_string(),
            parts: self.parts.to_wire(),
        }
    }

    fn from_wire(wire: &DeviceParts) -> Self {
        Self {
            uuid: wire.uuid.as_str().into(),
            pod_uid: wire.pod_uid.as_str().into(),
            container_id: wire.container_id.as_str().into(),
            parts: Uses::from_wire(&wire.parts),
        }
    }
}

impl Life {
    fn to_wire(&self) -> state_transfer::Life {
        let (boot_id, agent_started_at_ms, uptime_ns) = self.parts();
        state_transfer::Life { boot_id: boot_id.to_string(), agent_started_at_ms, uptime_ns }
    }

    fn from_wire(wire: &state_transfer::Life) -> Self {
        Self::from_parts(wire.boot_id.as_str().into(), wire.agent_started_at_ms, wire.uptime_ns)
    }
}

impl DeviceTotals {
    fn from_wire(wire: &state_transfer::DeviceState) -> Self {
        let mut busy_ns = Since::default();
        busy_ns.learn(wire.busy.as_ref());
        let mut holders: Vec<_> =
            wire.holders.iter().map(|holder| (holder.pod.as_str().into(), holder.parts)).collect();
        holders.sort_unstable();
        Self { uuid: wire.uuid.as_str().into(), busy_ns, holders: holders.into() }
    }
}

impl Since {
    fn is_later_than(&self, other: &Self) -> bool {
        let Some((_, ours)) = self.seen() else { return false };
        other.seen().is_none_or(|(_, theirs)| ours.is_later_than(theirs))
    }

    fn to_wire(&self) -> Option<Counter> {
        let (total_ns, life) = self.seen()?;
        Some(Counter { total_ns, life: Some(life.to_wire()) })
    }

    fn is_of_another_boot(&self, theirs: Option<&Counter>) -> bool {
        let theirs = theirs.and_then(|theirs| theirs.life.as_ref());
        self.seen().zip(theirs).is_some_and(|((_, known), theirs)| **known.boot() != *theirs.boot_id)
    }

    /// Takes over the counter if it was seen later.
    fn learn(&mut self, theirs: Option<&Counter>) {
        let Some((total_ns, life)) =
            theirs.and_then(|theirs| Some((theirs.total_ns, Life::from_wire(theirs.life.as_ref()?))))
        else {
            return;
        };
        if self.seen().is_none_or(|(_, known)| !known.is_later_than(&life)) {
            *self = Self::of(total_ns, life);
        }
    }
}
