//! A ResourceClaim, decoded: the requests, the devices it was given, and the pods it is reserved for. And a ResourceClaimTemplate.
use std::sync::Arc;

use serde::Deserialize;

use super::AppWrapperName;
use super::constraints::NodeSelector;
use super::limits::{CLAIM_RESULTS, Excess, TEXT_BYTES, over};
use super::meta::{Meta, nullable, rank};
use super::needed::Needed::{self, Fields, Whole};
use super::pod::{OWNER, OWNER_NAMESPACE, OWNER_V1, owner_of};
use super::request::{RawDevices, Requests};
use super::uid::Uid;

/// The annotation on a claim that the scheduler creates for a pod that requests devices as an extended resource.
const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";

/// Namespace and name of a claim or of a claim template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A ResourceClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: ClaimName,
    /// Its UID.
    pub uid: Uid,
    /// The rank of the API version that this was read from; higher is newer.
    pub rank: u8,
    /// What it requests.
    pub requests: Arc<Requests>,
    /// The devices it was given. `None` if it is not allocated.
    pub allocation: Option<Allocation>,
    /// For whom it is reserved: the UID of a pod, or something that is not a pod.
    pub reserved_for: Box<[Consumer]>,
    rare: Option<Box<Rare>>,
}

/// Fields that few claims have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    owner: Option<AppWrapperName>,
    extended_of: Option<Arc<str>>,
    excess: Option<Excess>,
}

/// The allocation of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The devices.
    pub results: Box<[Granted]>,
    /// The nodes to which pods that use this claim are bound. `None` if the claim restricts nothing.
    pub nodes: Option<Arc<NodeSelector>>,
}

/// A device that a claim was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The request for which it was given.
    pub request: Arc<str>,
    /// Its driver.
    pub driver: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its name.
    pub device: Arc<str>,
    /// The claim has admin access to the device: it monitors the device and does not hold it.
    pub is_admin: bool,
    /// The claim has a share of the device.
    pub is_share: bool,
}

/// A consumer for which a claim is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// The pod of this UID.
    Pod(Arc<str>),
    /// Something else, for which the pods of the namespace that use the claim by name count.
    Other,
}

impl Claim {
    /// The AppWrapper that the claim belongs to by its own labels.
    pub fn owner(&self) -> Option<&AppWrapperName> {
        self.rare.as_ref()?.owner.as_ref()
    }

    /// The UID of the pod for whose extended resources the scheduler created the claim.
    pub fn extended_of(&self) -> Option<&Arc<str>> {
        self.rare.as_ref()?.extended_of.as_ref()
    }

    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub fn excess(&self) -> Option<Excess> {
        self.rare.as_ref()?.excess
    }

    /// The devices that it holds.
    pub fn held(&self) -> impl Iterator<Item = &Granted> {
        self.granted().filter(|granted| !granted.is_admin)
    }

    /// The devices that it was given, including those with admin access.
    pub fn granted(&self) -> impl Iterator<Item = &Granted> {
        self.allocation.iter().flat_map(|allocation| &allocation.results)
    }

    /// The node that it is bound to, if it is exactly one.
    pub fn only_node(&self) -> Option<&str> {
        self.allocation.as_ref()?.nodes.as_ref()?.only_node()
    }

    /// Replaces the node selector of its allocation by the equal one that `share` returns: claims on one node have the same.
    pub(crate) fn share_nodes(&mut self, share: impl FnOnce(&Arc<NodeSelector>) -> Arc<NodeSelector>) {
        if let Some(nodes) = self.allocation.as_mut().and_then(|allocation| allocation.nodes.as_mut()) {
            *nodes = share(nodes);
        }
    }

    /// Replaces names that other objects have, too, by those that `share` returns, so that each is in memory once.
    pub(crate) fn share_names(&mut self, mut share: impl FnMut(&Arc<str>) -> Arc<str>) {
        self.name.namespace = share(&self.name.namespace);
        for granted in self.allocation.iter_mut().flat_map(|allocation| &mut allocation.results) {
            for name in [&mut granted.request, &mut granted.driver, &mut granted.pool, &mut granted.device] {
                *name = share(name);
            }
        }
        if let Some(owner) = self.rare.as_mut().and_then(|rare| rare.owner.as_mut()) {
            *owner = AppWrapperName { namespace: share(&owner.namespace), name: share(&owner.name) };
        }
    }
}

/// A ResourceClaimTemplate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTemplate {
    /// Its name.
    pub name: ClaimName,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The rank of the API version that this was read from; higher is newer.
    pub rank: u8,
    /// What each of its claims requests.
    pub requests: Arc<Requests>,
    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

/// The fields of [`RawClaim`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    (
        "metadata",
        Fields(&[
            ("name", Whole),
            ("namespace", Whole),
            ("uid", Whole),
            ("resourceVersion", Whole),
            ("labels", Fields(&[(OWNER, Whole), (OWNER_V1, Whole), (OWNER_NAMESPACE, Whole)])),
            ("annotations", Fields(&[(EXTENDED, Whole)])),
            ("ownerReferences", Fields(&[("kind", Whole), ("uid", Whole), ("controller", Whole)])),
        ]),
    ),
    ("spec", Fields(&[("devices", Fields(&[("requests", Whole), ("constraints", Whole)]))])),
    (
        "status",
        Fields(&[
            ("allocation", Fields(&[("nodeSelector", Whole), ("devices", Fields(&[("results", RESULT)]))])),
            ("reservedFor", Fields(&[("resource", Whole), ("apiGroup", Whole), ("uid", Whole)])),
        ]),
    ),
]);
const RESULT: Needed = Fields(&[
    ("request", Whole),
    ("driver", Whole),
    ("pool", Whole),
    ("device", Whole),
    ("adminAccess", Whole),
    ("shareID", Whole),
]);

