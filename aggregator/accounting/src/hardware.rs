//! What an agent found on a node, as amounts of the resources that kubelet declares (docs/accounting.md §4).
//!
//! Owns the way from devices to amounts: MIG, replicas, what is lost, expected, broken, and in whose hands. Knows no
//! report; [`crate::measure`] fills [`Facts`] from one, with texts that stay where they are: this is done for every report.
pub mod shares;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::hardware::shares::{SHARED, Shares, base, labelled_replicas};
use crate::object::Node;
use crate::resource::{NVIDIA_GPU, Resource};

/// Device plugins' resources for MIG instances begin so, with strategy `mixed`.
pub(crate) const MIG_PREFIX: &str = "nvidia.com/mig-";
const MIG_STRATEGY: &str = "nvidia.com/mig.strategy";

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

/// What an agent says about a node. What it could not measure is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Processors online.
    pub cpus_online: Option<u32>,
    /// MemTotal.
    pub memory_total_bytes: Option<u64>,
    /// Absent: no driver, or it could not be asked.
    pub gpus: Option<Gpus<'a>>,
    /// Ids of devices in the hands of bound, unfinished pods, by the resource kubelet gave them as.
    pub assigned: Option<DeviceIds<'a>>,
    /// Ids of devices that kubelet could hand out, by resource.
    pub advertised: Option<DeviceIds<'a>>,
}

/// Ids as kubelet knows them, by the name of their resource: a UUID, `UUID::N` for a replica, `MIG-…`.
pub type DeviceIds<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The GPUs of a node with a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus<'a> {
    /// Those that NVML lists.
    pub devices: Vec<Gpu<'a>>,
    /// How many more the bus shows that the driver should hold.
    pub lost: u32,
    /// The most that the agent remembers.
    pub remembered: Option<u32>,
}

/// One GPU that NVML lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// Whether it works.
    pub health: Health,
    /// Its MIG instances. Absent: it is not in MIG mode.
    pub mig: Option<Vec<Instance<'a>>>,
}

/// One MIG instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// Its profile, as `1g.10gb`.
    pub profile: &'a str,
    /// Whether it works itself.
    pub health: Health,
}

/// Whether a device works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It does.
    Healthy,
    /// It should not be used.
    Unhealthy,
}

/// What an agent found on one node, by resource. A resource that is not there was not looked for, or could not be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// Each resource once: they are few.
    hardware: Vec<(Resource, Hardware)>,
    /// Those of them that are handed out several times each.
    shares: Vec<(Resource, Shares)>,
    /// What each device is handed out as, in order of UUID.
    devices: Vec<(&'a str, Resource)>,
}

impl<'a> Found<'a> {
    /// The hardware behind a resource.
    pub fn get(&self, resource: &Resource) -> Option<&Hardware> {
        self.hardware.iter().find(|(known, _)| known == resource).map(|(_, hardware)| hardware)
    }

    /// What it is shares of. Absent: each device is handed out once.
    pub fn shares(&self, resource: &Resource) -> Option<Shares> {
        self.shares.iter().find(|(known, _)| known == resource).map(|(_, shares)| *shares)
    }

    /// Every resource that was found.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.hardware.iter().map(|(resource, _)| resource)
    }

    /// What a device of this UUID is handed out as.
    pub fn resource_of(&self, uuid: &str) -> Option<&Resource> {
        let at = self.devices.binary_search_by(|(known, _)| (*known).cmp(uuid)).ok()?;
        Some(&self.devices[at].1)
    }

    /// What the facts come to on this node, under the names that it declares.
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
        // One that is in two pools is what the last of them says.
        devices.reverse();
        devices.sort_by_key(|(uuid, _)| *uuid);
        devices.dedup_by(|(later, _), (first, _)| later == first);
        Self { hardware: found, shares, devices }
    }
}

/// The GPUs of one node beside what kubelet says of them.
struct OnNode<'n, 'a> {
    node: &'n Node,
    facts: &'n Facts<'a>,
    gpus: &'n Gpus<'a>,
}

/// Devices that are handed out under one name.
#[derive(Default)]
struct Pool<'a> {
    /// UUIDs that NVML lists, each once, in order.
    devices: Vec<(&'a str, Health)>,
    count: Count,
}

