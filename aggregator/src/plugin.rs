//! `kubectl mcad`: from the command line to the last line printed. What is printed is made by [`mcad_present::tables`] and
//! [`mcad_present::explain`].
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use mcad_accounting::cluster::Missing;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::api::{Page, Wanted};
use mcad_present::explain::Answer;
use mcad_present::explain::node::NodeEntry;
use mcad_present::tables::why::find;
use mcad_present::tables::{self, Rules};
use tracing_subscriber::filter::LevelFilter;

use crate::args::plugin::{Output, PluginArgs, Verb};
use crate::fit;
use crate::verbs::{self, Cluster};
use crate::whatif;

/// Which table.
#[derive(Clone, Copy)]
enum Table {
    Nodes,
    Gpus,
}

/// Does what the command line says.
pub fn run(args: &PluginArgs) -> Result<ExitCode> {
    if let Some(Verb::Completions { shell }) = args.command {
        args.check()?;
        return verbs::completions(shell, &mut PluginArgs::command(), "kubectl-mcad");
    }
    // Their exit status 1 has another meaning than an error.
    let checked = |run: &dyn Fn() -> ExitCode| {
        args.check().map_or_else(|error| verbs::exit_or(Err(error), fit::CANNOT_BE_TOLD.into()), |()| run())
    };
    match &args.command {
        Some(Verb::Fit(submit)) => {
            return Ok(checked(&|| fit::run(submit, &args.source, args.namespace.as_deref(), args.output())));
        }
        Some(Verb::Whatif(imagined)) => return Ok(checked(&|| whatif::run(imagined, &args.source, args.output()))),
        _ => {}
    }
    args.check()?;
    verbs::log(LevelFilter::WARN)?;
    match &args.command {
        Some(Verb::Why { name }) => why(args, name),
        Some(Verb::Nodes) => table(args, Table::Nodes),
        Some(Verb::Gpus) => table(args, Table::Gpus),
        None | Some(Verb::Fit(_) | Verb::Whatif(_) | Verb::Completions { .. }) => {
            verbs::explain(&args.source, args.node.as_deref(), args.output())
        }
    }
}

fn why(args: &PluginArgs, name: &str) -> Result<ExitCode> {
    let (cluster, snapshot) = read(args)?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (args.namespace.as_deref().or(cluster.namespace.as_deref()), name),
    };
    let found = find(&snapshot, namespace, name)?;
    let answer = Wanted::AppWrapper(found).answer(&snapshot, cluster.replica.now())?;
    let text = match (args.output(), &answer.appwrapper) {
        (Output::Table, Some(appwrapper)) => {
            let fake = snapshot.agents.iter().filter(|agent| agent.has_fake_gpus()).map(|agent| agent.node.as_str());
            tables::why::why(appwrapper, fake, verbs::view())
        }
        _ => verbs::json(&answer)?,
    };
    verbs::print(text.as_bytes())?;
    Ok(cluster.code)
}

fn table(args: &PluginArgs, table: Table) -> Result<ExitCode> {
    let (cluster, snapshot) = read(args)?;
    let is_accelerator = |name: &str| snapshot.options.is_accelerator(name);
    let knows_devices = !snapshot.missing.contains(&Missing::Devices);
    let rules = Rules { is_accelerator: &is_accelerator, knows_devices };
    let now = cluster.replica.now();
    let mut answer = match &args.node {
        Some(name) => {
            let nodes = vec![NodeEntry::named(name, &snapshot)?];
            Answer { nodes: Some(nodes), ..Answer::of(&snapshot, now) }
        }
        None => Wanted::Nodes(Page { limit: usize::MAX, after: None }).answer(&snapshot, now)?,
    };
    let nodes = answer.nodes.get_or_insert_default();
    let text = match (table, args.output()) {
        (Table::Nodes, Output::Table) => tables::nodes::nodes(nodes, rules, verbs::view()),
        (Table::Gpus, Output::Table) => tables::gpus::gpus(nodes, rules, verbs::view()),
        (Table::Nodes, Output::Json) => verbs::json(&answer)?,
        // If devices are not known, any node may have some.
        (Table::Gpus, Output::Json) if !knows_devices => verbs::json(&answer)?,
        (Table::Gpus, Output::Json) => {
            nodes.retain(|node| tables::gpus::has_any(node, &is_accelerator));
            verbs::json(&answer)?
        }
    };
    verbs::print(text.as_bytes())?;
    Ok(cluster.code)
}

/// Reads the cluster. What is wrong with it or missing goes to standard error, as the tables have no place for it.
fn read(args: &PluginArgs) -> Result<(Cluster, Snapshot)> {
    let cluster = Cluster::read(&args.source, verbs::say)?;
    let snapshot = cluster.replica.snapshot();
    verbs::say(&tables::warnings(&snapshot));
    Ok((cluster, snapshot))
}
