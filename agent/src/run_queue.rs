//! Run-queue wait: from the waits of each cgroup alone, as the eBPF program counts them, to totals of each cgroup
//! including its descendants. Pure.
//!
//! The waits of an ended cgroup are added to its parent, so that a pod's total never decreases.

use std::collections::{HashMap, HashSet};

use crate::sample::{Cgroup, Removed, RunQueue};

/// The state between two samples. Its size is bounded by the number of living cgroups and of places in the program's
/// maps.
#[derive(Debug, Default)]
pub struct RunQueueTotals {
    /// Waits of ended cgroups, by the living ancestor that they were added to.
    left: HashMap<u64, RunQueue>,
    /// Parents in the latest sample.
    parents: HashMap<u64, u64>,
    /// Cgroups that waited and were in no sample yet: just created, or already gone.
    unseen: HashSet<u64>,
    /// Waits of cgroups that were created and removed between two samples and whose parent is not known.
    unplaced: RunQueue,
}

impl RunQueueTotals {
    /// Sets the cgroups' totals from the waits of each cgroup alone and the cgroups removed since the last call.
    /// Returns the cgroups that have ended.
    ///
    /// In `cgroups`, parents come before children.
    pub fn place(
        &mut self,
        cgroups: &mut [Cgroup],
        removed: &[Removed],
        alone: &HashMap<u64, RunQueue>,
    ) -> HashSet<u64> {
        let parents: HashMap<u64, u64> = cgroups.iter().map(|cgroup| (cgroup.id, cgroup.parent_id)).collect();
        // Cgroups that were created and removed since.
        self.parents.extend(removed.iter().map(|removed| (removed.id, removed.parent_id)));
        let ended = self.settle(&parents, alone);
        let mut totals: HashMap<u64, RunQueue> = HashMap::with_capacity(cgroups.len());
        for cgroup in cgroups.iter_mut().rev() {
            let mut total = totals.remove(&cgroup.id).unwrap_or_default();
            for own in [alone.get(&cgroup.id), self.left.get(&cgroup.id)].into_iter().flatten() {
                add(&mut total, *own);
            }
            add(totals.entry(cgroup.parent_id).or_default(), total);
            cgroup.run_queue = Some(total);
        }
        self.parents = parents;
        ended
    }

    /// Waits that could not be added to any cgroup.
    pub fn unplaced(&self) -> RunQueue {
        self.unplaced
    }

    /// Adds the waits of cgroups that ended since the latest sample to their ancestors.
    fn settle(&mut self, parents: &HashMap<u64, u64>, alone: &HashMap<u64, RunQueue>) -> HashSet<u64> {
        let (mut ended, mut unseen, mut heirs) = (HashSet::new(), HashSet::new(), Vec::new());
        for (id, waits) in alone.iter().filter(|(id, _)| !parents.contains_key(*id)) {
            if self.parents.contains_key(id) || self.unseen.contains(id) {
                ended.insert(*id);
                heirs.push((*id, *waits));
            } else {
                unseen.insert(*id);
            }
        }
        let gone: Vec<u64> = self.left.keys().filter(|id| !parents.contains_key(*id)).copied().collect();
        heirs.extend(gone.into_iter().filter_map(|id| Some((id, self.left.remove(&id)?))));
        for (id, waits) in heirs {
            let heir = self.living_ancestor(id, parents);
            add(heir.map_or(&mut self.unplaced, |heir| self.left.entry(heir).or_default()), waits);
        }
        self.unseen = unseen;
        ended
    }

    fn living_ancestor(&self, id: u64, parents: &HashMap<u64, u64>) -> Option<u64> {
        let mut ancestor = *self.parents.get(&id)?;
        while !parents.contains_key(&ancestor) {
            ancestor = *self.parents.get(&ancestor)?;
        }
        Some(ancestor)
    }
}

/// Removes totals that may be 0 only because waits found no place in the program's maps.
///
/// It is not known which cgroups these waits belong to, so from then on every total may be too low. Totals above 0 are
/// kept, because they never decrease and the cgroup did wait at least that long. A 0 would state that a cgroup never
/// waited, which is not known.
pub fn forget_unproven_zeros(cgroups: &mut [Cgroup], dropped: RunQueue) {
    if dropped.waits > 0 {
        for cgroup in cgroups {
            cgroup.run_queue = cgroup.run_queue.filter(|total| total.waits > 0);
        }
    }
}

fn add(total: &mut RunQueue, more: RunQueue) {
    total.wait_ns += more.wait_ns;
    total.waits += more.waits;
}

/// Pauses the program if it costs too much.
///
/// The cost is the time per switch that the program measured of itself, including the clock, times the number of
/// switches. While it is paused, samples have no totals, because they would be too low.
#[derive(Debug)]
pub struct Governor {
    budget_ns_per_s: u64,
    /// The start of the period that is judged: the last judgement, or the start of the program.
    before: Option<Cost>,
    state: State,
}

