//! Waits for a processor by cgroup: reads the program's maps, and pauses it where it costs too much. How totals are made of what it
//! counted is [`crate::run_queue`]'s.

use std::time::Instant;

use crate::{
    probe::RunQueueProbe,
    run_queue::{Cost, Governor, Order, RunQueueTotals, forget_unproven_zeros},
    sample::{Cgroup, Removed, RunQueue, RunQueueCost},
};

/// The program at the switch of tasks, and what is remembered of its figures.
#[derive(Debug)]
pub struct RunQueues {
    probe: RunQueueProbe,
    totals: RunQueueTotals,
    governor: Governor,
    started: Instant,
}

impl RunQueues {
    /// Of a program that runs.
    pub fn new(probe: RunQueueProbe) -> Self {
        let governor = Governor::new(probe.processors());
        Self { probe, totals: RunQueueTotals::default(), governor, started: Instant::now() }
    }

    /// Fills in how each cgroup waited, unless the program is paused. `cgroups` has parents before children; what was removed since the
    /// last time leaves its waits to its parents.
    pub fn read(&mut self, cgroups: &mut [Cgroup], removed: &[Removed]) -> RunQueueCost {
        let reading = self.probe.read();
        let ended = self.totals.place(cgroups, removed, &reading.cgroups);
        self.probe.free(&ended);
        let of = |waits: mcad_wire::abi::RunQueueWaits| RunQueue { wait_ns: waits.wait_ns, waits: waits.waits };
        let all = reading.all;
        forget_unproven_zeros(cgroups, of(all.dropped));
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let cost = Cost { at_ns: now_ns, switches: all.switches, timed: all.timed, timed_ns: all.timed_ns };
        let order = self.governor.order(cost);
        match order {
            Order::Run | Order::StayPaused => {}
            Order::Pause => {
                tracing::warn!(
                    "switches of tasks are too many to look at each; waits for a processor are not measured for 5 minutes"
                );
                self.probe.pause();
            }
            Order::Resume => self.probe.resume(),
        }
        // What stands still is not shown. After a pause, what a task waited in it comes with its next switch.
        if matches!(order, Order::StayPaused | Order::Resume) {
            for cgroup in cgroups {
                cgroup.run_queue = None;
            }
        }
        RunQueueCost {
            paused: matches!(order, Order::Pause | Order::StayPaused),
            switches: all.switches,
            mismatches: all.mismatches,
            unknown: all.unknown,
            all: of(all.all),
            dropped: of(all.dropped),
            unplaced: self.totals.unplaced(),
            timed: all.timed,
            timed_ns: all.timed_ns,
            histogram: all.histogram.to_vec(),
        }
    }
}
