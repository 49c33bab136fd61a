//! Determines whether the pods of an AppWrapper fit that use claims to devices, or request extended resources that a
//! DeviceClass is mapped to (docs/accounting.md §9).
//!
//! Undecided questions are first answered pessimistically, then optimistically. Best fit almost always proves that the
//! pods fit. That they do not fit is proven by one of these, the cheapest first: they do not fit even without devices;
//! there are too few devices; the pods are identical and fill each node completely, and nodes share nothing; a search
//! with a limit.
use std::cmp::Reverse;
use std::sync::Arc;

use super::device_bounds;
use super::kinds::Kinds;
use super::known::{KindKey, Known};
use super::placement::{Kind, Placement, Shared};
use super::plans::Plans;
use super::pods::{Pods, left};
use super::rooms::Rooms;
use super::steps::{CutShort, Steps};
use super::stock::{Doubts, Reading, Stock};
use crate::devices::offer::{Claimed, Offers};
use crate::object::demand::PodGroup;
use crate::object::{AppWrapperName, ClaimRef};
use crate::resource::Resource;
use crate::snapshot::Unplaced;
use crate::snapshot::verdict::{Outcome, Undecided, Verdict};

/// How many pods are tried in every order; with more, the search would not finish.
const SEARCHED: u64 = 64;

/// See the module's documentation.
pub(super) struct Claims<'a> {
    offers: &'a Offers,
    stock: Stock<'a>,
    plans: Plans,
    known: Known,
    steps: Steps,
    /// How many pods were placed last on which node, by position.
    placed: Vec<(usize, u64)>,
}

/// Whether pods of these groups request devices through claims, or may do so.
pub(super) fn concerns(groups: &[PodGroup], offers: Option<&Offers>) -> bool {
    // If there are no devices, only kubelet allocates the resource that a class is mapped to.
    let by_class = |resource: &Resource| {
        offers.is_some_and(|of| !of.pools.is_empty() && of.class_of_resource(resource.name()).is_some())
    };
    groups.iter().any(|group| !group.claims.is_empty() || group.requests.devices().any(|resource| by_class(&resource)))
}

/// The pods to place.
#[derive(Clone, Copy)]
struct Wanted<'w, 'g, 'a> {
    owner: &'w AppWrapperName,
    kinds: &'w [Kind<'g>],
    shared: &'w [Shared<'a>],
    /// The number of pods that must be placed.
    needed: u64,
}

/// The result for one reading of undecided questions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Attempt {
    outcome: Outcome,
    placed: u64,
}

impl<'a> Claims<'a> {
    pub(super) fn new(offers: &'a Offers, steps: Steps) -> Self {
        Self {
            offers,
            stock: Stock::new(offers),
            plans: Plans::default(),
            known: Known::default(),
            steps,
            placed: Vec::new(),
        }
    }

