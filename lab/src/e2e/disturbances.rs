//! Breaks things one after another and checks which alerts fire, which metrics change, and that everything recovers.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use super::api_server::ApiServer;
use super::base::NAMESPACE;
use super::chain::{self, gpus};
use super::kubectl::{get, kubectl};
use super::node::{self, GPUS, Gpus, Plugin};
use super::prometheus::Prometheus;
use super::rights;
use super::wait::until;
use super::workload::{ASKED, TRAIN};

/// The longest `for` of an alert is 20 s here; values are seconds old.
const ALERT_S: u64 = 90;
/// A restarted container waits 10 s, and then 20.
const RECOVERY_S: u64 = 120;

/// The only alerts that may fire.
const EXPECTED: [&str; 4] = ["McadAgentSilent", "McadGpuLost", "McadNoLeader", "McadPhantomGpus"];

/// Waits until exactly these alerts fire. Fails at once if another one fires.
fn fire(prometheus: &Prometheus, alerts: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = alerts.iter().map(|&alert| alert.to_owned()).collect();
    until(&format!("exactly these alerts fire: {alerts:?}"), ALERT_S, || {
        let firing = prometheus.firing()?;
        if let Some(other) = firing.difference(&expected).next() {
            return Ok(Err(anyhow!("alert {other} fires, but must not")));
        }
        ensure!(firing == expected, "these alerts fire: {firing:?}");
        Ok(Ok(()))
    })??;
    println!("e2e:   fires: {}", alerts.join(", "));
    Ok(())
}

/// Waits until no alert fires.
pub(super) fn quiet(prometheus: &Prometheus) -> Result<()> {
    until("no alert fires", RECOVERY_S, || {
        let firing = prometheus.firing()?;
        ensure!(firing.is_empty(), "these alerts fire: {firing:?}");
        Ok(())
    })
}

/// Checks that no other alert fired at any time.
pub(super) fn nothing_else_fired(prometheus: &Prometheus) -> Result<()> {
    let fired = prometheus.fired()?;
    let expected: BTreeSet<String> = EXPECTED.map(str::to_owned).into();
    ensure!(fired == expected, "these alerts fired: {fired:?}; expected: {expected:?}");
    Ok(())
}

