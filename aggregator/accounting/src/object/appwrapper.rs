//! An AppWrapper of either version, decoded: its state, what it asks for, since when it waits.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Number, Value};

use super::limits::{Excess, TEXT_BYTES};
use super::meta::{Meta, instant_ms, nullable};
use super::needed::Needed::{self, Fields, Whole};
use crate::object::demand::{Component, Demand, GenericItem, of_components, of_generic_items};

const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";

/// Which AppWrapper: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppWrapperName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// An AppWrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppWrapper {
    /// Its namespace and name.
    pub name: AppWrapperName,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// What it was read as.
    pub served: Served,
    /// What it is, whatever it was read as.
    pub version: Version,
    /// `status.state` or `status.phase`.
    pub state: Arc<str>,
    /// `status.canrun`: MCAD has set resources aside for it.
    pub can_run: bool,
    /// `spec.priority`, or the priority class.
    pub priority: Arc<str>,
    /// The queue; MCAD has none.
    pub queue: Arc<str>,
    /// When it was first queued, in ms since the Unix epoch.
    pub queued_at_ms: Option<i64>,
    /// `minAvailable`: so many pods must be placed for it to start. Absent: all.
    pub min_available: Option<u32>,
    /// What it asks for; nothing where it has too much for it to be known.
    pub demand: Demand,
    /// Why what it asks for is not known, so that it is left out; absent: it is known.
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

    /// As objects name it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::WorkloadV1Beta1 => "workload.codeflare.dev/v1beta1",
            Self::WorkloadV1Beta2 => "workload.codeflare.dev/v1beta2",
            Self::McadV1Beta1 => "mcad.ibm.com/v1beta1",
        }
    }

    /// Whose API it is.
    pub fn version(self) -> Version {
        match self {
            Self::WorkloadV1Beta1 | Self::McadV1Beta1 => Version::V1Beta1,
            Self::WorkloadV1Beta2 => Version::V1Beta2,
        }
    }
}

/// The two kinds of AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MCAD's.
    V1Beta1,
    /// Its successor's.
    V1Beta2,
}

impl Version {
    /// The label `version`.
    pub fn label(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// Every state that its controller sets.
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
    /// It waits to be started.
    pub fn is_waiting(&self) -> bool {
        match self.version {
            Version::V1Beta1 => matches!(&*self.state, "" | "Pending") && !self.can_run,
            Version::V1Beta2 => matches!(&*self.state, "" | "Suspended"),
        }
    }

    /// It was started and has not ended: all its pods should have a node.
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

/// The fields of [`RawAppWrapper`] and its parts; a template may hold pods anywhere.
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
        ]),
    ),
    ("spec", Whole),
    ("status", Fields(&[("state", Whole), ("phase", Whole), ("canrun", Whole), ("controllerfirsttimestamp", Whole)])),
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
}

impl From<RawAppWrapper> for AppWrapper {
    fn from(raw: RawAppWrapper) -> Self {
        let RawAppWrapper { api_version, metadata, spec, status } = raw;
        let served = Served::ALL.into_iter().find(|served| served.api_version() == api_version);
        let served = served.unwrap_or(Served::WorkloadV1Beta1);
        // One CRD may serve every object as both versions: the spec says which it is.
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
        // The API server bounds what it knows, but not what a controller or a tenant puts into a status.
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
