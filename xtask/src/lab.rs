//! The verbs of the crate `lab`: their names, and how the crate is built and started. What the verbs do is in the lab,
//! which is compiled only when one of them is called.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Arg;

use crate::{child, workspace};

/// A verb of the lab.
#[derive(Debug)]
pub struct Verb {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
}

/// All verbs of the lab, in the order of `--help`. A test in the lab compares this list with the verbs that the lab has.
pub const VERBS: [Verb; 11] = [
    Verb { name: "image", about: "Build container images of both programs, without a container engine" },
    Verb {
        name: "e2e",
        about: "Install mcad-metrics on a real Kubernetes node and check it through a real Prometheus",
    },
    Verb { name: "test-kernels", about: "Boot Debian's kernels in QEMU and run the agent's kernel tests in them" },
    Verb { name: "test-gpu", about: "Check the agent against this machine's NVIDIA GPUs" },
    Verb {
        name: "fuzz",
        about: "Fuzz the parsers of untrusted input: reports, replayed reports, dumps, API objects, state transfers of another replica, short texts such as selectors and tokens",
    },
    Verb { name: "screenshot", about: "Take the screenshots of the page for README.md" },
    Verb {
        name: "strings",
        about: "Write every text that a user can read to target/strings.txt: help, errors, logs, metrics, alerts, the page",
    },
    Verb { name: "bench-cgroups", about: "Compare reading cgroups by the eBPF iterator with reading their files" },
    Verb {
        name: "bench-switches",
        about: "Measure the cost of the eBPF program at each task switch against an empty program. Needs root",
    },
    Verb {
        name: "bench-idle",
        about: "Measure the cost of an agent that samples 1,000 cgroups every 10 s, by eBPF and by files, over minutes. Needs root",
    },
    Verb {
        name: "bench-load",
        about: "Measure the cost of many agents for one aggregator: a process simulates them on loopback, each with TLS and a token",
    },
];

/// The name under which clap keeps the arguments of a verb.
pub(crate) const ARGUMENTS: &str = "arguments";

impl Verb {
    /// The command line of a verb as far as xtask knows it: all arguments after the verb, `--help` included, are passed
    /// to the lab.
    pub(crate) fn command(&self) -> clap::Command {
        let arguments = Arg::new(ARGUMENTS)
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_parser(clap::value_parser!(OsString));
        clap::Command::new(self.name).about(self.about).disable_help_flag(true).arg(arguments)
    }
}

/// Builds the lab and replaces this process with it. Returns only if that fails.
pub(crate) fn exec<'a>(verb: &str, arguments: impl Iterator<Item = &'a OsString>) -> Result<()> {
    let mut command = command(verb);
    command.args(arguments);
    Err(command.exec()).with_context(|| format!("cannot start {}", workspace::line(&command)))
}

/// Builds the lab together with all tests and runs one of its verbs. For `test` and `ci`, which build the tests anyway.
pub(crate) fn run(verb: &str, arguments: &[&str]) -> Result<()> {
    workspace::build_all()?;
    let mut command = Command::new(workspace::built("dev", "lab"));
    command.arg(verb).args(arguments).current_dir(workspace::root());
    child::ends_with_us(&mut command);
    workspace::run(&mut command)
}

fn command(verb: &str) -> Command {
    println!("xtask: building the crate `lab`, which implements {verb} (a minute or two the first time)");
    workspace::cargo(&["run", "--locked", "--package", "lab", "--", verb])
}
