//! Groups the pods of an AppWrapper into kinds of identical pods, with the requests of their claims, for the placement
//! with claims.
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::filters::Filters;
use super::placement::{Kind, Shared, Use};
use super::plans::{Plan, Plans};
use super::pods::left;
use super::rooms::Rooms;
use crate::devices::offer::{Claimed, Offers};
use crate::object::demand::PodGroup;
use crate::object::request::Requests;
use crate::object::{AppWrapperName, ClaimRef, HostPort};
use crate::resource::{Amounts, Resource};

/// What the pods of one kind have in common: requests, ports, priority, permitted nodes, claims.
type InCommon<'g> = (&'g Amounts, &'g [HostPort], i64, *const bool, &'g [ClaimRef]);

/// Claims that several pods share.
#[derive(Default)]
struct SharedClaims<'a, 'g> {
    claims: Vec<Shared<'a>>,
    places: BTreeMap<&'g ClaimRef, usize>,
}

/// See the module's documentation.
pub(super) struct Kinds<'k, 'a> {
    pub(super) offers: &'a Offers,
    pub(super) plans: &'k mut Plans,
    pub(super) filters: &'k mut Filters,
}

impl<'a> Kinds<'_, 'a> {
    /// The kinds of pods, the largest first, and the claims that several pods share.
    pub(super) fn of<'g>(
        mut self,
        rooms: &mut Rooms<'a>,
        owner: &AppWrapperName,
        groups: &[&'g PodGroup],
    ) -> (Vec<Kind<'g>>, Vec<Shared<'a>>) {
        let mut shared = SharedClaims::default();
        let mut kinds: Vec<Kind<'g>> = Vec::new();
        let mut known: HashMap<InCommon<'_>, usize> = HashMap::new();
        for &group in groups {
            let selected = rooms.selected(group);
            let key = (&group.requests, &*group.ports, group.priority, selected.as_ptr(), &*group.claims);
            if let Some(kind) = known.get(&key).and_then(|at| kinds.get_mut(*at)) {
                kind.count += u64::from(group.count);
                continue;
            }
            known.insert(key, kinds.len());
            let mut kind = Kind {
                count: group.count.into(),
                group,
                variants: Vec::new(),
                selected,
                claims: Vec::new(),
                extended: Vec::new(),
                devices: 0,
                missing_class: None,
            };
            for of in &group.claims {
                self.add_claim(&mut kind, owner, of, &mut shared);
            }
            self.add_extended(&mut kind);
            kind.add_variants(rooms);
            kinds.push(kind);
        }
        kinds.sort_by_key(|kind| {
            let (gpus, millicores, bytes) = left(&kind.group.requests);
            Reverse((gpus.saturating_add(kind.devices), millicores, bytes))
        });
        (kinds, shared.claims)
    }

    /// Adds a claim that the pods use.
    fn add_claim<'g>(
        &mut self,
        kind: &mut Kind<'g>,
        owner: &AppWrapperName,
        of: &'g ClaimRef,
        shared: &mut SharedClaims<'a, 'g>,
    ) {
        let claimed = self.offers.claim(owner, of);
        if let (ClaimRef::Template(_), Claimed::Asking(asked)) = (of, claimed) {
            let plan = self.plan(asked);
            kind.note(&plan);
            kind.claims.push(Use::Own(plan));
            return;
        }
        let known = shared.places.get(of).copied();
        let place = known.unwrap_or(shared.claims.len());
        if known.is_none() {
            shared.places.insert(of, place);
            shared.claims.push(match claimed {
                Claimed::Asking(asked) => Shared::Free(self.plan(asked)),
                Claimed::Allocated(nodes) => Shared::Bound(nodes.clone()),
                // Pods with such claims are not placed at all.
                Claimed::Missing | Claimed::Unclear => Shared::Bound(None),
            });
        }
        if let Some(Shared::Free(plan)) = shared.claims.get(place) {
            kind.note(plan);
        }
        // A pod may name a claim twice.
        if !kind.claims.iter().any(|of| matches!(of, Use::Shared(known) if *known == place)) {
            kind.claims.push(Use::Shared(place));
        }
    }

    fn plan(&mut self, asked: &Arc<Requests>) -> Rc<Plan> {
        self.plans.of(asked, self.offers, self.filters)
    }

    /// Adds the extended resources that a class is mapped to.
    fn add_extended(&mut self, kind: &mut Kind<'_>) {
        for resource in kind.group.requests.devices() {
            let amount = kind.group.requests.get(&resource);
            let Some(class) = self.offers.class_of_resource(resource.name()).filter(|_| amount > 0) else { continue };
            let count = u64::try_from(amount).unwrap_or(u64::MAX);
            let plan = self.plan(&Arc::new(Requests::of_class(&class.name, count)));
            // Devices that already count as GPUs count once.
            if resource != Resource::Gpu {
                kind.devices = kind.devices.saturating_add(amount);
            }
            kind.extended.push((resource, plan));
        }
    }
}

impl Kind<'_> {
    fn note(&mut self, plan: &Plan) {
        self.devices = self.devices.saturating_add(plan.first_devices());
        self.missing_class = self.missing_class.take().or_else(|| plan.missing_class.clone());
    }

    /// Adds the requests other than devices, for each combination that occurs on a node.
    fn add_variants(&mut self, rooms: &Rooms<'_>) {
        if self.extended.is_empty() {
            self.variants.push((Vec::new(), self.group.clone()));
            return;
        }
        for place in 0..rooms.count() {
            let is_claim = self.claims_on(&rooms.view(place).node);
            if self.variants.iter().any(|(known, _)| *known == is_claim) {
                continue;
            }
            let mut group = self.group.clone();
            for ((resource, _), _) in self.extended.iter().zip(&is_claim).filter(|(_, is_claim)| **is_claim) {
                group.requests.add(resource, -self.group.requests.get(resource));
            }
            self.variants.push((is_claim, group));
        }
    }
}
