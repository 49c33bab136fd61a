//! What is computed from: Kueue's objects, what the pods of each Workload hold, and what all other pods hold on each node.
//!
//! Reports and events wait while this is read: for each pod, nothing is allocated that the sums do not keep.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::object::{AppWrapperName, ClusterQueue, Cohort, LocalQueue, QueueName, ResourceFlavor, Uid, Workload};
use crate::resource::Amounts;
use crate::table::Table;

use super::held::Held;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether Pods are known.
    pub(super) knows_pods: bool,
    /// The ClusterQueues, by name.
    pub(super) cluster_queues: Vec<Arc<ClusterQueue>>,
    /// The Cohorts, by name.
    pub(crate) cohorts: Vec<Arc<Cohort>>,
    /// The LocalQueues.
    pub(super) local_queues: HashMap<QueueName, Arc<LocalQueue>>,
    /// The ResourceFlavors.
    pub(super) flavors: BTreeMap<Arc<str>, Arc<ResourceFlavor>>,
    /// The Workloads that are not finished, unordered.
    pub(crate) workloads: Vec<Arc<Workload>>,
    /// What the bound, unfinished pods of each Workload that reserves quota request, by its place in `workloads`. Empty if Pods
    /// are not known.
    pub(super) held: HashMap<usize, Held>,
    /// What the bound, unfinished pods of each node request whose Workload reserves no quota. Empty if Pods are not known.
    pub(super) others: Table<Arc<str>, Amounts>,
    /// The places of the Workloads that AppWrappers own, by AppWrapper.
    of_appwrappers: Table<AppWrapperName, Vec<usize>>,
}

impl Facts {
    /// The facts about a cluster. `None` if Kueue is not there, or its objects are not known.
    pub fn of(cluster: &Cluster) -> Option<Self> {
        if !cluster.knows_queues() {
            return None;
        }
        let workloads: Vec<Arc<Workload>> =
            cluster.workloads().filter(|workload| workload.open.is_some()).cloned().collect();
        let mut facts = Self {
            knows_pods: cluster.knows_pods(),
            cluster_queues: cluster.cluster_queues().cloned().collect(),
            cohorts: cluster.cohorts().cloned().collect(),
            local_queues: cluster.local_queues().map(|queue| (queue.name.clone(), queue.clone())).collect(),
            flavors: cluster.flavors().map(|flavor| (flavor.name.clone(), flavor.clone())).collect(),
            of_appwrappers: of_appwrappers(&workloads),
            workloads,
            held: HashMap::new(),
            others: Table::default(),
        };
        if facts.knows_pods {
            facts.hold(cluster);
        }
        Some(facts)
    }

    /// The Workload of an AppWrapper.
    pub(super) fn workload_of(&self, appwrapper: &AppWrapperName, uid: &str) -> Option<&Arc<Workload>> {
        Some(&self.workloads[self.place_of(appwrapper, uid)?])
    }

    fn place_of(&self, appwrapper: &AppWrapperName, uid: &str) -> Option<usize> {
        let all = self.of_appwrappers.get(appwrapper)?;
        let uid = Uid::from(uid);
        let owns = |at: &usize| {
            let mut owners = self.workloads[*at].open.iter().flat_map(|open| &open.owners);
            owners.any(|owner| owner.appwrapper.as_ref() == Some(&appwrapper.name) && owner.uid.may_be(&uid))
        };
        all.iter().copied().filter(owns).max_by_key(|at| precedence(&self.workloads[*at]))
    }

    /// The ClusterQueue of that name.
    pub(super) fn cluster_queue(&self, name: &str) -> Option<&Arc<ClusterQueue>> {
        let at = self.cluster_queues.binary_search_by(|queue| (*queue.name).cmp(name)).ok()?;
        Some(&self.cluster_queues[at])
    }

