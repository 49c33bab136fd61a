//! One AppWrapper: why it waits, why some of its pods have no node, or that neither is so; and what to do if there is none of that name.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use mcad_accounting::cluster::Missing;
use mcad_accounting::object::AppWrapperName;
use mcad_accounting::snapshot::Snapshot;
use mcad_terminal::grid::wrapped;
use mcad_terminal::paint::Tone;

use super::cell::UNKNOWN;
use super::{View, write_notes};
use crate::explain::amount::{Rounding, count, list, printable, span};
use crate::explain::appwrapper::AppWrapper;
use crate::explain::ladder::ByResource;
use crate::explain::node::simulated;
use crate::explain::quota::{Quota, Says};

/// So many names are in an error.
const NAMED: usize = 5;
/// The width of a label and the gap behind it.
const LABEL: usize = 10;

/// Why there is no AppWrapper to explain. Display says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// AppWrappers are not known.
    #[error("AppWrappers are not known: they could not be listed, or are not in the dump")]
    Unknown,
    /// The API server has no such kind.
    #[error("the API server serves no AppWrappers: neither mcad.ibm.com nor workload.codeflare.dev is installed")]
    NotServed,
    /// There is no Kubernetes.
    #[error("there are no AppWrappers without Kubernetes (--cluster local)")]
    NoKubernetes,
    /// There is none at all.
    #[error("the cluster has no AppWrappers")]
    NoneAtAll,
    /// Other namespaces have one of that name.
    #[error("no AppWrapper named {name} in namespace {namespace}. There is one in {}: add -n {}", list(others), others[0])]
    Elsewhere {
        /// The namespace that was looked in.
        namespace: String,
        /// The name.
        name: String,
        /// The namespaces with an AppWrapper of that name; at least one.
        others: Vec<String>,
    },
    /// The namespace has AppWrappers of other names.
    #[error("no AppWrapper named {name} in namespace {namespace}. There are {}", list(others))]
    OtherNames {
        /// The namespace that was looked in.
        namespace: String,
        /// The name.
        name: String,
        /// Names that are there; the last entry may be how many more there are.
        others: Vec<String>,
    },
    /// The namespace has no AppWrappers.
    #[error(
        "namespace {namespace} has no AppWrappers. Choose another with -n: there are AppWrappers in {}",
        list(others)
    )]
    EmptyNamespace {
        /// The namespace that was looked in.
        namespace: String,
        /// Namespaces with AppWrappers; the last entry may be how many more there are.
        others: Vec<String>,
    },
    /// Several namespaces have one of that name, and none of them was chosen.
    #[error("AppWrappers are called {name} in the namespaces {}. Choose one with -n", list(others))]
    Several {
        /// The name.
        name: String,
        /// The namespaces.
        others: Vec<String>,
    },
    /// No namespace has one of that name.
    #[error("no AppWrapper named {name} in any namespace. `kubectl mcad` lists those that wait")]
    Nowhere {
        /// The name.
        name: String,
    },
}

/// The AppWrapper of that name in that namespace, or, without a namespace, in the only one that has it.
pub fn find(snapshot: &Snapshot, namespace: Option<&str>, name: &str) -> Result<AppWrapperName, NotFound> {
    let Some(all) = &snapshot.appwrappers else {
        return Err(if !snapshot.has_kubernetes() {
            NotFound::NoKubernetes
        } else if snapshot.missing.contains(&Missing::AppWrappersServed) {
            NotFound::NotServed
        } else {
            NotFound::Unknown
        });
    };
    let names: Vec<&AppWrapperName> = all.appwrappers.iter().map(|view| &view.appwrapper.name).collect();
    if names.is_empty() {
        return Err(NotFound::NoneAtAll);
    }
    let called: Vec<_> = names.iter().copied().filter(|at| *at.name == *name).collect();
    let found = match namespace {
        Some(namespace) => called.iter().find(|at| *at.namespace == *namespace),
        None => called.first().filter(|_| called.len() == 1),
    };
    if let Some(found) = found {
        return Ok((*found).clone());
    }
    let name = name.to_owned();
    let namespaces = || at_most(called.iter().map(|at| &at.namespace));
    let Some(namespace) = namespace.map(str::to_owned) else {
        return Err(if called.is_empty() {
            NotFound::Nowhere { name }
        } else {
            NotFound::Several { name, others: namespaces() }
        });
    };
    let mut there = names.iter().filter(|at| *at.namespace == *namespace).map(|at| &at.name).peekable();
    Err(if !called.is_empty() {
        NotFound::Elsewhere { namespace, name, others: namespaces() }
    } else if there.peek().is_some() {
        NotFound::OtherNames { name, others: at_most(there), namespace: namespace.clone() }
    } else {
        let mut others: Vec<_> = names.iter().map(|at| &at.namespace).collect();
        others.dedup();
        NotFound::EmptyNamespace { namespace, others: at_most(others.into_iter()) }
    })
}

