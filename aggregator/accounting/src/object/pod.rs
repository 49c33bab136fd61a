//! A Pod, decoded: where it runs, for whom, and how much it asks for. Its containers are added up and forgotten.
use std::mem::swap;
use std::sync::Arc;

use serde::Deserialize;

use super::AppWrapperName;
use super::limits::Excess;
use super::meta::{Meta, nullable};
use super::needed::Needed::{self, Fields, Whole};
use super::port::HostPort;
use super::quantities::Quantities;
use super::spec::{Container, Effective, Requirements, Work};
use crate::object::others::Others;
use crate::resource::{Amounts, Triple};
use crate::steps;

/// The label that the successor puts on the pods of an AppWrapper.
const OWNER: &str = "workload.codeflare.dev/appwrapper";
/// The label that MCAD puts on them.
const OWNER_V1: &str = "appwrapper.mcad.ibm.com";
/// The label that names the AppWrapper's namespace where it is not the pod's own.
const OWNER_NAMESPACE: &str = "appwrapper.mcad.ibm.com/namespace";
/// The label by which Kueue names the pod set that a pod is of.
const POD_SET: &str = "kueue.x-k8s.io/podset";
/// The UID under which kubelet runs a static pod, on the mirror pod that stands for it.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";
/// The label that MCAD v1 looks for in its own sums: a slip of the pen, kept (docs/accounting.md §1).
const MISTYPED_OWNER: &str = "appwrappers.mcad.ibm.com";

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// The UID that its cgroups carry: its own, but for static pods, which kubelet knows before the API server does.
    pub cgroup_uid: Arc<str>,
    /// The node it is bound to.
    pub node: Option<Arc<str>>,
    /// The AppWrapper it belongs to, by its labels; whether or not that exists.
    pub owner: Option<AppWrapperName>,
    /// How far it got.
    pub phase: Phase,
    /// Effective requests (docs/accounting.md §3).
    pub requests: Amounts,
    /// What MCAD v1 takes it for, whether or not it subtracts it.
    pub dispatcher_v1: Triple,
    /// What MCAD v2 takes it for, whether or not it subtracts it.
    pub dispatcher_v2: Triple,
    /// The two dispatchers' labels on it.
    pub marks: Marks,
    /// What most pods have nothing of, or the same as many others.
    pub rare: Option<Arc<Rare>>,
    /// Quantities that could not be read.
    pub unreadable: u32,
    /// Why a part of it is left out; absent: all of it is there.
    pub excess: Option<Excess>,
}

/// See [`Pod::rare`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rare {
    /// Effective requests of resources without a ladder.
    pub others: Others,
    /// Host ports, in order.
    pub ports: Box<[HostPort]>,
    /// Of a pod that is neither bound nor finished: the node that is nominated for it, and its priority.
    pub nominated: Option<(Arc<str>, i64)>,
    /// The pod set that it is of, as Kueue names it.
    pub pod_set: Option<Arc<str>>,
}

/// Labels by which MCAD leaves a pod out of its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// MCAD v1 does not subtract it.
    pub v1: bool,
    /// MCAD v2 does not subtract it.
    pub v2: bool,
}

