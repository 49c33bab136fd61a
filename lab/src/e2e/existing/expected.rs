//! Compares `/metrics` with kubectl's output for a cluster: sections A to C and G of docs/metrics.md, as far as the API
//! objects determine them.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::e2e::amounts::{of_nodes, unrequested};
use crate::e2e::kubectl::{Cluster, items};
use crate::e2e::prometheus::Prometheus;

/// The cluster's objects, from kubectl.
struct Objects {
    nodes: Value,
    pods: Value,
    /// `None` if the cluster does not have this kind.
    appwrappers: Option<Vec<Value>>,
}

impl Objects {
    fn read(cluster: &Cluster) -> Result<Self> {
        let definitions = ["appwrappers.workload.codeflare.dev", "appwrappers.mcad.ibm.com"];
        let words = ["get", "crd", definitions[0], definitions[1], "--ignore-not-found", "-o", "name"];
        let defined = cluster.kubectl(&words)?;
        let mut appwrappers = None;
        for kind in definitions.iter().filter(|kind| defined.lines().any(|line| line.ends_with(*kind))) {
            let list = cluster.get(&[kind, "-A"])?;
            appwrappers.get_or_insert_with(Vec::new).extend(items(&list).cloned());
        }
        Ok(Self { nodes: cluster.get(&["nodes"])?, pods: cluster.get(&["pods", "-A"])?, appwrappers })
    }

    /// Names of nodes that are ready: agents run only on these.
    fn ready(&self) -> BTreeSet<String> {
        let ready = |node: &&Value| {
            let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        items(&self.nodes)
            .filter(ready)
            .filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned()))
            .collect()
    }
}

/// Checks that each ready node reports; otherwise lists the silent ones.
pub(super) fn every_node_reports(cluster: &Cluster, prometheus: &Prometheus) -> Result<()> {
    let nodes = cluster.get(&["nodes"])?;
    let all = items(&nodes).count();
    let ready = Objects { nodes, pods: Value::Null, appwrappers: None }.ready();
    let up = prometheus.query("mcad_node_agent_up == 1")?;
    let up: BTreeSet<_> = up.iter().filter_map(|sample| sample.labels["node"].as_str().map(str::to_owned)).collect();
    let silent: Vec<_> = ready.difference(&up).map(String::as_str).collect();
    ensure!(!ready.is_empty(), "no node is ready");
    ensure!(silent.is_empty(), "{} of {} nodes are silent: {}", silent.len(), ready.len(), silent.join(", "));
    println!("e2e:   {} agents report; {} of {all} nodes are ready", up.len(), ready.len());
    Ok(())
}

/// Prints the source of cgroups on each node, and how many nodes measure each resource: the first thing in which
/// clusters differ.
pub(super) fn say_sources(prometheus: &Prometheus) -> Result<()> {
    for sample in prometheus.query("mcad_cluster_nodes_measured")? {
        println!("e2e:   the use of {} is measured on {} nodes", sample.labels["resource"], sample.value);
    }
    for sample in prometheus.query("count by (source) (mcad_node_source{figure=\"cgroup\"})")? {
        println!("e2e:   cgroups are read by {} on {} nodes", sample.labels["source"], sample.value);
    }
    Ok(())
}

/// Checks all expressions at one time, because a cluster in use changes between two queries.
pub(super) fn hold(cluster: &Cluster, prometheus: &Prometheus) -> Result<()> {
    let objects = Objects::read(cluster)?;
    let expected = expected(&objects)?;
    for expression in &expected {
        if prometheus.query(expression)?.is_empty() {
            let found = prometheus.query("{__name__=~\"mcad_allocatable_.+|mcad_cluster_(capacity|allocatable)\"}")?;
            let found: Vec<_> = found.iter().map(|it| format!("{} {}", it.labels, it.value)).collect();
            bail!("{expression} does not hold; the values are {}", found.join("; "));
        }
    }
    println!("e2e:   {} expressions hold", expected.len());
    if objects.appwrappers.is_none() {
        println!("e2e:   not tested: section C, because the cluster has no kind AppWrapper");
    }
    Ok(())
}

/// Equality within the precision of floating point sums.
fn is(figure: &str, expected: f64) -> String {
    format!("abs({figure} - {expected}) <= {}", 1e-9 * expected.abs())
}

