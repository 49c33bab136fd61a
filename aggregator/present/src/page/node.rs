//! The page of one node: its state, its ladder, its devices one by one.
use maud::{Markup, html};
use mcad_accounting::resource::Resource;

use super::Shown;
use super::amount::{UNKNOWN, family, named};
use super::bars::{Beside, Of, card, digits, legend};
use super::nodes::{condition, fake, troubles_at};
use super::wanted::encoded;
use crate::explain::Unanswered;
use crate::explain::node::{Gpu, Node};
use crate::resources::order;

/// The page of the node of that name.
pub(super) fn node(shown: &Shown<'_>, name: &str) -> Result<Markup, Unanswered> {
    let snapshot = shown.snapshot;
    let in_all = Node::count(snapshot).ok_or(Unanswered::NodesUnknown)?;
    let found = (0..in_all).find(|at| Node::name_at(*at, snapshot) == name);
    let at = found.ok_or_else(|| Unanswered::NoSuchNode(name.to_owned()))?;
    let node = Node::at(at, snapshot);
    let mut resources: Vec<Resource> = node.ladder.iter().map(|(resource, _)| resource).collect();
    resources.sort_by_key(order);
    Ok(html! {
        p { a href="/" { "← the cluster" } }
        section.truth #truth data-live {
            h2 { "Node " (named(&node.name)) (fake(snapshot, at)) }
            p role="status" { (condition(snapshot, at, troubles_at(snapshot, at))) }
            p.quiet {
                (node.agent.sentence()) " "
                @if !node.taints.is_empty() { "Taints: " @for (at, taint) in node.taints.iter().enumerate() { @if at > 0 { ", " } (named(taint)) } ". " }
                "For scripts: " a href=(format!("/api/v1/nodes/{}", encoded(&node.name))) { "the same as JSON" } "."
            }
        }
        (legend())
        div.cards {
            @for resource in &resources {
                @if let Some(rung) = node.ladder.get(resource) { (card(resource, rung, &Beside { shares: node.shares.get(resource.name()).copied(), ..Beside::default() }, Of::Node, &html! {})) }
            }
        }
        (devices(&node))
    })
}

fn devices(node: &Node) -> Markup {
    html! {
        @if let Some(gpus) = &node.gpus {
            section #devices aria-labelledby="devices-h" data-live {
                h2 #devices-h { "Devices" }
                @if gpus.is_empty() { p { "None, as far as its agent sees." } } @else {
                    table.devices {
                        caption.hidden { "GPUs and MIG instances in order of UUID" }
                        thead { tr {
                            th scope="col" { "Device" } th scope="col" { "Health" } th.n scope="col" { "Busy" }
                            th.n scope="col" { "Memory" } th scope="col" { "Held by" }
                        } }
                        tbody { @for gpu in gpus { (device(gpu)) } }
                    }
                }
            }
        }
    }
}

fn device(gpu: &Gpu) -> Markup {
    let gib = |bytes: u64| digits(bytes as f64 / (1_u64 << 30) as f64);
    html! {
        tr {
            th scope="row" {
                (named(&gpu.uuid))
                br;
                small { (named(&gpu.model)) @if let Some(profile) = &gpu.mig_profile { " MIG " (named(profile)) } " " (named(&gpu.bus_id)) }
            }
            td {
                @if gpu.healthy { a.fine href=(family("mcad_gpu_healthy")) { "healthy" } } @else {
                    @for reason in &gpu.unhealthy_reasons { a.tag.bad href=(family("mcad_gpu_healthy")) { (named(reason)) } " " }
                }
            }
            td.n {
                a.f href=(family("mcad_gpu_utilization_ratio")) {
                    @match gpu.utilization_ratio { Some(ratio) => { (format!("{:.0}", ratio * 100.0)) " %" }, None => (UNKNOWN) }
                }
            }
            td.n {
                a.f href=(family("mcad_gpu_memory_used_bytes")) {
                    @match (gpu.memory_used_bytes, gpu.memory_total_bytes) {
                        (Some(used), Some(total)) => { (gib(used)) " of " (gib(total)) " GiB" },
                        (Some(used), None) => { (gib(used)) " GiB" },
                        (None, _) => (UNKNOWN),
                    }
                }
            }
            td {
                @match gpu.held_by.as_deref() {
                    None => span.unknown { (UNKNOWN) },
                    Some([]) => span.quiet { "nobody" },
                    Some(holders) => @for (at, holder) in holders.iter().enumerate() {
                        @if at > 0 { ", " } (named(&holder.namespace)) "/" (named(&holder.pod))
                    },
                }
            }
        }
    }
}
