//! Debian's package `prometheus`: a real one that scrapes each second, and promtool.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::aggregator::exchange;
use super::wait::{PATIENCE, until};

/// What starting a program gave; None, and said aloud, where this machine lacks it.
fn found<T>(program: &str, result: io::Result<T>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("{program}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}; Debian has it in `prometheus`");
            None
        }
    }
}

/// What promtool says of this on its standard input, with files that it looks for in `folder`; None, and said aloud, where
/// there is none.
pub(crate) fn promtool(args: &[&str], folder: &Path, input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = found("promtool", command.spawn())?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

/// All that a program said.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), output.stderr.as_slice()].concat()).unwrap()
}

/// A Prometheus that scrapes every second; it ends with the test.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    data: TempDir,
}

impl Prometheus {
    /// One that scrapes these addresses and evaluates these rules. None, and said aloud, where there is none on this machine.
    pub(crate) async fn start(targets: &[&str], rules: Option<&Path>) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("prometheus.yaml");
        // A target that starts later is added to the file that Prometheus watches.
        let files = json!([{"files": [data.path().join("targets.json")], "refresh_interval": "1s"}]);
        let text = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules.into_iter().collect::<Vec<_>>(),
            "scrape_configs": [{"job_name": "mcad-aggregator", "file_sd_configs": files}],
        });
        std::fs::write(&config, text.to_string()).unwrap();
        // It can't be asked to choose a port and tell.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = File::create(data.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = found("prometheus", child)?;
        let started = Self { child, address: free.to_string(), data };
        started.scrapes(targets);
        until("Prometheus answers", || started.get("/-/ready").is_some_and(|answer| answer.contains(" 200 "))).await;
        Some(started)
    }

    /// From now on it scrapes these.
    pub(crate) fn scrapes(&self, targets: &[&str]) {
        let file = self.data.path().join("targets.json");
        std::fs::write(file, json!([{"targets": targets}]).to_string()).unwrap();
    }

    fn get(&self, path: &str) -> Option<String> {
        exchange(&self.address, format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes(), PATIENCE)
    }

    /// The data of an answer of its API. An error fails the test.
    pub(crate) fn ask(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap();
        let mut body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].take()
    }

    /// The result of a query now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(expression)));
        data["result"].as_array().unwrap().clone()
    }

    /// The first series of a query between two times, by tenths of a second: times and values.
    pub(crate) fn range(&self, expression: &str, from_s: f64, to_s: f64) -> Vec<(f64, f64)> {
        let of = encoded(expression);
        let data = self.ask(&format!("/api/v1/query_range?query={of}&start={from_s:.3}&end={to_s:.3}&step=0.1"));
        let values = data["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|at| (at[0].as_f64().unwrap(), at[1].as_str().unwrap().parse().unwrap())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encoded(expression: &str) -> String {
    expression.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}
