//! Kueue's objects: ClusterQueues, LocalQueues, Cohorts, ResourceFlavors and Workloads.
//!
//! Stores the objects, and whether they are known. [`crate::queue`] computes what follows from them. An event costs its own
//! object.
mod lists;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::cluster::{Cluster, Source, kept, same};
use crate::object::workload::Shape;
use crate::object::{ClusterQueue, Cohort, Kind, LocalQueue, Object, QueueName, ResourceFlavor, Uid, Workload};
use crate::table::Table;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// ClusterQueues.
    quotas: BTreeMap<Arc<str>, Arc<ClusterQueue>>,
    /// LocalQueues.
    locals: BTreeMap<QueueName, Arc<LocalQueue>>,
    cohorts: BTreeMap<Arc<str>, Arc<Cohort>>,
    flavors: BTreeMap<Arc<str>, Arc<ResourceFlavor>>,
    workloads: Table<QueueName, Arc<Workload>>,
    /// Properties that many pod sets share, each stored once.
    shapes: HashSet<Arc<Shape>>,
    /// Kinds that the API server serves. `None` until that is known, and of a dump.
    served: Option<BTreeSet<Kind>>,
    /// Whether an API server is watched, which will report what it serves.
    is_watched: bool,
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.quotas.is_empty()
            && self.locals.is_empty()
            && self.cohorts.is_empty()
            && self.flavors.is_empty()
            && self.workloads.is_empty()
    }

    /// Forgets shared properties that nothing has any more.
    pub(super) fn tidy(&mut self) {
        self.shapes.retain(|shape| Arc::strong_count(shape) > 1);
    }
}

impl Cluster {
    /// The ClusterQueues, by name.
    pub fn cluster_queues(&self) -> impl Iterator<Item = &Arc<ClusterQueue>> {
        self.queues.quotas.values()
    }

    /// The LocalQueues, by namespace and name.
    pub fn local_queues(&self) -> impl Iterator<Item = &Arc<LocalQueue>> {
        self.queues.locals.values()
    }

    /// The Cohorts, by name.
    pub fn cohorts(&self) -> impl Iterator<Item = &Arc<Cohort>> {
        self.queues.cohorts.values()
    }

    /// The ResourceFlavors, by name.
    pub fn flavors(&self) -> impl Iterator<Item = &Arc<ResourceFlavor>> {
        self.queues.flavors.values()
    }

