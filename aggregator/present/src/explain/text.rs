//! An explanation as text for people: which lines there are and what they say. How they are set is [`mcad_terminal`]'s.
//!
//! All that comes from outside goes through [`printable`].
use std::collections::BTreeMap;

use mcad_accounting::cluster::Missing;
use mcad_accounting::input::Input;
use mcad_accounting::ladder::{NodeState, Reason};
use mcad_accounting::resource::Resource;
use mcad_terminal::bar;
use mcad_terminal::paint::{Paint, Tone};
use mcad_terminal::table::{self, Row};

use super::amount::{Rounding, count, list, number, printable, span, unit, words};
use super::appwrapper::{AppWrapper, PlacedInPart};
use super::cluster::{Cluster, OnNodes};
use super::ladder::{Rung, Shares, UsedBy};
use super::node::{Gpu, Node};
use super::{Answer, missing, truth};
use crate::reasons::shown;

/// So many nodes are named in a line.
const NAMED: usize = 5;
const UNKNOWN: &str = "unknown";

/// The text of an answer.
pub fn text(answer: &Answer, paint: Paint) -> String {
    let mut out = String::new();
    if let Some(input) = &answer.input {
        write_input(&mut out, input, paint);
    }
    if let Some(cluster) = &answer.cluster {
        write_cluster(&mut out, cluster, answer.input.as_deref(), paint);
        write_appwrappers(&mut out, cluster, answer.appwrappers.as_deref(), paint);
    }
    if let Some(node) = &answer.node {
        write_node(&mut out, node, paint);
    }
    out
}

/// What is wrong with the input stands before all that is made of it.
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

fn write_cluster(out: &mut String, cluster: &Cluster, input: Option<&Input>, paint: Paint) {
    for missing in missing::lines(cluster, input) {
        line(out, &paint.tone(Tone::Bad, &missing));
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
        let amounts: Vec<_> = sum.iter().map(|(r, amount)| words(&r, i128::from(*amount), Rounding::Nearest)).collect();
        line(out, &format!("MCAD's sum, what it believes it can hand out: {}.", list(&amounts)));
    }
    for (resource, rung) in ladder.iter() {
        let on = cluster.nodes_by_reason.as_ref().and_then(|by_resource| by_resource.get(&resource));
        let measured = cluster.nodes_measured.get(&resource).copied();
        let measured = measured.filter(|measured| *measured < in_all).map(|n| format!("on {n} of {in_all} nodes"));
        let beside = Beside { on, measured: measured.as_deref(), shares: cluster.shares.get(resource.name()).copied() };
        write_ladder(out, &resource, rung, &beside, paint);
    }
    for (at, resource) in cluster.accelerators.iter().enumerate() {
        if at == 0 {
            line(out, "");
        }
        write_slots(out, cluster, resource);
    }
}

fn write_slots(out: &mut String, cluster: &Cluster, resource: &Resource) {
    let (Some(slots), Some(block)) = (cluster.slots(resource), cluster.largest_free_block(resource)) else { return };
    let slots: Vec<_> = slots.iter().map(|slots| format!("{} of {}", slots.pods, slots.count)).collect();
    let (unit, slots) = (printable(unit(resource)), list(&slots));
    let block = words(resource, block.into(), Rounding::Nearest);
    line(out, &format!("Pods by {unit} each that could start now: {slots} {unit}; at most {block} free on one node."));
}

fn agents(cluster: &Cluster) -> String {
    let (up, in_all) = (cluster.agents.up, cluster.agents.up + cluster.agents.down);
    match (up, cluster.nodes.is_some()) {
        (_, false) => {
            format!("Agents report from {up} of them. There is no Kubernetes: only what they measured is known.")
        }
        (0, true) => "No agent reports: hardware is as kubelets declare it, and what is used is unknown.".to_owned(),
        (up, true) if up == in_all => "Agents report from all of them.".to_owned(),
        (up, true) => format!("Agents report from {up} of them; of the others, hardware is as kubelets declare it."),
    }
}

