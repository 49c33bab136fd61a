//! Development tasks of the repository: `cargo xtask --help`. One file per verb; this file only dispatches.
//!
//! This crate has few dependencies, so that `cargo xtask` starts quickly on a fresh checkout. Verbs that need more
//! dependencies are in the crate `lab`, which the module [`lab`] builds and starts. The lab uses the public items of
//! this crate.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

#[path = "../../agent/probe_inputs.rs"]
mod probe_inputs;
pub mod workspace;

mod plan;

pub mod facts;

mod setup;

mod object;
mod progress;

pub mod build_ebpf;

pub mod child;
pub mod fake_gpus;
pub mod interrupts;
mod machine;
mod view;

mod run;

pub mod browser;
pub mod kubernetes;
pub mod lab;
mod test_output;

pub mod test;

mod deny;
mod tidy;

mod ci;

/// Development tasks of this repository.
///
/// `cargo xtask run` shows this machine; `cargo xtask test` runs all tests. Both first install what they need.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Setup),
    BuildEbpf(build_ebpf::BuildEbpf),
    Run(run::Run),
    Test(test::Test),
    Ci(ci::Ci),
    Deny(deny::Deny),
    Tidy(tidy::Tidy),
}

/// The command line: the verbs of this crate, then those of the lab.
pub fn command() -> clap::Command {
    lab::VERBS.iter().fold(Xtask::command(), |command, verb| command.subcommand(verb.command()))
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let outcome = match matches.subcommand() {
        Some((name, given)) if lab::VERBS.iter().any(|verb| verb.name == name) => {
            lab::exec(name, given.get_many::<OsString>(lab::ARGUMENTS).into_iter().flatten())
        }
        _ => Xtask::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).verb.run(),
    };
    exit_code(outcome)
}

/// The exit code of the process. Prints an error to standard error.
pub fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Print only the chain of causes: a backtrace of xtask does not help to find a missing package.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Verb {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Setup(verb) => verb.run(),
            Self::BuildEbpf(verb) => verb.run(),
            Self::Run(verb) => verb.run(),
            Self::Test(verb) => verb.run(),
            Self::Ci(verb) => verb.run(),
            Self::Deny(verb) => verb.run(),
            Self::Tidy(verb) => verb.run(),
        }
    }
}
