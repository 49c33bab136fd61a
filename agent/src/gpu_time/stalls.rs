//! What the cgroups of containers with processes on GPUs say about the time between two samples. Owns the totals of the sample before.

use std::collections::{HashMap, HashSet};

use super::split::Evidence;
use crate::pod_cgroup::{self, PodCgroup};
use crate::sample::gpu::GpuUser;
use crate::sample::{Cgroup, CgroupSample};

/// The kernel adds stalls that end later than 2 s after they began, so a total is at most this old.
const PRESSURE_AGE_NS: u64 = 2_000_000_000;

/// The totals of containers' cgroups in the last sample.
#[derive(Debug, Default)]
pub(super) struct Stalls(HashMap<GpuUser, Known>);

/// What the last sample said about a container's cgroup.
#[derive(Clone, Copy, Debug)]
struct Known {
    at_ns: u64,
    id: u64,
    cpu_ns: Option<u64>,
    /// Stall time of all tasks, by resource. `None` if one of them is not known.
    full_ns: Option<Full<u64>>,
    /// Time that is in the totals and was not used as evidence yet.
    carry_ns: Full<u64>,
    /// Throttled time of the cgroup, and of its pod's, with their ids.
    throttled: [Option<(u64, u64)>; 2],
}

/// A value for each resource whose stalls are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Full<T> {
    memory: T,
    io: T,
    cpu: T,
}

impl Full<u64> {
    fn of(cgroup: &Cgroup) -> Option<Self> {
        let pressure = cgroup.pressure?;
        Some(Self { memory: pressure.memory.full_ns?, io: pressure.io.full_ns?, cpu: pressure.cpu.full_ns? })
    }
}

/// The cgroup of a container and that of its pod.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    own: Option<&'a Cgroup>,
    pod: Option<&'a Cgroup>,
}

impl Stalls {
    /// Takes this sample's cgroups, and returns what they say about the time since the last sample, for each of these users of whom
    /// everything that is needed is known.
    pub(super) fn take(
        &mut self,
        at_ns: u64,
        cgroups: Option<&CgroupSample>,
        users: &HashSet<&GpuUser>,
    ) -> HashMap<GpuUser, Evidence> {
        let found = cgroups.map(|cgroups| find(cgroups, users)).unwrap_or_default();
        let mut evidence = HashMap::new();
        let mut known = HashMap::with_capacity(found.len());
        for (user, found) in found {
            // The process of a user in no container is in the pod's own cgroup, or below it.
            let Some(own) = (if user.container_id.is_empty() { found.pod } else { found.own }) else { continue };
            let pod = found.pod.filter(|_| !user.container_id.is_empty());
            let mut now = Known::of(at_ns, own, pod);
            if let Some(seen) = self.0.get(user).and_then(|before| now.since(before)) {
                evidence.insert(user.clone(), seen);
            }
            known.insert(user.clone(), now);
        }
        self.0 = known;
        evidence
    }
}

/// The cgroups of these users.
fn find<'s, 'u>(cgroups: &'s CgroupSample, users: &HashSet<&'u GpuUser>) -> HashMap<&'u GpuUser, Found<'s>> {
    let mut of_pods: HashMap<&str, Vec<&'u GpuUser>> = HashMap::new();
    for user in users {
        of_pods.entry(&user.pod_uid).or_default().push(user);
    }
    let mut found: HashMap<&'u GpuUser, Found<'s>> = HashMap::new();
    if of_pods.is_empty() {
        return found;
    }
    for cgroup in &cgroups.cgroups {
        let Some(place) = pod_cgroup::parse(&cgroup.path) else { continue };
        let users = of_pods.get(place.uid().as_str()).into_iter().flatten();
        match place {
            PodCgroup::Pod { .. } => users.for_each(|user| found.entry(user).or_default().pod = Some(cgroup)),
            PodCgroup::Container { id, .. } => users
                .filter(|user| user.container_id == id)
                .for_each(|user| found.entry(user).or_default().own = Some(cgroup)),
            PodCgroup::InContainer { .. } | PodCgroup::Beside { .. } => {}
        }
    }
    found
}

