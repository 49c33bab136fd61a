//! Counters that others keep, and how much they grew since they were last seen. Owns what a counter that fell, or whose
//! keeper was started anew, comes to: never more than the truth.
use std::sync::Arc;

use mcad_wire::reading::Report;

/// When a report was made: in which life of its node, and of its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    boot: Arc<str>,
    agent_started_at_ms: u64,
    uptime_ns: u64,
}

/// What a counter of time that an agent keeps last showed, and when.
#[derive(Debug, Default)]
pub(super) struct Since(Option<(u64, Life)>);

impl Life {
    /// `known` is what was last known of the node: mostly of the same boot.
    pub(super) fn of(report: &Report<'_>, known: Option<&Self>) -> Self {
        let same = known.filter(|known| *known.boot == *report.boot_id);
        Self {
            boot: same.map_or_else(|| report.boot_id.into(), |known| known.boot.clone()),
            agent_started_at_ms: report.started_at_ms,
            uptime_ns: report.uptime_ns,
        }
    }

    pub(super) fn from_parts(boot: Arc<str>, agent_started_at_ms: u64, uptime_ns: u64) -> Self {
        Self { boot, agent_started_at_ms, uptime_ns }
    }

    pub(super) fn parts(&self) -> (&Arc<str>, u64, u64) {
        (&self.boot, self.agent_started_at_ms, self.uptime_ns)
    }

    /// The boot.
    pub(super) fn boot(&self) -> &Arc<str> {
        &self.boot
    }

    /// Of the same boot, and not before `other`.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.boot == other.boot && self.uptime_ns >= other.uptime_ns
    }
}

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
    pub(super) fn of_agent(&mut self, total_ns: u64, life: &Life, things: u64) -> u64 {
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
        more_ns
    }
}
