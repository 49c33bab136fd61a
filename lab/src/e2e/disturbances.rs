//! Things that break, one after another: which alerts fire, which figures change, and that all of it recovers.

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

/// The longest `for` that is waited for is 20 s here; figures are seconds old.
const ALERT_S: u64 = 90;
/// A container that is started again waits 10 s, and then 20.
const RECOVERY_S: u64 = 120;

/// What fires in all of it, and nothing else does.
const EXPECTED: [&str; 4] = ["McadAgentSilent", "McadGpuLost", "McadNoLeader", "McadPhantomGpus"];

/// Waits until exactly these fire. Another one ends it at once.
fn fire(prometheus: &Prometheus, alerts: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = alerts.iter().map(|&alert| alert.to_owned()).collect();
    until(&format!("{alerts:?} fire"), ALERT_S, || {
        let firing = prometheus.firing()?;
        if let Some(other) = firing.difference(&expected).next() {
            return Ok(Err(anyhow!("{other} fires, and should not")));
        }
        ensure!(firing == expected, "{firing:?} fire");
        Ok(Ok(()))
    })??;
    println!("e2e:   fires: {}", alerts.join(", "));
    Ok(())
}

/// Waits until nothing fires.
pub(super) fn quiet(prometheus: &Prometheus) -> Result<()> {
    until("no alert fires", RECOVERY_S, || {
        let firing = prometheus.firing()?;
        ensure!(firing.is_empty(), "{firing:?} fire");
        Ok(())
    })
}

/// At no time did another alert fire, not even between two looks.
pub(super) fn nothing_else_fired(prometheus: &Prometheus) -> Result<()> {
    let fired = prometheus.fired()?;
    let expected: BTreeSet<String> = EXPECTED.map(str::to_owned).into();
    ensure!(fired == expected, "{fired:?} fired, and should have: {expected:?}");
    Ok(())
}

/// It hangs, is silent, and is killed. Kubelet starts it again.
pub(super) fn agent(prometheus: &Prometheus) -> Result<()> {
    let agent = rights::agent()?;
    agent.signal(Signal::STOP)?;
    let silent = ["mcad_node_agent_up == 0", "absent(mcad_node_used)", "absent(mcad_gpu_info)"].map(str::to_owned);
    prometheus.holds("the agent is silent", ALERT_S, &silent)?;
    // By kubelet's word.
    prometheus.holds("kubelet's word stands", ALERT_S, &gpus("installed", "", GPUS as f64))?;
    fire(prometheus, &["McadAgentSilent"])?;
    agent.signal(Signal::KILL)?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// It is killed; the other one takes over, and knows all.
pub(super) fn leader(prometheus: &Prometheus) -> Result<()> {
    let seconds = format!("mcad_appwrapper_cpu_seconds_total{{appwrapper=\"{TRAIN}\"}}");
    let before = prometheus.value(&seconds)?;
    let speaks = prometheus.query("mcad_aggregator_leader == 1")?;
    let instance = speaks.first().and_then(|it| it.labels["instance"].as_str()).context("nobody leads")?;
    let ip = instance.split(':').next().unwrap_or_default();
    let replicas = node::with_word("--report-listen=0.0.0.0:10911");
    let of_ip = |process: &&node::Process| {
        let environment = process.file("environ").unwrap_or_default();
        environment.split('\0').any(|variable| variable == format!("POD_IP={ip}"))
    };
    replicas.iter().find(of_ip).with_context(|| format!("no replica has {ip}"))?.signal(Signal::KILL)?;
    let other = [format!("mcad_aggregator_leader{{instance!=\"{instance}\"}} == 1")];
    prometheus.holds("the other replica leads", RECOVERY_S, &other)?;
    let total = [format!("{seconds} >= {before}")];
    prometheus.holds("totals did not fall", RECOVERY_S, &total)?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// It is away until an alert says so.
pub(super) fn api_server(prometheus: &Prometheus, server: &mut ApiServer) -> Result<()> {
    server.kill()?;
    let nobody = ["absent(mcad_cluster_installed)", "max(mcad_aggregator_leader) == 0"].map(str::to_owned);
    prometheus.holds("nobody speaks", ALERT_S, &nobody)?;
    fire(prometheus, &["McadNoLeader"])?;
    server.start()?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// A free one falls off the bus: first NVML alone knows, then the device plugin does, then it is back.
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
    prometheus.holds("kubelet knows", ALERT_S, &noticed.concat())?;
    prometheus.holds("no GPU is advertised in vain", ALERT_S, &["sum(mcad_cluster_phantom) == 0".to_owned()])?;
    pretended.mend()?;
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// It is deleted while its pod runs; then the pod ends, too.
pub(super) fn appwrapper(prometheus: &Prometheus) -> Result<()> {
    let [(_, train), (_, notebook), _] = ASKED;
    kubectl(&["delete", "appwrappers.workload.codeflare.dev", TRAIN, "--wait=true", "--timeout=30s"])?;
    let gone = format!("absent({{__name__=~\"mcad_appwrapper_.+\",appwrapper=\"{TRAIN}\"}})");
    let held = gpus("requested", ",owner=\"appwrapper\"", train as f64);
    prometheus.holds("it is gone, and its pod is not", ALERT_S, &[&[gone][..], &held].concat())?;
    kubectl(&["delete", "pod", TRAIN, "--wait=true", "--timeout=60s"])?;
    let released =
        [gpus("requested", ",owner=\"appwrapper\"", 0.0), gpus("free", "", (GPUS - notebook) as f64)].concat();
    prometheus.holds("its GPUs are free", ALERT_S, &released)?;
    quiet(prometheus)
}

/// What the aggregator's certificates rest on is deleted. It makes both anew, by the rights that it has.
pub(super) fn authority(prometheus: &Prometheus) -> Result<()> {
    let objects = ["secret/mcad-aggregator-authority", "configmap/mcad-aggregator-bundle"];
    kubectl(&[&["delete", "-n", NAMESPACE], &objects[..]].concat())?;
    for object in objects {
        until(&format!("{object} is there again"), RECOVERY_S, || {
            let found = get(&[object, "-n", NAMESPACE])?;
            ensure!(found["data"].as_object().is_some_and(|data| !data.is_empty()), "{object} is empty");
            Ok(())
        })?;
    }
    chain::holds(prometheus)?;
    quiet(prometheus)
}

/// All of the node's work is sent away, but what watches it; then it takes work again.
pub(super) fn drain(prometheus: &Prometheus) -> Result<()> {
    // There is no other node where a replica could go.
    let all_but_ours = "--pod-selector=app.kubernetes.io/part-of!=mcad-metrics";
    kubectl(&["drain", "localhost", "--ignore-daemonsets", "--force", all_but_ours, "--timeout=60s"])?;
    let all = GPUS as f64;
    let drained = [gpus("withheld", ",reason=\"cordoned\"", all), gpus("free", "", 0.0), gpus("admissible", "", 0.0)];
    let node = "mcad_nodes{state=\"cordoned\"} == 1".to_owned();
    prometheus.holds("the node is drained", ALERT_S, &[&[node][..], &drained.concat()].concat())?;
    kubectl(&["uncordon", "localhost"])?;
    prometheus.holds("all of it is free", ALERT_S, &gpus("free", "", all))?;
    quiet(prometheus)
}
