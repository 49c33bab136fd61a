//! Checks a report against the bounds of the aggregator. A part that the aggregator would reject is left out, with the
//! reason, so that the rest arrives. Pure.
//!
//! The bounds are those of the aggregator (`aggregator/src/receive.rs`, docs/report.md). Invalid data of a driver's
//! library or of kubelet must not silence the node. Only a whole part is left out: without the one GPU that has the
//! UUID of another, the number of GPUs would be wrong.

use std::collections::BTreeSet;

use mcad_wire::report::{Absence, Assignments, Cgroups, Gpu, Gpus, Report};
use prost::Message as _;

use crate::sample::{CgroupSource, Failure, Reason, SourceName};

/// Size of the whole report on the wire.
const BYTES_AT_MOST: usize = 1024 * 1024;
const CGROUPS_AT_MOST: usize = 10_000;
const ENDED_PODS_AT_MOST: usize = 1_024;
/// GPUs and MIG instances, including lost ones.
const DEVICES_AT_MOST: usize = 512;
const ASSIGNMENTS_AT_MOST: usize = 4_096;
/// Ids and names.
const NAME_BYTES_AT_MOST: usize = 256;
/// Memory of one device.
const MEMORY_BYTES_AT_MOST: u64 = 1 << 49;

/// What is wrong with a part.
type Fault = (Reason, String);

/// Removes the parts that the aggregator would reject, and returns why.
pub(super) fn enforce(report: &mut Report, cgroups_by: Option<CgroupSource>) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut leave_out = |report: &mut Report, part: Part, (reason, detail): Fault| {
        part.leave_out(report);
        report.absences.push(Absence { source: part.as_str().to_owned(), reason: reason.as_str().to_owned() });
        failures.push(Failure { source: part.source(cgroups_by), reason, detail });
    };
    for part in Part::ALL {
        if let Some(fault) = part.fault(report) {
            leave_out(report, part, fault);
        }
    }
    if report.encoded_len() > BYTES_AT_MOST {
        forget_ended(report);
    }
    while report.encoded_len() > BYTES_AT_MOST {
        let Some(largest) = Part::ALL.into_iter().max_by_key(|part| part.bytes(report)) else { break };
        let bytes = largest.bytes(report);
        if bytes == 0 {
            break;
        }
        leave_out(report, largest, (Reason::TooLarge, format!("it has {bytes} bytes")));
    }
    failures
}

/// Removes what containers without processes used of GPUs: it matters less than the GPUs.
fn forget_ended(report: &mut Report) {
    for gpu in report.gpus.iter_mut().flat_map(|gpus| &mut gpus.devices) {
        let instances = gpu.mig_instances.iter_mut().map(|instance| &mut instance.uses);
        instances.chain([&mut gpu.uses]).for_each(|uses| uses.retain(|used| used.processes > 0));
    }
}

/// The parts that a report can be sent without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Cgroups,
    Gpus,
    Assignments,
}

impl Part {
    const ALL: [Self; 3] = [Self::Cgroups, Self::Gpus, Self::Assignments];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroups => "cgroups",
            Self::Gpus => "gpus",
            Self::Assignments => "assignments",
        }
    }

    fn source(self, cgroups_by: Option<CgroupSource>) -> SourceName {
        match self {
            Self::Cgroups => SourceName::Cgroups(cgroups_by.unwrap_or(CgroupSource::Files)),
            Self::Gpus => SourceName::Gpus,
            Self::Assignments => SourceName::Assignments,
        }
    }

    fn fault(self, report: &Report) -> Option<Fault> {
        match self {
            Self::Cgroups => report.cgroups.as_ref().and_then(cgroups),
            Self::Gpus => report.gpus.as_ref().and_then(gpus),
            Self::Assignments => report.assignments.as_ref().and_then(assignments),
        }
    }

    fn bytes(self, report: &Report) -> usize {
        match self {
            Self::Cgroups => report.cgroups.as_ref().map_or(0, prost::Message::encoded_len),
            Self::Gpus => report.gpus.as_ref().map_or(0, prost::Message::encoded_len),
            Self::Assignments => report.assignments.as_ref().map_or(0, prost::Message::encoded_len),
        }
    }

    fn leave_out(self, report: &mut Report) {
        match self {
            Self::Cgroups => report.cgroups = None,
            Self::Gpus => report.gpus = None,
            Self::Assignments => report.assignments = None,
        }
    }
}

fn cgroups(cgroups: &Cgroups) -> Option<Fault> {
    let (listed, ended) = (cgroups.cgroups.len(), cgroups.ended_pods.len());
    (listed > CGROUPS_AT_MOST || ended > ENDED_PODS_AT_MOST)
        .then(|| (Reason::TooLarge, format!("it has {listed} cgroups and {ended} ended pods")))
}

