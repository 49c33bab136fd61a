//! Explains a [`Snapshot`] to people and scripts: the ladder, what is withheld and where, why AppWrappers wait.
//!
//! `explain` prints it in a terminal; `/api/v1` and `explain --json` return the same types as JSON. Pure: from a snapshot to
//! values, from values to text or JSON. [`crate::api`] owns paths and pages.
//!
//! An unknown value has no field in JSON and is called unknown in text: it never looks like 0.

pub mod amount;
pub mod held;
pub mod ladder;

pub mod appwrapper;
pub mod claims;
pub mod cluster;
pub mod kueue;
pub mod missing;
pub mod node;
pub mod queues;
pub mod quota;
pub mod truth;
mod waiting;
pub mod why;

pub mod notes;
pub mod submission;

pub mod drain;

pub mod text;

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

pub use self::text::text;

use mcad_accounting::input::Input;
use mcad_accounting::now::Now;
use mcad_accounting::snapshot::Snapshot;

use self::amount::is_hostile;
use self::appwrapper::AppWrapper;
use self::cluster::Cluster;
use self::node::NodeEntry;
use self::queues::{Flavor, Queue};
use self::why::Places;

/// The subject of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The whole cluster.
    Cluster,
    /// The node of this name.
    Node(String),
}

/// One answer: only what was requested.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Facts about the dump that it was made from. `None` if it was not made from a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Arc<Input>>,
    /// Age of the snapshot that it was made from.
    pub snapshot_age_seconds: f64,
    /// Objects of a dump that could not be read: no value includes them.
    #[serde(skip_serializing_if = "is_zero")]
    pub objects_left_out: usize,
    /// The cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// One node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeEntry>,
    /// Nodes in order of name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeEntry>>,
    /// One AppWrapper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrapper: Option<AppWrapper>,
    /// AppWrappers in order of namespace and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrappers: Option<Vec<AppWrapper>>,
    /// One ClusterQueue of Kueue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// ClusterQueues of Kueue in order of name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<Queue>>,
    /// ResourceFlavors of Kueue in order of name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavors: Option<Vec<Flavor>>,
    /// The `continue` parameter of the next page. `None` if this is the last page.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The node does not exist.
    #[error("no node named {0}")]
    NoSuchNode(String),
    /// Nodes are not known.
    #[error("Nodes are not known: not listed yet, the API server cannot be reached, or they are not in the dump")]
    NodesUnknown,
}

impl Answer {
    /// An empty answer of a snapshot; ages are those at `now`.
    pub fn of(snapshot: &Snapshot, now: Now) -> Self {
        Self {
            input: snapshot.input.clone(),
            snapshot_age_seconds: now.since(snapshot.made).as_secs_f64(),
            objects_left_out: snapshot.input.as_ref().map_or(0, |input| input.left_out.len() + input.more_left_out),
            ..Self::default()
        }
    }

    /// Everything about a subject.
    pub fn on(subject: &Subject, snapshot: &Snapshot, now: Now) -> Result<Self, Unanswered> {
        let mut answer = Self::of(snapshot, now);
        match subject {
            Subject::Node(name) => answer.node = Some(NodeEntry::named(name, snapshot)?),
            Subject::Cluster => {
                answer.cluster = Some(Cluster::new(snapshot));
                let nodes = snapshot.nodes.as_ref().map(|nodes| &nodes.nodes);
                answer.nodes = nodes.map(|nodes| nodes.iter().map(|view| NodeEntry::new(view, snapshot)).collect());
                answer.appwrappers = snapshot.appwrappers.as_ref().map(|all| {
                    let mut places = Places::new(snapshot);
                    all.appwrappers.iter().map(|view| AppWrapper::new(view, &mut places)).collect()
                });
                let queues = snapshot.queues.as_ref();
                answer.queues = queues.map(|all| all.queues.iter().map(|queue| Queue::new(queue, all)).collect());
                answer.flavors = queues.map(|all| all.flavors.iter().map(Flavor::new).collect());
            }
        }
        Ok(answer)
    }
}

/// An answer as one line of JSON. Characters that control a terminal are escaped.
pub fn json(answer: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(answer)?;
    if !text.chars().any(is_hostile) {
        return Ok(text);
    }
    // serde_json escapes characters below the space. Other hostile characters occur only in strings, and all are below U+10000.
    let mut safe = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_hostile(c) {
            // Writing to a String never fails.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
pub(crate) fn is_zero(count: &usize) -> bool {
    *count == 0
}
