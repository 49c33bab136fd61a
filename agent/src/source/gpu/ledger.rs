//! Totals over time: how long each device was busy, and how much of that time belongs to each container.
//!
//! A total grows only by time that was observed: from one round to the next. Time while a call hangs is not estimated,
//! so a total is never above the true value. Totals of containers that ended are kept for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reading::{DeviceReading, InstanceReading};
use super::users::Users;
use crate::retention::{KEPT_NS, drop_oldest};
use crate::sample::gpu::{GpuUse, GpuUser};

/// Limit of containers on all devices, including ended ones. If there are more, those that ended longest ago are
/// dropped.
const USES_AT_MOST: usize = 8192;

/// The totals.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By device.
    busy: BTreeMap<Arc<str>, Busy>,
    /// By device or instance, and container.
    uses: BTreeMap<(Arc<str>, GpuUser), Use>,
}

#[derive(Debug, Default)]
struct Busy {
    ns: u64,
    seen_ns: u64,
}

#[derive(Debug, Default)]
struct Use {
    processes: u32,
    daemons: u32,
    memory_bytes: Option<u64>,
    percent: Option<u64>,
    busy_ns: Option<u64>,
    seen_ns: u64,
}

/// The time from the last round to this one. `None` if the last round failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elapsed {
    pub(super) now_ns: u64,
    pub(super) since_last_ns: Option<u64>,
}

impl Ledger {
    /// Begins a round: marks everything as not seen, and drops what has been gone for too long.
    pub(super) fn begin_round(&mut self, now_ns: u64) {
        self.busy.retain(|_, busy| now_ns.saturating_sub(busy.seen_ns) <= KEPT_NS);
        self.uses.retain(|_, entry| {
            (entry.processes, entry.daemons, entry.memory_bytes, entry.percent) = (0, 0, None, None);
            now_ns.saturating_sub(entry.seen_ns) <= KEPT_NS
        });
        drop_oldest(&mut self.uses, USES_AT_MOST, |entry| entry.seen_ns);
    }

    /// Adds this round's share and returns the total. `None` if the device has never reported its utilisation.
    pub(super) fn busy(&mut self, device: &DeviceReading, elapsed: Elapsed) -> Option<u64> {
        let gain = gain(device, elapsed);
        if gain.is_none() && !self.busy.contains_key(&device.uuid) {
            return None;
        }
        let busy = self.busy.entry(Arc::clone(&device.uuid)).or_default();
        busy.ns += gain.unwrap_or(0);
        busy.seen_ns = elapsed.now_ns;
        Some(busy.ns)
    }

    /// Adds this round's processes of a device, or of its instances in MIG mode.
    pub(super) fn processes(&mut self, device: &DeviceReading, users: &mut Users, elapsed: Elapsed) {
        for process in &device.processes {
            let here = if device.mig_mode == Some(true) {
                let of = |instance: &&InstanceReading| {
                    process.gpu_instance.is_some()
                        && instance.gpu_instance == process.gpu_instance
                        && process.compute_instance.is_none_or(|id| instance.compute_instance == Some(id))
                };
                // If the instance is gone by now, so is its process.
                let Some(instance) = device.instances.iter().find(of) else { continue };
                &instance.uuid
            } else {
                &device.uuid
            };
            let Some(found) = users.of(process.pid) else { continue };
            let entry = self.uses.entry((Arc::clone(here), found.user.clone())).or_default();
            // The sum is unknown if one of its terms is.
            let of_others = if entry.processes == 0 { Some(0) } else { entry.memory_bytes };
            entry.memory_bytes =
                of_others.zip(process.memory_bytes).map(|(sum, bytes)| u64::saturating_add(sum, bytes));
            entry.processes += 1;
            entry.daemons += u32::from(found.is_daemon);
            entry.seen_ns = elapsed.now_ns;
            if let Some(ratios) = &device.process_ratios {
                let ratio = ratios.iter().find(|(pid, _)| *pid == process.pid).map_or(0.0, |(_, ratio)| *ratio);
                entry.busy_ns = Some(entry.busy_ns.unwrap_or(0) + share(ratio, elapsed));
            }
        }
        // Also of processes that have ended since the last round.
        for (pid, ratio) in device.process_ratios.iter().flatten() {
            let Some(process) = users.lately(*pid).filter(|process| !process.is_daemon) else { continue };
            let key = (Arc::clone(&device.uuid), process.user.clone());
            if let Some(entry) = self.uses.get_mut(&key) {
                entry.percent = Some(entry.percent.unwrap_or(0) + (ratio * 100.0).round() as u64);
            }
        }
    }

    /// Who uses this device or instance, or did so within the last hour.
    pub(super) fn uses(&self, uuid: &Arc<str>) -> Vec<GpuUse> {
        let first = (Arc::clone(uuid), GpuUser::default());
        let of_device = self.uses.range(first..).take_while(|((device, _), _)| device == uuid);
        let of_device = of_device.map(|((_, user), entry)| GpuUse {
            user: user.clone(),
            processes: entry.processes,
            daemons: entry.daemons,
            memory_used_bytes: entry.memory_bytes,
            busy_ns: entry.busy_ns,
            percent: entry.percent,
            parts: None,
        });
        of_device.collect()
    }
}

/// How long a device was busy in this round. `None` if it does not say.
pub(super) fn gain(device: &DeviceReading, elapsed: Elapsed) -> Option<u64> {
    device.mean_ratio.or(device.utilization_ratio).map(|ratio| share(ratio, elapsed))
}