fn gpus(gpus: &Gpus) -> Option<Fault> {
    let instances = gpus.devices.iter().flat_map(|gpu| &gpu.mig_instances);
    let count = gpus.devices.len() + instances.clone().count() + gpus.lost_bus_ids.len();
    if count > DEVICES_AT_MOST {
        return Some((Reason::TooLarge, format!("it has {count} devices; the limit is {DEVICES_AT_MOST}")));
    }
    let names = gpus.devices.iter().flat_map(|gpu| [&gpu.uuid, &gpu.model, &gpu.bus_id]);
    let of_instances = instances.clone().flat_map(|instance| [&instance.uuid, &instance.profile]);
    let others = gpus.lost_bus_ids.iter().chain([&gpus.driver_version]);
    if let Some(fault) = too_long(names.chain(of_instances).chain(others)) {
        return Some(fault);
    }
    let mut seen = BTreeSet::new();
    for uuid in gpus.devices.iter().map(|gpu| &gpu.uuid).chain(instances.map(|instance| &instance.uuid)) {
        if uuid.is_empty() {
            return Some(malformed("a device has no UUID".to_owned()));
        }
        if !seen.insert(uuid) {
            return Some(malformed(format!("two devices have the UUID {uuid:?}")));
        }
    }
    gpus.devices.iter().find_map(impossible)
}

/// A value that no device can have.
fn impossible(gpu: &Gpu) -> Option<Fault> {
    let instances = || gpu.mig_instances.iter();
    let mut ratios = std::iter::once(gpu.utilization_ratio).chain(instances().map(|one| one.utilization_ratio));
    if ratios.any(|ratio| ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio))) {
        return Some(malformed(format!("the utilisation of {:?} is not between 0 and 1", gpu.uuid)));
    }
    let of_instances = instances().flat_map(|one| [one.memory_total_bytes, one.memory_used_bytes]);
    let mut memory = [gpu.memory_total_bytes, gpu.memory_used_bytes].into_iter().chain(of_instances);
    let too_much = memory.any(|bytes| bytes.is_some_and(|bytes| bytes > MEMORY_BYTES_AT_MOST));
    too_much.then(|| malformed(format!("{:?} has more memory than a device can have", gpu.uuid)))
}

fn assignments(assignments: &Assignments) -> Option<Fault> {
    let count = assignments.assigned.len() + assignments.allocatable.len();
    if count > ASSIGNMENTS_AT_MOST {
        return Some((Reason::TooLarge, format!("it has {count} containers and resources with devices")));
    }
    let assigned = assignments.assigned.iter().flat_map(|one| {
        let holder = [&one.namespace, &one.pod, &one.container, &one.resource];
        let claimed = [&one.claim_namespace, &one.claim, &one.driver, &one.pool, &one.device];
        holder.into_iter().chain(&one.device_ids).chain(claimed).chain(&one.share_id)
    });
    let allocatable =
        assignments.allocatable.iter().flat_map(|one| std::iter::once(&one.resource).chain(&one.device_ids));
    too_long(assigned.chain(allocatable))
}

fn too_long<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<Fault> {
    let name = names.find(|name| name.len() > NAME_BYTES_AT_MOST)?;
    let begin: String = name.chars().take(32).collect();
    Some(malformed(format!("a name has {} bytes; it begins with {begin:?}", name.len())))
}

