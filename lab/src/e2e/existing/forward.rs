//! Ports of pods on this machine, by `kubectl port-forward`: it goes through kubelet, so neither a network policy nor
//! the cluster's network can block it. Runs these processes, and writes their addresses as Prometheus targets.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::child::Child;

use crate::e2e::base::NAMESPACE;
use crate::e2e::kubectl::{Cluster, items};

/// Long enough for a distant API server.
const START: Duration = Duration::from_secs(30);
/// The possible replicas, each with the name of its process.
const REPLICAS: [&str; 3] = ["forward-replica-1", "forward-replica-2", "forward-replica-3"];

/// The running processes. They end when this is dropped.
pub(super) struct Forwards(Vec<Child>);

impl Forwards {
    /// An error if one has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Child::check)
    }
}

/// Forwards all replicas of the aggregator, because one of them is the leader, and one agent, for its self-metrics.
pub(super) fn to_replicas_and_an_agent(cluster: &Cluster, work: &Path, targets: &Path) -> Result<Forwards> {
    std::fs::create_dir_all(targets).with_context(|| format!("cannot create {}", targets.display()))?;
    let pods =
        |program: &str| cluster.get(&["pods", "-n", NAMESPACE, "-l", &format!("app.kubernetes.io/name={program}")]);
    let (replicas, agents) = (pods("mcad-aggregator")?, pods("mcad-agent")?);
    ensure!(items(&replicas).count() <= REPLICAS.len(), "more than {} replicas of the aggregator", REPLICAS.len());
    let mut forwards = Vec::new();
    let mut endpoints = Vec::new();
    for (pod, name) in items(&replicas).zip(REPLICAS) {
        let target = forward(cluster, work, name, pod, 10910, &mut forwards)?;
        endpoints.push(json!({"targets": [target], "labels": {
            "__meta_kubernetes_service_name": "mcad-aggregator", "__meta_kubernetes_endpoint_port_name": "metrics"}}));
    }
    let agent = items(&agents).next().context("there is no agent")?;
    let target = forward(cluster, work, "forward-agent", agent, 10912, &mut forwards)?;
    let agent = json!([{"targets": [target], "labels": {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "mcad-agent",
        "__meta_kubernetes_pod_container_port_name": "metrics",
        "__meta_kubernetes_pod_node_name": agent["spec"]["nodeName"]}}]);
    for (role, found) in [("endpoints", Value::from(endpoints)), ("pod", agent)] {
        std::fs::write(targets.join(format!("{role}.json")), found.to_string())?;
    }
    Ok(Forwards(forwards))
}

/// Forwards one port of one pod, and returns its local address.
fn forward(
    cluster: &Cluster,
    work: &Path,
    name: &'static str,
    pod: &Value,
    port: u16,
    forwards: &mut Vec<Child>,
) -> Result<String> {
    let pod = format!("pod/{}", pod["metadata"]["name"].as_str().context("a pod without a name")?);
    let port = format!(":{port}");
    let command = cluster.command(&["port-forward", "--address=127.0.0.1", "-n", NAMESPACE, &pod, &port]);
    let mut child = Child::start(name, command, work)?;
    let said =
        child.wait_for_line("Forwarding from 127.0.0.1:", START).with_context(|| format!("cannot reach {pod}"))?;
    forwards.push(child);
    Ok(format!("127.0.0.1:{}", said.split(' ').next().unwrap_or_default()))
}
