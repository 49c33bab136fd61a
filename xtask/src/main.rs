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

mod image;

mod child;
mod exposition;
mod fake_gpus;
mod interrupts;
mod run;
mod view;

mod browser;
mod kubernetes;
mod screenshot;
mod test;
mod test_output;

mod debian_kernel;
mod guest;
mod test_kernels;

mod bench;
mod bench_idle;
mod bench_load;
mod spin;
mod test_gpu;

mod fuzz;

mod ci;
mod deny;
mod e2e;
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
    Image(image::Image),
    Run(run::Run),
    Test(test::Test),
    Screenshot(screenshot::Screenshot),
    TestKernels(test_kernels::TestKernels),
    BenchCgroups(bench::BenchCgroups),
    BenchSwitches(bench::BenchSwitches),
    BenchIdle(bench_idle::BenchIdle),
    BenchLoad(bench_load::BenchLoad),
    Fuzz(fuzz::Fuzz),
    TestGpu(test_gpu::TestGpu),
    Ci(ci::Ci),
    Deny(deny::Deny),
    E2e(e2e::E2e),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().verb {
        Verb::Setup(verb) => verb.run(),
        Verb::BuildEbpf(verb) => verb.run(),
        Verb::Image(verb) => verb.run(),
        Verb::Run(verb) => verb.run(),
        Verb::Test(verb) => verb.run(),
        Verb::Screenshot(verb) => verb.run(),
        Verb::TestKernels(verb) => verb.run(),
        Verb::BenchCgroups(verb) => verb.run(),
        Verb::BenchSwitches(verb) => verb.run(),
        Verb::BenchIdle(verb) => verb.run(),
        Verb::BenchLoad(verb) => verb.run(),
        Verb::Fuzz(verb) => verb.run(),
        Verb::TestGpu(verb) => verb.run(),
        Verb::Ci(verb) => verb.run(),
        Verb::Deny(verb) => verb.run(),
        Verb::E2e(verb) => verb.run(),
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
