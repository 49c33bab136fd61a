//! Tables of nodes and of GPUs, and why one AppWrapper waits, for a terminal: `kubectl mcad nodes`, `gpus` and `why`.
//!
//! Made of the types that `/api/v1` returns ([`crate::explain`]). A value that is not known is printed as `unknown`, never as 0; `-` stands
//! where a node has none of a resource.
mod cell;

pub mod drain;
pub mod fit;
pub mod gpus;
pub mod nodes;
pub mod why;

use std::fmt::Write as _;

use mcad_accounting::ladder::NodeState;
use mcad_accounting::snapshot::Snapshot;
use mcad_terminal::grid;
use mcad_terminal::paint::Tone;

use crate::explain::amount::printable;
use crate::explain::cluster::Cluster;
use crate::explain::missing;
use crate::explain::node::NodeEntry;

pub use mcad_terminal::grid::View;

/// What the tables of nodes need to know besides the nodes.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Whether an extended resource of that name is an accelerator.
    pub is_accelerator: &'a dyn Fn(&str) -> bool,
    /// Whether devices and claims are known. If not, a node may have GPUs of which nothing is known.
    pub knows_devices: bool,
}

/// What is missing from the cluster or out of the ordinary, a sentence each. For a dump, only what is not among the complaints about it
/// ([`mcad_accounting::input::Input`]).
pub fn warnings(snapshot: &Snapshot) -> Vec<String> {
    missing::lines(&Cluster::new(snapshot), snapshot.input.as_deref())
}

/// Whether the node takes new pods, decides the tone of its line.
fn tone(node: &NodeEntry) -> Tone {
    let is = |state: NodeState| node.state == Some(state.label());
    if is(NodeState::NotReady) {
        Tone::Bad
    } else if is(NodeState::Cordoned) || is(NodeState::Tainted) {
        Tone::Held
    } else {
        Tone::Normal
    }
}

/// Who declares what is installed where no agent reports.
fn declared_by(entries: &[NodeEntry]) -> &'static str {
    let mut ladders = entries.iter().flat_map(|node| node.ladder.devices.values());
    if ladders.any(|ladder| ladder.has_slices) { "kubelet and drivers declare" } else { "kubelet declares" }
}

/// Adds a line with a label, `gap` wide, and the text behind it; as many lines as the text needs.
fn write_labelled(out: &mut String, (label, gap): (&str, usize), text: &str, view: View) {
    let width = view.width.map_or(usize::MAX, |width| width.saturating_sub(gap));
    let text = grid::wrapped(&printable(text), width).join(&format!("\n{:gap$}", ""));
    // Writing to a String has no error.
    let _ = writeln!(out, "{label:<gap$}{text}");
}

/// Adds sentences under a table.
fn write_notes(out: &mut String, notes: &[String], view: View) {
    if notes.is_empty() {
        return;
    }
    out.push('\n');
    for note in notes {
        for line in grid::wrapped(note, view.width.unwrap_or(usize::MAX)) {
            out.push_str(&view.paint.tone(Tone::Quiet, &line));
            out.push('\n');
        }
    }
}