/// This fraction of the elapsed time, in ns.
fn share(ratio: f64, elapsed: Elapsed) -> u64 {
    // Two rounds are far less than 2^53 ns (104 days) apart, so this is exact enough.
    (elapsed.since_last_ns.unwrap_or(0) as f64 * ratio.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::gpu::reading::ProcessReading;

    const SECOND: u64 = 1_000_000_000;

    fn device(mean: Option<f64>, now: Option<f64>, pids: &[u32]) -> DeviceReading {
        let process =
            |pid: &u32| ProcessReading { pid: *pid, memory_bytes: Some(5), gpu_instance: None, compute_instance: None };
        DeviceReading {
            utilization_ratio: now,
            mean_ratio: mean,
            processes: pids.iter().map(process).collect(),
            ..DeviceReading::of(&"g".into(), &"m".into(), &"b".into())
        }
    }

    fn after(now: u64, since_last: Option<u64>) -> Elapsed {
        Elapsed { now_ns: now * SECOND, since_last_ns: since_last.map(|seconds| seconds * SECOND) }
    }

    #[test]
    fn busy_time_is_the_mean_over_time_that_was_seen() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.busy(&device(None, None, &[]), after(0, None)), None);
        assert_eq!(ledger.busy(&device(Some(1.0), Some(1.0), &[]), after(10, None)), Some(0));
        assert_eq!(ledger.busy(&device(Some(0.25), Some(1.0), &[]), after(20, Some(10))), Some(2_500_000_000));
        // Without samples, the last period counts for the whole time.
        assert_eq!(ledger.busy(&device(None, Some(0.5), &[]), after(30, Some(10))), Some(7_500_000_000));
        // After a failed round, the time in between is not counted.
        assert_eq!(ledger.busy(&device(Some(1.0), Some(1.0), &[]), after(90, None)), Some(7_500_000_000));
        // A device that reports no utilisation now keeps its total.
        assert_eq!(ledger.busy(&device(None, None, &[]), after(100, Some(10))), Some(7_500_000_000));
    }

    #[test]
    fn processes_of_one_container_add_up_and_stay_an_hour_after_their_end() {
        let mut ledger = Ledger::default();
        let mut users = Users::new(Path::new("/nonexistent"), &[]);
        let mut two = device(None, None, &[1, 2]);
        two.process_ratios = Some(vec![(1, 0.5), (2, 0.25), (9, 1.0)]);
        ledger.processes(&two, &mut users, after(10, Some(10)));
        let expected = GpuUse {
            user: GpuUser { unreadable: true, ..GpuUser::default() },
            processes: 2,
            daemons: 0,
            memory_used_bytes: Some(10),
            busy_ns: Some(7_500_000_000),
            percent: Some(75),
            parts: None,
        };
        assert_eq!(ledger.uses(&two.uuid), std::slice::from_ref(&expected));
        ledger.begin_round(3610 * SECOND);
        assert_eq!(
            ledger.uses(&two.uuid),
            [GpuUse { processes: 0, memory_used_bytes: None, percent: None, ..expected }]
        );
        ledger.begin_round(3611 * SECOND);
        assert_eq!(ledger.uses(&two.uuid), []);
        assert_eq!(ledger.uses(&"other".into()), []);
    }

    #[test]
    fn memory_that_is_unknown_of_one_process_is_unknown_of_its_container() {
        for unknown in 0..3 {
            let mut ledger = Ledger::default();
            let mut users = Users::new(Path::new("/nonexistent"), &[]);
            let mut three = device(None, None, &[1, 2, 3]);
            three.processes[unknown].memory_bytes = None;
            ledger.processes(&three, &mut users, after(10, None));
            assert_eq!(ledger.uses(&three.uuid)[0].memory_used_bytes, None);
        }
    }

    #[test]
    fn of_more_uses_than_are_kept_those_that_ended_first_are_dropped() {
        let mut ledger = Ledger::default();
        let user = |at: usize| GpuUser { container_id: format!("{at:05}"), ..GpuUser::default() };
        for at in 0..=USES_AT_MOST {
            // Those with the highest names ended first.
            let seen_ns = (USES_AT_MOST - at) as u64;
            ledger.uses.insert(("g".into(), user(at)), Use { seen_ns, ..Use::default() });
        }
        ledger.begin_round(SECOND);
        assert_eq!(ledger.uses.len(), USES_AT_MOST);
        assert_eq!(ledger.uses.last_key_value().map(|((_, last), _)| last), Some(&user(USES_AT_MOST - 1)));
        ledger.begin_round(SECOND);
        assert_eq!(ledger.uses.len(), USES_AT_MOST, "as many as may be stay");
    }

    #[test]
    fn in_mig_mode_a_process_is_on_its_instance_and_on_no_other() {
        let mut ledger = Ledger::default();
        let mut users = Users::new(Path::new("/nonexistent"), &[]);
        let mut parent = device(None, None, &[1, 2]);
        parent.mig_mode = Some(true);
        let instance = |uuid: &str, gpu_instance| InstanceReading {
            uuid: uuid.into(),
            profile: "1g.10gb".into(),
            gpu_instance: Some(gpu_instance),
            compute_instance: Some(0),
            memory: None,
        };
        parent.instances = vec![instance("m7", 7), instance("m8", 8)];
        parent.processes[1].gpu_instance = Some(8);
        ledger.processes(&parent, &mut users, after(10, Some(10)));
        let counts = ["g", "m7", "m8"].map(|uuid| ledger.uses(&uuid.into()).len());
        assert_eq!(counts, [0, 0, 1]);
        assert_eq!(ledger.uses(&"m8".into())[0].busy_ns, None);
    }
}
