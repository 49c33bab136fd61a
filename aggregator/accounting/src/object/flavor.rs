//! A ResourceFlavor of Kueue, decoded: which nodes belong to it, and which pods may get it.
use std::sync::Arc;

use serde::Deserialize;
use std::collections::BTreeMap;

use super::constraints::{Added, Constraints, Toleration};
use super::limits::{CONDITION_BYTES, CONDITIONS, Excess, LABELS, TAINTS, over};
use super::meta::{Meta, nullable, rank};
use super::needed::Needed::{self, Fields, Whole};
use super::node::{Node, RawTaint, Taint};
use super::queues::too_long;

/// A ResourceFlavor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceFlavor {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// How new the version is that this was read from.
    pub rank: u8,
    /// The labels of its nodes, in order of key.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Taints of its nodes: only pods that tolerate them get the flavor.
    pub taints: Box<[Taint]>,
    /// What Kueue adds to the pods that get the flavor.
    tolerations: Box<[Toleration]>,
    /// Why it is left out. `None` if it is not.
    pub excess: Option<Excess>,
}

impl ResourceFlavor {
    /// Whether a node is one of the flavor's nodes.
    pub fn matches(&self, node: &Node) -> bool {
        self.labels.iter().all(|(key, value)| node.label(key) == Some(value))
    }

    /// Whether a taint keeps no pod of this flavor off a node.
    pub fn passes(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint)) || self.taints.contains(taint)
    }

    /// The constraints of pods that get it.
    #[must_use]
    pub fn constrain(&self, pods: &Constraints) -> Constraints {
        pods.with(&Added::of_flavor(&self.labels, &self.tolerations))
    }

    /// Whether pods with these constraints may get it.
    ///
    /// Source: kubernetes-sigs/kueue `pkg/scheduler/flavorassigner`, `checkFlavorForPodSets`.
    pub fn takes(&self, pods: &Constraints) -> bool {
        let tolerated = |taint: &&Taint| {
            pods.tolerates(taint) || self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
        };
        let label = |key: &str| {
            let at = self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
            Some(&*self.labels[at].1)
        };
        self.taints.iter().filter(|taint| taint.effect.repels()).all(|taint| tolerated(&taint))
            && pods.select_labels(label)
    }
}

/// The fields of [`RawResourceFlavor`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", Fields(&[("name", Whole), ("uid", Whole), ("resourceVersion", Whole)])),
    ("spec", Fields(&[("nodeLabels", Whole), ("nodeTaints", Whole), ("tolerations", Whole)])),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawResourceFlavor {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    #[serde(deserialize_with = "nullable")]
    node_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    node_taints: Vec<RawTaint>,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
}

impl From<RawResourceFlavor> for ResourceFlavor {
    fn from(raw: RawResourceFlavor) -> Self {
        let RawResourceFlavor { api_version, metadata, spec } = raw;
        let labels = over(spec.node_labels.len(), LABELS, Excess::Labels);
        let taints = over(spec.node_taints.len(), TAINTS, Excess::Labels);
        let tolerations = over(spec.tolerations.len(), CONDITIONS, Excess::Conditions);
        let bytes = spec.tolerations.iter().map(Toleration::text_bytes).sum::<usize>()
            + spec.node_labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let bytes = over(bytes, CONDITION_BYTES, Excess::Conditions);
        Self {
            rank: rank(&api_version),
            excess: labels.or(taints).or(tolerations).or(bytes).or(too_long(&[&metadata.name])),
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            labels: spec.node_labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            taints: spec.node_taints.into_iter().map(Taint::from).collect(),
            tolerations: spec.tolerations.into(),
        }
    }
}
