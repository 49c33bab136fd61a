//! An AppWrapper of either version, decoded: its state, what it requests, and since when it waits.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Number, Value};

use super::limits::{Excess, TEXT_BYTES};
use super::meta::{Meta, instant_ms, nullable};
use super::needed::Needed::{self, Fields, Whole};
use crate::object::demand::{Component, Demand, GenericItem, of_components, of_generic_items};

/// The label that names a LocalQueue of Kueue.
pub(super) const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";
/// The controller that manages AppWrappers unless another is named.
const CONTROLLER: &str = "workload.codeflare.dev/appwrapper-controller";

/// Namespace and name of an AppWrapper.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppWrapperName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// An AppWrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the object")]
pub struct AppWrapper {
    /// Its namespace and name.
    pub name: AppWrapperName,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The API group and version from which it was read.
    pub served: Served,
    /// The version of its spec, whatever version it was read as.
    pub version: Version,
    /// `status.state` or `status.phase`.
    pub state: Arc<str>,
    /// `status.canrun`: MCAD has reserved resources for it.
    pub can_run: bool,
    /// `spec.priority`, or the priority class.
    pub priority: Arc<str>,
    /// Its Kueue queue; MCAD has no queues.
    pub queue: Arc<str>,
    /// `spec.managedBy`: the controller that manages it; empty if it names none.
    pub managed_by: Arc<str>,
    /// `spec.suspend`
    pub is_suspended: bool,
    /// Whether the condition PodsReady is True.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// When it was first queued, in ms since the Unix epoch.
    pub queued_at_ms: Option<i64>,
    /// `minAvailable`: how many pods must be placed for it to start. `None` if all must be placed.
    pub min_available: Option<u32>,
    /// What it requests; empty if it exceeds a bound.
    pub demand: Demand,
    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

/// The groups and versions under which an API server may serve AppWrappers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Served {
    /// `workload.codeflare.dev/v1beta1`
    WorkloadV1Beta1,
    /// `workload.codeflare.dev/v1beta2`
    WorkloadV1Beta2,
    /// `mcad.ibm.com/v1beta1`
    McadV1Beta1,
}

impl Served {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WorkloadV1Beta1, Self::WorkloadV1Beta2, Self::McadV1Beta1];

    /// The `apiVersion` of its objects.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::WorkloadV1Beta1 => "workload.codeflare.dev/v1beta1",
            Self::WorkloadV1Beta2 => "workload.codeflare.dev/v1beta2",
            Self::McadV1Beta1 => "mcad.ibm.com/v1beta1",
        }
    }

    /// The controller that the API belongs to.
    pub fn version(self) -> Version {
        match self {
            Self::WorkloadV1Beta1 | Self::McadV1Beta1 => Version::V1Beta1,
            Self::WorkloadV1Beta2 => Version::V1Beta2,
        }
    }
}

/// The two versions of AppWrappers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The version of MCAD.
    V1Beta1,
    /// The version of MCAD's successor, the AppWrapper controller.
    V1Beta2,
}

impl Version {
    /// The value of the label `version`.
    pub fn label(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// All states that its controller sets.
    pub fn states(self) -> &'static [&'static str] {
        match self {
            Self::V1Beta1 => &["Pending", "Running", "Deleted", "Failed", "Completed", "RunningHoldCompletion", ""],
            Self::V1Beta2 => &[
                "Suspended",
                "Resuming",
                "Running",
                "Resetting",
                "Suspending",
                "Succeeded",
                "Failed",
                "Terminating",
                "",
            ],
        }
    }
}

impl AppWrapper {
    /// Whether another controller than AppWrapper's own manages it.
    pub(crate) fn is_managed_elsewhere(&self) -> bool {
        !matches!(&*self.managed_by, "" | CONTROLLER)
    }

    /// Whether it waits to be started.
    pub fn is_waiting(&self) -> bool {
        match self.version {
            Version::V1Beta1 => matches!(&*self.state, "" | "Pending") && !self.can_run,
            Version::V1Beta2 => matches!(&*self.state, "" | "Suspended"),
        }
    }

    /// Whether it was started and has not ended: all its pods should have a node.
    pub fn is_started(&self) -> bool {
        match self.version {
            Version::V1Beta1 => *self.state == *"Running",
            Version::V1Beta2 => matches!(&*self.state, "Resuming" | "Running"),
        }
    }

    /// How many of its pods must be placed for it to start.
    pub fn needed(&self) -> u64 {
        let pods = self.demand.pods();
        self.min_available.map_or(pods, |min| u64::from(min).min(pods))
    }
}

