//! A resource as bars of one scale that visibly add up, and the sum that they are the picture of.
//!
//! Drawn as SVG: its attributes are no styles, which the page's policy would refuse. Every part also stands in the table
//! beside it, so that neither colour nor sight carries it alone.
use maud::{Markup, html};
use mcad_accounting::ladder::Reason;
use mcad_accounting::resource::Resource;

use super::amount::{UNKNOWN, count, counted_in, family, figure, named, part, title};
use super::wanted::of_node;
use crate::explain::cluster::{ByReason, OnNodes};
use crate::explain::ladder::{Rung, Shares, UsedBy};
use crate::explain::truth::shares_in_words;
use crate::reasons::{Class, shown};

/// Nodes named beside a reason.
const NAMED: usize = 4;

/// A bar is so wide, in units of its own.
const WIDTH: f64 = 1000.0;

/// Of whom figures are, and by which families' names they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Cluster,
    Node,
}

impl Of {
    pub(super) fn family(self, name: &str) -> String {
        match self {
            Self::Cluster => format!("mcad_cluster_{name}"),
            Self::Node => format!("mcad_node_{name}"),
        }
    }
}

/// A part of a bar.
pub(super) struct Part {
    /// Its class, which is its colour.
    class: &'static str,
    label: &'static str,
    amount: f64,
}

/// What is requested, withheld and free: together what is installed, and what is overcommitted. Absent: there is no such
/// account.
pub(super) fn parts(rung: &Rung) -> Option<Vec<Part>> {
    let (requested, withheld, free) = (rung.requested?, rung.withheld.as_ref()?, rung.free?);
    let mut parts = vec![
        Part { class: "appwrapper", label: "held by AppWrappers", amount: requested.appwrapper as f64 },
        Part { class: "other", label: "held by other pods", amount: requested.other as f64 },
    ];
    parts.extend(Reason::ALL.into_iter().map(|reason| {
        let shown = shown(reason);
        Part { class: shown.class.css(), label: shown.words, amount: withheld.get(reason) as f64 }
    }));
    parts.push(Part { class: "free", label: "free", amount: free as f64 });
    Some(parts)
}

/// One bar. Parts that are not 0 are at least a hair wide.
pub(super) fn bar(parts: &[Part], whole: f64, class: &str) -> Markup {
    let scale = if whole > 0.0 { WIDTH / whole } else { 0.0 };
    let mut at = 0.0;
    let mut drawn = Vec::new();
    for part in parts.iter().filter(|part| part.amount > 0.0) {
        let width = (part.amount * scale).max(2.0);
        drawn.push((part, at, width.min((WIDTH - at).max(0.0))));
        at += width;
    }
    let spoken: Vec<_> = drawn.iter().map(|(part, ..)| part.label).collect();
    html! {
        svg class=(class) viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(format!("parts: {}", spoken.join(", "))) {
            rect.ground x="0" y="0" width="1000" height="10" {}
            @for (part, x, width) in &drawn {
                rect class=(part.class) x=(digits(*x)) y="0" width=(digits(*width)) height="10" {}
            }
        }
    }
}

pub(super) fn digits(number: f64) -> String {
    format!("{}", (number * 10.0).round() / 10.0)
}

/// The patterns that parts which look alike without colours are filled with.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.paper width="6" height="6" {}
                    rect.ink width="3" height="6" {}
                }
            }
        }
    }
}

/// What is shown of a resource beside its bars.
#[derive(Default)]
pub(super) struct Beside<'a> {
    /// Where what is withheld sits.
    pub(super) on: Option<&'a ByReason<OnNodes>>,
    /// On which nodes what is in use was measured. Absent: on all.
    pub(super) measured: Option<&'a str>,
    /// Of how many devices it is shares.
    pub(super) shares: Option<Shares>,
}

/// A resource: bars of one scale under one another, and the sum.
pub(super) fn card(resource: &Resource, rung: &Rung, beside: &Beside<'_>, of: Of, lines: &Markup) -> Markup {
    let id = format!("r-{}", resource.label());
    html! {
        section.card id=(id) aria-labelledby=(format!("{id}-h")) data-live {
            h3 id=(format!("{id}-h")) {
                (title(resource))
                @if let Some(unit) = counted_in(resource) { " " span.unit { (unit) } }
            }
            (bars(resource, rung, of))
            div.detail {
                div { (sum(resource, rung, beside.on, of)) (notes(resource, rung, beside, of)) }
                (lines)
            }
        }
    }
}

