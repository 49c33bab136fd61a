//! The cgroups that a report lists of pods as a whole, each joined with its pod.
use mcad_wire::reading::{Cgroup, Report};

use crate::cluster::{Cluster, Place};
use crate::object::Pod;

/// The own cgroup of a pod, and that pod, wherever it is, where the cluster has it.
#[derive(Debug)]
pub struct OwnCgroup<'a> {
    pub(crate) cgroup: &'a Cgroup<'a>,
    pub(crate) pod: Option<&'a Pod>,
    place: Option<Place>,
}

/// Where the pods of a node were when its last report came. The next one mostly lists the same, and to find forty by a table of
/// all is a fifth of what a report costs.
#[derive(Debug, Default)]
pub struct Places(Box<[(u64, Place)]>);

impl Places {
    /// Where these are.
    pub(crate) fn of(own: &[OwnCgroup<'_>]) -> Self {
        Self(own.iter().filter_map(|own| Some((leading(own.cgroup.pod_uid), own.place?))).collect())
    }
}

/// The own cgroup of each pod that the report lists, in order of the pods' UIDs. Where the pods `were` makes no difference but in
/// time.
pub fn own_cgroups<'a>(cluster: &'a Cluster, report: &'a Report<'a>, were: &Places) -> Vec<OwnCgroup<'a>> {
    let of_pods = |cgroup: &&Cgroup<'_>| !cgroup.pod_uid.is_empty() && cgroup.container_id.is_empty();
    let listed = report.cgroups.iter().flat_map(|all| &all.cgroups).filter(of_pods);
    let mut by_uid: Vec<_> = listed.map(|cgroup| (leading(cgroup.pod_uid), cgroup)).collect();
    // One that was removed and made again during the walk is there twice; ids grow, so the later one is meant.
    by_uid.sort_unstable_by(|(lead_a, a), (lead_b, b)| {
        lead_a.cmp(lead_b).then_with(|| a.pod_uid.cmp(b.pod_uid)).then_with(|| b.id.cmp(&a.id))
    });
    by_uid.dedup_by(|(lead_a, a), (lead_b, b)| lead_a == lead_b && a.pod_uid == b.pod_uid);
    // Both are in the same order.
    let mut were = were.0.iter().peekable();
    let join = |(lead, cgroup): (u64, &'a Cgroup<'a>)| {
        while were.next_if(|(earlier, _)| *earlier < lead).is_some() {}
        let was = were.next_if(|(same, _)| *same == lead).map(|(_, place)| *place);
        let found = cluster.find_pod_of_uid(cgroup.pod_uid, was);
        OwnCgroup { cgroup, pod: found.map(|(_, pod)| pod), place: found.map(|(place, _)| place) }
    };
    by_uid.into_iter().map(join).collect()
}

/// The first bytes of a UID, in the order of the whole: nearly always they tell two apart.
fn leading(uid: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = uid.len().min(bytes.len());
    bytes[..length].copy_from_slice(&uid.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}
