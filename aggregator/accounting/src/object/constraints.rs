//! Where a pod may run: node selector, required node affinity, tolerations.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{CONDITIONS, Excess, VALUES, over};
use super::meta::nullable;
use super::node::{Effect, Node, Taint};

/// What a pod requires of a node, apart from amounts. Preferences are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Constraints {
    selector: Vec<(String, String)>,
    /// One of the terms must match; `None` if no affinity is required.
    affinity: Option<Vec<Term>>,
    tolerations: Vec<Toleration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Term {
    #[serde(deserialize_with = "nullable")]
    match_expressions: Vec<Requirement>,
    #[serde(deserialize_with = "nullable")]
    match_fields: Vec<Requirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
struct Requirement {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    operator: String,
    #[serde(deserialize_with = "nullable")]
    values: Vec<String>,
}

/// A Kubernetes `NodeSelector`, for example of the nodes from which a device can be used: one of the terms must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelector {
    #[serde(deserialize_with = "nullable")]
    node_selector_terms: Vec<Term>,
}

/// A toleration of a pod or of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(crate) struct Toleration {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    operator: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    effect: String,
}

/// The nodes that are still candidates while conditions are checked.
pub(crate) trait Candidates: Clone {
    /// Keeps nodes for whose label with that key the condition holds. The condition receives `None` for a node without the label.
    fn retain_by_label(&mut self, key: &str, holds: impl Fn(Option<&str>) -> bool);
    /// Keeps nodes for whose name the condition holds.
    fn retain_by_name(&mut self, holds: impl Fn(Option<&str>) -> bool);
    /// Removes all nodes.
    fn clear(&mut self);
    /// Adds the nodes of `other`.
    fn extend(&mut self, other: &Self);
}

impl Constraints {
    /// Whether the node's labels and name match selector and affinity.
    pub fn select(&self, node: &Node) -> bool {
        let mut candidate = Candidate { node, there: true };
        self.retain(&mut candidate);
        candidate.there
    }

    /// Keeps the nodes whose labels and names match selector and affinity.
    pub(crate) fn retain(&self, candidates: &mut impl Candidates) {
        for (key, value) in &self.selector {
            candidates.retain_by_label(key, |actual| actual == Some(value));
        }
        let Some(terms) = &self.affinity else { return };
        let before = candidates.clone();
        candidates.clear();
        for term in terms {
            let mut of_term = before.clone();
            term.retain(&mut of_term);
            candidates.extend(&of_term);
        }
    }

    /// These constraints and `added`: both must hold.
    pub(crate) fn with(&self, added: &Added) -> Self {
        let mut both = self.clone();
        both.selector.extend(added.node_selector.iter().map(|(key, value)| (key.clone(), value.clone())));
        both.tolerations.extend(added.tolerations.iter().cloned());
        both
    }

    /// Whether they are too many to be checked on every node; `None` if they are not.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let (conditions, values) = self.size();
        over(conditions, CONDITIONS, Excess::Conditions).or(over(values, VALUES, Excess::Conditions))
    }

    /// The number of conditions, and the number of values in them.
    pub(crate) fn size(&self) -> (usize, usize) {
        let terms = self.affinity.iter().flatten();
        let (mut conditions, mut values) = (self.selector.len() + self.tolerations.len(), 0);
        for term in terms {
            let requirements = term.match_expressions.iter().chain(&term.match_fields);
            conditions += 1 + term.match_expressions.len() + term.match_fields.len();
            values += requirements.map(|requirement| requirement.values.len()).sum::<usize>();
        }
        (conditions, values)
    }

    /// The length of all texts in them, in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        let selector = self.selector.iter().map(|(key, value)| key.len() + value.len());
        let requirements =
            self.affinity.iter().flatten().flat_map(|t| t.match_expressions.iter().chain(&t.match_fields));
        let affinity =
            requirements.map(|r| r.key.len() + r.operator.len() + r.values.iter().map(String::len).sum::<usize>());
        let tolerations = self.tolerations.iter().map(Toleration::text_bytes);
        selector.chain(affinity).chain(tolerations).sum()
    }

    /// Whether the labels of a flavor satisfy selector and affinity, as far as these name keys of such labels. `label`
    /// returns the value of a key. A term of the affinity that names none of the keys holds for every flavor.
    ///
    /// Source: kubernetes-sigs/kueue `pkg/scheduler/flavorassigner`, `flavorSelector`.
    pub(crate) fn select_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let selected = self.selector.iter().all(|(key, value)| label(key).is_none_or(|actual| actual == value));
        let known = |term: &'_ Term| term.match_expressions.iter().any(|one| label(&one.key).is_some());
        let holds = |term: &Term| {
            let mut named = term.match_expressions.iter().filter_map(|one| Some((one, label(&one.key)?)));
            named.all(|(one, actual)| one.holds(Some(actual)))
        };
        let terms = self.affinity.as_deref().unwrap_or_default();
        selected && (terms.is_empty() || !terms.iter().all(known) || terms.iter().any(holds))
    }

    /// Whether a pod with these constraints tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }
}

