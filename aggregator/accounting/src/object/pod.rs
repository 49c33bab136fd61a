//! A Pod, decoded: its node, its AppWrapper, and how much it requests. Its containers are added up and not kept.
use std::mem::swap;
use std::sync::Arc;

use serde::Deserialize;

use super::AppWrapperName;
use super::limits::{Excess, OWNERS, POD_CLAIMS, over};
use super::meta::{Meta, RawCondition, nullable};
use super::needed::Needed::{self, Fields, Whole};
use super::pod_claims::{PodClaims, RawClaimStatuses};
use super::port::HostPort;
use super::quantities::Quantities;
use super::spec::{Container, Effective, Requirements, Work};
use super::start::{RawState, STATE, Start, Starts};
use super::uid::Uid;
use crate::object::others::Others;
use crate::resource::{Amounts, Resource, Triple};
use crate::steps;

/// The label that the AppWrapper controller, MCAD's successor, puts on the pods of an AppWrapper.
pub(super) const OWNER: &str = "workload.codeflare.dev/appwrapper";
/// The label that MCAD puts on them.
pub(super) const OWNER_V1: &str = "appwrapper.mcad.ibm.com";
/// The label with the AppWrapper's namespace, if that is not the pod's own.
pub(super) const OWNER_NAMESPACE: &str = "appwrapper.mcad.ibm.com/namespace";
/// The label with which Kueue names a pod's pod set.
const POD_SET: &str = "kueue.x-k8s.io/podset";
/// The annotation by which Kueue names the Workload that a pod belongs to.
const WORKLOAD: &str = "kueue.x-k8s.io/workload";
/// The annotation on the mirror pod of a static pod, with the UID under which kubelet runs the static pod.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";
/// The label that MCAD v1 looks for in its own sums: a typing error in MCAD, reproduced here (docs/accounting.md §1).
const MISTYPED_OWNER: &str = "appwrappers.mcad.ibm.com";

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The pod UID of its cgroups: its own UID, except for static pods, which kubelet knows before the API server does.
    pub cgroup_uid: Arc<str>,
    /// The node that it is bound to.
    pub node: Option<Arc<str>>,
    /// The AppWrapper that it belongs to by its labels, whether or not the AppWrapper exists.
    pub owner: Option<AppWrapperName>,
    /// Its phase.
    pub phase: Phase,
    /// Effective requests (docs/accounting.md §3).
    pub requests: Amounts,
    /// What MCAD v1 counts for it, whether or not MCAD v1 subtracts it.
    pub dispatcher_v1: Triple,
    /// What MCAD v2 counts for it, whether or not MCAD v2 subtracts it.
    pub dispatcher_v2: Triple,
    /// Which of the two dispatchers' labels it has.
    pub marks: Marks,
    /// Fields that most pods do not have, or have in common with many others.
    pub rare: Option<Arc<Rare>>,
    /// When it was bound and its containers started; only of pods that belong to an AppWrapper or may hold devices.
    pub starts: Option<Box<Starts>>,
    /// The number of quantities that could not be read.
    pub unreadable: u32,
    /// Which bound it exceeds, so that a part of it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

/// See [`Pod::rare`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rare {
    /// Effective requests of resources without a ladder.
    pub others: Others,
    /// Host ports, sorted.
    pub ports: Box<[HostPort]>,
    /// For a pod that is neither bound nor finished: the node that is nominated for it, and its priority.
    pub nominated: Option<(Arc<str>, i64)>,
    /// The pod set that it belongs to, by Kueue's label.
    pub pod_set: Option<Arc<str>>,
    /// The Workload that its annotation names.
    pub workload: Option<Arc<str>>,
    /// UIDs of its owners, to one of which a Workload may belong. Pods of one owner share them.
    pub owners: Box<[Uid]>,
    /// The device claims that it uses. `None` if there are none.
    pub claims: Option<Box<PodClaims>>,
}

