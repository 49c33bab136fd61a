//! Applies the events of a pod: to the pod itself and to the sums of its node, its AppWrapper and its list.
use std::sync::Arc;

use super::appwrappers::AppWrapperEntry;
use super::pods::Place;
use super::sums::Change;
use super::{Cluster, NodeEntry, Revision, Source, same};
use crate::cluster::room::Nominated;
use crate::object::{AppWrapperName, Pod};
use crate::table::Table;

impl Cluster {
    pub(super) fn set_pod(&mut self, pod: Pod) {
        match self.pods.find(&pod.namespace, &pod.name) {
            None => self.add_pod(pod),
            Some((place, known)) if !pod.is_same_work(known) => self.replace_pod(place, pod),
            // Most changes to a pod affect nothing that is stored here.
            Some((_, known)) if pod.is_as_far(known) => {}
            Some((place, known)) => {
                let moves = pod.node != known.node;
                self.advance_pod(place, pod, moves);
            }
        }
    }

    fn add_pod(&mut self, mut pod: Pod) {
        self.share_names(&mut pod);
        self.account(Change::Comes, &pod);
        let (rivals_before, uid, owner) = (self.pods.have_rivals(), pod.cgroup_uid.clone(), pod.owner.clone());
        let place = self.pods.insert(pod);
        self.note_owned(owner.as_ref(), place);
        self.touch_rivals(rivals_before, &uid);
        self.note_devices_at(place);
    }

    /// The pod requests something else, or belongs to another AppWrapper, than before.
    fn replace_pod(&mut self, place: Place, mut pod: Pod) {
        self.share_names(&mut pod);
        self.account(Change::Comes, &pod);
        let (rivals_before, uid) = (self.pods.have_rivals(), pod.cgroup_uid.clone());
        let owner = pod.owner.clone();
        if let Some(before) = self.pods.replace(place, pod) {
            self.note_claims_used(&before, place, false);
            self.touch_devices_of(&before);
            if owner != before.owner {
                self.note_owned(owner.as_ref(), place);
                self.note_disowned(before.owner.as_ref(), place);
            }
            self.account(Change::Goes, &before);
            self.touch_rivals(rivals_before, &before.cgroup_uid);
        }
        self.touch_rivals(rivals_before, &uid);
        self.note_devices_at(place);
    }

    /// Records that the pod at this place uses its claims, and holds the devices that are reserved for it.
    fn note_devices_at(&mut self, place: Place) {
        if self.uses_no_devices(place) {
            return;
        }
        if let Some(pod) = self.pods.at(place).cloned() {
            self.note_claims_used(&pod, place, true);
            self.touch_devices_of(&pod);
        }
    }

    /// The pod made progress, for example was bound to a node, and is otherwise unchanged. If both states belong to the
    /// same node or AppWrapper, that is looked up only once.
    fn advance_pod(&mut self, place: Place, mut pod: Pod, moves: bool) {
        if moves {
            self.share_node(&mut pod);
        }
        self.share_rare(&mut pod);
        let Some(after) = self.pods.advance(place, &mut pod) else { return };
        let (before, unreadable) = (pod, after.unreadable);
        let states = [(Change::Comes, after), (Change::Goes, &before)];
        for of_one_node in states.chunks(if moves { 1 } else { states.len() }) {
            account_on_node(&mut self.nodes, of_one_node, &mut self.revision);
        }
        account_nominations(&mut self.nodes, &states, &mut self.revision);
        account_for_owner(&mut self.appwrappers, &states);
        self.note_unreadable(Source::Pods, before.unreadable, unreadable);
        self.touch_rivals(self.pods.have_rivals(), &before.cgroup_uid);
        if before.claims().is_some() {
            // After the exchange, `before` still contains the names of the claims.
            self.note_claims_used(&before, place, false);
            self.touch_devices_of(&before);
        }
        self.note_devices_at(place);
    }

    /// Stores names that many pods share only once. The names of nodes and AppWrappers are already keys of tables in
    /// which the pod is looked up next.
    fn share_names(&mut self, pod: &mut Pod) {
        self.share_node(pod);
        if let Some(owner) = &mut pod.owner {
            *owner = match self.appwrappers.get_key_value(owner) {
                Some((known, _)) => known.clone(),
                None => AppWrapperName { namespace: self.share(&owner.namespace), name: self.share(&owner.name) },
            };
        }
        let owners = pod.owner.as_ref().map(|owner| &owner.namespace).filter(|known| **known == pod.namespace);
        pod.namespace = match owners {
            Some(known) => known.clone(),
            None => self.share(&pod.namespace),
        };
        pod.requests.share_names(|name| self.share(name));
        self.share_rare(pod);
    }

    fn share_rare(&mut self, pod: &mut Pod) {
        let Some(rare) = &mut pod.rare else { return };
        // A nomination belongs to one pod and does not last; names of claims also belong to one pod.
        if rare.nominated.is_some() || rare.claims.is_some() {
            return;
        }
        match self.rares.get(rare) {
            Some(known) => *rare = known.clone(),
            None => drop(self.rares.insert(rare.clone())),
        }
    }