impl Pool<'_> {
    fn health_of(&self, uuid: &str) -> Option<Health> {
        let at = self.devices.binary_search_by(|(known, _)| (*known).cmp(uuid)).ok()?;
        Some(self.devices[at].1)
    }
}

/// How the devices of a pool that are not there are known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Count {
    /// MIG instances are known to be missing only by kubelet's word.
    #[default]
    Declared,
    /// GPUs are found on the bus, or expected.
    Expected,
}

impl<'n, 'a> OnNode<'n, 'a> {
    /// The pools by the name they would have without sharing.
    fn pools(&self) -> BTreeMap<Cow<'n, str>, Pool<'a>> {
        let mut pools = self.listed();
        for pool in pools.values_mut() {
            // Of one that is listed twice the last one counts.
            pool.devices.reverse();
            pool.devices.sort_by_key(|(uuid, _)| *uuid);
            pool.devices.dedup_by_key(|(uuid, _)| *uuid);
        }
        pools
    }

    fn listed(&self) -> BTreeMap<Cow<'n, str>, Pool<'a>> {
        let in_mig_mode = self.gpus.devices.iter().any(|gpu| gpu.mig.is_some());
        let single = in_mig_mode && self.is_single();
        let mut pools: BTreeMap<Cow<'n, str>, Pool<'a>> = BTreeMap::new();
        let declared = self.node.capacity.resources().chain(self.node.allocatable.resources());
        for resource in declared.filter(|resource| resource.name().starts_with(MIG_PREFIX)) {
            pools.entry(base(resource.name()).into()).or_default();
        }
        let gpus = pools.entry(NVIDIA_GPU.into()).or_default();
        gpus.count = if single { Count::Declared } else { Count::Expected };
        for gpu in &self.gpus.devices {
            match &gpu.mig {
                None => pools.entry(NVIDIA_GPU.into()).or_default().devices.push((gpu.uuid, gpu.health)),
                Some(instances) => {
                    for instance in instances {
                        let name = if single { NVIDIA_GPU.into() } else { mig_resource(instance.profile).into() };
                        // A sick parent makes its instances so.
                        let health = instance.health.max(gpu.health);
                        pools.entry(name).or_default().devices.push((instance.uuid, health));
                    }
                }
            }
        }
        pools
    }

    /// The device plugin's strategy is `single`: MIG instances are handed out as GPUs.
    fn is_single(&self) -> bool {
        match self.node.label(MIG_STRATEGY) {
            Some(strategy) => strategy == "single",
            None => [NVIDIA_GPU, "nvidia.com/gpu.shared"]
                .into_iter()
                .flat_map(|name| ids(self.facts.advertised.as_ref(), name))
                .any(|id| id.starts_with("MIG-")),
        }
    }

    /// The resource, what is behind it, and how often each device is handed out. Nothing where the name is neither declared nor
    /// has devices.
    fn hardware(&self, name: &str, pool: &Pool<'_>) -> Option<(Resource, Hardware, i128)> {
        let shared = format!("{name}{SHARED}");
        // Kubelet keeps a name it once knew, at 0, for ever; so being declared alone says nothing.
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
        // Mostly nothing is missing, and then nobody asks in whose hands.
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

    /// GPUs that NVML does not list and the bus shows, or that are expected.
    fn lost_gpus(&self) -> i128 {
        let listed = self.gpus.devices.len() as i128;
        let there = listed + i128::from(self.gpus.lost);
        let expected = self.node.expected_gpus.or(self.gpus.remembered).unwrap_or(0);
        there.max(expected.into()) - listed
    }

    /// How often one device is handed out: as kubelet's ids show, else as the label says.
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

/// As the device plugin names it: `1g.10gb+me` is `nvidia.com/mig-1g.10gb.me`.
fn mig_resource(profile: &str) -> String {
    format!("{MIG_PREFIX}{}", profile.replace('+', "."))
}

/// The device that a replica is of.
pub(crate) fn uuid_of(id: &str) -> &str {
    // Asked for every device of every report; to search for one byte costs a fraction of what a text costs.
    match id.find(':') {
        None => id,
        Some(_) => id.split_once("::").map_or(id, |(uuid, _)| uuid),
    }
}