/// What the program costs, as totals at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The instant, in ns since any fixed instant.
    pub at_ns: u64,
    /// Number of switches.
    pub switches: u64,
    /// Number of switches that were timed.
    pub timed: u64,
    /// Total time of the timed switches.
    pub timed_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Paused { since_ns: u64 },
}

/// What to do with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing: it keeps running.
    Run,
    /// Nothing: it stays paused.
    StayPaused,
    /// Pause it: it costs too much.
    Pause,
    /// Resume it, to try again.
    Resume,
}

/// The minimum number of timed switches for a judgement: with few, a single interrupt makes the program seem expensive.
/// On a machine with 10,000 switches a second, this many take seconds; at the budget, well under one second.
const TIMED_AT_LEAST: u64 = 64;

/// One hundredth of each CPU. At 50 ns per switch that is 200,000 switches a second on each CPU.
pub const BUDGET_NS_PER_S_AND_CPU: u64 = 10_000_000;

/// The time until the next try. It is so long that a machine with constantly too many switches loses nothing by the
/// tries.
const PAUSE_NS: u64 = 300_000_000_000;

impl Governor {
    /// A governor for this many CPUs.
    pub fn new(cpus: u32) -> Self {
        Self { budget_ns_per_s: BUDGET_NS_PER_S_AND_CPU * u64::from(cpus), before: None, state: State::Running }
    }

    /// Decides from the totals at this instant.
    pub fn order(&mut self, now: Cost) -> Order {
        match self.state {
            State::Paused { since_ns } if now.at_ns.saturating_sub(since_ns) < PAUSE_NS => Order::StayPaused,
            State::Paused { .. } => {
                self.state = State::Running;
                self.before = Some(now);
                Order::Resume
            }
            State::Running => {
                let before = *self.before.get_or_insert(now);
                if now.timed.saturating_sub(before.timed) < TIMED_AT_LEAST {
                    return Order::Run;
                }
                self.before = Some(now);
                if !self.is_too_much(before, now) {
                    return Order::Run;
                }
                self.state = State::Paused { since_ns: now.at_ns };
                Order::Pause
            }
        }
    }

