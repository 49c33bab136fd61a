//! `mcad-agent status` as users run it: in a terminal, in a pipe, and with a running agent.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_mcad-agent");

fn status(args: &[&str]) -> Output {
    let mut command = Command::new(AGENT);
    command.args(args).env_remove("NODE_NAME").env_remove("RUST_LOG");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The same on a pseudo terminal: `script` is in every Debian.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let mut command = Command::new("script");
    let line = format!("{AGENT} --cgroup-source files status");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm");
    command.env_remove("NO_COLOR").env_remove("RUST_LOG").envs(no_color.map(|set| ("NO_COLOR", set)));
    text(&command.output().unwrap())
}

#[test]
fn a_pipe_gets_plain_lines_of_this_node() {
    let said = text(&status(&["--cgroup-source", "files", "--node-name", "n-1", "status"]));
    assert!(said.starts_with("Node n-1\nSampled now, over "), "{said}");
    let cores = std::thread::available_parallelism().unwrap();
    assert!(said.contains("\ncpu, in cores\n  installed") && said.contains(&cores.to_string()), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains('█'), "{said:?}");
}

#[test]
fn a_terminal_gets_colours_and_bars_unless_they_are_unwanted() {
    let said = on_a_terminal(None);
    assert!(said.contains("\x1b[1mNode ") && said.contains('░'), "{said:?}");
    let plain = on_a_terminal(Some("1"));
    assert!(plain.contains("Node ") && !plain.contains('\u{1b}') && !plain.contains('░'), "{plain:?}");
}

/// A running agent with its own port; killed if the test ends before it.
struct Agent(Child, String);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start() -> (Self, TcpListener) {
        // Accepts connections and never responds: the agent still has its own samples.
        let aggregator = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", aggregator.local_addr().unwrap());
        let mut command = Command::new(AGENT);
        command.args(["--cgroup-source", "files", "--node-name", "n-2", "--interval", "100ms"]);
        command.args(["--aggregator", &url, "--listen", "127.0.0.1:0", "--report-cgroups", "all"]);
        let mut child = command.env_remove("RUST_LOG").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let opened = lines.find(|line| line.contains("own port open")).unwrap();
        let address = opened.split("address=").nth(1).unwrap().to_owned();
        // A process whose log goes to a pipe that nothing reads would block at some time.
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child, address), aggregator)
    }
}

#[test]
fn an_agent_that_runs_tells_what_it_has_sampled() {
    let (mut agent, _aggregator) = Agent::start();
    let url = format!("http://{}", agent.1);
    // It begins at its offset in the interval; two reports later there are rates.
    let said = loop {
        assert!(agent.0.try_wait().unwrap().is_none(), "the agent has ended");
        let asked = status(&["status", "--from", &url]);
        if asked.status.success() && !text(&asked).contains("for the first time") {
            break text(&asked);
        }
    };
    assert!(said.starts_with("Node n-2\nThe agent sampled "), "{said}");
    assert!(said.contains(" s ago, over ") && !said.contains("unknown\n"), "{said}");
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let asked = status(&["status", "--from", &format!("http://{address}")]);
    let errors = String::from_utf8(asked.stderr).unwrap();
    assert_eq!((asked.status.code(), asked.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(errors.contains(&format!("cannot connect to an agent at {address}")), "{errors}");
    assert_eq!(status(&["status", "--from", "127.0.0.1:1"]).status.code(), Some(2));
}
