//! mcad-agent: starts the agent, runs it, and drains it at the end.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use mcad_agent::admin::Exported;
use mcad_agent::admin::client::{self, AgentUrl, RecentReports};
use mcad_agent::args::{Args, Command};
use mcad_agent::pod_totals::kept::KeptPods;
use mcad_agent::report::{Identity, Listed, bounded, report};
use mcad_agent::sample::Machine;
use mcad_agent::sampler::Sampler;
use mcad_agent::sandbox::{self, Sandbox};
use mcad_agent::self_metrics::SelfMetrics;
use mcad_agent::sender::{self, Backoff, Credentials, Sender, Target};
use mcad_agent::source::gpu;
use mcad_agent::source::machine::MachineFiles;
use mcad_agent::status::Taken;
use mcad_agent::ticker::Outgoing;
use mcad_agent::{admin, clock, open_files, readers, rights, status, ticker, version};
use mcad_terminal::paint::Paint;

/// For one attempt to send. An aggregator responds within milliseconds; half the default interval leaves time for a
/// second attempt.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// Time between the two samples of `status`: long enough for a rate, short enough to wait for.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long sending the last report may take at shutdown. kubelet grants 30 s by default, and the next agent waits for
/// this one to exit.
const DRAIN: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Command::Completions { shell }) = args.command {
        clap_complete::generate(shell, &mut Args::command(), "mcad-agent", &mut std::io::stdout());
        return Ok(());
    }
    // The user of `status` reads its output; only warnings are logged.
    start_log(if matches!(args.command, Some(Command::Status { .. })) { "warn" } else { "info" });
    if let Some(Command::NvmlWorker { events }) = args.command {
        return gpu::serve_agent(args.nvml.as_deref(), events, args.sandbox).context("nvml-worker");
    }
    if args.command == Some(Command::ForgetGpus) {
        return forget_gpus(&args);
    }
    if let Some(Command::Status { from: Some(url) }) = &args.command {
        return print_status_of(url);
    }
    let open_files = open_files::raise();
    tracing::debug!(open_files, "the limit of open files");
    let identity = identity(&args);
    let machine = MachineFiles::new(&args.proc_root, &args.sys_root);
    let cgroups = readers::of_cgroups(&args)?;
    // Before any other thread starts: each thread has its own capabilities, inherited from the thread that starts it.
    give_up_rights();
    match args.sandbox {
        Sandbox::On => sandbox::confine_agent(&readers::paths(&args)).log(),
        Sandbox::Off => tracing::warn!("--sandbox off: the agent can access other processes and all files of its user"),
    }
    let mut sampler = Sampler::new(Box::new(clock::now), machine, cgroups)
        // `status` takes its samples this far apart, which may be longer.
        .with_gpus(readers::of_gpus(&args), args.interval.max(STATUS_INTERVAL))
        .with_assignments(Box::new(readers::of_assignments(&args)));
    if matches!(args.command, Some(Command::Status { .. })) {
        return print_status(&identity, sampler);
    }
    // The file belongs to the running agent, which knows more than one sample does.
    if let (Some(state_dir), false) = (&args.state_dir, args.once) {
        sampler = sampler.with_kept_pods(KeptPods::new(state_dir, &identity.boot_id));
    }
    match args.aggregator.clone() {
        _ if args.once => once(&args, &identity, sampler),
        None if args.listen.is_none() => bail!("--aggregator is required, unless --listen or --once is given"),
        target => {
            let credentials = Credentials::new(args.aggregator_ca.clone(), args.token.clone());
            let target = target.map(|target| target.trusting(credentials)).transpose().context("--aggregator")?;
            // One thread is enough for one outgoing connection and a few incoming ones; samples are taken on another
            // thread.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&args, target, identity, sampler))
        }
    }
}

/// The attached programs need no capabilities, and nothing later needs any.
fn give_up_rights() {
    match rights::give_up() {
        Ok(had) if had.is_empty() => {}
        Ok(had) => tracing::info!(count = had.bits().count_ones(), "all capabilities were dropped"),
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "capabilities could not be dropped; the agent continues with them");
        }
    }
}

/// The log goes to standard error; standard output is for `--once`.
fn start_log(level: &str) {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
}

/// A running agent notices with its next sample that they are forgotten.
fn forget_gpus(args: &Args) -> anyhow::Result<()> {
    let Some(state_dir) = &args.state_dir else { bail!("forget-gpus needs --state-dir") };
    let forgotten =
        gpu::forget(state_dir).with_context(|| format!("cannot forget the GPUs in {}", state_dir.display()))?;
    let said = if forgotten {
        "forgotten; the GPUs that are present now will be remembered"
    } else {
        "no GPUs were remembered"
    };
    writeln!(std::io::stdout(), "{said}").context("cannot print the result")
}