/// The fields of [`RawAppWrapper`] and its parts. `spec` is needed as a whole, because a template may have pods anywhere.
pub(crate) const NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    (
        "metadata",
        Fields(&[
            ("name", Whole),
            ("namespace", Whole),
            ("uid", Whole),
            ("resourceVersion", Whole),
            ("labels", Fields(&[(QUEUE, Whole), (PRIORITY_CLASS, Whole)])),
            ("creationTimestamp", Whole),
            ("deletionTimestamp", Whole),
        ]),
    ),
    ("spec", Whole),
    (
        "status",
        Fields(&[
            ("state", Whole),
            ("phase", Whole),
            ("canrun", Whole),
            ("controllerfirsttimestamp", Whole),
            ("conditions", Fields(&[("type", Whole), ("status", Whole)])),
        ]),
    ),
]);

#[derive(Deserialize)]
pub(crate) struct RawAppWrapper {
    #[serde(default, rename = "apiVersion", deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    priority: Option<Number>,
    #[serde(deserialize_with = "nullable")]
    resources: RawResources,
    #[serde(deserialize_with = "nullable")]
    scheduling_spec: RawSchedulingSpec,
    components: Option<Vec<Component>>,
    /// Of no use if it is no text.
    #[serde(deserialize_with = "nullable")]
    managed_by: Value,
    #[serde(deserialize_with = "nullable")]
    suspend: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResources {
    #[serde(rename = "GenericItems", deserialize_with = "nullable")]
    generic_items: Vec<GenericItem>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSchedulingSpec {
    #[serde(deserialize_with = "nullable")]
    min_available: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    #[serde(deserialize_with = "nullable")]
    state: String,
    #[serde(deserialize_with = "nullable")]
    phase: String,
    #[serde(deserialize_with = "nullable")]
    canrun: bool,
    #[serde(deserialize_with = "nullable")]
    controllerfirsttimestamp: String,
    #[serde(deserialize_with = "nullable")]
    conditions: Value,
}

fn is_ready(conditions: &Value) -> bool {
    let conditions = conditions.as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "PodsReady" && one["status"] == "True")
}

impl From<RawAppWrapper> for AppWrapper {
    fn from(raw: RawAppWrapper) -> Self {
        let RawAppWrapper { api_version, metadata, spec, status } = raw;
        let served = Served::ALL.into_iter().find(|served| served.api_version() == api_version);
        let served = served.unwrap_or(Served::WorkloadV1Beta1);
        // One CRD may serve every object in both versions: the spec shows which version it is.
        let components = spec.components.as_ref().filter(|_| served != Served::McadV1Beta1);
        let version = if components.is_some() { Version::V1Beta2 } else { Version::V1Beta1 };
        let created_ms = instant_ms(&metadata.creation_timestamp);
        let label = |key| metadata.label(key).unwrap_or_default().into();
        let (state, priority, queue, queued_at_ms) = match version {
            Version::V1Beta1 => (
                status.state,
                spec.priority.map_or_else(|| "0".into(), |number| number.to_string().into()),
                "".into(),
                instant_ms(&status.controllerfirsttimestamp).or(created_ms),
            ),
            Version::V1Beta2 => (status.phase, label(PRIORITY_CLASS), label(QUEUE), created_ms),
        };
        let demand = match components {
            Some(components) => of_components(components),
            None => of_generic_items(&spec.resources.generic_items),
        };
        let (demand, mut excess) =
            demand.map_or_else(|excess| (Demand::default(), Some(excess)), |demand| (demand, None));
        // The API server bounds the fields that it knows, but not what a controller or a tenant writes into a status.
        if [&state, &metadata.namespace, &metadata.name].iter().any(|text| text.len() > TEXT_BYTES)
            || [&priority, &queue].iter().any(|text: &&Arc<str>| text.len() > TEXT_BYTES)
        {
            excess = excess.or(Some(Excess::Text));
        }
        Self {
            served,
            version,
            excess,
            state: state.into(),
            can_run: version == Version::V1Beta1 && status.canrun,
            managed_by: spec.managed_by.as_str().unwrap_or_default().into(),
            is_suspended: spec.suspend.as_bool().unwrap_or_default(),
            is_ready: version == Version::V1Beta2 && is_ready(&status.conditions),
            is_deleting: !metadata.deletion_timestamp.is_empty(),
            priority,
            queue,
            queued_at_ms,
            min_available: spec
                .scheduling_spec
                .min_available
                .as_i64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0),
            demand,
            name: AppWrapperName { namespace: metadata.namespace.into(), name: metadata.name.into() },
            uid: metadata.uid.into(),
        }
    }
}
