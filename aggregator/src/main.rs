//! mcad-aggregator: from the command line to the drain.
mod dumper;
mod input;

use std::convert::Infallible;
use std::future::Future;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use futures::future::{BoxFuture, join_all};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use mcad_aggregator::args::trust::{Protection, ReportAuth, Tls};
use mcad_aggregator::args::{self, Args, Command, Explain, Serve};
use mcad_aggregator::clock::Clock;
use mcad_aggregator::clock::api::ApiClock;
use mcad_aggregator::leader::lease::{self, Candidate};
use mcad_aggregator::leader::{Leadership, election};
use mcad_aggregator::live;
use mcad_aggregator::open_files;
use mcad_aggregator::past::Past;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::seed;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::server::{self, Guard, Listeners};
use mcad_aggregator::store;
use mcad_aggregator::trust::authority::{Keeper, Places};
use mcad_aggregator::trust::files::Files;
use mcad_aggregator::trust::identity::{self, Tokens};
use mcad_aggregator::trust::peers::Credentials;
use mcad_aggregator::trust::tls::Certificates;
use mcad_aggregator::watch::Settings;
use mcad_present::explain::amount::{printable, printable_lines};
use mcad_present::explain::{self, Answer, Subject};
use mcad_present::version;
use mcad_terminal::paint::Paint;
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::input::Input;

/// Takes and frees the parts of a report in a fraction of the time of glibc's, which was most of what a report cost.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            // What is wrong may be a name, and a name may be anything; and whoever reads it may have left.
            let _ = writeln!(std::io::stderr(), "Error: {}", printable_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    if let Some(Command::Explain(args)) = &args.command {
        args.check()?;
        log(LevelFilter::WARN)?;
        return explain(args);
    }
    if let Some(Command::Dump(args)) = &args.command {
        log(LevelFilter::WARN)?;
        return runtime()?.block_on(dumper::dump(args));
    }
    if let Some(Command::Completions { shell }) = args.command {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "mcad-aggregator", &mut text);
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.check()?;
    log(LevelFilter::INFO)?;
    if args.figures.print_metrics {
        return print_metrics(args);
    }
    let reports = server::report_runtime().context("the runtime for reports could not start")?;
    let watches = live::runtime().context("the runtime for watches could not start")?;
    runtime()?.block_on(serve(args, reports.handle(), watches.handle()))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the async runtime could not start")
}

/// Prints an explanation. What could not be read or is missing is said, and is a failure, but what could be read is shown.
fn explain(args: &Explain) -> Result<ExitCode> {
    let input = Input::read(&args.inputs, &args.figures, store::REPORT_BYTES)?;
    // In a terminal it stands above the figures.
    if args.json || !std::io::stdout().is_terminal() {
        for complaint in input.complaints() {
            // Whoever reads it may have had enough; the exit code says it, too.
            let _ = writeln!(std::io::stderr(), "{}", printable(&complaint));
        }
    }
    let code = input.exit_code();
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let replica = Replica::new(Clock::system(), input.mode, input.store, figures);
    if args.inputs.is_kube() {
        let wait = Duration::from_secs(args.wait);
        runtime()?.block_on(async {
            Ok(live::until_known(client(&ApiClock::new(Clock::system())).await?, Settings::default(), &replica, wait)
                .await?) as Result<()>
        })?;
    }
    let subject = args.node.clone().map_or(Subject::Cluster, Subject::Node);
    let answer = Answer::on(&subject, &replica.snapshot(), replica.now())?;
    let text =
        if args.json { explain::json(&answer)? + "\n" } else { explain::text(&answer, Paint::of(&std::io::stdout())) };
    print(text.as_bytes())?;
    Ok(code)
}

async fn serve(args: &Args, report_runtime: &Handle, watch_runtime: &Handle) -> Result<()> {
    let shutdown = asked_to_end()?;
    let listeners = listen(&args.serve, report_runtime).await?;
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let input = Input::read(&args.inputs, &args.figures, report_memory(&args.trust))?;
    input.warn();
    let replica = Replica::new(Clock::system(), input.mode, input.store, figures);
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
            Some(client) => live::run(client, Settings::default(), replica, watch_runtime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serve => {}
        ended = watch => ended.context("the thread that fits could not start")?,
        _ = join_all(keep) => {}
    }
    tracing::info!("ended");
    Ok(())
}

