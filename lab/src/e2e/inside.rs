//! The sequence of tests on the node, from the first object to the last.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use xtask::interrupts::Interrupts;

use super::api_server::ApiServer;
use super::existing::{self, Existing};
use super::kubectl::{Cluster, kubectl};
use super::node::Gpus;
use super::prometheus::{Pace, Prometheus};
use super::{audit, chain, disturbances, install, network, rights, workload};

/// Prints the elapsed time and the next step.
struct Progress(Instant);

impl Progress {
    fn now(&self, what: &str) {
        println!("e2e: [{:>3} s] {what}", self.0.elapsed().as_secs());
    }
}

/// Runs everything, in this work folder.
pub(super) fn run(work: &Path) -> Result<()> {
    // An interrupt ends all waiting.
    let _interrupts = Interrupts::take_over()?;
    let progress = Progress(Instant::now());
    let targets = work.join("targets");
    std::fs::create_dir_all(&targets)?;

    progress.now("network, API server with an audit log, CRDs of AppWrappers");
    network::route(&work.join("node"))?;
    let mut api_server = ApiServer::take_over(work)?;
    network::serve(targets.clone())?;
    workload::define()?;
    let mut gpus = Gpus::prepare(work)?;
    let before = install::everything()?;

    progress.now("kubectl apply -k");
    let overlay = install::install(work)?;
    let granted = audit::granted()?;
    let prometheus = Prometheus::start(work, &targets, Pace::Shortened)?;
    let reports = ["mcad_node_agent_up{node=\"localhost\"} == 1".to_owned()];
    prometheus.holds("the agent reports", install::START_S, &reports)?;

    progress.now("GPUs and workloads");
    gpus.advertise(work)?;
    workload::create()?;
    progress.now("all metrics, in PromQL");
    chain::holds(&prometheus)?;
    progress.now("CPU time by owner against the cgroups' own counters");
    chain::cpu_by_owner(&prometheus)?;
    progress.now("rights of the agent's process");
    rights::check(&Cluster::default(), &rights::agent()?)?;
    progress.now("kubectl apply -k, again");
    install::again(&Cluster::default(), &overlay)?;
    disturbances::quiet(&prometheus)?;

    progress.now("the agent hangs, and is killed");
    disturbances::agent(&prometheus)?;
    progress.now("the leader is killed");
    disturbances::leader(&prometheus)?;
    progress.now("a GPU breaks");
    disturbances::gpu(&prometheus, &gpus)?;
    progress.now("the API server is stopped");
    disturbances::api_server(&prometheus, &mut api_server)?;
    progress.now("the CA is deleted");
    disturbances::authority(&prometheus)?;
    progress.now("an AppWrapper is deleted while its pod runs");
    disturbances::appwrapper(&prometheus)?;
    progress.now("the node is drained");
    disturbances::drain(&prometheus)?;
    disturbances::nothing_else_fired(&prometheus)?;
    gpus.check()?;

    progress.now("rights of the aggregator, by the audit log");
    audit::check(&ApiServer::audit_log(work), &granted)?;
    progress.now("kubectl delete -k");
    workload::delete_all()?;
    install::remove(&overlay, &before)?;

    progress.now("the same as on an existing cluster, with `--context`");
    workload::create_waiting()?;
    existing::run(&existing_like(work)?, &mut |what| progress.now(what))?;
    workload::delete_all()?;
    progress.now("all checks passed");
    Ok(())
}

/// This node as an existing cluster: by the name of its context, with a separate overlay.
fn existing_like(work: &Path) -> Result<Existing> {
    let context = kubectl(&["config", "current-context"])?.trim().to_owned();
    let overlay = install::shortened(&work.join("overlay-of-somebody"))?;
    Ok(Existing { context, overlay, images: [None, None], pace: Pace::Shortened, work: work.join("existing") })
}
