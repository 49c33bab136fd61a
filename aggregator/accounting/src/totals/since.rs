//! Counters that others keep, and how much they grew since they were last seen. Owns what a counter that fell, or whose
//! keeper was started anew, comes to: never more than the truth.
use super::life::Life;
use super::possible::{Counter, Possible};

/// What a counter of time that an agent keeps last showed, and when.
#[derive(Debug, Default)]
pub(super) struct Since(Option<(u64, Life)>);

/// How much a counter of the kernel's grew in one cgroup. Two ways to read it may differ by a rounding: where it seems to
/// fall, it stands still.
pub(super) fn of_kernel(before: &mut u64, total: u64) -> u64 {
    let more = total.saturating_sub(*before);
    *before = total.max(*before);
    more
}

/// How much a probe's counter grew in one cgroup. It may begin anew with the agent, or not: where it fell, it did.
pub(super) fn of_probe(before: &mut u64, total: u64) -> u64 {
    let more = total.checked_sub(*before).unwrap_or(total);
    *before = total;
    more
}

impl Since {
    pub(super) fn of(total_ns: u64, life: Life) -> Self {
        Self(Some((total_ns, life)))
    }

    /// What it last showed, and when.
    pub(super) fn seen(&self) -> Option<(u64, &Life)> {
        self.0.as_ref().map(|(total_ns, life)| (*total_ns, life))
    }

    /// It was last seen in the same boot.
    pub(super) fn is_of_boot(&self, life: &Life) -> bool {
        self.0.as_ref().is_some_and(|(_, last)| last.boot == life.boot)
    }

    /// How much it grew: time since the agent started, of as many things as `things`.
    ///
    /// Two agents of one node may take turns while one replaces the other. So what an agent tells that was not heard of
    /// before is no more than the time since the last report.
    pub(super) fn of_agent(
        &mut self,
        total_ns: u64,
        life: &Life,
        things: u64,
        (counter, possible): (Counter, &mut Possible),
    ) -> u64 {
        let seen_ns = self.0.as_ref().filter(|(_, last)| last.boot == life.boot).map_or(0, |(_, last)| last.uptime_ns);
        let more_ns = match &self.0 {
            Some((before_ns, last)) if last.boot == life.boot => {
                let elapsed_ns = life.uptime_ns.saturating_sub(last.uptime_ns).saturating_mul(things);
                if last.agent_started_at_ms == life.agent_started_at_ms {
                    total_ns.checked_sub(*before_ns).unwrap_or(total_ns.min(elapsed_ns))
                } else {
                    total_ns.min(elapsed_ns)
                }
            }
            Some(_) | None => total_ns,
        };
        self.0 = Some((total_ns, life.clone()));
        // What falls again began anew, so that nothing has to be remembered of a jump.
        possible.judge(counter, things, seen_ns, more_ns)
    }
}
