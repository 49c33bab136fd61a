//! On the node, from the first object to the last: the order of it all.

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

/// Prints the time and what comes now.
struct Progress(Instant);

impl Progress {
    fn now(&self, what: &str) {
        println!("e2e: [{:>3} s] {what}", self.0.elapsed().as_secs());
    }
}

/// Everything, in this work folder.
pub(super) fn run(work: &Path) -> Result<()> {
    // Whatever is waited for ends then.
    let _interrupts = Interrupts::take_over()?;
    let progress = Progress(Instant::now());
    let targets = work.join("targets");
    std::fs::create_dir_all(&targets)?;

    progress.now("network, API server with an audit log, AppWrappers' definitions");
    network::route(&work.join("node"))?;
    let mut api_server = ApiServer::take_over(work)?;
    network::serve(targets.clone())?;
    workload::define()?;
    let mut gpus = Gpus::prepare(work)?;
    let before = install::everything()?;

    progress.now("kubectl apply -k");
    let overlay = install::install(work)?;
    let granted = audit::granted()?;
    let prometheus = Prometheus::start(work, &targets, Pace::Hurried)?;
    let reports = ["mcad_node_agent_up{node=\"localhost\"} == 1".to_owned()];
    prometheus.holds("the agent reports", install::START_S, &reports)?;

    progress.now("GPUs and work");
    gpus.advertise(work)?;
    workload::create()?;
    progress.now("the whole chain, by PromQL");
    chain::holds(&prometheus)?;
    progress.now("processor time by owner against the cgroups' own counters");
    chain::cpu_by_owner(&prometheus)?;
    progress.now("rights of the agent, seen from inside");
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
    progress.now("the API server is away");
    disturbances::api_server(&prometheus, &mut api_server)?;
    progress.now("the authority of certificates is deleted");
    disturbances::authority(&prometheus)?;
    progress.now("an AppWrapper is deleted half way");
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

    progress.now("the same as on a cluster that was there before, with `--context`");
    workload::create_waiting()?;
    existing::run(&existing_like(work)?, &mut |what| progress.now(what))?;
    workload::delete_all()?;
    progress.now("all of it holds");
    Ok(())
}

/// This node once more, as one that somebody else has started: by the name of its context, with an overlay of somebody's own.
fn existing_like(work: &Path) -> Result<Existing> {
    let context = kubectl(&["config", "current-context"])?.trim().to_owned();
    let overlay = install::hurried(&work.join("overlay-of-somebody"))?;
    Ok(Existing { context, overlay, images: [None, None], pace: Pace::Hurried, work: work.join("existing") })
}
