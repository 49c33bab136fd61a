//! Converts a sample to a report. Pure: the same sample gives the same report.
//!
//! docs/report.md describes the format. This module decides which cgroups are listed.

mod assignments;
mod bounds;
mod gpus;

use mcad_wire::report::{Absence, Cgroup, CgroupDetail, Cgroups, EndedPod, Machine, REPORT_VERSION, Report};

use crate::pod_cgroup::{self, PodCgroup};
use crate::sample::{self, CgroupSample, Limit, Sample, SourceName};

/// What is the same in all reports of one agent process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name in Kubernetes.
    pub node: String,
    /// The kernel's boot id; empty if it could not be read.
    pub boot_id: String,
    /// When this process started, in ms since the Unix epoch.
    pub started_at_ms: u64,
    /// The configured time between two reports, in ms.
    pub interval_ms: u64,
    /// Version of this agent.
    pub agent_version: String,
}

/// Which cgroups a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Pods, whose values include those of their containers; no cgroups above, beside or below them.
    Pods,
    /// Every cgroup of the machine.
    All,
}

/// Makes the report with this sequence number from one sample.
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
        cgroups: sample.cgroups.as_ref().map(|cgroups| list(cgroups, &sample.ended_pods, listed)),
        gpus: sample.gpus.as_ref().map(gpus::gpus),
        assignments: sample.assignments.as_ref().map(assignments::assignments),
        absences: absences(sample),
    }
}

