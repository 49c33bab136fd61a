//! `whatif`: what would follow if a node were drained. From the command line to the last line printed.
use std::process::ExitCode;

use anyhow::{Result, bail};
use mcad_accounting::unread::Unread;
use mcad_present::explain::drain::WhatIf;
use mcad_present::tables;
use tracing_subscriber::filter::LevelFilter;

use crate::args::plugin::Output;
use crate::args::trial::Imagined;
use crate::args::{ClusterSource, Source};
use crate::fit::{self, CANNOT_BE_TOLD};
use crate::verbs::{self, Cluster};

/// Prints the answer. Returns the exit status.
pub fn run(imagined: &Imagined, source: &Source, output: Output) -> ExitCode {
    verbs::exit_or(answered(imagined, source, output), CANNOT_BE_TOLD.into())
}

fn answered(imagined: &Imagined, source: &Source, output: Output) -> Result<ExitCode> {
    source.check()?;
    if source.inputs.cluster.contains(&ClusterSource::Local) {
        bail!("whatif needs Kubernetes: with --cluster local, there are no AppWrappers");
    }
    verbs::log(LevelFilter::WARN)?;
    let cluster = Cluster::read(source, verbs::say)?;
    let drained = &fit::each_once(&imagined.drain);
    let before = cluster.replica.snapshot();
    verbs::say(&tables::warnings(&before));
    if before.nodes.is_none() || before.orphans.is_none() || before.appwrappers.is_none() {
        bail!("Nodes, Pods or AppWrappers are not known, so it is not known who would lose pods");
    }
    let (held, snapshot) = match cluster.replica.drain(drained) {
        Ok(drained) => drained,
        Err(name) => bail!("no node named {name}"),
    };
    let unread = Unread::of(&snapshot, &cluster.undecodable);
    let answer = WhatIf::new(&snapshot, drained, &held, &unread, cluster.replica.now());
    let text = match output {
        Output::Json => verbs::json(&answer)?,
        Output::Table => tables::drain::drain(&answer, verbs::view()),
    };
    verbs::print(text.as_bytes())?;
    Ok(fit::exit_code(answer.fits))
}
