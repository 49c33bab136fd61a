//! Counters that others keep, and how much they grew since they were last seen. Owns what the growth is if a counter fell or its owner
//! restarted: never more than the truth.
use super::life::Life;
use super::possible::{Counter, Possible};

/// The last value of a time counter that an agent keeps, and when it was seen.
#[derive(Debug, Default)]
pub(super) struct Since(Option<(u64, Life)>);

/// How much a kernel counter grew in one cgroup. Two ways to read it may differ by rounding: if it seems to fall, it counts as unchanged.
pub(super) fn of_kernel(before: &mut u64, total: u64) -> u64 {
    let more = total.saturating_sub(*before);
    *before = total.max(*before);
    more
}

/// How much a probe's counter grew in one cgroup. It may restart with the agent: if it fell, it did.
pub(super) fn of_probe(before: &mut u64, total: u64) -> u64 {
    let more = total.checked_sub(*before).unwrap_or(total);
    *before = total;
    more
}

impl Since {
    pub(super) fn of(total_ns: u64, life: Life) -> Self {
        Self(Some((total_ns, life)))
    }

    /// The last value, and when it was seen.
    pub(super) fn seen(&self) -> Option<(u64, &Life)> {
        self.0.as_ref().map(|(total_ns, life)| (*total_ns, life))
    }

    /// Whether it was last seen in the same boot.
    pub(super) fn is_of_boot(&self, life: &Life) -> bool {
        self.0.as_ref().is_some_and(|(_, last)| last.boot == life.boot)
    }

    /// How much it grew: a time that is counted from the agent's start, summed over `things`.
    pub(super) fn of_agent(
        &mut self,
        total_ns: u64,
        life: &Life,
        things: u64,
        (counter, possible): (Counter, &mut Possible),
    ) -> u64 {
        let seen_ns = self.0.as_ref().filter(|(_, last)| last.boot == life.boot).map_or(0, |(_, last)| last.uptime_ns);
        let (before_ns, last) = self.seen().unzip();
        let more_ns = Growth::between(last, life).of(before_ns.unwrap_or(0), total_ns, things);
        self.0 = Some((total_ns, life.clone()));
        // A counter that falls after a jump has restarted, so no doubt about it needs to be kept.
        possible.judge(counter, things, seen_ns, more_ns)
    }
}

/// How times grew that an agent counts from its start, from one report to another.
///
/// Two agents of one node may alternate while one replaces the other. So the first value from an agent that is new counts as no more than
/// the time since the last report.
#[derive(Clone, Copy, Debug)]
pub(super) enum Growth {
    /// The same run of an agent made both reports, so long apart.
    SameAgent(u64),
    /// Another run of an agent made the later one, so much later.
    NewAgent(u64),
    /// There is no earlier report of this boot.
    First,
}

impl Growth {
    pub(super) fn between(last: Option<&Life>, life: &Life) -> Self {
        let Some(last) = last.filter(|last| last.boot == life.boot) else { return Self::First };
        let elapsed_ns = life.uptime_ns.saturating_sub(last.uptime_ns);
        if last.agent_started_at_ms == life.agent_started_at_ms {
            Self::SameAgent(elapsed_ns)
        } else {
            Self::NewAgent(elapsed_ns)
        }
    }

    /// How much a time grew from one value to another, summed over `things`.
    pub(super) fn of(self, before_ns: u64, total_ns: u64, things: u64) -> u64 {
        let at_most = |elapsed_ns: u64| total_ns.min(elapsed_ns.saturating_mul(things));
        match self {
            Self::SameAgent(elapsed_ns) => total_ns.checked_sub(before_ns).unwrap_or_else(|| at_most(elapsed_ns)),
            Self::NewAgent(elapsed_ns) => at_most(elapsed_ns),
            Self::First => total_ns,
        }
    }
}