/// What is told of a resource beside its ladder.
#[derive(Default)]
struct Beside<'a> {
    /// Where what is withheld sits.
    on: Option<&'a BTreeMap<&'static str, OnNodes>>,
    /// On which nodes `used` was measured. Absent: on all.
    measured: Option<&'a str>,
    /// Of how many devices it is shares.
    shares: Option<Shares>,
}

fn write_ladder(out: &mut String, resource: &Resource, rung: &Rung, beside: &Beside<'_>, paint: Paint) {
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
    // Without Kubernetes there is no ladder to stand on, and its rungs are not unknown: there are none.
    if let (Some(requested), Some(withheld)) = (&rung.requested, &rung.withheld) {
        if rung.overcommitted != Some(0) {
            rows.push(row(resource, "overcommitted", rung.overcommitted, on("overcommitted"), Tone::Bad));
        }
        let [by_appwrappers, by_others] = [requested.appwrapper, requested.other].map(|n| figure(resource, n));
        let owners = format!("{by_appwrappers} by AppWrappers, {by_others} by other pods");
        let all = requested.appwrapper.saturating_add(requested.other);
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
        rows.push(row(resource, "capacity", rung.capacity, "as kubelet declares".to_owned(), Tone::Quiet));
        rows.push(row(resource, "allocatable", rung.allocatable, "as kubelet declares".to_owned(), Tone::Quiet));
        rows.push(row(resource, "admissible", rung.admissible, "where new pods may land".to_owned(), Tone::Quiet));
        let note = match rung.phantom {
            None => "no agent has looked".to_owned(),
            Some(0) => String::new(),
            Some(_) => format!("allocatable without healthy hardware behind it{}", after(": ", &on("phantom"))),
        };
        let tone = if rung.phantom.is_some_and(|phantom| phantom != 0) { Tone::Bad } else { Tone::Quiet };
        rows.push(row(resource, "phantom", rung.phantom, note, tone));
    }
    let unmeasured = match (rung.capacity, rung.requested) {
        (Some(_), None) => "Pods are not known",
        _ => "no agent has measured",
    };
    rows.push(used(resource, rung.used.as_ref(), beside.measured, unmeasured));
    table::write(out, &rows, paint);
}

/// What makes up all that is installed: requested, withheld by reason, free; where it is not known, what is healthy and what isn't.
fn parts(rung: &Rung) -> Vec<bar::Part> {
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
    let Some(UsedBy { appwrapper, other, system }) = used else {
        return row(resource, "used", None, unmeasured.to_owned(), Tone::Quiet);
    };
    let owners = [("by AppWrappers", appwrapper), ("by other pods", other), ("by no pod", system)];
    let shown = owners.iter().filter_map(|(owner, used)| Some((owner, used.as_ref().copied()?)));
    let shown: Vec<_> =
        shown.map(|(owner, used)| format!("{} {owner}", number(resource, used, Rounding::Nearest))).collect();
    // A sum with a part unknown is not the sum.
    let all = [appwrapper, other, system].into_iter().flatten().sum();
    let note = format!("{}{}", shown.join(", "), measured.map(|on| format!("; measured {on}")).unwrap_or_default());
    let amount = number(resource, all, Rounding::Nearest);
    Row { label: "used".to_owned(), amount, note, tone: Tone::Quiet }
}

/// Nodes with how much each has, those with most first.
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

