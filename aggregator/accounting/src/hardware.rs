//! What an agent found on a node, as amounts of the resources that kubelet declares (docs/accounting.md §4).
//!
//! Owns how devices become amounts: MIG, replicas, and which devices are lost, expected, unhealthy or held. Does not know reports:
//! [`crate::measure`] fills [`Facts`] from one, borrowing its texts, because this is done for every report.
pub mod shares;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::hardware::shares::{SHARED, Shares, base, labelled_replicas};
use crate::object::Node;
use crate::resource::{NVIDIA_GPU, Resource};

/// The prefix of the resources for MIG instances that device plugins declare with strategy `mixed`.
const MIG_PREFIX: &str = "nvidia.com/mig-";
const MIG_STRATEGY: &str = "nvidia.com/mig.strategy";

/// The hardware behind one resource, in that resource's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// What the machine has, including lost devices.
    pub installed: i128,
    /// The part of `installed` that is gone.
    pub lost: i128,
    /// The part of `installed` that is present but broken.
    pub unhealthy: i128,
    /// The part of `lost` that a pod holds. 0 if unknown.
    pub lost_assigned: i128,
    /// The part of `unhealthy` that a pod holds. 0 if unknown.
    pub unhealthy_assigned: i128,
}

/// What an agent reports about a node. Values that it could not measure are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// CPUs online.
    pub cpus_online: Option<u32>,
    /// `MemTotal`, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// `None` if there is no driver, or if the driver could not be queried.
    pub gpus: Option<Gpus<'a>>,
    /// Ids of devices that bound, unfinished pods hold, by the resource under which kubelet handed them out.
    pub assigned: Option<DeviceIds<'a>>,
    /// Ids of devices that kubelet can hand out, by resource.
    pub advertised: Option<DeviceIds<'a>>,
}

/// Device ids as kubelet lists them, by the name of their resource: a UUID, `UUID::N` for a replica, or `MIG-…`.
pub type DeviceIds<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The extended resources as which the device plugin of a vendor allocates its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceNames<'a> {
    /// A whole GPU.
    pub whole: &'a str,
    /// What the names of parts of a GPU begin with; the rest is the profile of the part.
    pub part_prefix: &'a str,
}

impl Default for ResourceNames<'_> {
    fn default() -> Self {
        Self { whole: NVIDIA_GPU, part_prefix: MIG_PREFIX }
    }
}

impl<'a> ResourceNames<'a> {
    /// The names in a report. A name without a domain cannot be that of an extended resource; NVIDIA's is used in its place.
    pub fn of(whole: &'a str, part_prefix: &'a str) -> Self {
        let or = |name: &'a str, default| if name.contains('/') { name } else { default };
        Self { whole: or(whole, NVIDIA_GPU), part_prefix: or(part_prefix, MIG_PREFIX) }
    }

    /// The resource name that device plugins use: `1g.10gb+me` becomes `nvidia.com/mig-1g.10gb.me`.
    pub(crate) fn part(&self, profile: &str) -> String {
        format!("{}{}", self.part_prefix, profile.replace('+', "."))
    }

    /// Whether it is a resource of whole GPUs, of shares of them, or of parts.
    pub(crate) fn has(&self, resource: &str) -> bool {
        resource.strip_prefix(self.whole).is_some_and(|rest| rest.is_empty() || rest == SHARED)
            || resource.starts_with(self.part_prefix)
    }
}

/// The GPUs of a node with a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus<'a> {
    /// The GPUs that NVML lists.
    pub devices: Vec<Gpu<'a>>,
    /// How many more GPUs the bus shows that the driver should list.
    pub lost: u32,
    /// The largest number of GPUs that the agent remembers.
    pub remembered: Option<u32>,
    /// The resources as which they are allocated.
    pub names: ResourceNames<'a>,
}

