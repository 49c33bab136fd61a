//! A resource as bars of one scale whose parts add up, and the same parts as a table with their sum.
//!
//! The bars are SVG: the page's policy refuses inline styles, and attributes of SVG are not styles. Every part is also in the
//! table, so that no information depends on colour or on sight.
use maud::{Markup, html};
use mcad_accounting::ladder::Reason;
use mcad_accounting::resource::Resource;

use super::amount::{UNKNOWN, count, counted_in, family, named, real_value, title, value};
use super::query::of_node;
use crate::explain::cluster::{ByReason, OnNodes};
use crate::explain::ladder::{LadderEntry, Requested, Shares, UsedBy, WithheldEntry};
use crate::explain::truth::shares_in_words;
use crate::reasons::{Class, shown};

/// Nodes that are named beside a reason.
const NAMED: usize = 4;

/// The width of a bar, in units of its drawing.
const WIDTH: f64 = 1000.0;

/// Whether amounts are of the cluster or of a node, which decides the names of their metrics.
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
    /// Its class, which sets its colour.
    class: &'static str,
    pub(super) label: &'static str,
    pub(super) amount: f64,
}

impl Part {
    pub(super) fn new(class: &'static str, label: &'static str, amount: i128) -> Self {
        Self { class, label, amount: amount as f64 }
    }
}

/// What is requested, withheld and free: together as much as is installed and overcommitted. `None` if one of them is not known.
pub(super) fn parts(rung: &LadderEntry) -> Option<Vec<Part>> {
    let Sum { requested, withheld, free, .. } = Sum::of(rung)?;
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

/// One bar. Parts above 0 are wide enough to be seen.
pub(super) fn bar(parts: &[Part], whole: f64, class: &str) -> Markup {
    let spoken: Vec<_> = parts.iter().filter(|part| part.amount > 0.0).map(|part| part.label).collect();
    html! {
        svg class=(class) viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(format!("parts: {}", spoken.join(", "))) {
            rect.ground x="0" y="0" width="1000" height="10" {}
            (strip(parts, whole, 0, 10))
        }
    }
}

/// The parts of a bar, one beside the other, from `y` downwards.
pub(super) fn strip(parts: &[Part], whole: f64, y: u32, height: u32) -> Markup {
    let scale = if whole > 0.0 { WIDTH / whole } else { 0.0 };
    let mut at = 0.0;
    let mut drawn = Vec::new();
    for part in parts.iter().filter(|part| part.amount > 0.0) {
        let width = (part.amount * scale).max(2.0);
        drawn.push((part, at, width.min((WIDTH - at).max(0.0))));
        at += width;
    }
    html! {
        @for (part, x, width) in &drawn {
            rect class=(part.class) x=(digits(*x)) y=(y) width=(digits(*width)) height=(height) {}
        }
    }
}

pub(super) fn digits(number: f64) -> String {
    format!("{}", (number * 10.0).round() / 10.0)
}

/// The pattern of parts that would look like others without colour.
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
    /// The nodes of each withheld amount.
    pub(super) on: Option<&'a ByReason<OnNodes>>,
    /// On which nodes usage was measured. `None` if on all nodes.
    pub(super) measured: Option<&'a str>,
    /// How many devices its shares are of. `None` if it is not a share of devices.
    pub(super) shares: Option<Shares>,
}