impl Known {
    fn of(at_ns: u64, own: &Cgroup, pod: Option<&Cgroup>) -> Self {
        let throttled = |cgroup: &Cgroup| Some((cgroup.id, cgroup.throttling?.throttled_ns));
        Self {
            at_ns,
            id: own.id,
            cpu_ns: own.cpu_ns,
            full_ns: Full::of(own),
            carry_ns: Full::default(),
            throttled: [throttled(own), pod.and_then(throttled)],
        }
    }

    /// The evidence since an earlier sample. Also takes over the time that was not used as evidence then.
    fn since(&mut self, before: &Self) -> Option<Evidence> {
        if self.id != before.id {
            return None;
        }
        let elapsed_ns = self.at_ns.checked_sub(before.at_ns)?;
        let (now, then) = (self.full_ns?, before.full_ns?);
        let stalled = |now: u64, then: u64, carry: u64, kept: &mut u64| {
            let total = now.checked_sub(then)?.saturating_add(carry);
            let used = total.min(elapsed_ns);
            *kept = (total - used).min(PRESSURE_AGE_NS);
            Some(used)
        };
        let (carry, kept) = (before.carry_ns, &mut self.carry_ns);
        let throttled = self.throttled.iter().zip(before.throttled).filter_map(|(now, then)| {
            let ((id, now), (same, then)) = ((*now)?, then?);
            now.checked_sub(then).filter(|_| id == same)
        });
        Some(Evidence {
            memory_full_ns: stalled(now.memory, then.memory, carry.memory, &mut kept.memory)?,
            io_full_ns: stalled(now.io, then.io, carry.io, &mut kept.io)?,
            cpu_full_ns: stalled(now.cpu, then.cpu, carry.cpu, &mut kept.cpu)?,
            throttled_ns: throttled.fold(0, u64::saturating_add),
            cpu_ns: self.cpu_ns?.checked_sub(before.cpu_ns?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{CgroupSource, Pressure, Stall, Throttling};

    const SECOND: u64 = 1_000_000_000;
    const UID: &str = "0b0a3c6e-1111-4222-8333-444455556666";

    fn user() -> GpuUser {
        GpuUser { pod_uid: UID.to_owned(), container_id: "a".repeat(64), unreadable: false }
    }

    /// The pod's cgroup and the container's, whose memory, io and CPU stalls are these in seconds.
    fn sample(id: u64, full: [u64; 3], throttled: [u64; 2], cpu: u64) -> CgroupSample {
        let pod = format!("/kubepods/burstable/pod{UID}");
        let stall = |seconds: u64| Stall { some_ns: seconds * SECOND, full_ns: Some(seconds * SECOND) };
        let throttling = |seconds: u64| Throttling { throttled_ns: seconds * SECOND, ..Throttling::default() };
        let container = Cgroup {
            id,
            path: format!("{pod}/{}", "a".repeat(64)).into(),
            cpu_ns: Some(cpu * SECOND),
            pressure: Some(Pressure { memory: stall(full[0]), io: stall(full[1]), cpu: stall(full[2]) }),
            throttling: Some(throttling(throttled[0])),
            ..Cgroup::default()
        };
        let pod = Cgroup { id: 1, path: pod.into(), throttling: Some(throttling(throttled[1])), ..Cgroup::default() };
        CgroupSample {
            source: CgroupSource::Bpf,
            cgroups: vec![pod, container],
            from_files: Vec::new(),
            probes: None,
            seen: 2,
            dropped: 0,
            removals: None,
        }
    }

    fn take(stalls: &mut Stalls, second: u64, sample: Option<&CgroupSample>) -> Option<Evidence> {
        stalls.take(second * SECOND, sample, &HashSet::from([&user()])).remove(&user())
    }

    #[test]
    fn stalls_are_those_since_the_last_sample_and_throttled_time_is_that_of_the_pod_too() {
        let mut stalls = Stalls::default();
        assert_eq!(take(&mut stalls, 10, Some(&sample(7, [1, 2, 3], [4, 5], 6))), None);
        let seen = take(&mut stalls, 20, Some(&sample(7, [2, 4, 6], [8, 6], 11)));
        let expected = Evidence {
            memory_full_ns: SECOND,
            io_full_ns: 2 * SECOND,
            cpu_full_ns: 3 * SECOND,
            throttled_ns: 5 * SECOND,
            cpu_ns: 5 * SECOND,
        };
        assert_eq!(seen, Some(expected));
    }

    #[test]
    fn what_comes_late_counts_in_the_next_interval_up_to_two_seconds() {
        let mut stalls = Stalls::default();
        let io = |stalls: &mut Stalls, second, io| {
            take(stalls, second, Some(&sample(7, [0, io, 0], [0, 0], 0))).map(|seen| seen.io_full_ns / SECOND)
        };
        assert_eq!(io(&mut stalls, 10, 0), None);
        assert_eq!(io(&mut stalls, 20, 12), Some(10));
        assert_eq!(io(&mut stalls, 30, 15), Some(5), "3 s, and 2 s from before");
        assert_eq!(io(&mut stalls, 40, 115), Some(10));
        assert_eq!(io(&mut stalls, 50, 115), Some(2), "no more than 2 s late");
        // Without the cgroup in between, nothing is left over.
        assert_eq!(io(&mut stalls, 60, 215), Some(10));
        assert_eq!(take(&mut stalls, 70, None), None);
        assert_eq!(io(&mut stalls, 80, 215), None);
        assert_eq!(io(&mut stalls, 90, 215), Some(0));
    }

    #[test]
    fn without_one_of_the_values_there_is_no_evidence() {
        let without: [fn(&mut Cgroup); 4] = [
            |cgroup| cgroup.cpu_ns = None,
            |cgroup| cgroup.pressure = None,
            // Before Linux 5.13.
            |cgroup| cgroup.pressure.as_mut().unwrap().cpu.full_ns = None,
            |cgroup| cgroup.id = 8,
        ];
        for remove in without {
            let mut stalls = Stalls::default();
            take(&mut stalls, 10, Some(&sample(7, [0; 3], [0; 2], 0)));
            let mut later = sample(7, [1; 3], [0; 2], 1);
            remove(&mut later.cgroups[1]);
            assert_eq!(take(&mut stalls, 20, Some(&later)), None, "{later:?}");
        }
        // Throttled time that is not known is 0.
        let mut stalls = Stalls::default();
        take(&mut stalls, 10, Some(&sample(7, [0; 3], [0; 2], 0)));
        let mut later = sample(7, [1; 3], [9; 2], 1);
        later.cgroups.iter_mut().for_each(|cgroup| cgroup.throttling = None);
        assert_eq!(take(&mut stalls, 20, Some(&later)).map(|seen| seen.throttled_ns), Some(0));
    }

    #[test]
    fn a_process_in_no_container_is_judged_by_the_pods_cgroup() {
        let user = GpuUser { container_id: String::new(), ..user() };
        let take = |stalls: &mut Stalls, second: u64, sample: &mut CgroupSample| {
            // The pod's cgroup with the container's values.
            let path = std::mem::take(&mut sample.cgroups[0].path);
            sample.cgroups[0] = Cgroup { path, ..sample.cgroups[1].clone() };
            stalls.take(second * SECOND, Some(sample), &HashSet::from([&user])).remove(&user)
        };
        let mut stalls = Stalls::default();
        take(&mut stalls, 10, &mut sample(7, [0; 3], [0; 2], 0));
        let seen = take(&mut stalls, 20, &mut sample(7, [1; 3], [3, 0], 1));
        assert_eq!(seen.map(|seen| (seen.io_full_ns / SECOND, seen.throttled_ns / SECOND)), Some((1, 3)));
    }
}