/// How far a pod got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its containers run.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// Pending, unknown, or not said.
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

    /// It holds nothing any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl Pod {
    /// The node whose resources it holds; absent: it is not bound, or finished.
    pub fn held_node(&self) -> Option<&Arc<str>> {
        self.node.as_ref().filter(|_| !self.phase.is_terminal())
    }

    /// It is bound and has not failed: its AppWrapper waits for no other in its place.
    pub fn is_placed(&self) -> bool {
        self.node.is_some() && self.phase != Phase::Failed
    }

    /// It asks for the same, for the same AppWrapper, as an earlier state of it.
    pub(crate) fn is_same_work(&self, before: &Self) -> bool {
        self.uid == before.uid
            && self.cgroup_uid == before.cgroup_uid
            && self.owner == before.owner
            && self.requests == before.requests
    }

    /// The rest is as in an earlier state of it.
    pub(crate) fn is_as_far(&self, before: &Self) -> bool {
        // Every field is named, so that a new one is in one of the two.
        #[rustfmt::skip]
        let Self {
            namespace: _, name: _, uid: _, cgroup_uid: _, owner: _, requests: _,
            node, phase, dispatcher_v1, dispatcher_v2, marks, rare, unreadable, excess,
        } = self;
        *node == before.node
            && *phase == before.phase
            && *dispatcher_v1 == before.dispatcher_v1
            && *dispatcher_v2 == before.dispatcher_v2
            && *marks == before.marks
            && *rare == before.rare
            && *unreadable == before.unreadable
            && *excess == before.excess
    }

    /// Trades what [`Self::is_as_far`] compares with another state of it.
    pub(crate) fn trade_progress(&mut self, other: &mut Self) {
        // One that stays where it is keeps the name that it shares with the node's other pods.
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
            ("annotations", Fields(&[(STATIC_POD_UID, Whole)])),
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
        ]),
    ),
    (
        "status",
        Fields(&[
            ("phase", Whole),
            ("nominatedNodeName", Whole),
            ("conditions", Fields(&[("type", Whole), ("reason", Whole)])),
            ("containerStatuses", CONTAINER_STATUS),
            ("initContainerStatuses", CONTAINER_STATUS),
        ]),
    ),
]);
const CONTAINER: Needed = Fields(&[("name", Whole), ("resources", Whole), ("restartPolicy", Whole), ("ports", PORT)]);
const PORT: Needed = Fields(&[("containerPort", Whole), ("hostPort", Whole), ("protocol", Whole), ("hostIP", Whole)]);
const CONTAINER_STATUS: Needed = Fields(&[("name", Whole), ("resources", Whole), ("allocatedResources", Whole)]);

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
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type", deserialize_with = "nullable")]
    kind: String,
    #[serde(deserialize_with = "nullable")]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawContainerStatus {
    #[serde(deserialize_with = "nullable")]
    name: String,
    resources: Option<Requirements>,
    #[serde(deserialize_with = "nullable")]
    allocated_resources: Quantities,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod { metadata, spec: work, status } = raw;
        let owner = metadata.label(OWNER).or_else(|| metadata.label(OWNER_V1)).map(|name| AppWrapperName {
            namespace: metadata.label(OWNER_NAMESPACE).unwrap_or(&metadata.namespace).into(),
            name: name.into(),
        });
        let uid: Arc<str> = metadata.uid.as_str().into();
        let static_uid = metadata.annotations.get(STATIC_POD_UID).filter(|uid| !uid.is_empty());
        let phase = Phase::named(&status.phase);
        let actual = status.actual();
        let Effective { amounts, others, excess } = work.effective(|container| status.requests(container, &actual));
        let (ports, too_many_ports) = work.host_ports();
        let nominates = work.node_name.is_empty() && !phase.is_terminal() && !status.nominated_node_name.is_empty();
        let rare = Rare {
            others,
            ports,
            nominated: nominates.then(|| (status.nominated_node_name.as_str().into(), work.priority())),
            pod_set: metadata.label(POD_SET).map(Into::into),
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
            unreadable: work.unreadable(),
            excess: excess.or(too_many_ports),
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
            uid,
        }
    }
}

/// What a container's status says that it has.
struct Actual<'a> {
    status: &'a RawContainerStatus,
    resources: &'a Requirements,
    is_init: bool,
}

impl RawStatus {
    /// The statuses that say what their container has: in order of name, those of init containers last, else as they are listed.
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

    /// What a container requests while it may be resized in place.
    ///
    /// Source: k8s.io/component-helpers `resource/helpers.go`, `determineContainerReqs`.
    fn requests(&self, container: &Container, statuses: &[Actual<'_>]) -> Quantities {
        let spec = &container.resources.requests;
        let at = statuses.partition_point(|actual| {
            steps::took(1);
            *actual.status.name < *container.name
        });
        let found = statuses.get(at).filter(|actual| actual.status.name == container.name);
        // A plain init container cannot be resized; the scheduler does not look at its status either.
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
