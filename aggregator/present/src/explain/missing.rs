//! Sentences on what is missing from the input and what is therefore unknown (docs/accounting.md §6). They come before all
//! values, on the page and in a terminal.
use mcad_accounting::cluster::Missing;
use mcad_accounting::input::Input;

use super::amount::{Rounding, count, list, words};
use super::cluster::{Cluster, Orphans};
use crate::resources::order;

/// The most resources that are named in a sentence.
const NAMED: usize = 8;

/// One sentence for each thing that is missing, left out or irregular. For a dump, the sentences about the dump already name what is
/// missing or left out, so these are not repeated.
pub fn lines(cluster: &Cluster, input: Option<&Input>) -> Vec<String> {
    let missing = cluster.missing.iter().filter(|missing| input.is_none() || **missing == Missing::AppWrappersServed);
    let mut lines: Vec<_> = missing.map(|missing| sentence(*missing).to_owned()).collect();
    // The sentences about a dump name these objects with the place in the file.
    lines.extend(cluster.left_out.iter().filter(|_| input.is_none()).map(|left| left.sentence.clone()));
    lines.extend(cluster.orphans.as_ref().filter(|orphans| orphans.pods > 0).map(|orphans| {
        let known = !cluster.missing.contains(&Missing::Nodes);
        homeless(orphans, if known { ["does not exist", "do not exist"] } else { ["is not known", "are not known"] })
    }));
    lines.extend(cluster.claims.iter().flat_map(|claims| claims.sentences.iter().cloned()));
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
        Missing::Devices => {
            "Devices and claims (ResourceSlices, ResourceClaims) are not known: GPU values that depend on them are absent. \
             If this persists, listing them has failed: the log has the reason."
        }
    }
}

fn homeless(Orphans { pods, requested }: &Orphans, [one, many]: [&str; 2]) -> String {
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
    let (are, node, how, request) =
        if *pods == 1 { ("is", "a node", one, "requests") } else { ("are", "nodes", many, "request") };
    let pods = count(*pods, "pod", "pods");
    format!(
        "{pods} {are} bound to {node} that {how}, and {request} {amounts}. Node and cluster values do not include these requests."
    )
}