/// As one of several replicas: the Lease says who speaks for the cluster.
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
    let reports = listeners.reports.local_addr().context("no address of --report-listen")?;
    let flags = &args.replicas;
    let settings = election::Settings { identity: identity(), duration: Duration::from_secs(flags.lease_duration) };
    let leadership = Leadership::elected(settings.speaks());
    let replica = Arc::new(replica.among_others(settings.identity.clone(), leadership.clone()));
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
        // An error: it has ended already.
        let _ = leave.send(());
    };
    // Reports and scrapes are served until the Lease is given back.
    let shutdown = async {
        tokio::join!(candidate.run(left), end);
    };
    let past = async {
        if let Some(credentials) = peers {
            seed::run(Arc::clone(&replica), holder, &credentials).await;
        } else {
            tracing::warn!(
                "no other replica can be asked for totals of the past, so this one starts without: give --peer-ca and --peer-token"
            );
            replica.past_is(Past::Unknown);
        }
        std::future::pending::<()>().await;
    };
    announce(&listening)?;
    tokio::select! {
        () = server::run(listeners, Arc::clone(&replica), guard, room(), shutdown) => {}
        ended = live::run(client, Settings::default(), Arc::clone(&replica), watch_runtime) => ended.context("the thread that fits could not start")?,
        () = past => {}
        _ = join_all(keep) => {}
    }
    tracing::info!("ended");
    Ok(())
}

/// How many connections there is room for, by the files that may be open.
fn room() -> server::Limits {
    let open_files = open_files::raise();
    let limits = server::Limits::default().with_open_files(open_files);
    let connections = limits.report_connections;
    if connections < server::Limits::default().report_connections {
        tracing::warn!(open_files, connections, "room for fewer agents than a large cluster has: raise `ulimit -Hn`");
    } else {
        tracing::info!(open_files, connections, "room for agents");
    }
    limits
}

/// This replica, in this life of it: who holds a Lease from before a restart is someone else.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The standard library seeds each state anew.
    let life = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!("{host}_{life:016x}")
}

/// Where other replicas reach the report port.
fn advertised(reports: SocketAddr, pod_ip: Option<IpAddr>) -> Option<String> {
    let ip = pod_ip.or(Some(reports.ip()).filter(|ip| !ip.is_unspecified()));
    if ip.is_none() {
        tracing::warn!("neither --pod-ip nor --report-listen says at which address another replica can ask for totals");
    }
    ip.map(|ip| SocketAddr::new(ip, reports.port()).to_string())
}

/// What is asked of those who connect, and what keeps certificates current meanwhile.
struct Trusted {
    guard: Guard,
    /// Never empty, as an empty one would be through.
    keep: Vec<BoxFuture<'static, Infallible>>,
    /// By what another replica is asked. Absent: it can't be.
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
        tracing::info!(account, "reports are taken with tokens of this ServiceAccount");
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

/// A certificate in files, which must be there at the start.
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
    let input = Input::read(&args.inputs, &args.figures, store::REPORT_BYTES)?;
    input.warn();
    let code = input.exit_code();
    let figures = SelfMetrics::new().context("the figures about itself clash")?;
    let mut text = Vec::new();
    Replica::new(Clock::system(), input.mode, input.store, figures).expose(&mut text)?;
    print(&text)?;
    Ok(code)
}

/// Writes to standard output. Who reads no further has what was wanted: that is no failure.
fn print(text: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output could not be written"),
    }
}

async fn listen(serve: &Serve, report_runtime: &Handle) -> Result<Listeners> {
    let metrics = bind(serve.listen, "--listen").await?;
    let reports = report_runtime.spawn(bind(serve.report_listen, "--report-listen"));
    Ok(Listeners { metrics, reports: reports.await??, report_runtime: report_runtime.clone() })
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag} {address} could not be opened"))
}

/// A client of the API server: by `$KUBECONFIG`, `~/.kube/config`, or as the pod that this runs in.
/// What time its answers say it is, the clock hears.
async fn client(clock: &ApiClock) -> Result<Client> {
    let config = Config::infer().await.context(
        "there is no Kubernetes API server to watch: neither a kubeconfig ($KUBECONFIG, ~/.kube/config) nor a pod's service \
         account. Name one, or start with --cluster local to see this machine's agents as the nodes, or with --cluster \
         file:PATH to see a dump",
    )?;
    let builder = ClientBuilder::try_from(config).context("no client of the API server can be made of that")?;
    Ok(builder.with_layer(&clock.layer()).build())
}

/// Where it listens, by listener, as URLs.
struct Listening {
    metrics: String,
    reports: String,
}

fn addresses(listeners: &Listeners, guard: &Guard) -> Result<Listening> {
    let scheme = |tls: &Option<Certificates>| if tls.is_some() { "https" } else { "http" };
    let metrics = listeners.metrics.local_addr().context("no address of --listen")?;
    let reports = listeners.reports.local_addr().context("no address of --report-listen")?;
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
        .context("standard output could not be written")?;
    tracing::info!(%metrics, %reports, version = version::text(), "serving");
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

fn log(level: LevelFilter) -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(level.into());
    let filter = filter.from_env().context("RUST_LOG is not a filter such as `debug` or `info,hyper=debug`")?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}
