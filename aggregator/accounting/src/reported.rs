//! What a node's agent reported last, and what of the report before is needed for rates. Owns what is news and what is not; how many
//! are kept is the aggregator's `store`.
//!
//! Nearly all that is made of a report is made as it comes, from what was decoded to check it. So it is kept as it came, a fifth
//! of that, in one piece; what is asked of it again and again is kept beside it.
mod head;

use std::sync::Arc;
use std::time::Duration;

use head::Head;
use mcad_wire::reading;
use mcad_wire::report::Report;
use prost::Message as _;

use crate::now::Now;
pub use head::{CgroupSource, GpuSource, Sources};

/// An agent that has been silent for this many of its intervals is down.
const SILENT_INTERVALS: u32 = 3;
/// Boots of a node that are remembered once they are over: a report that somebody kept from one of them is no news. More
/// than these within the hour that a silent node is kept is a machine that reboots without end.
const ENDED_BOOTS: usize = 4;

/// Reports of one boot come in another order than they were made in by no more than this: agents send the last one alone, and each
/// within seconds. What seems to be older than that does so because the time since boot in the one before was wrong.
pub const DISORDER: Duration = Duration::from_mins(10);

/// What is known from one node's agent.
#[derive(Debug)]
pub struct Stored {
    /// The last report, on the wire.
    encoded: Box<[u8]>,
    head: Head,
    sources: Sources,
    /// CPU time of its cgroups, by id, in order of id.
    cgroup_cpu_ns: Arc<[(u64, u64)]>,
    /// When it was received, by this process's clock: the node's own may be wrong.
    pub received: Now,
    /// What it is measured against. Absent: the first of its boot.
    pub baseline: Option<Baseline>,
    interval: Duration,
    /// About how many bytes it takes, baseline included.
    weight: u64,
    /// How far the node's clock is ahead of this process's, in ms, as this report has it and as the one before had it.
    /// Absent: the agent did not say what time it was.
    skew_ms: [Option<i64>; 2],
    /// Boots of the node that are over, the latest last.
    ended_boots: Vec<Box<str>>,
}

/// Totals of the report before, of the same boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// When it was sampled, in ns since boot. Always before the last report's.
    pub uptime_ns: u64,
    /// The machine's busy time then.
    pub cpu_busy_ns: Option<u64>,
    /// CPU time of cgroups then, by id, in order of id.
    pub cgroup_cpu_ns: Arc<[(u64, u64)]>,
}

/// Why a report is no news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNews {
    /// It is the one that is stored.
    Duplicate,
    /// It was sampled before the one that is stored.
    Older,
}

impl NoNews {
    /// Every reason that there is.
    pub const REASONS: &[&str] = &["duplicate", "older"];

    /// The reason in one word, one of [`REASONS`](Self::REASONS).
    pub fn reason(self) -> &'static str {
        match self {
            NoNews::Duplicate => "duplicate",
            NoNews::Older => "older",
        }
    }
}