/// The fields of [`RawClaimTemplate`] and its parts.
pub(crate) const TEMPLATE_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", Fields(&[("name", Whole), ("namespace", Whole), ("uid", Whole), ("resourceVersion", Whole)])),
    ("spec", Fields(&[("spec", Fields(&[("devices", Fields(&[("requests", Whole), ("constraints", Whole)]))]))])),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawClaim {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: RawMeta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawMeta {
    #[serde(flatten)]
    meta: Meta,
    #[serde(default, deserialize_with = "nullable")]
    owner_references: Vec<RawOwner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawOwner {
    #[serde(deserialize_with = "nullable")]
    kind: String,
    #[serde(deserialize_with = "nullable")]
    uid: String,
    #[serde(deserialize_with = "nullable")]
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    #[serde(deserialize_with = "nullable")]
    devices: RawDevices,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    allocation: Option<RawAllocation>,
    #[serde(deserialize_with = "nullable")]
    reserved_for: Vec<RawConsumer>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawAllocation {
    #[serde(deserialize_with = "nullable")]
    devices: RawResults,
    node_selector: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResults {
    #[serde(deserialize_with = "nullable")]
    results: Vec<RawResult>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawResult {
    #[serde(deserialize_with = "nullable")]
    request: String,
    #[serde(deserialize_with = "nullable")]
    driver: String,
    #[serde(deserialize_with = "nullable")]
    pool: String,
    #[serde(deserialize_with = "nullable")]
    device: String,
    #[serde(deserialize_with = "nullable")]
    admin_access: bool,
    #[serde(rename = "shareID", deserialize_with = "nullable")]
    share_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawConsumer {
    #[serde(deserialize_with = "nullable")]
    api_group: String,
    #[serde(deserialize_with = "nullable")]
    resource: String,
    #[serde(deserialize_with = "nullable")]
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawClaimTemplate {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawTemplateSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTemplateSpec {
    #[serde(deserialize_with = "nullable")]
    spec: RawSpec,
}

impl From<RawClaim> for Claim {
    fn from(raw: RawClaim) -> Self {
        let RawClaim { api_version, metadata: RawMeta { meta, owner_references }, spec, status } = raw;
        let (requests, excess) = Requests::read(spec.devices);
        let allocation = status.allocation;
        let results = allocation.as_ref().map_or(0, |allocation| allocation.devices.results.len());
        let longest = allocation.iter().flat_map(|all| &all.devices.results).map(RawResult::longest).max();
        let excess = excess
            .or(over(results, CLAIM_RESULTS, Excess::Devices))
            .or(over(status.reserved_for.len(), CLAIM_RESULTS, Excess::Devices))
            .or(longest.and_then(|longest| over(longest, TEXT_BYTES, Excess::Text)));
        let is_extended = meta.annotations.get(EXTENDED).is_some_and(|value| value == "true");
        let controller = owner_references.into_iter().find(|owner| owner.controller && owner.kind == "Pod");
        let extended_of = controller.filter(|_| is_extended).map(|owner| owner.uid.into());
        let rare = Rare { owner: owner_of(&meta), extended_of, excess };
        Self {
            rank: rank(&api_version),
            requests,
            allocation: allocation.filter(|_| excess.is_none()).map(Allocation::from),
            reserved_for: status.reserved_for.into_iter().take(CLAIM_RESULTS).map(Consumer::from).collect(),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            uid: meta.uid.into(),
            name: ClaimName { namespace: meta.namespace.into(), name: meta.name.into() },
        }
    }
}

impl RawResult {
    fn longest(&self) -> usize {
        [&self.request, &self.driver, &self.pool, &self.device].into_iter().map(String::len).max().unwrap_or(0)
    }
}

impl From<RawAllocation> for Allocation {
    fn from(raw: RawAllocation) -> Self {
        let granted = |result: RawResult| Granted {
            request: result.request.into(),
            driver: result.driver.into(),
            pool: result.pool.into(),
            device: result.device.into(),
            is_admin: result.admin_access,
            is_share: !result.share_id.is_empty(),
        };
        Self { results: raw.devices.results.into_iter().map(granted).collect(), nodes: raw.node_selector.map(Arc::new) }
    }
}

impl From<RawConsumer> for Consumer {
    fn from(raw: RawConsumer) -> Self {
        if raw.resource == "pods" && raw.api_group.is_empty() { Self::Pod(raw.uid.into()) } else { Self::Other }
    }
}

impl From<RawClaimTemplate> for ClaimTemplate {
    fn from(raw: RawClaimTemplate) -> Self {
        let RawClaimTemplate { api_version, metadata, spec } = raw;
        let (requests, excess) = Requests::read(spec.spec.devices);
        Self {
            rank: rank(&api_version),
            requests,
            excess,
            uid: metadata.uid.into(),
            name: ClaimName { namespace: metadata.namespace.into(), name: metadata.name.into() },
        }
    }
}
