//! The node's API server: restarted by this program, so that it writes an audit log and can be stopped for a while.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::kubectl::kubectl;
use super::network::API_SERVER;
use super::node;
use super::wait::until;

/// Records who requests what, without the responses. The first stage of each request adds no information.
const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The API server, as a child of this process.
pub(super) struct ApiServer {
    words: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl ApiServer {
    /// Ends the running API server, and starts it again with an audit log.
    pub(super) fn take_over(work: &Path) -> Result<Self> {
        let running =
            node::processes().find(|process| process.words.first().is_some_and(|it| it.ends_with("kube-apiserver")));
        let running = running.context("no kube-apiserver runs")?;
        let policy = work.join("audit-policy.yaml");
        std::fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
        let mut words = running.words;
        words.push(format!("--audit-policy-file={}", policy.display()));
        words.push(format!("--audit-log-path={}", Self::audit_log(work).display()));
        let pid = Pid::from_raw(running.pid).context("the process has no id")?;
        kill_process(pid, Signal::KILL).context("cannot end the API server")?;
        until("the API server ended", 30, || {
            // The process is reaped by its own parent, so a free port shows that it ended.
            ensure!(TcpStream::connect(API_SERVER).is_err(), "the API server still listens");
            Ok(())
        })?;
        let mut server = Self { words, log: work.join("api-server.log"), child: None };
        server.start()?;
        Ok(server)
    }

    /// The file of the audit log.
    pub(super) fn audit_log(work: &Path) -> PathBuf {
        work.join("audit.log")
    }

    /// Kills it.
    pub(super) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot end the API server")?;
            child.wait().context("cannot wait for the API server")?;
        }
        Ok(())
    }

    /// Starts it, and waits until it is ready.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot start the API server")?);
        until("the API server is ready", 60, || kubectl(&["get", "--raw", "/readyz"])).map(drop)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _gone = self.kill();
    }
}
