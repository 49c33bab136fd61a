//! The last report of every node. Owns how many nodes are kept, how much of them, and for how long; asks no clock.
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::reported::{NoNews, Stored};
use mcad_accounting::table::Table;

use crate::receive::{Received, Refusal};

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

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the node's last one now.
    Taken,
    /// It is no news: the sender need not repeat it.
    Dropped(NoNews),
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
        if let Some(drop) = known.and_then(|known| known.no_news(&received.report)) {
            return Ok(Outcome::Dropped(drop));
        }
        if known.is_none() && self.nodes.len() >= self.limits.nodes {
            self.forget(now);
            if self.nodes.len() >= self.limits.nodes {
                return Err(Refusal::TooManyNodes(self.limits.nodes));
            }
        }
        let known = self.nodes.get(&received.node);
        let stored = Stored::after(known.map(|known| &**known), &received.report, received.encoded(), now);
        let before = known.map_or(0, |known| known.weight());
        let bytes = self.bytes - before + stored.weight();
        // A report that is smaller than the one before it always finds room.
        if bytes > self.limits.bytes && stored.weight() > before {
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
            *bytes -= if kept { 0 } else { stored.weight() };
            kept
        });
    }
}

#[cfg(test)]
mod tests;
