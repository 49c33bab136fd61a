//! Facts about a dump as an input, shown before all values: its instant, what is missing, what was left out.
//!
//! Owns the sentences; explain and the page place them.
use std::error::Error;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use mcad_accounting::input::{Input, Missing};
use mcad_accounting::object::{Kind, Object, Served};
use mcad_accounting::table::Secret;

use super::Dump;
use super::instant::Instant;
use super::record::{ListState, Listed};

/// The facts about a dump with this instant.
pub fn said_of(dump: &Dump, instant: Option<Instant>) -> Input {
    let kinds = Kind::CORE
        .into_iter()
        .chain(Kind::ALL.into_iter().skip(Kind::CORE.len()).filter(|kind| dump.has_failed(*kind)));
    let missing: Vec<_> = kinds.filter_map(|kind| missing(dump, kind)).collect();
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

/// The sentence about a kind that is not known.
fn missing(dump: &Dump, kind: Kind) -> Option<Missing> {
    if dump.known.contains(&kind) {
        return None;
    }
    if dump.is_not_served(kind) {
        return None;
    }
    let lists = dump.records.iter().flat_map(|record| record.lists_of(kind));
    let failed: Vec<&Listed> = lists.filter(|list| list.state == ListState::Failed).collect();
    let name = kind.plural();
    let unknown = match kind {
        Kind::Node => "installed and free amounts and fit are unknown",
        Kind::Pod => "requested and free amounts and fit are unknown",
        Kind::AppWrapper => "it is unknown which of them wait and why",
        Kind::ResourceClaimTemplate => "it is unknown which devices pods request with them",
        _ => "devices and the claims that hold them are unknown and left out",
    };
    let mut sentence = format!("no {name} in the dump, so {unknown}");
    if dump.count(kind) > 0 {
        sentence = format!("not all {name} are in the dump (only {}), so {unknown}", dump.count(kind));
    }
    let why: Vec<_> = failed.iter().filter_map(|list| list.error.as_deref()).collect();
    // Writing to a String never fails.
    if why.is_empty() {
        let resource = match kind {
            Kind::Node => "nodes".to_owned(),
            Kind::Pod => "pods -A".to_owned(),
            Kind::AppWrapper => format!("appwrappers.{} -A", group(Served::WorkloadV1Beta2)),
            Kind::ResourceClaim | Kind::ResourceClaimTemplate => format!("{} -A", kind.plural().to_lowercase()),
            other => other.plural().to_lowercase(),
        };
        let _ = write!(
            sentence,
            ". Use `mcad-aggregator dump`, which also records that there are none, or add a file with the output of `kubectl get {resource} -o json`"
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
        notes.push(format!(
            "{doubled} {they} in the dump more than once, such as {first}: the last copy of each counts"
        ));
    }
    let has_devices = dump.records.is_empty() && Kind::DEVICES.into_iter().any(|kind| dump.count(kind) > 0);
    for (kind, so, resource) in [
        (Kind::ResourceSlice, "devices held by claims count as not published by any driver", "resourceslices"),
        (Kind::ResourceClaim, "no device counts as held by a claim", "resourceclaims -A"),
        (Kind::DeviceClass, "requests for devices of a class count as fitting on no node", "deviceclasses"),
    ] {
        if has_devices && !dump.known.contains(&kind) {
            let name = kind.plural();
            notes.push(format!(
                "the dump has objects of Dynamic Resource Allocation but no {name}, so {so}: if the cluster has {name}, add a file with the output of `kubectl get {resource} -o json`"
            ));
        }
    }
    let mut quantities: Vec<_> = dump.unreadable.iter().map(ToString::to_string).collect();
    if dump.more_unreadable > 0 {
        quantities.push(format!("{} more quantities cannot be parsed", dump.more_unreadable));
    }
    notes.append(&mut quantities);
    if dump.records.len() > 1 {
        notes.push(format!("the input consists of {} dumps: the time is that of the last dump", dump.records.len()));
    }
    if instant.is_none() && !dump.objects.is_empty() {
        notes.push("the dump contains no time, so ages are unknown: give a time with --at".to_owned());
    }
    notes
}

/// The number of objects that occur more than once, and the name of one.
fn doubled(objects: &[Object]) -> (usize, String) {
    let hasher = Secret::default();
    let mut seen = hashbrown::HashSet::with_capacity_and_hasher(objects.len(), hasher.clone());
    let (mut count, mut first) = (0, String::new());
    for object in objects {
        // An AppWrapper may be there in several versions.
        let served = if let Object::AppWrapper(appwrapper) = object { Some(appwrapper.served) } else { None };
        // With 64-bit hashes, a collision among a million objects is practically impossible.
        if !seen.insert(hasher.hash_one((object.kind(), served, object.name()))) {
            if count == 0 {
                first = object.called();
            }
            count += 1;
        }
    }
    (count, first)
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}
