//! What a replica that starts learns of totals from another, and what it is told. Owns how two pasts become one in which
//! nothing is counted twice.
//!
//! A total is what was counted up to what was last seen of each counter. Of two that know the same AppWrapper the larger
//! total holds, and of each counter what was seen later: no total is then above what was counted up to there by one of
//! the two, and what comes is counted from there on. Where it can't be told what was seen later, because node or cgroup
//! began anew between the two, nothing is learnt; a moment later both have seen it.
use std::sync::Arc;

use mcad_wire::seed::{self, Counter, Seed};

use super::devices::Device;
use super::held::{HeldName, HeldTime};
use super::life::Life;
use super::pods::PodCgroup;
use super::since::Since;
use super::{Known, KnownNode, Total, Totals};
use crate::cluster::Cluster;
use crate::object::AppWrapperName;

/// One of the two has not yet seen that a node or a cgroup began anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two differ on what {0} last was")]
pub struct Differ(String);

impl Totals {
    /// All that is known.
    pub fn tell(&self, seed: &mut Seed) {
        seed.totals = self.appwrappers.iter().map(|(name, known)| told_total(name, known)).collect();
        let pods =
            self.nodes.iter().flat_map(|(node, known)| known.pods.all().iter().map(move |pod| told_pod(node, pod)));
        seed.pods = pods.collect();
        let held =
            self.nodes.iter().flat_map(|(node, known)| known.held.all().iter().map(move |held| told_held(node, held)));
        seed.held = held.collect();
        seed.nodes = self.nodes.iter().filter_map(|(name, node)| told_node(name, node)).collect();
    }

    /// Takes in what another replica knows, or nothing of it. Of what the cluster does not have, nothing is kept.
    pub fn learn(&mut self, cluster: &Cluster, seed: &Seed) -> Result<(), Differ> {
        self.compare(seed)?;
        for node in seed.nodes.iter().filter(|node| cluster.has_node(&node.name)) {
            self.learn_node(cluster, node);
        }
        for pod in &seed.pods {
            self.learn_pod(cluster, pod);
        }
        for held in &seed.held {
            self.learn_held(cluster, held);
        }
        for told in &seed.totals {
            self.learn_total(cluster, told);
        }
        // Pods that are gone are dropped in time, by what this replica sees.
        self.tidied = None;
        Ok(())
    }

    /// Whether of everything that both have seen it is known what was seen later.
    fn compare(&self, seed: &Seed) -> Result<(), Differ> {
        for node in &seed.nodes {
            let known = self.nodes.get(node.name.as_str()).and_then(|known| known.life.as_ref());
            if let (Some(known), Some(told)) = (known, &node.life)
                && **known.boot() != *told.boot_id
            {
                return Err(Differ(format!("the boot of node {}", node.name)));
            }
        }
        for pod in &seed.pods {
            let node = self.nodes.get(pod.node.as_str());
            let known = node.and_then(|node| node.pods.get(&pod.uid)).and_then(|known| known.cgroup.as_ref());
            if let (Some((boot, id)), Some(told)) = (known, &pod.boot_id)
                && (**boot != **told || *id != pod.cgroup)
            {
                return Err(Differ(format!("the cgroup of pod {}", pod.uid)));
            }
        }
        for held in &seed.held {
            let (namespace, pod) = (held.namespace.as_str().into(), held.pod.as_str().into());
            let node = self.nodes.get(held.node.as_str());
            let known = node.and_then(|node| node.held.get(name_of(held, &namespace, &pod)));
            if known.is_some_and(|known| known.is_of_another_boot(held.held.as_ref())) {
                return Err(Differ(format!("the node of pod {}/{}", held.namespace, held.pod)));
            }
        }
        Ok(())
    }

