//! mcad-aggregator: from the command line to the drain.
use std::convert::Infallible;
use std::future::Future;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use futures::future::{BoxFuture, join_all};
use kube::Client;
use mcad_accounting::nodes::REPORT_BYTES;
use mcad_aggregator::args::kubeconfig::Kubeconfig;
use mcad_aggregator::args::plugin::Output;
use mcad_aggregator::args::trust::{Protection, ReportAuth, Tls};
use mcad_aggregator::args::{self, Args, Command, Serve};
use mcad_aggregator::clock::Clock;
use mcad_aggregator::clock::api::ApiClock;
use mcad_aggregator::input::Input;
use mcad_aggregator::leader::lease::{self, Candidate};
use mcad_aggregator::leader::{Leadership, election};
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::server::{self, Guard, Listeners};
use mcad_aggregator::state_transfer;
use mcad_aggregator::transfer_state::TransferState;
use mcad_aggregator::trust::authority::{Keeper, Places};
use mcad_aggregator::trust::files::Files;
use mcad_aggregator::trust::identity::{self, Tokens};
use mcad_aggregator::trust::peers::Credentials;
use mcad_aggregator::trust::tls::Certificates;
use mcad_aggregator::watch::Settings;
use mcad_aggregator::{connection, dumper, fit, live, open_files, verbs, whatif};
use mcad_present::version;
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::filter::LevelFilter;

