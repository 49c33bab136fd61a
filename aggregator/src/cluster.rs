//! The cluster as the API server tells it, event by event, with the sums that the figures rest on.
//!
//! Owns what is remembered of nodes, pods and AppWrappers, and sums per node and per AppWrapper. An event costs the work
//! of its object and of the node or AppWrapper it touches, however large the cluster is. The same objects give the same
//! cluster, whatever the order of their events.
mod pods;
mod seed;
mod sums;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::histogram::RequestHistograms;
use crate::object::{AppWrapper, AppWrapperName, Node, Object, Pod, Served, Version};
use crate::resource::Triple;
use seed::Counted;
use sums::Change;
pub use sums::{Gained, Held};

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

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Cluster {
    /// In no order, which is made where it is asked for: an event looks up one, a snapshot goes through all.
    nodes: HashMap<Arc<str>, NodeEntry>,
    pods: Pods,
    appwrappers: HashMap<AppWrapperName, AppWrapperEntry>,
    /// Sources that have told all they have.
    known: BTreeSet<Source>,
    /// Versions of AppWrappers that the API server serves. Absent: it has not said yet.
    served: Option<BTreeSet<Served>>,
    /// Names that many objects share, each once.
    names: HashSet<Arc<str>>,
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

/// An AppWrapper as each source tells it, and its pods; pods of one that is not there wait here for it.
#[derive(Debug, Default, PartialEq, Eq)]
struct AppWrapperEntry {
    /// In the order of [`Served`].
    views: [Option<Arc<AppWrapper>>; 3],
    gained: Gained,
    /// The UID that the histograms have seen.
    observed: Option<Arc<str>>,
}

impl Cluster {
    /// A cluster of exactly these objects, all of it known.
    pub fn from_objects(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            cluster.apply(Event::Apply(object));
        }
        cluster.known = Source::all().collect();
        // What was served does not show in a dump.
        cluster.served = Some(BTreeSet::new());
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

    /// Says which versions of AppWrappers the API server serves. Objects of others are forgotten.
    pub fn serve(&mut self, served: impl IntoIterator<Item = Served>) {
        let served: BTreeSet<Served> = served.into_iter().collect();
        let unserved: Vec<_> = Served::ALL.into_iter().filter(|version| !served.contains(version)).collect();
        self.served = Some(served);
        for gone in unserved {
            if self.known.contains(&Source::AppWrappers(gone)) {
                self.reset(Source::AppWrappers(gone), Vec::new());
                self.known.remove(&Source::AppWrappers(gone));
            }
        }
    }

    /// Lets the histograms see AppWrappers that are new since the last call. Apart from [`Self::apply`], because which
    /// version an object is may take the word of two sources.
    pub fn observe(&mut self) {
        for name in std::mem::take(&mut self.unobserved) {
            self.observe_one(&name);
        }
    }

    /// Whether nodes and pods are all known: without either, no figure of nodes is right.
    pub fn knows_nodes(&self) -> bool {
        self.known.contains(&Source::Nodes) && self.known.contains(&Source::Pods)
    }

    /// Whether AppWrappers of every served version are all known.
    pub fn knows_appwrappers(&self) -> bool {
        let all =
            |served: &BTreeSet<Served>| served.iter().all(|served| self.known.contains(&Source::AppWrappers(*served)));
        self.served.as_ref().is_some_and(all)
    }

    /// The kinds of AppWrapper that the API server is known to serve.
    pub fn served(&self) -> BTreeSet<Version> {
        self.served.iter().flatten().map(|served| served.version()).collect()
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

    /// The AppWrappers that exist, in order of namespace and name, and what their pods got.
    pub fn appwrappers(&self) -> impl Iterator<Item = (&Arc<AppWrapper>, &Gained)> {
        let there = self.appwrappers.values().filter_map(|entry| Some((entry.effective()?, &entry.gained)));
        let mut appwrappers: Vec<_> = there.collect();
        appwrappers.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        appwrappers.into_iter()
    }

    /// The AppWrapper of that name.
    pub fn appwrapper(&self, name: &AppWrapperName) -> Option<&Arc<AppWrapper>> {
        self.appwrappers.get(name)?.effective()
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
        self.pods.of_uid(uid)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)?.node.as_deref()
    }

    /// Requests of the AppWrappers seen so far.
    pub fn histograms(&self) -> &RequestHistograms {
        &self.histograms
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
        let (name, unreadable, revision) = (node.name.clone(), node.unreadable, self.next_revision());
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

    fn set_pod(&mut self, mut pod: Pod) {
        let known = self.pods.get(&pod.namespace, &pod.name);
        // Most of what happens to a pod changes nothing that is kept of it.
        if known == Some(&pod) {
            return;
        }
        match known {
            Some(known) if pod.is_same_work(known) => pod.share_names(known),
            _ => self.share_names(&mut pod),
        }
        let rivals_before = self.pods.have_rivals();
        let (pod, before) = self.pods.insert(pod);
        self.account(&pod, Change::Comes);
        self.note_unreadable(Source::Pods, 0, pod.unreadable);
        self.touch_rest(&pod, before.as_deref());
        if let Some(before) = before {
            self.account(&before, Change::Goes);
            self.note_unreadable(Source::Pods, before.unreadable, 0);
            self.touch_rest(&before, Some(&*pod));
            self.touch_rivals(rivals_before, &before.cgroup_uid);
        }
        self.touch_rivals(rivals_before, &pod.cgroup_uid);
    }

    fn share_names(&mut self, pod: &mut Pod) {
        pod.namespace = self.share(&pod.namespace);
        pod.node = pod.node.as_ref().map(|node| self.share(node));
        if let Some(owner) = &mut pod.owner {
            owner.namespace = self.share(&owner.namespace);
            owner.name = self.share(&owner.name);
        }
        pod.requests.share_names(|name| self.share(name));
    }

    fn remove_pod(&mut self, namespace: &str, name: &str, uid: &str) {
        let rivals_before = self.pods.have_rivals();
        if self.pods.get(namespace, name).is_some_and(|pod| same(&pod.uid, uid))
            && let Some(pod) = self.pods.remove(namespace, name)
        {
            self.account(&pod, Change::Goes);
            self.note_unreadable(Source::Pods, pod.unreadable, 0);
            self.touch_rest(&pod, None);
            self.touch_rivals(rivals_before, &pod.cgroup_uid);
        }
    }

    /// A pod that holds nothing on its node may still be measured there. Where its other state held something on the same
    /// node, that is enough to say that the node is not as it was.
    fn touch_rest(&mut self, pod: &Pod, other_state: Option<&Pod>) {
        let Some(node) = pod.node.as_ref().filter(|_| pod.held_node().is_none()) else { return };
        if other_state.and_then(Pod::held_node) == Some(node) {
            return;
        }
        let revision = self.next_revision();
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.revision = revision;
        }
    }

    /// Which of several pods a UID means may have changed, and with it what the report of each one's node tells.
    fn touch_rivals(&mut self, rivals_before: bool, uid: &str) {
        if !rivals_before && !self.pods.have_rivals() {
            return;
        }
        let revision = self.next_revision();
        for pod in self.pods.all_of_uid(uid) {
            if let Some(entry) = pod.node.as_ref().and_then(|node| self.nodes.get_mut(node)) {
                entry.revision = revision;
            }
        }
    }

    fn next_revision(&mut self) -> Revision {
        self.revision.0 += 1;
        self.revision
    }

    /// Adds a pod to the sums of its node and its AppWrapper, or takes it away.
    fn account(&mut self, pod: &Pod, change: Change) {
        if let Some(name) = pod.held_node() {
            let revision = self.next_revision();
            let entry = self.nodes.entry(name.clone()).or_default();
            entry.revision = revision;
            entry.held.account(pod, change);
            if entry.is_forgotten() {
                self.nodes.remove(name);
            }
        }
        if let Some(owner) = &pod.owner {
            let entry = self.appwrappers.entry(owner.clone()).or_default();
            entry.gained.account(pod, change);
            if entry.is_forgotten() {
                self.appwrappers.remove(owner);
            }
        }
    }

    fn set_appwrapper(&mut self, mut appwrapper: AppWrapper) {
        appwrapper.name.namespace = self.share(&appwrapper.name.namespace);
        appwrapper.name.name = self.share(&appwrapper.name.name);
        appwrapper.state = self.share(&appwrapper.state);
        appwrapper.queue = self.share(&appwrapper.queue);
        appwrapper.priority = self.share(&appwrapper.priority);
        let name = appwrapper.name.clone();
        let entry = self.appwrappers.entry(name.clone()).or_default();
        if entry.observed.as_ref() != Some(&appwrapper.uid) {
            self.unobserved.push(name);
        }
        let (served, unreadable) = (appwrapper.served, appwrapper.demand.unreadable);
        let before = entry.views[served as usize].replace(Arc::new(appwrapper));
        let before = before.map_or(0, |appwrapper| appwrapper.demand.unreadable);
        self.note_unreadable(Source::AppWrappers(served), before, unreadable);
    }

    fn remove_appwrapper(&mut self, name: &AppWrapperName, served: Served, uid: &str) {
        // One that came and went between two calls of `observe` was seen, too.
        if self.appwrappers.get(name).is_some_and(|entry| entry.observed.is_none()) {
            self.observe_one(name);
        }
        let Some(entry) = self.appwrappers.get_mut(name) else { return };
        let gone = entry.views[served as usize].take_if(|view| same(&view.uid, uid));
        if entry.effective().is_none() {
            self.counted.went(entry.observed.take());
        }
        if entry.is_forgotten() {
            self.appwrappers.remove(name);
        }
        self.note_unreadable(Source::AppWrappers(served), gone.map_or(0, |view| view.demand.unreadable), 0);
    }

    fn note_unreadable(&mut self, source: Source, before: u32, after: u32) {
        if before != after {
            let count = self.unreadable.entry(source).or_default();
            *count = (*count + u64::from(after)).saturating_sub(before.into());
        }
    }

    fn observe_one(&mut self, name: &AppWrapperName) {
        let Some(entry) = self.appwrappers.get_mut(name) else { return };
        let Some(effective) = entry.effective().filter(|a| a.version == Version::V1Beta1) else { return };
        if entry.observed.as_ref() == Some(&effective.uid) {
            return;
        }
        let (uid, demand) = (effective.uid.clone(), Triple::from(&effective.demand.total));
        let is_counted = self.counted.came(&uid);
        self.counted.went(entry.observed.replace(uid));
        if !is_counted {
            self.histograms.observe(demand);
        }
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

impl AppWrapperEntry {
    /// The one object that the views are of. The `workload` group wins. Within it one CRD may serve an object twice, and
    /// may have pruned of it what the other version alone has: the view that knows components is the right one, else the
    /// one of the older version.
    fn effective(&self) -> Option<&Arc<AppWrapper>> {
        let [v1beta1, v1beta2, mcad] = &self.views;
        let with_components = [v1beta2, v1beta1].into_iter().flatten().find(|view| view.version == Version::V1Beta2);
        with_components.or(v1beta1.as_ref()).or(v1beta2.as_ref()).or(mcad.as_ref())
    }

    fn is_forgotten(&self) -> bool {
        self.views.iter().all(Option::is_none) && self.gained == Gained::default()
    }
}

/// Whether an event about `uid` is about the object that is known by `known`. An absent UID says nothing.
fn same(known: &str, uid: &str) -> bool {
    known.is_empty() || uid.is_empty() || known == uid
}
