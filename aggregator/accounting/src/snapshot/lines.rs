//! Who waits for each ClusterQueue, in the order in which Kueue tries them, and the Cohorts that the ClusterQueues are in.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::{Cohort, Workload};
use crate::queue::facts::Facts;

/// So many Workloads of a line are kept: a person reads no more, and a line may have a hundred thousand.
pub const FIRST: usize = 5;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// The Cohorts that have an object, by name.
    pub cohorts: Vec<Arc<Cohort>>,
    /// The lines that are not empty, by ClusterQueue.
    pub queues: BTreeMap<Arc<str>, Line>,
}

/// The Workloads that wait for a ClusterQueue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The first of them in order, at most [`FIRST`].
    pub first: Vec<Arc<Workload>>,
    /// How many are in line.
    pub in_line: u64,
    /// How many wait outside of the line: Kueue does not try them now.
    pub held_back: u64,
}

impl Lines {
    /// From the facts about a cluster. `now_ms` is the time that back-off is compared with.
    pub fn of(facts: &Facts, now_ms: Option<i64>) -> Self {
        let mut waiting: BTreeMap<&Arc<str>, Vec<&Arc<Workload>>> = BTreeMap::new();
        let mut queues: BTreeMap<Arc<str>, Line> = BTreeMap::new();
        for workload in &facts.workloads {
            let Some(open) = workload.pending() else { continue };
            let Some(local) = facts.local_queue(&workload.name.namespace, &open.queue) else { continue };
            if open.is_in_line(now_ms) && !local.is_stopped {
                waiting.entry(&local.cluster_queue).or_default().push(workload);
            } else {
                queues.entry(local.cluster_queue.clone()).or_default().held_back += 1;
            }
        }
        for (queue, mut line) in waiting {
            let of_queue = queues.entry(queue.clone()).or_default();
            of_queue.in_line = line.len() as u64;
            if line.len() > FIRST {
                line.select_nth_unstable_by(FIRST, |a, b| a.place().cmp(&b.place()));
                line.truncate(FIRST);
            }
            line.sort_by(|a, b| a.place().cmp(&b.place()));
            of_queue.first = line.into_iter().cloned().collect();
        }
        Self { cohorts: facts.cohorts.clone(), queues }
    }
}