/// Like [`report()`], within the bounds that an aggregator accepts: a part that it would reject is left out, and a
/// failure is added to the sample.
pub fn bounded(identity: &Identity, sequence: u64, sample: &mut Sample, listed: Listed) -> Report {
    let mut report = report(identity, sequence, sample, listed);
    let cgroups_by = sample.cgroups.as_ref().map(|cgroups| cgroups.source);
    sample.failures.extend(bounds::enforce(&mut report, cgroups_by));
    report
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

fn list(sample: &CgroupSample, ended_pods: &[sample::EndedPod], listed: Listed) -> Cgroups {
    Cgroups {
        source: sample.source.as_str().to_owned(),
        cgroups: sample.cgroups.iter().filter_map(|cgroup| entry(cgroup, listed)).collect(),
        seen: Some(sample.seen),
        dropped: Some(sample.dropped),
        from_files: sample.from_files.iter().map(|group| group.as_str().to_owned()).collect(),
        ended_pods: ended_pods.iter().map(ended).collect(),
    }
}

fn ended(pod: &sample::EndedPod) -> EndedPod {
    EndedPod {
        uid: pod.uid.to_string(),
        id: pod.id,
        cpu_ns: pod.cpu_ns,
        oom_kills: pod.oom_kills,
        run_queue_wait_ns: pod.run_queue.map(|run_queue| run_queue.wait_ns),
        run_queue_waits: pod.run_queue.map(|run_queue| run_queue.waits),
        ended_uptime_ns: pod.ended_ns,
        watched: pod.watched,
    }
}

fn entry(cgroup: &sample::Cgroup, listed: Listed) -> Option<Cgroup> {
    let place = pod_cgroup::parse(&cgroup.path);
    if listed == Listed::Pods && !matches!(place, Some(PodCgroup::Pod { .. })) {
        return None;
    }
    let (pod_uid, container_id) = match place {
        Some(PodCgroup::Pod { uid }) => (uid.to_string(), String::new()),
        Some(PodCgroup::Container { uid, id } | PodCgroup::InContainer { uid, id }) => (uid.to_string(), id.to_owned()),
        // With the pod's UID it would look like the pod's own cgroup, which includes its values already.
        Some(PodCgroup::Beside { .. }) | None => Default::default(),
    };
    Some(Cgroup {
        id: cgroup.id,
        // The UID identifies a pod, and its path would be as long as the rest of the entry.
        path: if listed == Listed::All { cgroup.path.to_string() } else { String::new() },
        pod_uid,
        container_id,
        cpu_ns: cgroup.cpu_ns,
        memory_bytes: cgroup.memory_bytes,
        memory_inactive_file_bytes: cgroup.memory_inactive_file_bytes,
        oom_kills: cgroup.oom_kills,
        run_queue_wait_ns: cgroup.run_queue.map(|run_queue| run_queue.wait_ns),
        run_queue_waits: cgroup.run_queue.map(|run_queue| run_queue.waits),
        detail: (listed == Listed::All).then(|| detail(cgroup)).flatten(),
    })
}

/// `None` if none of its values is known.
fn detail(cgroup: &sample::Cgroup) -> Option<Box<CgroupDetail>> {
    let (throttling, pressure, io) = (cgroup.throttling, cgroup.pressure, cgroup.io);
    let detail = CgroupDetail {
        periods: throttling.map(|throttling| throttling.periods),
        throttled_periods: throttling.map(|throttling| throttling.throttled_periods),
        throttled_ns: throttling.map(|throttling| throttling.throttled_ns),
        memory_peak_bytes: cgroup.memory_peak_bytes,
        memory_limit_bytes: cgroup.memory_limit.and_then(Limit::amount),
        memory_anon_bytes: cgroup.memory_anon_bytes,
        memory_file_bytes: cgroup.memory_file_bytes,
        memory_max_events: cgroup.memory_max_events,
        memory_high_events: cgroup.memory_high_events,
        pids: cgroup.pids,
        pids_limit: cgroup.pids_limit.and_then(Limit::amount),
        cpu_some_ns: pressure.map(|pressure| pressure.cpu.some_ns),
        cpu_full_ns: pressure.and_then(|pressure| pressure.cpu.full_ns),
        memory_some_ns: pressure.map(|pressure| pressure.memory.some_ns),
        memory_full_ns: pressure.and_then(|pressure| pressure.memory.full_ns),
        io_some_ns: pressure.map(|pressure| pressure.io.some_ns),
        io_full_ns: pressure.and_then(|pressure| pressure.io.full_ns),
        io_read_bytes: io.map(|io| io.read_bytes),
        io_written_bytes: io.map(|io| io.written_bytes),
    };
    (detail != CgroupDetail::default()).then(|| Box::new(detail))
}

/// A failed source makes a part absent only if no other source could read it. Each part and reason is listed once.
fn absences(sample: &Sample) -> Vec<Absence> {
    let mut absences: Vec<Absence> = Vec::new();
    for failure in &sample.failures {
        let part = match failure.source {
            SourceName::Machine => "machine",
            SourceName::Cgroups(_) if sample.cgroups.is_none() => "cgroups",
            SourceName::Cgroups(_) => continue,
            SourceName::Gpus => "gpus",
            SourceName::Assignments => "assignments",
        };
        let absence = Absence { source: part.to_owned(), reason: failure.reason.as_str().to_owned() };
        if !absences.contains(&absence) {
            absences.push(absence);
        }
    }
    absences
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pod_cgroup::PodUid;
    use crate::sample::{CgroupSource, Failure, Moment, Reason};

    const UID: &str = "0b0a3c6e-5d8e-4a3f-9c1d-7e6f5a4b3c2d";
    const ENDED: &str = "77a1f0d2-3b1c-4d5e-8f90-a1b2c3d4e5f6";
    const ID: &str = "4f5d1c0b9a8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4";

    fn identity() -> Identity {
        Identity {
            node: "gpu-17".to_owned(),
            boot_id: "5f0c1b7e-93a4-4d1c-8a53-2a6f0c9b1d7e".to_owned(),
            started_at_ms: 1_767_225_600_000,
            interval_ms: 10_000,
            agent_version: "0.1.0".to_owned(),
        }
    }

    fn cgroup(id: u64, parent_id: u64, path: &str) -> sample::Cgroup {
        sample::Cgroup {
            id,
            parent_id,
            path: Arc::from(path),
            cpu_ns: Some(id * 1_000_000),
            ..sample::Cgroup::default()
        }
    }

    /// A node with one CRI-O pod. Its container has memory values; the other levels have none.
    fn sample() -> Sample {
        let pod = format!("/kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        let container = sample::Cgroup {
            memory_bytes: Some(268_435_456),
            memory_inactive_file_bytes: Some(4096),
            oom_kills: Some(0),
            memory_limit: Some(Limit::At(1 << 30)),
            pids: Some(3),
            pids_limit: Some(Limit::None),
            throttling: Some(sample::Throttling { periods: 10, throttled_periods: 2, throttled_ns: 5000 }),
            pressure: Some(sample::Pressure::default()),
            ..cgroup(40, 30, &format!("{pod}/crio-{ID}.scope"))
        };
        let cgroups = vec![
            sample::Cgroup { cpu_ns: None, ..cgroup(1, 0, "/") },
            cgroup(20, 1, "/kubepods.slice"),
            cgroup(30, 20, &pod),
            container,
            cgroup(41, 40, &format!("{pod}/crio-{ID}.scope/container")),
            cgroup(50, 30, &format!("{pod}/crio-conmon-{ID}.scope")),
        ];
        Sample {
            at: Moment { unix_ms: 1_767_225_630_250, uptime_ns: 86_400_000_000_000 },
            machine: sample::Machine {
                cpus_online: Some(64),
                cpu_busy_ns: Some(7_200_000_000_000),
                memory_total_bytes: Some(549_755_813_888),
                memory_free_bytes: Some(274_877_906_944),
                memory_inactive_file_bytes: Some(1_073_741_824),
            },
            cgroups: Some(CgroupSample {
                source: CgroupSource::Files,
                cgroups,
                from_files: Vec::new(),
                probes: None,
                removals: None,
                seen: 7,
                dropped: 1,
            }),
            gpus: None,
            worker_ends: sample::gpu::WorkerEnds::default(),
            assignments: None,
            ended_pods: vec![sample::EndedPod {
                uid: PodUid::known(ENDED).unwrap(),
                id: 35,
                cpu_ns: Some(50_000_000),
                oom_kills: Some(1),
                run_queue: None,
                ended_ns: 86_395_000_000_000,
                watched: true,
            }],
            failures: Vec::new(),
        }
    }

    fn failure(source: SourceName, reason: Reason) -> Failure {
        Failure { source, reason, detail: String::new() }
    }

    /// `MCAD_BLESS=1 cargo test -p mcad-agent golden` rewrites the files; review the diff.
    #[track_caller]
    fn check(listed: Listed, golden: &str) {
        let path = format!("{}/tests/golden/{golden}", env!("CARGO_MANIFEST_DIR"));
        let mut json = serde_json::to_string_pretty(&report(&identity(), 3, &sample(), listed)).unwrap();
        json.push('\n');
        if std::env::var_os("MCAD_BLESS").is_some() {
            std::fs::write(&path, &json).unwrap();
        }
        assert_eq!(json, std::fs::read_to_string(&path).unwrap(), "{path}");
    }

    #[test]
    fn golden_report_of_pods() {
        check(Listed::Pods, "report-pods.json");
    }

    #[test]
    fn golden_report_of_all_cgroups() {
        check(Listed::All, "report-all.json");
    }

    #[test]
    fn a_pods_own_cgroup_is_the_only_one_with_its_uid_and_no_container() {
        for listed in [Listed::Pods, Listed::All] {
            let cgroups = report(&identity(), 1, &sample(), listed).cgroups.unwrap().cgroups;
            let own: Vec<u64> = cgroups
                .iter()
                .filter(|cgroup| cgroup.pod_uid == UID && cgroup.container_id.is_empty())
                .map(|cgroup| cgroup.id)
                .collect();
            assert_eq!(own, [30], "{listed:?}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_absent_and_said_once() {
        let sample = Sample {
            machine: sample::Machine::default(),
            cgroups: None,
            failures: vec![
                failure(SourceName::Machine, Reason::NotFound),
                failure(SourceName::Machine, Reason::NotFound),
                failure(SourceName::Cgroups(CgroupSource::Bpf), Reason::NotPermitted),
                failure(SourceName::Cgroups(CgroupSource::Files), Reason::CgroupV1Only),
            ],
            ..sample()
        };
        let report = report(&identity(), 1, &sample, Listed::All);
        assert_eq!((report.machine, report.cgroups, report.gpus), (None, None, None));
        let absences: Vec<(&str, &str)> =
            report.absences.iter().map(|absence| (&*absence.source, &*absence.reason)).collect();
        assert_eq!(absences, [("machine", "not_found"), ("cgroups", "not_permitted"), ("cgroups", "cgroup_v1_only")]);
    }

    #[test]
    fn a_source_that_another_one_stood_in_for_leaves_nothing_absent() {
        let failures = vec![failure(SourceName::Cgroups(CgroupSource::Bpf), Reason::NoProbes)];
        let report = report(&identity(), 1, &Sample { failures, ..sample() }, Listed::All);
        assert_eq!(report.absences, []);
        assert_eq!(report.cgroups.unwrap().source, "cgroupfs");
    }
}
