//! The device claims that a pod uses, by name, and which of its requests they satisfy.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::limits::POD_CLAIMS;
use super::meta::nullable;
use super::others::Others;
use crate::resource::{Amounts, Resource};

/// The prefix of the implicit extended resource name that each device class has.
pub const IMPLICIT_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodClaims {
    /// Their names in the pod's namespace, sorted, each once.
    pub names: Box<[Arc<str>]>,
    /// How many of its claims have not been created yet.
    pub unmade: u32,
    /// Amounts of extended resources that it requests, and for which its status names a claim that the scheduler created.
    pub covered: Amounts,
    /// Whether its status names a claim that the scheduler created for extended resources.
    pub tells_covered: bool,
    /// Amounts that it requests under the implicit names of device classes, and for which its status names no claim; sorted by name.
    pub by_class: Box<[(Arc<str>, i128)]>,
    /// How many of its claims are for parts of its node's allocatable resources (KEP-5517), which this program does not read.
    pub node_allocatable: u32,
}

/// One of `spec.resourceClaims` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RawPodClaim {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    resource_claim_name: String,
    #[serde(deserialize_with = "nullable")]
    resource_claim_template_name: String,
}

/// What a pod of a template uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimRef {
    /// A claim of its own, created from this template.
    Template(Arc<str>),
    /// The claim of this name, which other pods may use, too.
    Claim(Arc<str>),
}

/// The fields of a pod's status that describe claims.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RawClaimStatuses {
    #[serde(deserialize_with = "nullable")]
    resource_claim_statuses: Vec<RawClaimStatus>,
    extended_resource_claim_status: Option<RawExtendedStatus>,
    #[serde(deserialize_with = "nullable")]
    node_allocatable_resource_claim_statuses: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawClaimStatus {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    resource_claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawExtendedStatus {
    #[serde(deserialize_with = "nullable")]
    resource_claim_name: String,
    #[serde(deserialize_with = "nullable")]
    request_mappings: Vec<RawMapping>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMapping {
    #[serde(deserialize_with = "nullable")]
    resource_name: String,
}

impl RawClaimStatuses {
    pub(crate) fn len(&self) -> usize {
        let mappings = self.extended_resource_claim_status.as_ref().map_or(0, |status| status.request_mappings.len());
        self.resource_claim_statuses.len() + mappings
    }
}

impl RawPodClaim {
    /// What a pod of a template with this entry uses; `None` if the entry names nothing.
    pub(crate) fn of_template(&self) -> Option<ClaimRef> {
        match (&*self.resource_claim_name, &*self.resource_claim_template_name) {
            ("", "") => None,
            ("", template) => Some(ClaimRef::Template(template.into())),
            (claim, _) => Some(ClaimRef::Claim(claim.into())),
        }
    }
}

impl PodClaims {
    /// The claims of a pod with these requests; `None` if it has none.
    pub(crate) fn new(
        spec: &[RawPodClaim],
        status: &RawClaimStatuses,
        requests: &Amounts,
        others: &Others,
    ) -> Option<Self> {
        let extended = status.extended_resource_claim_status.as_ref();
        let by_class = others.iter().any(|(name, amount)| name.starts_with(IMPLICIT_CLASS) && amount > 0);
        if spec.is_empty()
            && extended.is_none()
            && status.node_allocatable_resource_claim_statuses.is_empty()
            && !by_class
        {
            return None;
        }
        let mut claims = Self { tells_covered: extended.is_some(), ..Self::default() };
        let mut names: Vec<Arc<str>> = Vec::new();
        for entry in spec.iter().take(POD_CLAIMS) {
            if !entry.resource_claim_name.is_empty() {
                names.push(entry.resource_claim_name.as_str().into());
                continue;
            }
            let made = status.resource_claim_statuses.iter().find(|made| made.name == entry.name);
            match made {
                Some(made) if !made.resource_claim_name.is_empty() => {
                    names.push(made.resource_claim_name.as_str().into());
                }
                // The claim turned out not to be needed.
                Some(_) => {}
                None => claims.unmade += 1,
            }
        }
        if let Some(status) = extended {
            names.extend(Some(status.resource_claim_name.as_str()).filter(|name| !name.is_empty()).map(Arc::from));
            let mut covered: Vec<Resource> = status
                .request_mappings
                .iter()
                .take(POD_CLAIMS)
                .map(|of| Resource::extended(&of.resource_name))
                .collect();
            covered.sort();
            covered.dedup();
            for (resource, amount) in covered.iter().map(|resource| (resource, requests.get(resource))) {
                if amount > 0 {
                    claims.covered.add(resource, amount);
                }
            }
        }
        let mappings = || extended.iter().flat_map(|status| &status.request_mappings).take(POD_CLAIMS);
        let is_mapped = |name: &str| mappings().any(|mapping| mapping.resource_name == name);
        let by_class = others.iter().filter(|(name, amount)| name.starts_with(IMPLICIT_CLASS) && *amount > 0);
        claims.by_class =
            by_class.filter(|(name, _)| !is_mapped(name)).map(|(name, amount)| (name.clone(), amount)).collect();
        names.sort();
        names.dedup();
        claims.names = names.into();
        claims.node_allocatable = status.node_allocatable_resource_claim_statuses.len() as u32;
        Some(claims)
    }
}