/// Labels because of which MCAD leaves a pod out of its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// MCAD v1 does not subtract it.
    pub v1: bool,
    /// MCAD v2 does not subtract it.
    pub v2: bool,
}

/// The phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its containers run.
    Running,
    /// It ended successfully.
    Succeeded,
    /// It failed.
    Failed,
    /// Pending, unknown, or absent.
    Other,
}

impl Phase {
    fn named(name: &str) -> Self {
        match name {
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Other,
        }
    }

    /// Whether the pod has ended, so that it holds nothing any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl Pod {
    /// The device claims that it uses; `None` if there are none.
    pub fn claims(&self) -> Option<&PodClaims> {
        self.rare.as_ref()?.claims.as_deref()
    }

    /// The first start of one of its containers.
    pub fn start_of(&self, container: &str) -> Start {
        let known = self.starts.as_ref().and_then(|starts| starts.of(container));
        // In this phase, containers have started.
        known.unwrap_or(if self.phase == Phase::Running { Start::Before } else { Start::NotYet })
    }

    /// The node whose resources it holds; `None` if it is not bound, or finished.
    pub fn held_node(&self) -> Option<&Arc<str>> {
        self.node.as_ref().filter(|_| !self.phase.is_terminal())
    }

    /// Whether it is bound and has not failed: its AppWrapper does not wait for another pod in its place.
    pub fn is_placed(&self) -> bool {
        self.node.is_some() && self.phase != Phase::Failed
    }

    /// Whether it requests the same, for the same AppWrapper, as an earlier state of it.
    pub(crate) fn is_same_work(&self, before: &Self) -> bool {
        self.uid == before.uid
            && self.cgroup_uid == before.cgroup_uid
            && self.owner == before.owner
            && self.requests == before.requests
    }

    /// Whether all other fields are the same as in an earlier state of it.
    pub(crate) fn is_as_far(&self, before: &Self) -> bool {
        // Every field is named, so that a new field must be added to one of the two methods.
        #[rustfmt::skip]
        let Self {
            namespace: _, name: _, uid: _, cgroup_uid: _, owner: _, requests: _,
            node, phase, dispatcher_v1, dispatcher_v2, marks, rare, starts, unreadable, excess,
        } = self;
        *node == before.node
            && *phase == before.phase
            && *dispatcher_v1 == before.dispatcher_v1
            && *dispatcher_v2 == before.dispatcher_v2
            && *marks == before.marks
            && *rare == before.rare
            && *starts == before.starts
            && *unreadable == before.unreadable
            && *excess == before.excess
    }

    /// Swaps the fields that [`Self::is_as_far`] compares with another state of the pod.
    pub(crate) fn trade_progress(&mut self, other: &mut Self) {
        // A pod that stays on its node keeps the node name that it shares with the node's other pods.
        if self.node != other.node {
            swap(&mut self.node, &mut other.node);
        }
        swap(&mut self.phase, &mut other.phase);
        swap(&mut self.dispatcher_v1, &mut other.dispatcher_v1);
        swap(&mut self.dispatcher_v2, &mut other.dispatcher_v2);
        swap(&mut self.marks, &mut other.marks);
        if self.rare != other.rare {
            swap(&mut self.rare, &mut other.rare);
        }
        swap(&mut self.starts, &mut other.starts);
        swap(&mut self.unreadable, &mut other.unreadable);
        swap(&mut self.excess, &mut other.excess);
    }
}

