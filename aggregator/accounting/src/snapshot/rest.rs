//! Which pods of an AppWrapper that is placed in part have no node yet (docs/accounting.md §6).
use std::sync::Arc;

use crate::object::Pod;
use crate::object::demand::{Demand, PodGroup};
use crate::resource::{Amounts, Resource};

/// The groups with as many pods as are not bound. Their constraints are those of pods that the queue has admitted.
///
/// `bound` are the pods of the AppWrapper that are bound and have not failed, in order of name.
pub fn rest(demand: &Demand, appwrapper: &str, bound: &[&Pod]) -> Arc<[PodGroup]> {
    let mut left: Vec<u32> = demand.groups.iter().map(|group| group.count).collect();
    let prefix = format!("{}-", appwrapper.to_lowercase());
    let unnamed = untaken(bound, &mut left, |pod, left| {
        let at = pod_set(pod, &prefix)?;
        left.get(at).is_some_and(|left| *left > 0).then_some(at)
    });
    // Made once: there may be thousands of groups, and each pod looks at all.
    let groups: Vec<_> = demand.groups.iter().map(|group| asked(&group.requests)).collect();
    let unlike = untaken(&unnamed, &mut left, |pod, left| {
        let requests = requests(pod);
        let requests = asked(&requests);
        (0..left.len()).find(|at| left[*at] > 0 && groups[*at] == requests)
    });
    untaken(&unlike, &mut left, |_, left| left.iter().position(|left| *left > 0));
    let unbound = |(group, count): (&PodGroup, u32)| PodGroup {
        count,
        constraints: group.admitted.clone().unwrap_or_else(|| group.constraints.clone()),
        ..group.clone()
    };
    demand.groups.iter().zip(left).filter(|(_, count)| *count > 0).map(unbound).collect()
}

/// Takes a pod of a group for each of `pods` that one is found for, and answers those that none is.
fn untaken<'a>(pods: &[&'a Pod], left: &mut [u32], find: impl Fn(&Pod, &[u32]) -> Option<usize>) -> Vec<&'a Pod> {
    let mut untaken = Vec::new();
    for &pod in pods {
        match find(pod, left) {
            Some(at) => left[at] -= 1,
            None => untaken.push(pod),
        }
    }
    untaken
}

/// The place of the pod set that the pod's label names, among all of its AppWrapper.
///
/// Source: project-codeflare/appwrapper `pkg/utils/utils.go` and kueue `pkg/controller/jobs/appwrapper`, `PodSets`.
fn pod_set(pod: &Pod, prefix: &str) -> Option<usize> {
    let number = pod.rare.as_ref()?.pod_set.as_ref()?.strip_prefix(prefix)?;
    let at: usize = number.parse().ok()?;
    (at.to_string() == number).then_some(at)
}

/// What a pod requests, as the requests of a group have it.
fn requests(pod: &Pod) -> Amounts {
    let mut requests = pod.requests.clone();
    for (name, amount) in pod.rare.iter().flat_map(|rare| rare.others.iter()) {
        requests.add(&Resource::Extended(name.clone()), amount);
    }
    requests
}

/// What is asked for. A resource that is named at 0 is not.
fn asked(amounts: &Amounts) -> Vec<(Resource, i128)> {
    amounts.iter().filter(|(_, amount)| *amount != 0).collect()
}
