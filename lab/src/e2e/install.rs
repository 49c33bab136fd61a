//! Installs and removes as users do: `kubectl apply -k`, twice, and `kubectl delete -k`. Also writes the overlay that
//! this node needs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::workspace;

use super::base::NAMESPACE;
use super::kubectl::{Cluster, get, items, kubectl};
use super::network::SERVICE;
use super::node::Gpus;
use super::wait::until;

/// Longer than the minute between two updates of a ConfigMap by kubelet, for a busy machine.
pub(super) const START_S: u64 = 150;

/// Writes a kustomization on top of another one into a folder, and returns its name.
pub(super) fn write_overlay(folder: &Path, base: &Path, patches: &Value) -> Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let real = |path: &Path| std::fs::canonicalize(path).with_context(|| format!("there is no {}", path.display()));
    let (folder, base) = (real(folder)?, real(base)?);
    // kustomize accepts folders only by a relative path.
    let base = format!("{}{}", "../".repeat(folder.components().count() - 1), base.strip_prefix("/")?.display());
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base], "patches": patches,
    });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(folder.display().to_string())
}

/// What this node needs, and shorter times: a fifth of each shipped time. The agent's patches, then the aggregator's.
fn of_this_node() -> [Vec<Value>; 2] {
    let agent = vec![
        // `network` resolves names: kubelet has no cluster DNS here.
        json!({"op": "add", "path": "/spec/template/spec/dnsPolicy", "value": "None"}),
        json!({"op": "add", "path": "/spec/template/spec/dnsConfig", "value": {"nameservers": [SERVICE]}}),
        argument("--interval=2s"),
    ];
    [agent, ["--lease-duration=6", "--handover=6"].map(argument).into()]
}

/// Adds an argument to a container's command line.
fn argument(word: &str) -> Value {
    json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": word})
}

fn overlay_of(folder: &Path, [agent, aggregator]: [Vec<Value>; 2]) -> Result<String> {
    let patches = json!([
        {"target": {"kind": "DaemonSet"}, "patch": Value::from(agent).to_string()},
        {"target": {"kind": "Deployment"}, "patch": Value::from(aggregator).to_string()},
    ]);
    write_overlay(folder, &workspace::root().join("deploy/base"), &patches)
}

/// The base with shorter times, and nothing else.
pub(super) fn shortened(folder: &Path) -> Result<PathBuf> {
    overlay_of(folder, of_this_node()).map(PathBuf::from)
}

/// Writes the overlay. It changes no right, mount, token or Service of the base: only what this node needs, and the
/// times.
fn overlay(work: &Path) -> Result<String> {
    let [mut agent, mut aggregator] = of_this_node();
    agent.extend([
        // fake-nvml, which replaces the library that the container runtime mounts on a real node.
        json!({"op": "add", "path": "/spec/template/spec/volumes/-",
         "value": {"name": "nvml", "hostPath": {"path": Gpus::folder(work), "type": "Directory"}}}),
        json!({"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-",
         "value": {"name": "nvml", "mountPath": "/host/nvml", "readOnly": true}}),
        argument("--nvml=/host/nvml/libnvidia-ml.so.1"),
    ]);
    // Each pod separately, so that it can be compared with its cgroup.
    aggregator.push(argument("--pod-metrics"));
    overlay_of(&work.join("overlay"), [agent, aggregator])
}

/// Applies it, and waits until every agent has the CA certificate of its aggregator.
pub(super) fn install(work: &Path) -> Result<String> {
    let overlay = overlay(work)?;
    kubectl(&["apply", "-k", &overlay])?;
    until("both replicas and the agent run", START_S, || {
        let pods = get(&["pods", "-n", NAMESPACE])?;
        let running = items(&pods).filter(|pod| pod["status"]["phase"] == "Running").count();
        ensure!(running == 3, "{running} of 3 pods run");
        let bundle = get(&["configmap", "mcad-aggregator-bundle", "-n", NAMESPACE])?;
        ensure!(bundle["data"]["ca.crt"].is_string(), "there is no bundle yet");
        Ok(())
    })?;
    // kubelet updates a mounted ConfigMap about once a minute, and when the pod changes.
    kubectl(&["annotate", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=mcad-agent", "e2e/look=now"])?;
    Ok(overlay)
}

/// Checks that applying it again changes nothing.
pub(super) fn again(cluster: &Cluster, overlay: &str) -> Result<()> {
    let said = cluster.kubectl(&["apply", "-k", overlay])?;
    let changed: Vec<_> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    ensure!(changed.is_empty(), "applying the overlay again changes {}", changed.join(", "));
    ensure!(said.lines().count() > 15, "kubectl apply lists too few objects: {said}");
    Ok(())
}

/// Removes it, and checks that nothing is left.
pub(super) fn remove(overlay: &str, before: &[String]) -> Result<()> {
    kubectl(&["delete", "-k", overlay, "--wait=true", "--timeout=120s"])?;
    until("nothing is left", 60, || {
        let left: Vec<_> = everything()?.into_iter().filter(|name| !before.contains(name)).collect();
        if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
    })
}

/// Objects that kubelet creates by itself, at any time.
const OF_KUBELET: [&str; 2] = ["Lease/kube-node-lease/", "CSINode//"];

/// Every object of every kind that can be listed, except events and kubelet's own, as kind, namespace and name.
pub(super) fn everything() -> Result<Vec<String>> {
    let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<_> =
        kinds.lines().filter(|kind| !["events", "componentstatuses"].iter().any(|it| kind.starts_with(it))).collect();
    let template = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{'\\n'}{end}";
    let names = kubectl(&["get", "-A", &kinds.join(","), template]).context("cannot list everything")?;
    let others = names.lines().filter(|name| !OF_KUBELET.iter().any(|of| name.starts_with(of)));
    Ok(others.map(str::to_owned).collect())
}
