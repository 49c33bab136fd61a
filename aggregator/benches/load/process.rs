//! The aggregator's process: starts it as in a cluster, but on loopback, and reads its measurements from the kernel.
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use serde_json::json;
use tempfile::TempDir;

use crate::api_server::ACCOUNT;
use crate::support::{resident_bytes_of, scheduled_ns};

/// The unit of time in `/proc/PID/stat`: USER_HZ, the same on every supported machine.
const TICK: Duration = Duration::from_millis(10);

/// Killed when the benchmark ends.
pub(crate) struct Aggregator {
    child: Child,
    pub(crate) metrics: SocketAddr,
    pub(crate) reports: SocketAddr,
    /// The certificate of its server.
    pub(crate) certificate: CertificateDer<'static>,
    _files: TempDir,
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of a process.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    at: Instant,
    /// Of all its threads, including ended ones.
    cpu: Duration,
    /// Of the thread that computes fit.
    fit: Duration,
}

/// The CPU time between two readings.
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// Of all threads but the one that computes fit.
    pub(crate) cpu: Duration,
    pub(crate) fit: Duration,
}

impl Spent {
    pub(crate) fn share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

impl Aggregator {
    pub(crate) fn start(api_server: SocketAddr) -> Self {
        let files = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            let path = files.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "load",
            "clusters": [{"name": "load", "cluster": {"server": format!("http://{api_server}")}}],
            "users": [{"name": "load", "user": {}}],
            "contexts": [{"name": "load", "context": {"cluster": "load", "user": "load", "namespace": "metrics"}}],
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator"))
            .args(["--listen", "127.0.0.1:0", "--report-listen", "127.0.0.1:0", "--report-auth", "token"])
            .args(["--agent-service-account", ACCOUNT, "--leader-elect", "off"])
            .arg("--tls-cert")
            .arg(write("tls.crt", made.cert.pem()))
            .arg("--tls-key")
            .arg(write("tls.key", made.signing_key.serialize_pem()))
            .env("KUBECONFIG", write("kubeconfig", kubeconfig.to_string()))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap();
        let (metrics, reports) = (address("metrics=http://"), address("reports=https://"));
        Self { child, metrics, reports, certificate: made.cert.der().clone(), _files: files }
    }

    /// The CPU time since its start.
    pub(crate) fn taken(&self) -> Taken {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The command's name is the second field, in parentheses; utime and stime are the 14th and 15th field.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u32 = fields[11..13].iter().map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        Taken { at: Instant::now(), cpu: TICK * ticks, fit: self.fit() }
    }

    fn fit(&self) -> Duration {
        let folder = format!("{}/task", self.child.id());
        let threads = fs::read_dir(format!("/proc/{folder}")).unwrap().flatten();
        let of = |thread: fs::DirEntry| {
            let comm = fs::read_to_string(thread.path().join("comm")).ok()?;
            let thread = format!("{folder}/{}", thread.file_name().to_string_lossy());
            scheduled_ns(&thread).filter(|_| comm.trim() == "fit")
        };
        Duration::from_nanos(threads.filter_map(of).sum())
    }

    pub(crate) fn since(&self, before: Taken) -> Spent {
        let now = self.taken();
        let fit = now.fit.saturating_sub(before.fit);
        Spent { elapsed: now.at - before.at, cpu: now.cpu.saturating_sub(before.cpu + fit), fit }
    }

    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes_of(self.child.id())
    }

    /// Sends a request to the port for scrapes and returns the whole answer, head and body.
    pub(crate) fn get(&self, path: &str, encoding: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        // HTTP/1.0: the body ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\naccept-encoding: {encoding}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Whether it knows the cluster.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/ready", "identity").get(9..12) == Some(b"200")
    }

    /// Series of these families that are not 0, as in `/metrics`.
    pub(crate) fn counted(&self, families: &[&str]) -> Vec<String> {
        let text = String::from_utf8(self.get("/metrics", "identity")).unwrap();
        let lines = text.lines().filter(|line| families.iter().any(|family| line.starts_with(family)));
        lines.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
    }
}