/// The card of a resource: bars of one scale, and the table with the sum.
pub(super) fn card(resource: &Resource, rung: &LadderEntry, beside: &Beside<'_>, of: Of, lines: &Markup) -> Markup {
    let id = format!("r-{}", resource.label());
    html! {
        section.card id=(id) aria-labelledby=(format!("{id}-h")) {
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

/// What is declared, what works, its breakdown and what is in use, on one scale.
fn bars(resource: &Resource, rung: &LadderEntry, of: Of) -> Markup {
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
                        Part { class: "broken", label: "phantom: declared without healthy hardware", amount: phantom as f64 },
                    ], whole, "bar thin")) }
                    dd.n { (value(resource, Some(allocatable), &of.family("allocatable"))) }
                }
            }
            div {
                dt { "works" }
                dd.pic { @if let Some(healthy) = rung.healthy { (bar(&[Part { class: "works", label: "works", amount: healthy as f64 }], whole, "bar thin")) } }
                dd.n { (value(resource, rung.healthy, &of.family("healthy"))) }
            }
            @if let Some(parts) = &parts {
                div.main {
                    dt { "breakdown" }
                    dd.pic { (bar(parts, whole, "bar")) }
                    // The parts are as much as is installed and, if more is requested than that, overcommitted.
                    dd.n {
                        (value(resource, rung.installed, &of.family("installed")))
                        @if let Some(more) = rung.overcommitted.filter(|more| *more != 0) {
                            " + " (value(resource, Some(more), &of.family("overcommitted"))) span.hidden { " overcommitted" }
                        }
                    }
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
    real_value(resource, used.and_then(UsedBy::in_all), &of.family("used"))
}

fn used_parts(used: &UsedBy) -> Vec<Part> {
    // An unknown part has no width, and is not in the sum.
    let amount = |used: Option<f64>| used.unwrap_or(0.0);
    vec![
        Part { class: "appwrapper", label: "in use by AppWrappers", amount: amount(used.appwrapper) },
        Part { class: "other", label: "in use by other pods", amount: amount(used.other) },
        Part { class: "system", label: "in use outside of pods", amount: amount(used.system) },
    ]
}

/// The parts as a table, and their sum.
fn sum(resource: &Resource, rung: &LadderEntry, on: Option<&ByReason<OnNodes>>, of: Of) -> Markup {
    let Some(parts) = Sum::of(rung) else {
        let is_declared = rung.allocatable.is_some();
        return html! {
            @if is_declared && rung.requested.is_none() { p.unknown { "Pods are not known, so what is held, withheld and free is unknown." } }
            @else if is_declared { p.unknown { "Not all parts are known, so what is withheld and free is unknown." } }
            @else { p.quiet { "Only what agents measured is known: without Kubernetes, nothing is requested or allocated." } }
        };
    };
    let row = |class: &str, label: Markup, amount: i64, name: &str, note: Markup| {
        html! {
            tr {
                th scope="row" { span class={"key " (class)} aria-hidden="true" {} (label) }
                td.n { (value(resource, Some(amount), &of.family(name))) }
                td.note { (note) }
            }
        }
    };
    let Sum { requested, withheld, free, installed, overcommitted } = parts;
    let nodes = |reason: &str| html! { @if let Some(on) = on.and_then(|on| on.get(reason)) { (places(resource, on)) } };
    let reasons = Reason::ALL.into_iter().filter(|reason| withheld.get(*reason) != 0);
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
                (row("free", html! { "free" }, free, "free", html! {}))
                @if overcommitted != 0 {
                    tr.less {
                        th scope="row" { span.key aria-hidden="true" {} "minus overcommitted " small { "requested beyond what is installed" } }
                        td.n { "−" (value(resource, Some(overcommitted), &of.family("overcommitted"))) }
                        td.note { (nodes("overcommitted")) }
                    }
                }
            }
            tfoot {
                tr {
                    th scope="row" { span.key aria-hidden="true" {} "installed" }
                    td.n { (value(resource, Some(installed), &of.family("installed"))) }
                    td.note { @if !parts.adds_up() { strong.bad { "does not add up: please report this" } } }
                }
            }
        }
    }
}

/// The parts of a resource and their sum, all of them known.
#[derive(Clone, Copy)]
struct Sum {
    requested: Requested,
    withheld: WithheldEntry,
    free: i64,
    installed: i64,
    overcommitted: i64,
}

impl Sum {
    /// `None` if one of them is not known: a sum with an unknown part is unknown.
    fn of(rung: &LadderEntry) -> Option<Self> {
        Some(Self {
            requested: rung.requested?,
            withheld: rung.withheld?,
            free: rung.free?,
            installed: rung.installed?,
            overcommitted: rung.overcommitted?,
        })
    }

    /// The parts always add up. The page checks it, so that readers need not trust it.
    fn adds_up(&self) -> bool {
        let parts = self.requested.in_all().saturating_add(self.withheld.total()).saturating_add(self.free);
        parts == self.installed.saturating_add(self.overcommitted)
    }
}

