//! Checks the installation on an existing cluster, where nothing may be broken: existing objects are not changed,
//! nothing remains, and what is left out is printed.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::base::NAMESPACE;
use super::install;
use super::kubectl::{Cluster, items};
use super::prometheus::{Pace, Prometheus};
use super::rights;
use super::wait::until;

mod expected;
mod forward;

use forward::Forwards;

/// What can only be tested on our own node.
const LEFT_OUT: [&str; 5] = [
    "killing the agent, the leader and the API server, breaking a GPU, draining a node, deleting an AppWrapper",
    "which alerts fire after such failures: alerts that fire without them are printed, and are not failures",
    "workloads: no AppWrappers, no pods that use CPU or hold GPUs, and no CRDs are created",
    "CPU seconds against the cgroups' own counters, because the nodes' cgroups cannot be read from here",
    "the API server's audit log, which shows unused rights",
];

/// Images may have to be pulled from a distant registry.
const START_S: u64 = 300;
/// A minute until kubelet has mounted the aggregator's certificate, an interval, and a scrape or two.
const REPORTS_S: u64 = 180;
/// A leader that shuts down waits for one more scrape, a minute at most.
const REMOVAL: &str = "--timeout=180s";

/// What to install, and where.
pub(super) struct Existing {
    pub(super) context: String,
    pub(super) overlay: PathBuf,
    /// The agent's and the aggregator's image, if not the overlay's.
    pub(super) images: [Option<String>; 2],
    pub(super) pace: Pace,
    /// A folder for files; none of them is needed afterwards.
    pub(super) work: PathBuf,
}

impl Existing {
    /// With all times as they are shipped.
    pub(super) fn as_shipped(context: String, overlay: PathBuf, images: [Option<String>; 2], work: PathBuf) -> Self {
        Self { context, overlay, images, pace: Pace::Shipped, work }
    }
}

/// Installs, checks, removes. Once it has begun to install, it removes in any case.
pub(super) fn run(existing: &Existing, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let cluster = Cluster::of_context(existing.context.clone());
    for left_out in LEFT_OUT {
        println!("e2e:   not tested: {left_out}");
    }
    progress("checking that nothing of the installation exists");
    let overlay = overlay(existing)?;
    refuse(&cluster, &overlay)?;
    progress("kubectl apply -k");
    println!("e2e:   if this process is killed, run: kubectl --context {} delete -k {overlay}", existing.context);
    let mut watching = None;
    let outcome = installed(existing, &cluster, &overlay, progress, &mut watching);
    if outcome.is_err() {
        let words = existing.work.join("pods.log");
        println!("e2e:   the logs of its pods are in {}", words.display());
        let _full_disk = std::fs::write(&words, last_lines(&cluster));
    }
    progress("kubectl delete -k");
    let removed = remove(&cluster, &overlay);
    drop(watching);
    outcome.and(removed)
}

/// The overlay with these images.
fn overlay(existing: &Existing) -> Result<String> {
    let patches = ["DaemonSet", "Deployment"].iter().zip(&existing.images).filter_map(|(kind, image)| {
        let patch =
            json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image.as_ref()?}]);
        Some(json!({"target": {"kind": kind}, "patch": patch.to_string()}))
    });
    install::write_overlay(&existing.work.join("overlay"), &existing.overlay, &patches.collect())
}

/// Refuses, unless all objects are new, and in a namespace of their own.
fn refuse(cluster: &Cluster, overlay: &str) -> Result<()> {
    let there = present(cluster, overlay)?;
    ensure!(
        there.is_empty(),
        "these objects of the installation exist already, so nothing was done: {}",
        there.join(", ")
    );
    let rendered = cluster.kubectl(&["apply", "--dry-run=client", "-k", overlay, "-o", "json"])?;
    check_namespaces(&serde_json::from_str(&rendered).context("the output of kubectl is not JSON")?)
}

/// Everything that is deleted with the namespace must be ours.
fn check_namespaces(objects: &Value) -> Result<()> {
    let named = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let elsewhere: Vec<_> = items(objects)
        .filter(|object| object["metadata"]["namespace"].as_str().is_some_and(|namespace| namespace != NAMESPACE))
        .map(named)
        .collect();
    ensure!(elsewhere.is_empty(), "the overlay has objects outside of namespace {NAMESPACE}: {}", elsewhere.join(", "));
    let brings_its_own = |object: &Value| object["kind"] == "Namespace" && object["metadata"]["name"] == NAMESPACE;
    ensure!(items(objects).any(brings_its_own), "the overlay does not contain the namespace {NAMESPACE}");
    Ok(())
}

