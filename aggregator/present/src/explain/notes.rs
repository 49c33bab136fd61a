//! Sentences under an answer about pods that are not there yet: why it is not certain, and which of the nodes are simulated.
use mcad_accounting::cluster::Source;
use mcad_accounting::object::Version;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::agent::Agent;
use mcad_accounting::unread::Unread;

use super::amount::list;
use super::node::simulated;

/// Why it cannot be told what fits. `versions` are those of the AppWrappers that it is told of.
pub fn unread(unread: &Unread, versions: &[Version]) -> Option<String> {
    if unread.is_in_dump {
        return Some("A part of the dump could not be read, so it cannot be told what fits.".to_owned());
    }
    let mut sources: Vec<Source> = versions.iter().flat_map(|version| unread.of_version(*version)).collect();
    sources.sort_unstable();
    sources.dedup();
    let sources: Vec<String> = sources.iter().map(Source::to_string).collect();
    (!sources.is_empty()).then(|| {
        format!("Some objects could not be read, so it cannot be told what fits. They are {}.", list(&sources))
    })
}

/// That GPUs of nodes are simulated: what fits may fit only there.
pub fn fake(snapshot: &Snapshot) -> Option<String> {
    let all = snapshot.nodes_and_agents();
    let fake = all.filter(|(_, agent)| agent.is_some_and(Agent::has_fake_gpus));
    let mut names: Vec<_> = fake.map(|(view, _)| view.node.name.clone()).collect();
    names.sort_unstable();
    simulated(names.iter().map(|name| &**name))
}
