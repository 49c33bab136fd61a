//! `cargo xtask bench-load`: repeats the measurements of docs/benchmarks.md for an aggregator under load. The
//! aggregator's benchmark of that name does the measuring.

use anyhow::Result;
use clap::Args;
use xtask::workspace;

/// Measure the cost of many agents for one aggregator: a process simulates them on loopback, each with TLS and a token.
#[derive(Args)]
pub(crate) struct BenchLoad {
    /// Number of agents; each needs an open file in both processes
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Seconds between two reports of one agent
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
    /// How long to measure
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How many containers are listed for each of a node's 40 pods; agents list them with `--report-cgroups all`
    #[arg(long, default_value_t = 0)]
    containers: usize,
    /// How long, at the end, to send as many reports as possible
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    rush: u64,
}

impl BenchLoad {
    pub(crate) fn run(self) -> Result<()> {
        let Self { agents, interval, seconds, containers, rush } = self;
        let mut bench =
            workspace::cargo(&["bench", "--quiet", "--package", "mcad-aggregator", "--bench", "load", "--"]);
        bench.args(["--agents", &agents.to_string(), "--interval", &interval.to_string()]);
        bench.args(["--seconds", &seconds.to_string(), "--containers", &containers.to_string()]);
        bench.args(["--rush", &rush.to_string()]);
        workspace::run(&mut bench)
    }
}