    /// A node's last word may have lacked its devices, so what is known of each is as old as it says itself.
    fn learn_node(&mut self, cluster: &Cluster, told: &seed::Node) {
        let (Some(life), Some(node)) = (told.life.as_ref().map(Life::told), cluster.node(&told.name)) else { return };
        let KnownNode { life: our_life, devices, .. } = self.nodes.entry(node.name.clone()).or_default();
        let is_ours_later = our_life.as_ref().is_some_and(|ours| ours.is_later_than(&life));
        // Whoever heard of the node later, and knows nothing of a device, knows that nobody holds it.
        if !is_ours_later {
            devices.retain(|device| told.devices.iter().any(|told| *told.uuid == *device.uuid));
        }
        for told in told.devices.iter().map(Device::told) {
            match devices.binary_search_by(|device| device.uuid.cmp(&told.uuid)) {
                Ok(at) if devices[at].busy_ns.is_later_than(&told.busy_ns) => {}
                Ok(at) => devices[at] = told,
                Err(_) if is_ours_later => {}
                Err(free) => devices.insert(free, told),
            }
        }
        if !is_ours_later {
            *our_life = Some(life);
        }
    }

    fn learn_pod(&mut self, cluster: &Cluster, told: &seed::Pod) {
        let owner = AppWrapperName { namespace: told.namespace.as_str().into(), name: told.appwrapper.as_str().into() };
        let is_ours = cluster.appwrapper(&owner).is_some_and(|appwrapper| *appwrapper.uid == *told.appwrapper_uid);
        if !is_ours && cluster.pod_of_uid(&told.uid).is_none() {
            return;
        }
        let pods = &mut self.node_mut(cluster, &told.node).pods;
        let known = pods.get_or_new(&told.uid.as_str().into(), &owner, &told.appwrapper_uid.as_str().into());
        let Some(boot) = &told.boot_id else { return };
        known.cgroup.get_or_insert_with(|| (boot.as_str().into(), told.cgroup));
        // A probe's counter may have begun anew with its agent, so the larger is not always the later. The kernel's time on
        // processors tells: without any there was nothing to wait for.
        known.run_queue_wait_ns = match known.cpu_ns.cmp(&told.cpu_ns) {
            std::cmp::Ordering::Less => told.run_queue_wait_ns,
            std::cmp::Ordering::Equal => known.run_queue_wait_ns.max(told.run_queue_wait_ns),
            std::cmp::Ordering::Greater => known.run_queue_wait_ns,
        };
        known.cpu_ns = known.cpu_ns.max(told.cpu_ns);
        known.oom_kills = known.oom_kills.max(told.oom_kills);
    }

    fn learn_held(&mut self, cluster: &Cluster, told: &seed::Held) {
        // Who does not say where the pod is, is of a version that did not know.
        let there = cluster.pod(&told.namespace, &told.pod).and_then(|pod| pod.node.as_deref());
        let Some(node) = Some(&*told.node).filter(|node| !node.is_empty()).or(there) else { return };
        let (namespace, pod) = (told.namespace.as_str().into(), told.pod.as_str().into());
        let known = self.node_mut(cluster, node).held.get_or_new(name_of(told, &namespace, &pod));
        known.learn(told.held.as_ref());
    }

    /// What is known of a node, be it nothing, and be the node not there yet.
    fn node_mut(&mut self, cluster: &Cluster, name: &str) -> &mut KnownNode {
        let name = cluster.node(name).map_or_else(|| name.into(), |node| node.name.clone());
        self.nodes.entry(name).or_default()
    }

    fn learn_total(&mut self, cluster: &Cluster, told: &seed::Total) {
        let name = AppWrapperName { namespace: told.namespace.as_str().into(), name: told.name.as_str().into() };
        if cluster.appwrapper(&name).is_none_or(|there| *there.uid != *told.uid) {
            return;
        }
        let Some(known) = self.total(cluster, &name) else { return };
        // An absent one is less than any.
        *known = Total {
            cpu_ns: known.cpu_ns.max(told.cpu_ns),
            gpu_held_ns: known.gpu_held_ns.max(told.gpu_held_ns),
            gpu_busy_ns: known.gpu_busy_ns.max(told.gpu_busy_ns),
            oom_kills: known.oom_kills.max(told.oom_kills),
            run_queue_wait_ns: known.run_queue_wait_ns.max(told.run_queue_wait_ns),
        };
    }
}

