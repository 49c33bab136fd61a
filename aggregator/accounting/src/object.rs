//! Objects of the cluster, decoded to the few fields that metrics depend on.
//!
//! Owns which fields of an object are read, and how. What is computed from them is in [`crate::cluster`].
//!
//! Decoding is lenient if a wrong value affects only that value: an unreadable quantity counts as absent, and is counted. Decoding is
//! strict if the object's shape is wrong: then the object is left out, with an error that contains the path of the field.
pub mod alike;
pub(crate) mod appwrapper;
pub mod bare;
pub(crate) mod claim;
pub(crate) mod class;
pub(crate) mod constraints;
pub mod demand;
pub mod flavor;
pub(crate) mod limits;
pub mod meta;
pub mod needed;
pub(crate) mod node;
pub mod others;
pub(crate) mod pod;
pub(crate) mod pod_claims;
pub(crate) mod port;
pub(crate) mod quantities;
pub mod queues;
pub mod quotas;
pub mod request;
pub mod slice;
pub(crate) mod spec;
pub mod start;
pub mod submission;
pub(crate) mod template;
mod uid;
#[cfg(test)]
mod work_tests;
pub mod workload;

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde::de::{DeserializeOwned, DeserializeSeed as _, Deserializer};
use serde_json::Value;
use thiserror::Error;

pub use appwrapper::{AppWrapper, AppWrapperName, Served, Version};
pub use claim::{Allocation, Claim, ClaimName, ClaimTemplate, Consumer, Granted};
pub use class::{DeviceClass, TaintRule};
pub use constraints::{Constraints, NodeSelector};
pub use flavor::ResourceFlavor;
pub use limits::Excess;
pub use node::{Declared, Effect, Node, Origin, Taint};
pub use pod::{Marks, Phase, Pod, Rare};
pub use pod_claims::{ClaimRef, IMPLICIT_CLASS, PodClaims};
pub use port::HostPort;
pub use queues::{ClusterQueue, Cohort, LocalQueue, QueueName};
pub use slice::Slice;
pub use uid::Uid;
pub use workload::Workload;

use crate::resource::Resource;
use crate::resource::quantity::{QuantityError, Spelled};

/// An object that is accounted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
    /// An AppWrapper.
    AppWrapper(AppWrapper),
    /// A ResourceSlice: devices that a driver offers.
    ResourceSlice(Slice),
    /// A ResourceClaim: devices that a pod requests, or has.
    ResourceClaim(Claim),
    /// A ResourceClaimTemplate.
    ResourceClaimTemplate(ClaimTemplate),
    /// A DeviceClass.
    DeviceClass(DeviceClass),
    /// A DeviceTaintRule.
    DeviceTaintRule(TaintRule),
    /// A ClusterQueue: quotas.
    ClusterQueue(ClusterQueue),
    /// A LocalQueue: how a namespace reaches a ClusterQueue.
    LocalQueue(LocalQueue),
    /// A Cohort: ClusterQueues that lend quota to each other.
    Cohort(Cohort),
    /// A ResourceFlavor: the nodes that a quota stands for.
    ResourceFlavor(ResourceFlavor),
    /// A Workload: what waits for quota or holds it.
    Workload(Workload),
}

impl Object {
    /// How many of its quantities could not be read.
    pub fn unreadable(&self) -> u32 {
        match self {
            Self::Node(node) => node.unreadable,
            Self::Pod(pod) => pod.unreadable,
            Self::AppWrapper(appwrapper) => appwrapper.demand.unreadable,
            Self::ResourceSlice(slice) => slice.unreadable,
            Self::ResourceClaim(Claim { requests, .. })
            | Self::ResourceClaimTemplate(ClaimTemplate { requests, .. }) => requests.unreadable(),
            Self::ClusterQueue(queue) => queue.unreadable,
            Self::Cohort(cohort) => cohort.unreadable,
            Self::Workload(workload) => workload.open.as_ref().map_or(0, |open| open.unreadable),
            Self::DeviceClass(_) | Self::DeviceTaintRule(_) | Self::LocalQueue(_) | Self::ResourceFlavor(_) => 0,
        }
    }

    /// Which bound it exceeds, if any. Then an AppWrapper is left out, and a part of a Node or a Pod.
    pub fn excess(&self) -> Option<Excess> {
        match self {
            Self::Node(node) => node.excess,
            Self::Pod(pod) => pod.excess,
            Self::AppWrapper(appwrapper) => appwrapper.excess,
            Self::ResourceSlice(slice) => slice.excess,
            Self::ResourceClaim(claim) => claim.excess(),
            Self::ResourceClaimTemplate(template) => template.excess,
            Self::DeviceClass(class) => class.excess,
            Self::DeviceTaintRule(rule) => rule.excess,
            Self::ClusterQueue(queue) => queue.excess,
            Self::LocalQueue(queue) => queue.excess,
            Self::Cohort(cohort) => cohort.excess,
            Self::ResourceFlavor(flavor) => flavor.excess,
            Self::Workload(workload) => workload.excess,
        }
    }

