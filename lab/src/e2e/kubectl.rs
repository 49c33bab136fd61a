//! Runs kubectl as a user does.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A cluster, by its kubectl context; `None` is the current one.
#[derive(Clone, Default)]
pub(super) struct Cluster {
    context: Option<String>,
}

impl Cluster {
    pub(super) fn of_context(name: String) -> Self {
        Self { context: Some(name) }
    }

    /// kubectl with these arguments, for callers that run it themselves.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(self.context.iter().flat_map(|name| ["--context", name])).args(arguments);
        command
    }

    /// Runs it, and returns its output.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output().context("cannot start kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl get … -o json`.
    pub(super) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("the output of kubectl is not JSON")
    }
}

/// The same for the node that was started here.
pub(super) fn kubectl(arguments: &[&str]) -> Result<String> {
    Cluster::default().kubectl(arguments)
}

/// The same for `get`.
pub(super) fn get(arguments: &[&str]) -> Result<Value> {
    Cluster::default().get(arguments)
}

/// The objects of a list.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// `kubectl apply -f -`.
pub(super) fn apply(objects: &[Value]) -> Result<()> {
    let mut command = Command::new("kubectl");
    command.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("cannot start kubectl")?;
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    child.stdin.take().context("kubectl has no standard input")?.write_all(list.to_string().as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "kubectl apply exited with {status}");
    Ok(())
}
