//! Bytes in, a report or a refusal out. Owns every limit on the content of one report; pure.
//!
//! A report that passes is well formed and bounded. Duplicate or stale reports are detected later; the server checks the sender.
mod part;
mod refusal;
mod scan;

use std::borrow::Cow;
use std::time::Duration;

use mcad_accounting::node_name::NodeName;
use mcad_wire::reading::{Cgroups, Gpu, Machine, Malformed, Report};
use mcad_wire::report::REPORT_VERSION;
use prost::Message as _;

pub use part::{LeftOut, Part};
pub use refusal::{Listed, Refusal};

/// The largest body. A node with 250 pods and 1,000 cgroups needs about 350 KB.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The most memory of a decoded report: twice that of [`MAX_CGROUPS`] cgroups in a full body.
pub const MAX_DECODED_BYTES: usize = 8 * 1024 * 1024;
/// The most cgroups: with paths as long as kubelet's, more do not fit into [`MAX_BODY_BYTES`].
pub const MAX_CGROUPS: usize = 10_000;
/// The most ended pods: as many as agents keep.
pub const MAX_ENDED_PODS: usize = 1_024;
/// The most GPUs and MIG instances. The largest machines have 16 GPUs with 7 instances each.
pub const MAX_DEVICES: usize = 512;
/// The most containers with devices plus resources with devices: 250 pods of a few containers each.
pub const MAX_ASSIGNMENTS: usize = 4_096;
/// The most absences: there are four sources with a few reasons each.
pub const MAX_ABSENCES: usize = 64;
/// PATH_MAX: the kernel returns no longer path.
const MAX_PATH_BYTES: usize = 4_096;
/// The longest id, name or reason. The longest in use is a container id with its prefix, below 100 bytes.
const MAX_STRING_BYTES: usize = 256;
/// 512 TiB: more than any machine has, and the sum of twenty thousand machines still fits into 64 bits.
const MAX_MEMORY_BYTES: u64 = 1 << 49;
/// Linux supports at most 8,192 CPUs.
const MAX_CPUS: u32 = 65_536;
/// 20 years: no kernel runs that long without a reboot. A report with a larger time would make all later reports look older.
const MAX_UPTIME_NS: u64 = 20 * 365 * 24 * 3600 * 1_000_000_000;
/// Wider than the intervals of mcad-agent (100 ms to 1 h); a value outside is a mistake in units.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// A report that passed all checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Received<'a> {
    /// The node that it is about.
    pub node: NodeName,
    /// The decoded report.
    pub report: Report<'a>,
    /// Invalid parts that were removed.
    pub left_out: Vec<LeftOut>,
    /// The encoded report.
    encoded: Cow<'a, [u8]>,
}

impl<'a> Received<'a> {
    /// The interval between the agent's reports.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.report.interval_ms)
    }

    /// The encoded report, which is what is kept.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Removes content from its cgroups; `cut` returns whether it removed anything.
    pub fn leave_out(&mut self, cut: impl FnOnce(&NodeName, &mut Cgroups<'a>) -> bool) {
        if self.report.cgroups.as_mut().is_some_and(|cgroups| cut(&self.node, cgroups)) {
            self.encoded = self.report.to_owned().encode_to_vec().into();
        }
    }
}

/// Reads the body of one report.
pub fn receive(body: &[u8]) -> Result<Received<'_>, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refusal::Oversized);
    }
    // Before decoding: an unknown version may mean anything, and two encoded bytes can take 150 in memory.
    let listed = scan::scan(body)?;
    read(body, listed)
}

/// Reads a report that is not a request body, of any size, such as one from a file.
pub fn check(encoded: &[u8]) -> Result<Received<'_>, Refusal> {
    read(encoded, 0)
}

fn read(encoded: &[u8], cgroups: usize) -> Result<Received<'_>, Refusal> {
    let mut report = Report::read_with_room(encoded, cgroups).map_err(not_protobuf)?;
    let node = checked(&report)?;
    let left_out = part::leave_out_wrong(&mut report);
    let encoded = if left_out.is_empty() { encoded.into() } else { report.to_owned().encode_to_vec().into() };
    Ok(Received { node, report, left_out, encoded })
}

fn not_protobuf(malformed: Malformed) -> Refusal {
    Refusal::NotProtobuf(malformed.to_string())
}

fn checked(report: &Report<'_>) -> Result<NodeName, Refusal> {
    if report.version != REPORT_VERSION {
        return Err(Refusal::UnsupportedVersion(report.version.into()));
    }
    let node = NodeName::new(report.node)?;
    if !INTERVALS_MS.contains(&report.interval_ms) {
        return Err(Refusal::Impossible("interval"));
    }
    if report.uptime_ns > MAX_UPTIME_NS {
        return Err(Refusal::Impossible("time since boot"));
    }
    within("boot id", report.boot_id)?;
    within("agent's version", report.agent_version)?;
    at_most(Listed::Absences, report.absences.len(), MAX_ABSENCES)?;
    for absence in &report.absences {
        within("absence", absence.source)?;
        within("absence", absence.reason)?;
    }
    report.machine.as_ref().map_or(Ok(()), check_machine)?;
    check_cgroups(report)?;
    Ok(node)
}

