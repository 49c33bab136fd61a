//! Commands that print and exit, and what `mcad-aggregator` and `kubectl-mcad` do alike: reading a cluster once, output, the log, exit
//! status.
use std::collections::BTreeSet;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcad_accounting::cluster::Source;
use mcad_accounting::nodes::REPORT_BYTES;
use mcad_present::explain::amount::{printable, printable_lines};
use mcad_present::explain::{self, Answer, Subject};
use mcad_present::tables::View;
use mcad_terminal::paint::Paint;
use serde::Serialize;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{self, plugin::Output};
use crate::clock::Clock;
use crate::clock::api::ApiClock;
use crate::connection;
use crate::input::Input;
use crate::live;
use crate::replica::Replica;
use crate::self_metrics::SelfMetrics;
use crate::watch::Settings;

/// A cluster that was read once, from a dump, from reports or from an API server.
pub struct Cluster {
    /// What is known of it.
    pub replica: Replica,
    /// What is wrong with the dump, a sentence each.
    pub complaints: Vec<String>,
    /// 0 if everything was read; 1 if something was left out or is missing.
    pub code: ExitCode,
    /// The namespace of the kubeconfig's context. `None` if no API server was queried.
    pub namespace: Option<String>,
    /// The lists of a live cluster with objects that could not be decoded.
    pub undecodable: BTreeSet<Source>,
}

impl Cluster {
    /// Reads a dump and reports; `complain` is called before an API server is queried, so that errors in the dump are printed first.
    pub fn read(source: &args::Source, complain: impl FnOnce(&[String])) -> Result<Self> {
        let input = Input::read(&source.inputs, &source.metrics, REPORT_BYTES)?;
        let complaints: Vec<_> = input.complaints().collect();
        complain(&complaints);
        let mut code = input.exit_code();
        let self_metrics = SelfMetrics::new().context("cannot register the self-metrics")?;
        let replica = Replica::new(Clock::system(), input.known, self_metrics);
        let (mut namespace, mut undecodable) = (None, BTreeSet::new());
        if source.inputs.is_kube() {
            let (of_context, reading) = runtime()?.block_on(read_live(source, &replica))?;
            let has_left_out = || !replica.snapshot().left_out.is_empty();
            if !reading.is_whole() || has_left_out() {
                code = ExitCode::FAILURE;
            }
            (namespace, undecodable) = (Some(of_context), reading.undecodable);
        }
        Ok(Self { replica, complaints, code, namespace, undecodable })
    }
}

/// Watches the cluster until all of it is known. Returns the namespace of the context, and what could not be read.
async fn read_live(source: &args::Source, replica: &Replica) -> Result<(String, live::Reading)> {
    let config = connection::config(&source.kubeconfig).await?;
    let namespace = config.default_namespace.clone();
    let client = connection::client(config, &ApiClock::new(Clock::system()))?;
    let wait = Duration::from_secs(source.wait);
    let reading = live::until_known(client, Settings::of(&source.metrics.options()), replica, wait).await?;
    Ok((namespace, reading))
}

/// Prints the explanation of the cluster or of one node. What could be read is printed even if something is missing.
pub fn explain(source: &args::Source, node: Option<&str>, output: Output) -> Result<ExitCode> {
    let is_json = output == Output::Json;
    let cluster = Cluster::read(source, |complaints| {
        // In a terminal, the explanation has the complaints above the values.
        if is_json || !std::io::stdout().is_terminal() {
            say(complaints);
        }
    })?;
    let subject = node.map_or(Subject::Cluster, |name| Subject::Node(name.to_owned()));
    let answer = Answer::on(&subject, &cluster.replica.snapshot(), cluster.replica.now())?;
    let text = if is_json { json(&answer)? } else { explain::text(&answer, Paint::of(&std::io::stdout())) };
    print(text.as_bytes())?;
    Ok(cluster.code)
}

/// An answer as one line of JSON.
pub fn json(answer: &impl Serialize) -> Result<String> {
    Ok(explain::json(answer)? + "\n")
}

/// Prints the script that completes a command line.
pub fn completions(shell: clap_complete::Shell, command: &mut clap::Command, program: &str) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, program, &mut text);
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints sentences to standard error.
pub fn say(sentences: &[String]) {
    for sentence in sentences {
        // If nobody reads it, the exit status still says that something is missing.
        let _ = writeln!(std::io::stderr(), "{}", printable(sentence));
    }
}

/// Writes to standard output. It is not an error if the reader has closed the pipe.
pub fn print(text: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// The exit status of a program. An error is printed first.
pub fn exit(ended: Result<ExitCode>) -> ExitCode {
    exit_or(ended, ExitCode::FAILURE)
}

/// The same with another exit status for errors.
pub fn exit_or(ended: Result<ExitCode>, failed: ExitCode) -> ExitCode {
    ended.unwrap_or_else(|error| {
        // An error may contain a name from outside, and standard error may be closed.
        let _ = writeln!(std::io::stderr(), "Error: {}", printable_lines(&format!("{error:#}")));
        failed
    })
}

/// How text is printed: as wide as `$COLUMNS` says, else as the terminal is, else without a limit.
pub fn view() -> View {
    let stdout = std::io::stdout();
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|width| *width > 0);
    let is = || mcad_terminal::size(&stdout).map(|size| size.columns);
    View { width: said.or_else(is), paint: Paint::of(&stdout) }
}

/// A runtime with as many threads as there are CPUs.
pub fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the async runtime")
}

/// Starts the log, which goes to standard error.
pub fn log(level: LevelFilter) -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(level.into());
    let filter = filter.from_env().context("RUST_LOG is not a filter such as `debug` or `info,hyper=debug`")?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}
