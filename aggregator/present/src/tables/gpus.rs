//! One table for each kind of GPU or other accelerator, with a line for each node that has it: what works, what is missing, what is
//! requested, used and free, and why the rest is withheld.
use mcad_accounting::ladder::Reason;
use mcad_accounting::resource::Resource;
use mcad_terminal::grid::{Column, Grid, Line};
use mcad_terminal::paint::Tone;

use super::cell::{NONE, UNKNOWN, amount, declared};
use super::{Rules, View, declared_by, tone, write_notes};
use crate::explain::amount::{Rounding, number, printable};
use crate::explain::ladder::{LadderEntry, Requested, Shares, UsedBy};
use crate::explain::node::{NodeEntry, simulated, with_fake_gpus};
use crate::explain::truth::shares_in_words;
use crate::reasons::shown;
use crate::resources::order;

const COLUMNS: [Column; 9] = [
    Column::words("NODE"),
    Column::amounts("INSTALLED", "INST"),
    Column::amounts("HEALTHY", "HEALTHY"),
    Column::amounts("PHANTOM", "PHANTOM"),
    Column::amounts("LOST", "LOST"),
    Column::amounts("REQUESTED", "REQ"),
    Column::amounts("USED", "USED"),
    Column::amounts("FREE", "FREE"),
    Column::text("WITHHELD"),
];

/// Whether the node has any of an accelerator. `is_accelerator` decides by the name of an extended resource.
pub fn has_any(node: &NodeEntry, is_accelerator: &dyn Fn(&str) -> bool) -> bool {
    node.ladder.devices.iter().any(|(name, ladder)| is_accelerator(name) && !ladder.is_nothing())
}

/// The tables of GPUs, one for each resource.
pub fn gpus(entries: &[NodeEntry], rules: Rules<'_>, view: View) -> String {
    let Rules { is_accelerator, knows_devices } = rules;
    let names = entries.iter().flat_map(|node| &node.ladder.devices);
    let names = names.filter(|(name, ladder)| is_accelerator(name) && !ladder.is_nothing());
    let mut resources: Vec<_> = names.map(|(name, _)| Resource::extended(name)).collect();
    resources.sort_by_key(order);
    resources.dedup();
    if resources.is_empty() && !knows_devices && !entries.is_empty() {
        resources.push(Resource::Gpu);
    }
    if resources.is_empty() {
        return "No node has a GPU or another accelerator. With --accelerator NAME, the extended resource NAME is one, too.\n"
            .to_owned();
    }
    let mut out = String::new();
    for resource in &resources {
        if !out.is_empty() {
            out.push('\n');
        }
        write_title(&mut out, resource, entries, view);
        let of_node = |node: &NodeEntry| match node.ladder.get(resource).filter(|ladder| !ladder.is_nothing()) {
            Some(ladder) => Some(line(resource, node, ladder)),
            None => (!knows_devices).then(|| unknown(node)),
        };
        let lines = entries.iter().filter_map(of_node).collect();
        Grid { columns: COLUMNS.to_vec(), lines }.write(&mut out, view);
    }
    write_notes(&mut out, &notes(entries, &resources), view);
    out
}

fn write_title(out: &mut String, resource: &Resource, entries: &[NodeEntry], view: View) {
    let of_nodes = entries.iter().filter_map(|node| node.shares.get(resource.name()));
    let shares = of_nodes.fold(Shares::default(), |all, of_node| Shares {
        shares: all.shares.saturating_add(of_node.shares),
        devices: all.devices.saturating_add(of_node.devices),
    });
    let shares = if shares.shares > 0 { format!(": {}", shares_in_words(resource, shares)) } else { String::new() };
    out.push_str(&view.paint.tone(Tone::Title, &format!("{}{shares}", printable(resource.name()))));
    out.push('\n');
}

fn line(resource: &Resource, node: &NodeEntry, ladder: &LadderEntry) -> Line {
    let used = ladder.used.as_ref().and_then(UsedBy::in_all).map(|used| number(resource, used, Rounding::Nearest));
    let cells = vec![
        printable(&node.name),
        amount(resource, ladder.installed),
        amount(resource, ladder.healthy),
        declared(resource, node, ladder.phantom),
        declared(resource, node, lost(ladder)),
        declared(resource, node, ladder.requested.map(Requested::in_all)),
        used.unwrap_or_else(|| UNKNOWN.to_owned()),
        declared(resource, node, ladder.free),
        withheld(resource, node, ladder),
    ];
    let is_broken = ladder.healthy.zip(ladder.installed).is_some_and(|(healthy, installed)| healthy < installed)
        || ladder.phantom.is_some_and(|phantom| phantom > 0);
    Line { cells, tone: if is_broken { Tone::Bad } else { tone(node) } }
}

/// The line of a node that may have devices of which nothing is known.
fn unknown(node: &NodeEntry) -> Line {
    let mut cells = vec![UNKNOWN.to_owned(); COLUMNS.len()];
    cells[0] = printable(&node.name);
    Line { cells, tone: tone(node) }
}

/// How many are gone. `None` if no agent has looked: none is known to be lost then, and none is known to be there.
fn lost(ladder: &LadderEntry) -> Option<i64> {
    let lost = ladder.withheld.as_ref()?.get(Reason::Lost);
    (lost > 0 || ladder.phantom.is_some()).then_some(lost)
}

/// How much is withheld for which reason.
fn withheld(resource: &Resource, node: &NodeEntry, ladder: &LadderEntry) -> String {
    let Some(withheld) = &ladder.withheld else { return declared(resource, node, None) };
    let reasons = Reason::ALL.into_iter().filter(|reason| withheld.get(*reason) != 0);
    let reasons: Vec<_> = reasons
        .map(|reason| format!("{} {}", amount(resource, Some(withheld.get(reason))), shown(reason).words))
        .collect();
    if reasons.is_empty() { NONE.to_owned() } else { reasons.join(", ") }
}

fn notes(entries: &[NodeEntry], resources: &[Resource]) -> Vec<String> {
    let mut notes = vec![
        "PHANTOM: devices that kubelet or a driver declares allocatable, but that the agent does not find or that do not work.".to_owned(),
    ];
    let mut ladders = resources.iter().flat_map(|resource| entries.iter().filter_map(|node| node.ladder.get(resource)));
    if ladders.any(|ladder| !ladder.is_nothing() && ladder.phantom.is_none() && ladder.capacity.is_some()) {
        notes.push(format!(
            "Where PHANTOM is unknown, no agent's report was read: installed and healthy devices are those that {}.",
            declared_by(entries),
        ));
    }
    if let Some(node) = entries.iter().find(|node| node.gpus.as_ref().is_some_and(|gpus| !gpus.is_empty())) {
        notes.push(format!(
            "The GPUs of a node one by one, and which pods hold them: kubectl mcad --node {}",
            printable(&node.name)
        ));
    }
    notes.extend(simulated(with_fake_gpus(entries)));
    notes
}
