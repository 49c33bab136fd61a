//! `cargo xtask bench-load`: what docs/benchmarks.md says of an aggregator under load, measured anew. The measuring is done by the
//! aggregator's benchmark of that name.

use anyhow::Result;
use clap::Args;
use xtask::workspace;

/// Measure what agents cost one aggregator: a generator process plays them, with TLS and a token each, all on loopback.
#[derive(Args)]
pub(crate) struct BenchLoad {
    /// How many there are; each takes a file in both processes
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Seconds between two reports of one
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
    /// How long it is measured
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Containers of each of a node's 40 pods that are listed, too; agents do so with `--report-cgroups all`
    #[arg(long, default_value_t = 0)]
    containers: usize,
    /// For how long as many reports are sent as can be, at the end
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
