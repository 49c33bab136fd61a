//! The cluster as the API server tells it, event by event, with the sums that the figures rest on.
//!
//! Owns what is remembered of nodes, pods and AppWrappers, and sums per node and per AppWrapper. An event costs the work
//! of its object and of the node or AppWrapper it touches, however large the cluster is. The same objects give the same
//! cluster, whatever the order of their events.
mod appwrappers;
mod pods;
mod seed;
mod sums;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::histogram::RequestHistograms;
use crate::object::{AppWrapperName, Kind, Node, Object, Pod, Rare, Served};
use crate::room::Nominated;
use crate::table::Table;
use appwrappers::AppWrapperEntry;
use seed::Counted;
use sums::Change;
pub use sums::{Gained, Held, Orphans};

pub use self::pods::Place;
use self::pods::{PodName, Pods};

/// Something that happened to the cluster.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is there, as new or as changed.
    Apply(Object),
    /// An object is gone. One that was made anew under its name stays.
    Delete(Object),
    /// These are all the objects of that source; others of it are gone.
    Reset(Source, Vec<Object>),
    /// The source is out of reach: what it last said is not known to hold.
    Lost(Source),
}

/// Where objects come from: one list of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Nodes.
    Nodes,
    /// Pods of all namespaces.
    Pods,
    /// AppWrappers of all namespaces, as one group and version serves them.
    AppWrappers(Served),
}

impl Source {
    /// Every list there is.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Nodes, Self::Pods].into_iter().chain(Served::ALL.map(Self::AppWrappers))
    }

    /// The kind of its objects.
    pub fn kind(self) -> Kind {
        match self {
            Self::Nodes => Kind::Node,
            Self::Pods => Kind::Pod,
            Self::AppWrappers(_) => Kind::AppWrapper,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => f.write_str("nodes"),
            Self::Pods => f.write_str("pods"),
            Self::AppWrappers(served) => write!(f, "appwrappers.{}", served.api_version()),
        }
    }
}

/// A kind of object that is missing from the input: what rests on it is unknown (docs/accounting.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Nodes are not known.
    Nodes,
    /// Pods are not known.
    Pods,
    /// AppWrappers are not known.
    #[serde(rename = "appwrappers")]
    AppWrappers,
    /// The API server serves no version of AppWrappers: there are none.
    #[serde(rename = "appwrappers_served")]
    AppWrappersServed,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Cluster {
    /// In no order, which is made where it is asked for: an event looks up one, a snapshot goes through all.
    nodes: Table<Arc<str>, NodeEntry>,
    pods: Pods,
    appwrappers: Table<AppWrapperName, AppWrapperEntry>,
    /// Sources that have told all they have.
    known: BTreeSet<Source>,
    /// Versions of AppWrappers that the API server serves. Absent: it has not said yet.
    served: Option<BTreeSet<Served>>,
    /// Names that many objects share, each once.
    names: HashSet<Arc<str>>,
    /// The same of what many pods have alike.
    rares: HashSet<Arc<Rare>>,
    /// AppWrappers that the histograms may not have seen yet.
    unobserved: Vec<AppWrapperName>,
    histograms: RequestHistograms,
    /// What is in the histograms and not among the AppWrappers.
    counted: Counted,
    /// Quantities that could not be read, by list.
    unreadable: BTreeMap<Source, u64>,
    /// The last that was given.
    revision: Revision,
}

/// A state of a node and of the pods on it. No two states have the same, also not those of a node that was made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision(u64);

/// A node and its pods; pods bound to a node that is not there wait here for it.
#[derive(Debug, Default)]
struct NodeEntry {
    node: Option<Arc<Node>>,
    held: Held,
    revision: Revision,
}

impl Cluster {
    /// A cluster of exactly these objects, all of it known.
    pub fn from_objects(objects: impl IntoIterator<Item = Object>) -> Self {
        Self::from_objects_known(objects, &Kind::ALL.into())
    }