/// What is not a part of the sum.
fn notes(resource: &Resource, rung: &LadderEntry, beside: &Beside<'_>, of: Of) -> Markup {
    html! {
        @if let Some(shares) = beside.shares { p { (named(&shares_in_words(resource, shares))) "." } }
        @if let Some(phantom) = rung.phantom.filter(|phantom| *phantom != 0) {
            p.warn {
                strong { (value(resource, Some(phantom), &of.family("phantom"))) " phantom" }
                ": declared to the scheduler without healthy hardware behind it. "
                @if let Some(on) = beside.on.and_then(|on| on.get("phantom")) { (places(resource, on)) }
            }
        }
        @match &rung.used {
            None if rung.allocatable.is_some() && rung.requested.is_none() => {},
            None => p.quiet { "In use: " (UNKNOWN) ", because no agent has measured it." },
            Some(used) => {
                @if let Some(measured) = beside.measured { p.quiet { "In use: measured " (measured) "." } }
                @if used.system.is_none() { p.quiet { "In use: how much is in use outside of pods is " (UNKNOWN) ", and so is the sum." } }
            },
        }
    }
}

/// Nodes with their amounts, largest first.
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

/// The small bar of a node or a pool in a table.
pub(super) fn small(rung: &LadderEntry) -> Markup {
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

/// The meaning of the colours.
pub(super) fn legend() -> Markup {
    let held = [("appwrapper", "held by AppWrappers"), ("other", "held by other pods")];
    let held = held.map(|(class, label)| (class, label.to_owned()));
    let withheld = Class::ALL.map(|class| (class.css(), class.legend()));
    let keys = held.into_iter().chain(withheld).chain([("free", "free".to_owned())]);
    html! {
        ul.legend aria-label="Meaning of the colours" {
            @for (class, label) in keys { li { span class={"key " (class)} aria-hidden="true" {} (label) } }
            li { a href=(family("mcad_cluster_installed")) { "what each value means" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use mcad_accounting::ladder::{Account, ResourceLadder};

    use super::*;

    /// A ladder of a node with this many GPUs, of which pods request so many.
    fn ladder(installed: i128, requested: i128) -> LadderEntry {
        let mut account = Account::default();
        account.requested.other = requested;
        account.free = (installed - requested).max(0);
        account.overcommitted = (requested - installed).max(0);
        let rung = ResourceLadder { installed: Some(installed), account: Some(account), ..ResourceLadder::default() };
        LadderEntry::new(&Resource::Gpu, &rung, None)
    }

    fn shown(rung: &LadderEntry) -> String {
        card(&Resource::Gpu, rung, &Beside::default(), Of::Node, &html! {}).into_string()
    }

    #[test]
    fn the_breakdown_of_what_is_overcommitted_is_not_called_installed() {
        let breakdown = |rung: &LadderEntry| {
            let html = shown(rung);
            let row = html.split("breakdown").nth(1).unwrap_or_default().split("</div>").next().unwrap_or_default();
            row.split("<dd class=\"n\">").nth(1).unwrap_or_default().to_owned()
        };
        let installed = "<a class=\"f\" href=\"/docs/metrics#mcad_node_installed\">8</a>";
        assert_eq!(breakdown(&ladder(8, 3)), format!("{installed}</dd>"));
        let over = " + <a class=\"f\" href=\"/docs/metrics#mcad_node_overcommitted\">3</a>";
        assert!(breakdown(&ladder(8, 11)).starts_with(&format!("{installed}{over}")), "{}", shown(&ladder(8, 11)));
    }

    #[test]
    fn a_sum_with_an_unknown_part_is_not_shown_and_no_part_of_it_is_0() {
        let known = ladder(8, 3);
        assert!(shown(&known).contains("<tfoot>"));
        for unknown in [
            LadderEntry { installed: None, ..known.clone() },
            LadderEntry { free: None, ..known.clone() },
            LadderEntry { overcommitted: None, ..known.clone() },
            LadderEntry { withheld: None, ..known.clone() },
        ] {
            let html = shown(&LadderEntry { allocatable: Some(8), ..unknown });
            assert!(!html.contains("<tfoot>") && !html.contains(">0</a>"), "{html}");
            assert!(html.contains("what is withheld and free is unknown"), "{html}");
        }
    }

    #[test]
    fn use_outside_of_pods_that_nobody_measured_is_called_unknown() {
        let used = |system| UsedBy { appwrapper: Some(1.0), other: Some(2.0), system };
        let html = |system| shown(&LadderEntry { used: Some(used(system)), ..ladder(8, 3) });
        assert!(
            html(None).contains("how much is in use outside of pods is unknown, and so is the sum."),
            "{}",
            html(None)
        );
        assert!(!html(Some(0.0)).contains("outside of pods is unknown"));
    }
}
