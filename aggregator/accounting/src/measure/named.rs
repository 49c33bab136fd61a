//! The pods that a report names: by the UID of their cgroups, or by namespace and name in kubelet's list. Each is looked up in the cluster
//! once.
use std::sync::Arc;

use mcad_wire::reading::{Assignment, Assignments, Cgroup, Report};

use crate::cluster::devices::PoolName;
use crate::cluster::{Cluster, Place};
use crate::devices::NVIDIA_DRIVER;
use crate::object::Pod;
use crate::resource::NVIDIA_GPU;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct NamedPods<'a> {
    /// The pods' own cgroups in the report, sorted by the pods' UIDs.
    pub(crate) cgroups: Vec<OwnCgroup<'a>>,
    /// What kubelet handed out to bound, unfinished pods of the node; the rest of kubelet's list belongs to pods that have ended. `None` if
    /// kubelet could not be queried.
    pub(crate) assigned: Option<Vec<Assigned<'a>>>,
}

/// A pod's own cgroup, and the pod, on whichever node it is, if the cluster has it.
#[derive(Debug)]
pub struct OwnCgroup<'a> {
    pub(crate) cgroup: &'a Cgroup<'a>,
    pub(crate) pod: Option<&'a Pod>,
    place: Option<Place>,
}

/// Devices of one resource that a container holds, and its pod.
#[derive(Debug)]
pub struct Assigned<'a> {
    pub(crate) assignment: &'a Assignment<'a>,
    /// The UUID of the GPU that the container holds through a claim: the UUID of the GPU itself or of a part of it. `None` if the devices
    /// come from a device plugin, or if no slice gives a UUID.
    claimed: Option<&'a str>,
    pub(crate) pod: &'a Pod,
    place: Place,
}

/// Where the node's pods were stored in the cluster when the last report arrived. The next report usually names the same pods, and looking
/// them up in the tables of the whole cluster takes a fifth of the time that a report takes.
#[derive(Debug, Default)]
pub struct Places {
    /// Sorted by UID; the number is the first bytes of the UID.
    by_uid: Box<[(u64, Place)]>,
    /// In the order of kubelet's list.
    assigned: Box<[Place]>,
}

impl Places {
    /// The places of these pods.
    pub(crate) fn of(named: &NamedPods<'_>) -> Self {
        let mut by_uid = Vec::with_capacity(named.cgroups.len());
        by_uid.extend(named.cgroups.iter().filter_map(|own| Some((leading(own.cgroup.pod_uid), own.place?))));
        let assigned = named.assigned.as_deref().unwrap_or_default().iter();
        Self { by_uid: by_uid.into(), assigned: assigned.map(|assigned| assigned.place).collect() }
    }
}

impl<'a> NamedPods<'a> {
    /// The pods that a report names. `were`, their previous places, saves time and changes no result.
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
    // A cgroup that was removed and created again during the walk is listed twice. Ids grow, so the larger id is the later cgroup, which
    // counts.
    by_uid.sort_unstable_by(|(lead_a, a), (lead_b, b)| {
        lead_a.cmp(lead_b).then_with(|| a.pod_uid.cmp(b.pod_uid)).then_with(|| b.id.cmp(&a.id))
    });
    by_uid.dedup_by(|(lead_a, a), (lead_b, b)| lead_a == lead_b && a.pod_uid == b.pod_uid);
    // Both are sorted in the same order.
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
            let claimed = if assignment.driver.is_empty() { None } else { uuid_of_claimed(cluster, assignment) };
            found.push(Assigned { assignment, claimed, pod, place });
        }
    }
    found
}

impl<'a> Assigned<'a> {
    /// The resource under which kubelet handed them out; a GPU held through a claim counts as `nvidia.com/gpu`.
    pub(crate) fn resource(&self) -> &'a str {
        if self.claimed.is_some() { NVIDIA_GPU } else { self.assignment.resource }
    }

    /// The device ids in kubelet's list, or the UUID in the slice.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.assignment.device_ids.iter().copied().filter(|_| self.claimed.is_none()).chain(self.claimed)
    }

    /// Whether a claim holds it.
    pub(crate) fn is_claimed(&self) -> bool {
        !self.assignment.driver.is_empty()
    }

    /// Whether a claim holds a GPU, and no slice gives its UUID.
    pub(crate) fn is_unnamed_gpu(&self) -> bool {
        self.assignment.driver == NVIDIA_DRIVER && self.claimed.is_none()
    }

    /// The name that distinguishes this from other entries of its container: devices of a plugin are distinguished by resource, and each
    /// device held through a claim has a name of its own.
    pub(crate) fn name(&self) -> &'a str {
        match self.claimed {
            // Two parts of one GPU may both have only the UUID of the GPU.
            Some(_) => self.assignment.share_id.unwrap_or(self.assignment.device),
            None => self.assignment.resource,
        }
    }
}

/// The UUID of a GPU of NVIDIA's driver that was handed out through a claim. For a part without its own UUID, the UUID of its GPU.
fn uuid_of_claimed<'a>(cluster: &'a Cluster, assignment: &Assignment<'_>) -> Option<&'a str> {
    if assignment.driver != NVIDIA_DRIVER {
        return None;
    }
    let pool = cluster.pool(&PoolName { driver: assignment.driver.into(), pool: assignment.pool.into() })?;
    let listed = pool.listed().find(|listed| **listed.name() == *assignment.device)?;
    listed.uuid().or(listed.parent_uuid()).map(|uuid| &**uuid)
}

/// The first bytes of a UID as a number that sorts like the UID. Nearly always these bytes distinguish two UIDs.
fn leading(uid: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = uid.len().min(bytes.len());
    bytes[..length].copy_from_slice(&uid.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}