    /// What is left out if it exceeds a bound, as a sentence.
    pub fn left_out_of_it(&self) -> &'static str {
        match self.kind() {
            Kind::Node | Kind::Pod => "the surplus is left out",
            _ => "it is left out",
        }
    }

    /// Its namespace, empty for a Node, and its name.
    pub fn name(&self) -> (&str, &str) {
        match self {
            Self::Node(node) => ("", &node.name),
            Self::Pod(pod) => (&pod.namespace, &pod.name),
            Self::AppWrapper(AppWrapper { name, .. }) => (&name.namespace, &name.name),
            Self::ResourceSlice(Slice { name, .. })
            | Self::DeviceClass(DeviceClass { name, .. })
            | Self::DeviceTaintRule(TaintRule { name, .. })
            | Self::ClusterQueue(ClusterQueue { name, .. })
            | Self::Cohort(Cohort { name, .. })
            | Self::ResourceFlavor(ResourceFlavor { name, .. }) => ("", name),
            Self::LocalQueue(LocalQueue { name, .. }) | Self::Workload(Workload { name, .. }) => {
                (&name.namespace, &name.name)
            }
            Self::ResourceClaim(Claim { name, .. }) | Self::ResourceClaimTemplate(ClaimTemplate { name, .. }) => {
                (&name.namespace, &name.name)
            }
        }
    }

    /// Kind, namespace and name.
    pub fn called(&self) -> String {
        let (namespace, name) = self.name();
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{:?} {namespace}{slash}{name}", self.kind())
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::AppWrapper(_) => Kind::AppWrapper,
            Self::ResourceSlice(_) => Kind::ResourceSlice,
            Self::ResourceClaim(_) => Kind::ResourceClaim,
            Self::ResourceClaimTemplate(_) => Kind::ResourceClaimTemplate,
            Self::DeviceClass(_) => Kind::DeviceClass,
            Self::DeviceTaintRule(_) => Kind::DeviceTaintRule,
            Self::ClusterQueue(_) => Kind::ClusterQueue,
            Self::LocalQueue(_) => Kind::LocalQueue,
            Self::Cohort(_) => Kind::Cohort,
            Self::ResourceFlavor(_) => Kind::ResourceFlavor,
            Self::Workload(_) => Kind::Workload,
        }
    }
}

/// The kinds of objects that are accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// AppWrapper, in a version that this program knows.
    AppWrapper,
    /// ResourceSlice of `resource.k8s.io`: devices that a driver offers.
    ResourceSlice,
    /// ResourceClaim of `resource.k8s.io`.
    ResourceClaim,
    /// ResourceClaimTemplate of `resource.k8s.io`.
    ResourceClaimTemplate,
    /// DeviceClass of `resource.k8s.io`.
    DeviceClass,
    /// DeviceTaintRule of `resource.k8s.io`.
    DeviceTaintRule,
    /// ClusterQueue of `kueue.x-k8s.io`.
    ClusterQueue,
    /// LocalQueue of `kueue.x-k8s.io`.
    LocalQueue,
    /// Cohort of `kueue.x-k8s.io`.
    Cohort,
    /// ResourceFlavor of `kueue.x-k8s.io`.
    ResourceFlavor,
    /// Workload of `kueue.x-k8s.io`.
    Workload,
}

