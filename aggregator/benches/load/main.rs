//! Cost of 10,000 agents for one aggregator: `cargo xtask bench-load`, which is `cargo bench -p mcad-aggregator --bench load`.
//!
//! The aggregator is a separate process, as shipped, and requires tokens; this process plays the agents and the API server. All traffic
//! is on loopback.
#![allow(clippy::unwrap_used, reason = "what a benchmark can't go on without ends it")]
mod agent;
mod api_server;
mod objects;
mod process;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use std::time::{Duration, Instant};

use clap::Parser;
use prost::Message as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use agent::{Agent, Fleet, Sent};
use process::{Aggregator, Spent};
use support::{Times, begin, figure, spell};

/// The default scrape interval of Prometheus.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// Reports at the same time at the maximum rate: enough that this process is not the bottleneck.
const AT_ONCE: usize = 64;
/// See [`rest`]. It is part of every time from sent to accepted.
const REST: Duration = Duration::from_millis(2);
/// Self-metrics that count failures and must stay 0.
const REFUSED: &[&str] = &[
    "mcad_aggregator_reports_refused_total",
    "mcad_aggregator_reports_dropped_total",
    "mcad_aggregator_connections_refused_total",
];

/// Measure the cost of agents for one aggregator.
#[derive(Parser)]
struct Flags {
    /// Number of agents
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Seconds between two reports of an agent
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Duration of the measurement, in seconds
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Containers of each pod that are also listed, as agents do with `--report-cgroups all`
    #[arg(long, default_value_t = 0)]
    containers: usize,
    /// Duration of the measurement of the maximum rate, in seconds
    #[arg(long, default_value_t = 20)]
    rush: u64,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let flags = Flags::parse();
    raise_file_limit();
    // One thread: the other CPU is for the aggregator.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(rest).build().unwrap();
    runtime.block_on(measure(&flags));
}

/// Sleeps, so that answers arrive before this process waits for them. On one machine, the sender of an answer pays for waking the
/// receiver, a tenth of the cost of a report; real agents are on other machines.
fn rest() {
    std::thread::sleep(REST);
}

/// A connection takes one file in each of the two processes.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn measure(flags: &Flags) {
    let (agents, interval) = (flags.agents, Duration::from_secs(flags.interval));
    let bytes = report::report(1, 1, flags.containers, 10_000).encoded_len();
    begin(&format!(
        "load: {agents} agents of 8 GPUs and 40 pods, {} containers of each listed, {:.1} KB every {} s",
        flags.containers,
        bytes as f64 / 1e3,
        flags.interval,
    ));
    let aggregator = Arc::new(Aggregator::start(api_server::start(agents)));
    let fleet = Fleet::new(aggregator.reports, &aggregator.certificate, interval, flags.containers);
    let load = Load { agents, aggregator, fleet: Arc::new(fleet) };

    let began = Instant::now();
    while !load.look(Aggregator::is_ready).await {
        sleep(Duration::from_millis(100)).await;
    }
    figure("the first lists were taken in within", spell(began.elapsed()), "");
    let view = load.aggregator.resident_bytes();
    let fleet = load.once().await;
    let stored = load.aggregator.resident_bytes();
    let fleet = load.steady(fleet, flags).await;
    let resident = load.aggregator.resident_bytes();
    for (what, from, to, budget) in [
        ("resident, nodes and pods, each node", 0, view, "budget 40 KiB"),
        ("resident, a report stored and its token, each node", view, stored, "budget 32 KiB"),
        ("resident, its connection and the report before", stored, resident, "budget 48 KiB"),
        ("resident in all, each node", 0, resident, "budget 120 KiB"),
    ] {
        figure(what, format!("{:.1} KiB", to.saturating_sub(from) as f64 / 1024.0 / agents as f64), budget);
    }
    load.rush(fleet, Duration::from_secs(flags.rush)).await;
    let refused = load.look(|aggregator| aggregator.counted(REFUSED)).await;
    let totals = load.look(|aggregator| aggregator.counted(&["mcad_appwrapper_cpu_seconds_total{"]).len()).await;
    figure("AppWrappers whose pods' time was added up", totals, &format!("of {}", agents.div_ceil(report::NODES_EACH)));
    figure("refused, by what the aggregator counts", refused.len(), "budget 0");
    for line in refused {
        println!("    {line}");
    }
}

struct Load {
    agents: usize,
    aggregator: Arc<Aggregator>,
    fleet: Arc<Fleet>,
}

