//! Splits one interval of one device into busy and idle by cause. Pure.
//!
//! The rules are those of docs/report.md, *Parts*. Each cause is the most that the evidence allows: which part of a stall fell into which
//! part of the idle time is not known. The parts always add up to the interval.

use crate::sample::gpu::{Part, Parts};

/// One interval of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// Its length.
    pub(super) ns: u64,
    /// How long the device was busy. `None` if it does not say, as MIG instances.
    pub(super) busy_ns: Option<u64>,
    /// Whether the device was unhealthy at the end, or not listed any more.
    pub(super) is_broken: bool,
    /// Whether its processes could not be listed, at the beginning or at the end.
    pub(super) lists_failed: bool,
}

/// What a container did in the interval, for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// Whether it had a process on the device, at the beginning or at the end.
    pub(super) has_process: bool,
    /// How long it kept the device busy. `None` if not known.
    pub(super) busy_ns: Option<u64>,
    /// How long others kept the device busy.
    pub(super) busy_of_others_ns: u64,
    /// How long the pod kept the busiest of its other devices busy.
    pub(super) busiest_other_ns: u64,
    /// What its cgroup says. `None` if anything of it is not known.
    pub(super) evidence: Option<Evidence>,
}

/// What the cgroup of a container says about an interval. None of it is longer than the interval, except CPU time and throttled time,
/// which are sums over tasks and CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit is the last word of each name")]
pub(super) struct Evidence {
    /// All tasks waited for memory.
    pub(super) memory_full_ns: u64,
    /// All tasks waited for I/O.
    pub(super) io_full_ns: u64,
    /// All tasks waited for a CPU.
    pub(super) cpu_full_ns: u64,
    /// Its CPU limit stopped tasks.
    pub(super) throttled_ns: u64,
    /// CPU time.
    pub(super) cpu_ns: u64,
}

/// Divides the busy time of a device among its users, by the newest utilisation of their processes in percent. The rounded shares are
/// never more than the whole.
pub(super) fn shares(interval: Interval, percents: &[Option<u64>]) -> Option<Vec<u64>> {
    let busy = interval.busy_ns?.min(interval.ns);
    if let [_] = percents {
        return Some(vec![busy]);
    }
    let sum: u128 = percents.iter().flatten().map(|percent| u128::from(*percent)).sum();
    let equal = busy / (percents.len().max(1) as u64);
    let share = |percent: &Option<u64>| match sum {
        0 => equal,
        // At most `busy`, so it fits.
        _ => (u128::from(busy) * u128::from(percent.unwrap_or(0)) / sum) as u64,
    };
    Some(percents.iter().map(share).collect())
}

/// The parts of a container's interval on a device.
pub(super) fn container(interval: Interval, container: Container) -> Parts {
    let mut rest = Rest::of(interval.ns);
    if interval.is_broken {
        rest.takes(Part::Busy, container.busy_ns.unwrap_or(0));
        return rest.all(Part::Broken);
    }
    if interval.lists_failed {
        return rest.all(Part::Unknown);
    }
    if !container.has_process {
        return rest.all(Part::NoProcess);
    }
    let Some(busy) = container.busy_ns else { return rest.all(Part::Unknown) };
    rest.takes(Part::Busy, busy);
    rest.takes(Part::Shared, container.busy_of_others_ns);
    // Stalls hit all devices of the pod, so what differs between them comes first.
    rest.takes(Part::Uneven, container.busiest_other_ns.saturating_sub(busy));
    let Some(evidence) = container.evidence else { return rest.all(Part::Unknown) };
    let memory = rest.takes(Part::Memory, evidence.memory_full_ns);
    // The kernel counts the reading of memory that was reclaimed as both.
    rest.takes(Part::Io, evidence.io_full_ns.saturating_sub(memory));
    let throttled = rest.takes(Part::CpuThrottled, evidence.cpu_full_ns.min(evidence.throttled_ns));
    rest.takes(Part::CpuWait, evidence.cpu_full_ns.saturating_sub(throttled));
    rest.takes(Part::Host, evidence.cpu_ns);
    rest.all(Part::Asleep)
}

/// The processes on a device, at the beginning and at the end of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    /// There was none.
    No,
    /// There was one.
    Yes,
    /// There was one whose container could not be read.
    Unreadable,
}

/// The parts for a holder that has no process on the device.
pub(super) fn vacant(interval: Interval, occupied: Occupied) -> Parts {
    let mut rest = Rest::of(interval.ns);
    let busy = interval.busy_ns.unwrap_or(0);
    if interval.is_broken {
        rest.takes(Part::Busy, busy);
        return rest.all(Part::Broken);
    }
    if interval.lists_failed {
        return rest.all(Part::Unknown);
    }
    match occupied {
        Occupied::Unreadable => rest.all(Part::Unknown),
        Occupied::Yes => rest.all(Part::NoProcess),
        Occupied::No => {
            // Of processes that began and ended in between.
            rest.takes(Part::Busy, busy);
            rest.all(Part::NoProcess)
        }
    }
}