/// The objects of the overlay that exist.
fn present(cluster: &Cluster, overlay: &str) -> Result<Vec<String>> {
    let names = cluster.kubectl(&["get", "-k", overlay, "--ignore-not-found", "-o", "name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The scraping processes. They run until the removal is complete, because a leader that shuts down waits for one more
/// scrape.
type Watching = (Forwards, Prometheus);

/// From the first object to the last check.
fn installed(
    existing: &Existing,
    cluster: &Cluster,
    overlay: &str,
    progress: &mut dyn FnMut(&str),
    watching: &mut Option<Watching>,
) -> Result<()> {
    cluster.kubectl(&["apply", "-k", overlay])?;
    until("all of its pods run", START_S, || all_run(cluster))?;
    // kubelet updates a mounted ConfigMap about once a minute, and when the pod changes.
    let agents = "app.kubernetes.io/name=mcad-agent";
    cluster.kubectl(&["annotate", "pods", "-n", NAMESPACE, "-l", agents, "e2e/look=now"])?;

    progress("Prometheus, through kubectl port-forward");
    let targets = existing.work.join("targets");
    let forwards = forward::to_replicas_and_an_agent(cluster, &existing.work, &targets)?;
    let prometheus = Prometheus::start(&existing.work, &targets, existing.pace)?;
    let (forwards, prometheus) = watching.insert((forwards, prometheus));
    until("every node's agent reports", REPORTS_S, || {
        forwards.check()?;
        expected::every_node_reports(cluster, prometheus)
    })?;
    expected::say_sources(prometheus)?;
    progress("metrics of sections A to C and G in PromQL, compared with kubectl");
    until("the metrics have the expected values", REPORTS_S, || {
        forwards.check()?;
        expected::hold(cluster, prometheus)
    })?;
    until("every rule can be evaluated", 60, || {
        let sick = prometheus.sick_rules()?;
        ensure!(sick.is_empty(), "{}", sick.join(", "));
        Ok(())
    })?;
    let firing = prometheus.firing()?;
    println!("e2e:   alerts that fire: {firing:?}");

    progress("the admitted rights");
    rights::admitted(cluster)?;
    match rights::agent_of(cluster)? {
        Some(agent) => rights::check(cluster, &agent)?,
        None => println!(
            "e2e:   not tested: rights of the agent's process, because this machine is not a node of the cluster"
        ),
    }
    progress("kubectl apply -k, again");
    install::again(cluster, overlay)
}

/// Whether all pods run, or what they wait for. Whether they work is checked by their metrics: the readiness that an
/// old kubelet reports may be a minute late.
fn all_run(cluster: &Cluster) -> Result<()> {
    let sets = cluster.get(&["daemonsets,deployments", "-n", NAMESPACE])?;
    ensure!(items(&sets).count() > 1, "{NAMESPACE} has no DaemonSet and Deployment yet");
    let mut wanted = 0;
    for set in items(&sets) {
        let count = [&set["spec"]["replicas"], &set["status"]["desiredNumberScheduled"]];
        let count = count.iter().find_map(|count| count.as_u64()).filter(|&count| count > 0);
        wanted += count.with_context(|| format!("{} is not scheduled yet", set["metadata"]["name"]))?;
    }
    let pods = cluster.get(&["pods", "-n", NAMESPACE])?;
    let running = items(&pods).filter(|pod| pod["status"]["phase"] == "Running").count();
    ensure!(running as u64 == wanted, "{running} of {wanted} pods run; {}", waiting(&pods));
    Ok(())
}

/// The waiting pods, and their reasons.
fn waiting(pods: &Value) -> String {
    let of_pod = |pod: &Value| {
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let reasons: Vec<_> = containers
            .filter_map(|container| {
                let state = &container["state"]["waiting"];
                Some(format!("{} {}", state["reason"].as_str()?, state["message"].as_str().unwrap_or_default()))
            })
            .collect();
        let name = pod["metadata"]["name"].as_str()?;
        (!reasons.is_empty()).then(|| format!("{name}: {}", reasons.join(", ")))
    };
    let waiting: Vec<_> = items(pods).filter_map(of_pod).collect();
    if waiting.is_empty() { "none of its containers waits".to_owned() } else { waiting.join("; ") }
}

/// The pods' logs, for finding the cause of a failure.
fn last_lines(cluster: &Cluster) -> String {
    let ours = "app.kubernetes.io/part-of=mcad-metrics";
    let asked: [&[&str]; 3] = [
        &["get", "all", "-n", NAMESPACE, "-o", "wide"],
        &["describe", "pods", "-n", NAMESPACE],
        &["logs", "-n", NAMESPACE, "-l", ours, "--all-containers", "--prefix", "--tail=200", "--max-log-requests=50"],
    ];
    asked.iter().map(|words| cluster.kubectl(words).unwrap_or_else(|error| format!("{error:#}\n"))).collect()
}

/// Removes the installation, and checks what is left. Deleting the namespace also deletes objects that were created in
/// it meanwhile.
fn remove(cluster: &Cluster, overlay: &str) -> Result<()> {
    cluster
        .kubectl(&["delete", "-k", overlay, "--ignore-not-found", "--wait=true", REMOVAL])
        .with_context(|| format!("objects may be left; `kubectl delete -k {overlay}` removes them"))?;
    until("nothing is left", 60, || {
        let left = present(cluster, overlay)?;
        ensure!(left.is_empty(), "left: {}", left.join(", "));
        Ok(())
    })?;
    println!("e2e:   nothing is left but /var/lib/mcad-metrics on the nodes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lie_in_a_namespace_of_others_is_refused() {
        let object = |kind: &str, namespace: Option<&str>, name: &str| json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}});
        let own = object("Namespace", None, NAMESPACE);
        let check = |objects: &[Value]| check_namespaces(&json!({"items": objects}));
        check(&[own.clone(), object("Lease", Some(NAMESPACE), "x"), object("ClusterRole", None, "y")]).unwrap();
        let refused = check(&[own, object("Role", Some("kube-system"), "theirs")]).unwrap_err().to_string();
        assert!(refused.contains("theirs"), "{refused}");
        assert!(check(&[object("Lease", Some(NAMESPACE), "x")]).is_err(), "the namespace is somebody's");
    }

    #[test]
    fn a_pod_that_waits_says_for_what() {
        let state = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let pods = json!({"items": [
            {"metadata": {"name": "a"}, "status": {"containerStatuses": [{"state": state}]}},
            {"metadata": {"name": "b"}, "status": {"containerStatuses": [{"state": {"running": {}}}]}},
        ]});
        assert_eq!(waiting(&pods), "a: ImagePullBackOff no such image");
        assert_eq!(waiting(&json!({"items": []})), "none of its containers waits");
    }
}