/// A few names, and how many more there are.
fn at_most<'a>(mut names: impl Iterator<Item = &'a Arc<str>>) -> Vec<String> {
    let mut few: Vec<_> = names.by_ref().take(NAMED).map(|name| (**name).to_owned()).collect();
    let more = names.count();
    if more > 0 {
        few.push(format!("{more} more"));
    }
    few
}

/// What there is to say of one AppWrapper. `fake` are the nodes whose GPUs are simulated: what fits may fit only there.
pub fn why<'a>(appwrapper: &AppWrapper, fake: impl IntoIterator<Item = &'a str>, view: View) -> String {
    let mut out = String::new();
    let name = format!("{}/{}", printable(&appwrapper.namespace), printable(&appwrapper.name));
    out.push_str(&view.paint.tone(Tone::Title, &format!("AppWrapper {name} {}", title(appwrapper))));
    out.push_str("\n\n");
    let waits = appwrapper.waiting.as_ref().map(|waits| &waits.why);
    let kueue = appwrapper.kueue.as_ref();
    let reason = waits.or_else(|| appwrapper.placed_in_part.as_ref().map(|part| &part.why));
    let reason = reason.or_else(|| kueue?.why.as_ref());
    let state = if appwrapper.state.is_empty() { "none: no controller has set one" } else { &appwrapper.state };
    let asked = format!("{} in {}", appwrapper.requested.words(), count(appwrapper.pods, "pod", "pods"));
    let unreadable = match appwrapper.unreadable {
        0 => String::new(),
        parts => format!("; and more: {} of it can't be read", count(parts.into(), "part", "parts")),
    };
    let bound = appwrapper.pods_bound.map_or_else(
        || format!("{UNKNOWN}: Pods are not known"),
        |bound| format!("{} of {} bound to a node", bound, count(appwrapper.pods, "pod", "pods")),
    );
    let holds = appwrapper.allocated.as_ref().map(ByResource::words);
    let says = kueue.and_then(|of| of.says.as_ref());
    let rows = [
        ("Why", reason.cloned()),
        ("Kueue", says.map(Says::words)),
        ("State", Some(state.to_owned())),
        ("Requests", Some(format!("{asked}{unreadable}"))),
        ("Pods", Some(bound)),
        ("Holds", holds.filter(|_| appwrapper.waiting.is_none())),
        ("GPUs", appwrapper.held_gpus.as_ref().map(|held| format!("its pods hold {}", held.in_words()))),
        ("Queue", queue(appwrapper)),
        ("Quota", kueue.map(|of| flavors(&of.flavors)).filter(|flavors| !flavors.is_empty())),
        ("Priority", Some(appwrapper.priority.clone()).filter(|priority| !priority.is_empty())),
    ];
    for (label, text) in rows {
        let Some(text) = text else { continue };
        let width = view.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL));
        let text = wrapped(&printable(&text), width).join(&format!("\n{:LABEL$}", ""));
        // Writing to a String has no error.
        let _ = writeln!(out, "{label:<LABEL$}{text}");
    }
    write_notes(&mut out, simulated(fake).as_slice(), view);
    out
}

/// Its queue, and the ClusterQueue that this leads to.
fn queue(appwrapper: &AppWrapper) -> Option<String> {
    let kueue = appwrapper.kueue.as_ref();
    let local = kueue.map(|of| &of.local_queue).filter(|name| !name.is_empty()).unwrap_or(&appwrapper.queue);
    if local.is_empty() {
        return None;
    }
    let cluster_queue = kueue.and_then(|of| of.cluster_queue.as_ref());
    Some(cluster_queue.map_or_else(|| local.clone(), |name| format!("{local}, of ClusterQueue {name}")))
}

/// Quota by flavor: `8 GPUs in flavor a100`.
fn flavors(flavors: &BTreeMap<String, ByResource<Quota>>) -> String {
    let of_flavor = |(flavor, resources): (&String, &ByResource<Quota>)| {
        let words: Vec<_> = resources.iter().map(|(r, quota)| quota.words(&r, Rounding::Nearest)).collect();
        format!("{} in flavor {flavor}", list(&words))
    };
    flavors.iter().map(of_flavor).collect::<Vec<_>>().join("; ")
}

/// The rest of a sentence that begins with its name.
fn title(appwrapper: &AppWrapper) -> String {
    if let Some(waits) = &appwrapper.waiting {
        return match waits.seconds {
            Some(seconds) => format!("has been waiting for {}.", span(seconds)),
            None => "waits. Since when is unknown.".to_owned(),
        };
    }
    if let Some(part) = &appwrapper.placed_in_part {
        let placed = appwrapper.pods.saturating_sub(part.pods_unbound);
        return format!("is placed in part: {placed} of {} have a node.", count(appwrapper.pods, "pod", "pods"));
    }
    if appwrapper.kueue.as_ref().is_some_and(|of| of.why.is_some()) {
        return "was started, but is not ready.".to_owned();
    }
    match appwrapper.state.as_str() {
        "" => "does not wait.".to_owned(),
        state => format!("does not wait: its state is {}.", printable(state)),
    }
}
