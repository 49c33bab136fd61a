//! What is missing from the input and what therefore is unknown, in sentences (docs/accounting.md §6). They stand before every
//! figure, on the page and in a terminal.
use mcad_accounting::cluster::Missing;
use mcad_accounting::input::Input;

use super::amount::{Rounding, count, list, words};
use super::cluster::{Cluster, Orphans};
use crate::resources::order;

/// So many resources are named in a sentence.
const NAMED: usize = 8;

/// One sentence for each thing that is missing or left out; none where nothing is. What is said of a dump names what is missing from it, so that
/// these sentences would say it again.
pub fn lines(cluster: &Cluster, input: Option<&Input>) -> Vec<String> {
    let missing = cluster.missing.iter().filter(|missing| input.is_none() || **missing == Missing::AppWrappersServed);
    let mut lines: Vec<_> = missing.map(|missing| sentence(*missing).to_owned()).collect();
    // What is said of a dump says it, with the place in the file.
    lines.extend(cluster.left_out.iter().filter(|_| input.is_none()).map(|left| left.sentence.clone()));
    lines.extend(cluster.orphans.as_ref().filter(|orphans| orphans.pods > 0).map(|orphans| {
        let known = !cluster.missing.contains(&Missing::Nodes);
        homeless(orphans, if known { "not there" } else { "not known" })
    }));
    lines
}

fn sentence(missing: Missing) -> &'static str {
    match missing {
        Missing::Nodes => {
            "Nodes are not known: what is installed, requested and free is unknown, and so is whether an AppWrapper fits."
        }
        Missing::Pods => {
            "Pods are not known: what is requested, free and used is unknown, and so is whether an AppWrapper fits. \
             Nothing is known to be free."
        }
        Missing::AppWrappers => "AppWrappers are not known: how many there are, and which of them wait, is unknown.",
        Missing::AppWrappersServed => "The API server serves no AppWrappers.",
    }
}

fn homeless(Orphans { pods, requested }: &Orphans, how: &str) -> String {
    let mut requested: Vec<_> = requested.iter().filter(|(_, amount)| **amount > 0).collect();
    requested.sort_by_key(|(resource, _)| order(resource));
    let more = requested.len().saturating_sub(NAMED) as u64;
    let named = requested.into_iter().take(NAMED);
    let mut amounts: Vec<_> =
        named.map(|(resource, amount)| words(&resource, (*amount).into(), Rounding::Nearest)).collect();
    if more > 0 {
        amounts.push(count(more, "more resource", "more resources"));
    }
    let amounts = if amounts.is_empty() { "nothing".to_owned() } else { list(&amounts) };
    let (are, nodes, request) =
        if *pods == 1 { ("is", "a node that is", "requests") } else { ("are", "nodes that are", "request") };
    let pods = count(*pods, "pod", "pods");
    format!(
        "{pods} {are} bound to {nodes} {how}, and {request} {amounts}. No figure of nodes or of the cluster counts that."
    )
}
