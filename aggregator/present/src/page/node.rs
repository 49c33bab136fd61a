//! The page of one node: its state, its ladder and its devices.
use maud::{Markup, html};
use mcad_accounting::options::GpuMetrics;
use mcad_accounting::resource::Resource;

use super::Shown;
use super::amount::{UNKNOWN, family, named};
use super::bars::{Beside, Of, card, digits, legend};
use super::query::encoded;
use super::troubles::{Heard, Troubles, condition, fake};
use crate::explain::Unanswered;
use crate::explain::node::{GpuEntry, NodeEntry};
use crate::resources::order;

/// The page of the node of that name.
pub(super) fn node(shown: &Shown<'_>, name: &str) -> Result<Markup, Unanswered> {
    let snapshot = shown.snapshot;
    let view = snapshot.nodes.as_ref().ok_or(Unanswered::NodesUnknown)?.get(name);
    let view = view.ok_or_else(|| Unanswered::NoSuchNode(name.to_owned()))?;
    let (node, agent) = (NodeEntry::new(view, snapshot), snapshot.agent(name));
    let mut resources: Vec<Resource> = node.ladder.iter().map(|(resource, _)| resource).collect();
    resources.sort_by_key(order);
    Ok(html! {
        p { a href="/" { "← the cluster" } }
        section.truth #truth data-live {
            h2 { "Node " (named(&node.name)) (fake(agent)) }
            p role="status" { (condition(view, agent, Troubles::of(view, agent, Heard::of(snapshot)))) }
            p.quiet {
                (node.agent.sentence()) " "
                @if !node.taints.is_empty() { "Taints: " @for (at, taint) in node.taints.iter().enumerate() { @if at > 0 { ", " } (named(taint)) } ". " }
                a href=(format!("/api/v1/nodes/{}", encoded(&node.name))) { "This node as JSON" }
            }
        }
        div #resources data-live {
            (legend())
            div.cards {
                @for resource in &resources {
                    @if let Some(rung) = node.ladder.get(resource) { (card(resource, rung, &Beside { shares: node.shares.get(resource.name()).copied(), ..Beside::default() }, Of::Node, &html! {})) }
                }
            }
        }
        div #devices data-live {
            @if snapshot.options.gpu_metrics == GpuMetrics::On { (devices(&node)) }
        }
    })
}

/// What is shown instead if there is no such node. It has the same parts, so that an open page follows a node that goes or comes back.
pub(super) fn no_node(sentence: &str) -> Markup {
    html! {
        p { a href="/" { "← the cluster" } }
        section.truth #truth data-live { p.sentence role="status" { (sentence) "." } }
        div #resources data-live {}
        div #devices data-live {}
    }
}

fn devices(node: &NodeEntry) -> Markup {
    html! {
        section aria-labelledby="devices-h" {
            h2 #devices-h { "Devices" }
            @match node.gpus.as_deref() {
                None if node.agent.state == "up" => p.unknown { "The devices are " (UNKNOWN) ", because the agent did not examine GPUs." },
                None => p.unknown { "The devices are " (UNKNOWN) ", because no agent reports." },
                Some([]) => p { "The agent found none." },
                Some(gpus) => {
                    table.devices {
                        caption.hidden { "GPUs and MIG instances in order of UUID" }
                        thead { tr {
                            th scope="col" { "Device" } th scope="col" { "Health" } th.n scope="col" { "Utilization" }
                            th.n scope="col" { "Memory" } th scope="col" { "Held by" }
                        } }
                        tbody { @for gpu in gpus { (device(gpu)) } }
                    }
                }
            }
        }
    }
}

fn device(gpu: &GpuEntry) -> Markup {
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
                @if let Some(unclaimed) = gpu.unclaimed_in_words() { br; a.tag.bad href=(family("mcad_gpu_unclaimed_memory_bytes")) { (unclaimed) } }
            }
            td {
                @match gpu.held_by.as_deref() {
                    None => span.unknown { (UNKNOWN) },
                    Some([]) => span.quiet { "none" },
                    Some(holders) => @for (at, holder) in holders.iter().enumerate() {
                        @if at > 0 { ", " } (named(&holder.namespace)) "/" (named(&holder.pod))
                    },
                }
                @if let Some(strays) = gpu.strays_in_words() { br; a.tag.bad href=(family("mcad_gpu_strays")) { (strays) } }
            }
        }
    }
}