/// The part of an interval that is not split yet.
struct Rest {
    ns: u64,
    parts: Parts,
}

impl Rest {
    fn of(ns: u64) -> Self {
        Self { ns, parts: Parts::default() }
    }

    /// Gives at most this much to a part, and returns how much it was.
    fn takes(&mut self, part: Part, at_most: u64) -> u64 {
        let taken = self.ns.min(at_most);
        self.ns -= taken;
        self.parts.add(part, taken);
        taken
    }

    /// Gives all that is left to a part.
    fn all(mut self, part: Part) -> Parts {
        self.takes(part, u64::MAX);
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Ten seconds of a device that was busy for this long.
    fn ten(busy: Option<u64>) -> Interval {
        Interval { ns: 10 * SECOND, busy_ns: busy.map(|s| s * SECOND), is_broken: false, lists_failed: false }
    }

    fn alone(busy: Option<u64>, evidence: Option<Evidence>) -> Container {
        Container {
            has_process: true,
            busy_ns: busy.map(|s| s * SECOND),
            busy_of_others_ns: 0,
            busiest_other_ns: 0,
            evidence,
        }
    }

    /// Evidence in seconds: memory full, io full, cpu full, throttled, CPU time.
    fn seen(memory: u64, io: u64, cpu_full: u64, throttled: u64, cpu: u64) -> Evidence {
        Evidence {
            memory_full_ns: memory * SECOND,
            io_full_ns: io * SECOND,
            cpu_full_ns: cpu_full * SECOND,
            throttled_ns: throttled * SECOND,
            cpu_ns: cpu * SECOND,
        }
    }

    fn check(parts: &Parts, expected: &[(Part, u64)]) {
        let seconds: Vec<_> =
            Part::ALL.into_iter().map(|part| (part, parts.of(part) / SECOND)).filter(|(_, s)| *s > 0).collect();
        assert_eq!(seconds, expected);
        assert_eq!(parts.sum(), 10 * SECOND);
    }

    #[test]
    fn the_worked_examples_of_one_process() {
        use Part::{Asleep, Busy, CpuThrottled, CpuWait, Host, Io, Memory, Uneven, Unknown};
        let of =
            |busy, evidence, expected: &[_]| check(&container(ten(Some(busy)), alone(Some(busy), evidence)), expected);
        of(9, Some(seen(0, 0, 0, 0, 8)), &[(Busy, 9), (Host, 1)]);
        of(2, Some(seen(0, 6, 0, 0, 3)), &[(Busy, 2), (Io, 6), (Host, 2)]);
        of(0, Some(seen(0, 10, 0, 0, 0)), &[(Io, 10)]);
        of(5, Some(seen(0, 0, 3, 2, 1)), &[(Busy, 5), (CpuThrottled, 2), (CpuWait, 1), (Host, 1), (Asleep, 1)]);
        of(5, Some(seen(0, 0, 3, 40, 1)), &[(Busy, 5), (CpuThrottled, 3), (Host, 1), (Asleep, 1)]);
        of(4, Some(seen(3, 4, 0, 0, 0)), &[(Busy, 4), (Memory, 3), (Io, 1), (Asleep, 2)]);
        of(0, Some(seen(0, 0, 0, 0, 0)), &[(Asleep, 10)]);
        of(2, None, &[(Busy, 2), (Unknown, 8)]);
        let second = Container { busiest_other_ns: 10 * SECOND, ..alone(Some(1), Some(seen(0, 0, 0, 0, 10))) };
        check(&container(ten(Some(1)), second), &[(Busy, 1), (Uneven, 9)]);
        check(&container(ten(None), alone(None, Some(seen(0, 0, 0, 0, 10)))), &[(Unknown, 10)]);
    }

    #[test]
    fn the_worked_examples_of_a_shared_device() {
        use Part::{Busy, Host, Shared};
        let of = |percents: &[Option<u64>], busy, expected: &[_]| {
            let shares = shares(ten(Some(8)), percents).unwrap();
            assert_eq!(shares[0], busy * SECOND);
            let ours = Container { busy_of_others_ns: shares[1], ..alone(Some(busy), Some(seen(0, 0, 0, 0, 10))) };
            check(&container(ten(Some(8)), ours), expected);
        };
        of(&[Some(10), Some(30)], 2, &[(Busy, 2), (Shared, 6), (Host, 2)]);
        of(&[None, None], 4, &[(Busy, 4), (Shared, 4), (Host, 2)]);
        of(&[Some(0), Some(0)], 4, &[(Busy, 4), (Shared, 4), (Host, 2)]);
    }

    #[test]
    fn the_worked_examples_without_a_process_and_of_broken_devices() {
        use Part::{Broken, Busy, NoProcess, Unknown};
        check(&vacant(ten(Some(0)), Occupied::No), &[(NoProcess, 10)]);
        check(&vacant(ten(Some(3)), Occupied::No), &[(Busy, 3), (NoProcess, 7)]);
        check(&vacant(ten(Some(3)), Occupied::Yes), &[(NoProcess, 10)]);
        check(&vacant(ten(Some(3)), Occupied::Unreadable), &[(Unknown, 10)]);
        check(&vacant(ten(None), Occupied::No), &[(NoProcess, 10)]);
        let broken = |busy| Interval { is_broken: true, ..ten(busy) };
        check(&vacant(broken(Some(3)), Occupied::Yes), &[(Busy, 3), (Broken, 7)]);
        check(&container(broken(None), alone(None, None)), &[(Broken, 10)]);
        check(&container(broken(Some(3)), alone(Some(3), None)), &[(Busy, 3), (Broken, 7)]);
        let failed = Interval { lists_failed: true, ..ten(Some(3)) };
        check(&vacant(failed, Occupied::No), &[(Unknown, 10)]);
        check(&container(failed, alone(Some(3), Some(seen(0, 0, 0, 0, 10)))), &[(Unknown, 10)]);
        let ended = Container { has_process: false, ..alone(Some(0), None) };
        check(&container(ten(Some(0)), ended), &[(NoProcess, 10)]);
    }

    fn any_ns() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 0..20 * SECOND, any::<u64>()]
    }

    fn any_interval() -> impl Strategy<Value = Interval> {
        (0..20 * SECOND, prop::option::of(any_ns()), any::<bool>(), any::<bool>())
            .prop_map(|(ns, busy_ns, is_broken, lists_failed)| Interval { ns, busy_ns, is_broken, lists_failed })
    }

    fn any_evidence() -> impl Strategy<Value = Evidence> {
        (any_ns(), any_ns(), any_ns(), any_ns(), any_ns()).prop_map(
            |(memory_full_ns, io_full_ns, cpu_full_ns, throttled_ns, cpu_ns)| Evidence {
                memory_full_ns,
                io_full_ns,
                cpu_full_ns,
                throttled_ns,
                cpu_ns,
            },
        )
    }

    fn any_container() -> impl Strategy<Value = Container> {
        (any::<bool>(), prop::option::of(any_ns()), any_ns(), any_ns(), prop::option::of(any_evidence())).prop_map(
            |(has_process, busy_ns, busy_of_others_ns, busiest_other_ns, evidence)| Container {
                has_process,
                busy_ns,
                busy_of_others_ns,
                busiest_other_ns,
                evidence,
            },
        )
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_interval_and_none_is_more_than_its_evidence(
            interval in any_interval(), given in any_container(), occupied in 0..3_usize,
        ) {
            let parts = container(interval, given);
            prop_assert_eq!(parts.sum(), interval.ns);
            let seen = given.evidence.unwrap_or_default();
            for (part, at_most) in [
                (Part::Busy, given.busy_ns.unwrap_or(0)),
                (Part::Shared, given.busy_of_others_ns),
                (Part::Uneven, given.busiest_other_ns),
                (Part::Memory, seen.memory_full_ns),
                (Part::Io, seen.io_full_ns),
                (Part::CpuThrottled, seen.throttled_ns.min(seen.cpu_full_ns)),
                (Part::CpuWait, seen.cpu_full_ns),
                (Part::Host, seen.cpu_ns),
            ] {
                prop_assert!(parts.of(part) <= at_most, "{part:?} {parts:?}");
            }
            let occupied = [Occupied::No, Occupied::Yes, Occupied::Unreadable][occupied];
            let parts = vacant(interval, occupied);
            prop_assert_eq!(parts.sum(), interval.ns);
            prop_assert!(parts.of(Part::Busy) <= interval.busy_ns.unwrap_or(0));
        }

        #[test]
        fn shares_are_never_more_than_the_whole(
            interval in any_interval(), percents in prop::collection::vec(prop::option::of(0..=6400_u64), 1..9),
        ) {
            if let Some(shares) = shares(interval, &percents) {
                prop_assert_eq!(shares.len(), percents.len());
                let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
                prop_assert!(sum <= u128::from(interval.busy_ns.unwrap_or(0).min(interval.ns)));
            }
        }
    }
}
