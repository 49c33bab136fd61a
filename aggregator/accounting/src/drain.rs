//! What draining nodes would take from AppWrappers: which of their pods, what these hold, and whether the pods fit on the other nodes
//! (docs/accounting.md §12).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::fit::{Fitter, PodsOnNodes};
use crate::object::demand::{PodGroup, pods, uses_claims};
use crate::object::{AppWrapper, AppWrapperName, Pod, Version};
use crate::resource::Amounts;
use crate::snapshot::rest::lost;
use crate::snapshot::verdict::Verdict;
use crate::snapshot::{AppWrapperView, Part, Snapshot, Unplaced};
use crate::unread::Unread;
use crate::views::NodeView;

/// What is on the nodes, before they are drained.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// By AppWrapper.
    pub appwrappers: Vec<HeldByAppWrapper>,
    /// How many pods there are of no AppWrapper. Those of DaemonSets are among them; they would stay.
    pub other_pods: u64,
    /// What these hold: what they request, and devices that they hold through claims.
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
    /// What those on the nodes hold: what they request, and devices that they hold through claims.
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
    /// Whether these pods fit elsewhere. `None` if that cannot be told.
    pub fits: Option<bool>,
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
    /// What is on these nodes. `snapshot` is of the cluster.
    pub fn of(cluster: &Cluster, snapshot: &Snapshot, nodes: &BTreeSet<&str>) -> Self {
        let mut by_owner: BTreeMap<&AppWrapperName, (Vec<&Pod>, u64)> = BTreeMap::new();
        let mut others: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for (pod, node) in cluster.pods().filter_map(|pod| Some((pod, pod.held_node()?))) {
            let is_here = nodes.contains(&**node);
            match &pod.owner {
                Some(owner) => {
                    let (here, all) = by_owner.entry(owner).or_default();
                    here.extend(is_here.then_some(pod));
                    *all += 1;
                }
                None if is_here => others.entry(node).or_default().push(pod),
                None => {}
            }
        }
        let views = snapshot.nodes.iter().flat_map(|nodes| &nodes.nodes);
        let views: Vec<&NodeView> = views.map(|view| &**view).filter(|view| nodes.contains(&*view.node.name)).collect();
        let mut held = Self::default();
        for (node, pods) in others {
            let view = views.iter().find(|view| *view.node.name == *node);
            held.other_pods += pods.len() as u64;
            held.by_others.add_times(&held_by_others(&pods, view.copied()), 1);
        }
        let lose = by_owner.into_iter().filter(|(_, (here, _))| !here.is_empty());
        held.appwrappers =
            lose.map(|(name, (here, all))| HeldByAppWrapper::of(cluster, &views, name, &here, all)).collect();
        held
    }
}

/// What pods of no AppWrapper hold on their node. Of devices that claims may hold, that is what the ladder of the node says.
fn held_by_others(pods: &[&Pod], view: Option<&NodeView>) -> Amounts {
    let mut held = requested(pods);
    for (resource, ladder) in view.iter().flat_map(|view| &view.rungs).filter(|(_, ladder)| ladder.has_units) {
        if let Some(account) = &ladder.account {
            held.add(resource, account.requested.other - held.get(resource));
        }
    }
    held
}

fn requested(pods: &[&Pod]) -> Amounts {
    let mut requested = Amounts::default();
    for pod in pods {
        requested.add_times(&pod.requests, 1);
    }
    requested
}

impl HeldByAppWrapper {
    /// `views` are those of the nodes, and `here` its pods there.
    fn of(cluster: &Cluster, views: &[&NodeView], name: &AppWrapperName, here: &[&Pod], all_pods: u64) -> Self {
        let appwrapper = cluster.appwrapper(name).cloned();
        let mut amounts = requested(here);
        let beside = views.iter().filter_map(|view| view.devices.as_ref()).flat_map(|sums| &sums.beside_requests);
        beside.filter(|(of, _)| of == name).for_each(|(_, beside)| amounts.add_times(beside, 1));
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
    /// What follows if these pods lose their nodes. `snapshot` is of a cluster without the nodes, and `unread` what it lacks.
    pub fn new(snapshot: &Snapshot, held: &Held, unread: &Unread) -> Self {
        let mut fitter = Fitter::new(snapshot);
        // MCAD's sum does not matter to pods that were started.
        let is_whole = unread.is_nothing_to(Version::V1Beta2);
        let losses: Vec<Loss> = held.appwrappers.iter().map(|held| Loss::of(fitter.as_mut(), held, is_whole)).collect();
        let fits = if losses.iter().any(|loss| loss.fits == Some(false)) {
            Some(false)
        } else if losses.iter().any(|loss| loss.fits.is_none()) {
            None
        } else {
            together(fitter.as_mut(), &losses).filter(|_| is_whole)
        };
        Self { losses, fits }
    }
}

/// Whether all pods fit together, if those of each AppWrapper fit alone.
fn together(fitter: Option<&mut Fitter<'_>>, losses: &[Loss]) -> Option<bool> {
    if losses.len() < 2 {
        return Some(true);
    }
    let groups: Vec<PodGroup> = losses.iter().flat_map(|loss| loss.held.groups.iter().cloned()).collect();
    if uses_claims(&groups) {
        // Which claim a name means depends on the AppWrapper.
        return None;
    }
    let (verdict, _) = fitter?.renewed().place_and_name(&nobody(), &unplaced(groups.into()))?;
    verdict.fits()
}

impl Loss {
    fn of(fitter: Option<&mut Fitter<'_>>, held: &HeldByAppWrapper, is_whole: bool) -> Self {
        let unplaced = unplaced(held.groups.clone());
        // Pods that are nominated for the same AppWrapper are others than these.
        let owner = if uses_claims(&held.groups) { held.name.clone() } else { nobody() };
        let tried = fitter.and_then(|fitter| fitter.renewed().place_and_name(&owner, &unplaced));
        let (verdict, places) = tried.map_or((None, Vec::new()), |(verdict, places)| (Some(verdict), places));
        let are_known = unplaced.needed == held.pods;
        let appwrapper = held.appwrapper.clone().filter(|_| are_known);
        let view = appwrapper.map(|of| AppWrapperView::of_pods(of, Unplaced { verdict, ..unplaced }));
        let mut loss = Self { held: held.clone(), view, places, fits: None };
        loss.fits = loss.verdict().filter(|_| is_whole).and_then(Verdict::fits);
        loss
    }

    /// The verdict on its pods. `None` if it is not known.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.view.as_ref()?.unplaced.as_ref()?.verdict.as_ref()
    }
}

fn unplaced(groups: Arc<[PodGroup]>) -> Unplaced {
    Unplaced { part: Part::Rest, needed: pods(&groups), groups, verdict: None }
}

/// No AppWrapper has this name.
fn nobody() -> AppWrapperName {
    AppWrapperName { namespace: "".into(), name: "".into() }
}
