//! The state of the cluster as the API server reports it, updated event by event, with the sums that the metrics are
//! computed from.
//!
//! Stores nodes, pods and AppWrappers, and sums per node and per AppWrapper. The cost of an event depends on its object
//! and on the node or AppWrapper that the object belongs to, not on the size of the cluster. The same objects result in
//! the same cluster, whatever the order of their events.
mod agents;
mod appwrappers;
pub mod capacity;
pub mod devices;
mod excess;
pub mod histogram;
pub mod owner;
mod pod_events;
mod pods;
mod queues;
pub mod room;
mod state_transfer;
mod sums;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::cluster::histogram::RequestHistograms;
use crate::object::request::Requests;
use crate::object::slice::Described;
use crate::object::{AppWrapperName, Kind, Node, Object, Origin, Pod, Rare, Served, Version};
use crate::table::Table;
use appwrappers::AppWrapperEntry;
use devices::{DeviceInput, Devices};
use excess::Excesses;
pub use excess::LeftOut;
use queues::Queues;
use state_transfer::Counted;
pub use sums::{BoundRequests, Gained, Orphans};

pub use self::pods::Place;
use self::pods::{PodName, Pods};

/// A change to the cluster.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object was added or changed.
    Apply(Object),
    /// An object was deleted. An object that was created again under the same name stays.
    Delete(Object),
    /// The complete list of objects from this source. Other objects of the source are deleted.
    Reset(Source, Vec<Object>),
    /// The source is unreachable: its last known state may be out of date.
    Lost(Source),
}

/// Where objects come from: one list of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Nodes.
    Nodes,
    /// Pods of all namespaces.
    Pods,
    /// AppWrappers of all namespaces, in one API group and version.
    AppWrappers(Served),
    /// ResourceSlices: devices that drivers offer.
    ResourceSlices,
    /// ResourceClaims of all namespaces.
    ResourceClaims,
    /// ResourceClaimTemplates of all namespaces.
    ResourceClaimTemplates,
    /// DeviceClasses.
    DeviceClasses,
    /// DeviceTaintRules: with these, administrators keep pods off devices.
    DeviceTaintRules,
    /// ClusterQueues: quotas.
    ClusterQueues,
    /// LocalQueues of all namespaces.
    LocalQueues,
    /// Cohorts.
    Cohorts,
    /// ResourceFlavors.
    ResourceFlavors,
    /// Workloads of all namespaces.
    Workloads,
}

impl Source {
    /// The lists of Dynamic Resource Allocation, in the order of [`Kind::DEVICES`].
    pub const DEVICES: [Self; 5] = [
        Self::ResourceSlices,
        Self::ResourceClaims,
        Self::ResourceClaimTemplates,
        Self::DeviceClasses,
        Self::DeviceTaintRules,
    ];

    /// The lists of Kueue, in the order of [`Kind::QUEUES`].
    pub const QUEUES: [Self; 5] =
        [Self::ClusterQueues, Self::LocalQueues, Self::Cohorts, Self::ResourceFlavors, Self::Workloads];

    /// Every list.
    pub fn all() -> impl Iterator<Item = Self> {
        let core = [Self::Nodes, Self::Pods].into_iter().chain(Served::ALL.map(Self::AppWrappers));
        core.chain(Self::DEVICES).chain(Self::QUEUES)
    }

    /// The list that a kind of Dynamic Resource Allocation comes from.
    pub fn of_devices(kind: Kind) -> Option<Self> {
        Kind::DEVICES.into_iter().zip(Self::DEVICES).find(|(known, _)| *known == kind).map(|(_, source)| source)
    }

    /// The list that a kind of Kueue comes from.
    pub fn of_queues(kind: Kind) -> Option<Self> {
        Kind::QUEUES.into_iter().zip(Self::QUEUES).find(|(known, _)| *known == kind).map(|(_, source)| source)
    }