    /// The LocalQueue that a Workload, or an AppWrapper, of that namespace names.
    pub(crate) fn local_queue(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Arc<LocalQueue>> {
        self.local_queues.get(&QueueName { namespace: namespace.clone(), name: name.clone() })
    }

    /// Adds up what pods hold.
    fn hold(&mut self, cluster: &Cluster) {
        let mut by_name: Table<&QueueName, usize> = Table::default();
        let mut by_owner: Table<(&Arc<str>, &Uid), usize> = Table::default();
        for (at, workload) in self.workloads.iter().enumerate() {
            by_name.insert(&workload.name, at);
            let owners = workload.open.iter().flat_map(|open| &open.owners);
            for owner in owners.filter(|owner| owner.uid != Uid::Unknown) {
                let of_owner = by_owner.entry((&workload.name.namespace, &owner.uid)).or_insert(at);
                if precedence(&self.workloads[*of_owner]) < precedence(workload) {
                    *of_owner = at;
                }
            }
        }
        // An AppWrapper has many pods.
        let mut by_label: Table<&AppWrapperName, Option<usize>> = Table::default();
        let (mut held, mut others) = (HashMap::<usize, Held>::new(), Table::<&Arc<str>, Amounts>::default());
        for (pod, node) in cluster.pods().filter_map(|pod| Some((pod, pod.held_node()?))) {
            let of_label = pod.owner.as_ref().and_then(|owner| {
                *by_label.entry(owner).or_insert_with(|| {
                    let uid = cluster.appwrapper(owner).map(|appwrapper| &*appwrapper.uid).unwrap_or_default();
                    self.place_of(owner, uid)
                })
            });
            let rare = pod.rare.as_deref();
            let of_annotation = || {
                let name = rare?.workload.clone()?;
                by_name.get(&QueueName { namespace: pod.namespace.clone(), name }).copied()
            };
            let of_uid = || {
                let of_uid = |uid: &Uid| by_owner.get(&(&pod.namespace, uid)).copied();
                let of_owners = rare.iter().flat_map(|rare| &rare.owners).find_map(of_uid);
                of_owners.or_else(|| of_uid(&Uid::from(&*pod.uid)))
            };
            let workload = of_label.or_else(of_annotation).or_else(of_uid);
            match workload.filter(|at| self.workloads[*at].reserving().is_some()) {
                Some(at) => held.entry(at).or_default().add(pod),
                None => others.entry(node).or_default().add_times(&pod.requests, 1),
            }
        }
        let others = others.into_iter().map(|(node, amounts)| (node.clone(), amounts)).collect();
        (self.held, self.others) = (held, others);
    }
}

/// Which of several Workloads of one owner counts: one that reserves, then the youngest, then the last by name.
fn precedence(workload: &Workload) -> (bool, Option<i64>, &Arc<str>) {
    let created = workload.open.as_ref().and_then(|open| open.created_ms);
    (workload.reserving().is_some(), created, &workload.name.name)
}

fn of_appwrappers(workloads: &[Arc<Workload>]) -> Table<AppWrapperName, Vec<usize>> {
    let mut all: Table<AppWrapperName, Vec<usize>> = Table::default();
    for (at, workload) in workloads.iter().enumerate() {
        let owners = workload.open.iter().flat_map(|open| &open.owners);
        for name in owners.filter_map(|owner| owner.appwrapper.clone()) {
            let of = AppWrapperName { namespace: workload.name.namespace.clone(), name };
            let known = all.entry(of).or_default();
            if known.last() != Some(&at) {
                known.push(at);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::{Kind, read};

    #[test]
    fn pods_are_added_up_only_if_all_of_them_are_known() {
        let queue = json!({"metadata": {"name": "q"}});
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n", "containers": []}});
        for (all_known, nodes) in [(true, 1), (false, 0)] {
            let objects = [read(Kind::ClusterQueue, &queue).unwrap(), read(Kind::Pod, &pod).unwrap()];
            let kinds = Kind::ALL.into_iter().filter(|kind| all_known || *kind != Kind::Pod).collect();
            let facts = Facts::of(&Cluster::from_objects_known(objects, &kinds)).unwrap();
            assert_eq!((facts.knows_pods, facts.others.len()), (all_known, nodes));
        }
    }
}
