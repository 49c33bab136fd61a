//! Splits the time in which GPUs can be held into busy and idle by cause. Owns the totals: one for each container on each device, and
//! one for each device, for holders without a process on it.
//!
//! The agent does not know which pod has which UID, and kubelet's list has names only. So the time is split by container here, and the
//! aggregator, which knows both, gives it to the holders. `split` has the rules for one interval, `stalls` what cgroups say about it.

mod split;
mod stalls;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use self::split::{Container, Evidence, Interval, Occupied};
use self::stalls::Stalls;
use crate::retention::{KEPT_NS, drop_oldest};
use crate::sample::gpu::{Gpu, GpuSample, GpuUse, GpuUser, Load, Parts, Unhealthy};
use crate::sample::{CgroupSample, Moment};

/// Limit of totals of containers. If there are more, those that ended longest ago are dropped.
const ROWS_AT_MOST: usize = 8192;

/// Splits the time.
#[derive(Debug)]
pub struct GpuTime {
    /// A longer interval is not split.
    longest_ns: u64,
    /// By device and container.
    rows: BTreeMap<(Arc<str>, GpuUser), Row>,
    devices: HashMap<Arc<str>, Device>,
    stalls: Stalls,
}

/// A container on a device.
#[derive(Debug)]
struct Row {
    parts: Parts,
    /// When it last had a process there.
    seen_ns: u64,
}

/// A device or MIG instance.
#[derive(Debug)]
struct Device {
    vacant: Parts,
    /// When it was last listed.
    seen_ns: u64,
    /// Its users at that time. `None` if its processes could not be listed.
    users: Option<HashSet<GpuUser>>,
}

/// What can be held in this sample, a device or a MIG instance, and what happened on it since the last sample.
struct Listed {
    uuid: Arc<str>,
    /// Who has a process on it, as far as its processes could be listed.
    users: HashSet<GpuUser>,
    /// Whether there may be others.
    lists_failed: bool,
    /// `None` if the time since the last sample is not split.
    interval: Option<Interval>,
    /// Who had a process on it at either end of the interval, and how long each kept it busy, if that is known.
    busy: BTreeMap<GpuUser, Option<u64>>,
}

impl GpuTime {
    /// Intervals between samples that are longer than three of these are not split.
    pub fn new(interval: Duration) -> Self {
        let longest_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(3);
        Self { longest_ns, rows: BTreeMap::new(), devices: HashMap::new(), stalls: Stalls::default() }
    }

    /// Adds the time since the last sample to the totals, and writes them into this sample.
    pub fn take(&mut self, at: Moment, gpus: Option<&mut GpuSample>, cgroups: Option<&CgroupSample>) {
        let since_last_ns = gpus.as_ref().and_then(|gpus| gpus.since_last_ns);
        let since_last_ns = since_last_ns.filter(|ns| (1..=self.longest_ns).contains(ns));
        let holdable = gpus.iter().flat_map(|gpus| &gpus.devices).flat_map(holdable);
        let listed: Vec<Listed> = holdable.map(|one| self.listed(&one, since_last_ns)).collect();
        let evidence = self.evidence(at, &listed, cgroups);
        let Some(gpus) = gpus else { return };
        if let Some(ns) = since_last_ns {
            self.add(ns, &listed, &evidence);
        }
        self.note(at.uptime_ns, listed);
        for gpu in &mut gpus.devices {
            let instances = gpu.mig_instances.iter_mut().map(|instance| (&instance.uuid, &mut instance.load));
            // In MIG mode nobody holds the GPU itself.
            let whole = (gpu.mig_mode != Some(true)).then_some((&gpu.uuid, &mut gpu.load));
            for (uuid, load) in instances.chain(whole) {
                self.write(uuid, load);
            }
        }
    }

    /// What this device did since the last sample.
    fn listed(&self, one: &Holdable<'_>, since_last_ns: Option<u64>) -> Listed {
        let users: HashSet<GpuUser> = one.uses().map(|used| used.user.clone()).collect();
        let before = self.devices.get(one.uuid).and_then(|device| device.users.as_ref());
        let interval = since_last_ns.map(|ns| Interval {
            ns,
            busy_ns: one.load.busy_gain_ns,
            is_broken: one.is_broken,
            lists_failed: one.lists_failed || before.is_none(),
        });
        let at_either_end: BTreeSet<&GpuUser> = before.into_iter().flatten().chain(&users).collect();
        let percents: HashMap<&GpuUser, Option<u64>> =
            one.load.uses.iter().map(|used| (&used.user, used.percent)).collect();
        let percents: Vec<_> = at_either_end.iter().map(|user| percents.get(user).copied().flatten()).collect();
        let shares = interval.filter(|interval| !interval.lists_failed);
        let shares = shares.and_then(|interval| split::shares(interval, &percents)).unwrap_or_default();
        let shares = shares.into_iter().map(Some).chain(std::iter::repeat(None));
        let busy = at_either_end.into_iter().cloned().zip(shares).collect();
        Listed { uuid: Arc::clone(one.uuid), users, lists_failed: one.lists_failed, interval, busy }
    }

    /// What cgroups say about all containers that have totals, or will have.
    fn evidence(
        &mut self,
        at: Moment,
        listed: &[Listed],
        cgroups: Option<&CgroupSample>,
    ) -> HashMap<GpuUser, Evidence> {
        let known = self.rows.keys().map(|(_, user)| user);
        let new = listed.iter().flat_map(|device| &device.users).filter(|user| is_container(user));
        self.stalls.take(at.uptime_ns, cgroups, &known.chain(new).collect())
    }