/// Takes one sample and prints one line.
fn once(args: &Args, identity: &Identity, mut sampler: Sampler) -> anyhow::Result<()> {
    let mut sample = sampler.sample();
    let report = bounded(identity, 1, &mut sample, args.listed());
    for failure in &sample.failures {
        let (source, reason) = (failure.source.as_str(), failure.reason.as_str());
        tracing::warn!(source, reason, detail = failure.detail, "a source failed; its values are absent");
    }
    let json = serde_json::to_string(&report)?;
    writeln!(std::io::stdout(), "{json}").context("cannot print the report")?;
    if sample.cgroups.is_none() && sample.machine == Machine::default() {
        bail!("nothing at all could be read; see the messages above");
    }
    Ok(())
}

/// Takes two samples and prints the status from them.
fn print_status(identity: &Identity, mut sampler: Sampler) -> anyhow::Result<()> {
    let before = report(identity, 1, &sampler.sample(), Listed::All);
    std::thread::sleep(STATUS_INTERVAL);
    let now = report(identity, 2, &sampler.sample(), Listed::All);
    print_text(&status::text(Some(&before), &now, Taken::Here, Paint::of(&std::io::stdout())))
}

/// Prints the status from the last two reports of the agent at `url`.
fn print_status_of(url: &AgentUrl) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let RecentReports { before, last, age } = runtime.block_on(client::fetch(url)).context("--from")?;
    let taken = Taken::ByAgent { age };
    print_text(&status::text(before.as_ref(), &last, taken, Paint::of(&std::io::stdout())))
}

fn print_text(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot print the status")
}

/// Samples, sends and serves requests until a signal ends it. Without a target nothing is sent.
async fn run(args: &Args, target: Option<Target>, identity: Identity, sampler: Sampler) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let metrics = Arc::new(SelfMetrics::new()?);
    let (slot, reports) = watch::channel(None);
    let exported = if target.is_some() { Exported::Agent } else { Exported::AgentAndNode };
    let admin = admin(args, exported, &metrics, reports.clone()).await?;
    tokio::pin!(admin);

    let (version, interval) = (version::text(), args.interval);
    if let Some(target) = &target {
        tracing::info!(version, node = identity.node, aggregator = %target, ?interval, "started");
    } else {
        tracing::info!(
            version,
            node = identity.node,
            ?interval,
            "started as an exporter of this node, without an aggregator"
        );
    }
    // Each node has its own offset in the interval, which spreads the load of the aggregator. Without an aggregator the
    // first sample is taken at once.
    let turn = target.as_ref().map_or(0.0, |_| ticker::turn(&identity.node));
    let tick = ticker::Tick::new(sampler, identity, args.listed(), Arc::clone(&metrics), slot);
    let ticker = ticker::start(tick, args.interval, turn).context("cannot start the sampling thread")?;
    let sender = async {
        match target {
            Some(target) => {
                let backoff = Backoff::of_interval(args.interval);
                Sender::new(target, sender::look_up, SEND_DEADLINE, backoff, turn, metrics).run(reports).await;
            }
            None => until_closed(reports).await,
        }
    };
    tokio::pin!(sender);

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: sending the last report, then exiting"),
        _ = interrupt.recv() => tracing::info!("SIGINT: sending the last report, then exiting"),
        () = &mut sender => bail!("the sampling thread has ended"),
        never = &mut admin => match never {},
    }

    drop(ticker);
    if tokio::time::timeout(DRAIN, sender).await.is_err() {
        tracing::warn!("the last report was not delivered in time");
    }
    Ok(())
}

/// Returns when the sampling thread has ended.
async fn until_closed(mut reports: watch::Receiver<Option<Outgoing>>) {
    while reports.changed().await.is_ok() {}
}

/// Serves the agent's own port if one is configured; otherwise never returns.
async fn admin(
    args: &Args,
    exported: Exported,
    metrics: &Arc<SelfMetrics>,
    reports: watch::Receiver<Option<Outgoing>>,
) -> anyhow::Result<impl Future<Output = std::convert::Infallible> + use<>> {
    let listener = match args.listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!(address = %listener.local_addr()?, "own port open: /metrics, /live, /reports");
            Some(listener)
        }
        None => None,
    };
    let (metrics, interval) = (Arc::clone(metrics), args.interval);
    Ok(async move {
        match listener {
            Some(listener) => admin::run(listener, exported, metrics, interval, reports).await,
            None => std::future::pending().await,
        }
    })
}

fn identity(args: &Args) -> Identity {
    let path = args.proc_root.join("sys/kernel/random/boot_id");
    let boot_id = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the boot id is unknown; rates cannot be computed from these reports");
        String::new()
    });
    Identity {
        node: args.node_name.clone().unwrap_or_else(host_name),
        boot_id: boot_id.trim().to_owned(),
        started_at_ms: clock::now().unix_ms,
        interval_ms: u64::try_from(args.interval.as_millis()).unwrap_or(u64::MAX),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// kubelet's default name of the node: the host name in lower case.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
