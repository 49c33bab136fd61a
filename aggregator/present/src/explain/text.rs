//! An explanation as text for people. Owns the lines and their words; [`mcad_terminal`] owns the layout.
//!
//! All text from outside passes through [`printable`].
mod queues;

use std::collections::BTreeMap;

use mcad_accounting::cluster::Missing;
use mcad_accounting::input::Input;
use mcad_accounting::ladder::{NodeState, Reason};
use mcad_accounting::resource::Resource;
use mcad_terminal::bar;
use mcad_terminal::paint::{Paint, Tone};
use mcad_terminal::table::{self, Row};

use super::amount::{Rounding, count, list, number, printable, span, unit};
use super::appwrapper::{AppWrapper, PlacedInPart};
use super::cluster::{Cluster, OnNodes, pools};
use super::ladder::{ByResource, LadderEntry, Shares, UsedBy};
use super::node::{GpuEntry, NodeEntry, simulated, with_fake_gpus};
use super::{Answer, missing, truth};
use crate::reasons::shown;

/// The most nodes that are named in a line.
const NAMED: usize = 5;
const UNKNOWN: &str = "unknown";

/// The text of an answer.
pub fn text(answer: &Answer, paint: Paint) -> String {
    let mut out = String::new();
    if let Some(input) = &answer.input {
        write_input(&mut out, input, paint);
    }
    if let Some(cluster) = &answer.cluster {
        write_cluster(&mut out, cluster, answer, paint);
        write_appwrappers(&mut out, cluster, answer, paint);
        if let (Some(queues), Some(flavors)) = (&answer.queues, &answer.flavors) {
            queues::write(&mut out, cluster, queues, flavors, paint);
        }
    }
    if let Some(node) = &answer.node {
        write_node(&mut out, node, paint);
    }
    out
}

