//! `cargo xtask setup`: carries out the steps of `plan` until the eBPF build has everything it needs.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::facts;
use crate::plan::{Facts, Finding, Plan, Step, Toolchain, Way, finding, plan};
use crate::workspace;

/// Find or install what the eBPF build needs.
///
/// There are two ways; the first complete one is used:
///
///   1. Debian packages, installed as root: a rustc with a prebuilt `core` for BPF, and LLVM 22,
///      on which bpf-linker 0.13.0 is built once into the cache.
///   2. rustup: a nightly with rust-src, and bpf-linker 0.10.3, which loads that nightly's LLVM.
///
/// The linker's LLVM must be at least as new as rustc's, else it can't read what rustc writes; setup
/// checks this. What is installed already is not changed, so you can run setup at any time; if
/// nothing is missing, it takes less than a second.
///
/// Cache: $XDG_CACHE_HOME/mcad-metrics, else ~/.cache/mcad-metrics. You may delete it.
#[derive(Args, Default)]
#[command(verbatim_doc_comment)]
pub(crate) struct Setup {
    /// Only report, change nothing; the exit code is 0 if a way is complete
    #[arg(long)]
    check: bool,
    /// Consider only this way
    #[arg(long)]
    way: Option<Way>,
}

impl Setup {
    pub(crate) fn run(self) -> Result<()> {
        let ways = self.way.map_or_else(|| vec![Way::Debian, Way::Rustup], |way| vec![way]);
        if !self.check {
            ensure_ways(&ways)?;
        }
        let facts = facts::read()?;
        for way in &ways {
            print!("{}", report(*way, &finding(&facts, *way)));
        }
        match plan(&facts, &ways) {
            Plan::Use(toolchain) => {
                println!("ready: `cargo xtask build-ebpf` uses {}", toolchain.way);
                Ok(())
            }
            Plan::Do(way, _) => bail!("no way is complete; `cargo xtask setup` completes {way}"),
            Plan::GiveUp => {
                bail!("no way is complete; run the commands of one way above, then `cargo xtask setup` again")
            }
        }
    }
}

/// How long setup takes on two cores.
pub(crate) const TAKES: &str = "two minutes if bpf-linker has to be built, else a second";

/// The toolchain of the eBPF build. Installs it if needed, and prints nothing if nothing is missing.
pub(crate) fn ensure() -> Result<Toolchain> {
    ensure_ways(&[Way::Debian, Way::Rustup])
}

fn ensure_ways(ways: &[Way]) -> Result<Toolchain> {
    let mut ways = ways.to_vec();
    loop {
        let facts = facts::read()?;
        match plan(&facts, &ways) {
            Plan::Use(toolchain) => return Ok(toolchain),
            Plan::Do(way, steps) => {
                println!("setup: completing {way}: {} steps", steps.len());
                let outcome = steps.iter().try_for_each(carry_out).and_then(|()| match finding(&facts::read()?, way) {
                    Finding::Complete(_) => Ok(()),
                    // Only after a nightly is installed is it known what else it needs.
                    Finding::Incomplete(left) if left != steps => Ok(()),
                    Finding::Incomplete(_) => bail!("all steps succeeded, but the same things are still missing"),
                    Finding::Closed(reason) => bail!("{reason}"),
                });
                if let Err(error) = outcome {
                    println!("setup: {way} failed: {error:#}");
                    ways.retain(|other| *other != way);
                }
            }
            Plan::GiveUp => bail!("{}", give_up(&facts)),
        }
    }
}

fn carry_out(step: &Step) -> Result<()> {
    println!("setup: {}", step.missing);
    if step.needs_root {
        // Package lists may be missing or out of date. They are updated only now, because it takes seconds.
        println!("setup: $ apt-get update");
        workspace::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    }
    println!("setup: $ {}", step.line().trim_start_matches("sudo "));
    let Some((program, arguments)) = step.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).envs(step.environment.iter().map(|(name, value)| (name, value)));
    // Outside our workspace: its rust-toolchain.toml would choose the compiler, and variables of this toolchain would
    // take effect through rustup.
    command.current_dir("/");
    for variable in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH"] {
        if step.environment.iter().all(|(name, _)| *name != variable) {
            command.env_remove(variable);
        }
    }
    workspace::run(&mut command)
}

fn give_up(facts: &Facts) -> String {
    let ways = [Way::Debian, Way::Rustup].map(|way| report(way, &finding(facts, way)));
    format!(
        "the eBPF build has no toolchain; complete one of these ways and run `cargo xtask setup` again\n{}",
        ways.concat()
    )
}

fn report(way: Way, finding: &Finding) -> String {
    match finding {
        Finding::Complete(Toolchain { cargo, rustc, linker, .. }) => {
            let linker_llvm = linker
                .llvm
                .map_or_else(|| "uses rustc's LLVM".to_owned(), |llvm| format!("LLVM {llvm}, at least rustc's"));
            format!(
                "{way}: complete\n  cargo   {}\n  rustc   {} (LLVM {})\n  linker  {} ({linker_llvm})\n",
                cargo.display(),
                rustc.path.display(),
                rustc.llvm,
                linker.path.display()
            )
        }
        Finding::Incomplete(steps) => {
            let steps = steps.iter().map(|step| format!("  missing: {}\n      run: {}\n", step.missing, step.line()));
            format!("{way}: incomplete\n{}", steps.collect::<String>())
        }
        Finding::Closed(reason) => format!("{way}: not possible\n  {reason}\n"),
    }
}