/// What kubelets declare, where it is, what is in use: of one scale.
fn bars(resource: &Resource, rung: &Rung, of: Of) -> Markup {
    let parts = parts(rung);
    let in_all: f64 = parts.iter().flatten().map(|part| part.amount).sum();
    let others = [rung.allocatable, rung.installed, rung.healthy].into_iter().flatten().max().unwrap_or(0);
    let whole = in_all.max(others as f64);
    let used = rung.used.as_ref().map(used_parts);
    html! {
        dl.bars {
            @if let Some(allocatable) = rung.allocatable {
                @let phantom = rung.phantom.unwrap_or(0);
                div {
                    dt { "declared" }
                    dd.pic { (bar(&[
                        Part { class: "declared", label: "declared by kubelets", amount: allocatable.saturating_sub(phantom) as f64 },
                        Part { class: "broken", label: "phantom: declared, and not there", amount: phantom as f64 },
                    ], whole, "bar thin")) }
                    dd.n { (figure(resource, Some(allocatable), &of.family("allocatable"))) }
                }
            }
            div {
                dt { "works" }
                dd.pic { @if let Some(healthy) = rung.healthy { (bar(&[Part { class: "works", label: "works", amount: healthy as f64 }], whole, "bar thin")) } }
                dd.n { (figure(resource, rung.healthy, &of.family("healthy"))) }
            }
            @if let Some(parts) = &parts {
                div.main {
                    dt { "where it is" }
                    dd.pic { (bar(parts, whole, "bar")) }
                    dd.n { (part(resource, Some(in_all), &of.family("installed"))) }
                }
            }
            div {
                dt { "in use" }
                dd.pic {
                    @match &used {
                        Some(used) => (bar(used, whole, "bar thin")),
                        None => svg."bar"."thin"."nothing" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" { rect.void x="0" y="0" width="1000" height="10" {} },
                    }
                }
                dd.n { (part_of_use(resource, rung.used.as_ref(), of)) }
            }
        }
    }
}

fn part_of_use(resource: &Resource, used: Option<&UsedBy>, of: Of) -> Markup {
    part(resource, used.map(in_use), &of.family("used"))
}

/// All that is measured to be in use.
pub(super) fn in_use(used: &UsedBy) -> f64 {
    [used.appwrapper, used.other, used.system].into_iter().flatten().sum()
}

fn used_parts(used: &UsedBy) -> Vec<Part> {
    // A part that is unknown has no width; that it is none of the sum is said beside.
    let amount = |used: Option<f64>| used.unwrap_or(0.0);
    vec![
        Part { class: "appwrapper", label: "in use by AppWrappers", amount: amount(used.appwrapper) },
        Part { class: "other", label: "in use by other pods", amount: amount(used.other) },
        Part { class: "system", label: "in use by no pod", amount: amount(used.system) },
    ]
}

