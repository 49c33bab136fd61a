//! Removes from an AppWrapper's spec everything that accounting does not need: a dump may leave the cluster, and a spec may contain any
//! object, for example a Secret, and any environment variables.
//!
//! Owns which fields stay. They are listed by name; everything else is removed, so that unforeseen fields are removed, too. Maps and lists
//! keep their places, because paths lead through them.
use serde_json::Value;

/// Fields that are kept as they are: amounts, and what decides where a pod may go.
const WHOLE: [&str; 10] = [
    "affinity",
    "labels",
    "limits",
    "nodeSelector",
    "overhead",
    "ports",
    "requests",
    "resourceClaims",
    "schedulingSpec",
    "tolerations",
];

/// Numbers and words that are kept: what an object is, how many there are, and how its pods are placed.
const WORDS: [&str; 20] = [
    "apiVersion",
    "completions",
    "hostNetwork",
    "kind",
    "minAvailable",
    "minavailable",
    "name",
    "namespace",
    "nodeName",
    "parallelism",
    "path",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "replicas",
    "request",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "suspend",
];

/// Fields that are removed with all their content, whatever names it has.
const GONE: [&str; 12] = [
    "annotations",
    "args",
    "binaryData",
    "command",
    "data",
    "env",
    "envFrom",
    "managedFields",
    "rayStartParams",
    "stringData",
    "volumeMounts",
    "volumes",
];

/// Removes what is not needed from the value.
pub fn bare(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                let name = name.as_str();
                let is_nested = field.is_object() || field.is_array();
                if GONE.contains(&name) {
                    return false;
                }
                if is_nested && !WHOLE.contains(&name) {
                    bare(field);
                }
                is_nested || WORDS.contains(&name)
            });
        }
        Value::Array(elements) => elements.iter_mut().for_each(bare),
        // An element keeps its place, because paths contain indices.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *value = Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_needed_stays_where_it_is_and_no_secret_does() {
        let mut spec = json!({"priority": 3, "secretWord": "x", "components": [
            {"podSets": [{"replicas": 2, "path": "template.spec.groups[1].template"}],
             "template": {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n", "annotations": {"name": "x"}},
                "spec": {"groups": ["x", {"template": {"spec": {"nodeSelector": {"a": "b"}, "containers": [
                    {"name": "c", "image": "x", "env": [{"name": "TOKEN", "value": "x"}], "args": ["x"],
                     "resources": {"requests": {"cpu": "1"}, "claims": [{"name": "g"}]}}]}}}]}}},
            {"template": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"name": "x"}, "type": "x"}}]});
        bare(&mut spec);
        let left = json!({"priority": 3, "components": [
            {"podSets": [{"replicas": 2, "path": "template.spec.groups[1].template"}],
             "template": {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"},
                "spec": {"groups": [null, {"template": {"spec": {"nodeSelector": {"a": "b"}, "containers": [
                    {"name": "c", "resources": {"requests": {"cpu": "1"}, "claims": [{"name": "g"}]}}]}}}]}}},
            {"template": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}}]});
        assert_eq!(spec, left);
    }

    /// The AppWrappers of the worked clusters are decoded to the same without what is not needed.
    #[test]
    fn no_figure_rests_on_what_goes() {
        let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases");
        let mut seen = 0;
        for case in 1..=4 {
            let text = std::fs::read_to_string(cases.join(format!("{case}.yaml"))).unwrap();
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let items = documents.iter().flat_map(|document| document["items"].as_array().into_iter().flatten());
            let items = items.chain(&documents).filter(|item| item["kind"] == "AppWrapper");
            for item in items {
                let mut left = item.clone();
                bare(&mut left["spec"]);
                let decode = |value| crate::object::decode(crate::object::Kind::AppWrapper, value).unwrap();
                assert_eq!(decode(left), decode(item.clone()), "{item}");
                seen += 1;
            }
        }
        assert!(seen > 15, "only {seen} AppWrappers");
    }
}