/// The fields of [`RawPod`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    (
        "metadata",
        Fields(&[
            ("name", Whole),
            ("namespace", Whole),
            ("uid", Whole),
            ("resourceVersion", Whole),
            (
                "labels",
                Fields(&[
                    (OWNER, Whole),
                    (OWNER_V1, Whole),
                    (OWNER_NAMESPACE, Whole),
                    (MISTYPED_OWNER, Whole),
                    (POD_SET, Whole),
                ]),
            ),
            ("annotations", Fields(&[(STATIC_POD_UID, Whole), (WORKLOAD, Whole)])),
            ("ownerReferences", Fields(&[("uid", Whole)])),
        ]),
    ),
    (
        "spec",
        Fields(&[
            ("nodeName", Whole),
            ("containers", CONTAINER),
            ("initContainers", CONTAINER),
            ("overhead", Whole),
            ("resources", Whole),
            ("hostNetwork", Whole),
            ("priority", Whole),
            ("resourceClaims", Whole),
        ]),
    ),
    (
        "status",
        Fields(&[
            ("phase", Whole),
            ("nominatedNodeName", Whole),
            (
                "conditions",
                Fields(&[("type", Whole), ("status", Whole), ("reason", Whole), ("lastTransitionTime", Whole)]),
            ),
            ("containerStatuses", CONTAINER_STATUS),
            ("initContainerStatuses", CONTAINER_STATUS),
            ("resourceClaimStatuses", Whole),
            ("extendedResourceClaimStatus", Whole),
            ("nodeAllocatableResourceClaimStatuses", Fields(&[])),
        ]),
    ),
]);
const CONTAINER: Needed = Fields(&[("name", Whole), ("resources", Whole), ("restartPolicy", Whole), ("ports", PORT)]);
const PORT: Needed = Fields(&[("containerPort", Whole), ("hostPort", Whole), ("protocol", Whole), ("hostIP", Whole)]);
const CONTAINER_STATUS: Needed = Fields(&[
    ("name", Whole),
    ("resources", Whole),
    ("allocatedResources", Whole),
    ("state", STATE),
    ("lastState", STATE),
    ("restartCount", Whole),
]);

#[derive(Deserialize)]
pub(crate) struct RawPod {
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: Work,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    #[serde(deserialize_with = "nullable")]
    phase: String,
    #[serde(deserialize_with = "nullable")]
    nominated_node_name: String,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<RawCondition>,
    #[serde(deserialize_with = "nullable")]
    container_statuses: Vec<RawContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    init_container_statuses: Vec<RawContainerStatus>,
    #[serde(flatten)]
    claims: RawClaimStatuses,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawContainerStatus {
    #[serde(deserialize_with = "nullable")]
    name: String,
    resources: Option<Requirements>,
    #[serde(deserialize_with = "nullable")]
    allocated_resources: Quantities,
    #[serde(deserialize_with = "nullable")]
    state: RawState,
    #[serde(deserialize_with = "nullable")]
    last_state: RawState,
    #[serde(deserialize_with = "nullable")]
    restart_count: u64,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod { metadata, spec: work, status } = raw;
        let owner = owner_of(&metadata);
        let uid: Arc<str> = metadata.uid.as_str().into();
        let static_uid = metadata.annotations.get(STATIC_POD_UID).filter(|uid| !uid.is_empty());
        let phase = Phase::named(&status.phase);
        let actual = status.actual();
        let Effective { amounts, others, excess } = work.effective(|container| status.requests(container, &actual));
        let (ports, too_many_ports) = work.host_ports();
        let nominates = work.node_name.is_empty() && !phase.is_terminal() && !status.nominated_node_name.is_empty();
        let claims = PodClaims::new(&work.resource_claims, &status.claims, &amounts, &others);
        let may_hold_devices = claims.is_some() || !amounts.extended().is_empty() || amounts.get(&Resource::Gpu) > 0;
        let starts = (owner.is_some() || may_hold_devices)
            .then(|| Starts::new(&status.conditions, status.starts(), may_hold_devices));
        let starts = starts.filter(|starts| *starts != Starts::default()).map(Box::new);
        let owners = metadata.owner_references.iter().filter(|owner| !owner.uid.is_empty());
        let owners = owners.take(OWNERS).map(|owner| Uid::from(owner.uid.clone()));
        let rare = Rare {
            others,
            ports,
            nominated: nominates.then(|| (status.nominated_node_name.as_str().into(), work.priority())),
            pod_set: metadata.label(POD_SET).map(Into::into),
            workload: metadata
                .annotations
                .get(WORKLOAD)
                .filter(|name| !name.is_empty())
                .map(|name| name.as_str().into()),
            owners: owners.collect(),
            claims: claims.map(Box::new),
        };
        Self {
            cgroup_uid: static_uid.map_or_else(|| uid.clone(), |uid| uid.as_str().into()),
            owner,
            node: Some(&*work.node_name).filter(|name| !name.is_empty()).map(Into::into),
            phase,
            requests: amounts,
            dispatcher_v1: work.dispatcher_v1(),
            dispatcher_v2: work.dispatcher_v2(),
            marks: Marks {
                v1: metadata.labels.contains_key(MISTYPED_OWNER),
                v2: metadata.labels.contains_key(OWNER_V1),
            },
            rare: (rare != Rare::default()).then(|| Arc::new(rare)),
            starts,
            unreadable: work.unreadable(),
            excess: excess.or(too_many_ports).or(over(
                work.resource_claims.len() + status.claims.len(),
                POD_CLAIMS,
                Excess::Devices,
            )),
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
            uid,
        }
    }
}