    /// From now on, there are these steps.
    pub(super) fn renew(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// Tries to place the pods of an AppWrapper that need a node. `None` if it is not known which devices exist.
    pub(super) fn place(
        &mut self,
        rooms: &mut Rooms<'a>,
        owner: &AppWrapperName,
        unplaced: &Unplaced,
        usual: &mut Steps,
    ) -> Option<Verdict> {
        let verdict = |outcome, placed, about: Option<Arc<str>>| {
            Some(Verdict { part: unplaced.part, needed: unplaced.needed, placed, outcome, about })
        };
        let groups: Vec<&PodGroup> = unplaced.groups.iter().filter(|group| group.count > 0).collect();
        let used = || groups.iter().flat_map(|group| &group.claims);
        for (claimed, why) in [(Claimed::Missing, Undecided::ClaimMissing), (Claimed::Unclear, Undecided::Request)] {
            if let Some(of) = used().find(|of| *self.offers.claim(owner, of) == claimed) {
                return verdict(Outcome::Undecided(why), 0, Some(name_of(of)));
            }
        }
        if !self.offers.are_served && used().next().is_some() {
            return None;
        }
        if !rooms.affords(&unplaced.groups, usual) {
            return verdict(Outcome::Unproven, 0, None);
        }
        self.steps.begin();
        let (plans, filters) = (&mut self.plans, &mut self.stock.filters);
        let (kinds, shared) = Kinds { offers: self.offers, plans, filters }.of(rooms, owner, &groups);
        let missing_class = kinds.iter().find_map(|kind| kind.missing_class.clone());
        let about = missing_class.map(|class| format!("DeviceClass {class}").into());
        let wanted = Wanted { owner, kinds: &kinds, shared: &shared, needed: unplaced.needed };
        let ordinary = settled(rooms, wanted, without_devices, usual);
        let Attempt { outcome, placed } =
            if ordinary.outcome == Outcome::Never { ordinary } else { self.named_twice(rooms, wanted, usual) };
        // If kubelet alone has enough, it does not matter what is not known about devices.
        if matches!(outcome, Outcome::Unproven | Outcome::Undecided(_))
            && kinds.iter().all(|kind| kind.claims.is_empty())
        {
            let by_kubelet = settled(rooms, wanted, |kind| kind.group.clone(), usual);
            if by_kubelet.outcome == Outcome::Fits {
                return verdict(Outcome::Fits, by_kubelet.placed, None);
            }
        }
        verdict(outcome, placed, about.filter(|_| outcome == Outcome::Never))
    }

    /// Places the pods with their devices, and notes where.
    fn named_twice(&mut self, rooms: &mut Rooms<'a>, wanted: Wanted<'_, '_, 'a>, searching: &mut Steps) -> Attempt {
        self.placed.clear();
        let attempt = self.twice(rooms, wanted, searching);
        if let Some(places) = &mut rooms.placed {
            places.clone_from(&self.placed);
        }
        attempt
    }

    /// Answers undecided questions pessimistically, then optimistically.
    fn twice(&mut self, rooms: &Rooms<'a>, wanted: Wanted<'_, '_, 'a>, searching: &mut Steps) -> Attempt {
        self.stock.reading = Reading::Worst;
        self.stock.doubts = Doubts::default();
        let worst = self.attempt(rooms, wanted, searching);
        let doubts = self.stock.doubts;
        if doubts == Doubts::default() {
            return worst;
        }
        self.stock.reading = Reading::Best;
        self.steps.begin();
        let best = self.attempt(rooms, wanted, searching);
        let mut placed = worst.placed.max(best.placed);
        let mut best = best.outcome;
        // It is possible that some of the matching devices are available, but not all of them.
        if doubts.of_all && (worst.outcome, best) == (Outcome::Never, Outcome::Never) {
            self.stock.reading = Reading::Fewest;
            self.steps.begin();
            let fewest = self.attempt(rooms, wanted, searching);
            placed = placed.max(fewest.placed);
            best = fewest.outcome;
        }
        let outcome = match (worst.outcome, best) {
            (worst, best) if worst == best => worst,
            (Outcome::Unproven, _) | (_, Outcome::Unproven) => Outcome::Unproven,
            _ if doubts.of_selectors => Outcome::Undecided(Undecided::Selector),
            _ => Outcome::Undecided(Undecided::SharedDevice),
        };
        Attempt { outcome, placed }
    }

    fn attempt(&mut self, rooms: &Rooms<'a>, wanted: Wanted<'_, '_, 'a>, searching: &mut Steps) -> Attempt {
        let Wanted { owner, kinds, shared, needed } = wanted;
        let Self { stock, steps, offers, known, placed: noted, .. } = self;
        let mut attempt = Attempt { outcome: Outcome::Unproven, placed: 0 };
        // Nominated pods count for AppWrappers other than their own, and an optimistic result depends on undecided
        // questions.
        let key = match kinds {
            [kind] if stock.reading == Reading::Worst && !rooms.have_nominated() => KindKey::of(kind),
            _ => None,
        };
        if let ([kind], Some(key)) = (kinds, &key)
            && let Some(placed) = known.placed(key, kind.count)
        {
            let outcome = if placed >= needed { Outcome::Fits } else { Outcome::Never };
            return Attempt { outcome, placed };
        }
        let mut placement = Placement::new(rooms, stock, owner, kinds, shared);
        let decide = || {
            placement.clear();
            let mut placed = 0;
            for (at, kind) in kinds.iter().enumerate() {
                placed += placement.fill(at, kind.count, steps)?;
                attempt.placed = placed;
            }
            *noted = placement.placed();
            if let ([kind], Some(key)) = (kinds, key)
                && placement.stock.doubts == Doubts::default()
                && !placement.stock.gave_wide
            {
                known.note(key, placed, kind.count);
            }
            if placed >= needed {
                return Ok(Outcome::Fits);
            }
            let uses_free = kinds.iter().any(|kind| kind.uses_free(shared));
            // Identical pods fill each node completely, and nodes share no devices.
            if kinds.len() == 1 && !uses_free && !placement.stock.gave_wide {
                return Ok(Outcome::Never);
            }
            placement.clear();
            if device_bounds::exclude(&mut placement, needed, steps)? {
                return Ok(Outcome::Never);
            }
            if let ([kind], true) = (kinds, uses_free)
                && let Some(outcome) = first_anywhere(&mut placement, kind, needed, searching)?
            {
                return Ok(outcome);
            }
            let all: u64 = kinds.iter().map(|kind| kind.count).sum();
            if all > SEARCHED {
                return Err(CutShort);
            }
            let mut remaining: Vec<u64> = kinds.iter().map(|kind| kind.count).collect();
            let is_apart = !uses_free && !offers.are_wide();
            let found = search(&mut placement, &mut remaining, needed, 0, is_apart, searching)?;
            Ok(if found { Outcome::Fits } else { Outcome::Never })
        };
        attempt.outcome = decide().unwrap_or(Outcome::Unproven);
        placement.clear();
        if attempt.outcome == Outcome::Fits {
            attempt.placed = attempt.placed.max(needed);
        }
        attempt
    }
}

/// The pods of a kind without their devices: if these do not fit, the pods do not fit at all.
fn without_devices(kind: &Kind<'_>) -> PodGroup {
    let mut group = kind.group.clone();
    for (resource, _) in &kind.extended {
        group.requests.add(resource, -kind.group.requests.get(resource));
    }
    group
}

/// Whether the pods fit as these groups, if kubelet declares everything that they request.
fn settled(
    rooms: &mut Rooms<'_>,
    wanted: Wanted<'_, '_, '_>,
    group: impl Fn(&Kind<'_>) -> PodGroup,
    steps: &mut Steps,
) -> Attempt {
    let Wanted { owner, kinds, needed, .. } = wanted;
    let counted = |kind: &Kind<'_>| PodGroup { count: u32::try_from(kind.count).unwrap_or(u32::MAX), ..group(kind) };
    let groups: Vec<PodGroup> = kinds.iter().map(counted).collect();
    let pods = groups.iter().zip(kinds).map(|(group, kind)| Pods { group, selected: kind.selected.clone(), owner });
    let mut pods: Vec<Pods<'_>> = pods.collect();
    pods.sort_by_key(|pods| Reverse(left(&pods.group.requests)));
    let (outcome, placed) = rooms.settle(&pods, needed, steps);
    Attempt { outcome, placed }
}

/// For identical pods that share a claim: tries every node for the first pod, which allocates the claim; the others
/// follow. `None` if they compete for devices that several nodes share, so that another order may succeed.
fn first_anywhere(
    placement: &mut Placement<'_, '_, '_>,
    kind: &Kind<'_>,
    needed: u64,
    steps: &mut Steps,
) -> Result<Option<Outcome>, CutShort> {
    let mut are_apart = true;
    for place in 0..placement.rooms.count() {
        let Some(first) = placement.try_one(0, place, steps)? else { continue };
        placement.stock.gave_wide = false;
        let mut undos = Vec::new();
        let placed = placement.fill_noting(0, kind.count - 1, |undo| undos.push(undo), steps)?;
        are_apart &= !placement.stock.gave_wide;
        if placed + 1 >= needed {
            return Ok(Some(Outcome::Fits));
        }
        undos.into_iter().rev().for_each(|undo| placement.undo(undo));
        placement.undo(first);
    }
    Ok(are_apart.then_some(Outcome::Never))
}

/// Tries all remaining pods in every order, starting at node `from` if nodes share nothing. Returns whether `needed`
/// pods can be placed.
fn search(
    placement: &mut Placement<'_, '_, '_>,
    remaining: &mut [u64],
    needed: u64,
    from: usize,
    is_apart: bool,
    steps: &mut Steps,
) -> Result<bool, CutShort> {
    if needed == 0 {
        return Ok(true);
    }
    for place in from..placement.rooms.count() {
        for kind in 0..remaining.len() {
            if remaining[kind] == 0 {
                continue;
            }
            let Some(undo) = placement.try_one(kind, place, steps)? else { continue };
            remaining[kind] -= 1;
            let next = if is_apart { place } else { 0 };
            let is_found = search(placement, remaining, needed - 1, next, is_apart, steps)?;
            remaining[kind] += 1;
            placement.undo(undo);
            if is_found {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn name_of(claim: &ClaimRef) -> Arc<str> {
    match claim {
        ClaimRef::Template(name) => format!("ResourceClaimTemplate {name}").into(),
        ClaimRef::Claim(name) => format!("ResourceClaim {name}").into(),
    }
}