/// Comparisons, each of which must have a result.
fn expected(objects: &Objects) -> Result<Vec<String>> {
    let Objects { nodes, pods, appwrappers } = objects;
    let ready = objects.ready().len();
    // A: the view of the dispatcher.
    let mut expected = vec![
        is("mcad_allocatable_capacity_cpu", (unrequested(nodes, pods, "cpu")? * 1000.0).round()),
        is("mcad_allocatable_capacity_memory", unrequested(nodes, pods, "memory")?.ceil()),
        is("mcad_allocatable_capacity_gpu", unrequested(nodes, pods, "nvidia.com/gpu")?),
    ];
    // B: the amounts of the ladder that kubelets declare. Those that agents measure exist, and everything adds up.
    for (resource, label) in [("cpu", "cpu"), ("memory", "memory"), ("nvidia.com/gpu", "nvidia_com_gpu")] {
        for field in ["capacity", "allocatable"] {
            let sum = of_nodes(nodes, field, resource)?;
            if sum > 0.0 {
                expected.push(is(&format!("mcad_cluster_{field}{{resource=\"{label}\"}}"), sum));
            }
        }
    }
    let of = |resource: &str| format!("{{resource=\"{resource}\"}}");
    let (cpu, memory) = (of("cpu"), of("memory"));
    expected.extend([
        format!("sum(mcad_cluster_used{cpu}) > 0 and sum(mcad_cluster_used{cpu}) <= sum(mcad_cluster_installed{cpu})"),
        format!("mcad_cluster_nodes_measured{cpu} == {ready}"),
        // Absent if nodes count memory in cgroup v1.
        format!(
            "absent(mcad_cluster_used{memory}) or sum(mcad_cluster_used{memory}) <= sum(mcad_cluster_installed{memory})"
        ),
    ]);
    expected.extend([
        format!("count(mcad_node_capacity{{resource=\"cpu\"}}) == {}", items(nodes).count()),
        "(count(abs(mcad:cluster_unaccounted) > 1e-9 * mcad_cluster_installed) or vector(0)) == 0".to_owned(),
        "count(mcad:cluster_unaccounted) >= 2".to_owned(),
    ]);
    // C: AppWrappers.
    if let Some(appwrappers) = appwrappers {
        let of_first = |it: &&Value| it["spec"]["components"].is_null();
        // In any group: a name counts once in its namespace.
        let name = |it: &Value| (it["metadata"]["namespace"].to_string(), it["metadata"]["name"].to_string());
        let names: BTreeSet<_> = appwrappers.iter().map(name).collect();
        let of_first: BTreeSet<_> = appwrappers.iter().filter(of_first).map(name).collect();
        let or_none = |figure: &str, count: usize| format!("({figure} or vector(0)) == {count}");
        expected.extend([
            or_none("sum(mcad_appwrappers)", names.len()),
            or_none("count(mcad_appwrapper_info)", names.len()),
            or_none("count(mcad_appwrapper_requested{resource=\"cpu\"})", names.len()),
            or_none("sum(mcad_appwrappers_count)", of_first.len()),
        ]);
    }
    // G: which replica is the leader, and that no report is refused.
    expected.extend([
        "sum(mcad_aggregator_leader) == 1".to_owned(),
        "count(up{job=\"mcad-aggregator\"} == 1) == count(mcad_aggregator_leader)".to_owned(),
        "(sum(mcad_aggregator_reports_refused_total) or vector(0)) == 0".to_owned(),
        "max(mcad_node_report_age_seconds) < 60".to_owned(),
        "count(up{job=\"mcad-agent\"} == 1) == 1".to_owned(),
        "min(mcad_agent_ticks_total) > 0".to_owned(),
    ]);
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_those_of_the_objects_and_absent_kinds_are_not_asked_for() {
        let node = |name: &str, ready: &str| {
            json!({"metadata": {"name": name}, "spec": {}, "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "capacity": {"cpu": "4", "memory": "8Gi"}, "allocatable": {"cpu": "3500m", "memory": "7Gi"}}})
        };
        let nodes = json!({"items": [node("a", "True"), node("b", "Unknown")]});
        let appwrapper = |name: &str, spec: Value| json!({"metadata": {"namespace": "n", "name": name}, "spec": spec});
        let of_first = appwrapper("old", json!({}));
        let appwrappers = vec![of_first.clone(), of_first, appwrapper("new", json!({"components": []}))];
        let mut objects = Objects { nodes, pods: json!({"items": []}), appwrappers: Some(appwrappers) };
        assert_eq!(objects.ready(), ["a".to_owned()].into());
        let text = expected(&objects).unwrap().join("\n");
        for line in [
            "abs(mcad_allocatable_capacity_cpu - 7000) <= ",
            "abs(mcad_allocatable_capacity_gpu - 0) <= 0",
            "abs(mcad_cluster_capacity{resource=\"memory\"} - 17179869184) <= ",
            "mcad_cluster_nodes_measured{resource=\"cpu\"} == 1\n",
            "(sum(mcad_appwrappers) or vector(0)) == 2",
            "(sum(mcad_appwrappers_count) or vector(0)) == 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("mcad_cluster_capacity{resource=\"nvidia_com_gpu\"}"));
        objects.appwrappers = None;
        assert!(!expected(&objects).unwrap().join("\n").contains("mcad_appwrapper"));
    }
}
