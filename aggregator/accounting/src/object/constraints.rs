//! Where a pod may go: node selector, required node affinity, tolerations.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::limits::{CONDITIONS, Excess, VALUES, over};
use super::meta::nullable;
use super::node::{Effect, Node, Taint};

/// What a pod demands of a node, amounts apart. Preferences are no constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Constraints {
    selector: Vec<(String, String)>,
    /// One of the terms must hold; absent: no affinity is required.
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
struct Toleration {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    operator: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    effect: String,
}

/// Nodes that are still in question, on which conditions are tried.
pub(crate) trait Candidates: Clone {
    /// Leaves those whose label of that key the condition holds for; absent: a node has no such label.
    fn retain_by_label(&mut self, key: &str, holds: impl Fn(Option<&str>) -> bool);
    /// Leaves those whose name the condition holds for.
    fn retain_by_name(&mut self, holds: impl Fn(Option<&str>) -> bool);
    /// Leaves none.
    fn clear(&mut self);
    /// Takes in what `other` has.
    fn extend(&mut self, other: &Self);
}

impl Constraints {
    /// Whether the node's labels and name satisfy selector and affinity.
    pub fn select(&self, node: &Node) -> bool {
        let mut candidate = Candidate { node, there: true };
        self.retain(&mut candidate);
        candidate.there
    }

    /// Leaves the nodes whose labels and names satisfy selector and affinity.
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

    /// These, and what is added to them: both must hold.
    pub(crate) fn with(&self, added: &Added) -> Self {
        let mut both = self.clone();
        both.selector.extend(added.node_selector.iter().map(|(key, value)| (key.clone(), value.clone())));
        both.tolerations.extend(added.tolerations.iter().cloned());
        both
    }

    /// Why they are too many to be tried on every node; absent: they are not.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let (conditions, values) = self.size();
        over(conditions, CONDITIONS, Excess::Conditions).or(over(values, VALUES, Excess::Conditions))
    }

    /// How many conditions they are, and how many values are in them.
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

    /// How long the texts in them are.
    pub(crate) fn text_bytes(&self) -> usize {
        let selector = self.selector.iter().map(|(key, value)| key.len() + value.len());
        let requirements =
            self.affinity.iter().flatten().flat_map(|t| t.match_expressions.iter().chain(&t.match_fields));
        let affinity =
            requirements.map(|r| r.key.len() + r.operator.len() + r.values.iter().map(String::len).sum::<usize>());
        let tolerations =
            self.tolerations.iter().map(|t| t.key.len() + t.operator.len() + t.value.len() + t.effect.len());
        selector.chain(affinity).chain(tolerations).sum()
    }

    /// Whether a pod under these constraints tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }
}

/// One node that may be in question.
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
    /// A term without requirements holds nowhere.
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
    fn tolerates(&self, taint: &Taint) -> bool {
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

/// What a queue adds to a pod set when it admits it (`podSetInfos`). It refuses one whose own selector says otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Added {
    #[serde(deserialize_with = "nullable")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
}

impl Added {
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
