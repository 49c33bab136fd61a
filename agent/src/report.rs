//! From a sample to what crosses the network. Pure: the same sample gives the same report.
//!
//! docs/report.md describes the format; which cgroups are listed is decided here.

mod gpus;

use mcad_wire::report::{Absence, Cgroup, Cgroups, Machine, REPORT_VERSION, Report};

use crate::pod_cgroup::{self, PodCgroup};
use crate::sample::{self, CgroupSample, Sample, SourceName};

/// What stays the same over all reports of one agent process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name, as Kubernetes knows it.
    pub node: String,
    /// The kernel's boot id; empty where it could not be read.
    pub boot_id: String,
    /// When this process started, in ms since the Unix epoch.
    pub started_at_ms: u64,
    /// The time between two reports that was asked for, in ms.
    pub interval_ms: u64,
    /// Version of this agent.
    pub agent_version: String,
}

/// Which cgroups a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Pods and their containers, and nothing above, beside or below them.
    Pods,
    /// Every cgroup of the machine.
    All,
}

/// Makes the report with this number out of one sample.
pub fn report(identity: &Identity, sequence: u64, sample: &Sample, listed: Listed) -> Report {
    Report {
        version: REPORT_VERSION,
        node: identity.node.clone(),
        boot_id: identity.boot_id.clone(),
        started_at_ms: identity.started_at_ms,
        sequence,
        sampled_at_ms: sample.at.unix_ms,
        uptime_ns: sample.at.uptime_ns,
        interval_ms: identity.interval_ms,
        agent_version: identity.agent_version.clone(),
        machine: machine(&sample.machine),
        cgroups: sample.cgroups.as_ref().map(|cgroups| list(cgroups, listed)),
        gpus: sample.gpus.as_ref().map(gpus::gpus),
        assignments: None,
        absences: absences(sample),
    }
}

fn machine(machine: &sample::Machine) -> Option<Machine> {
    (*machine != sample::Machine::default()).then_some(Machine {
        cpus_online: machine.cpus_online,
        cpu_busy_ns: machine.cpu_busy_ns,
        memory_total_bytes: machine.memory_total_bytes,
        memory_free_bytes: machine.memory_free_bytes,
        memory_inactive_file_bytes: machine.memory_inactive_file_bytes,
    })
}

fn list(sample: &CgroupSample, listed: Listed) -> Cgroups {
    Cgroups {
        source: sample.source.as_str().to_owned(),
        cgroups: sample.cgroups.iter().filter_map(|cgroup| entry(cgroup, listed)).collect(),
        seen: Some(sample.seen),
        dropped: Some(sample.dropped),
    }
}

fn entry(cgroup: &sample::Cgroup, listed: Listed) -> Option<Cgroup> {
    let place = pod_cgroup::parse(&cgroup.path);
    let own = matches!(place, Some(PodCgroup::Pod { .. } | PodCgroup::Container { .. }));
    if listed == Listed::Pods && !own {
        return None;
    }
    let (pod_uid, container_id) = match place {
        Some(PodCgroup::Pod { uid }) => (uid.to_string(), String::new()),
        Some(PodCgroup::Container { uid, id } | PodCgroup::InContainer { uid, id }) => (uid.to_string(), id.to_owned()),
        // With the pod's UID it would pass for the pod's own cgroup, and its figures are in there already.
        Some(PodCgroup::Beside { .. }) | None => Default::default(),
    };
    Some(Cgroup {
        id: cgroup.id,
        path: cgroup.path.to_string(),
        pod_uid,
        container_id,
        cpu_ns: cgroup.cpu_ns,
        memory_bytes: cgroup.memory_bytes,
        memory_inactive_file_bytes: cgroup.memory_inactive_file_bytes,
        oom_kills: cgroup.oom_kills,
        run_queue_wait_ns: None,
    })
}

/// A failed source makes a part absent only if no other could read it. Each part and reason is named once.
fn absences(sample: &Sample) -> Vec<Absence> {
    let mut absences: Vec<Absence> = Vec::new();
    for failure in &sample.failures {
        let part = match failure.source {
            SourceName::Machine => "machine",
            SourceName::Cgroups(_) if sample.cgroups.is_none() => "cgroups",
            SourceName::Cgroups(_) => continue,
            SourceName::Gpus => "gpus",
        };
        let absence = Absence { source: part.to_owned(), reason: failure.reason.as_str().to_owned() };
        if !absences.contains(&absence) {
            absences.push(absence);
        }
    }
    absences
}
