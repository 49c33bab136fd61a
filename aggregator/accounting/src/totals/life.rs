//! When a report was made: during which boot of its node, and by which start of its agent. Owns which of two reports is later.
use std::sync::Arc;

use mcad_wire::reading::Report;

use crate::reported::DISORDER;

/// [`DISORDER`] in nanoseconds.
const DISORDER_NS: u64 = DISORDER.as_nanos() as u64;

/// When a report was made: during which boot of its node, and by which start of its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) boot: Arc<str>,
    pub(super) agent_started_at_ms: u64,
    pub(super) uptime_ns: u64,
}

impl Life {
    /// `known` is what was last known of the node, usually of the same boot.
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

    /// The boot id.
    pub(super) fn boot(&self) -> &Arc<str> {
        &self.boot
    }

    /// Whether the same run of an agent made both reports.
    pub(super) fn is_same_agent(&self, other: &Self) -> bool {
        self.boot == other.boot && self.agent_started_at_ms == other.agent_started_at_ms
    }

    /// Whether it is of the same boot and not before `other`. A time more than [`DISORDER`] ahead of `other` is wrong and does not count as
    /// later, so that the correct times after it are accepted.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.boot == other.boot
            && (other.uptime_ns..=other.uptime_ns.saturating_add(DISORDER_NS)).contains(&self.uptime_ns)
    }
}
