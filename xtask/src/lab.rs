//! The verbs of the crate `lab`: their names, and how the crate is built and started. It owns nothing of what they do. The lab is
//! compiled only when one of its verbs is called.

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

/// All of them, in the order of `--help`. A test in the lab compares this list with the verbs that the lab has.
pub const VERBS: [Verb; 10] = [
    Verb { name: "image", about: "Build container images of both programs, without a container engine" },
    Verb { name: "e2e", about: "Install mcad-metrics on a real node, and watch it through a real Prometheus" },
    Verb { name: "test-kernels", about: "Boot Debian's kernels in QEMU and run the agent's kernel tests inside" },
    Verb { name: "test-gpu", about: "Check the agent against this machine's NVIDIA GPUs" },
    Verb {
        name: "fuzz",
        about: "Fuzz what takes bytes from elsewhere: reports, replayed reports, dumps, the API server's objects, another replica's past, small grammars",
    },
    Verb { name: "screenshot", about: "Take the pictures of the page that README.md shows" },
    Verb { name: "bench-cgroups", about: "Measure the walk over the cgroups against reading their files" },
    Verb {
        name: "bench-switches",
        about: "Measure the program at the switch of tasks against one that returns at once. Needs root",
    },
    Verb {
        name: "bench-idle",
        about: "Measure what an agent costs that samples 1,000 cgroups every 10 s, by eBPF and by files, over minutes. Needs root",
    },
    Verb {
        name: "bench-load",
        about: "Measure what agents cost one aggregator: a generator process plays them, with TLS and a token each, all on loopback",
    },
];

/// The name under which clap keeps the words after a verb.
pub(crate) const ARGUMENTS: &str = "arguments";

impl Verb {
    /// Its command line, as far as it is known here: all words after the verb, `--help` included, are passed to the lab.
    pub(crate) fn command(&self) -> clap::Command {
        let arguments = Arg::new(ARGUMENTS)
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_parser(clap::value_parser!(OsString));
        clap::Command::new(self.name).about(self.about).disable_help_flag(true).arg(arguments)
    }
}

/// Builds the lab and replaces this process by it. Returns only if that fails.
pub(crate) fn exec<'a>(verb: &str, arguments: impl Iterator<Item = &'a OsString>) -> Result<()> {
    let mut command = command(verb);
    command.args(arguments);
    Err(command.exec()).with_context(|| format!("cannot start {}", workspace::line(&command)))
}

/// Builds the lab together with all tests and runs one of its verbs to the end: for `test` and `ci`, which build the tests anyway.
pub(crate) fn run(verb: &str, arguments: &[&str]) -> Result<()> {
    workspace::build_all()?;
    let mut command = Command::new(workspace::built("dev", "lab"));
    command.arg(verb).args(arguments).current_dir(workspace::root());
    child::ends_with_us(&mut command);
    workspace::run(&mut command)
}

fn command(verb: &str) -> Command {
    println!("xtask: building the crate `lab`, which has the verb {verb} (a minute or two when new)");
    workspace::cargo(&["run", "--locked", "--package", "lab", "--", verb])
}