    /// The kind of the list's objects.
    pub fn kind(self) -> Kind {
        match self {
            Self::Nodes => Kind::Node,
            Self::Pods => Kind::Pod,
            Self::AppWrappers(_) => Kind::AppWrapper,
            Self::ResourceSlices => Kind::ResourceSlice,
            Self::ResourceClaims => Kind::ResourceClaim,
            Self::ResourceClaimTemplates => Kind::ResourceClaimTemplate,
            Self::DeviceClasses => Kind::DeviceClass,
            Self::DeviceTaintRules => Kind::DeviceTaintRule,
            Self::ClusterQueues => Kind::ClusterQueue,
            Self::LocalQueues => Kind::LocalQueue,
            Self::Cohorts => Kind::Cohort,
            Self::ResourceFlavors => Kind::ResourceFlavor,
            Self::Workloads => Kind::Workload,
        }
    }

    /// Whether the list's objects are AppWrappers of that version.
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
            Self::ResourceSlices => f.write_str("resourceslices"),
            Self::ResourceClaims => f.write_str("resourceclaims"),
            Self::ResourceClaimTemplates => f.write_str("resourceclaimtemplates"),
            Self::DeviceClasses => f.write_str("deviceclasses"),
            Self::DeviceTaintRules => f.write_str("devicetaintrules"),
            Self::ClusterQueues => f.write_str("clusterqueues"),
            Self::LocalQueues => f.write_str("localqueues"),
            Self::Cohorts => f.write_str("cohorts"),
            Self::ResourceFlavors => f.write_str("resourceflavors"),
            Self::Workloads => f.write_str("workloads"),
        }
    }
}

/// A kind of object that is missing from the input. Everything that depends on it is unknown (docs/accounting.md §6).
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
    /// The API server serves no version of AppWrappers, so there are none.
    #[serde(rename = "appwrappers_served")]
    AppWrappersServed,
    /// Devices, or the claims that hold them, are not known.
    Devices,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Cluster {
    /// What reports the nodes: the API server or agents.
    origin: Origin,
    /// Unordered: an event looks up one node, and a snapshot sorts all of them.
    nodes: Table<Arc<str>, NodeEntry>,
    pods: Pods,
    appwrappers: Table<AppWrapperName, AppWrapperEntry>,
    devices: Devices,
    queues: Queues,
    /// Sources whose list is complete.
    known: BTreeSet<Source>,
    /// Versions of AppWrappers that the API server serves. `None` until that is known.
    served: Option<BTreeSet<Served>>,
    /// Names that many objects share, each stored once.
    names: HashSet<Arc<str>>,
    /// Properties that many pods share, each stored once.
    rares: HashSet<Arc<Rare>>,
    /// Properties that many devices share, each stored once.
    described: HashSet<Arc<Described>>,
    /// Requests that many claims share, each stored once.
    requests: HashSet<Arc<Requests>>,
    /// AppWrappers that the histograms may not include yet.
    unobserved: Vec<AppWrapperName>,
    histograms: RequestHistograms,
    /// AppWrappers that the histograms include but that are not in `appwrappers`.
    counted: Counted,
    /// The number of quantities that could not be parsed, by list.
    unreadable: BTreeMap<Source, u64>,
    /// Objects that exceed a limit.
    excesses: Excesses,
    /// The last revision that was assigned.
    revision: Revision,
}

/// Identifies a state of a node and of the pods on it. No two states have the same revision, not even those of a node
/// that was created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision(u64);

/// A node and its pods. If the node does not exist yet, the entry collects the pods that are bound to it.
#[derive(Debug, Default)]
struct NodeEntry {
    node: Option<Arc<Node>>,
    held: BoundRequests,
    revision: Revision,
}

impl Cluster {
    /// A cluster whose API server is watched and has not reported anything yet.
    pub fn watched() -> Self {
        let mut cluster = Self::default();
        cluster.watch_devices();
        cluster.watch_queues();
        cluster
    }

    /// A cluster with exactly these objects; all kinds are known.
    pub fn from_objects(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut cluster = Self::from_objects_known(objects, &Kind::ALL.into());
        if !cluster.has_queue_objects() {
            // Kueue is not there.
            cluster.known.retain(|source| !Source::QUEUES.contains(source));
        }
        cluster
    }

