//! The last report of a node's agent, and the values of the previous report that rates need. Decides which reports are new and which are
//! duplicate or stale; how many reports are kept is decided by `nodes`.
//!
//! Nearly everything that is derived from a report is derived on arrival, from the report as decoded for checking. So the report is kept
//! encoded, in one piece, which takes a fifth of the memory; values that are read often are kept beside it.
mod head;
mod unclaimed;

use std::sync::Arc;
use std::time::Duration;

use head::Head;
use mcad_wire::reading;
use mcad_wire::report::Report;
use prost::Message as _;
use unclaimed::Unclaimed;

use crate::now::Now;
pub use head::{CgroupSource, GpuSource, Sources};

/// An agent that has been silent for this many of its intervals is down.
const SILENT_INTERVALS: u32 = 3;
/// How many ended boots of a node are remembered, so that a report of one of them, kept by somebody, is recognised as stale. A machine that
/// boots more often than this within the hour for which a silent node is kept is in an endless reboot loop.
const ENDED_BOOTS: usize = 4;

/// Reports of one boot arrive out of order by no more than this: agents send the last report alone, and each within seconds. If a report
/// seems older than that, the time since boot in the previous report was wrong.
pub const DISORDER: Duration = Duration::from_mins(10);

/// What is known from one node's agent.
#[derive(Debug)]
pub struct Stored {
    /// The last report, encoded as on the wire.
    encoded: Box<[u8]>,
    head: Head,
    sources: Sources,
    /// CPU time of its cgroups, sorted by cgroup id.
    cgroup_cpu_ns: Arc<[(u64, u64)]>,
    /// When the report was received, by this process's clock, because the node's own clock may be wrong.
    pub received: Now,
    /// The previous report's values, for rates. `None` if this is the first report of its boot.
    pub baseline: Option<Baseline>,
    unclaimed: Unclaimed,
    interval: Duration,
    /// Approximate size in bytes, including the baseline.
    weight: u64,
    /// How far the node's clock is ahead of this process's, in ms, by this report and by the previous one. `None` if the agent did not
    /// report the time.
    skew_ms: [Option<i64>; 2],
    /// Ended boots of the node, the latest last.
    ended_boots: Vec<Box<str>>,
}

/// Totals of the previous report, of the same boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// When it was sampled, in ns since boot. Always earlier than the last report.
    pub uptime_ns: u64,
    /// The machine's busy time at that point.
    pub cpu_busy_ns: Option<u64>,
    /// CPU time of cgroups at that point, sorted by cgroup id.
    pub cgroup_cpu_ns: Arc<[(u64, u64)]>,
}

/// Why a report is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNews {
    /// It is the report that is already stored.
    Duplicate,
    /// It was sampled before the report that is stored.
    Older,
}

impl NoNews {
    /// All reasons.
    pub const REASONS: &[&str] = &["duplicate", "older"];

    /// The reason as one word, one of [`REASONS`](Self::REASONS).
    pub fn reason(self) -> &'static str {
        match self {
            NoNews::Duplicate => "duplicate",
            NoNews::Older => "older",
        }
    }
}

impl Stored {
    /// Makes the stored form of a node's new report: `report`, `encoded` as on the wire, received `now`. `known` is the node's previous
    /// report.
    pub fn after(known: Option<&Stored>, report: &reading::Report<'_>, encoded: &[u8], now: Now) -> Self {
        let same_boot = known.filter(|known| *known.head.boot_id == *report.boot_id);
        let baseline = same_boot.map(Stored::as_baseline);
        let cgroups = report.cgroups.iter().flat_map(|cgroups| &cgroups.cgroups);
        let mut cgroup_cpu_ns: Vec<_> = cgroups.filter_map(|cgroup| Some((cgroup.id, cgroup.cpu_ns?))).collect();
        cgroup_cpu_ns.sort_unstable();
        let baseline_bytes = baseline.as_ref().map_or(0, |baseline| size_of_val(&*baseline.cgroup_cpu_ns));
        let same_agent = same_boot.filter(|known| known.head.started_at_ms == report.started_at_ms);
        let unclaimed = Unclaimed::after(same_agent.map(|known| &known.unclaimed), report);
        let kept_bytes = size_of_val(&*cgroup_cpu_ns) + baseline_bytes + unclaimed.weight();
        let bytes = size_of::<Self>() + encoded.len() + kept_bytes;
        let mut ended_boots = known.map(|known| known.ended_boots.clone()).unwrap_or_default();
        if let Some(known) = known.filter(|_| same_boot.is_none()) {
            if ended_boots.len() == ENDED_BOOTS {
                ended_boots.remove(0);
            }
            ended_boots.push(known.head.boot_id.clone());
        }
        let said = (report.sampled_at_ms > 0).then_some(report.sampled_at_ms);
        let skew_ms = said.map(|said_ms| said_ms.cast_signed().saturating_sub(now.unix_ms.cast_signed()));
        Self {
            interval: Duration::from_millis(report.interval_ms),
            weight: bytes as u64,
            encoded: encoded.into(),
            head: Head::of(report),
            sources: Sources::of(report),
            cgroup_cpu_ns: cgroup_cpu_ns.into(),
            received: now,
            baseline,
            unclaimed,
            skew_ms: [skew_ms, same_boot.and_then(|known| known.skew_ms[0])],
            ended_boots,
        }
    }

