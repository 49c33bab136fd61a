//! What is said of a dump as an input, before anything that is made of it: its instant, what is missing, what was left out.
//!
//! Owns the sentences; where they stand is explain's and the page's.
use std::error::Error;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use mcad_accounting::input::{Input, Missing};
use mcad_accounting::object::{Kind, Object, Served};
use mcad_accounting::table::Secret;

use super::Dump;
use super::instant::Instant;
use super::record::{ListState, Listed};

/// What is said of a dump whose instant is this one.
pub fn said_of(dump: &Dump, instant: Option<Instant>) -> Input {
    let missing: Vec<_> = Kind::ALL.into_iter().filter_map(|kind| missing(dump, kind)).collect();
    let left_out: Vec<_> = dump.skipped.iter().map(|skipped| chain(skipped)).collect();
    Input {
        complete: missing.is_empty() && left_out.is_empty(),
        missing,
        left_out,
        more_left_out: dump.more_skipped,
        notes: notes(dump, instant),
        instant: instant.map(|instant| instant.to_string()),
        instant_by: instant.map(|instant| instant.by.name()),
        server_version: dump.records.iter().find_map(|record| record.server_version.clone()),
        files: dump.files.iter().map(|file| file.display().to_string()).collect(),
        nodes: dump.count(Kind::Node),
        pods: dump.count(Kind::Pod),
        appwrappers: dump.count(Kind::AppWrapper),
        as_of: match instant {
            Some(instant) => format!("as of {instant} ({})", instant.by.words()),
            None => "of an unknown time".to_owned(),
        },
    }
}

/// What is said of a kind that is not known.
fn missing(dump: &Dump, kind: Kind) -> Option<Missing> {
    if dump.known.contains(&kind) {
        return None;
    }
    if dump.is_not_served(kind) {
        return None;
    }
    let lists = dump.records.iter().flat_map(|record| record.lists_of(kind));
    let failed: Vec<&Listed> = lists.filter(|list| list.state == ListState::Failed).collect();
    let (name, unknown) = match kind {
        Kind::Node => ("Nodes", "what the cluster has, what is free and what fits are unknown"),
        Kind::Pod => ("Pods", "what is requested, what is free and what fits are unknown"),
        Kind::AppWrapper => ("AppWrappers", "which of them wait, and for what, is unknown"),
    };
    let mut sentence = format!("no {name} in the dump, so {unknown}");
    if dump.count(kind) > 0 {
        sentence = format!("only {} {name} in the dump, not all, so {unknown}", dump.count(kind));
    }
    let why: Vec<_> = failed.iter().filter_map(|list| list.error.as_deref()).collect();
    // Writing to a String has no error.
    if why.is_empty() {
        let resource = match kind {
            Kind::Node => "nodes".to_owned(),
            Kind::Pod => "pods -A".to_owned(),
            Kind::AppWrapper => format!("appwrappers.{} -A", group(Served::WorkloadV1Beta2)),
        };
        let _ = write!(
            sentence,
            ". `mcad-aggregator dump` lists them, and says so where there are none; or add a file of `kubectl get {resource} -o json`"
        );
    } else {
        let _ = write!(sentence, ". They could not be listed: {}", why.join("; "));
    }
    Some(Missing { kind: name, sentence })
}

fn group(served: Served) -> &'static str {
    served.api_version().split_once('/').map_or("", |(group, _)| group)
}

fn notes(dump: &Dump, instant: Option<Instant>) -> Vec<String> {
    let mut notes = Vec::new();
    let (doubled, first) = doubled(&dump.objects);
    if doubled > 0 {
        let they = if doubled == 1 { "object is" } else { "objects are" };
        notes.push(format!("{doubled} {they} in it more than once, such as {first}: the last one counts"));
    }
    let mut quantities: Vec<_> = dump.unreadable.iter().map(ToString::to_string).collect();
    if dump.more_unreadable > 0 {
        quantities.push(format!("{} more quantities cannot be read", dump.more_unreadable));
    }
    notes.append(&mut quantities);
    if dump.records.len() > 1 {
        notes.push(format!("it was put together of {} dumps: the instant is that of the last one", dump.records.len()));
    }
    if instant.is_none() && !dump.objects.is_empty() {
        notes.push("there is no time in it, so ages are unknown: give one with --at".to_owned());
    }
    notes
}

/// How many objects are there more than once, and one of them.
fn doubled(objects: &[Object]) -> (usize, String) {
    let hasher = Secret::default();
    let mut seen = hashbrown::HashSet::with_capacity_and_hasher(objects.len(), hasher.clone());
    let (mut count, mut first) = (0, String::new());
    for object in objects {
        // One may be there as both versions of its group.
        let served = if let Object::AppWrapper(appwrapper) = object { Some(appwrapper.served) } else { None };
        // Of 64 bits each, not two of a million are the same by chance.
        if !seen.insert(hasher.hash_one((object.kind(), served, object.name()))) {
            if count == 0 {
                first = object.called();
            }
            count += 1;
        }
    }
    (count, first)
}

/// An error and its causes in a line.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}