/// The parts under one another, a rule, and what they come to.
fn sum(resource: &Resource, rung: &Rung, on: Option<&ByReason<OnNodes>>, of: Of) -> Markup {
    let (Some(requested), Some(withheld)) = (&rung.requested, &rung.withheld) else {
        let is_declared = rung.allocatable.is_some();
        return html! {
            @if is_declared { p.unknown { "Pods are not known: what is held, withheld and free is unknown." } }
            @else { p.quiet { "Only what agents measured is known here: without Kubernetes nothing is requested or handed out." } }
        };
    };
    let row = |class: &str, label: Markup, amount: i64, name: &str, note: Markup| {
        html! {
            tr {
                th scope="row" { span class={"key " (class)} aria-hidden="true" {} (label) }
                td.n { (figure(resource, Some(amount), &of.family(name))) }
                td.note { (note) }
            }
        }
    };
    let nodes = |reason: &str| html! { @if let Some(on) = on.and_then(|on| on.get(reason)) { (places(resource, on)) } };
    let reasons = Reason::ALL.into_iter().filter(|reason| withheld.get(*reason) != 0);
    let in_all = requested.appwrapper.saturating_add(requested.other).saturating_add(withheld.total());
    html! {
        table.sum {
            caption.hidden { (title(resource)) " by reason: the parts and their sum" }
            thead.hidden { tr { th scope="col" { "Part" } th scope="col" { "Amount" } th scope="col" { "Nodes" } } }
            tbody {
                (row("appwrapper", html! { "held by AppWrappers" }, requested.appwrapper, "requested", html! {}))
                (row("other", html! { "held by other pods" }, requested.other, "requested", html! {}))
                @for reason in reasons {
                    @let shown = shown(reason);
                    (row(
                        shown.class.css(),
                        html! { (shown.words) " " small { (shown.title) } },
                        withheld.get(reason), "withheld", nodes(reason.label())))
                }
                (row("free", html! { "free" }, rung.free.unwrap_or(0), "free", html! {}))
                @if rung.overcommitted.is_some_and(|amount| amount != 0) {
                    @let amount = rung.overcommitted.unwrap_or(0);
                    tr.less {
                        th scope="row" { span.key aria-hidden="true" {} "less overcommitted " small { "requested beyond what is there" } }
                        td.n { "−" (figure(resource, Some(amount), &of.family("overcommitted"))) }
                        td.note { (nodes("overcommitted")) }
                    }
                }
            }
            tfoot {
                tr {
                    th scope="row" { span.key aria-hidden="true" {} "installed" }
                    td.n { (figure(resource, rung.installed, &of.family("installed"))) }
                    td.note { @if !adds_up(in_all, rung) { strong.bad { "does not add up: please report this" } } }
                }
            }
        }
    }
}

/// It always does; a page that only said so would prove nothing.
fn adds_up(held_and_withheld: i64, rung: &Rung) -> bool {
    let parts = held_and_withheld.saturating_add(rung.free.unwrap_or(0));
    parts == rung.installed.unwrap_or(0).saturating_add(rung.overcommitted.unwrap_or(0))
}

/// What is no part of the sum.
fn notes(resource: &Resource, rung: &Rung, beside: &Beside<'_>, of: Of) -> Markup {
    html! {
        @if let Some(shares) = beside.shares { p { (named(&shares_in_words(resource, shares))) "." } }
        @if let Some(phantom) = rung.phantom.filter(|phantom| *phantom != 0) {
            p.warn {
                strong { (figure(resource, Some(phantom), &of.family("phantom"))) " phantom" }
                ": declared to the scheduler, and no healthy hardware stands behind. "
                @if let Some(on) = beside.on.and_then(|on| on.get("phantom")) { (places(resource, on)) }
            }
        }
        @match &rung.used {
            None if rung.allocatable.is_some() && rung.requested.is_none() => {},
            None => p.quiet { "In use: " (UNKNOWN) ", no agent has measured." },
            Some(_) => @if let Some(measured) = beside.measured { p.quiet { "In use: measured " (measured) "." } },
        }
    }
}

/// Nodes with how much each has, those with most first.
fn places(resource: &Resource, on: &OnNodes) -> Markup {
    let more = on.more_nodes + on.nodes.len().saturating_sub(NAMED) as u64;
    html! {
        @for (at, node) in on.nodes.iter().take(NAMED).enumerate() {
            @if at > 0 { ", " }
            a href=(of_node(&node.node)) { (named(&node.node)) }
            " (" (super::amount::shown(resource, node.amount as f64)) ")"
        }
        @if more > 0 { " and " (count(more)) @if more == 1 { " more node" } @else { " more nodes" } }
    }
}

/// The small bar of a node in the table.
pub(super) fn small(rung: &Rung) -> Markup {
    html! {
        @match parts(rung) {
            Some(parts) => {
                @let whole = parts.iter().map(|part| part.amount).sum();
                (bar(&parts, whole, "bar small"))
            },
            None => {},
        }
    }
}

/// What colours mean, once.
pub(super) fn legend() -> Markup {
    let held = [("appwrapper", "held by AppWrappers"), ("other", "held by other pods")];
    let held = held.map(|(class, label)| (class, label.to_owned()));
    let withheld = Class::ALL.map(|class| (class.css(), class.legend()));
    let keys = held.into_iter().chain(withheld).chain([("free", "free".to_owned())]);
    html! {
        ul.legend aria-label="What colours mean" {
            @for (class, label) in keys { li { span class={"key " (class)} aria-hidden="true" {} (label) } }
            li { a href=(family("mcad_cluster_installed")) { "what each figure is" } }
        }
    }
}