    /// The Workloads, unordered.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.queues.workloads.values()
    }

    /// Adds or changes an object of Kueue.
    pub(super) fn set_queue_object(&mut self, object: Object) {
        let Some(source) = Source::of_queues(object.kind()) else { return };
        let (namespace, name) = object.name();
        let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
        if self.rank_of(&object).is_some_and(|known| known > rank(&object)) {
            return;
        }
        self.excesses.note(source, &namespace, &name, object.excess());
        if object.excess().is_some() {
            // Its earlier state is no longer valid.
            self.remove_from(source, &namespace, &name, "");
            return;
        }
        let (before, after) = (self.unreadable_of(&object), object.unreadable());
        self.note_unreadable(source, before, after);
        match object {
            Object::ClusterQueue(queue) => put(&mut self.queues.quotas, queue.name.clone(), queue),
            Object::LocalQueue(queue) => put(&mut self.queues.locals, queue.name.clone(), queue),
            Object::Cohort(cohort) => put(&mut self.queues.cohorts, cohort.name.clone(), cohort),
            Object::ResourceFlavor(flavor) => put(&mut self.queues.flavors, flavor.name.clone(), flavor),
            Object::Workload(mut workload) => {
                let shapes = &mut self.queues.shapes;
                let names = &mut self.names;
                workload.share(|name| kept(names, name), |shape| kept(shapes, shape));
                let known = self.queues.workloads.get(&workload.name);
                if known.is_none_or(|known| **known != workload) {
                    self.queues.workloads.insert(workload.name.clone(), Arc::new(workload));
                }
            }
            _ => {}
        }
    }

    /// Removes an object of Kueue.
    pub(super) fn remove_queue_object(&mut self, object: &Object) {
        let Some(source) = Source::of_queues(object.kind()) else { return };
        let (namespace, name) = object.name();
        self.excesses.forget(source, namespace, name);
        match object {
            Object::Workload(workload) => self.remove_workload(&workload.name, &workload.uid),
            Object::ClusterQueue(ClusterQueue { uid, .. })
            | Object::LocalQueue(LocalQueue { uid, .. })
            | Object::Cohort(Cohort { uid, .. })
            | Object::ResourceFlavor(ResourceFlavor { uid, .. }) => self.remove_from(source, namespace, name, uid),
            _ => {}
        }
    }

    fn remove_from(&mut self, source: Source, namespace: &str, name: &str, uid: &str) {
        let queues = &mut self.queues;
        let named = || QueueName { namespace: namespace.into(), name: name.into() };
        let unreadable = match source {
            Source::ClusterQueues => {
                take(&mut queues.quotas, name, |known| same(&known.uid, uid)).map(|gone| gone.unreadable)
            }
            Source::LocalQueues => take(&mut queues.locals, &named(), |known| same(&known.uid, uid)).map(|_| 0),
            Source::Cohorts => {
                take(&mut queues.cohorts, name, |known| same(&known.uid, uid)).map(|gone| gone.unreadable)
            }
            Source::ResourceFlavors => take(&mut queues.flavors, name, |known| same(&known.uid, uid)).map(|_| 0),
            Source::Workloads => return self.remove_workload(&named(), &Uid::Unknown),
            _ => None,
        };
        self.note_unreadable(source, unreadable.unwrap_or(0), 0);
    }

    fn remove_workload(&mut self, name: &QueueName, uid: &Uid) {
        if self.queues.workloads.get(name).is_some_and(|known| known.uid.may_be(uid))
            && let Some(gone) = self.queues.workloads.remove(name)
        {
            self.note_unreadable(Source::Workloads, gone.open.as_ref().map_or(0, |open| open.unreadable), 0);
        }
    }

    /// Removes the objects of a list of Kueue that the list no longer contains.
    pub(super) fn keep_queues(&mut self, source: Source, objects: &[Object]) {
        let listed: HashSet<(&str, &str)> = objects.iter().map(Object::name).collect();
        let is_gone = |namespace: &str, name: &str| !listed.contains(&(namespace, name));
        let queues = &self.queues;
        let plain = |names: Vec<&Arc<str>>| {
            let gone = names.into_iter().filter(|name| is_gone("", name));
            gone.map(|name| QueueName { namespace: Arc::default(), name: name.clone() }).collect::<Vec<_>>()
        };
        let full = |names: Vec<&QueueName>| {
            names.into_iter().filter(|name| is_gone(&name.namespace, &name.name)).cloned().collect()
        };
        let gone = match source {
            Source::ClusterQueues => plain(queues.quotas.keys().collect()),
            Source::LocalQueues => full(queues.locals.keys().collect()),
            Source::Cohorts => plain(queues.cohorts.keys().collect()),
            Source::ResourceFlavors => plain(queues.flavors.keys().collect()),
            Source::Workloads => full(queues.workloads.keys().collect()),
            _ => Vec::new(),
        };
        for QueueName { namespace, name } in gone {
            self.remove_from(source, &namespace, &name, "");
        }
    }

    /// How new the version is that the object of that name was read from.
    fn rank_of(&self, object: &Object) -> Option<u8> {
        let queues = &self.queues;
        match object {
            Object::ClusterQueue(queue) => queues.quotas.get(&queue.name).map(|known| known.rank),
            Object::LocalQueue(queue) => queues.locals.get(&queue.name).map(|known| known.rank),
            Object::Cohort(cohort) => queues.cohorts.get(&cohort.name).map(|known| known.rank),
            Object::ResourceFlavor(flavor) => queues.flavors.get(&flavor.name).map(|known| known.rank),
            Object::Workload(workload) => queues.workloads.get(&workload.name).map(|known| known.rank),
            _ => None,
        }
    }

    fn unreadable_of(&self, object: &Object) -> u32 {
        let queues = &self.queues;
        let unreadable = match object {
            Object::ClusterQueue(queue) => queues.quotas.get(&queue.name).map(|known| known.unreadable),
            Object::Cohort(cohort) => queues.cohorts.get(&cohort.name).map(|known| known.unreadable),
            Object::Workload(workload) => {
                queues.workloads.get(&workload.name).and_then(|known| Some(known.open.as_ref()?.unreadable))
            }
            _ => None,
        };
        unreadable.unwrap_or(0)
    }
}

fn rank(object: &Object) -> u8 {
    match object {
        Object::ClusterQueue(queue) => queue.rank,
        Object::LocalQueue(queue) => queue.rank,
        Object::Cohort(cohort) => cohort.rank,
        Object::ResourceFlavor(flavor) => flavor.rank,
        Object::Workload(workload) => workload.rank,
        _ => 0,
    }
}

fn put<K: Ord, T>(table: &mut BTreeMap<K, Arc<T>>, key: K, object: T) {
    table.insert(key, Arc::new(object));
}

fn take<Q: Ord + ?Sized, K: Ord + Borrow<Q>, T>(
    table: &mut BTreeMap<K, Arc<T>>,
    key: &Q,
    is: impl FnOnce(&T) -> bool,
) -> Option<Arc<T>> {
    table.get(key).is_some_and(|known| is(known)).then(|| table.remove(key)).flatten()
}