/// Problems of the input come before everything that is derived from it.
fn write_input(out: &mut String, input: &Input, paint: Paint) {
    let objects = [
        count(input.nodes as u64, "Node", "Nodes"),
        count(input.pods as u64, "Pod", "Pods"),
        count(input.appwrappers as u64, "AppWrapper", "AppWrappers"),
    ];
    let server = input.server_version.as_ref().map(|version| format!(", of Kubernetes {version}")).unwrap_or_default();
    line(out, &printable(&format!("A dump of {}, {}{server}.", list(&objects), input.as_of)));
    for complaint in input.complaints() {
        line(out, &paint.tone(Tone::Bad, &format!("{}.", printable(&complaint))));
    }
    for note in &input.notes {
        line(out, &printable(&format!("Note: {note}.")));
    }
    out.push('\n');
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn write_cluster(out: &mut String, cluster: &Cluster, answer: &Answer, paint: Paint) {
    for missing in missing::lines(cluster, answer.input.as_deref()) {
        line(out, &paint.tone(Tone::Bad, &printable(&missing)));
    }
    if let Some(simulated) = simulated(answer.nodes.iter().flat_map(|nodes| with_fake_gpus(nodes))) {
        line(out, &paint.tone(Tone::Held, &simulated));
    }
    let Some(ladder) = &cluster.ladder else { return };
    for sentence in truth::sentences(cluster) {
        line(out, &sentence);
    }
    let in_all = cluster.agents.up + cluster.agents.down;
    let mut title = count(in_all, "node", "nodes");
    if let Some(states) = cluster.nodes.as_ref().filter(|_| in_all > 0) {
        let there = NodeState::ALL.into_iter().filter_map(|state| {
            let count = states.get(state.label()).copied().filter(|count| *count > 0)?;
            Some(format!("{count} {}", state.label().replace('_', " ")))
        });
        title = format!("{title}: {}", list(&there.collect::<Vec<_>>()));
    }
    line(out, &paint.tone(Tone::Title, &title));
    if in_all > 0 {
        line(out, &agents(cluster));
    }
    if let Some(sum) = &cluster.mcad_allocatable {
        line(out, &format!("MCAD's sum, the capacity that MCAD assumes to be available: {}.", sum.words_of_all()));
    }
    for (resource, rung) in ladder.iter() {
        let on = cluster.nodes_by_reason.as_ref().and_then(|by_resource| by_resource.get(&resource));
        let measured = cluster.nodes_measured.get(&resource).copied();
        let measured = measured.filter(|measured| *measured < in_all).map(|n| format!("on {n} of {in_all} nodes"));
        let beside = Beside { on, measured: measured.as_deref(), shares: cluster.shares.get(resource.name()).copied() };
        write_ladder(out, &resource, rung, &beside, paint);
    }
    if let Some(held) = &cluster.held_gpus {
        line(out, &format!("\nPods hold {}.", held.in_words()));
    }
    for (at, resource) in cluster.accelerators.iter().enumerate() {
        if at == 0 {
            line(out, "");
        }
        write_slots(out, cluster, resource);
    }
    for (resource, parts) in cluster.claims.iter().flat_map(|claims| &claims.partition_slots) {
        let parts: Vec<_> = parts.iter().map(|(profile, count)| format!("{count} of {}", printable(profile))).collect();
        let name = printable(resource);
        line(out, &format!("Parts of {name} that could be allocated, if all were of one profile: {}.", list(&parts)));
    }
}

fn write_slots(out: &mut String, cluster: &Cluster, resource: &Resource) {
    let (Some(slots), Some(block)) = (cluster.slots(resource), cluster.largest_free_block(resource)) else { return };
    let (unit, slots) = (printable(unit(resource)), pools::slots_in_words(resource, &slots, block));
    line(out, &format!("Pods that could start now, by {unit} per pod: {slots}."));
    for of_pool in pools::lines(cluster, resource) {
        line(out, &format!("  {of_pool}"));
    }
}

fn agents(cluster: &Cluster) -> String {
    let (up, in_all) = (cluster.agents.up, cluster.agents.up + cluster.agents.down);
    match (up, cluster.nodes.is_some()) {
        (_, false) => {
            format!("Agents report from {up} of {in_all} nodes. Without Kubernetes, only their measurements are known.")
        }
        (0, true) => {
            "No agent reports: hardware values are those declared by kubelet, and usage is unknown.".to_owned()
        }
        (up, true) if up == in_all => "Agents report from all nodes.".to_owned(),
        (up, true) => format!(
            "Agents report from {up} of {in_all} nodes; for the others, hardware values are those declared by kubelet."
        ),
    }
}

/// Facts about a resource in addition to its ladder.
#[derive(Default)]
struct Beside<'a> {
    /// The nodes where amounts are withheld.
    on: Option<&'a BTreeMap<&'static str, OnNodes>>,
    /// The nodes on which `used` was measured. `None` if on all.
    measured: Option<&'a str>,
    /// The devices that its units are shares of.
    shares: Option<Shares>,
}

