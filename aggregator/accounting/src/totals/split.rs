//! How a pod spent the time for which it held a device. Pure.
//!
//! The agent knows what each container did on the device, and what a holder without a process there did. Here that becomes the time of one
//! pod, which holds some parts of the device: never more than it held the device, and never less.
use mcad_wire::parts::Part;

use crate::gpu_use::{Use, Uses};
use crate::object::start::Start;

const UNKNOWN: Use = Use::Part(Part::Unknown);
const SHARED: Use = Use::Part(Part::Shared);
const NO_PROCESS: Use = Use::Part(Part::NoProcess);
const NS_PER_MS: u64 = 1_000_000;

/// A pod on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    /// For how long it held the device, summed over its parts.
    pub(super) held_ns: u64,
    /// How many parts of the device it holds.
    pub(super) parts: u64,
    /// How many parts of the device all pods hold.
    pub(super) all_parts: u64,
}

/// Until when the pods of an AppWrapper wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gang {
    /// Not all of them are bound.
    Incomplete,
    /// The last of them was bound at this time, in ms since the Unix epoch. `None` if that is not known, or they wait for nobody.
    Since(Option<i64>),
}

/// The time of a pod on a device: from what its containers did there, and what a holder without a process did.
pub(super) fn split(holding: Holding, own: Option<&Uses>, vacant: Option<&Uses>) -> Uses {
    let Holding { held_ns, parts, all_parts } = holding;
    let (mut uses, mut left_ns) = (Uses::default(), held_ns);
    let mut take = |of: Use, ns: u64| {
        let taken = ns.min(left_ns);
        uses.add(of, taken);
        left_ns -= taken;
    };
    // The device is busy for one of the parts; for the others, that is time in which somebody else has it.
    if let Some(own) = own {
        for of in Use::all() {
            let times = |ns: u64| ns.saturating_mul(parts);
            match of {
                Use::BUSY => take(of, own.of(of)),
                SHARED => {
                    take(of, times(own.of(of)).saturating_add(own.of(Use::BUSY).saturating_mul(parts.max(1) - 1)));
                }
                _ => take(of, times(own.of(of))),
            }
        }
    }
    if let Some(vacant) = vacant {
        let all_busy = vacant.of(Use::BUSY).saturating_mul(parts);
        let busy = all_busy / all_parts.max(1);
        for of in Use::all() {
            match of {
                Use::BUSY => take(of, busy),
                SHARED => take(of, all_busy - busy),
                _ => take(of, vacant.of(of).saturating_mul(parts)),
            }
        }
    }
    take(UNKNOWN, u64::MAX);
    uses
}

/// The same with an agent that does not split time: `busy_ns` is how long the device was busy for this holder.
pub(super) fn by_busy(held_ns: u64, busy_ns: Option<u64>) -> Uses {
    let mut uses = Uses::default();
    let busy_ns = busy_ns.unwrap_or(0).min(held_ns);
    uses.add(Use::BUSY, busy_ns);
    uses.add(UNKNOWN, held_ns - busy_ns);
    uses
}

