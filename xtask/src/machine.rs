//! This machine as the aggregator's `/api/v1/nodes` returns it. `run` shows it.

use anyhow::{Context, Result};
use serde_json::Value;

/// The device plugin's resource name of GPUs.
pub(crate) const GPU: &str = "nvidia.com/gpu";

/// This machine at one instant. What the aggregator does not know is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Machine {
    /// Whether its agent reports.
    pub(crate) is_up: bool,
    /// Time since the last report. `None` if there was none.
    pub(crate) report_age_s: Option<f64>,
    /// How the agent reads cgroups: `bpf`, `cgroupfs` or `none`.
    pub(crate) cgroup_source: Option<String>,
    /// Whether the GPUs are simulated.
    pub(crate) has_fake_gpus: bool,
    /// In cores.
    pub(crate) cpu: Amounts,
    /// In bytes.
    pub(crate) memory: Amounts,
    /// In GPUs.
    pub(crate) gpu: Amounts,
    /// Path and CPU seconds of each cgroup, in the order of the response. The root is `/`.
    pub(crate) cgroups: Vec<(String, f64)>,
}

/// What the machine has of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Amounts {
    pub(crate) installed: Option<f64>,
    pub(crate) healthy: Option<f64>,
    /// What is used, by owner (`appwrapper`, `other`, `system`). `None` if it is not measured.
    pub(crate) used: Option<Vec<(String, f64)>>,
}

impl Amounts {
    /// The use of all owners together.
    pub(crate) fn used(&self) -> Option<f64> {
        Some(self.used.as_ref()?.iter().map(|(_, amount)| amount).sum())
    }

    fn of(ladder: &Value, unit: f64) -> Self {
        let amount = |name: &str| Some(ladder[name].as_f64()? / unit);
        let by_owner = |used: &serde_json::Map<String, Value>| {
            used.iter().filter_map(|(owner, amount)| Some((owner.clone(), amount.as_f64()? / unit))).collect()
        };
        Self {
            installed: amount("installed"),
            healthy: amount("healthy"),
            used: ladder["used"].as_object().map(by_owner).filter(|used: &Vec<_>| !used.is_empty()),
        }
    }
}

/// The machine in the body of a response. A list without nodes is a machine whose agent has not reported yet.
pub(crate) fn parse(body: &str) -> Result<Machine> {
    let answer: Value = serde_json::from_str(body).context("the response is not JSON")?;
    let nodes = answer["nodes"].as_array().context("the response has no list of nodes")?;
    Ok(nodes.first().map(machine).unwrap_or_default())
}

fn machine(node: &Value) -> Machine {
    let (agent, ladder) = (&node["agent"], &node["ladder"]);
    let cgroup = |cgroup: &Value| Some((cgroup["path"].as_str()?.to_owned(), cgroup["cpu_seconds"].as_f64()?));
    Machine {
        is_up: agent["state"] == "up",
        report_age_s: agent["report_age_seconds"].as_f64(),
        cgroup_source: agent["cgroup_source"].as_str().map(str::to_owned),
        has_fake_gpus: agent["has_fake_gpus"] == true,
        cpu: Amounts::of(&ladder["cpu_millicores"], 1000.0),
        memory: Amounts::of(&ladder["memory_bytes"], 1.0),
        gpu: Amounts::of(&ladder["devices"][GPU], 1.0),
        cgroups: node["cgroups"].as_array().into_iter().flatten().filter_map(cgroup).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_machine_and_what_it_lacks_is_unknown() {
        let body = r#"{"nodes": [{"name": "n", "agent": {"state": "up", "report_age_seconds": 0.5, "cgroup_source": "bpf"},
            "ladder": {"cpu_millicores": {"installed": 2000, "healthy": 2000, "used": {"system": 1500.5}},
                "memory_bytes": {"installed": 1024, "healthy": 1024}, "devices": {"nvidia.com/gpu": {"installed": 8}}},
            "cgroups": [{"path": "/a \"b\"", "cpu_seconds": 1.25}]}]}"#;
        let expected = Machine {
            is_up: true,
            report_age_s: Some(0.5),
            cgroup_source: Some("bpf".to_owned()),
            has_fake_gpus: false,
            cpu: Amounts { installed: Some(2.0), healthy: Some(2.0), used: Some(vec![("system".to_owned(), 1.5005)]) },
            memory: Amounts { installed: Some(1024.0), healthy: Some(1024.0), used: None },
            gpu: Amounts { installed: Some(8.0), healthy: None, used: None },
            cgroups: vec![("/a \"b\"".to_owned(), 1.25)],
        };
        assert_eq!(parse(body).unwrap(), expected);
    }

    #[test]
    fn a_list_without_nodes_is_a_machine_that_has_not_reported() {
        assert_eq!(parse(r#"{"nodes": []}"#).unwrap(), Machine::default());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in ["", "<html>", "{}", "[]"] {
            assert!(parse(body).is_err(), "{body}");
        }
    }
}