    /// Adds one interval to all totals.
    fn add(&mut self, ns: u64, listed: &[Listed], evidence: &HashMap<GpuUser, Evidence>) {
        let by_uuid: HashMap<&Arc<str>, &Listed> = listed.iter().map(|device| (&device.uuid, device)).collect();
        let of_device = |uuid| {
            let device = by_uuid.get(uuid).copied();
            let gone = Interval { ns, busy_ns: None, is_broken: true, lists_failed: false };
            (device.and_then(|device| device.interval).unwrap_or(gone), device.map(|device| &device.busy))
        };
        let busy_of_pods = busy_of_pods(listed);
        for ((uuid, user), row) in &mut self.rows {
            let (interval, users) = of_device(uuid);
            let others = users.into_iter().flatten().filter(|(other, _)| *other != user);
            let devices_of_pod = busy_of_pods.get(&*user.pod_uid).into_iter().flatten();
            let other_devices = devices_of_pod.filter(|(other, _)| **other != uuid).map(|(_, busy)| *busy);
            let container = Container {
                has_process: users.is_some_and(|users| users.contains_key(user)),
                busy_ns: users.and_then(|users| users.get(user).copied()).flatten(),
                busy_of_others_ns: others.filter_map(|(_, busy)| *busy).fold(0, u64::saturating_add),
                busiest_other_ns: other_devices.max().unwrap_or(0),
                evidence: evidence.get(user).copied(),
            };
            row.parts.add_all(&split::container(interval, container));
        }
        for (uuid, device) in &mut self.devices {
            let (interval, users) = of_device(uuid);
            let occupied = match users.filter(|users| !users.is_empty()) {
                None => Occupied::No,
                Some(users) if users.keys().any(|user| user.unreadable) => Occupied::Unreadable,
                Some(_) => Occupied::Yes,
            };
            device.vacant.add_all(&split::vacant(interval, occupied));
        }
    }

    /// Begins totals of what is new, and drops those of what has been gone for too long.
    fn note(&mut self, now_ns: u64, listed: Vec<Listed>) {
        for device in self.devices.values_mut() {
            device.users = None;
        }
        for Listed { uuid, users, lists_failed, .. } in listed {
            for user in users.iter().filter(|user| is_container(user)) {
                let new = Row { parts: Parts::default(), seen_ns: now_ns };
                self.rows.entry((Arc::clone(&uuid), user.clone())).or_insert(new).seen_ns = now_ns;
            }
            let new = Device { vacant: Parts::default(), seen_ns: now_ns, users: None };
            let device = self.devices.entry(uuid).or_insert(new);
            (device.seen_ns, device.users) = (now_ns, (!lists_failed).then_some(users));
        }
        self.rows.retain(|_, row| now_ns.saturating_sub(row.seen_ns) <= KEPT_NS);
        drop_oldest(&mut self.rows, ROWS_AT_MOST, |row| row.seen_ns);
        self.devices.retain(|_, device| now_ns.saturating_sub(device.seen_ns) <= KEPT_NS);
    }

    /// Writes the totals of a device into a sample.
    fn write(&self, uuid: &Arc<str>, load: &mut Load) {
        load.vacant = self.devices.get(uuid).map(|device| device.vacant);
        for used in &mut load.uses {
            used.parts = self.rows.get(&(Arc::clone(uuid), used.user.clone())).map(|row| row.parts);
        }
    }
}

/// What a pod can hold: a GPU, or in MIG mode its instances.
struct Holdable<'s> {
    uuid: &'s Arc<str>,
    load: &'s Load,
    is_broken: bool,
    lists_failed: bool,
}

impl Holdable<'_> {
    /// Its use by processes that are there now and are no daemons.
    fn uses(&self) -> impl Iterator<Item = &GpuUse> {
        self.load.uses.iter().filter(|used| used.processes > used.daemons)
    }
}

fn holdable(gpu: &Gpu) -> Vec<Holdable<'_>> {
    let lists_failed = gpu.lists_failed;
    let one = |(uuid, load, unhealthy)| {
        let unhealthy: &Vec<Unhealthy> = unhealthy;
        Holdable { uuid, load, is_broken: !unhealthy.is_empty(), lists_failed }
    };
    if gpu.mig_mode != Some(true) {
        return vec![one((&gpu.uuid, &gpu.load, &gpu.unhealthy))];
    }
    gpu.mig_instances.iter().map(|instance| one((&instance.uuid, &instance.load, &instance.unhealthy))).collect()
}

/// A process in a pod, whose container has totals of its own.
fn is_container(user: &GpuUser) -> bool {
    !user.pod_uid.is_empty()
}

/// How long each pod kept each device busy.
fn busy_of_pods(listed: &[Listed]) -> HashMap<&str, HashMap<&Arc<str>, u64>> {
    let mut of_pods: HashMap<&str, HashMap<&Arc<str>, u64>> = HashMap::new();
    for device in listed {
        for (user, busy) in device.busy.iter().filter(|(user, _)| is_container(user)) {
            *of_pods.entry(&user.pod_uid).or_default().entry(&device.uuid).or_default() += busy.unwrap_or(0);
        }
    }
    of_pods
}