    fn is_too_much(&self, before: Cost, now: Cost) -> bool {
        let of = |field: fn(&Cost) -> u64| field(&now).saturating_sub(field(&before));
        let (elapsed_ns, switches, timed, timed_ns) =
            (of(|cost| cost.at_ns), of(|cost| cost.switches), of(|cost| cost.timed), of(|cost| cost.timed_ns));
        if elapsed_ns == 0 || timed == 0 {
            return false;
        }
        let cost_ns = u128::from(timed_ns) * u128::from(switches) / u128::from(timed);
        cost_ns * 1_000_000_000 / u128::from(elapsed_ns) > u128::from(self.budget_ns_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cgroups by id and parent.
    fn tree(nodes: &[(u64, u64)]) -> Vec<Cgroup> {
        nodes.iter().map(|(id, parent_id)| Cgroup { id: *id, parent_id: *parent_id, ..Cgroup::default() }).collect()
    }

    fn alone(waits: &[(u64, u64)]) -> HashMap<u64, RunQueue> {
        waits.iter().map(|(id, wait_ns)| (*id, RunQueue { wait_ns: *wait_ns, waits: 1 })).collect()
    }

    /// Totals as `id wait/waits`, and the ended cgroups.
    fn placed(totals: &mut RunQueueTotals, nodes: &[(u64, u64)], waits: &[(u64, u64)]) -> (String, Vec<u64>) {
        placed_of(totals, nodes, &[], waits)
    }

    /// The same, with these cgroups removed, by id and parent.
    fn placed_of(
        totals: &mut RunQueueTotals,
        nodes: &[(u64, u64)],
        removed: &[(u64, u64)],
        waits: &[(u64, u64)],
    ) -> (String, Vec<u64>) {
        let mut cgroups = tree(nodes);
        let removed: Vec<Removed> = removed
            .iter()
            .map(|(id, parent_id)| Removed {
                at_ns: 0,
                id: *id,
                parent_id: *parent_id,
                path: String::new(),
                cpu_ns: 0,
                oom_kills: None,
            })
            .collect();
        let ended = totals.place(&mut cgroups, &removed, &alone(waits));
        let shown = cgroups.iter().map(|cgroup| {
            let run_queue = cgroup.run_queue.unwrap();
            format!("{} {}/{}", cgroup.id, run_queue.wait_ns, run_queue.waits)
        });
        let mut ended: Vec<u64> = ended.into_iter().collect();
        ended.sort_unstable();
        (shown.collect::<Vec<_>>().join(", "), ended)
    }

    #[test]
    fn a_total_is_of_the_cgroup_and_all_below_it() {
        let mut totals = RunQueueTotals::default();
        let shown = placed(&mut totals, &[(1, 0), (2, 1), (3, 2), (4, 1)], &[(1, 1), (3, 100), (4, 10)]);
        assert_eq!(shown, ("1 111/3, 2 100/1, 3 100/1, 4 10/1".into(), vec![]));
    }

    #[test]
    fn an_ended_cgroup_leaves_its_waits_to_its_nearest_living_ancestor() {
        let mut totals = RunQueueTotals::default();
        placed(&mut totals, &[(1, 0), (2, 1), (3, 2), (4, 3)], &[(4, 100), (3, 10)]);
        let (shown, ended) = placed(&mut totals, &[(1, 0), (2, 1)], &[(4, 105), (3, 10)]);
        assert_eq!((&*shown, &ended[..]), ("1 115/2, 2 115/2", &[3, 4][..]));
        // Their places were freed. Their waits stay with the ancestor, and move up when it ends as well.
        assert_eq!(placed(&mut totals, &[(1, 0), (2, 1)], &[]).0, "1 115/2, 2 115/2");
        assert_eq!(placed(&mut totals, &[(1, 0)], &[]).0, "1 115/2");
    }

    #[test]
    fn a_cgroup_that_was_made_after_the_walk_is_not_taken_for_ended() {
        let mut totals = RunQueueTotals::default();
        assert_eq!(placed(&mut totals, &[(1, 0)], &[(2, 7)]), ("1 0/0".into(), vec![]));
        assert_eq!(placed(&mut totals, &[(1, 0), (2, 1)], &[(2, 9)]), ("1 9/1, 2 9/1".into(), vec![]));
    }

    #[test]
    fn one_that_came_and_went_between_two_samples_is_said_to_be_unplaced() {
        let mut totals = RunQueueTotals::default();
        placed(&mut totals, &[(1, 0)], &[(2, 7)]);
        assert_eq!(placed(&mut totals, &[(1, 0)], &[(2, 7)]), ("1 0/0".into(), vec![2]));
        assert_eq!(totals.unplaced(), RunQueue { wait_ns: 7, waits: 1 });
    }

    #[test]
    fn one_that_came_and_went_and_told_its_parent_leaves_its_waits_to_it() {
        let mut totals = RunQueueTotals::default();
        placed(&mut totals, &[(1, 0), (2, 1)], &[]);
        let shown = placed_of(&mut totals, &[(1, 0), (2, 1)], &[(4, 3), (3, 2)], &[(4, 7)]);
        assert_eq!(shown, ("1 7/1, 2 7/1".into(), vec![4]));
        assert_eq!(totals.unplaced(), RunQueue::default());
    }

    #[test]
    fn a_cgroup_without_waits_has_no_total_once_waits_found_no_place() {
        let check = |dropped: u64, expected: [Option<u64>; 2]| {
            let mut cgroups = tree(&[(1, 0), (2, 1)]);
            RunQueueTotals::default().place(&mut cgroups, &[], &alone(&[(1, 7)]));
            forget_unproven_zeros(&mut cgroups, RunQueue { wait_ns: dropped, waits: dropped });
            let totals: Vec<Option<u64>> = cgroups.iter().map(|cgroup| Some(cgroup.run_queue?.wait_ns)).collect();
            assert_eq!(totals, expected, "{dropped}");
        };
        check(0, [Some(7), Some(0)]);
        check(1, [Some(7), None]);
    }

    fn cost(at_s: u64, switches: u64, timed_ns: u64) -> Cost {
        Cost { at_ns: at_s * 1_000_000_000, switches, timed: switches / 1024, timed_ns }
    }

    #[test]
    fn what_costs_too_much_is_paused_and_tried_again_later() {
        let mut governor = Governor::new(2);
        assert_eq!(governor.order(cost(0, 0, 0)), Order::Run);
        // 100 ns each, 102,400 a second.
        assert_eq!(governor.order(cost(10, 1_024_000, 100_000)), Order::Run);
        // 100 ns each, 1,024,000 a second, on two CPUs that may spend 20 ms.
        assert_eq!(governor.order(cost(20, 11_264_000, 1_100_000)), Order::Pause);
        assert_eq!(governor.order(cost(30, 11_264_000, 1_100_000)), Order::StayPaused);
        assert_eq!(governor.order(cost(320, 11_264_000, 1_100_000)), Order::Resume);
        assert_eq!(governor.order(cost(330, 11_265_024, 1_100_100)), Order::Run);
    }

    #[test]
    fn a_few_samples_are_no_reason_to_pause_and_count_with_those_that_follow() {
        let mut governor = Governor::new(2);
        governor.order(cost(0, 0, 0));
        // One of ten timed switches was interrupted for as long as the limit: on their own, these would look like 11 µs
        // per switch.
        assert_eq!(governor.order(cost(1, 10 * 1024, 110_000)), Order::Run);
        // Now there are enough, and they cost 1.8 µs each, 10,240 a second.
        assert_eq!(governor.order(cost(7, 70 * 1024, 126_000)), Order::Run);
        // Even in a short time they can be too much: 65 timed switches of 11 µs within a second.
        assert_eq!(governor.order(cost(8, 135 * 1024, 126_000 + 715_000)), Order::Pause);
    }

    #[test]
    fn a_machine_that_hardly_switches_costs_nothing() {
        let mut governor = Governor::new(2);
        governor.order(cost(0, 0, 0));
        assert_eq!(governor.order(cost(10, 100, 0)), Order::Run);
    }
}
