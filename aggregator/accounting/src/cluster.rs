//! The cluster as the API server tells it, event by event, with the sums that the figures rest on.
//!
//! Owns what is remembered of nodes, pods and AppWrappers, and sums per node and per AppWrapper. An event costs the work
//! of its object and of the node or AppWrapper it touches, however large the cluster is. The same objects give the same
//! cluster, whatever the order of their events.
mod appwrappers;
pub mod capacity;
mod excess;
pub mod histogram;
pub mod owner;
mod pod_events;
mod pods;
pub mod room;
mod seed;
mod sums;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::cluster::histogram::RequestHistograms;
use crate::object::{AppWrapperName, Kind, Node, Object, Pod, Rare, Served, Version};
use crate::table::Table;
use appwrappers::AppWrapperEntry;
use excess::Excesses;
pub use excess::LeftOut;
use seed::Counted;
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

    /// Whether its objects are AppWrappers of that version.
    pub fn is_of(self, version: Version) -> bool {
        matches!(self, Self::AppWrappers(served) if served.version() == version)
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
    /// Objects that bring more than one may.
    excesses: Excesses,
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
            Event::Apply(Object::Node(node)) => {
                self.excesses.note(Source::Nodes, &Arc::default(), &node.name, node.excess);
                self.set_node(node);
            }
            Event::Apply(Object::Pod(pod)) => {
                self.excesses.note(Source::Pods, &pod.namespace, &pod.name, pod.excess);
                self.set_pod(pod);
            }
            Event::Apply(Object::AppWrapper(appwrapper)) => {
                let (source, AppWrapperName { namespace, name }) =
                    (Source::AppWrappers(appwrapper.served), &appwrapper.name);
                self.excesses.note(source, namespace, name, appwrapper.excess);
                if appwrapper.excess.is_some() {
                    self.leave_out_appwrapper(&appwrapper.name, appwrapper.served);
                } else {
                    self.set_appwrapper(appwrapper);
                }
            }
            Event::Delete(Object::Node(node)) => {
                self.excesses.forget(Source::Nodes, "", &node.name);
                self.remove_node(&node.name, &node.uid);
            }
            Event::Delete(Object::Pod(pod)) => {
                self.excesses.forget(Source::Pods, &pod.namespace, &pod.name);
                self.remove_pod(&pod.namespace, &pod.name, &pod.uid);
            }
            Event::Delete(Object::AppWrapper(gone)) => {
                let AppWrapperName { namespace, name } = &gone.name;
                self.excesses.forget(Source::AppWrappers(gone.served), namespace, name);
                self.remove_appwrapper(&gone.name, gone.served, &gone.uid);
            }
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
        let homeless = self.nodes.values().filter(|entry| entry.node.is_none() || !known);
        Orphans::of(homeless.map(|entry| &entry.held))
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

    /// The pods of an AppWrapper that are bound and have not failed, in order of name; also those on nodes that are not there.
    pub fn bound_pods_of(&self, appwrapper: &AppWrapperName) -> Vec<&Pod> {
        let places = self.appwrappers.get(appwrapper).into_iter().flat_map(|entry| &entry.pods);
        let mut bound: Vec<&Pod> =
            places.filter_map(|place| self.pods.at(*place)).filter(|pod| pod.is_placed()).collect();
        bound.sort_unstable_by(|a, b| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)));
        bound
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
        self.begin_reset(source, &objects);
        for object in objects {
            self.apply(Event::Apply(object));
        }
        self.end_reset(source);
    }

    /// The first step of [`Event::Reset`]: what is not among these is gone. Each object is applied next, as many at a time as may
    /// be; then comes [`Self::end_reset`]. Between the steps the cluster is as after any event.
    pub fn begin_reset(&mut self, source: Source, objects: &[Object]) {
        self.excesses.keep_listed(source, objects);
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
                let there = self.appwrappers.iter().filter(|(_, entry)| entry.is_told_by(served));
                for name in there.map(|(name, _)| name.clone()).filter(|n| !listed.contains(n)).collect::<Vec<_>>() {
                    self.remove_appwrapper(&name, served, "");
                }
            }
        }
    }

    /// The last step of [`Event::Reset`]: all of the source is known.
    pub fn end_reset(&mut self, source: Source) {
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

    fn note_unreadable(&mut self, source: Source, before: u32, after: u32) {
        if before != after {
            let count = self.unreadable.entry(source).or_default();
            *count = (*count + u64::from(after)).saturating_sub(before.into());
        }
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