fn check_machine(machine: &Machine) -> Result<(), Refusal> {
    if machine.cpus_online.is_some_and(|cpus| cpus == 0 || cpus > MAX_CPUS) {
        return Err(Refusal::Impossible("number of CPUs"));
    }
    let total = machine.memory_total_bytes.unwrap_or(MAX_MEMORY_BYTES);
    let parts = [machine.memory_free_bytes, machine.memory_inactive_file_bytes];
    if total > MAX_MEMORY_BYTES || parts.into_iter().flatten().any(|part| part > total) {
        return Err(Refusal::Impossible("memory"));
    }
    Ok(())
}

fn check_cgroups(report: &Report<'_>) -> Result<(), Refusal> {
    let Some(cgroups) = &report.cgroups else { return Ok(()) };
    within("source of cgroups", cgroups.source)?;
    at_most(Listed::Cgroups, cgroups.cgroups.len(), MAX_CGROUPS)?;
    at_most(Listed::Cgroups, cgroups.ended_pods.len(), MAX_ENDED_PODS)?;
    for pod in &cgroups.ended_pods {
        within("ended pod's UID", pod.uid)?;
    }
    let mut ids: Vec<u64> = cgroups.cgroups.iter().map(|cgroup| cgroup.id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Refusal::DuplicateId { of: Listed::Cgroups, id: twice[0].to_string() });
    }
    for cgroup in &cgroups.cgroups {
        if cgroup.path.len() > MAX_PATH_BYTES {
            return Err(Refusal::NameTooLong("cgroup's path"));
        }
        within("pod's UID", cgroup.pod_uid)?;
        within("container's id", cgroup.container_id)?;
    }
    Ok(())
}

fn check_gpus(report: &Report<'_>) -> Result<(), Refusal> {
    let Some(gpus) = &report.gpus else { return Ok(()) };
    within("driver's version", gpus.driver_version)?;
    let instances: usize = gpus.devices.iter().map(|gpu| gpu.mig_instances.len()).sum();
    at_most(Listed::Devices, gpus.devices.len() + instances + gpus.lost_bus_ids.len(), MAX_DEVICES)?;
    at_most(Listed::Devices, gpus.remembered.unwrap_or(0) as usize, MAX_DEVICES)?;
    gpus.devices.iter().try_for_each(check_gpu)?;
    let instances = gpus.devices.iter().flat_map(|gpu| &gpu.mig_instances).map(|instance| instance.uuid);
    let mut uuids: Vec<&str> = gpus.devices.iter().map(|gpu| gpu.uuid).chain(instances).collect();
    uuids.sort_unstable();
    if let Some(twice) = uuids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Refusal::DuplicateId { of: Listed::Devices, id: twice[0].to_owned() });
    }
    gpus.lost_bus_ids.iter().try_for_each(|id| within("PCI address", id))
}

fn check_gpu(gpu: &Gpu<'_>) -> Result<(), Refusal> {
    // It could not be joined with anything, and two such GPUs could not be told apart.
    if gpu.uuid.is_empty() {
        return Err(Refusal::Impossible("empty UUID of a GPU"));
    }
    for name in [gpu.uuid, gpu.model, gpu.bus_id] {
        within("GPU's name", name)?;
    }
    for instance in &gpu.mig_instances {
        within("MIG instance's name", instance.uuid)?;
        within("MIG profile", instance.profile)?;
    }
    let instances = gpu.mig_instances.iter();
    for reason in gpu.unhealthy_reasons.iter().chain(instances.clone().flat_map(|mig| &mig.unhealthy_reasons)) {
        within("reason", reason)?;
    }
    gpu.warnings.iter().try_for_each(|warning| within("warning", warning))?;
    let mut ratios = std::iter::once(gpu.utilization_ratio).chain(instances.clone().map(|mig| mig.utilization_ratio));
    if ratios.any(|ratio| ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio))) {
        return Err(Refusal::Impossible("utilisation"));
    }
    let own = [gpu.memory_total_bytes, gpu.memory_used_bytes];
    let mut memory = own.into_iter().chain(instances.flat_map(|mig| [mig.memory_total_bytes, mig.memory_used_bytes]));
    if memory.any(|bytes| bytes.is_some_and(|bytes| bytes > MAX_MEMORY_BYTES)) {
        return Err(Refusal::Impossible("memory of a GPU"));
    }
    Ok(())
}

fn check_assignments(report: &Report<'_>) -> Result<(), Refusal> {
    let Some(assignments) = &report.assignments else { return Ok(()) };
    let listed = assignments.assigned.len() + assignments.allocatable.len();
    at_most(Listed::Assignments, listed, MAX_ASSIGNMENTS)?;
    for assigned in &assignments.assigned {
        for name in [assigned.namespace, assigned.pod, assigned.container, assigned.resource] {
            within("assignment", name)?;
        }
        let claimed = [assigned.claim_namespace, assigned.claim, assigned.driver, assigned.pool, assigned.device];
        for name in claimed.into_iter().chain(assigned.share_id) {
            within("claimed device", name)?;
        }
        assigned.device_ids.iter().try_for_each(|id| within("device's id", id))?;
    }
    for allocatable in &assignments.allocatable {
        within("resource's name", allocatable.resource)?;
        allocatable.device_ids.iter().try_for_each(|id| within("device's id", id))?;
    }
    Ok(())
}

fn within(what: &'static str, name: &str) -> Result<(), Refusal> {
    if name.len() > MAX_STRING_BYTES { Err(Refusal::NameTooLong(what)) } else { Ok(()) }
}

fn at_most(of: Listed, count: usize, limit: usize) -> Result<(), Refusal> {
    if count > limit { Err(Refusal::TooMany { of, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weight;
