//! Totals over time: how long each device was busy, and how much of that each container had of it.
//!
//! A total grows only over time that was seen: from one round to the next. What happened while a call hung is not made
//! up, so a total is never above the truth. Totals of containers that ended stay for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reading::{DeviceReading, InstanceReading};
use super::users::Users;
use crate::sample::gpu::{GpuUse, GpuUser};

/// How long totals of what is gone are kept, so that an aggregator that was away has them.
const KEPT_NS: u64 = 3600 * 1_000_000_000;

/// Containers on all devices, ended ones included. Beyond, those that ended longest ago are dropped.
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
    memory_bytes: Option<u64>,
    busy_ns: Option<u64>,
    seen_ns: u64,
}

/// The time from the last round to this one; none if the last one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elapsed {
    pub(super) now_ns: u64,
    pub(super) since_last_ns: Option<u64>,
}

impl Ledger {
    /// Begins a round: nobody is seen yet, and who was gone for long is dropped.
    pub(super) fn begin_round(&mut self, now_ns: u64) {
        self.busy.retain(|_, busy| now_ns.saturating_sub(busy.seen_ns) <= KEPT_NS);
        self.uses.retain(|_, entry| {
            (entry.processes, entry.memory_bytes) = (0, None);
            now_ns.saturating_sub(entry.seen_ns) <= KEPT_NS
        });
        while self.uses.len() > USES_AT_MOST {
            let oldest = self.uses.iter().min_by_key(|(_, entry)| entry.seen_ns).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.uses.remove(&oldest);
        }
    }

    /// Adds this round's share, and tells the total. Absent: the device has never told its utilisation.
    pub(super) fn busy(&mut self, device: &DeviceReading, elapsed: Elapsed) -> Option<u64> {
        let ratio = device.mean_ratio.or(device.utilization_ratio);
        if ratio.is_none() && !self.busy.contains_key(&device.uuid) {
            return None;
        }
        let busy = self.busy.entry(Arc::clone(&device.uuid)).or_default();
        busy.ns += share(ratio.unwrap_or(0.0), elapsed);
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
                // A process in an instance that is gone by now is gone, too.
                let Some(instance) = device.instances.iter().find(of) else { continue };
                &instance.uuid
            } else {
                &device.uuid
            };
            let key = (Arc::clone(here), users.of(process.pid).clone());
            let entry = self.uses.entry(key).or_default();
            entry.processes += 1;
            entry.seen_ns = elapsed.now_ns;
            if let Some(bytes) = process.memory_bytes {
                entry.memory_bytes = Some(entry.memory_bytes.unwrap_or(0).saturating_add(bytes));
            }
            if let Some(ratios) = &device.process_ratios {
                let ratio = ratios.iter().find(|(pid, _)| *pid == process.pid).map_or(0.0, |(_, ratio)| *ratio);
                entry.busy_ns = Some(entry.busy_ns.unwrap_or(0) + share(ratio, elapsed));
            }
        }
    }

    /// Who uses this device or instance, or did within the last hour.
    pub(super) fn uses(&self, uuid: &Arc<str>) -> Vec<GpuUse> {
        let first = (Arc::clone(uuid), GpuUser::default());
        let of_device = self.uses.range(first..).take_while(|((device, _), _)| device == uuid);
        let of_device = of_device.map(|((_, user), entry)| GpuUse {
            user: user.clone(),
            processes: entry.processes,
            memory_used_bytes: entry.memory_bytes,
            busy_ns: entry.busy_ns,
        });
        of_device.collect()
    }
}

/// That part of the time, in ns.
fn share(ratio: f64, elapsed: Elapsed) -> u64 {
    // Far below 2^53 ns (104 days) between two rounds: exact enough.
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
        // Without samples the last period stands for all of it.
        assert_eq!(ledger.busy(&device(None, Some(0.5), &[]), after(30, Some(10))), Some(7_500_000_000));
        // A round that failed before this one leaves a hole.
        assert_eq!(ledger.busy(&device(Some(1.0), Some(1.0), &[]), after(90, None)), Some(7_500_000_000));
        // A device that does not tell now keeps what it had.
        assert_eq!(ledger.busy(&device(None, None, &[]), after(100, Some(10))), Some(7_500_000_000));
    }

    #[test]
    fn processes_of_one_container_add_up_and_stay_an_hour_after_their_end() {
        let mut ledger = Ledger::default();
        let mut users = Users::new(Path::new("/nonexistent"));
        let mut two = device(None, None, &[1, 2]);
        two.process_ratios = Some(vec![(1, 0.5), (2, 0.25), (9, 1.0)]);
        ledger.processes(&two, &mut users, after(10, Some(10)));
        let expected = GpuUse {
            user: GpuUser::default(),
            processes: 2,
            memory_used_bytes: Some(10),
            busy_ns: Some(7_500_000_000),
        };
        assert_eq!(ledger.uses(&two.uuid), std::slice::from_ref(&expected));
        ledger.begin_round(3610 * SECOND);
        assert_eq!(ledger.uses(&two.uuid), [GpuUse { processes: 0, memory_used_bytes: None, ..expected }]);
        ledger.begin_round(3611 * SECOND);
        assert_eq!(ledger.uses(&two.uuid), []);
        assert_eq!(ledger.uses(&"other".into()), []);
    }

    #[test]
    fn of_more_uses_than_are_kept_those_that_ended_first_are_dropped() {
        let mut ledger = Ledger::default();
        let user = |at: usize| GpuUser { container_id: format!("{at:05}"), ..GpuUser::default() };
        for at in 0..=USES_AT_MOST {
            // Those of the highest names ended first.
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
        let mut users = Users::new(Path::new("/nonexistent"));
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