/// The API group of Dynamic Resource Allocation.
pub const DEVICE_GROUP: &str = "resource.k8s.io";
/// The group of Kueue's kinds.
pub const QUEUE_GROUP: &str = "kueue.x-k8s.io";
/// The group of AppWrappers.
pub(crate) const WORKLOAD_GROUP: &str = "workload.codeflare.dev";

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Node,
        Self::Pod,
        Self::AppWrapper,
        Self::ResourceSlice,
        Self::ResourceClaim,
        Self::ResourceClaimTemplate,
        Self::DeviceClass,
        Self::DeviceTaintRule,
        Self::ClusterQueue,
        Self::LocalQueue,
        Self::Cohort,
        Self::ResourceFlavor,
        Self::Workload,
    ];
    /// The kinds that every cluster has, and without which hardly any metric is known.
    pub const CORE: [Self; 3] = [Self::Node, Self::Pod, Self::AppWrapper];
    /// The kinds of Dynamic Resource Allocation.
    pub const DEVICES: [Self; 5] = [
        Self::ResourceSlice,
        Self::ResourceClaim,
        Self::ResourceClaimTemplate,
        Self::DeviceClass,
        Self::DeviceTaintRule,
    ];

    /// Those of Kueue.
    pub const QUEUES: [Self; 5] =
        [Self::ClusterQueue, Self::LocalQueue, Self::Cohort, Self::ResourceFlavor, Self::Workload];

    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::AppWrapper => "AppWrapper",
            Self::ResourceSlice => "ResourceSlice",
            Self::ResourceClaim => "ResourceClaim",
            Self::ResourceClaimTemplate => "ResourceClaimTemplate",
            Self::DeviceClass => "DeviceClass",
            Self::DeviceTaintRule => "DeviceTaintRule",
            Self::ClusterQueue => "ClusterQueue",
            Self::LocalQueue => "LocalQueue",
            Self::Cohort => "Cohort",
            Self::ResourceFlavor => "ResourceFlavor",
            Self::Workload => "Workload",
        }
    }

    /// The plural of the name.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Node => "Nodes",
            Self::Pod => "Pods",
            Self::AppWrapper => "AppWrappers",
            Self::ResourceSlice => "ResourceSlices",
            Self::ResourceClaim => "ResourceClaims",
            Self::ResourceClaimTemplate => "ResourceClaimTemplates",
            Self::DeviceClass => "DeviceClasses",
            Self::DeviceTaintRule => "DeviceTaintRules",
            Self::ClusterQueue => "ClusterQueues",
            Self::LocalQueue => "LocalQueues",
            Self::Cohort => "Cohorts",
            Self::ResourceFlavor => "ResourceFlavors",
            Self::Workload => "Workloads",
        }
    }

    /// The API group of the kind. `None` for kinds of several groups, or of the core.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Node | Self::Pod | Self::AppWrapper => None,
            Self::ClusterQueue | Self::LocalQueue | Self::Cohort | Self::ResourceFlavor | Self::Workload => {
                Some(QUEUE_GROUP)
            }
            _ => Some(DEVICE_GROUP),
        }
    }

    /// The versions of the kind in its [group](Self::group) that this program knows, newest first; empty if it has no such group.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Node | Self::Pod | Self::AppWrapper => &[],
            Self::DeviceTaintRule => &["v1", "v1beta2", "v1alpha3"],
            Self::Cohort => &["v1beta2", "v1beta1", "v1alpha1"],
            Self::ClusterQueue | Self::LocalQueue | Self::ResourceFlavor | Self::Workload => &["v1beta2", "v1beta1"],
            _ => &["v1", "v1beta2", "v1beta1"],
        }
    }

    /// The fields that [`decode`] needs.
    pub fn needed(self) -> needed::Needed {
        match self {
            Self::Node => node::NEEDED,
            Self::Pod => pod::NEEDED,
            Self::AppWrapper => appwrapper::NEEDED,
            Self::ResourceSlice => slice::NEEDED,
            Self::ResourceClaim => claim::NEEDED,
            Self::ResourceClaimTemplate => claim::TEMPLATE_NEEDED,
            Self::DeviceClass => class::CLASS_NEEDED,
            Self::DeviceTaintRule => class::RULE_NEEDED,
            Self::ClusterQueue => queues::CLUSTER_QUEUE_NEEDED,
            Self::LocalQueue => queues::LOCAL_QUEUE_NEEDED,
            Self::Cohort => queues::COHORT_NEEDED,
            Self::ResourceFlavor => flavor::NEEDED,
            Self::Workload => workload::NEEDED,
        }
    }

    /// The kind of an object with this `apiVersion` and `kind`. `None` if the object is not accounted for.
    pub fn named(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Node") => Some(Self::Node),
            ("v1", "Pod") => Some(Self::Pod),
            (version, "AppWrapper") if Served::ALL.iter().any(|served| served.api_version() == version) => {
                Some(Self::AppWrapper)
            }
            (version, kind) => {
                let (group, version) = version.split_once('/')?;
                let named = |known: &Self| {
                    known.name() == kind && known.group() == Some(group) && known.versions().contains(&version)
                };
                Self::ALL.into_iter().find(named)
            }
        }
    }
}

/// An object that could not be decoded.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// A field has a shape that the API does not define.
    #[error("{object}: field `{field}`")]
    Field {
        /// Kind, namespace and name, as far as the object has them.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It has an empty name, or no name.
    #[error("{object}: field `metadata.name` is empty")]
    Nameless {
        /// Kind, namespace and name, as far as the object has them.
        object: String,
    },
}

/// Reads the fields that [`decode`] needs of an object of that kind. All other fields are skipped and never in memory.
pub fn needed<'de, D: Deserializer<'de>>(kind: Kind, from: D) -> Result<Value, D::Error> {
    kind.needed().deserialize(from)
}