/// Tells apart why there was no process: by the times at which Kubernetes says that the container started and that the last pod was bound,
/// so that all replicas come to the same result. `from_ms` and `to_ms` are the ends of the interval, since the Unix epoch.
pub(super) fn refine(
    uses: &mut Uses,
    parts: u64,
    interval: Option<(i64, i64)>,
    start: Start,
    gang: impl FnOnce() -> Gang,
) {
    if uses.of(NO_PROCESS) == 0 || start == Start::BackOff {
        return;
    }
    if start == Start::NotYet {
        uses.shift(NO_PROCESS, Use::Starting, u64::MAX);
        return;
    }
    let between = |from_ms: i64, to_ms: i64| {
        let ms = u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0);
        ms.saturating_mul(NS_PER_MS).saturating_mul(parts)
    };
    if let (Start::At(start_ms), Some((from_ms, to_ms))) = (start, interval) {
        uses.shift(NO_PROCESS, Use::Starting, between(from_ms, start_ms.min(to_ms)));
    }
    match (gang(), interval) {
        (Gang::Incomplete, _) => {
            uses.shift(NO_PROCESS, Use::Gang, u64::MAX);
        }
        (Gang::Since(Some(bound_ms)), Some((from_ms, to_ms))) => {
            let from_ms = if let Start::At(start_ms) = start { from_ms.max(start_ms) } else { from_ms };
            uses.shift(NO_PROCESS, Use::Gang, between(from_ms, bound_ms.min(to_ms)));
        }
        (Gang::Since(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    /// Seconds of parts.
    fn seconds(of: &[(Use, u64)]) -> Uses {
        let mut uses = Uses::default();
        for (of, seconds) in of {
            uses.add(*of, seconds * S);
        }
        uses
    }

    fn part(part: Part) -> Use {
        Use::Part(part)
    }

    fn holding(held: u64, parts: u64, all_parts: u64) -> Holding {
        Holding { held_ns: held * S, parts, all_parts }
    }

    #[test]
    fn a_pod_with_several_parts_has_the_device_for_one_of_them() {
        let own = seconds(&[(Use::BUSY, 5), (part(Part::Io), 5)]);
        let expected = seconds(&[(Use::BUSY, 5), (SHARED, 5), (part(Part::Io), 10)]);
        assert_eq!(split(holding(20, 2, 2), Some(&own), None), expected);
    }

    #[test]
    fn without_a_process_the_busy_time_of_the_device_goes_by_parts() {
        let vacant = seconds(&[(Use::BUSY, 3), (NO_PROCESS, 7)]);
        assert_eq!(split(holding(10, 1, 1), None, Some(&vacant)), vacant);
        let expected = seconds(&[(Use::BUSY, 1), (SHARED, 2), (NO_PROCESS, 7)]);
        assert_eq!(split(holding(10, 1, 3), None, Some(&vacant)), expected);
    }

    #[test]
    fn what_nobody_accounts_for_is_unknown_and_what_was_not_held_does_not_count() {
        assert_eq!(split(holding(20, 1, 1), None, None), seconds(&[(UNKNOWN, 20)]));
        let own = seconds(&[(Use::BUSY, 9), (part(Part::Host), 1)]);
        let vacant = seconds(&[(NO_PROCESS, 10)]);
        assert_eq!(split(holding(9, 1, 1), Some(&own), Some(&vacant)), seconds(&[(Use::BUSY, 9)]));
        let expected = seconds(&[(Use::BUSY, 9), (part(Part::Host), 1), (NO_PROCESS, 2)]);
        assert_eq!(split(holding(12, 1, 1), Some(&own), Some(&vacant)), expected);
        assert_eq!(by_busy(4 * S, Some(9 * S)), seconds(&[(Use::BUSY, 4)]));
        assert_eq!(by_busy(4 * S, None), seconds(&[(UNKNOWN, 4)]));
    }

    fn refined(start: Start, gang: Gang) -> [u64; 3] {
        let mut uses = seconds(&[(NO_PROCESS, 10)]);
        refine(&mut uses, 1, Some((100_000, 110_000)), start, || gang);
        assert_eq!(uses.sum(), 10 * S);
        [Use::Starting, Use::Gang, NO_PROCESS].map(|of| uses.of(of) / S)
    }

    #[test]
    fn without_a_process_it_matters_when_the_container_started_and_the_last_pod_was_bound() {
        let since = |ms| Gang::Since(Some(ms));
        assert_eq!(refined(Start::At(104_000), since(107_000)), [4, 3, 3]);
        assert_eq!(refined(Start::At(104_000), since(90_000)), [4, 0, 6]);
        assert_eq!(refined(Start::At(104_000), since(200_000)), [4, 6, 0]);
        assert_eq!(refined(Start::At(90_000), since(107_000)), [0, 7, 3]);
        assert_eq!(refined(Start::At(200_000), since(107_000)), [10, 0, 0]);
        assert_eq!(refined(Start::Before, Gang::Since(None)), [0, 0, 10]);
        assert_eq!(refined(Start::Before, Gang::Incomplete), [0, 10, 0]);
        assert_eq!(refined(Start::NotYet, Gang::Incomplete), [10, 0, 0]);
        assert_eq!(refined(Start::BackOff, Gang::Incomplete), [0, 0, 10]);
    }

    #[test]
    fn each_part_waits_for_the_same_start() {
        let mut uses = seconds(&[(NO_PROCESS, 20)]);
        refine(&mut uses, 2, Some((100_000, 110_000)), Start::At(104_000), || Gang::Since(None));
        assert_eq!(uses.of(Use::Starting), 8 * S);
    }

    fn uses() -> impl Strategy<Value = Option<Uses>> {
        let amounts = prop::collection::vec(0..20 * S, 12);
        prop::option::of(amounts.prop_map(|amounts| Uses::from_report(&amounts)))
    }

    proptest! {
        #[test]
        fn it_adds_up_to_what_was_held(held in 0..60 * S, parts in 0..9_u64, others in 0..9_u64, own in uses(), vacant in uses()) {
            let holding = Holding { held_ns: held, parts, all_parts: parts + others };
            let all = split(holding, own.as_ref(), vacant.as_ref());
            prop_assert_eq!(all.sum(), held);
            for cause in Use::causes().filter(|cause| ![UNKNOWN, SHARED].contains(cause)) {
                let evidence = [&own, &vacant].into_iter().flatten().map(|uses| uses.of(cause) * parts).sum::<u64>();
                prop_assert!(all.of(cause) <= evidence);
            }
        }
    }
}
