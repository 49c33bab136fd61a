//! Every chore of the repository: `cargo xtask --help`. One file per verb; this one only dispatches.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod workspace;

mod facts;
mod plan;
mod setup;

mod build_ebpf;
mod object;
#[path = "../../agent/probe_inputs.rs"]
mod probe_inputs;

mod child;
mod exposition;
mod run;
mod view;

mod kubernetes;
mod test;
mod test_output;

mod debian_kernel;
mod guest;
mod test_kernels;

mod bench;
mod bench_idle;
mod spin;
mod test_gpu;

mod ci;
mod deny;
#[cfg(test)]
mod tidy;

/// Every chore of the repository.
///
/// `cargo xtask run` shows this machine; `cargo xtask test` runs all tests; both install what they need first.
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
    TestKernels(test_kernels::TestKernels),
    BenchCgroups(bench::BenchCgroups),
    BenchSwitches(bench::BenchSwitches),
    BenchIdle(bench_idle::BenchIdle),
    TestGpu(test_gpu::TestGpu),
    Ci(ci::Ci),
    Deny(deny::Deny),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().verb {
        Verb::Setup(verb) => verb.run(),
        Verb::BuildEbpf(verb) => verb.run(),
        Verb::Run(verb) => verb.run(),
        Verb::Test(verb) => verb.run(),
        Verb::TestKernels(verb) => verb.run(),
        Verb::BenchCgroups(verb) => verb.run(),
        Verb::BenchSwitches(verb) => verb.run(),
        Verb::BenchIdle(verb) => verb.run(),
        Verb::TestGpu(verb) => verb.run(),
        Verb::Ci(verb) => verb.run(),
        Verb::Deny(verb) => verb.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain alone: a backtrace of ours helps nobody whose package is missing.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
