//! Run-queue wait per cgroup: reads the program's maps, and pauses the program if it costs too much.
//! [`crate::run_queue`] computes totals from its counts.

use std::time::Instant;

use crate::{
    probe::RunQueueProbe,
    run_queue::{Cost, Governor, Order, RunQueueTotals, forget_unproven_zeros},
    sample::{Cgroup, Removed, RunQueue, RunQueueCost},
};

/// The program at task switches, and the state kept for its values.
#[derive(Debug)]
pub struct RunQueues {
    probe: RunQueueProbe,
    totals: RunQueueTotals,
    governor: Governor,
    started: Instant,
}

impl RunQueues {
    /// For a running program.
    pub fn new(probe: RunQueueProbe) -> Self {
        let governor = Governor::new(probe.cpus());
        Self { probe, totals: RunQueueTotals::default(), governor, started: Instant::now() }
    }

    /// Sets the run-queue wait of each cgroup, unless the program is paused. In `cgroups`, parents come before
    /// children; the waits of removed cgroups are added to their parents.
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
                    "there are too many task switches to measure each one; run-queue wait is not measured for 5 minutes"
                );
                self.probe.pause();
            }
            Order::Resume => self.probe.resume(),
        }
        // Values that do not change are not exported. After a pause, the time a task waited during it is counted at its
        // next switch.
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