impl Stored {
    /// The last report of a node: `report`, which is `encoded` on the wire and was received `now`, after the one that was known before.
    pub fn after(known: Option<&Stored>, report: &reading::Report<'_>, encoded: &[u8], now: Now) -> Self {
        let same_boot = known.filter(|known| *known.head.boot_id == *report.boot_id);
        let baseline = same_boot.map(Stored::as_baseline);
        let cgroups = report.cgroups.iter().flat_map(|cgroups| &cgroups.cgroups);
        let mut cgroup_cpu_ns: Vec<_> = cgroups.filter_map(|cgroup| Some((cgroup.id, cgroup.cpu_ns?))).collect();
        cgroup_cpu_ns.sort_unstable();
        let baseline_bytes = baseline.as_ref().map_or(0, |baseline| size_of_val(&*baseline.cgroup_cpu_ns));
        let bytes = size_of::<Self>() + encoded.len() + size_of_val(&*cgroup_cpu_ns) + baseline_bytes;
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
            skew_ms: [skew_ms, same_boot.and_then(|known| known.skew_ms[0])],
            ended_boots,
        }
    }

    /// All of the last report, decoded anew: for what is asked of it once in a while.
    pub fn report(&self) -> Report {
        // It was read once.
        Report::decode(&*self.encoded).unwrap_or_default()
    }

    /// The last report, read anew.
    pub fn reading(&self) -> reading::Report<'_> {
        reading::Report::read(&self.encoded).unwrap_or_default()
    }

    /// Where its figures come from.
    pub fn sources(&self) -> Sources {
        self.sources
    }

    /// Why a report would be no news after this one. Absent: it would be.
    pub fn no_news(&self, new: &reading::Report<'_>) -> Option<NoNews> {
        let known = &self.head;
        if *known.boot_id != *new.boot_id {
            // Nothing orders two boots but their arrival: the node's clock may have been set between them. One that was over
            // does not come back.
            return self.ended_boots.iter().any(|ended| **ended == *new.boot_id).then_some(NoNews::Older);
        }
        let same_agent = known.started_at_ms == new.started_at_ms;
        if same_agent && known.sequence == new.sequence {
            return Some(NoNews::Duplicate);
        }
        // A time since boot that was wrong must not silence its node: what comes later by all else is later.
        let is_far_behind = known.uptime_ns.saturating_sub(new.uptime_ns) > DISORDER.as_nanos() as u64;
        let is_later = (new.started_at_ms, new.sequence) > (known.started_at_ms, known.sequence);
        if is_far_behind && is_later {
            return None;
        }
        // Within a boot its uptime orders the samples of one agent, and of an agent and its successor.
        let older = new.uptime_ns <= known.uptime_ns || (same_agent && new.sequence < known.sequence);
        older.then_some(NoNews::Older)
    }

    /// As the next report of the same boot is measured against it.
    fn as_baseline(&self) -> Baseline {
        let Head { uptime_ns, cpu_busy_ns, .. } = self.head;
        Baseline { uptime_ns, cpu_busy_ns, cgroup_cpu_ns: self.cgroup_cpu_ns.clone() }
    }

    /// How far the node's clock is ahead of this process's, in ms. The way of a report makes a clock seem to be behind, so
    /// of the last two reports the one counts that makes it seem less so.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.skew_ms.into_iter().flatten().max()
    }

    /// About how many bytes it takes, what rates are made of included.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// How long ago the report was received.
    pub fn age(&self, now: Now) -> Duration {
        now.since(self.received)
    }

    /// Its age is above three intervals: the agent is down, and what it said no longer counts.
    pub fn is_silent(&self, now: Now) -> bool {
        self.age(now) > self.silent_after()
    }

    /// How long after a report its agent counts as silent.
    pub fn silent_after(&self) -> Duration {
        self.interval * SILENT_INTERVALS
    }

    /// Cores that the machine kept busy between the last two reports, in billionths. Absent with one report only.
    pub fn cpu_busy_nanocores(&self) -> Option<u64> {
        let baseline = self.baseline.as_ref()?;
        let nanocores = rate_nano(baseline.cpu_busy_ns?, self.head.cpu_busy_ns?, self.elapsed_ns(baseline)?)?;
        // Ticks are read one processor after another, so a little above is rounding. Twice as much as there is, is not.
        let online = u64::from(self.head.cpus_online?) * 1_000_000_000;
        (nanocores <= 2 * online).then_some(nanocores)
    }

    /// Cores that one cgroup kept busy between the last two reports, in billionths. Absent if it was not in both.
    pub fn cgroup_nanocores(&self, id: u64, cpu_ns: u64) -> Option<u64> {
        let baseline = self.baseline.as_ref()?;
        let at = baseline.cgroup_cpu_ns.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let nanocores = rate_nano(baseline.cgroup_cpu_ns[at].1, cpu_ns, self.elapsed_ns(baseline)?)?;
        self.is_possible(nanocores).then_some(nanocores)
    }

    /// Ticks are read one processor after another, so a little more than there is is rounding. Twice as much is not.
    fn is_possible(&self, nanocores: u64) -> bool {
        self.head.cpus_online.is_none_or(|cpus| nanocores <= 2 * u64::from(cpus) * 1_000_000_000)
    }

    /// Time between the last two reports. Absent: none.
    pub(crate) fn elapsed_ns(&self, baseline: &Baseline) -> Option<u64> {
        self.head.uptime_ns.checked_sub(baseline.uptime_ns).filter(|elapsed_ns| *elapsed_ns > 0)
    }
}

/// A total that fell was reset: no rate.
fn rate_nano(before_ns: u64, after_ns: u64, elapsed_ns: u64) -> Option<u64> {
    let used_ns = after_ns.checked_sub(before_ns)?;
    u64::try_from(u128::from(used_ns) * 1_000_000_000 / u128::from(elapsed_ns)).ok()
}
