//! Shared by the benchmarks: how time and memory are measured, and how a result is printed with its budget. Each benchmark owns what it
//! measures.
#![allow(dead_code, reason = "compiled into every benchmark, and none uses all of it")]
pub(crate) mod counted;
pub(crate) mod objects;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// The results of a run are printed with the other load of the machine.
pub(crate) fn begin(what: &str) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split(' ').take(3).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{what}; {cores} cores, load {}", load.join(" "));
}

/// Prints one result and its budget.
pub(crate) fn figure(what: &str, figure: impl std::fmt::Display, budget: &str) {
    println!("  {what:<66} {figure:>20}  {budget}");
}

/// The times of many runs.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// From the times of runs.
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that a fraction of the runs stays below; 0.5 is the median.
    pub(crate) fn quantile(&self, fraction: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * fraction) as usize]
    }
}

/// The duration and the result of a step; the result is dropped after the clock was read.
pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let made = std::hint::black_box(run());
    (began.elapsed(), made)
}

/// The same in CPU time, which excludes other load on the machine. For steps of milliseconds.
pub(crate) fn on_cpu<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let began = cpu_ns();
    let made = std::hint::black_box(run());
    (Duration::from_nanos(cpu_ns() - began), made)
}

fn cpu_ns() -> u64 {
    scheduled_ns("thread-self").unwrap()
}

/// CPU time of one thread, by its folder below `/proc`; `None` once it is gone. For a process, that of its first thread.
pub(crate) fn scheduled_ns(thread: &str) -> Option<u64> {
    let schedstat = fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
    schedstat.split(' ').next()?.parse().ok()
}

/// Median wall and CPU times of `runs` runs.
pub(crate) fn both<T>(runs: usize, mut run: impl FnMut() -> T) -> String {
    let (mut clock, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (by_clock, (on_cpu, made)) = timed(|| on_cpu(&mut run));
        drop(made);
        clock.push(by_clock);
        cpu.push(on_cpu);
    }
    format!("{} / {}", spell(Times::new(clock).quantile(0.5)), spell(Times::new(cpu).quantile(0.5)))
}

/// A time with three digits.
pub(crate) fn spell(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    match ns {
        ..1e3 => format!("{ns} ns"),
        ..1e6 => format!("{:.2} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// Bytes as megabytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    status_bytes("self", "VmRSS:")
}

/// Resident memory of another process.
pub(crate) fn resident_bytes_of(process: u32) -> u64 {
    status_bytes(&process.to_string(), "VmRSS:")
}

/// The peak resident memory since [`forget_peak`].
pub(crate) fn peak_bytes() -> u64 {
    status_bytes("self", "VmHWM:")
}

/// Resets [`peak_bytes`].
pub(crate) fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn status_bytes(process: &str, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// TLS as in agents, for a server with this certificate.
pub(crate) fn trusting(certificate: &CertificateDer<'static>, protocol: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}