    /// A cluster of exactly these objects, of which only these kinds are known: a dump may lack one.
    pub fn from_objects_known(objects: impl IntoIterator<Item = Object>, known: &BTreeSet<Kind>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            cluster.apply(Event::Apply(object));
        }
        cluster.known = Source::all().filter(|source| known.contains(&source.kind())).collect();
        // Which versions were served does not show in a dump.
        cluster.served = known.contains(&Kind::AppWrapper).then(BTreeSet::new);
        cluster.observe();
        cluster
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Apply(Object::Node(node)) => self.set_node(node),
            Event::Apply(Object::Pod(pod)) => self.set_pod(pod),
            Event::Apply(Object::AppWrapper(appwrapper)) => self.set_appwrapper(appwrapper),
            Event::Delete(Object::Node(node)) => self.remove_node(&node.name, &node.uid),
            Event::Delete(Object::Pod(pod)) => {
                self.remove_pod(&pod.namespace, &pod.name, &pod.uid);
            }
            Event::Delete(Object::AppWrapper(gone)) => self.remove_appwrapper(&gone.name, gone.served, &gone.uid),
            Event::Reset(source, objects) => self.reset(source, objects),
            Event::Lost(source) => {
                self.known.remove(&source);
            }
        }
    }

    /// Whether all Nodes are known.
    pub fn knows_nodes(&self) -> bool {
        self.known.contains(&Source::Nodes)
    }

    /// Whether all Pods are known.
    pub fn knows_pods(&self) -> bool {
        self.known.contains(&Source::Pods)
    }

    /// Whether every list that the API server serves is known. AppWrappers that no version is served of are no list.
    pub fn is_listed(&self) -> bool {
        self.knows_nodes() && self.knows_pods() && self.lists_appwrappers()
    }

    /// What is missing (docs/accounting.md §6).
    pub fn missing(&self) -> BTreeSet<Missing> {
        let appwrappers = match &self.served {
            _ if self.knows_appwrappers() => None,
            Some(served) if served.is_empty() => Some(Missing::AppWrappersServed),
            _ => Some(Missing::AppWrappers),
        };
        let nodes = (!self.knows_nodes()).then_some(Missing::Nodes);
        let pods = (!self.knows_pods()).then_some(Missing::Pods);
        [nodes, pods, appwrappers].into_iter().flatten().collect()
    }

    /// Bound, unfinished pods whose node is not there. Where Nodes are not known, no node is.
    pub fn orphans(&self) -> Orphans {
        let known = self.knows_nodes();
        let mut orphans = Orphans::default();
        for entry in self.nodes.values().filter(|entry| entry.node.is_none() || !known) {
            orphans.add(&entry.held);
        }
        orphans
    }

    /// How many quantities could not be read in each list that is known.
    pub fn unreadable(&self) -> impl Iterator<Item = (Source, u64)> {
        self.known.iter().map(|source| (*source, self.unreadable.get(source).copied().unwrap_or(0)))
    }

    /// The nodes that exist, in order of name, and what their pods hold.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &Held)> {
        self.nodes_and_revisions().map(|(node, held, _)| (node, held))
    }

    /// The same with what tells whether anything of the node, or of a pod on it, is not as it was.
    pub fn nodes_and_revisions(&self) -> impl Iterator<Item = (&Arc<Node>, &Held, Revision)> {
        let mut nodes: Vec<_> = self.nodes.values().filter_map(NodeEntry::there).collect();
        nodes.sort_unstable_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
        nodes.into_iter()
    }

    /// The nodes that exist, in no order, and what their pods hold.
    pub fn nodes_unordered(&self) -> impl Iterator<Item = (&Arc<Node>, &Held)> {
        self.nodes.values().filter_map(NodeEntry::there).map(|(node, held, _)| (node, held))
    }

    /// One of them.
    pub fn node_and_revision(&self, name: &str) -> Option<(&Arc<Node>, &Held, Revision)> {
        self.nodes.get(name)?.there()
    }

    /// Whether there is a node of that name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|entry| entry.node.is_some())
    }

    /// The pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter()
    }

    /// The pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(namespace, name)
    }

    /// The pod whose cgroups carry this UID; of several, the first by name.
    pub fn pod_of_uid(&self, uid: &str) -> Option<&Pod> {
        self.pods.of_uid(uid).map(|(_, pod)| pod)
    }

    /// The same, and where it is; it is looked for first where it was, if that is known.
    pub fn find_pod_of_uid(&self, uid: &str, was: Option<Place>) -> Option<(Place, &Pod)> {
        match was {
            Some(place) => self.pods.of_uid_at(uid, place),
            None => self.pods.of_uid(uid),
        }
    }

    /// The pod of that name, and where it is; it is looked for first where one `was`, if that is known.
    pub fn find_pod(&self, namespace: &str, name: &str, was: Option<Place>) -> Option<(Place, &Pod)> {
        match was {
            Some(place) => self.pods.find_at(namespace, name, place),
            None => self.pods.find(namespace, name),
        }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)?.node.as_deref()
    }

    fn reset(&mut self, source: Source, objects: Vec<Object>) {
        match source {
            Source::Nodes => {
                let listed: HashSet<Arc<str>> = objects
                    .iter()
                    .filter_map(|o| if let Object::Node(n) = o { Some(n.name.clone()) } else { None })
                    .collect();
                let there = self.nodes.iter().filter(|(_, entry)| entry.node.is_some()).map(|(name, _)| name.clone());
                for name in there.filter(|name| !listed.contains(name)).collect::<Vec<_>>() {
                    self.remove_node(&name, "");
                }
            }
            Source::Pods => {
                let listed: HashSet<(&str, &str)> = objects
                    .iter()
                    .filter_map(|o| if let Object::Pod(pod) = o { Some((&*pod.namespace, &*pod.name)) } else { None })
                    .collect();
                let gone = self.pods.iter().filter(|pod| !listed.contains(&(&*pod.namespace, &*pod.name)));
                for PodName { namespace, name } in gone.map(PodName::of).collect::<Vec<_>>() {
                    self.remove_pod(&namespace, &name, "");
                }
            }
            Source::AppWrappers(served) => {
                let listed: HashSet<AppWrapperName> = objects
                    .iter()
                    .filter_map(|o| if let Object::AppWrapper(a) = o { Some(a.name.clone()) } else { None })
                    .collect();
                let there = self.appwrappers.iter().filter(|(_, entry)| entry.views[served as usize].is_some());
                for name in there.map(|(name, _)| name.clone()).filter(|n| !listed.contains(n)).collect::<Vec<_>>() {
                    self.remove_appwrapper(&name, served, "");
                }
            }
        }
        for object in objects {
            self.apply(Event::Apply(object));
        }
        self.known.insert(source);
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.rares.retain(|rare| Arc::strong_count(rare) > 1);
    }

    fn share(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        self.names.insert(name.clone());
        name.clone()
    }

    fn set_node(&mut self, mut node: Node) {
        // Kubelet tells of its node every few minutes, and mostly nothing new.
        if self.node(&node.name) == Some(&node) {
            return;
        }
        node.name = self.share(&node.name);
        for (key, value) in &mut node.labels {
            *key = self.share(key);
            *value = self.share(value);
        }
        node.capacity.share_names(|name| self.share(name));
        node.allocatable.share_names(|name| self.share(name));
        node.other_allocatable.share_names(|name| self.share(name));
        let (name, unreadable, revision) = (node.name.clone(), node.unreadable, self.revision.next());
        let entry = self.nodes.entry(name).or_default();
        entry.revision = revision;
        let before = entry.node.replace(Arc::new(node));
        self.note_unreadable(Source::Nodes, before.map_or(0, |node| node.unreadable), unreadable);
    }

    fn remove_node(&mut self, name: &str, uid: &str) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        let gone = entry.node.take_if(|node| same(&node.uid, uid));
        if entry.is_forgotten() {
            self.nodes.remove(name);
        }
        self.note_unreadable(Source::Nodes, gone.map_or(0, |node| node.unreadable), 0);
    }

    fn set_pod(&mut self, pod: Pod) {
        match self.pods.find(&pod.namespace, &pod.name) {
            None => self.add_pod(pod),
            Some((place, known)) if !pod.is_same_work(known) => self.replace_pod(place, pod),
            // Most of what happens to a pod changes nothing that is kept of it.
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
        let (rivals_before, uid) = (self.pods.have_rivals(), pod.cgroup_uid.clone());
        self.pods.insert(pod);
        self.touch_rivals(rivals_before, &uid);
    }

    /// It asks for something else, or for someone else, than before.
    fn replace_pod(&mut self, place: Place, mut pod: Pod) {
        self.share_names(&mut pod);
        self.account(Change::Comes, &pod);
        let (rivals_before, uid) = (self.pods.have_rivals(), pod.cgroup_uid.clone());
        if let Some(before) = self.pods.replace(place, pod) {
            self.account(Change::Goes, &before);
            self.touch_rivals(rivals_before, &before.cgroup_uid);
        }
        self.touch_rivals(rivals_before, &uid);
    }

    /// It got further, as to a node, and else is what it was: where both states are of one node or AppWrapper, that is looked up
    /// once.
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
    }

    /// Names that many pods share are in memory once. Those of nodes and AppWrappers are keys here already, in tables that the
    /// pod is looked up in next.
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
        // A nomination is one pod's, and over soon.
        if rare.nominated.is_some() {
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

    fn remove_pod(&mut self, namespace: &str, name: &str, uid: &str) {
        let rivals_before = self.pods.have_rivals();
        let found = self.pods.find(namespace, name).filter(|(_, pod)| same(&pod.uid, uid));
        if let Some(pod) = found.map(|(place, _)| place).and_then(|place| self.pods.remove(place)) {
            self.account(Change::Goes, &pod);
            self.touch_rivals(rivals_before, &pod.cgroup_uid);
        }
    }

    /// Which of several pods a UID means may have changed, and with it what the report of each one's node tells.
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

    /// Adds a pod to the sums of its node, its AppWrapper and its list, or takes it away.
    fn account(&mut self, change: Change, pod: &Pod) {
        account_on_node(&mut self.nodes, &[(change, pod)], &mut self.revision);
        account_nominations(&mut self.nodes, &[(change, pod)], &mut self.revision);
        account_for_owner(&mut self.appwrappers, &[(change, pod)]);
        match change {
            Change::Comes => self.note_unreadable(Source::Pods, 0, pod.unreadable),
            Change::Goes => self.note_unreadable(Source::Pods, pod.unreadable, 0),
        }
    }

    fn note_unreadable(&mut self, source: Source, before: u32, after: u32) {
        if before != after {
            let count = self.unreadable.entry(source).or_default();
            *count = (*count + u64::from(after)).saturating_sub(before.into());
        }
    }
}

/// Takes states of one pod, all on the same node, in or out of its sums. Also one that holds nothing there may be measured
/// there, so that the node is not as it was.
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

/// Takes states of a pod in or out of the sums of the nodes that are nominated for it.
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

/// The same for states that are all of the same AppWrapper.
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

impl Revision {
    fn next(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

impl NodeEntry {
    fn there(&self) -> Option<(&Arc<Node>, &Held, Revision)> {
        Some((self.node.as_ref()?, &self.held, self.revision))
    }

    fn is_forgotten(&self) -> bool {
        self.node.is_none() && self.held == Held::default()
    }
}

/// Whether an event about `uid` is about the object that is known by `known`. An absent UID says nothing.
fn same(known: &str, uid: &str) -> bool {
    known.is_empty() || uid.is_empty() || known == uid
}