impl NodeSelector {
    /// Whether a node's labels and name match one of the terms.
    pub fn selects(&self, node: &Node) -> bool {
        let satisfies = |term: &Term| {
            let mut candidate = Candidate { node, there: true };
            term.retain(&mut candidate);
            candidate.there
        };
        self.node_selector_terms.iter().any(satisfies)
    }

    /// The node that it selects by name, if it selects exactly one and has no other condition.
    pub fn only_node(&self) -> Option<&str> {
        let [term] = &self.node_selector_terms[..] else { return None };
        match (&term.match_expressions[..], &term.match_fields[..]) {
            ([], [Requirement { key, operator, values }]) if key == "metadata.name" && operator == "In" => {
                match &values[..] {
                    [name] => Some(name),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The number of conditions and values.
    pub(crate) fn size(&self) -> usize {
        let of_term = |term: &Term| {
            let requirements = term.match_expressions.iter().chain(&term.match_fields);
            1 + requirements.map(|requirement| 1 + requirement.values.len()).sum::<usize>()
        };
        self.node_selector_terms.iter().map(of_term).sum()
    }
}

/// One node that may be a candidate.
#[derive(Clone)]
struct Candidate<'a> {
    node: &'a Node,
    there: bool,
}

impl Candidates for Candidate<'_> {
    fn retain_by_label(&mut self, key: &str, holds: impl Fn(Option<&str>) -> bool) {
        self.there = self.there && holds(self.node.label(key));
    }

    fn retain_by_name(&mut self, holds: impl Fn(Option<&str>) -> bool) {
        self.there = self.there && holds(Some(&self.node.name));
    }

    fn clear(&mut self) {
        self.there = false;
    }

    fn extend(&mut self, other: &Self) {
        self.there |= other.there;
    }
}

impl Term {
    /// A term without requirements matches no node.
    fn retain(&self, candidates: &mut impl Candidates) {
        if self.match_expressions.is_empty() && self.match_fields.is_empty() {
            candidates.clear();
        }
        for requirement in &self.match_expressions {
            candidates.retain_by_label(&requirement.key, |actual| requirement.holds(actual));
        }
        for requirement in &self.match_fields {
            candidates.retain_by_name(|name| requirement.key == "metadata.name" && requirement.holds(name));
        }
    }
}

impl Requirement {
    fn holds(&self, actual: Option<&str>) -> bool {
        let listed = |actual: &str| self.values.iter().any(|value| value == actual);
        match self.operator.as_str() {
            "In" => actual.is_some_and(listed),
            "NotIn" => !actual.is_some_and(listed),
            "Exists" => actual.is_some(),
            "DoesNotExist" => actual.is_none(),
            "Gt" => self.numbers(actual).is_some_and(|(actual, bound)| actual > bound),
            "Lt" => self.numbers(actual).is_some_and(|(actual, bound)| actual < bound),
            _ => false,
        }
    }

    fn numbers(&self, actual: Option<&str>) -> Option<(i64, i64)> {
        let [bound] = &self.values[..] else { return None };
        Some((actual?.parse().ok()?, bound.parse().ok()?))
    }
}

impl Toleration {
    /// How long its texts are.
    pub(crate) fn text_bytes(&self) -> usize {
        self.key.len() + self.operator.len() + self.value.len() + self.effect.len()
    }

    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || Effect::named(&self.effect) == taint.effect)
            && (self.key.is_empty() || *self.key == *taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                // An empty key is only valid with Exists.
                "" | "Equal" => !self.key.is_empty() && *self.value == *taint.value,
                _ => false,
            }
    }
}

/// What a queue adds to a pod set when it admits the pod set (`podSetInfos`). It does not admit a pod set whose own selector contradicts
/// this.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Added {
    #[serde(deserialize_with = "nullable")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
}

impl Added {
    /// What a flavor adds: the labels of its nodes, and tolerations.
    pub(crate) fn of_flavor(labels: &[(Arc<str>, Arc<str>)], tolerations: &[Toleration]) -> Self {
        let node_selector = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Self { node_selector, tolerations: tolerations.to_vec() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.node_selector.is_empty() && self.tolerations.is_empty()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RawConstraints {
    #[serde(deserialize_with = "nullable")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    affinity: RawAffinity,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawAffinity {
    node_affinity: Option<RawNodeAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawNodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<RawNodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawNodeSelector {
    #[serde(deserialize_with = "nullable")]
    node_selector_terms: Vec<Term>,
}

impl From<RawConstraints> for Constraints {
    fn from(raw: RawConstraints) -> Self {
        let required = raw.affinity.node_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
        Self {
            selector: raw.node_selector.into_iter().collect(),
            affinity: required.map(|selector| selector.node_selector_terms),
            tolerations: raw.tolerations,
        }
    }
}
