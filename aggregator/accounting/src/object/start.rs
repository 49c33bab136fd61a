//! When a pod was bound, and when its containers started for the first time. Until then, the devices of its AppWrapper wait for that.
use serde::Deserialize;

use super::meta::{RawCondition, instant_ms, nullable};
use super::needed::Needed::{self, Fields, Whole};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// When the pod was bound, in ms since the Unix epoch. `None` if it is not, or if that is not known.
    pub bound_at_ms: Option<i64>,
    /// By name; only of a pod that may hold devices.
    containers: Box<[(Box<str>, Start)]>,
}

/// The first start of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this time, in ms since the Unix epoch.
    At(i64),
    /// At some time before its last start.
    Before,
    /// It did not start yet.
    NotYet,
    /// Kubelet waits before it tries again to start it, because it failed.
    BackOff,
}

impl Start {
    /// From the status of a container.
    pub(super) fn of(now: &RawState, before: &RawState, restarts: u64) -> Self {
        if now.waiting.as_ref().is_some_and(|waiting| waiting.reason.ends_with("BackOff")) {
            return Self::BackOff;
        }
        // Kubernetes keeps the last start before this one, but none before that.
        if restarts > 1 {
            return Self::Before;
        }
        before.started().or_else(|| now.started()).unwrap_or(Self::NotYet)
    }

    /// The first start of two containers.
    #[must_use]
    pub fn first(self, other: Self) -> Self {
        let rank = |start: Self| match start {
            Self::Before => (0, 0),
            Self::At(ms) => (1, ms),
            Self::NotYet => (2, 0),
            Self::BackOff => (3, 0),
        };
        if rank(self) <= rank(other) { self } else { other }
    }
}

impl Starts {
    pub(super) fn new<'a>(
        conditions: &[RawCondition],
        statuses: impl Iterator<Item = (&'a str, Start)>,
        may_hold_devices: bool,
    ) -> Self {
        let bound = conditions.iter().find(|condition| condition.kind == "PodScheduled" && condition.status == "True");
        let containers = statuses.filter(|_| may_hold_devices).map(|(name, start)| (name.into(), start));
        Self {
            bound_at_ms: bound.and_then(|bound| instant_ms(&bound.last_transition_time)),
            containers: containers.collect(),
        }
    }

    /// The first start of a container. `None` if the pod's status does not have the container.
    pub(super) fn of(&self, container: &str) -> Option<Start> {
        let found = self.containers.iter().find(|(name, _)| **name == *container);
        found.map(|(_, start)| *start)
    }
}

/// The fields of [`RawState`].
pub(super) const STATE: Needed =
    Fields(&[("waiting", Fields(&[("reason", Whole)])), ("running", STARTED), ("terminated", STARTED)]);
const STARTED: Needed = Fields(&[("startedAt", Whole)]);

/// The state of a container, or its state before its last restart.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawState {
    waiting: Option<RawWaiting>,
    running: Option<RawStarted>,
    terminated: Option<RawStarted>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawWaiting {
    #[serde(deserialize_with = "nullable")]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawStarted {
    #[serde(deserialize_with = "nullable")]
    started_at: String,
}

impl RawState {
    /// When the container started, if it did.
    fn started(&self) -> Option<Start> {
        let started = self.running.as_ref().or(self.terminated.as_ref())?;
        Some(instant_ms(&started.started_at).map_or(Start::Before, Start::At))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn start(status: &Value) -> Start {
        let state = |key: &str| serde_json::from_value(status.get(key).cloned().unwrap_or_else(|| json!({}))).unwrap();
        Start::of(&state("state"), &state("lastState"), status["restartCount"].as_u64().unwrap_or(0))
    }

    #[test]
    fn the_first_start_is_the_earliest_that_is_known() {
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
        let ms = |second: u32| Start::At(instant_ms(&at(second)).unwrap());
        let cases = [
            (json!({"state": {"running": {"startedAt": at(4)}}}), ms(4)),
            (json!({"state": {"terminated": {"startedAt": at(5)}}, "restartCount": 0}), ms(5)),
            (json!({"state": {"waiting": {"reason": "ContainerCreating"}}}), Start::NotYet),
            (json!({}), Start::NotYet),
            (json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}), Start::BackOff),
            (
                json!({
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"startedAt": at(6)}}, "restartCount": 1,
                }),
                Start::BackOff,
            ),
            (
                json!({
                    "state": {"running": {"startedAt": at(9)}},
                    "lastState": {"terminated": {"startedAt": at(7)}}, "restartCount": 1,
                }),
                ms(7),
            ),
            (json!({"state": {"running": {"startedAt": at(9)}}, "restartCount": 2}), Start::Before),
            (json!({"state": {"running": {}}}), Start::Before),
        ];
        for (status, expected) in cases {
            assert_eq!(start(&status), expected, "{status}");
        }
    }
}
