//! The last report of every node, and what of the one before is needed for rates. Owns what is news and what is not, and
//! how many nodes are kept; asks no clock.
//!
//! Nearly all that is made of a report is made as it comes, from what was decoded to check it. So it is kept as it came, a fifth
//! of that, in one piece; what is asked of it again and again is kept beside it.
mod head;

use std::sync::Arc;
use std::time::Duration;

use mcad_wire::reading;
use mcad_wire::report::Report;
use prost::Message as _;

use crate::clock::Now;
use crate::receive::{NodeName, Received, Refusal};
use crate::table::Table;
use head::Head;
pub use head::{CgroupSource, GpuSource, Sources};

/// An agent that has been silent for this many of its intervals is down.
const SILENT_INTERVALS: u32 = 3;
/// Boots of a node that are remembered once they are over: a report that somebody kept from one of them is no news. More
/// than these within the hour that a silent node is kept is a machine that reboots without end.
const ENDED_BOOTS: usize = 4;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes.
    pub nodes: usize,
    /// How long a node stays after its agent fell silent.
    pub keep: Duration,
    /// Memory of all reports, in bytes. 8 KiB is a usual node's, so the default is that of 131,072 nodes, or of 1,000 whose
    /// every report is as large as one may be.
    pub bytes: u64,
}

/// See [`Limits::bytes`].
pub const REPORT_BYTES: u64 = 1 << 30;

impl Limits {
    /// Without Kubernetes nobody says which nodes there are, so the agents' word stands, for a bounded while: an hour is
    /// long enough to see in an alert that an agent died. One machine runs one agent; a few more are someone's test.
    pub const LOCAL: Self = Self { nodes: 64, keep: Duration::from_hours(1), bytes: REPORT_BYTES };
    /// The API server says which nodes there are, and others are refused; what is left of a removed one goes after an hour.
    pub const KUBERNETES: Self = Self { nodes: usize::MAX, keep: Duration::from_hours(1), bytes: REPORT_BYTES };
    /// Reports from a file beside a dump, which says which nodes there are.
    pub const REPLAY: Self = Self { nodes: usize::MAX, keep: Duration::from_hours(1 << 20), bytes: u64::MAX };
}

/// The last report of every node.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    /// In no order, which is made where it is asked for: a report looks up one.
    nodes: Table<NodeName, Arc<Stored>>,
    /// What they take together.
    bytes: u64,
}

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

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the node's last one now.
    Taken,
    /// It is no news: the sender need not repeat it.
    Dropped(NoNews),
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

impl Store {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, nodes: Table::default(), bytes: 0 }
    }

    /// The same with this limit on [`Limits::bytes`], or what it has already.
    #[must_use]
    pub fn bounded(mut self, bytes: u64) -> Self {
        self.limits.bytes = bytes.max(self.bytes);
        self
    }

    /// The nodes whose report is kept, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    /// Takes a report if it is news.
    pub fn insert(&mut self, received: &Received<'_>, now: Now) -> Result<Outcome, Refusal> {
        let known = self.nodes.get(&received.node);
        if let Some(drop) = known.and_then(|known| no_news(known, &received.report)) {
            return Ok(Outcome::Dropped(drop));
        }
        if known.is_none() && self.nodes.len() >= self.limits.nodes {
            self.forget(now);
            if self.nodes.len() >= self.limits.nodes {
                return Err(Refusal::TooManyNodes(self.limits.nodes));
            }
        }
        let known = self.nodes.get(&received.node);
        let stored = Stored::new(known.map(|known| &**known), received, now);
        let before = known.map_or(0, |known| known.weight);
        let bytes = self.bytes - before + stored.weight;
        // A report that is smaller than the one before it always finds room.
        if bytes > self.limits.bytes && stored.weight > before {
            return Err(Refusal::NoRoom(self.limits.bytes));
        }
        self.bytes = bytes;
        self.nodes.insert(received.node.clone(), Arc::new(stored));
        Ok(Outcome::Taken)
    }

    /// The last report of a node.
    pub fn latest(&self, node: &NodeName) -> Option<Arc<Stored>> {
        self.nodes.get(node).cloned()
    }

    /// All nodes, by name; those silent for too long are forgotten first.
    pub fn reports(&mut self, now: Now) -> Vec<(NodeName, Arc<Stored>)> {
        self.forget(now);
        let mut reports: Vec<_> = self.nodes.iter().map(|(name, stored)| (name.clone(), Arc::clone(stored))).collect();
        reports.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        reports
    }

    fn forget(&mut self, now: Now) {
        let (keep, bytes) = (self.limits.keep, &mut self.bytes);
        self.nodes.retain(|_, stored| {
            let kept = stored.age(now) < stored.silent_after() + keep;
            *bytes -= if kept { 0 } else { stored.weight };
            kept
        });
    }
}

impl Stored {
    fn new(known: Option<&Stored>, received: &Received<'_>, now: Now) -> Self {
        let (report, encoded) = (&received.report, received.encoded());
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

    /// How long ago the report was received.
    pub fn age(&self, now: Now) -> Duration {
        now.since(self.received)
    }

    /// Its age is above three intervals: the agent is down, and what it said no longer counts.
    pub fn is_silent(&self, now: Now) -> bool {
        self.age(now) > self.silent_after()
    }

    fn silent_after(&self) -> Duration {
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
        rate_nano(baseline.cgroup_cpu_ns[at].1, cpu_ns, self.elapsed_ns(baseline)?)
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

fn no_news(stored: &Stored, new: &reading::Report<'_>) -> Option<NoNews> {
    let known = &stored.head;
    if *known.boot_id != *new.boot_id {
        // Nothing orders two boots but their arrival: the node's clock may have been set between them. One that was over
        // does not come back.
        return stored.ended_boots.iter().any(|ended| **ended == *new.boot_id).then_some(NoNews::Older);
    }
    let same_agent = known.started_at_ms == new.started_at_ms;
    if same_agent && known.sequence == new.sequence {
        return Some(NoNews::Duplicate);
    }
    // Within a boot its uptime orders the samples of one agent, and of an agent and its successor.
    let older = new.uptime_ns <= known.uptime_ns || (same_agent && new.sequence < known.sequence);
    older.then_some(NoNews::Older)
}

#[cfg(test)]
mod tests;