fn write_ladder(out: &mut String, resource: &Resource, rung: &LadderEntry, beside: &Beside<'_>, paint: Paint) {
    let name = printable(resource.name());
    let title = match resource {
        Resource::Extended(_) => name,
        _ => format!("{name}, in {}", unit(resource)),
    };
    line(out, &format!("\n{}", paint.tone(Tone::Title, &title)));
    out.push_str(&bar::line(&parts(rung), paint));
    let on = |reason: &str| beside.on.and_then(|on| on.get(reason)).map(|on| places(resource, on)).unwrap_or_default();
    let shares = beside.shares.map(|shares| truth::shares_in_words(resource, shares)).unwrap_or_default();
    let mut rows = vec![row(resource, "installed", rung.installed, shares, Tone::Normal)];
    // Without Kubernetes these values are not unknown: they do not exist.
    if let (Some(requested), Some(withheld)) = (&rung.requested, &rung.withheld) {
        if rung.overcommitted != Some(0) {
            rows.push(row(resource, "overcommitted", rung.overcommitted, on("overcommitted"), Tone::Bad));
        }
        let [by_appwrappers, by_others] = [requested.appwrapper, requested.other].map(|n| figure(resource, n));
        let owners = format!("{by_appwrappers} by AppWrappers, {by_others} by other pods");
        let all = requested.in_all();
        rows.push(row(resource, "requested", Some(all), owners, Tone::Normal));
        rows.push(row(resource, "withheld", Some(withheld.total()), String::new(), Tone::Normal));
        for reason in Reason::ALL.into_iter().filter(|reason| withheld.get(*reason) != 0) {
            let shown = shown(reason);
            let label = format!("  {}", shown.words);
            rows.push(row(resource, &label, Some(withheld.get(reason)), on(reason.label()), shown.class.tone()));
        }
        rows.push(row(resource, "free", rung.free, String::new(), Tone::Good));
    } else if rung.capacity.is_some() {
        for label in ["requested", "withheld", "free"] {
            rows.push(row(resource, label, None, "Pods are not known".to_owned(), Tone::Normal));
        }
    }
    rows.push(row(resource, "healthy", rung.healthy, String::new(), Tone::Quiet));
    if rung.capacity.is_some() {
        let declared = if rung.has_slices { "declared by kubelet and drivers" } else { "declared by kubelet" };
        rows.push(row(resource, "capacity", rung.capacity, declared.to_owned(), Tone::Quiet));
        rows.push(row(resource, "allocatable", rung.allocatable, declared.to_owned(), Tone::Quiet));
        rows.push(row(
            resource,
            "admissible",
            rung.admissible,
            "on nodes that accept new pods".to_owned(),
            Tone::Quiet,
        ));
        let note = match rung.phantom {
            None => "no agent has reported it".to_owned(),
            Some(0) => String::new(),
            Some(_) => format!("allocatable without healthy hardware behind it{}", after(": ", &on("phantom"))),
        };
        let tone = if rung.phantom.is_some_and(|phantom| phantom != 0) { Tone::Bad } else { Tone::Quiet };
        rows.push(row(resource, "phantom", rung.phantom, note, tone));
    }
    let unmeasured = match (rung.capacity, rung.requested) {
        (Some(_), None) => "Pods are not known",
        _ => "no agent has measured it",
    };
    rows.push(used(resource, rung.used.as_ref(), beside.measured, unmeasured));
    table::write(out, &rows, paint);
}

/// The parts of the installed amount: requested, withheld by reason, free; if these are not known, healthy and not healthy.
fn parts(rung: &LadderEntry) -> Vec<bar::Part> {
    let (Some(requested), Some(withheld), Some(free)) = (&rung.requested, &rung.withheld, rung.free) else {
        let healthy = rung.installed.zip(rung.healthy);
        let parts = healthy.map(|(installed, healthy)| [(Tone::Good, healthy), (Tone::Bad, installed - healthy)]);
        return parts.into_iter().flatten().map(|(tone, amount)| (tone, amount as f64)).collect();
    };
    let reasons = Reason::ALL.into_iter().map(|reason| (shown(reason).class.tone(), withheld.get(reason)));
    let requested = [(Tone::Normal, requested.appwrapper), (Tone::Quiet, requested.other)];
    let parts = requested.into_iter().chain(reasons).chain([(Tone::Good, free)]);
    parts.map(|(tone, amount)| (tone, amount as f64)).collect()
}

fn row(resource: &Resource, label: &str, amount: Option<i64>, note: String, tone: Tone) -> Row {
    let amount = amount.map_or_else(|| UNKNOWN.to_owned(), |amount| figure(resource, amount));
    Row { label: label.to_owned(), amount, note, tone }
}

fn figure(resource: &Resource, amount: i64) -> String {
    number(resource, amount as f64, Rounding::Nearest)
}

fn after(mark: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{mark}{text}") }
}

fn used(resource: &Resource, used: Option<&UsedBy>, measured: Option<&str>, unmeasured: &str) -> Row {
    let Some(used) = used else {
        return row(resource, "used", None, unmeasured.to_owned(), Tone::Quiet);
    };
    let figure = |amount: f64| number(resource, amount, Rounding::Nearest);
    let pods = [("by AppWrappers", used.appwrapper), ("by other pods", used.other)];
    let mut shown: Vec<_> =
        pods.iter().filter_map(|(owner, used)| Some(format!("{} {owner}", figure((*used)?)))).collect();
    shown.push(format!("{} outside pods", used.system.map_or_else(|| UNKNOWN.to_owned(), figure)));
    let note = format!("{}{}", shown.join(", "), measured.map(|on| format!("; measured {on}")).unwrap_or_default());
    let amount = used.in_all().map_or_else(|| UNKNOWN.to_owned(), figure);
    Row { label: "used".to_owned(), amount, note, tone: Tone::Quiet }
}

