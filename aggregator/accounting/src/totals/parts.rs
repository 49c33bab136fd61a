//! What an agent counted of each device, split into busy and idle by cause: for each container with processes on it, and for a holder
//! without one. Owns what was last seen of these totals, by which it is known how much they grew.
use std::cmp::Ordering;

use mcad_wire::reading::{GpuUse, Report};

use super::life::Life;
use super::since::Growth;
use crate::gpu_use::{Use, Uses};

/// The last totals of one node.
#[derive(Debug, Default)]
pub(super) struct NodeParts {
    /// When they were seen. `None` if no report had any.
    pub(super) life: Option<Life>,
    /// Of devices, sorted by UUID.
    pub(super) vacant: Vec<Vacant>,
    /// Of containers on devices, sorted by device, pod and container.
    pub(super) rows: Vec<Row>,
}

/// A device, for a holder without a process on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vacant {
    pub(super) uuid: Box<str>,
    pub(super) parts: Uses,
}

/// A container on a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) uuid: Box<str>,
    pub(super) pod_uid: Box<str>,
    pub(super) container_id: Box<str>,
    pub(super) parts: Uses,
}

/// How much the totals of a node grew by one report.
#[derive(Debug, Default)]
pub(super) struct PartGains<'r> {
    /// Sorted by device.
    vacant: Vec<(&'r str, Uses)>,
    /// Sorted by device and pod; one for each container.
    rows: Vec<((&'r str, &'r str), Uses)>,
}

impl PartGains<'_> {
    /// Whether the agent splits the time of a device.
    pub(super) fn has(&self, uuid: &str) -> bool {
        let at = self.rows.partition_point(|((of, _), _)| *of < uuid);
        self.vacant(uuid).is_some() || self.rows.get(at).is_some_and(|((of, _), _)| *of == uuid)
    }

    /// The growth for a holder without a process on the device.
    pub(super) fn vacant(&self, uuid: &str) -> Option<&Uses> {
        let at = self.vacant.binary_search_by(|(of, _)| (*of).cmp(uuid)).ok()?;
        Some(&self.vacant[at].1)
    }

    /// The growth of all containers of a pod on the device. `None` if none of them had a process there.
    pub(super) fn of_pod(&self, uuid: &str, pod_uid: &str) -> Option<Uses> {
        let at = self.rows.partition_point(|(of, _)| *of < (uuid, pod_uid));
        let of_pod = self.rows[at..].iter().take_while(|(of, _)| *of == (uuid, pod_uid));
        of_pod.map(|(_, gained)| *gained).reduce(|mut sum, more| {
            sum.add_all(&more);
            sum
        })
    }
}

impl NodeParts {
    /// Takes the totals of a report. If the driver could not be queried, the last known ones remain.
    pub(super) fn take<'r>(&mut self, report: &'r Report<'_>, life: &Life) -> PartGains<'r> {
        let Some(gpus) = &report.gpus else { return PartGains::default() };
        let instances = gpus.devices.iter().flat_map(|gpu| &gpu.mig_instances);
        let devices = gpus.devices.iter().map(|gpu| (gpu.uuid, &gpu.vacant.0, &gpu.uses));
        let devices = devices.chain(instances.map(|of| (of.uuid, &of.vacant.0, &of.uses)));
        let (mut vacant, mut rows) = (Vec::with_capacity(gpus.devices.len()), Vec::new());
        for (uuid, parts, uses) in devices {
            vacant.extend((!parts.is_empty()).then(|| (uuid, Uses::from_report(parts))));
            let in_pods = uses.iter().filter(|of| !of.pod_uid.is_empty() && !of.parts.0.is_empty());
            rows.extend(in_pods.map(|of| (key(uuid, of), Uses::from_report(&of.parts.0))));
        }
        vacant.sort_unstable_by_key(|(uuid, _)| *uuid);
        vacant.dedup_by_key(|(uuid, _)| *uuid);
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows.dedup_by_key(|(key, _)| *key);
        let growth = Growth::between(self.life.as_ref(), life);
        self.life = Some(life.clone());
        let grown = |before: Option<&Uses>, now: &Uses| {
            let mut gained = Uses::default();
            for of in Use::all() {
                gained.add(of, growth.of(before.map_or(0, |before| before.of(of)), now.of(of), 1));
            }
            gained
        };
        let of_devices = update(
            &mut self.vacant,
            &vacant,
            |known, uuid| (*known.uuid).cmp(uuid),
            |uuid, parts| Vacant { uuid: uuid.into(), parts },
            |known| &mut known.parts,
            grown,
        );
        let of_containers = update(
            &mut self.rows,
            &rows,
            |known, key| known.order(*key),
            |(uuid, pod_uid, container_id), parts| Row {
                uuid: uuid.into(),
                pod_uid: pod_uid.into(),
                container_id: container_id.into(),
                parts,
            },
            |known| &mut known.parts,
            grown,
        );
        PartGains {
            vacant: vacant.iter().zip(of_devices).map(|((uuid, _), gained)| (*uuid, gained)).collect(),
            rows: rows.iter().zip(of_containers).map(|(((uuid, pod, _), _), gained)| ((*uuid, *pod), gained)).collect(),
        }
    }
}

impl Row {
    /// How it compares with a key.
    pub(super) fn order(&self, key: (&str, &str, &str)) -> Ordering {
        (&*self.uuid, &*self.pod_uid, &*self.container_id).cmp(&key)
    }
}

fn key<'r>(uuid: &'r str, of: &GpuUse<'r>) -> (&'r str, &'r str, &'r str) {
    (uuid, of.pod_uid, of.container_id)
}

/// Replaces what is known by what a report says; both are sorted. Returns how much each grew.
fn update<T, K: Copy>(
    known: &mut Vec<T>,
    now: &[(K, Uses)],
    order: impl Fn(&T, &K) -> Ordering,
    new: impl Fn(K, Uses) -> T,
    parts: impl Fn(&mut T) -> &mut Uses,
    grown: impl Fn(Option<&Uses>, &Uses) -> Uses,
) -> Vec<Uses> {
    // Nearly always the same ones are there again.
    let is_same = known.len() == now.len() && known.iter().zip(now).all(|(known, (key, _))| order(known, key).is_eq());
    if is_same {
        let of_one = |(known, (_, now)): (&mut T, &(K, Uses))| {
            let before = std::mem::replace(parts(known), *now);
            grown(Some(&before), now)
        };
        return known.iter_mut().zip(now).map(of_one).collect();
    }
    let mut before = std::mem::take(known).into_iter().peekable();
    let mut gained = Vec::with_capacity(now.len());
    known.reserve_exact(now.len());
    for (key, now) in now {
        while before.next_if(|before| order(before, key).is_lt()).is_some() {}
        let same = before.next_if(|before| order(before, key).is_eq());
        let (one, gain) = match same {
            None => (new(*key, *now), grown(None, now)),
            Some(mut same) => {
                let before = std::mem::replace(parts(&mut same), *now);
                (same, grown(Some(&before), now))
            }
        };
        known.push(one);
        gained.push(gain);
    }
    gained
}