    /// The whole last report, decoded again, for callers that need it only occasionally.
    pub fn report(&self) -> Report {
        // It was decoded once before, so this does not fail.
        Report::decode(&*self.encoded).unwrap_or_default()
    }

    /// The last report, decoded again.
    pub fn reading(&self) -> reading::Report<'_> {
        reading::Report::read(&self.encoded).unwrap_or_default()
    }

    /// The sources of its measurements.
    pub fn sources(&self) -> Sources {
        self.sources
    }

    /// Why a report is a duplicate or stale compared with this one. `None` if it is new.
    pub fn no_news(&self, new: &reading::Report<'_>) -> Option<NoNews> {
        let known = &self.head;
        if *known.boot_id != *new.boot_id {
            // Only their arrival orders two boots: the node's clock may have been set between them. A boot that has ended does not come
            // back.
            return self.ended_boots.iter().any(|ended| **ended == *new.boot_id).then_some(NoNews::Older);
        }
        let same_agent = known.started_at_ms == new.started_at_ms;
        if same_agent && known.sequence == new.sequence {
            return Some(NoNews::Duplicate);
        }
        // A wrong time since boot must not silence its node: a report that is later by start time and sequence is accepted.
        let is_far_behind = known.uptime_ns.saturating_sub(new.uptime_ns) > DISORDER.as_nanos() as u64;
        let is_later = (new.started_at_ms, new.sequence) > (known.started_at_ms, known.sequence);
        if is_far_behind && is_later {
            return None;
        }
        // Within a boot, uptime orders the samples of one agent, and those of an agent and its successor.
        let older = new.uptime_ns <= known.uptime_ns || (same_agent && new.sequence < known.sequence);
        older.then_some(NoNews::Older)
    }

    /// This report as the baseline of the next report of the same boot.
    fn as_baseline(&self) -> Baseline {
        let Head { uptime_ns, cpu_busy_ns, .. } = self.head;
        Baseline { uptime_ns, cpu_busy_ns, cgroup_cpu_ns: self.cgroup_cpu_ns.clone() }
    }

    /// How far the node's clock is ahead of this process's, in ms. Transit time makes a clock seem to lag, so of the last two reports the
    /// one with the smaller apparent lag counts.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.skew_ms.into_iter().flatten().max()
    }

    /// Approximate size in bytes, including the values that rates are computed from.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// How long ago the report was received.
    pub fn age(&self, now: Now) -> Duration {
        now.since(self.received)
    }

    /// Whether its age exceeds three intervals: the agent is down, and its report no longer counts.
    pub fn is_silent(&self, now: Now) -> bool {
        self.age(now) > self.silent_after()
    }

    /// How long after a report its agent counts as silent.
    pub fn silent_after(&self) -> Duration {
        self.interval * SILENT_INTERVALS
    }

    /// Cores that the machine kept busy between the last two reports, in billionths. `None` if there is only one report.
    pub fn cpu_busy_nanocores(&self) -> Option<u64> {
        let baseline = self.baseline.as_ref()?;
        let nanocores = rate_nano(baseline.cpu_busy_ns?, self.head.cpu_busy_ns?, self.elapsed_ns(baseline)?)?;
        // The kernel's ticks are read one CPU after another, so a little more than all CPUs is a rounding error. More than twice as much is
        // wrong.
        let online = u64::from(self.head.cpus_online?) * 1_000_000_000;
        (nanocores <= 2 * online).then_some(nanocores)
    }

    /// Cores that one cgroup kept busy between the last two reports, in billionths. `None` if it was not in both.
    pub fn cgroup_nanocores(&self, id: u64, cpu_ns: u64) -> Option<u64> {
        let baseline = self.baseline.as_ref()?;
        let at = baseline.cgroup_cpu_ns.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let nanocores = rate_nano(baseline.cgroup_cpu_ns[at].1, cpu_ns, self.elapsed_ns(baseline)?)?;
        self.is_possible(nanocores).then_some(nanocores)
    }

    /// The kernel's ticks are read one CPU after another, so a little more than all CPUs is a rounding error. More than twice as much is
    /// wrong.
    fn is_possible(&self, nanocores: u64) -> bool {
        self.head.cpus_online.is_none_or(|cpus| nanocores <= 2 * u64::from(cpus) * 1_000_000_000)
    }

    /// Memory of a GPU that was in use in the last two reports, but by no process on the GPU. `None` if it is not known.
    pub(crate) fn unclaimed_bytes(&self, uuid: &str) -> Option<u64> {
        self.unclaimed.lasting(uuid)
    }

    /// Time between the last two reports. `None` if none has passed.
    pub(crate) fn elapsed_ns(&self, baseline: &Baseline) -> Option<u64> {
        self.head.uptime_ns.checked_sub(baseline.uptime_ns).filter(|elapsed_ns| *elapsed_ns > 0)
    }
}

/// Rate in billionths of a core. `None` if the total fell, because it was reset.
fn rate_nano(before_ns: u64, after_ns: u64, elapsed_ns: u64) -> Option<u64> {
    let used_ns = after_ns.checked_sub(before_ns)?;
    u64::try_from(u128::from(used_ns) * 1_000_000_000 / u128::from(elapsed_ns)).ok()
}