fn write_appwrappers(out: &mut String, cluster: &Cluster, all: Option<&[AppWrapper]>, paint: Paint) {
    let Some(all) = all else {
        // Without Kubernetes there are none.
        if cluster.missing.contains(&Missing::AppWrappersServed) {
            line(out, "\nAppWrappers: none are served.");
        } else if cluster.nodes.is_some() || cluster.ladder.is_none() {
            line(out, "\nAppWrappers: unknown.");
        }
        return;
    };
    let mut waiting: Vec<_> = all.iter().filter_map(|view| Some((view, view.waiting.as_ref()?))).collect();
    let in_part: Vec<_> = all.iter().filter_map(|view| Some((view, view.placed_in_part.as_ref()?))).collect();
    let mut title = match (all.len() as u64, waiting.len()) {
        (0, _) => "No AppWrappers".to_owned(),
        (in_all, 0) => format!("{}, none of them waits", count(in_all, "AppWrapper", "AppWrappers")),
        (in_all, 1) => format!("{}, 1 waits", count(in_all, "AppWrapper", "AppWrappers")),
        (in_all, waiting) => format!("{}, {waiting} wait", count(in_all, "AppWrapper", "AppWrappers")),
    };
    if !in_part.is_empty() {
        let are = if in_part.len() == 1 { "is" } else { "are" };
        title = format!("{title}, {} {are} placed in part", in_part.len());
    }
    line(out, &format!("\n{}", paint.tone(Tone::Title, &title)));
    // Who waits longest comes first, who waits since an unknown time last.
    let since = |seconds: Option<f64>| seconds.unwrap_or(-1.0);
    waiting.sort_by(|(_, a), (_, b)| since(b.seconds).total_cmp(&since(a.seconds)));
    let name = |view: &AppWrapper| format!("{}/{}", printable(&view.namespace), printable(&view.name));
    let waiting = waiting.into_iter().map(|(view, waits)| Row {
        label: name(view),
        amount: waits.seconds.map_or_else(|| UNKNOWN.to_owned(), span),
        note: printable(&waits.why),
        tone: Tone::Normal,
    });
    let in_part = in_part.into_iter().map(|(view, part)| Row {
        label: name(view),
        amount: format!("{} of {} pods", view.pods.saturating_sub(part.pods_unbound), view.pods),
        note: in_words(view, part),
        tone: Tone::Bad,
    });
    table::write(out, &waiting.chain(in_part).collect::<Vec<_>>(), paint);
}

/// What an AppWrapper that is placed in part asks for and holds, and why not all of it.
fn in_words(view: &AppWrapper, part: &PlacedInPart) -> String {
    let listed = |amounts: &super::ladder::ByResource<i64>| {
        let named = amounts.iter().filter(|(_, amount)| **amount != 0);
        let words: Vec<_> = named.map(|(r, amount)| words(&r, i128::from(*amount), Rounding::Nearest)).collect();
        if words.is_empty() { "nothing".to_owned() } else { list(&words) }
    };
    // It is known to be placed in part only where pods are known, and with them what they hold.
    let asks = listed(&view.requested);
    let holds = view.allocated.as_ref().map_or_else(|| UNKNOWN.to_owned(), listed);
    let lack = if part.pods_unbound == 1 { "lacks" } else { "lack" };
    let pods = count(part.pods_unbound, "pod", "pods");
    format!("asks for {asks}, holds {holds}; {pods} {lack} a node: {}", printable(&part.why))
}

fn write_node(out: &mut String, node: &Node, paint: Paint) {
    let state = node.state.map(|state| format!(": {}", state.replace('_', " "))).unwrap_or_default();
    line(out, &paint.tone(Tone::Title, &format!("Node {}{state}", printable(&node.name))));
    if !node.taints.is_empty() {
        let taints: Vec<_> = node.taints.iter().map(|taint| printable(taint)).collect();
        line(out, &format!("Taints: {}.", list(&taints)));
    }
    line(out, &node.agent.sentence());
    for (resource, rung) in node.ladder.iter() {
        let shares = node.shares.get(resource.name()).copied();
        write_ladder(out, &resource, rung, &Beside { shares, ..Beside::default() }, paint);
    }
    let gpus = node.gpus.iter().flatten();
    let rows: Vec<_> = gpus.map(gpu).collect();
    if !rows.is_empty() {
        line(out, &format!("\n{}", paint.tone(Tone::Title, "GPUs one by one")));
        table::write(out, &rows, paint);
    }
}

fn gpu(gpu: &Gpu) -> Row {
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
        Some("") => "held by nobody".to_owned(),
        Some(pods) => format!("held by {pods}"),
    };
    let what = [Some(gpu.model.as_str()), gpu.mig_profile.as_deref()];
    let what: Vec<_> = what.into_iter().flatten().filter(|word| !word.is_empty()).map(printable).collect();
    let what = if what.is_empty() { String::new() } else { format!("{}; ", what.join(" ")) };
    Row {
        label: printable(&gpu.uuid),
        amount: busy,
        note: format!("busy; {what}{health}; {held}"),
        tone: if gpu.healthy { Tone::Normal } else { Tone::Bad },
    }
}