/// The agent hangs, its reports stop, and it is killed. Kubelet restarts it.
pub(super) fn agent(prometheus: &Prometheus) -> Result<()> {
    let agent = rights::agent()?;
    agent.signal(Signal::STOP)?;
    let silent = ["mcad_node_agent_up == 0", "absent(mcad_node_used)", "absent(mcad_gpu_info)"].map(str::to_owned);
    prometheus.holds("the agent is silent", ALERT_S, &silent)?;
    // From kubelet's declaration.
    prometheus.holds(
        "the installed GPUs are those that kubelet declares",
        ALERT_S,
        &gpus("installed", "", GPUS as f64),
    )?;
    fire(prometheus, &["McadAgentSilent"])?;
    agent.signal(Signal::KILL)?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// The leader is killed; the other replica becomes the leader and has all state.
pub(super) fn leader(prometheus: &Prometheus) -> Result<()> {
    let seconds = format!("mcad_appwrapper_cpu_seconds_total{{appwrapper=\"{TRAIN}\"}}");
    let before = prometheus.value(&seconds)?;
    let speaks = prometheus.query("mcad_aggregator_leader == 1")?;
    let instance = speaks.first().and_then(|it| it.labels["instance"].as_str()).context("there is no leader")?;
    let ip = instance.split(':').next().unwrap_or_default();
    let replicas = node::with_word("--report-listen=0.0.0.0:10911");
    let of_ip = |process: &&node::Process| {
        let environment = process.file("environ").unwrap_or_default();
        environment.split('\0').any(|variable| variable == format!("POD_IP={ip}"))
    };
    replicas.iter().find(of_ip).with_context(|| format!("no replica has the pod IP {ip}"))?.signal(Signal::KILL)?;
    let other = [format!("mcad_aggregator_leader{{instance!=\"{instance}\"}} == 1")];
    prometheus.holds("the other replica is the leader", RECOVERY_S, &other)?;
    let total = [format!("{seconds} >= {before}")];
    prometheus.holds("totals did not decrease", RECOVERY_S, &total)?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// The API server is stopped until an alert fires.
pub(super) fn api_server(prometheus: &Prometheus, server: &mut ApiServer) -> Result<()> {
    server.kill()?;
    let nobody = ["absent(mcad_cluster_installed)", "max(mcad_aggregator_leader) == 0"].map(str::to_owned);
    prometheus.holds("no replica is the leader", ALERT_S, &nobody)?;
    fire(prometheus, &["McadNoLeader"])?;
    server.start()?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// A free GPU falls off the bus: first only NVML knows, then the device plugin does, then it is back.
pub(super) fn gpu(prometheus: &Prometheus, pretended: &Gpus) -> Result<()> {
    let free = prometheus.query("mcad_gpu_info unless on (gpu) mcad_gpu_assigned")?;
    let uuid = free.first().and_then(|it| it.labels["gpu"].as_str()).context("no GPU is free")?;
    let less_one = GPUS as f64 - 1.0;
    pretended.lose(uuid, Plugin::DoesNot)?;
    let broken =
        [gpus("healthy", "", less_one), gpus("phantom", "", 1.0), gpus("allocatable", "", GPUS as f64)].concat();
    prometheus.holds("kubelet advertises a GPU that is lost", ALERT_S, &broken)?;
    fire(prometheus, &["McadGpuLost", "McadPhantomGpus"])?;
    pretended.lose(uuid, Plugin::Notices)?;
    let noticed = [gpus("allocatable", "", less_one), gpus("withheld", ",reason=\"lost\"", 1.0), gpus("free", "", 0.0)];
    prometheus.holds("kubelet does not declare the lost GPU as allocatable", ALERT_S, &noticed.concat())?;
    prometheus.holds("no lost GPU is advertised", ALERT_S, &["sum(mcad_cluster_phantom) == 0".to_owned()])?;
    pretended.mend()?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// The AppWrapper is deleted while its pod runs; then the pod is deleted, too.
pub(super) fn appwrapper(prometheus: &Prometheus) -> Result<()> {
    let [(_, train), (_, notebook), _] = ASKED;
    kubectl(&["delete", "appwrappers.workload.codeflare.dev", TRAIN, "--wait=true", "--timeout=30s"])?;
    let gone = format!("absent({{__name__=~\"mcad_appwrapper_.+\",appwrapper=\"{TRAIN}\"}})");
    let held = gpus("requested", ",owner=\"appwrapper\"", train as f64);
    prometheus.holds("the AppWrapper is gone, but its pod is not", ALERT_S, &[&[gone][..], &held].concat())?;
    kubectl(&["delete", "pod", TRAIN, "--wait=true", "--timeout=60s"])?;
    let released =
        [gpus("requested", ",owner=\"appwrapper\"", 0.0), gpus("free", "", (GPUS - notebook) as f64)].concat();
    prometheus.holds("the GPUs of the deleted pod are free", ALERT_S, &released)?;
    quiet(prometheus)
}

/// The CA of the aggregator's certificates is deleted. The aggregator creates a new one with the rights that it has.
pub(super) fn authority(prometheus: &Prometheus) -> Result<()> {
    let objects = ["secret/mcad-aggregator-authority", "configmap/mcad-aggregator-bundle"];
    kubectl(&[&["delete", "-n", NAMESPACE], &objects[..]].concat())?;
    for object in objects {
        until(&format!("{object} exists again"), RECOVERY_S, || {
            let found = get(&[object, "-n", NAMESPACE])?;
            ensure!(found["data"].as_object().is_some_and(|data| !data.is_empty()), "{object} is empty");
            Ok(())
        })?;
    }
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// All workloads of the node except the monitoring are evicted; then the node accepts pods again.
pub(super) fn drain(prometheus: &Prometheus) -> Result<()> {
    // There is no other node for the replicas.
    let all_but_ours = "--pod-selector=app.kubernetes.io/part-of!=mcad-metrics";
    kubectl(&["drain", "localhost", "--ignore-daemonsets", "--force", all_but_ours, "--timeout=60s"])?;
    let all = GPUS as f64;
    let drained = [gpus("withheld", ",reason=\"cordoned\"", all), gpus("free", "", 0.0), gpus("admissible", "", 0.0)];
    let node = "mcad_nodes{state=\"cordoned\"} == 1".to_owned();
    prometheus.holds("the node is drained", ALERT_S, &[&[node][..], &drained.concat()].concat())?;
    kubectl(&["uncordon", "localhost"])?;
    prometheus.holds("all GPUs of the node are free", ALERT_S, &gpus("free", "", all))?;
    quiet(prometheus)
}