/// Allocates and frees the parts of a report much faster than glibc's allocator, which took most of the time of a report.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    verbs::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Some(Command::Explain(explain)) => {
            explain.source.check()?;
            verbs::log(LevelFilter::WARN)?;
            let output = if explain.json { Output::Json } else { Output::Table };
            return verbs::explain(&explain.source, explain.node.as_deref(), output);
        }
        Some(Command::Fit(args)) => {
            let output = if args.json { Output::Json } else { Output::Table };
            return Ok(fit::run(&args.submit, &args.source, args.namespace.as_deref(), output));
        }
        Some(Command::Whatif(args)) => {
            let output = if args.json { Output::Json } else { Output::Table };
            return Ok(whatif::run(&args.imagined, &args.source, output));
        }
        Some(Command::Dump(args)) => {
            verbs::log(LevelFilter::WARN)?;
            return verbs::runtime()?.block_on(dumper::dump(args));
        }
        Some(Command::Completions { shell }) => {
            return verbs::completions(*shell, &mut Args::command(), "mcad-aggregator");
        }
        None => {}
    }
    args.check()?;
    verbs::log(LevelFilter::INFO)?;
    if args.metrics.print_metrics {
        return print_metrics(args);
    }
    let reports = server::report_runtime().context("cannot start the runtime for reports")?;
    let watches = live::runtime().context("cannot start the runtime for watches")?;
    verbs::runtime()?.block_on(serve(args, reports.handle(), watches.handle()))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args, report_runtime: &Handle, watch_runtime: &Handle) -> Result<()> {
    let shutdown = asked_to_end()?;
    let listeners = listen(&args.serve, report_runtime).await?;
    let self_metrics = SelfMetrics::new().context("cannot register the self-metrics")?;
    let input = Input::read(&args.inputs, &args.metrics, report_memory(&args.trust))?;
    input.warn();
    let replica = Replica::new(Clock::system(), input.known, self_metrics);
    let clock = ApiClock::new(Clock::system());
    let client = if args.inputs.is_kube() { Some(client(&clock).await?) } else { None };
    let Trusted { guard, keep, peers } = trust(args, listeners.reports.local_addr()?, client.as_ref(), &clock)?;
    let listening = addresses(&listeners, &guard)?;
    if let (true, Some(client)) = (args.replicas.elect(&args.inputs), &client) {
        let client = client.clone();
        return Box::pin(serve_among_others(
            args,
            (client, clock),
            listeners,
            Trusted { guard, keep, peers },
            replica,
            watch_runtime,
            shutdown,
        ))
        .await;
    }
    announce(&listening)?;
    let replica = Arc::new(replica);
    let serve = server::run(listeners, Arc::clone(&replica), guard, room(), shutdown);
    let watch = async {
        match client {
            Some(client) => {
                let settings = Settings::of(&args.metrics.options());
                live::run(client, settings, replica, watch_runtime).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serve => {}
        ended = watch => ended.context("cannot start the thread that computes the fit of AppWrappers")?,
        _ = join_all(keep) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves as one of several replicas. The holder of the Lease is the leader.
async fn serve_among_others(
    args: &Args,
    (client, clock): (Client, ApiClock),
    listeners: Listeners,
    Trusted { guard, keep, peers }: Trusted,
    replica: Replica,
    watch_runtime: &Handle,
    asked_to_end: impl Future<Output = ()>,
) -> Result<()> {
    let listening = addresses(&listeners, &guard)?;
    let reports = listeners.reports.local_addr().context("the address of --report-listen cannot be determined")?;
    let flags = &args.replicas;
    let settings = election::Settings { identity: identity(), duration: Duration::from_secs(flags.lease_duration) };
    let leadership = Leadership::elected(settings.speaks());
    let replica = Arc::new(replica.among_others(settings.identity.clone(), leadership.clone()));
    let watched = Settings::of(&args.metrics.options());
    let name = lease::Name { namespace: flags.lease_namespace.clone(), name: flags.lease_name.clone() };
    let standing = || replica.standing();
    let address = advertised(reports, flags.pod_ip);
    let candidate = Candidate::new(client.clone(), &name, settings, address, clock, leadership.clone(), standing);
    let holder = candidate.holder();
    let handover = Duration::from_secs(flags.handover);
    let (leave, left) = oneshot::channel();
    let end = async {
        asked_to_end.await;
        leadership.hand_over(replica.now(), handover).await;
        // An error means that the candidate has ended already.
        let _ = leave.send(());
    };
    // Reports and scrapes are served until the Lease is given back.
    let shutdown = async {
        tokio::join!(candidate.run(left), end);
    };
    let past = async {
        if let Some(credentials) = peers {
            state_transfer::run(Arc::clone(&replica), holder, &credentials).await;
        } else {
            tracing::warn!(
                "this replica starts without the state transfer, because it has no credentials to request it from \
                 another replica: set --peer-ca and --peer-token"
            );
            replica.past_is(TransferState::Unknown);
        }
        std::future::pending::<()>().await;
    };
    announce(&listening)?;
    tokio::select! {
        () = server::run(listeners, Arc::clone(&replica), guard, room(), shutdown) => {}
        ended = live::run(client, watched, Arc::clone(&replica), watch_runtime) => ended.context("cannot start the thread that computes the fit of AppWrappers")?,
        () = past => {}
        _ = join_all(keep) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// The limits of connections, from the limit of open files.
fn room() -> server::Limits {
    let open_files = open_files::raise();
    let limits = server::Limits::default().with_open_files(open_files);
    let connections = limits.report_connections;
    if connections < server::Limits::default().report_connections {
        tracing::warn!(
            open_files,
            connections,
            "the limit of open files allows fewer connections than a large cluster has agents: raise `ulimit -Hn`"
        );
    } else {
        tracing::info!(open_files, connections, "limit of connections from agents");
    }
    limits
}

/// The identity of this process. It differs after a restart, so a Lease held before the restart belongs to another holder.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The standard library seeds each state anew.
    let life = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!("{host}_{life:016x}")
}

/// The address at which other replicas reach the report port.
fn advertised(reports: SocketAddr, pod_ip: Option<IpAddr>) -> Option<String> {
    let ip = pod_ip.or(Some(reports.ip()).filter(|ip| !ip.is_unspecified()));
    if ip.is_none() {
        tracing::warn!(
            "other replicas cannot request the state transfer from this one, because its address is unknown: \
             set --pod-ip, or an address in --report-listen"
        );
    }
    ip.map(|ip| SocketAddr::new(ip, reports.port()).to_string())
}

/// The checks for clients that connect, and the tasks that keep certificates current.
struct Trusted {
    guard: Guard,
    /// Never empty, because joining no tasks would end at once.
    keep: Vec<BoxFuture<'static, Infallible>>,
    /// The credentials for requests to another replica. `None` if there are none.
    peers: Option<Credentials>,
}

fn trust(args: &Args, reports: SocketAddr, client: Option<&Client>, clock: &ApiClock) -> Result<Trusted> {
    let flags = &args.trust;
    let protection = flags.protection(reports, client.is_some())?;
    let peers = flags.peers(&protection, client.map_or("", Client::default_namespace))?;
    let Protection { auth, tls } = protection;
    let mut guard = Guard::default();
    let mut keep: Vec<BoxFuture<'static, Infallible>> = vec![Box::pin(std::future::pending())];
    if let (ReportAuth::Token, Some(client)) = (auth, client) {
        let account = flags.service_account(client.default_namespace());
        tracing::info!(account, "reports are accepted with tokens of this ServiceAccount");
        guard.tokens = Some(Tokens::new(client.clone(), account, Clock::system(), identity::Limits::default()));
        let account = peers.as_ref().map(Credentials::service_account).transpose().context("--peer-token")?.flatten();
        let peers = |account| Tokens::new(client.clone(), account, Clock::system(), identity::Limits::PEERS);
        guard.peers = account.map(peers);
    }
    guard.report_tls = match (tls, client) {
        (Tls::Off, _) | (Tls::Own, None) => None,
        (Tls::Files(files), _) => Some(given(files, &mut keep)?),
        (Tls::Own, Some(client)) => {
            let certificates = Certificates::default();
            let namespace = client.default_namespace().to_owned();
            let names = flags.names(&namespace);
            let (secret, config_map) = (flags.tls_secret.clone(), flags.tls_bundle.clone());
            let places = Places { namespace, secret, config_map };
            let keeper = Keeper::new(client.clone(), places, names, clock.clone(), certificates.clone());
            keep.push(Box::pin(keeper.keep()));
            Some(certificates)
        }
    };
    guard.metrics_tls = flags.metrics_files().map(|files| given(files, &mut keep)).transpose()?;
    Ok(Trusted { guard, keep, peers })
}

/// A certificate in files, which must exist at the start.
fn given(files: Files, keep: &mut Vec<BoxFuture<'static, Infallible>>) -> Result<Certificates> {
    let certificates = Certificates::default();
    let shown = files.show(&certificates)?;
    let followed = certificates.clone();
    keep.push(Box::pin(async move { files.follow(&followed, shown).await }));
    Ok(certificates)
}

/// In bytes.
fn report_memory(flags: &args::trust::Trust) -> u64 {
    u64::try_from(flags.report_memory.units()).unwrap_or(u64::MAX)
}

fn print_metrics(args: &Args) -> Result<ExitCode> {
    let input = Input::read(&args.inputs, &args.metrics, REPORT_BYTES)?;
    input.warn();
    let code = input.exit_code();
    let self_metrics = SelfMetrics::new().context("cannot register the self-metrics")?;
    let mut text = Vec::new();
    Replica::new(Clock::system(), input.known, self_metrics).expose(&mut text)?;
    verbs::print(&text)?;
    Ok(code)
}

async fn listen(serve: &Serve, report_runtime: &Handle) -> Result<Listeners> {
    let metrics = bind(serve.listen, "--listen").await?;
    let reports = report_runtime.spawn(bind(serve.report_listen, "--report-listen"));
    Ok(Listeners { metrics, reports: reports.await??, report_runtime: report_runtime.clone() })
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// A client for the API server. The clock learns the time from its responses.
async fn client(clock: &ApiClock) -> Result<Client> {
    connection::client(connection::config(&Kubeconfig::default()).await?, clock)
}

/// The URLs of the listeners.
struct Listening {
    metrics: String,
    reports: String,
}

fn addresses(listeners: &Listeners, guard: &Guard) -> Result<Listening> {
    let scheme = |tls: &Option<Certificates>| if tls.is_some() { "https" } else { "http" };
    let metrics = listeners.metrics.local_addr().context("the address of --listen cannot be determined")?;
    let reports = listeners.reports.local_addr().context("the address of --report-listen cannot be determined")?;
    Ok(Listening {
        metrics: format!("{}://{metrics}", scheme(&guard.metrics_tls)),
        reports: format!("{}://{reports}", scheme(&guard.report_tls)),
    })
}

/// Programs that start this one read the ports from this line.
fn announce(Listening { metrics, reports }: &Listening) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening metrics={metrics} reports={reports}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")?;
    tracing::info!(%metrics, %reports, version = version::text(), "serving");
    Ok(())
}

fn asked_to_end() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
