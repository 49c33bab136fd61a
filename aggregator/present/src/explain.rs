//! What people and scripts are told of a [`Snapshot`]: the ladder, what is withheld and where, why AppWrappers wait.
//!
//! `explain` prints it in a terminal, `/api/v1` and `explain --json` hand the same types to machines. Pure: from a snapshot to
//! values, from values to text or JSON. Paths and pages are [`crate::api`]'s.
//!
//! What is not known has no field in JSON and is called unknown in text: it never looks like 0.

pub mod amount;
pub mod ladder;

pub mod appwrapper;
pub mod cluster;
pub mod missing;
pub mod node;
pub mod truth;
pub mod why;

pub mod text;

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

pub use self::text::text;

use mcad_accounting::input::Input;
use mcad_accounting::merge::Snapshot;
use mcad_accounting::now::Now;

use self::amount::is_hostile;
use self::appwrapper::AppWrapper;
use self::cluster::Cluster;
use self::node::Node;
use self::why::Places;

/// What an explanation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All of it.
    Cluster,
    /// The node of this name.
    Node(String),
}

/// One answer: what was asked for, and no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// What is said of the dump that it was made from. Absent: it was not made from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Arc<Input>>,
    /// Age of the snapshot that it was made from.
    pub snapshot_age_seconds: f64,
    /// Objects of a dump that could not be read: the figures are without them.
    #[serde(skip_serializing_if = "is_zero")]
    pub objects_left_out: usize,
    /// The cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// One node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    /// Nodes in order of name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<Node>>,
    /// One AppWrapper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrapper: Option<AppWrapper>,
    /// AppWrappers in order of namespace and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrappers: Option<Vec<AppWrapper>>,
    /// Where the next page begins. Absent: this is the last one.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There is no such node.
    #[error("no node is called {0}")]
    NoSuchNode(String),
    /// Nodes are not known.
    #[error("Nodes are not known: not listed yet, out of reach, or not in the dump")]
    NodesUnknown,
}

impl Answer {
    /// One of nothing, of that snapshot as it is looked at `now`.
    pub fn of(snapshot: &Snapshot, now: Now) -> Self {
        Self {
            input: snapshot.input.clone(),
            snapshot_age_seconds: now.since(snapshot.made).as_secs_f64(),
            objects_left_out: snapshot.input.as_ref().map_or(0, |input| input.left_out.len() + input.more_left_out),
            ..Self::default()
        }
    }

    /// All there is to say on a subject.
    pub fn on(subject: &Subject, snapshot: &Snapshot, now: Now) -> Result<Self, Unanswered> {
        let mut answer = Self::of(snapshot, now);
        match subject {
            Subject::Node(name) => answer.node = Some(Node::named(name, snapshot)?),
            Subject::Cluster => {
                answer.cluster = Some(Cluster::new(snapshot));
                answer.nodes = Node::count(snapshot).map(|count| (0..count).map(|at| Node::at(at, snapshot)).collect());
                let kubernetes = snapshot.kubernetes.as_ref();
                answer.appwrappers = kubernetes.and_then(|kubernetes| {
                    let mut places = Places::new(kubernetes);
                    let all = &kubernetes.appwrappers.as_ref()?.appwrappers;
                    Some(all.iter().map(|view| AppWrapper::new(view, &mut places)).collect())
                });
            }
        }
        Ok(answer)
    }
}

/// An answer as JSON, one line. No character that a terminal would obey is left as it is.
pub fn json(answer: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(answer)?;
    if !text.chars().any(is_hostile) {
        return Ok(text);
    }
    // serde_json escapes what is below the space. The rest can only stand within strings, and all of it is below U+10000.
    let mut safe = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_hostile(c) {
            // Writing to a String has no error.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
