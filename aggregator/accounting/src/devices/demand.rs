//! The resources that an AppWrapper requests, including requests through claims, as far as they can be determined.
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::devices::classes::Classes;
use crate::object::request::{Choice, Mode, Request, Requests};
use crate::object::{AppWrapper, ClaimName, ClaimRef, IMPLICIT_CLASS};
use crate::resource::{Amounts, Resource};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requested {
    /// The requested amounts, with and without claims.
    pub amounts: Amounts,
    /// Resources that it requests in an amount that cannot be determined.
    pub unknown: BTreeSet<Resource>,
}

impl Requested {
    /// The total requests of the pods and claims of an AppWrapper.
    pub fn of(appwrapper: &AppWrapper, cluster: &Cluster, classes: &Classes<'_>) -> Self {
        let mut requested = Self { amounts: appwrapper.demand.total.clone(), unknown: BTreeSet::new() };
        let mut once: BTreeSet<&ClaimRef> = BTreeSet::new();
        for group in appwrapper.demand.groups.iter() {
            // Devices that are requested by the implicit resource of a class count as devices of that class.
            for (name, amount) in group.requests.extended().iter().filter(|(name, _)| name.starts_with(IMPLICIT_CLASS))
            {
                let resource = classes.counted_as(&Resource::Extended(name.clone()));
                requested.amounts.add(&resource, amount.saturating_mul(group.count.into()));
            }
            for claim in &group.claims {
                let times = match claim {
                    ClaimRef::Template(_) => group.count,
                    ClaimRef::Claim(_) if once.insert(claim) => 1,
                    ClaimRef::Claim(_) => continue,
                };
                match requests_of(appwrapper, claim, cluster) {
                    Some(requests) => requested.add(&requests, times, classes),
                    None => drop(requested.unknown.insert(Resource::Gpu)),
                }
            }
        }
        requested
    }

    /// The requested amount of each resource, as far as it can be determined.
    pub fn known(&self) -> impl Iterator<Item = (Resource, i128)> + '_ {
        self.amounts.iter().filter(|(resource, _)| !self.unknown.contains(resource))
    }

    fn add(&mut self, requests: &Requests, times: u32, classes: &Classes<'_>) {
        for request in &requests.requests {
            let amounts: Vec<Option<(Resource, u64)>> =
                request.alternatives.iter().map(|choice| amount(choice, classes)).collect();
            match amounts.first() {
                Some(Some((resource, count))) if amounts.iter().all(|other| Some(other) == amounts.first()) => {
                    self.amounts.add(resource, i128::from(*count).saturating_mul(times.into()));
                }
                // A request that is only for administrative access requests no devices.
                _ if is_admin(request) => {}
                Some(_) => {
                    let concerned = request.alternatives.iter().filter(|choice| !choice.is_admin);
                    self.unknown.extend(concerned.map(|choice| classes.resource_of(&choice.class)));
                }
                None => drop(self.unknown.insert(Resource::Gpu)),
            }
        }
    }
}

fn is_admin(request: &Request) -> bool {
    !request.alternatives.is_empty() && request.alternatives.iter().all(|choice| choice.is_admin)
}

/// The number of devices, and the resource they count as. `None` if that cannot be determined.
fn amount(choice: &Choice, classes: &Classes<'_>) -> Option<(Resource, u64)> {
    match choice.mode {
        Mode::Exactly(count) if !choice.is_admin && !choice.class.is_empty() => {
            Some((classes.resource_of(&choice.class), count))
        }
        _ => None,
    }
}

/// The requests of a claim that the AppWrapper's pods use. A template is first searched among the AppWrapper's own
/// objects, a claim first in its namespace. `None` if it does not exist.
pub fn requests_of(appwrapper: &AppWrapper, claim: &ClaimRef, cluster: &Cluster) -> Option<Arc<Requests>> {
    let own = || appwrapper.demand.own_claim(claim).cloned();
    let name = |name: &Arc<str>| ClaimName { namespace: appwrapper.name.namespace.clone(), name: name.clone() };
    match claim {
        ClaimRef::Template(template) => {
            own().or_else(|| cluster.claim_template(&name(template)).map(|template| template.requests.clone()))
        }
        ClaimRef::Claim(claim) => cluster.claim(&name(claim)).map(|claim| claim.requests.clone()).or_else(own),
    }
}