impl Gpus<'_> {
    /// How many GPUs NVML does not list although the bus shows them or they are expected. `others` is the number of expected GPUs that NVML
    /// need not list.
    fn lost_on(&self, node: &Node, others: i128) -> i128 {
        let listed = self.devices.len() as i128;
        let there = listed + i128::from(self.lost);
        let expected = node.expected_gpus.or(self.remembered).unwrap_or(0);
        there.max(i128::from(expected) - others) - listed
    }
}

/// One GPU that NVML lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// Whether it works.
    pub health: Health,
    /// Its MIG instances. `None` if the GPU is not in MIG mode.
    pub mig: Option<Vec<Instance<'a>>>,
}

/// One MIG instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// Its profile, for example `1g.10gb`.
    pub profile: &'a str,
    /// Whether the instance itself works, apart from its GPU.
    pub health: Health,
}

/// Whether a device works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// The device works.
    Healthy,
    /// The device should not be used.
    Unhealthy,
}

/// What an agent found on one node, by resource. A resource that is absent was not examined, or could not be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// Each resource once; there are only a few.
    hardware: Vec<(Resource, Hardware)>,
    /// The resources among them whose devices are handed out several times each.
    shares: Vec<(Resource, Shares)>,
    /// The resource under which each device is handed out, sorted by UUID.
    devices: Vec<(&'a str, Resource)>,
    /// The facts it was made from, if a caller needs them later.
    facts: Option<Facts<'a>>,
}

impl<'a> Found<'a> {
    /// The hardware behind a resource.
    pub fn get(&self, resource: &Resource) -> Option<&Hardware> {
        self.hardware.iter().find(|(known, _)| known == resource).map(|(_, hardware)| hardware)
    }

    /// How many shares of how many devices the resource is. `None` if each device is handed out once.
    pub fn shares(&self, resource: &Resource) -> Option<Shares> {
        self.shares.iter().find(|(known, _)| known == resource).map(|(_, shares)| *shares)
    }

    /// Every resource that was found.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.hardware.iter().map(|(resource, _)| resource)
    }

    /// The resource under which the device of this UUID is handed out.
    pub fn resource_of(&self, uuid: &str) -> Option<&Resource> {
        let at = self.devices.binary_search_by(|(known, _)| (*known).cmp(uuid)).ok()?;
        Some(&self.devices[at].1)
    }

    /// What an agent found where there is no kubelet to declare resources. Each resource must be listed once.
    pub(crate) fn alone(hardware: Vec<(Resource, Hardware)>) -> Self {
        Self { hardware, ..Self::default() }
    }

    /// The same as [`Self::new`], and keeps the facts.
    pub fn of(facts: Facts<'a>, node: &Node) -> Self {
        Self::new(&facts, node).with(facts)
    }

    fn with(mut self, facts: Facts<'a>) -> Self {
        self.facts = Some(facts);
        self
    }

    /// The GPUs as NVML lists them. `None` if GPUs were not examined.
    pub fn gpus(&self) -> Option<&Gpus<'a>> {
        self.facts.as_ref()?.gpus.as_ref()
    }

    /// How many GPUs NVML does not list although the bus shows them or they are expected. `others` is the number of expected GPUs that NVML
    /// need not list.
    pub fn lost_beside(&self, node: &Node, others: i128) -> i128 {
        self.gpus().map_or(0, |gpus| gpus.lost_on(node, others))
    }

    /// What was found without the MIG-mode GPUs that are accounted for elsewhere. `None` if there are no such GPUs.
    pub fn beside(&self, node: &Node, is_counted_elsewhere: impl Fn(&str) -> bool) -> Option<Self> {
        let is_elsewhere = |gpu: &Gpu<'_>| gpu.mig.is_some() && is_counted_elsewhere(gpu.uuid);
        // Usually there is no such GPU, and nothing is copied.
        if !self.gpus()?.devices.iter().any(is_elsewhere) {
            return None;
        }
        let mut facts = self.facts.clone()?;
        facts.gpus.as_mut()?.devices.retain(|gpu| !is_elsewhere(gpu));
        Some(Self::of(facts, node))
    }

    /// Converts the facts to amounts of the resources that this node declares.
    pub fn new(facts: &Facts<'a>, node: &Node) -> Self {
        let mut found = Vec::with_capacity(3);
        let (mut devices, mut shares) = (Vec::new(), Vec::new());
        let whole = |installed: i128| Hardware { installed, ..Hardware::default() };
        if let Some(cpus) = facts.cpus_online {
            found.push((Resource::Cpu, whole(i128::from(cpus) * 1_000)));
        }
        if let Some(bytes) = facts.memory_total_bytes {
            found.push((Resource::Memory, whole(bytes.into())));
        }
        if let Some(gpus) = &facts.gpus {
            let on_node = OnNode { node, facts, gpus };
            for (name, pool) in on_node.pools() {
                if let Some((resource, hardware, replicas)) = on_node.hardware(&name, &pool) {
                    if replicas > 1 && hardware.installed > 0 {
                        let of = Shares { shares: hardware.installed, devices: hardware.installed / replicas };
                        shares.push((resource.clone(), of));
                    }
                    devices.extend(pool.devices.iter().map(|(uuid, _)| (*uuid, resource.clone())));
                    found.push((resource, hardware));
                }
            }
        }
        // If a device is in two pools, the last pool counts.
        devices.reverse();
        devices.sort_by_key(|(uuid, _)| *uuid);
        devices.dedup_by(|(later, _), (first, _)| later == first);
        Self { hardware: found, shares, devices, facts: None }
    }
}

