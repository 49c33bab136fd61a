//! kubectl-mcad, which kubectl starts as `kubectl mcad`. All of it is in the library, as it is mcad-aggregator's code.
use std::process::ExitCode;

use clap::Parser as _;
use mcad_aggregator::args::plugin::PluginArgs;
use mcad_aggregator::{plugin, verbs};
use mimalloc::MiMalloc;

/// As in mcad-aggregator: reading a dump makes and frees many small objects.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    verbs::exit(plugin::run(&PluginArgs::parse()))
}
