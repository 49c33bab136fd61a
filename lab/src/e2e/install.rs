//! Installing and removing, as people do it: `kubectl apply -k`, twice, and `kubectl delete -k`. Owns the overlay that this node
//! needs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::workspace;

use super::base::NAMESPACE;
use super::kubectl::{Cluster, get, items, kubectl};
use super::network::SERVICE;
use super::node::Gpus;
use super::wait::until;

/// Longer than kubelet's minute between two looks at a ConfigMap, on a busy machine.
pub(super) const START_S: u64 = 150;

/// Writes a kustomization over another one into a folder, and answers its name.
pub(super) fn write_overlay(folder: &Path, base: &Path, patches: &Value) -> Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let real = |path: &Path| std::fs::canonicalize(path).with_context(|| format!("there is no {}", path.display()));
    let (folder, base) = (real(folder)?, real(base)?);
    // kustomize takes folders by a relative path alone.
    let base = format!("{}{}", "../".repeat(folder.components().count() - 1), base.strip_prefix("/")?.display());
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base], "patches": patches,
    });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(folder.display().to_string())
}

/// What this node lacks, and the pace: a fifth of each time that is shipped. By kind: the agent's patches, the aggregator's.
fn of_this_node() -> [Vec<Value>; 2] {
    let agent = vec![
        // Names are answered by `network`: kubelet here has no cluster DNS to tell pods of.
        json!({"op": "add", "path": "/spec/template/spec/dnsPolicy", "value": "None"}),
        json!({"op": "add", "path": "/spec/template/spec/dnsConfig", "value": {"nameservers": [SERVICE]}}),
        argument("--interval=2s"),
    ];
    [agent, ["--lease-duration=6", "--handover=6"].map(argument).into()]
}

/// One more word on a container's command line.
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

/// The base, hurried, and nothing else.
pub(super) fn hurried(folder: &Path) -> Result<PathBuf> {
    overlay_of(folder, of_this_node()).map(PathBuf::from)
}

/// Writes the overlay. It changes no right, mount, token or Service of the base: only what this node lacks, and the pace.
fn overlay(work: &Path) -> Result<String> {
    let [mut agent, mut aggregator] = of_this_node();
    agent.extend([
        // The stand-in for NVML, which on a real node the runtime mounts.
        json!({"op": "add", "path": "/spec/template/spec/volumes/-",
         "value": {"name": "nvml", "hostPath": {"path": Gpus::folder(work), "type": "Directory"}}}),
        json!({"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-",
         "value": {"name": "nvml", "mountPath": "/host/nvml", "readOnly": true}}),
        argument("--nvml=/host/nvml/libnvidia-ml.so.1"),
    ]);
    // One by one, so that each can be compared with its cgroup.
    aggregator.push(argument("--pod-metrics"));
    overlay_of(&work.join("overlay"), [agent, aggregator])
}

/// Applies it, and waits until every agent has its aggregator's certificate.
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
    // kubelet looks at a mounted ConfigMap once a minute or so, and when something of the pod changes.
    kubectl(&["annotate", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=mcad-agent", "e2e/look=now"])?;
    Ok(overlay)
}

/// The same once more changes nothing.
pub(super) fn again(cluster: &Cluster, overlay: &str) -> Result<()> {
    let said = cluster.kubectl(&["apply", "-k", overlay])?;
    let changed: Vec<_> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    ensure!(changed.is_empty(), "applied a second time, it changes {}", changed.join(", "));
    ensure!(said.lines().count() > 15, "it applied nothing: {said}");
    Ok(())
}

/// Removes it, and looks for anything that is left.
pub(super) fn remove(overlay: &str, before: &[String]) -> Result<()> {
    kubectl(&["delete", "-k", overlay, "--wait=true", "--timeout=120s"])?;
    until("nothing is left", 60, || {
        let left: Vec<_> = everything()?.into_iter().filter(|name| !before.contains(name)).collect();
        if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
    })
}

/// What kubelet makes of itself, be it sooner or later.
const OF_KUBELET: [&str; 2] = ["Lease/kube-node-lease/", "CSINode//"];

/// Every object of every kind that can be listed, but events and kubelet's own, as kind, namespace and name.
pub(super) fn everything() -> Result<Vec<String>> {
    let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<_> =
        kinds.lines().filter(|kind| !["events", "componentstatuses"].iter().any(|it| kind.starts_with(it))).collect();
    let template = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{'\\n'}{end}";
    let names = kubectl(&["get", "-A", &kinds.join(","), template]).context("cannot list everything")?;
    let others = names.lines().filter(|name| !OF_KUBELET.iter().any(|of| name.starts_with(of)));
    Ok(others.map(str::to_owned).collect())
}
