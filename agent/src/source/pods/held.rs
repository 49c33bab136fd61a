//! How long devices were held, as totals, whether used or not: the time between two lists that both show a device with
//! the same holder.

use std::collections::BTreeMap;

use crate::retention::{KEPT_NS, drop_oldest};
use crate::sample::assignment::{Assignment, HeldBy, Holder};

/// Limit of kept totals, including those of removed containers. If there are more, those removed longest ago are
/// dropped.
const TOTALS_AT_MOST: usize = 8192;

/// The totals.
#[derive(Debug, Default)]
pub(super) struct HeldTotals {
    totals: BTreeMap<Holder, Total>,
    /// When the last list was read.
    last_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Total {
    ns: u64,
    devices: u64,
    seen_ns: u64,
}

impl HeldTotals {
    /// Adds the time since the last list for holders that were in that list, too. If kubelet did not respond in
    /// between, they held their devices nevertheless.
    pub(super) fn note(&mut self, holders: BTreeMap<Holder, Vec<String>>, now_ns: u64) -> Vec<Assignment> {
        let last_ns = self.last_ns.replace(now_ns);
        let mut assigned = Vec::with_capacity(holders.len());
        for (holder, device_ids) in holders {
            let devices = match holder.by {
                HeldBy::Resource(_) => device_ids.len() as u64,
                HeldBy::Claim(_) => 1,
            };
            let total = self.totals.entry(holder.clone()).or_default();
            if last_ns == Some(total.seen_ns) && total.devices > 0 {
                total.ns += now_ns.saturating_sub(total.seen_ns) * devices.min(total.devices);
            }
            (total.devices, total.seen_ns) = (devices, now_ns);
            assigned.push(Assignment { holder, device_ids, held_ns: total.ns });
        }
        // If a container with the same name follows while the total is kept, it continues from it, so that totals never decrease.
        self.totals.retain(|_, total| now_ns.saturating_sub(total.seen_ns) <= KEPT_NS);
        drop_oldest(&mut self.totals, TOTALS_AT_MOST, |total| total.seen_ns);
        assigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Reads lists at these times in seconds, with this many devices held by one container, and checks its total in
    /// seconds after each.
    fn check(lists: &[(u64, usize, Option<u64>)]) {
        let mut held = HeldTotals::default();
        for (second, devices, expected) in lists {
            let holder = Holder {
                namespace: "ns".into(),
                pod: "train-0".into(),
                container: "main".into(),
                by: HeldBy::Resource("nvidia.com/gpu".into()),
            };
            let ids: Vec<String> = (0..*devices).map(|device| format!("GPU-{device}")).collect();
            let holders = (*devices > 0).then_some((holder, ids)).into_iter().collect();
            let assigned = held.note(holders, second * SECOND);
            assert_eq!(assigned.first().map(|one| one.held_ns / SECOND), *expected, "at {second} of {lists:?}");
        }
    }

    #[test]
    fn devices_are_held_from_list_to_list_and_each_counts() {
        check(&[(10, 2, Some(0)), (20, 2, Some(20)), (35, 2, Some(50))]);
    }

    #[test]
    fn a_list_that_failed_in_between_does_not_end_the_holding() {
        check(&[(10, 1, Some(0)), (600, 1, Some(590))]);
    }

    #[test]
    fn time_off_the_list_does_not_count_and_the_total_goes_on_where_it_was() {
        check(&[(10, 1, Some(0)), (20, 1, Some(10)), (30, 0, None), (40, 1, Some(10)), (50, 1, Some(20))]);
    }

    #[test]
    fn after_an_hour_a_total_is_forgotten() {
        check(&[(0, 1, Some(0)), (10, 1, Some(10)), (20, 0, None), (3611, 0, None), (3612, 1, Some(0))]);
    }

    #[test]
    fn when_the_number_changes_the_smaller_one_counts() {
        check(&[(0, 1, Some(0)), (10, 3, Some(10)), (20, 3, Some(40)), (30, 2, Some(60))]);
    }

    #[test]
    fn as_many_totals_are_kept_as_may_be_and_the_oldest_goes_first() {
        let holder = |number: usize| Holder {
            namespace: "ns".into(),
            pod: number.to_string(),
            container: "main".into(),
            by: HeldBy::Resource("nvidia.com/gpu".into()),
        };
        let mut held = HeldTotals::default();
        let listed = |numbers: std::ops::Range<usize>| {
            numbers.map(|number| (holder(number), vec!["GPU-1".to_owned()])).collect::<BTreeMap<_, _>>()
        };
        held.note(listed(0..1), 0);
        held.note(listed(1..TOTALS_AT_MOST), SECOND);
        assert_eq!((held.totals.len(), held.totals.contains_key(&holder(0))), (TOTALS_AT_MOST, true));
        held.note(listed(1..TOTALS_AT_MOST + 1), 2 * SECOND);
        assert_eq!((held.totals.len(), held.totals.contains_key(&holder(0))), (TOTALS_AT_MOST, false));
    }
}
