//! `mcad-agent --listen` without an aggregator, as Prometheus sees it: the node's own metrics, with GPUs through
//! fake-nvml.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use fake_nvml::Installation;
use fake_nvml::scenario::Scenario;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running exporter; killed if the test ends before it.
struct Exporter {
    child: Child,
    address: String,
    log: std::thread::JoinHandle<Vec<String>>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    fn start(nvml: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcad-agent"));
        command.args(["--listen", "127.0.0.1:0", "--nvml", nvml, "--node-name", "n-3", "--interval", "1s"]);
        command.args(["--cgroup-source", "files"]).env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let opened = lines.find(|line| line.contains("own port open")).unwrap();
        let address = opened.split("address=").nth(1).unwrap().to_owned();
        Self { child, address, log: std::thread::spawn(move || lines.collect()) }
    }

    fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer
    }
}

#[test]
fn one_program_serves_one_machine() {
    let directory = TempDir::new().unwrap();
    let mut scenario = Scenario::of(8, "H100 80GB HBM3");
    scenario.devices[2].fabric_status = 999;
    let library = Installation::built_for_this_test().unwrap();
    let installation = Installation::new(&library, directory.path(), &scenario).unwrap();
    let mut exporter = Exporter::start(installation.library().to_str().unwrap());
    let cores = "mcad_node_used{node=\"n-3\",owner=\"system\",resource=\"cpu\",unit=\"core\"} ";
    // The second sample has a rate. On a busy machine it may be late, and then it is not exported.
    let text = loop {
        assert!(exporter.child.try_wait().unwrap().is_none(), "the agent has ended");
        let text = exporter.scrape();
        if text.contains(cores) {
            break text;
        }
    };
    for line in [
        "mcad_node_installed{node=\"n-3\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
        "mcad_node_healthy{node=\"n-3\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 7",
        "mcad_node_agent_up{node=\"n-3\"} 1",
        "mcad_node_source{figure=\"cgroup\",node=\"n-3\",source=\"cgroupfs\"} 1",
        "mcad_node_gpus_fake{node=\"n-3\"} 1",
        "mcad_gpu_healthy{gpu=\"GPU-fa4e0000-0000-4000-8000-000000000001\",node=\"n-3\",reason=\"\"} 1",
        "mcad_gpu_healthy{gpu=\"GPU-fa4e0000-0000-4000-8000-000000000002\",node=\"n-3\",reason=\"fabric_failed\"} 0",
        "mcad_agent_reports_sent_total 0",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
    kill_process(Pid::from_child(&exporter.child), Signal::TERM).unwrap();
    assert_eq!(exporter.child.wait().unwrap().code(), Some(0));
    let log = std::mem::replace(&mut exporter.log, std::thread::spawn(Vec::new)).join().unwrap();
    assert!(log.iter().any(|line| line.contains("an exporter of this node, without an aggregator")), "{log:#?}");
}
