//! One line for each node: whether it takes pods, its GPUs from installed to free, and what is free of CPU and memory.
use std::collections::BTreeMap;

use mcad_accounting::resource::{NVIDIA_GPU, Resource};
use mcad_terminal::grid::{Column, Grid, Line};

use super::cell::{NONE, UNKNOWN, amount, declared};
use super::{Rules, View, declared_by, tone, write_notes};
use crate::explain::amount::{list, printable};
use crate::explain::ladder::Requested;
use crate::explain::node::{Agent, NodeEntry, amiss, simulated, with_fake_gpus};

const STATE: Column = Column::words("STATE");
const GPUS: [Column; 5] = [
    Column::amounts("GPUS", "GPUS"),
    Column::amounts("HEALTHY", "HEALTHY"),
    Column::amounts("ALLOCATABLE", "ALLOC"),
    Column::amounts("REQUESTED", "REQ"),
    Column::amounts("FREE", "FREE"),
];
const REST: [Column; 3] =
    [Column::amounts("CPU-FREE", "CPU-FREE"), Column::amounts("MEM-FREE", "MEM-FREE"), Column::words("AGENT")];

/// The table of nodes.
pub fn nodes(entries: &[NodeEntry], rules: Rules<'_>, view: View) -> String {
    let Rules { is_accelerator, knows_devices } = rules;
    let mut out = String::new();
    if entries.is_empty() {
        out.push_str("No nodes.\n");
        return out;
    }
    let has_state = entries.iter().any(|node| node.state.is_some());
    let installed = installed(entries, is_accelerator);
    let gpu = main(&installed).or((!knows_devices).then_some(Resource::Gpu));
    let mut columns = vec![Column::words("NODE")];
    columns.extend(has_state.then_some(STATE));
    columns.extend(gpu.iter().flat_map(|_| GPUS));
    columns.extend(REST);
    let line = |node: &NodeEntry| {
        let mut cells = vec![printable(&node.name)];
        cells.extend(has_state.then(|| node.state.map_or_else(|| NONE.to_owned(), |state| state.replace('_', " "))));
        cells.extend(gpu.iter().flat_map(|gpu| gpus(gpu, node, knows_devices)));
        cells.extend([Resource::Cpu, Resource::Memory].map(|resource| free(&resource, node)));
        cells.push(agent(node.agent));
        Line { cells, tone: tone(node) }
    };
    Grid { columns, lines: entries.iter().map(line).collect() }.write(&mut out, view);
    write_notes(&mut out, &notes(entries, gpu.as_ref(), &installed), view);
    out
}

/// How much of each accelerator the nodes have together.
fn installed(entries: &[NodeEntry], is_accelerator: &dyn Fn(&str) -> bool) -> BTreeMap<String, i64> {
    let mut installed = BTreeMap::new();
    for (name, ladder) in entries.iter().flat_map(|node| &node.ladder.devices) {
        if is_accelerator(name) && !ladder.is_nothing() {
            let all: &mut i64 = installed.entry(name.clone()).or_default();
            *all = all.saturating_add(ladder.installed.unwrap_or(0));
        }
    }
    installed
}

/// The accelerator that the table shows: whole NVIDIA GPUs, else the one of which there is most.
fn main(installed: &BTreeMap<String, i64>) -> Option<Resource> {
    if installed.contains_key(NVIDIA_GPU) {
        return Some(Resource::Gpu);
    }
    let most = installed.iter().rev().max_by_key(|(_, amount)| **amount);
    most.map(|(name, _)| Resource::extended(name))
}

fn gpus(resource: &Resource, node: &NodeEntry, knows_devices: bool) -> [String; 5] {
    let ladder = node.ladder.get(resource).filter(|ladder| !ladder.is_nothing());
    let Some(ladder) = ladder else {
        return [if knows_devices { NONE } else { UNKNOWN }; 5].map(str::to_owned);
    };
    [
        amount(resource, ladder.installed),
        amount(resource, ladder.healthy),
        declared(resource, node, ladder.allocatable),
        declared(resource, node, ladder.requested.map(Requested::in_all)),
        declared(resource, node, ladder.free),
    ]
}

fn free(resource: &Resource, node: &NodeEntry) -> String {
    declared(resource, node, node.ladder.get(resource).and_then(|ladder| ladder.free))
}

/// An agent of which no report was read may run, and report to an aggregator.
fn agent(agent: Agent) -> String {
    if agent.state == "up" { "up".to_owned() } else { UNKNOWN.to_owned() }
}

fn notes(entries: &[NodeEntry], gpu: Option<&Resource>, installed: &BTreeMap<String, i64>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(gpu) = gpu {
        let others: Vec<_> = installed.keys().filter(|name| *name != gpu.name()).map(|name| printable(name)).collect();
        let others = match others.len() {
            0 => String::new(),
            _ => format!(" `kubectl mcad gpus` also lists {}.", list(&others)),
        };
        notes.push(format!("The columns GPUS to FREE count {}.{others}", printable(gpu.name())));
    }
    notes.push("CPU is in cores, memory in GiB.".to_owned());
    let unknown = entries.iter().filter(|node| agent(node.agent) == UNKNOWN).count();
    let declared = format!("installed and healthy devices are those that {}", declared_by(entries));
    if unknown == entries.len() {
        notes.push(format!(
            "AGENT is unknown because no report was read: {declared}. The aggregator's page and its /api/v1 have what agents measure."
        ));
    } else if unknown > 0 {
        notes.push(format!("Where AGENT is unknown, no report was read: {declared}."));
    }
    notes.extend(amiss(entries));
    notes.extend(simulated(with_fake_gpus(entries)));
    notes
}