/// The nodes with their amounts, largest amount first.
fn places(resource: &Resource, on: &OnNodes) -> String {
    let named = on.nodes.iter().take(NAMED);
    let mut named: Vec<_> =
        named.map(|on| format!("{} ({})", printable(&on.node), figure(resource, on.amount))).collect();
    let more = on.more_nodes + on.nodes.len().saturating_sub(NAMED) as u64;
    if more > 0 {
        named.push(count(more, "more node", "more nodes"));
    }
    list(&named)
}

fn write_appwrappers(out: &mut String, cluster: &Cluster, answer: &Answer, paint: Paint) {
    let Some(all) = &answer.appwrappers else {
        // Without Kubernetes there are none.
        if cluster.missing.contains(&Missing::AppWrappersServed) {
            line(out, "\nAppWrappers: not served by the API server.");
        } else if cluster.nodes.is_some() || cluster.ladder.is_none() {
            line(out, "\nAppWrappers: unknown.");
        }
        return;
    };
    let mut waiting: Vec<_> = all.iter().filter_map(|view| Some((view, view.waiting.as_ref()?))).collect();
    let in_part: Vec<_> = all.iter().filter_map(|view| Some((view, view.placed_in_part.as_ref()?))).collect();
    let mut title = match (all.len() as u64, waiting.len()) {
        (0, _) => "No AppWrappers".to_owned(),
        (in_all, 0) => format!("{}, none waiting", count(in_all, "AppWrapper", "AppWrappers")),
        (in_all, waiting) => format!("{}, {waiting} waiting", count(in_all, "AppWrapper", "AppWrappers")),
    };
    if !in_part.is_empty() {
        title = format!("{title}, {} placed in part", in_part.len());
    }
    let unready: Vec<_> = all.iter().filter_map(|view| Some((view, unready(view)?))).collect();
    if !unready.is_empty() {
        title = format!("{title}, {} started and not ready", unready.len());
    }
    if let Some(reason) = cluster.no_queues {
        title = format!("{title}; {reason}");
    }
    line(out, &format!("\n{}", paint.tone(Tone::Title, &title)));
    // The longest wait comes first; waits of unknown length come last.
    let since = |seconds: Option<f64>| seconds.unwrap_or(-1.0);
    waiting.sort_by(|(_, a), (_, b)| since(b.seconds).total_cmp(&since(a.seconds)));
    let name = |view: &AppWrapper| format!("{}/{}", printable(&view.namespace), printable(&view.name));
    let waiting = waiting.into_iter().map(|(view, waits)| Row {
        label: name(view),
        amount: waits.seconds.map_or_else(|| UNKNOWN.to_owned(), span),
        note: printable(&format!("{}{}", waits.why, says(view))),
        tone: Tone::Normal,
    });
    let in_part = in_part.into_iter().map(|(view, part)| Row {
        label: name(view),
        amount: format!("{} of {} pods", view.pods.saturating_sub(part.pods_unbound), view.pods),
        note: in_words(view, part),
        tone: Tone::Bad,
    });
    let unready = unready.into_iter().map(|(view, why)| Row {
        label: name(view),
        amount: view.pods_bound.map_or_else(|| UNKNOWN.to_owned(), |bound| format!("{bound} of {} pods", view.pods)),
        note: printable(why),
        tone: Tone::Normal,
    });
    table::write(out, &waiting.chain(in_part).chain(unready).collect::<Vec<_>>(), paint);
}

/// Why an AppWrapper is not ready that was started, if its pods are not what lacks a node. `None` if that is not so, or not known.
fn unready(view: &AppWrapper) -> Option<&str> {
    let started = view.waiting.is_none() && view.placed_in_part.is_none();
    view.kueue.as_ref().filter(|_| started)?.why.as_deref()
}

