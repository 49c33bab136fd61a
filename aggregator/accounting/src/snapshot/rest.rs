//! Determines which pods of a partly placed AppWrapper have no node yet (docs/accounting.md §6).
use std::sync::Arc;

use crate::object::Pod;
use crate::object::demand::{Demand, PodGroup};
use crate::resource::{Amounts, Resource};

/// The groups, each reduced to the number of pods that are not bound. Their constraints are those of pods that the
/// queue has admitted.
///
/// `bound` are the pods of the AppWrapper that are bound and have not failed, by name.
pub fn rest(demand: &Demand, appwrapper: &str, bound: &[&Pod]) -> Arc<[PodGroup]> {
    of_groups(demand, left(demand, appwrapper, bound))
}

/// The pods that have no node any more if only these are `kept` of the `bound` ones.
pub fn lost(demand: &Demand, appwrapper: &str, bound: &[&Pod], kept: &[&Pod]) -> Arc<[PodGroup]> {
    let (before, after) = (left(demand, appwrapper, bound), left(demand, appwrapper, kept));
    of_groups(demand, after.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before)))
}

/// So many pods of each group, as the queue has admitted them.
fn of_groups(demand: &Demand, counts: impl IntoIterator<Item = u32>) -> Arc<[PodGroup]> {
    let unbound = |(group, count): (&PodGroup, u32)| PodGroup {
        count,
        constraints: group.admitted.clone().unwrap_or_else(|| group.constraints.clone()),
        ..group.clone()
    };
    demand.groups.iter().zip(counts).filter(|(_, count)| *count > 0).map(unbound).collect()
}

/// How many pods of each group are not bound.
fn left(demand: &Demand, appwrapper: &str, bound: &[&Pod]) -> Vec<u32> {
    let mut left: Vec<u32> = demand.groups.iter().map(|group| group.count).collect();
    let prefix = format!("{}-", appwrapper.to_lowercase());
    let unnamed = untaken(bound, &mut left, |pod, left| {
        let at = pod_set(pod, &prefix)?;
        left.get(at).is_some_and(|left| *left > 0).then_some(at)
    });
    // Computed once: there may be thousands of groups, and each pod compares with all.
    let groups: Vec<_> = demand.groups.iter().map(|group| asked(&group.requests)).collect();
    let unlike = untaken(&unnamed, &mut left, |pod, left| {
        let requests = requests(pod);
        let requests = asked(&requests);
        (0..left.len()).find(|at| left[*at] > 0 && groups[*at] == requests)
    });
    untaken(&unlike, &mut left, |_, left| left.iter().position(|left| *left > 0));
    left
}

/// Removes a pod from the group that `find` returns for each of `pods`, and returns the pods for which it finds none.
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

/// The position of the pod set that the pod's label names, among all pod sets of its AppWrapper.
///
/// Source: project-codeflare/appwrapper `pkg/utils/utils.go` and kueue `pkg/controller/jobs/appwrapper`, `PodSets`.
fn pod_set(pod: &Pod, prefix: &str) -> Option<usize> {
    let number = pod.rare.as_ref()?.pod_set.as_ref()?.strip_prefix(prefix)?;
    let at: usize = number.parse().ok()?;
    (at.to_string() == number).then_some(at)
}

/// The requests of a pod in the form that a group's requests have.
fn requests(pod: &Pod) -> Amounts {
    let mut requests = pod.requests.clone();
    for (name, amount) in pod.rare.iter().flat_map(|rare| rare.others.iter()) {
        requests.add(&Resource::Extended(name.clone()), amount);
    }
    requests
}

/// The requests above 0: a resource that is named with 0 is not requested.
fn asked(amounts: &Amounts) -> Vec<(Resource, i128)> {
    amounts.iter().filter(|(_, amount)| *amount != 0).collect()
}
