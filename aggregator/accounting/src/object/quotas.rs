//! The quotas of a ClusterQueue or a Cohort: groups of resources, and for each flavor of a group what there is of each resource.
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{Excess, QUOTAS, TEXT_BYTES, over};
use super::meta::nullable;
use crate::resource::Resource;
use crate::resource::amount::Amount;
use crate::resource::quantity::Spelled;

/// Resources that are assigned together: all of them get the same flavor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceGroup {
    /// The resources.
    pub covered: Box<[Resource]>,
    /// The flavors, in the order in which they are tried.
    pub flavors: Box<[FlavorQuotas]>,
}

/// The quotas of one flavor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlavorQuotas {
    /// Name of the ResourceFlavor.
    pub name: Arc<str>,
    /// The quota of each resource.
    pub quotas: Box<[(Resource, Quota)]>,
}

/// The quota of one flavor and resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// `nominalQuota`
    pub nominal: Amount,
    /// `borrowingLimit`. `None` if there is no limit.
    pub borrowing_limit: Option<Amount>,
    /// `lendingLimit`. `None` if there is no limit.
    pub lending_limit: Option<Amount>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawGroup {
    #[serde(deserialize_with = "nullable")]
    covered_resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    flavors: Vec<RawFlavor>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawFlavor {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<RawQuota>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawQuota {
    #[serde(deserialize_with = "nullable")]
    name: String,
    nominal_quota: Option<Spelled>,
    borrowing_limit: Option<Spelled>,
    lending_limit: Option<Spelled>,
}

/// The groups, how many quantities in them could not be read, and why they are too many.
pub(super) fn groups(raw: Vec<RawGroup>) -> (Arc<[ResourceGroup]>, u32, Option<Excess>) {
    let quotas = raw.iter().flat_map(|group| &group.flavors).map(|flavor| 1 + flavor.resources.len()).sum::<usize>();
    let covered = raw.iter().map(|group| 1 + group.covered_resources.len()).sum::<usize>();
    let names = raw.iter().flat_map(|group| {
        let of_flavors = group.flavors.iter().flat_map(|flavor| {
            let resources = flavor.resources.iter().map(|resource| &resource.name);
            std::iter::once(&flavor.name).chain(resources)
        });
        group.covered_resources.iter().chain(of_flavors)
    });
    let is_long = names.into_iter().any(|name| name.len() > TEXT_BYTES);
    let excess = over(quotas + covered, QUOTAS, Excess::Resources).or(is_long.then_some(Excess::Text));
    if excess.is_some() {
        return (Arc::default(), 0, excess);
    }
    let mut unreadable = 0;
    let mut read = |resource: &Resource, spelled: Option<Spelled>| match spelled {
        Some(Spelled(Ok(quantity))) => Some(Amount::of_quantity(resource, quantity)),
        Some(Spelled(Err(_))) => {
            unreadable += 1;
            None
        }
        None => None,
    };
    let mut quota = |raw: RawQuota| {
        let resource = Resource::any(&raw.name);
        let quota = Quota {
            nominal: read(&resource, raw.nominal_quota).unwrap_or_default(),
            borrowing_limit: read(&resource, raw.borrowing_limit),
            lending_limit: read(&resource, raw.lending_limit),
        };
        (resource, quota)
    };
    let mut flavor = |raw: RawFlavor| FlavorQuotas {
        name: raw.name.into(),
        quotas: raw.resources.into_iter().map(&mut quota).collect(),
    };
    let group = |raw: RawGroup| ResourceGroup {
        covered: raw.covered_resources.iter().map(|name| Resource::any(name)).collect(),
        flavors: raw.flavors.into_iter().map(&mut flavor).collect(),
    };
    let groups = raw.into_iter().map(group).collect();
    (groups, unreadable, None)
}
