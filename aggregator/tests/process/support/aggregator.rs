//! The aggregator's own process as its users meet it: started with flags, asked over HTTP, sent reports, ended.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use mcad_wire::report::Report;
use prost::Message as _;
use tempfile::NamedTempFile;

use super::wait::PATIENCE;

/// What a process of our own would take from this one's environment.
const OUT_OF_THE_ENVIRONMENT: [&str; 7] =
    ["MCAD_CLUSTER", "MCAD_LISTEN", "MCAD_REPORT_LISTEN", "RUST_LOG", "KUBECONFIG", "POD_IP", "COLUMNS"];

/// The program, with these arguments and nothing of this process's environment that would change them.
pub(crate) fn command(args: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_mcad-aggregator"), args)
}

/// The same of `kubectl mcad`.
pub(crate) fn plugin(args: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_kubectl-mcad"), args)
}

fn program(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in OUT_OF_THE_ENVIRONMENT {
        command.env_remove(name);
    }
    command
}

/// A running aggregator; killed if the test ends before it.
pub(crate) struct Aggregator {
    child: Child,
    /// Addresses, without a scheme.
    pub(crate) metrics: String,
    pub(crate) reports: String,
    log: NamedTempFile,
}

impl Aggregator {
    /// One with these flags, on free ports of loopback where they name none.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(command(args), args)
    }

    /// The same, watching by a kubeconfig.
    pub(crate) fn watching(kubeconfig: &Path, args: &[&str]) -> Self {
        let mut command = command(args);
        command.env("KUBECONFIG", kubeconfig);
        Self::spawn(command, args)
    }

    /// One that this command starts, with these flags among its own.
    pub(crate) fn spawn(mut command: Command, args: &[&str]) -> Self {
        for flag in ["--listen", "--report-listen"] {
            if !args.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        // A pipe that nobody reads would be full one day, and the aggregator wait for a reader.
        let log = NamedTempFile::new().unwrap();
        let mut child = command.stderr(log.reopen().unwrap()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut started = Self { child, metrics: String::new(), reports: String::new(), log };
        let words: Vec<_> = line.split_whitespace().collect();
        let ["listening", metrics, reports] = words[..] else { panic!("{line:?}: {}", started.log()) };
        let address = |word: &str, name: &str| word.strip_prefix(name).unwrap().split_once("://").unwrap().1.to_owned();
        (started.metrics, started.reports) = (address(metrics, "metrics="), address(reports, "reports="));
        started
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Head and body of the answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        // HTTP/1.0 has no chunks: the body ends with the connection.
        exchange(&self.metrics, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(), PATIENCE)
    }

    /// All of `/metrics`.
    pub(crate) fn scrape(&self) -> String {
        whole(&self.get("/metrics").unwrap()).expect("an exposition").to_owned()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/ready").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    /// Sends a report, which must be taken.
    pub(crate) fn report(&self, report: &Report) {
        let answer = exchange(&self.reports, &post(report, None), PATIENCE).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }

    /// Sends it a signal, such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{} said:\n{}", self.metrics, self.log());
        }
    }
}

/// One scrape, as Prometheus would; None where nobody answers soon: a paused process takes connections and says nothing.
pub(crate) fn glance(address: &str) -> Option<String> {
    let answer = exchange(address, b"GET /metrics HTTP/1.0\r\n\r\n", Duration::from_secs(2))?;
    whole(&answer).map(str::to_owned)
}

/// The exposition of an answer. Prometheus would see one that was cut; here it shows in its last family.
fn whole(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.contains(" 200 OK") && body.contains("\nmcad_aggregator_scrapes_cut_total")).then_some(body)
}

/// A POST of a report on a connection of its own.
pub(crate) fn post(report: &Report, token: Option<&str>) -> Vec<u8> {
    let body = report.encode_to_vec();
    let authorization = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let head = format!(
        "POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
         {authorization}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// The answer; None where there is none.
pub(crate) fn exchange(address: &str, request: &[u8], patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
