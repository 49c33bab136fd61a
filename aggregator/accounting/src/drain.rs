//! What draining nodes would take from AppWrappers: which of their pods, what these hold, and whether the pods fit on the other nodes.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::fit::{Fitter, PodsOnNodes};
use crate::object::demand::PodGroup;
use crate::object::{AppWrapper, AppWrapperName, Pod};
use crate::resource::Amounts;
use crate::snapshot::rest::lost;
use crate::snapshot::verdict::Verdict;
use crate::snapshot::{AppWrapperView, Part, Snapshot, Unplaced};

/// What is on the nodes, before they are drained.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// By AppWrapper.
    pub appwrappers: Vec<HeldByAppWrapper>,
    /// How many pods there are of no AppWrapper. Those of DaemonSets are among them; they would stay.
    pub other_pods: u64,
    /// What these request.
    pub by_others: Amounts,
}

/// What pods of one AppWrapper hold.
#[derive(Clone, Debug)]
pub struct HeldByAppWrapper {
    /// The AppWrapper that their labels name.
    pub name: AppWrapperName,
    /// The AppWrapper. `None` if there is none of that name; then it is not known where else its pods may run.
    pub appwrapper: Option<Arc<AppWrapper>>,
    /// How many of its pods are on the nodes.
    pub pods: u64,
    /// How many of its pods hold something on any node.
    pub all_pods: u64,
    /// What those on the nodes request.
    pub amounts: Amounts,
    /// Those on the nodes, as its spec has them.
    groups: Arc<[PodGroup]>,
}

/// An AppWrapper that would lose pods.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What it would lose.
    pub held: HeldByAppWrapper,
    /// These pods as pods that need a node, with the verdict that they have if nothing else needs one. `None` if it is not known which pods
    /// of its spec they are.
    pub view: Option<AppWrapperView>,
    /// How many of them were placed on which node. Not complete if only the search found a place for all.
    pub places: PodsOnNodes,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The AppWrappers that would lose pods, by name.
    pub losses: Vec<Loss>,
    /// Whether all their pods fit on the other nodes together. `None` if that is not known.
    pub fits: Option<bool>,
}

impl Held {
    /// What is on these nodes.
    pub fn of(cluster: &Cluster, nodes: &BTreeSet<&str>) -> Self {
        let mut held = Self::default();
        let mut by_owner: BTreeMap<&AppWrapperName, (Vec<&Pod>, u64)> = BTreeMap::new();
        for (pod, node) in cluster.pods().filter_map(|pod| Some((pod, pod.held_node()?))) {
            let is_here = nodes.contains(&**node);
            match &pod.owner {
                Some(owner) => {
                    let (here, all) = by_owner.entry(owner).or_default();
                    here.extend(is_here.then_some(pod));
                    *all += 1;
                }
                None if is_here => {
                    held.other_pods += 1;
                    held.by_others.add_times(&pod.requests, 1);
                }
                None => {}
            }
        }
        let lose = by_owner.into_iter().filter(|(_, (here, _))| !here.is_empty());
        held.appwrappers = lose.map(|(name, (here, all))| HeldByAppWrapper::of(cluster, name, &here, all)).collect();
        held
    }
}

impl HeldByAppWrapper {
    fn of(cluster: &Cluster, name: &AppWrapperName, here: &[&Pod], all_pods: u64) -> Self {
        let appwrapper = cluster.appwrapper(name).cloned();
        let mut amounts = Amounts::default();
        for pod in here {
            amounts.add_times(&pod.requests, 1);
        }
        let groups = appwrapper.as_ref().map(|appwrapper| {
            let bound = cluster.bound_pods_of(name);
            let stays = |pod: &&Pod| !here.iter().any(|gone| std::ptr::eq(*gone, *pod));
            let kept: Vec<&Pod> = bound.iter().copied().filter(stays).collect();
            lost(&appwrapper.demand, &name.name, &bound, &kept)
        });
        Self {
            name: name.clone(),
            appwrapper,
            pods: here.len() as u64,
            all_pods,
            amounts,
            groups: groups.unwrap_or_default(),
        }
    }
}

impl Drain {
    /// What follows if these pods lose their nodes. `snapshot` is of a cluster without the nodes.
    pub fn new(snapshot: &Snapshot, held: &Held) -> Self {
        let losses: Vec<Loss> = held.appwrappers.iter().map(|held| Loss::of(snapshot, held)).collect();
        let mut drain = Self { fits: Some(true), losses };
        if drain.losses.iter().any(|loss| loss.fits() == Some(false)) {
            drain.fits = Some(false);
        } else if drain.losses.iter().any(|loss| loss.fits().is_none()) {
            drain.fits = None;
        } else if drain.losses.len() > 1 {
            drain.fits = drain.together(snapshot);
        }
        drain
    }

    /// Whether all pods fit together.
    fn together(&self, snapshot: &Snapshot) -> Option<bool> {
        let groups: Vec<PodGroup> = self.losses.iter().flat_map(|loss| loss.held.groups.iter().cloned()).collect();
        if uses_claims(&groups) {
            // Which claim a name means depends on the AppWrapper.
            return None;
        }
        let (verdict, _) = Fitter::new(snapshot)?.place_and_name(&nobody(), &unplaced(groups.into()))?;
        verdict.fits()
    }
}

impl Loss {
    fn of(snapshot: &Snapshot, held: &HeldByAppWrapper) -> Self {
        let unplaced = unplaced(held.groups.clone());
        // Pods that are nominated for the same AppWrapper are others than these.
        let owner = if uses_claims(&held.groups) { held.name.clone() } else { nobody() };
        let tried = Fitter::new(snapshot).and_then(|mut fitter| fitter.place_and_name(&owner, &unplaced));
        let (verdict, places) = tried.map_or((None, Vec::new()), |(verdict, places)| (Some(verdict), places));
        let is_whole = unplaced.needed == held.pods;
        let appwrapper = held.appwrapper.clone().filter(|_| is_whole);
        let view = appwrapper.map(|of| AppWrapperView::of_pods(of, Unplaced { verdict, ..unplaced }));
        Self { held: held.clone(), view, places }
    }

    /// Whether its pods fit elsewhere. `None` if that is not known.
    pub fn fits(&self) -> Option<bool> {
        self.verdict()?.fits()
    }

    /// The verdict on its pods. `None` if it is not known.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.view.as_ref()?.unplaced.as_ref()?.verdict.as_ref()
    }
}

fn unplaced(groups: Arc<[PodGroup]>) -> Unplaced {
    let needed = groups.iter().map(|group| u64::from(group.count)).sum();
    Unplaced { part: Part::Rest, groups, needed, verdict: None }
}

fn uses_claims(groups: &[PodGroup]) -> bool {
    groups.iter().any(|group| !group.claims.is_empty())
}

/// No AppWrapper has this name.
fn nobody() -> AppWrapperName {
    AppWrapperName { namespace: "".into(), name: "".into() }
}
