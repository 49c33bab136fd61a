//! An object as a watch sees it: decoded at once to our own small type, or to the sentence why not. One bad object never ends
//! a watch.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use mcad_accounting::object::{Kind, Object, decode, needed};
use serde::{Deserialize, Deserializer};

/// Which kind a type of [`Seen`] decodes.
pub(crate) trait SeenKind: Clone + Debug + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
}

/// Nodes.
#[derive(Clone, Debug)]
pub(crate) enum SeenNode {}
/// Pods.
#[derive(Clone, Debug)]
pub(crate) enum SeenPod {}
/// AppWrappers of any version.
#[derive(Clone, Debug)]
pub(crate) enum SeenAppWrapper {}

impl SeenKind for SeenNode {
    const KIND: Kind = Kind::Node;
}
impl SeenKind for SeenPod {
    const KIND: Kind = Kind::Pod;
}
impl SeenKind for SeenAppWrapper {
    const KIND: Kind = Kind::AppWrapper;
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Seen<K> {
    /// What kube's watcher goes by: name, namespace, resource version, and no more.
    meta: ObjectMeta,
    /// The object, or why it can't be one.
    pub(super) object: Result<Object, String>,
    kind: PhantomData<K>,
}

impl<'de, K: SeenKind> Deserialize<'de> for Seen<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = needed(K::KIND, deserializer)?;
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

/// So much of a sentence is said: what is wrong is quoted in it, and may be as long as the object.
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
    fn a_pod_is_seen_as_our_own() {
        let seen = seen(r#"{"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "x"}}"#);
        assert!(matches!(seen.object, Ok(Object::Pod(_))), "{:?}", seen.object);
    }
}