fn told_total(name: &AppWrapperName, known: &Known) -> seed::Total {
    let Total { cpu_ns, gpu_held_ns, gpu_busy_ns, oom_kills, run_queue_wait_ns } = known.total;
    let (namespace, name, uid) = (name.namespace.to_string(), name.name.to_string(), known.uid.to_string());
    seed::Total { namespace, name, uid, cpu_ns, gpu_held_ns, gpu_busy_ns, oom_kills, run_queue_wait_ns }
}

fn told_pod(node: &Arc<str>, pod: &PodCgroup) -> seed::Pod {
    let [cpu_ns, oom_kills, run_queue_wait_ns] = pod.counted_up_to();
    seed::Pod {
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

fn told_held(node: &Arc<str>, held: &HeldTime) -> seed::Held {
    seed::Held {
        namespace: held.namespace.to_string(),
        pod: held.pod.to_string(),
        container: held.container.to_string(),
        resource: held.resource.to_string(),
        held: held.held_ns.tell(),
        node: node.to_string(),
    }
}

fn name_of<'a>(told: &'a seed::Held, namespace: &'a Arc<str>, pod: &'a Arc<str>) -> HeldName<'a> {
    HeldName { namespace, pod, container: &told.container, resource: &told.resource }
}

fn told_node(name: &Arc<str>, node: &KnownNode) -> Option<seed::Node> {
    let devices = node.devices.iter().map(|device| seed::Device {
        uuid: device.uuid.to_string(),
        busy: device.busy_ns.tell(),
        holders: device
            .holders
            .iter()
            .map(|(pod, parts)| seed::DeviceHolder { pod: pod.to_string(), parts: *parts })
            .collect(),
    });
    Some(seed::Node { name: name.to_string(), life: Some(node.life.as_ref()?.tell()), devices: devices.collect() })
}

impl Life {
    fn tell(&self) -> seed::Life {
        let (boot_id, agent_started_at_ms, uptime_ns) = self.parts();
        seed::Life { boot_id: boot_id.to_string(), agent_started_at_ms, uptime_ns }
    }

    fn told(told: &seed::Life) -> Self {
        Self::from_parts(told.boot_id.as_str().into(), told.agent_started_at_ms, told.uptime_ns)
    }
}

impl Device {
    fn told(told: &seed::Device) -> Self {
        let mut busy_ns = Since::default();
        busy_ns.learn(told.busy.as_ref());
        let mut holders: Vec<_> =
            told.holders.iter().map(|holder| (holder.pod.as_str().into(), holder.parts)).collect();
        holders.sort_unstable();
        Self { uuid: told.uuid.as_str().into(), busy_ns, holders: holders.into() }
    }
}

impl Since {
    fn is_later_than(&self, other: &Self) -> bool {
        let Some((_, ours)) = self.seen() else { return false };
        other.seen().is_none_or(|(_, theirs)| ours.is_later_than(theirs))
    }

    fn tell(&self) -> Option<Counter> {
        let (total_ns, life) = self.seen()?;
        Some(Counter { total_ns, life: Some(life.tell()) })
    }

    fn is_of_another_boot(&self, told: Option<&Counter>) -> bool {
        let told = told.and_then(|told| told.life.as_ref());
        self.seen().zip(told).is_some_and(|((_, known), told)| **known.boot() != *told.boot_id)
    }

    /// Takes what was seen later.
    fn learn(&mut self, told: Option<&Counter>) {
        let Some((total_ns, life)) = told.and_then(|told| Some((told.total_ns, Life::told(told.life.as_ref()?))))
        else {
            return;
        };
        if self.seen().is_none_or(|(_, known)| !known.is_later_than(&life)) {
            *self = Self::of(total_ns, life);
        }
    }
}
