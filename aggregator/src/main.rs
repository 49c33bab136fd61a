//! mcad-aggregator: from the command line to the drain.
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use kube::Client;
use mcad_aggregator::args::{Args, Serve};
use mcad_aggregator::clock::{Clock, Now};
use mcad_aggregator::cluster::Cluster;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::live;
use mcad_aggregator::merge::Ages;
use mcad_aggregator::receive;
use mcad_aggregator::replica::{Kubernetes, Mode, Replica};
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::server::{self, Listeners};
use mcad_aggregator::store::{self, Store};
use mcad_aggregator::watch::Settings;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> Result<()> {
    let args = Args::parse();
    args.check()?;
    log()?;
    if args.figures.print_metrics {
        return print_metrics(&args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the async runtime could not start")?.block_on(serve(&args))
}

async fn serve(args: &Args) -> Result<()> {
    let shutdown = asked_to_end()?;
    let listeners = listen(&args.serve).await?;
    let listening = addresses(&listeners)?;
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let (mode, store) = mode(args)?;
    let replica = Arc::new(Replica::new(Clock::system(), mode, store, figures));
    let serve = server::run(listeners, Arc::clone(&replica), server::Limits::default(), shutdown);
    if args.inputs.is_kube() {
        let client = client().await?;
        announce(&listening)?;
        tokio::select! {
            () = serve => {}
            ended = live::run(client, Settings::default(), replica) => ended.context("the thread that fits could not start")?,
        }
    } else {
        announce(&listening)?;
        serve.await;
    }
    tracing::info!("ended");
    Ok(())
}

/// Where the cluster is read from, and what agents have said already.
fn mode(args: &Args) -> Result<(Mode, Store)> {
    if args.inputs.is_kube() {
        let kubernetes = Kubernetes::new(Cluster::default(), args.figures.options(), Ages::Count);
        return Ok((Mode::Kubernetes(Box::new(kubernetes)), Store::new(store::Limits::KUBERNETES)));
    }
    let files = args.inputs.dump();
    if files.is_empty() {
        return Ok((Mode::Local, Store::new(store::Limits::LOCAL)));
    }
    let dump = Dump::read(&files)?;
    for skipped in dump.skipped {
        tracing::warn!(error = format!("{:#}", anyhow::Error::from(skipped)), "an object of the dump is left out");
    }
    let mut store = Store::new(store::Limits::REPLAY);
    let now = Clock::system().now();
    let kubernetes = Kubernetes::new(Cluster::from_objects(dump.objects), args.figures.options(), Ages::DoNot);
    for path in &args.inputs.reports {
        replay(&kubernetes, &mut store, path, now)?;
    }
    kubernetes.refit(&store.reports(now), now);
    Ok((Mode::Kubernetes(Box::new(kubernetes)), store))
}

/// Takes in reports, one a line.
fn replay(kubernetes: &Kubernetes, store: &mut Store, path: &Path, now: Now) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}: line {number}", path.display());
        let report = serde_json::from_str(line).with_context(place)?;
        let received = receive::check(report).with_context(place)?;
        kubernetes.replay(store, received, now).with_context(place)?;
    }
    Ok(())
}

fn print_metrics(args: &Args) -> Result<()> {
    let (mode, store) = mode(args)?;
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let mut text = Vec::new();
    Replica::new(Clock::system(), mode, store, figures).expose(&mut text)?;
    std::io::stdout().write_all(&text).context("standard output could not be written")
}

async fn listen(serve: &Serve) -> Result<Listeners> {
    Ok(Listeners {
        metrics: bind(serve.listen, "--listen").await?,
        reports: bind(serve.report_listen, "--report-listen").await?,
    })
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag} {address} could not be opened"))
}

/// A client of the API server: by `$KUBECONFIG`, `~/.kube/config`, or as the pod that this runs in.
async fn client() -> Result<Client> {
    Client::try_default().await.context(
        "there is no Kubernetes API server to watch: neither a kubeconfig ($KUBECONFIG, ~/.kube/config) nor a pod's service \
         account. Name one, or start with --cluster local to see this machine's agents as the nodes, or with --cluster \
         file:PATH to see a dump",
    )
}

/// Where it listens, by listener.
struct Listening {
    metrics: SocketAddr,
    reports: SocketAddr,
}

fn addresses(listeners: &Listeners) -> Result<Listening> {
    Ok(Listening {
        metrics: listeners.metrics.local_addr().context("no address of --listen")?,
        reports: listeners.reports.local_addr().context("no address of --report-listen")?,
    })
}

/// Programs that start this one read the ports from this line.
fn announce(Listening { metrics, reports }: &Listening) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening metrics=http://{metrics} reports=http://{reports}")
        .and_then(|()| stdout.flush())
        .context("standard output could not be written")?;
    tracing::info!(%metrics, %reports, version = env!("CARGO_PKG_VERSION"), "serving");
    Ok(())
}

fn asked_to_end() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("SIGTERM could not be caught")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT could not be caught")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

fn log() -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter.from_env().context("RUST_LOG is not a filter such as `debug` or `info,hyper=debug`")?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}