/// The GPUs of one node, beside what kubelet reports of them.
struct OnNode<'n, 'a> {
    node: &'n Node,
    facts: &'n Facts<'a>,
    gpus: &'n Gpus<'a>,
}

/// Devices that are handed out under one name.
#[derive(Default)]
struct Pool<'a> {
    /// UUIDs that NVML lists, sorted, each once.
    devices: Vec<(&'a str, Health)>,
    count: Count,
}

impl Pool<'_> {
    fn health_of(&self, uuid: &str) -> Option<Health> {
        let at = self.devices.binary_search_by(|(known, _)| (*known).cmp(uuid)).ok()?;
        Some(self.devices[at].1)
    }
}

/// How missing devices of a pool are known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Count {
    /// Only by kubelet: a MIG instance is missing if kubelet declares more than NVML lists.
    #[default]
    Declared,
    /// By the bus or by expectation: GPUs.
    Expected,
}

impl<'n, 'a> OnNode<'n, 'a> {
    /// The pools, by the name that they would have without sharing.
    fn pools(&self) -> BTreeMap<Cow<'n, str>, Pool<'a>> {
        let mut pools = self.listed();
        for pool in pools.values_mut() {
            // If a UUID is listed twice, the last entry counts.
            pool.devices.reverse();
            pool.devices.sort_by_key(|(uuid, _)| *uuid);
            pool.devices.dedup_by_key(|(uuid, _)| *uuid);
        }
        pools
    }

    fn listed(&self) -> BTreeMap<Cow<'n, str>, Pool<'a>> {
        let names = self.gpus.names;
        let in_mig_mode = self.gpus.devices.iter().any(|gpu| gpu.mig.is_some());
        let single = in_mig_mode && self.is_single();
        let mut pools: BTreeMap<Cow<'n, str>, Pool<'a>> = BTreeMap::new();
        let declared = self.node.capacity.resources().chain(self.node.allocatable.resources());
        for resource in declared.filter(|resource| resource.name().starts_with(names.part_prefix)) {
            pools.entry(base(resource.name()).into()).or_default();
        }
        let gpus = pools.entry(names.whole.into()).or_default();
        gpus.count = if single { Count::Declared } else { Count::Expected };
        for gpu in &self.gpus.devices {
            match &gpu.mig {
                None => pools.entry(names.whole.into()).or_default().devices.push((gpu.uuid, gpu.health)),
                Some(instances) => {
                    for instance in instances {
                        let name = if single { names.whole.into() } else { names.part(instance.profile).into() };
                        // An unhealthy GPU makes its instances unhealthy.
                        let health = instance.health.max(gpu.health);
                        pools.entry(name).or_default().devices.push((instance.uuid, health));
                    }
                }
            }
        }
        pools
    }

