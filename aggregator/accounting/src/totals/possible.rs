//! Bounds how much a counter can have grown: no more than the passed time permits. Owns how a counter is treated that grew by more, because
//! its owner is broken or lies: nothing of that step counts, and counting continues from the new value.
use std::time::Duration;

use super::Now;
use super::life::Life;

/// One second of passed time may show up as this many: counters are read one after another, and not at the instant that the report states.
const TIMES: u64 = 2;
/// Additional growth from updates in progress: the kernel sums up some counters every few seconds, and kubelet is queried only now and
/// then.
const SLACK_NS: u64 = Duration::from_mins(1).as_nanos() as u64;
/// How far a node's time since boot may run ahead of the time that passed here, because a report may have waited for as long.
const AHEAD: Duration = Duration::from_mins(10);
/// The assumed number of CPUs of a node that does not report it: more than Linux supports.
const CPUS: u64 = 65_536;
/// Tasks that can wait for a CPU at once: the largest `kernel.pid_max`.
const TASKS: u64 = 1 << 22;
/// The most processes that can be killed in a second.
const KILLS_PER_S: u64 = 10_000;

/// A counter of an AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// CPU time.
    Cpu,
    /// Processes that were OOM-killed.
    OomKills,
    /// Run-queue wait: time that tasks waited for a CPU.
    RunQueueWait,
    /// Time that devices were held.
    GpuHeld,
    /// Time that devices were busy.
    GpuBusy,
}

impl Counter {
    /// All counters.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::OomKills, Self::RunQueueWait, Self::GpuHeld, Self::GpuBusy];

    /// The value of the label `counter`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OomKills => "oom_kills",
            Self::RunQueueWait => "run_queue_wait",
            Self::GpuHeld => "gpu_held",
            Self::GpuBusy => "gpu_busy",
        }
    }
}

/// How often each counter grew by more than is possible, in the order of [`Counter::ALL`].
pub type Jumps = [u32; Counter::ALL.len()];

/// How much time the values of a report had to grow, on its node.
#[derive(Debug)]
pub(super) struct Possible {
    now_ns: u64,
    /// When the previous report of the same boot was made; 0 if there is none.
    before_ns: u64,
    /// Time since then, or since boot, but no more than can have passed.
    passed_ns: u64,
    cpus: u64,
    pub(super) jumps: Jumps,
}

/// A counter that grew by more than is possible.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    /// Its value at that time, or as it has grown since.
    total: u64,
    seen_ns: u64,
    /// When it was seen before that.
    since_ns: u64,
    /// What was counted since then. If the counter comes back, this is already part of its growth.
    gained: u64,
}

impl Doubt {
    /// The current value of the counter, right or wrong.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How much it grew since; a small decrease is rounding. `None` if it came back to the range of `before`, its value before the jump.
    fn grown_to(&self, total: u64, before: u64) -> Option<u64> {
        match total.checked_sub(self.total) {
            Some(more) => Some(more),
            None => (self.total - total < total.saturating_sub(before)).then_some(0),
        }
    }
}

impl Possible {
    /// For a report made at `life`, whose predecessor was made at `known` and arrived at `came`.
    pub(super) fn new(life: &Life, known: Option<&Life>, came: Option<Now>, now: Now, cpus: Option<u32>) -> Self {
        let (boot, _, now_ns) = life.parts();
        let before_ns =
            known.map(Life::parts).filter(|(known, ..)| *known == boot).map_or(0, |(_, _, before_ns)| before_ns);
        // The larger of two clocks counts: one stops while this machine is suspended, the other may be set.
        let since = |came: Now| now.since(came).max(Duration::from_millis(now.unix_ms.saturating_sub(came.unix_ms)));
        let here = came.map_or(u64::MAX, |came| ns(since(came).saturating_mul(TIMES as u32).saturating_add(AHEAD)));
        let passed_ns = now_ns.saturating_sub(before_ns).min(here);
        Self { now_ns, before_ns, passed_ns, cpus: cpus.map_or(CPUS, u64::from), jumps: Jumps::default() }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// How much a counter of this many `things` can have grown since it was seen at `seen_ns`.
    fn most(&self, counter: Counter, things: u64, seen_ns: u64) -> u64 {
        let passed_ns = self.before_ns.saturating_sub(seen_ns).saturating_add(self.passed_ns);
        let time_ns = passed_ns.saturating_mul(TIMES).saturating_add(SLACK_NS);
        match counter {
            Counter::OomKills => (time_ns / 1_000_000_000).saturating_mul(KILLS_PER_S),
            Counter::Cpu => time_ns.saturating_mul(self.cpus),
            Counter::RunQueueWait => time_ns.saturating_mul(TASKS),
            Counter::GpuHeld | Counter::GpuBusy => time_ns.saturating_mul(things),
        }
    }

    /// The part of the growth `more` that counts, if the counter was last seen at `seen_ns`: all or nothing.
    pub(super) fn judge(&mut self, counter: Counter, things: u64, seen_ns: u64, more: u64) -> u64 {
        if more <= self.most(counter, things, seen_ns) {
            return more;
        }
        self.jumps[counter as usize] += 1;
        0
    }

    /// How much a cgroup's counter grew, by the rule `grow`, since it was `before` at `seen_ns`. A counter that jumps is doubted: while it
    /// stays there, growth is counted from the new value; if it comes back, from the old one.
    pub(super) fn grown(
        &mut self,
        counter: Counter,
        grow: fn(&mut u64, u64) -> u64,
        (before, seen_ns): (&mut u64, u64),
        doubt: &mut Option<Doubt>,
        total: u64,
    ) -> u64 {
        if let Some(there) = doubt
            && let Some(more) = there.grown_to(total, *before)
            && more <= self.most(counter, 1, there.seen_ns)
        {
            (there.total, there.seen_ns) = (there.total.max(total), self.now_ns);
            there.gained = there.gained.saturating_add(more);
            return more;
        }
        let (since_ns, gained) = doubt.map_or((seen_ns, 0), |doubt| (doubt.since_ns, doubt.gained));
        let mut after = *before;
        let more = grow(&mut after, total);
        if more > self.most(counter, 1, since_ns) {
            self.jumps[counter as usize] += 1;
            *doubt = Some(Doubt { total, seen_ns: self.now_ns, since_ns, gained });
            return 0;
        }
        (*before, *doubt) = (after, None);
        more.saturating_sub(gained)
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
