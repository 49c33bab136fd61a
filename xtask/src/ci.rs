//! `cargo xtask ci`: all checks that a change must pass, exactly as CI runs them, with the time of each stage.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{build_ebpf, deny, lab, run, test, workspace};

/// How long CI may take in total. When a run comes close to this, find out which stage got slower.
const BUDGET_MINUTES: f64 = 75.0;

/// Run all checks that a change must pass, as CI does.
///
/// Stages, cheapest first: fmt (rustfmt), ebpf (the eBPF programs), deny (licences, bans, sources, advisories), clippy
/// (no warnings), docs (no warnings), run (`cargo xtask run` for ten seconds, and in a terminal), fuzz (two minutes),
/// e2e (`cargo xtask e2e`), test (`cargo xtask test`). Stops at the first stage that fails, and prints the minutes of
/// each.
#[derive(Args)]
pub(crate) struct Ci {
    /// Run only these stages, in this order
    #[arg(value_name = "STAGE")]
    stages: Vec<Stage>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    Fmt,
    Ebpf,
    Deny,
    Clippy,
    Docs,
    Run,
    Fuzz,
    E2e,
    Test,
}

impl Ci {
    pub(crate) fn run(self) -> Result<()> {
        let stages = if self.stages.is_empty() { Stage::value_variants().to_vec() } else { self.stages };
        let mut times = Vec::new();
        let mut outcome = Ok(());
        for stage in stages {
            println!("ci: {stage:?}");
            let started = Instant::now();
            outcome = stage.run().with_context(|| format!("stage {stage:?}"));
            times.push((stage, started.elapsed()));
            if outcome.is_err() {
                break;
            }
        }
        print!("{}", table(&times));
        outcome
    }
}

impl Stage {
    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => {
                let check = |words: &[&str]| {
                    let checked = workspace::run(&mut workspace::cargo(words));
                    checked.context("run the same command without --check to fix it")
                };
                check(&["fmt", "--all", "--check"])?;
                check(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])
            }
            Self::Ebpf => build_ebpf::BuildEbpf::default().run(),
            Self::Deny => deny::Deny::default().run(),
            Self::Clippy => {
                let words = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
                workspace::run(&mut workspace::cargo(&words))
            }
            Self::Docs => {
                let words = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
                workspace::run(workspace::cargo(&words).env("RUSTDOCFLAGS", "--deny warnings"))
            }
            Self::Run => {
                workspace::build_all()?;
                run::Run::briefly().run()?;
                run::Run::briefly_in_a_terminal()
            }
            Self::Fuzz => lab::run("fuzz", &["--briefly"]),
            Self::Test => test::Test::default().run(),
            Self::E2e => lab::run("e2e", &["--no-build"]),
        }
    }
}

/// Minutes of each stage, and in total.
fn table(times: &[(Stage, Duration)]) -> String {
    let minutes = |time: &Duration| time.as_secs_f64() / 60.0;
    let lines =
        times.iter().map(|(stage, time)| format!("ci: {:<8}{:>6.1} min\n", format!("{stage:?}"), minutes(time)));
    let all: Duration = times.iter().map(|(_, time)| *time).sum();
    format!("{}ci: total   {:>6.1} min of {BUDGET_MINUTES:.0}\n", lines.collect::<String>(), minutes(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_minutes_by_stage_and_in_all() {
        let times = [(Stage::Fmt, Duration::from_secs(3)), (Stage::Clippy, Duration::from_secs(90))];
        assert_eq!(table(&times), "ci: Fmt        0.1 min\nci: Clippy     1.5 min\nci: total      1.6 min of 75\n");
    }
}