    fn share_node(&mut self, pod: &mut Pod) {
        if let Some(node) = &mut pod.node {
            *node = match self.nodes.get_key_value(node) {
                Some((known, _)) => known.clone(),
                None => self.share(node),
            };
        }
    }

    pub(super) fn remove_pod(&mut self, namespace: &str, name: &str, uid: &str) {
        let rivals_before = self.pods.have_rivals();
        let found = self.pods.find(namespace, name).filter(|(_, pod)| same(&pod.uid, uid));
        let Some(place) = found.map(|(place, _)| place) else { return };
        if let Some(pod) = self.pods.remove(place) {
            self.note_disowned(pod.owner.as_ref(), place);
            self.account(Change::Goes, &pod);
            self.touch_rivals(rivals_before, &pod.cgroup_uid);
            self.note_claims_used(&pod, place, false);
            self.touch_devices_of(&pod);
        }
    }

    /// It may have changed which of several pods a UID means, and with it how the report of each pod's node is
    /// evaluated.
    fn touch_rivals(&mut self, rivals_before: bool, uid: &str) {
        if !rivals_before && !self.pods.have_rivals() {
            return;
        }
        let revision = self.revision.next();
        for pod in self.pods.all_of_uid(uid) {
            if let Some(entry) = pod.node.as_ref().and_then(|node| self.nodes.get_mut(node)) {
                entry.revision = revision;
            }
        }
    }

    /// Adds a pod to the sums of its node, its AppWrapper and its list, or subtracts it.
    fn account(&mut self, change: Change, pod: &Pod) {
        account_on_node(&mut self.nodes, &[(change, pod)], &mut self.revision);
        account_nominations(&mut self.nodes, &[(change, pod)], &mut self.revision);
        account_for_owner(&mut self.appwrappers, &[(change, pod)]);
        match change {
            Change::Comes => self.note_unreadable(Source::Pods, 0, pod.unreadable),
            Change::Goes => self.note_unreadable(Source::Pods, pod.unreadable, 0),
        }
    }

    /// An AppWrapper that has pods has an entry.
    fn note_owned(&mut self, owner: Option<&AppWrapperName>, place: Place) {
        if let Some(entry) = owner.and_then(|owner| self.appwrappers.get_mut(owner)) {
            entry.pods.push(place);
        }
    }

    fn note_disowned(&mut self, owner: Option<&AppWrapperName>, place: Place) {
        let Some(entry) = owner.and_then(|owner| self.appwrappers.get_mut(owner)) else { return };
        if let Some(at) = entry.pods.iter().position(|known| *known == place) {
            entry.pods.swap_remove(at);
        }
    }
}

/// Adds states of one pod, all on the same node, to the sums of that node or subtracts them. The node's revision
/// changes even if the pod holds nothing, because the pod may be measured there.
fn account_on_node(nodes: &mut Table<Arc<str>, NodeEntry>, states: &[(Change, &Pod)], revision: &mut Revision) {
    let Some(name) = states.first().and_then(|(_, pod)| pod.node.as_ref()) else { return };
    let held = || states.iter().filter(|(_, pod)| pod.held_node().is_some());
    let entry = match nodes.get_mut(name) {
        Some(entry) => entry,
        None if held().next().is_none() => return,
        None => nodes.entry(name.clone()).or_default(),
    };
    entry.revision = revision.next();
    for (change, pod) in held() {
        entry.held.account(pod, *change);
    }
    if entry.is_forgotten() {
        nodes.remove(name);
    }
}

/// Adds states of a pod to the sums of the nodes that the pod is nominated to, or subtracts them.
fn account_nominations(nodes: &mut Table<Arc<str>, NodeEntry>, states: &[(Change, &Pod)], revision: &mut Revision) {
    for (change, pod) in states {
        let Some((name, nominated)) = Nominated::of(pod) else { continue };
        let entry = match nodes.get_mut(name) {
            Some(entry) => entry,
            None => nodes.entry(name.clone()).or_default(),
        };
        entry.revision = revision.next();
        entry.held.account_nominated(nominated, *change);
        if entry.is_forgotten() {
            nodes.remove(name);
        }
    }
}

/// The same for the sums of an AppWrapper; all states belong to the same one.
fn account_for_owner(appwrappers: &mut Table<AppWrapperName, AppWrapperEntry>, states: &[(Change, &Pod)]) {
    let Some(owner) = states.first().and_then(|(_, pod)| pod.owner.as_ref()) else { return };
    let entry = match appwrappers.get_mut(owner) {
        Some(entry) => entry,
        None => appwrappers.entry(owner.clone()).or_default(),
    };
    for (change, pod) in states {
        entry.gained.account(pod, *change);
    }
    if entry.is_forgotten() {
        appwrappers.remove(owner);
    }
}