/// What Kueue says, behind the reason.
fn says(view: &AppWrapper) -> String {
    let words = view.kueue.as_ref().and_then(|of| of.says.as_ref());
    words.map(|says| format!("; Kueue {}", says.words())).unwrap_or_default()
}

/// What an AppWrapper that is placed in part requests and holds, and why some pods have no node.
fn in_words(view: &AppWrapper, part: &PlacedInPart) -> String {
    // An AppWrapper is known to be placed in part only if Pods are known, and then its allocation is known too.
    let asks = view.requested.words();
    let holds = view.allocated.as_ref().map_or_else(|| UNKNOWN.to_owned(), ByResource::words);
    let lack = if part.pods_unbound == 1 { "lacks" } else { "lack" };
    let pods = count(part.pods_unbound, "pod", "pods");
    let why = printable(&part.why);
    // The sentence of a reason has the number of pods.
    let has_reason = view.kueue.as_ref().is_some_and(|of| of.why.is_some());
    let why = if has_reason { why } else { format!("{pods} {lack} a node: {why}") };
    format!("requests {asks}, holds {holds}; {why}")
}

fn write_node(out: &mut String, node: &NodeEntry, paint: Paint) {
    let state = node.state.map(|state| format!(": {}", state.replace('_', " "))).unwrap_or_default();
    line(out, &paint.tone(Tone::Title, &format!("Node {}{state}", printable(&node.name))));
    if !node.taints.is_empty() {
        let taints: Vec<_> = node.taints.iter().map(|taint| printable(taint)).collect();
        line(out, &format!("Taints: {}.", list(&taints)));
    }
    line(out, &node.agent.sentence());
    if let Some(simulated) = simulated(with_fake_gpus(std::slice::from_ref(node))) {
        line(out, &paint.tone(Tone::Held, &simulated));
    }
    for (resource, rung) in node.ladder.iter() {
        let shares = node.shares.get(resource.name()).copied();
        write_ladder(out, &resource, rung, &Beside { shares, ..Beside::default() }, paint);
    }
    let gpus = node.gpus.iter().flatten();
    let rows: Vec<_> = gpus.map(gpu).collect();
    if !rows.is_empty() {
        line(out, &format!("\n{}", paint.tone(Tone::Title, "GPUs")));
        table::write(out, &rows, paint);
    }
}

fn gpu(gpu: &GpuEntry) -> Row {
    let health = if gpu.healthy {
        "healthy".to_owned()
    } else {
        let reasons: Vec<_> = gpu.unhealthy_reasons.iter().map(|reason| printable(reason)).collect();
        format!("unhealthy: {}", list(&reasons))
    };
    let busy = gpu.utilization_ratio.map_or_else(|| UNKNOWN.to_owned(), |ratio| format!("{:.0} %", ratio * 100.0));
    let holders = gpu.held_by.as_ref().map(|holders| {
        let name = |h: &super::node::Holder| format!("{}/{}", printable(&h.namespace), printable(&h.pod));
        list(&holders.iter().map(name).collect::<Vec<_>>())
    });
    let held = match holders.as_deref() {
        None => "held by: unknown".to_owned(),
        Some("") => "not held".to_owned(),
        Some(pods) => format!("held by {pods}"),
    };
    let what = [Some(gpu.model.as_str()), gpu.mig_profile.as_deref()];
    let what: Vec<_> = what.into_iter().flatten().filter(|word| !word.is_empty()).map(printable).collect();
    let what = if what.is_empty() { String::new() } else { format!("{}; ", what.join(" ")) };
    let amiss: Vec<_> = [gpu.strays_in_words(), gpu.unclaimed_in_words()].into_iter().flatten().collect();
    let is_well = gpu.healthy && amiss.is_empty();
    let amiss: String = amiss.iter().flat_map(|what| ["; ", what]).collect();
    Row {
        label: printable(&gpu.uuid),
        amount: busy,
        note: format!("busy; {what}{health}; {held}{amiss}"),
        tone: if is_well { Tone::Normal } else { Tone::Bad },
    }
}