fn malformed(detail: String) -> Fault {
    (Reason::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use mcad_wire::report::{Assignment, Cgroup, DeviceIds, GpuUse, Machine, MigInstance};

    use super::*;

    fn gpu(uuid: &str) -> Gpu {
        Gpu { uuid: uuid.to_owned(), ..Gpu::default() }
    }

    fn of(devices: Vec<Gpu>) -> Gpus {
        Gpus { devices, ..Gpus::default() }
    }

    fn numbered(count: usize) -> Vec<Gpu> {
        (0..count).map(|number| gpu(&format!("GPU-{number}"))).collect()
    }

    /// A report with all parts.
    fn whole() -> Report {
        Report {
            machine: Some(Machine::default()),
            cgroups: Some(Cgroups::default()),
            gpus: Some(of(numbered(2))),
            assignments: Some(Assignments::default()),
            ..Report::default()
        }
    }

    /// Checks that only this part is left out, and that both the report and the agent give the reason; or that nothing
    /// is left out.
    #[track_caller]
    fn check(make: impl FnOnce(&mut Report), expected: Option<(&str, Reason, &str)>) {
        let mut report = whole();
        make(&mut report);
        let failures = enforce(&mut report, Some(CgroupSource::Bpf));
        let (gone, reason) = expected.map_or(("", ""), |(part, reason, _)| (part, reason.as_str()));
        let there = [report.cgroups.is_some(), report.gpus.is_some(), report.assignments.is_some()];
        assert_eq!(there, ["cgroups", "gpus", "assignments"].map(|part| part != gone));
        assert!(report.machine.is_some());
        let said: Vec<_> = report.absences.iter().map(|one| (&*one.source, &*one.reason)).collect();
        assert_eq!(said, expected.map(|_| (gone, reason)).into_iter().collect::<Vec<_>>());
        let details: Vec<_> = failures.iter().map(|one| (one.reason, one.detail.as_str())).collect();
        assert_eq!(details, expected.map(|(_, reason, detail)| (reason, detail)).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_within_all_bounds_is_left_alone() {
        check(|_| {}, None);
        check(|report| report.gpus = Some(of(numbered(DEVICES_AT_MOST))), None);
        check(|report| report.gpus = Some(of(vec![gpu(&"u".repeat(NAME_BYTES_AT_MOST))])), None);
    }

    #[test]
    fn gpus_that_cannot_be_told_apart_are_left_out() {
        let twice = "two devices have the UUID \"GPU-1\"";
        check(
            |report| report.gpus = Some(of(vec![gpu("GPU-1"), gpu("GPU-1")])),
            Some(("gpus", Reason::Malformed, twice)),
        );
        let instance = MigInstance { uuid: "GPU-1".into(), ..MigInstance::default() };
        let parent = Gpu { mig_instances: vec![instance], ..gpu("GPU-1") };
        check(|report| report.gpus = Some(of(vec![parent])), Some(("gpus", Reason::Malformed, twice)));
        let none = "a device has no UUID";
        check(|report| report.gpus = Some(of(vec![gpu("")])), Some(("gpus", Reason::Malformed, none)));
    }

    #[test]
    fn more_gpus_than_a_node_has_are_left_out() {
        let many = "it has 600 devices; the limit is 512";
        check(|report| report.gpus = Some(of(numbered(600))), Some(("gpus", Reason::TooLarge, many)));
        let lost = Gpus { lost_bus_ids: vec!["0000:18:00.0".into(); 513], ..Gpus::default() };
        let many = "it has 513 devices; the limit is 512";
        check(|report| report.gpus = Some(lost), Some(("gpus", Reason::TooLarge, many)));
    }

    #[test]
    fn values_that_no_gpu_has_leave_the_gpus_out() {
        let busy = Gpu { utilization_ratio: Some(f64::NAN), ..gpu("g") };
        let detail = "the utilisation of \"g\" is not between 0 and 1";
        check(|report| report.gpus = Some(of(vec![busy])), Some(("gpus", Reason::Malformed, detail)));
        let large = Gpu { memory_total_bytes: Some(u64::MAX), ..gpu("g") };
        let detail = "\"g\" has more memory than a device can have";
        check(|report| report.gpus = Some(of(vec![large])), Some(("gpus", Reason::Malformed, detail)));
    }

    #[test]
    fn names_that_kubelet_should_not_have_leave_its_list_out() {
        let long = || "p".repeat(300);
        let detail = "a name has 300 bytes; it begins with \"pppppppppppppppppppppppppppppppp\"";
        let expected = Some(("assignments", Reason::Malformed, detail));
        let assigned = |one: Assignment| Some(Assignments { assigned: vec![one], allocatable: vec![] });
        check(|report| report.assignments = assigned(Assignment { pod: long(), ..Assignment::default() }), expected);
        let ids = Assignment { device_ids: vec!["GPU-1".into(), long()], ..Assignment::default() };
        check(|report| report.assignments = assigned(ids), expected);
        let claimed: [fn(&mut Assignment) -> &mut String; 6] = [
            |one| &mut one.claim_namespace,
            |one| &mut one.claim,
            |one| &mut one.driver,
            |one| &mut one.pool,
            |one| &mut one.device,
            |one| one.share_id.get_or_insert_default(),
        ];
        for name in claimed {
            let mut one = Assignment::default();
            *name(&mut one) = long();
            check(|report| report.assignments = assigned(one), expected);
        }
        let allocatable = DeviceIds { device_ids: vec![long()], ..DeviceIds::default() };
        let listed = Assignments { assigned: vec![], allocatable: vec![allocatable] };
        check(|report| report.assignments = Some(listed), expected);
    }

    #[test]
    fn a_report_that_is_too_long_loses_what_ended_containers_used_before_a_part() {
        let used = |at: u64| GpuUse {
            pod_uid: "0b0a3c6e-1111-4222-8333-444455556666".into(),
            container_id: format!("{at:064}"),
            processes: u32::from(at == 0),
            parts: vec![1 << 40; 12],
            ..GpuUse::default()
        };
        let mut report = whole();
        report.gpus = Some(of(vec![Gpu { uses: (0..8192).map(used).collect(), ..gpu("a") }]));
        assert!(report.encoded_len() > BYTES_AT_MOST);
        assert_eq!(enforce(&mut report, None), []);
        let left = report.gpus.unwrap().devices.remove(0).uses;
        assert_eq!(left, [used(0)]);
    }

    #[test]
    fn a_report_that_is_too_long_loses_its_largest_part() {
        let path = "/x".repeat(1000);
        let cgroup = |id| Cgroup { id, path: path.clone(), ..Cgroup::default() };
        let cgroups = Cgroups { cgroups: (0..600).map(cgroup).collect(), ..Cgroups::default() };
        let detail = format!("it has {} bytes", cgroups.encoded_len());
        check(|report| report.cgroups = Some(cgroups), Some(("cgroups", Reason::TooLarge, &detail)));
        let many = Cgroups { cgroups: vec![Cgroup::default(); CGROUPS_AT_MOST + 1], ..Cgroups::default() };
        let detail = "it has 10001 cgroups and 0 ended pods";
        check(|report| report.cgroups = Some(many), Some(("cgroups", Reason::TooLarge, detail)));
    }
}
