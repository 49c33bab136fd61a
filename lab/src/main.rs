//! The verbs of `cargo xtask` with many dependencies. `cargo xtask` builds and starts this program when one of them is
//! called. One file per verb; this file only dispatches.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod image;

mod screenshot;

mod debian_kernel;
mod guest;
mod test_kernels;

mod bench;
mod bench_idle;
mod bench_load;
mod spin;
mod test_gpu;

mod fuzz;

mod strings;

mod e2e;

/// The verbs of `cargo xtask` with many dependencies.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Lab {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Image(image::Image),
    E2e(e2e::E2e),
    TestKernels(test_kernels::TestKernels),
    TestGpu(test_gpu::TestGpu),
    Fuzz(fuzz::Fuzz),
    Screenshot(screenshot::Screenshot),
    Strings(strings::Strings),
    BenchCgroups(bench::BenchCgroups),
    BenchSwitches(bench::BenchSwitches),
    BenchIdle(bench_idle::BenchIdle),
    BenchLoad(bench_load::BenchLoad),
}

fn main() -> ExitCode {
    xtask::exit_code(match Lab::parse().verb {
        Verb::Image(verb) => verb.run(),
        Verb::E2e(verb) => verb.run(),
        Verb::TestKernels(verb) => verb.run(),
        Verb::TestGpu(verb) => verb.run(),
        Verb::Fuzz(verb) => verb.run(),
        Verb::Screenshot(verb) => verb.run(),
        Verb::Strings(verb) => verb.run(),
        Verb::BenchCgroups(verb) => verb.run(),
        Verb::BenchSwitches(verb) => verb.run(),
        Verb::BenchIdle(verb) => verb.run(),
        Verb::BenchLoad(verb) => verb.run(),
    })
}

#[cfg(test)]
mod documented_tests;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_scenario_that_xtask_writes_is_one_of_gpus_that_are_busy_in_turns() {
        use fake_nvml::scenario::{Level, Scenario};
        let mut expected = Scenario::of(3, "H100 80GB HBM3");
        for (device, (phase_s, gib)) in expected.devices.iter_mut().zip([(0.0, 1), (5.0, 2), (10.0, 3)]) {
            device.utilization = Level::Wave { low: 0.0, high: 0.95, period_s: 60.0, phase_s };
            device.memory_used_bytes = gib << 30;
        }
        assert_eq!(Scenario::parse(&xtask::fake_gpus::scenario(3)).unwrap(), expected);
    }

    #[test]
    fn xtask_lists_the_verbs_that_are_here_in_their_own_words() {
        let own = Lab::command();
        let own = own.get_subcommands().map(|verb| (verb.get_name(), verb.get_about().unwrap().to_string()));
        let listed = xtask::lab::VERBS.iter().map(|verb| (verb.name, verb.about.to_owned()));
        assert_eq!(listed.collect::<Vec<_>>(), own.collect::<Vec<_>>());
    }
}
