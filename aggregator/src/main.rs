//! mcad-aggregator: from the command line to the drain.
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use mcad_aggregator::args::{Args, Serve};
use mcad_aggregator::clock::Clock;
use mcad_aggregator::merge::View;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::server::{self, Listeners};
use mcad_aggregator::store::{self, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> Result<()> {
    let args = Args::parse();
    args.check()?;
    log()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the async runtime could not start")?.block_on(serve(&args))
}

async fn serve(args: &Args) -> Result<()> {
    let shutdown = asked_to_end()?;
    let listeners = listen(&args.serve).await?;
    let store = Store::new(store::Limits::LOCAL);
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let replica = Replica::new(Clock::system(), View::Local, store, figures);
    announce(&listeners)?;
    server::run(listeners, Arc::new(replica), server::Limits::default(), shutdown).await;
    tracing::info!("ended");
    Ok(())
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

/// Programs that start this one read the ports from this line.
fn announce(listeners: &Listeners) -> Result<()> {
    let metrics = listeners.metrics.local_addr().context("no address of --listen")?;
    let reports = listeners.reports.local_addr().context("no address of --report-listen")?;
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