impl Load {
    /// Runs a slow query of the aggregator on a blocking thread.
    async fn look<T: Send + 'static>(&self, ask: impl FnOnce(&Aggregator) -> T + Send + 'static) -> T {
        let aggregator = Arc::clone(&self.aggregator);
        tokio::task::spawn_blocking(move || ask(&aggregator)).await.unwrap()
    }

    /// Two reports of every agent, each over a new connection that is closed again, so that no connection holds the
    /// memory that remains.
    async fn once(&self) -> Vec<Agent> {
        let mut agents: Vec<_> = (0..self.agents).map(Agent::new).collect();
        for round in ["first", "second"] {
            let (before, turns) = (self.aggregator.taken(), Arc::new(Semaphore::new(16)));
            let mut sending = JoinSet::new();
            for agent in agents {
                sending.spawn(agent.once(Arc::clone(&self.fleet), Arc::clone(&turns)));
            }
            agents = sending.join_all().await;
            let (cost, sent) = (self.aggregator.since(before), self.fleet.sent());
            let each = cost.cpu / u32::try_from(sent.accepted.len().max(1)).unwrap();
            figure(&format!("a {round} report over a new connection, CPU time"), spell(each), "");
            failures(&sent);
        }
        agents
    }

    async fn steady(&self, agents: Vec<Agent>, flags: &Flags) -> Vec<Agent> {
        let interval = self.fleet.interval;
        let (settle, window, scraped) = (interval * 2, Duration::from_secs(flags.seconds), SCRAPE_EVERY * 4);
        let began = Instant::now();
        let until = began + settle + window + scraped + interval * 2;
        let mut keeping_on = JoinSet::new();
        for agent in agents {
            keeping_on.spawn(agent.keep_on(Arc::clone(&self.fleet), until));
        }
        sleep(settle).await;
        failures(&self.fleet.sent());

        let (cost, sent) = self.window(sleep(window)).await;
        figure("receive path, of a core", percent(cost.share()), "budget 15 %");
        figure("  beside it the thread that fits", percent(cost.fit.as_secs_f64() / cost.elapsed.as_secs_f64()), "");
        accepted(&sent, &cost, "budget 50 ms");

        let (cost, sent) = self.window(self.scrapes(began + settle + window + scraped)).await;
        figure("with a scrape every 15 s, gzip, of a core", percent(cost.share()), "");
        accepted(&sent, &cost, "");

        self.fleet.cut.send_modify(|cut| *cut += 1);
        let (cost, sent) = self.window(sleep(interval)).await;
        figure("after all connections were cut, for an interval, of a core", percent(cost.share()), "");
        accepted(&sent, &cost, "");
        figure("  connections made anew", sent.connected.len(), "");
        figure("  most of them within a second", busiest(&sent), "");
        if !sent.connected.is_empty() {
            let took = Times::new(sent.connected.iter().map(|(_, took)| *took).collect());
            figure("  to connect, TLS included, 99 % are below", spell(took.quantile(0.99)), "");
        }
        keeping_on.join_all().await
    }

    async fn scrapes(&self, until: Instant) {
        let mut next = Instant::now();
        while next < until {
            let (took, bytes) = self
                .look(|aggregator| {
                    let began = Instant::now();
                    let answer = aggregator.get("/metrics", "gzip");
                    (began.elapsed(), answer.len())
                })
                .await;
            figure("  a scrape", format!("{}, {:.1} MB", spell(took), bytes as f64 / 1e6), "");
            next += SCRAPE_EVERY;
            sleep_until(next.min(until).into()).await;
        }
    }

    /// Reports at the maximum rate.
    async fn rush(&self, agents: Vec<Agent>, time: Duration) {
        let (turns, until) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now() + time);
        let mut hurrying = JoinSet::new();
        for agent in agents {
            hurrying.spawn(agent.hurry(Arc::clone(&self.fleet), Arc::clone(&turns), until));
        }
        let (cost, sent) = self.window(async { drop(hurrying.join_all().await) }).await;
        figure("maximum rate: the aggregator's share of a core", percent(cost.share()), "");
        accepted(&sent, &cost, "");
        let most = sent.accepted.len() as f64 / cost.cpu.as_secs_f64();
        figure("  reports a second that one core takes at most", format!("{most:.0}"), "");
    }

    /// The cost and the sent reports while `meanwhile` runs.
    async fn window(&self, meanwhile: impl Future<Output = ()>) -> (Spent, Sent) {
        drop(self.fleet.sent());
        let before = self.aggregator.taken();
        meanwhile.await;
        (self.aggregator.since(before), self.fleet.sent())
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn accepted(sent: &Sent, cost: &Spent, budget: &str) {
    let (count, seconds) = (sent.accepted.len(), cost.elapsed.as_secs_f64());
    let megabytes = sent.bytes as f64 / 1e6 / seconds;
    figure("  accepted, a second", format!("{:.0}, {megabytes:.1} MB", count as f64 / seconds), "");
    if count > 0 {
        let times = Times::new(sent.accepted.clone());
        figure("  CPU time, each", spell(cost.cpu / u32::try_from(count).unwrap()), "");
        figure("  from sent to accepted, median", spell(times.quantile(0.5)), "");
        figure("  99 % are below", spell(times.quantile(0.99)), budget);
    }
    failures(sent);
}

fn failures(sent: &Sent) {
    for (why, count) in &sent.failed {
        figure(&format!("  not accepted: {why}"), count, "budget 0");
    }
}

/// The most connections within a second, over all seconds that begin at a multiple of a tenth.
fn busiest(sent: &Sent) -> usize {
    let Some(first) = sent.connected.iter().map(|(at, _)| *at).min() else { return 0 };
    let mut tenths = vec![0; 10];
    for (at, _) in &sent.connected {
        let tenth = (*at - first).as_millis() as usize / 100;
        tenths.resize(tenths.len().max(tenth + 10), 0);
        tenths[tenth] += 1;
    }
    tenths.windows(10).map(|second| second.iter().sum()).max().unwrap_or(0)
}
