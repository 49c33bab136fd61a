//! An object as a watch receives it: decoded immediately to our own small type, or to the reason why not. One invalid object never
//! ends a watch.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use mcad_accounting::object::{Kind, Object, decode, needed};
use serde::{Deserialize, Deserializer};

/// The kind that a type of [`Seen`] decodes.
pub(crate) trait SeenKind: Clone + Debug + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
}

macro_rules! kinds {
    ($($(#[$what:meta])* $seen:ident: $kind:ident,)*) => {
        $(
            $(#[$what])*
            #[derive(Clone, Debug)]
            pub(crate) enum $seen {}

            impl SeenKind for $seen {
                const KIND: Kind = Kind::$kind;
            }
        )*
    };
}

kinds! {
    /// Nodes.
    SeenNode: Node,
    /// Pods.
    SeenPod: Pod,
    /// AppWrappers of any version.
    SeenAppWrapper: AppWrapper,
    /// Devices that drivers offer.
    SeenSlice: ResourceSlice,
    /// Claims to devices.
    SeenClaim: ResourceClaim,
    /// Templates of claims.
    SeenTemplate: ResourceClaimTemplate,
    /// Classes of devices.
    SeenClass: DeviceClass,
    /// Rules that taint devices.
    SeenTaintRule: DeviceTaintRule,
    /// ClusterQueues.
    SeenClusterQueue: ClusterQueue,
    /// LocalQueues.
    SeenLocalQueue: LocalQueue,
    /// Cohorts.
    SeenCohort: Cohort,
    /// ResourceFlavors.
    SeenFlavor: ResourceFlavor,
    /// Workloads.
    SeenWorkload: Workload,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Seen<K> {
    /// The metadata that kube's watcher needs: name, namespace, resource version.
    meta: ObjectMeta,
    /// The object, or why it cannot be decoded.
    pub(super) object: Result<Object, String>,
    kind: PhantomData<K>,
}

impl<'de, K: SeenKind> Deserialize<'de> for Seen<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = needed(K::KIND, deserializer)?;
        // Only one version is watched at a time, so the last event of an object counts and its version is dropped: events have it, but
        // lists have it only for custom resources. It matters in dumps, where it decides which of two objects is newer.
        if K::KIND.group().is_some()
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("apiVersion");
        }
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        let object = decode(K::KIND, value).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            shortened(format!("{error}{cause}"))
        });
        Ok(Self { meta, object, kind: PhantomData })
    }
}

/// The longest reason: it quotes the invalid value, which may be as long as the object.
const SENTENCE_BYTES: usize = 1024;

fn shortened(mut sentence: String) -> String {
    if sentence.len() > SENTENCE_BYTES {
        sentence.truncate(sentence.floor_char_boundary(SENTENCE_BYTES));
        sentence.push('…');
    }
    sentence
}

impl<K: SeenKind> Resource for Seen<K> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use mcad_accounting::cluster::{Cluster, Event, Source};
    use serde_json::{Value, json};

    use super::*;

    fn seen(json: &str) -> Seen<SeenPod> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_object_of_another_shape_is_seen_as_an_error_and_keeps_its_resource_version() {
        let seen = seen(r#"{"metadata": {"name": "p", "namespace": "n", "resourceVersion": "7"}, "spec": 3}"#);
        assert!(seen.object.clone().unwrap_err().contains("spec"), "{:?}", seen.object);
        assert_eq!(seen.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_said_of_an_object_is_short_however_long_it_is() {
        let long = "ä".repeat(100_000);
        let seen = seen(&format!(r#"{{"metadata": {{"name": "p", "namespace": "n"}}, "spec": "{long}"}}"#));
        let said = seen.object.unwrap_err();
        assert!(
            said.len() < SENTENCE_BYTES + 4 && said.starts_with("Pod n/p: field `spec`") && said.ends_with('…'),
            "{said}"
        );
    }

    #[test]
    fn what_has_no_name_is_an_error_too() {
        for json in ["{}", r#"{"metadata": null}"#, r#"{"metadata": {"name": ""}}"#, "[]", "null", "1"] {
            assert!(seen(json).object.is_err(), "{json}");
        }
    }

    #[test]
    fn of_a_slice_what_is_told_last_counts_whichever_version_says_so() {
        let slice = |version: &str| {
            let json = format!(r#"{{{version} "metadata": {{"name": "s"}}, "spec": {{"driver": "d"}}}}"#);
            serde_json::from_str::<Seen<SeenSlice>>(&json).unwrap().object.unwrap()
        };
        let listed = slice("");
        assert_eq!(slice(r#""apiVersion": "resource.k8s.io/v1","#), listed);
        assert_eq!(slice(r#""apiVersion": "resource.k8s.io/v1beta1","#), listed);
    }

    #[test]
    fn after_kueue_goes_back_to_an_older_version_the_objects_of_that_version_count() {
        let queue = |version: &str, cohort: Value| {
            let json =
                json!({"apiVersion": format!("kueue.x-k8s.io/{version}"), "metadata": {"name": "q"}, "spec": cohort});
            serde_json::from_value::<Seen<SeenClusterQueue>>(json).unwrap().object.unwrap()
        };
        let mut cluster = Cluster::watched();
        let newer = queue("v1beta2", json!({"cohortName": "before"}));
        cluster.apply(Event::Reset(Source::ClusterQueues, vec![newer]));
        let older = queue("v1beta1", json!({"cohort": "after"}));
        cluster.apply(Event::Reset(Source::ClusterQueues, vec![older]));
        let cohorts: Vec<_> = cluster.cluster_queues().map(|queue| &*queue.cohort).collect();
        assert_eq!(cohorts, ["after"]);
    }

    #[test]
    fn a_pod_is_seen_as_our_own() {
        let seen = seen(r#"{"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "x"}}"#);
        assert!(matches!(seen.object, Ok(Object::Pod(_))), "{:?}", seen.object);
    }
}