/// Decodes an object of that kind.
#[expect(clippy::needless_pass_by_value, reason = "the caller no longer needs the value")]
pub fn decode(kind: Kind, value: Value) -> Result<Object, ObjectError> {
    read(kind, &value)
}

/// The same, for a value that the caller needs afterwards.
pub fn read(kind: Kind, value: &Value) -> Result<Object, ObjectError> {
    if value["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        return Err(ObjectError::Nameless { object: called(kind, value) });
    }
    Ok(match kind {
        Kind::Node => Object::Node(raw::<node::RawNode>(kind, value)?.into()),
        Kind::Pod => Object::Pod(raw::<pod::RawPod>(kind, value)?.into()),
        Kind::AppWrapper => Object::AppWrapper(raw::<appwrapper::RawAppWrapper>(kind, value)?.into()),
        Kind::ResourceSlice => Object::ResourceSlice(raw::<slice::RawSlice>(kind, value)?.into()),
        Kind::ResourceClaim => Object::ResourceClaim(raw::<claim::RawClaim>(kind, value)?.into()),
        Kind::ResourceClaimTemplate => {
            Object::ResourceClaimTemplate(raw::<claim::RawClaimTemplate>(kind, value)?.into())
        }
        Kind::DeviceClass => Object::DeviceClass(raw::<class::RawDeviceClass>(kind, value)?.into()),
        Kind::DeviceTaintRule => Object::DeviceTaintRule(raw::<class::RawTaintRule>(kind, value)?.into()),
        Kind::ClusterQueue => Object::ClusterQueue(raw::<queues::RawClusterQueue>(kind, value)?.into()),
        Kind::LocalQueue => Object::LocalQueue(raw::<queues::RawLocalQueue>(kind, value)?.into()),
        Kind::Cohort => Object::Cohort(raw::<queues::RawCohort>(kind, value)?.into()),
        Kind::ResourceFlavor => Object::ResourceFlavor(raw::<flavor::RawResourceFlavor>(kind, value)?.into()),
        Kind::Workload => Object::Workload(raw::<workload::RawWorkload>(kind, value)?.into()),
    })
}

fn raw<T: DeserializeOwned>(kind: Kind, value: &Value) -> Result<T, ObjectError> {
    // Tracking the path takes as long as decoding, so it is done only for an object that is wrong.
    T::deserialize(value).or_else(|_| {
        let object = called(kind, value);
        serde_path_to_error::deserialize(value).map_err(|error| ObjectError::Field {
            object,
            field: error.path().to_string(),
            source: error.into_inner(),
        })
    })
}

/// A quantity of an object that could not be read, and counts as absent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{object}: field `{field}`: {why}; it counts as absent")]
pub struct UnreadableQuantity {
    /// Kind, namespace and name.
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub why: QuantityError,
}

/// The unreadable quantities of an object. Slow; for objects that have some ([`Object::unreadable`]).
pub fn unreadable(kind: Kind, value: &Value) -> Vec<UnreadableQuantity> {
    let mut found = Vec::new();
    find_unreadable(value, &mut String::new(), &mut |field, why| {
        found.push(UnreadableQuantity { object: called(kind, value), field: field.to_owned(), why });
    });
    found
}

/// The fields that contain lists of quantities; they have the same names in all kinds.
const QUANTITIES: [&str; 7] =
    ["requests", "limits", "capacity", "allocatable", "overhead", "allocatedResources", "resourceUsage"];
/// The fields that contain one quantity.
const QUOTAS: [&str; 3] = ["nominalQuota", "borrowingLimit", "lendingLimit"];

fn find_unreadable(value: &Value, path: &mut String, on_unreadable: &mut impl FnMut(&str, QuantityError)) {
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if length == 0 { "" } else { "." };
                path.push_str(dot);
                path.push_str(name);
                if let (true, Value::Object(list)) = (QUANTITIES.contains(&name.as_str()), field) {
                    for (resource, quantity) in list.iter().filter(|(name, _)| Resource::named(name).is_some()) {
                        if let Ok(Spelled(Err(why))) = Spelled::deserialize(quantity) {
                            on_unreadable(&format!("{path}[{resource}]"), why);
                        }
                    }
                } else if QUOTAS.contains(&name.as_str()) {
                    if let Ok(Spelled(Err(why))) = Spelled::deserialize(field) {
                        on_unreadable(path, why);
                    }
                } else {
                    find_unreadable(field, path, on_unreadable);
                }
                path.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                // Writing to a `String` cannot fail.
                let _ = write!(path, "[{at}]");
                find_unreadable(element, path, on_unreadable);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn called(kind: Kind, value: &Value) -> String {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{kind:?} {}", text("name")),
        namespace => format!("{kind:?} {namespace}/{}", text("name")),
    }
}