    /// Whether the device plugin's strategy is `single`: MIG instances are handed out as GPUs.
    fn is_single(&self) -> bool {
        if let Some(strategy) = self.node.label(MIG_STRATEGY) {
            return strategy == "single";
        }
        let whole = self.gpus.names.whole;
        let advertised = |name: &str| ids(self.facts.advertised.as_ref(), name);
        advertised(whole).chain(advertised(&format!("{whole}{SHARED}"))).any(|id| id.starts_with("MIG-"))
    }

    /// The resource, its hardware, and how many times each device is handed out. `None` if the name is not declared and has no devices.
    fn hardware(&self, name: &str, pool: &Pool<'_>) -> Option<(Resource, Hardware, i128)> {
        let shared = format!("{name}{SHARED}");
        // Kubelet never drops a resource that it once knew; it declares 0 of it. So a declared name alone proves nothing.
        let name = if self.declared(&shared) > 0 { &*shared } else { name };
        let capacity = self.declared(name);
        let replicas = self.replicas(name);
        let listed = pool.devices.len() as i128 * replicas;
        let installed = match pool.count {
            Count::Declared => listed.max(capacity),
            Count::Expected => listed + self.lost_gpus() * replicas,
        };
        let resource = Resource::named(name)?;
        if installed == 0
            && self.node.capacity.get(&resource).is_none()
            && self.node.allocatable.get(&resource).is_none()
        {
            return None;
        }
        let unhealthy =
            pool.devices.iter().filter(|(_, health)| *health == Health::Unhealthy).count() as i128 * replicas;
        let lost = installed - listed;
        // Usually nothing is lost or unhealthy; then the holders are not needed.
        let all_well = lost <= 0 && unhealthy == 0;
        let assigned: BTreeSet<_> = ids(self.facts.assigned.as_ref(), name).filter(|_| !all_well).collect();
        let broken = |id: &&str| pool.health_of(uuid_of(id)) == Some(Health::Unhealthy);
        let unknown = |id: &&str| !self.lists(uuid_of(id));
        let hardware = Hardware {
            installed,
            lost,
            unhealthy,
            lost_assigned: (assigned.iter().filter(|id| unknown(id)).count() as i128).min(lost),
            unhealthy_assigned: (assigned.iter().filter(|id| broken(id)).count() as i128).min(unhealthy),
        };
        Some((resource, hardware, replicas))
    }

    fn lost_gpus(&self) -> i128 {
        self.gpus.lost_on(self.node, 0)
    }

    /// How many times one device is handed out: by kubelet's ids, or else by the label.
    fn replicas(&self, name: &str) -> i128 {
        let mut devices: Vec<&str> = ids(self.facts.advertised.as_ref(), name).map(uuid_of).collect();
        devices.sort_unstable();
        let most = devices.chunk_by(|a, b| a == b).map(|of_one| of_one.len() as i128).max();
        most.or_else(|| labelled_replicas(self.node, base(name))).unwrap_or(1)
    }

    fn declared(&self, name: &str) -> i128 {
        self.node.capacity.named(name).unwrap_or(0)
    }

    fn lists(&self, uuid: &str) -> bool {
        self.gpus
            .devices
            .iter()
            .any(|gpu| gpu.uuid == uuid || gpu.mig.iter().flatten().any(|instance| instance.uuid == uuid))
    }
}

fn ids<'n, 'a>(of: Option<&'n DeviceIds<'a>>, name: &str) -> impl Iterator<Item = &'a str> + use<'n, 'a> {
    of.and_then(|ids| ids.get(name)).into_iter().flatten().copied()
}

/// The UUID of the device behind a replica's id.
pub(crate) fn uuid_of(id: &str) -> &str {
    // Called for every device of every report; to search for one byte takes a fraction of the time that a text search takes.
    match id.find(':') {
        None => id,
        Some(_) => id.split_once("::").map_or(id, |(uuid, _)| uuid),
    }
}