/// The AppWrapper that an object belongs to by its labels, whether or not the AppWrapper exists.
pub(super) fn owner_of(metadata: &Meta) -> Option<AppWrapperName> {
    let name = metadata.label(OWNER).or_else(|| metadata.label(OWNER_V1))?;
    let namespace = metadata.label(OWNER_NAMESPACE).unwrap_or(&metadata.namespace);
    Some(AppWrapperName { namespace: namespace.into(), name: name.into() })
}

/// The resources that a container has by its status.
struct Actual<'a> {
    status: &'a RawContainerStatus,
    resources: &'a Requirements,
    is_init: bool,
}

impl RawStatus {
    /// What it says of the start of each container.
    fn starts(&self) -> impl Iterator<Item = (&str, Start)> {
        let all = self.container_statuses.iter().chain(&self.init_container_statuses);
        all.map(|status| (&*status.name, Start::of(&status.state, &status.last_state, status.restart_count)))
    }

    /// The statuses that include the container's resources: sorted by name, those of init containers last, otherwise in the order of the
    /// list.
    fn actual(&self) -> Vec<Actual<'_>> {
        let plain = self.container_statuses.iter().map(|status| (status, false));
        let init = self.init_container_statuses.iter().map(|status| (status, true));
        let said = plain
            .chain(init)
            .filter_map(|(status, is_init)| Some(Actual { status, resources: status.resources.as_ref()?, is_init }));
        let mut statuses: Vec<_> = said.collect();
        statuses.sort_by(|a, b| (&a.status.name, a.is_init).cmp(&(&b.status.name, b.is_init)));
        statuses
    }

    /// What a container requests, taking a resize in place into account.
    ///
    /// Source: k8s.io/component-helpers `resource/helpers.go`, `determineContainerReqs`.
    fn requests(&self, container: &Container, statuses: &[Actual<'_>]) -> Quantities {
        let spec = &container.resources.requests;
        let at = statuses.partition_point(|actual| {
            steps::took(1);
            *actual.status.name < *container.name
        });
        let found = statuses.get(at).filter(|actual| actual.status.name == container.name);
        // A plain init container cannot be resized; the scheduler ignores its status, too.
        let found = found.filter(|actual| !actual.is_init || container.is_restartable());
        let Some(Actual { status, resources, .. }) = found else {
            return spec.clone();
        };
        let mut requests = resources.requests.clone();
        requests.raise(&status.allocated_resources);
        if !self.conditions.iter().any(|c| c.kind == "PodResizePending" && c.reason == "Infeasible") {
            requests.raise(spec);
        }
        requests
    }
}
