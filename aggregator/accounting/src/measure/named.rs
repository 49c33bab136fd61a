//! The pods that a report names: by the UID that their cgroups carry, or as kubelet does. Each is found in the cluster once.
use std::sync::Arc;

use mcad_wire::reading::{Assignment, Assignments, Cgroup, Report};

use crate::cluster::{Cluster, Place};
use crate::object::Pod;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct NamedPods<'a> {
    /// The own cgroup of each pod that it lists, in order of the pods' UIDs.
    pub(crate) cgroups: Vec<OwnCgroup<'a>>,
    /// What kubelet gave to bound, unfinished pods of the node; the rest of its list is of pods that have ended. Absent: kubelet could
    /// not be asked.
    pub(crate) assigned: Option<Vec<Assigned<'a>>>,
}

/// The own cgroup of a pod, and that pod, wherever it is, where the cluster has it.
#[derive(Debug)]
pub struct OwnCgroup<'a> {
    pub(crate) cgroup: &'a Cgroup<'a>,
    pub(crate) pod: Option<&'a Pod>,
    place: Option<Place>,
}

/// Devices of a resource that a container has, and its pod.
#[derive(Debug)]
pub struct Assigned<'a> {
    pub(crate) assignment: &'a Assignment<'a>,
    pub(crate) pod: &'a Pod,
    place: Place,
}

/// Where the pods of a node were when its last report came. The next one mostly names the same, and to find them by tables of all
/// is a fifth of what a report costs.
#[derive(Debug, Default)]
pub struct Places {
    /// In order of UID, of which these are the first bytes.
    by_uid: Box<[(u64, Place)]>,
    /// In kubelet's order.
    assigned: Box<[Place]>,
}

impl Places {
    /// Where these are.
    pub(crate) fn of(named: &NamedPods<'_>) -> Self {
        let mut by_uid = Vec::with_capacity(named.cgroups.len());
        by_uid.extend(named.cgroups.iter().filter_map(|own| Some((leading(own.cgroup.pod_uid), own.place?))));
        let assigned = named.assigned.as_deref().unwrap_or_default().iter();
        Self { by_uid: by_uid.into(), assigned: assigned.map(|assigned| assigned.place).collect() }
    }
}

impl<'a> NamedPods<'a> {
    /// Those of a report. Where they `were` makes no difference but in time.
    pub fn find(cluster: &'a Cluster, report: &'a Report<'a>, were: &Places) -> Self {
        let assigned = cluster.node(report.node).zip(report.assignments.as_ref());
        Self {
            cgroups: own_cgroups(cluster, report, were),
            assigned: assigned.map(|(node, assignments)| self::assigned(cluster, &node.name, assignments, were)),
        }
    }
}

fn own_cgroups<'a>(cluster: &'a Cluster, report: &'a Report<'a>, were: &Places) -> Vec<OwnCgroup<'a>> {
    let of_pods = |cgroup: &&Cgroup<'_>| !cgroup.pod_uid.is_empty() && cgroup.container_id.is_empty();
    let listed = report.cgroups.iter().flat_map(|all| &all.cgroups).filter(of_pods);
    let mut by_uid: Vec<_> = listed.map(|cgroup| (leading(cgroup.pod_uid), cgroup)).collect();
    // One that was removed and made again during the walk is there twice; ids grow, so the later one is meant.
    by_uid.sort_unstable_by(|(lead_a, a), (lead_b, b)| {
        lead_a.cmp(lead_b).then_with(|| a.pod_uid.cmp(b.pod_uid)).then_with(|| b.id.cmp(&a.id))
    });
    by_uid.dedup_by(|(lead_a, a), (lead_b, b)| lead_a == lead_b && a.pod_uid == b.pod_uid);
    // Both are in the same order.
    let mut were = were.by_uid.iter().peekable();
    let join = |(lead, cgroup): (u64, &'a Cgroup<'a>)| {
        while were.next_if(|(earlier, _)| *earlier < lead).is_some() {}
        let was = were.next_if(|(same, _)| *same == lead).map(|(_, place)| *place);
        let found = cluster.find_pod_of_uid(cgroup.pod_uid, was);
        OwnCgroup { cgroup, pod: found.map(|(_, pod)| pod), place: found.map(|(place, _)| place) }
    };
    by_uid.into_iter().map(join).collect()
}

fn assigned<'a>(
    cluster: &'a Cluster,
    node: &Arc<str>,
    assignments: &'a Assignments<'a>,
    were: &Places,
) -> Vec<Assigned<'a>> {
    let mut found: Vec<Assigned<'_>> = Vec::with_capacity(assignments.assigned.len());
    for assignment in &assignments.assigned {
        let was = were.assigned.get(found.len()).copied();
        let Some((place, pod)) = cluster.find_pod(assignment.namespace, assignment.pod, was) else { continue };
        if pod.held_node() == Some(node) {
            found.push(Assigned { assignment, pod, place });
        }
    }
    found
}

/// The first bytes of a UID, in the order of the whole: nearly always they tell two apart.
fn leading(uid: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = uid.len().min(bytes.len());
    bytes[..length].copy_from_slice(&uid.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}