    /// A cluster with exactly these objects, of which only these kinds are known: a dump may lack a kind.
    pub fn from_objects_known(objects: impl IntoIterator<Item = Object>, known: &BTreeSet<Kind>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            cluster.apply(Event::Apply(object));
        }
        cluster.known = Source::all().filter(|source| known.contains(&source.kind())).collect();
        // A dump does not show which versions were served.
        cluster.served = known.contains(&Kind::AppWrapper).then(BTreeSet::new);
        cluster.observe();
        cluster
    }

    /// Applies an event.
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
            Event::Apply(object) if Kind::QUEUES.contains(&object.kind()) => self.set_queue_object(object),
            Event::Delete(object) if Kind::QUEUES.contains(&object.kind()) => self.remove_queue_object(&object),
            Event::Apply(object) => self.set_device_object(object),
            Event::Delete(object) => self.remove_device_object(&object),
            Event::Reset(source, objects) => self.reset(source, objects),
            Event::Lost(source) => {
                self.known.remove(&source);
            }
        }
    }

    /// What reports the nodes: the API server or agents.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether all Nodes are known.
    pub fn knows_nodes(&self) -> bool {
        self.origin == Origin::Agent || self.known.contains(&Source::Nodes)
    }

    /// Whether all Pods are known.
    pub fn knows_pods(&self) -> bool {
        self.known.contains(&Source::Pods)
    }

    /// Whether that list is complete.
    pub fn knows(&self, source: Source) -> bool {
        self.known.contains(&source)
    }

    /// Whether every list that the API server serves is complete. If the API server serves no version of AppWrappers,
    /// there is no such list to wait for. The lists of devices may be unreachable: then only what depends on them is
    /// absent.
    pub fn is_listed(&self) -> bool {
        let is_listed = self.knows_nodes() && self.knows_pods() && self.lists_appwrappers();
        self.origin == Origin::Agent || is_listed && self.devices_are_settled()
    }

    /// What is missing (docs/accounting.md §6).
    pub fn missing(&self) -> BTreeSet<Missing> {
        if self.origin == Origin::Agent {
            // Without Kubernetes there are no lists that could be missing.
            return BTreeSet::new();
        }
        let appwrappers = match &self.served {
            _ if self.knows_appwrappers() => None,
            Some(served) if served.is_empty() => Some(Missing::AppWrappersServed),
            _ => Some(Missing::AppWrappers),
        };
        let nodes = (!self.knows_nodes()).then_some(Missing::Nodes);
        let pods = (!self.knows_pods()).then_some(Missing::Pods);
        let devices = (self.device_input() == DeviceInput::Unknown).then_some(Missing::Devices);
        [nodes, pods, appwrappers, devices].into_iter().flatten().collect()
    }

    /// Bound, unfinished pods whose node does not exist. If Nodes are not known, no node exists.
    pub fn orphans(&self) -> Orphans {
        let known = self.knows_nodes();
        let homeless = self.nodes.values().filter(|entry| entry.node.is_none() || !known);
        Orphans::of(homeless.map(|entry| &entry.held))
    }

    /// The number of quantities that could not be parsed, for each complete list.
    pub fn unreadable(&self) -> impl Iterator<Item = (Source, u64)> {
        self.known.iter().map(|source| (*source, self.unreadable.get(source).copied().unwrap_or(0)))
    }

    /// The nodes that exist, by name, and what their pods hold.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &BoundRequests)> {
        self.nodes_and_revisions().map(|(node, held, _)| (node, held))
    }

    /// The same with the revision, which changes whenever the node or a pod on it changes.
    pub fn nodes_and_revisions(&self) -> impl Iterator<Item = (&Arc<Node>, &BoundRequests, Revision)> {
        let mut nodes: Vec<_> = self.nodes.values().filter_map(NodeEntry::there).collect();
        nodes.sort_unstable_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
        nodes.into_iter()
    }

    /// The nodes that exist, unordered, and what their pods hold.
    pub fn nodes_unordered(&self) -> impl Iterator<Item = (&Arc<Node>, &BoundRequests)> {
        self.nodes.values().filter_map(NodeEntry::there).map(|(node, held, _)| (node, held))
    }

    /// One node of these, with its revision.
    pub fn node_and_revision(&self, name: &str) -> Option<(&Arc<Node>, &BoundRequests, Revision)> {
        self.nodes.get(name)?.there()
    }

    /// Whether there is a node with that name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|entry| entry.node.is_some())
    }

    /// The pods, unordered.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter()
    }

    /// The pods of an AppWrapper that are bound and have not failed, by name, including pods on nodes that do not
    /// exist.
    pub fn bound_pods_of(&self, appwrapper: &AppWrapperName) -> Vec<&Pod> {
        let places = self.appwrappers.get(appwrapper).into_iter().flat_map(|entry| &entry.pods);
        let mut bound: Vec<&Pod> =
            places.filter_map(|place| self.pods.at(*place)).filter(|pod| pod.is_placed()).collect();
        bound.sort_unstable_by(|a, b| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)));
        bound
    }

    /// How many pods of an AppWrapper are not bound, or failed.
    pub fn unbound_pods_of(&self, appwrapper: &AppWrapperName) -> u64 {
        let Some(entry) = self.appwrappers.get(appwrapper) else { return 0 };
        entry.effective().map_or(0, |there| there.demand.pods().saturating_sub(entry.gained.bound))
    }

    /// When the last of the bound pods of an AppWrapper was bound, in ms since the Unix epoch, as far as that is known.
    pub fn last_bound_at_ms(&self, appwrapper: &AppWrapperName) -> Option<i64> {
        let places = self.appwrappers.get(appwrapper).into_iter().flat_map(|entry| &entry.pods);
        let bound = places.filter_map(|place| self.pods.at(*place)).filter(|pod| pod.is_placed());
        bound.filter_map(|pod| pod.starts.as_ref()?.bound_at_ms).max()
    }

    /// The pod with that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(namespace, name)
    }

    /// The pod whose cgroups carry this UID. If there are several, the first by name.
    pub fn pod_of_uid(&self, uid: &str) -> Option<&Pod> {
        self.pods.of_uid(uid).map(|(_, pod)| pod)
    }

    /// The same with its place. If its earlier place is known, that place is tried first.
    pub fn find_pod_of_uid(&self, uid: &str, was: Option<Place>) -> Option<(Place, &Pod)> {
        match was {
            Some(place) => self.pods.of_uid_at(uid, place),
            None => self.pods.of_uid(uid),
        }
    }

    /// The pod with that name, and its place. If the place of an earlier pod with that name is known, it is tried
    /// first.
    pub fn find_pod(&self, namespace: &str, name: &str, was: Option<Place>) -> Option<(Place, &Pod)> {
        match was {
            Some(place) => self.pods.find_at(namespace, name, place),
            None => self.pods.find(namespace, name),
        }
    }

    /// The node with that name.
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

    /// The first step of [`Event::Reset`]: deletes what is not among these objects. The caller then applies each
    /// object, in batches of any size, and calls [`Self::end_reset`]. Between the steps, the cluster is valid as after
    /// any event.
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
                let there = self.appwrappers.iter().filter(|(_, entry)| entry.is_listed_by(served));
                for name in there.map(|(name, _)| name.clone()).filter(|n| !listed.contains(n)).collect::<Vec<_>>() {
                    self.remove_appwrapper(&name, served, "");
                }
            }
            of_queues if Source::QUEUES.contains(&of_queues) => self.keep_queues(of_queues, objects),
            of_devices => self.keep_devices(of_devices, objects),
        }
    }

    /// The last step of [`Event::Reset`]: the source is now complete.
    pub fn end_reset(&mut self, source: Source) {
        self.known.insert(source);
        self.settle_devices();
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.rares.retain(|rare| Arc::strong_count(rare) > 1);
        self.described.retain(|described| Arc::strong_count(described) > 1);
        self.requests.retain(|requests| Arc::strong_count(requests) > 1);
        self.queues.tidy();
    }

    fn share(&mut self, name: &Arc<str>) -> Arc<str> {
        kept(&mut self.names, name)
    }

    fn set_node(&mut self, mut node: Node) {
        // Kubelet updates its node every few minutes, and usually nothing changes.
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
    fn there(&self) -> Option<(&Arc<Node>, &BoundRequests, Revision)> {
        Some((self.node.as_ref()?, &self.held, self.revision))
    }

    fn is_forgotten(&self) -> bool {
        self.node.is_none() && self.held == BoundRequests::default()
    }
}

/// Returns the equal element of the set, or adds this one and returns it.
fn kept<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, one: &Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(one) {
        return known.clone();
    }
    known.insert(one.clone());
    one.clone()
}

/// Whether an event about `uid` concerns the object whose UID is `known`. An empty UID matches any.
fn same(known: &str, uid: &str) -> bool {
    known.is_empty() || uid.is_empty() || known == uid
}
