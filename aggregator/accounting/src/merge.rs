//! Joins agents' reports and the cluster into one [`Snapshot`]. Decides which reports count. Pure: no clock, no lock, no text. The snapshot
//! contains everything that `/metrics`, the page and the API show.
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::node_name::NodeName;
use crate::nodes::{Nodes, Seen};
use crate::now::Now;
use crate::queue::Accounts;
use crate::reported::Stored;
use crate::snapshot::Snapshot;
use crate::snapshot::agent::{Agent, AgentHealth, Expectation};
use crate::snapshot::held::Held;
use crate::snapshot::verdict::Fits;

/// The cluster, as far as it is known.
#[derive(Debug)]
pub struct View<'a> {
    /// What the API server reports; without Kubernetes, the nodes whose agents report.
    pub cluster: &'a Cluster,
    /// What is known of its nodes, the totals of AppWrappers, and the rules that metrics are computed by.
    pub nodes: &'a mut Nodes,
    /// The last result of the fit computation.
    pub fits: &'a Fits,
    /// The time of the snapshot from which the fit was computed.
    pub fitted: Option<Now>,
    /// What was last computed of Kueue's queues. `None` if they are not known.
    pub queues: Option<&'a Arc<Accounts>>,
    /// Whether the age of reports matters.
    pub ages: Ages,
    /// The time against which ages of Kubernetes objects are computed, in ms since the Unix epoch. `None` if it is not known.
    pub told_at_ms: Option<i64>,
}

/// Whether the age of a report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ages {
    /// A report older than three intervals no longer counts.
    Count,
    /// Age does not matter: the reports are as old as the dump beside them.
    DoNot,
}

/// Makes the snapshot for the time `now`.
pub fn merge(view: View<'_>, now: Now) -> Snapshot {
    let View { cluster, nodes, fits, fitted, queues, ages, told_at_ms } = view;
    let counts = |stored: &Stored| ages == Ages::DoNot || !stored.is_silent(now);
    // If the nodes are not known, there are no agents either.
    let seen = if cluster.knows_nodes() { nodes.seen(cluster, counts) } else { Vec::new() };
    let options = nodes.options();
    let agent = |Seen { view, report, .. }: &Seen| {
        // A node whose name Kubernetes would refuse has no agent.
        let node = NodeName::new(&view.node.name).ok()?;
        let chosen = options.agent_nodes.selects(|key| view.node.label(key));
        let counting = report.as_ref().filter(|stored| counts(stored));
        Some(Agent {
            node,
            expectation: if chosen { Expectation::Expected } else { Expectation::NotExpected },
            health: if counting.is_some() { AgentHealth::Up } else { AgentHealth::Down },
            report_age: report.as_ref().filter(|_| ages == Ages::Count).map(|stored| stored.age(now)),
            clock_skew_ms: counting.filter(|_| ages == Ages::Count).and_then(|stored| stored.clock_skew_ms()),
            sources: counting.map(|stored| stored.sources()),
        })
    };
    let held = Held::new(seen.iter().filter_map(|seen| seen.held.as_deref()), nodes.totals());
    let agents = seen.iter().filter_map(agent).collect();
    let views = seen.into_iter().map(|seen| seen.view).collect();
    let mut snapshot = Snapshot { agents, fitted, ..Snapshot::new(cluster, views, now, told_at_ms, options) };
    snapshot.with_fits(fits);
    snapshot.with_queues(queues.filter(|_| cluster.knows_queues()).cloned());
    snapshot.with_totals(nodes.totals());
    snapshot.with_held(held, nodes.pods_idle_ns(cluster));
    snapshot
}
