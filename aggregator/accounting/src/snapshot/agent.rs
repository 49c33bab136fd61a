//! The state of a node's agent at one instant.
use std::time::Duration;

use crate::node_name::NodeName;
use crate::reported::{GpuSource, Sources};

/// The state of the agent of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Its node.
    pub node: NodeName,
    /// Whether the node should have an agent.
    pub expectation: Expectation,
    /// Whether the agent reports.
    pub health: AgentHealth,
    /// Time since its last report. `None` if it never reported, or if its reports are replayed and have no age.
    pub report_age: Option<Duration>,
    /// How far its node's clock is ahead of this process's clock, in ms. `None` if that is not known or the agent is
    /// silent.
    pub clock_skew_ms: Option<i64>,
    /// The sources of its measurements. `None` if it is down.
    pub sources: Option<Sources>,
}

impl Agent {
    /// Whether the GPUs that it reports come from the test library `fake-nvml`.
    pub fn has_fake_gpus(&self) -> bool {
        self.sources.is_some_and(|sources| sources.gpus == Some(GpuSource::Fake))
    }
}

/// Whether a node should have an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It should have one.
    Expected,
    /// It may have one.
    NotExpected,
}

/// Whether an agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// It reports.
    Up,
    /// It has not reported for three intervals.
    Down,
}
