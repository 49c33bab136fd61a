//! A look at the shape of a protobuf message before it is decoded. Owns telling a message that was cut from bytes that
//! are none, and the limits that must hold before memory is given out; knows tags of the report, no meaning.
use std::mem::size_of;

use mcad_wire::reading::{
    Assignment, Cgroup, CgroupDetail, DeviceIds, EndedPod, Fields, Gpu, GpuUse, Malformed, MigInstance, Value,
    XidErrors,
};
use mcad_wire::report::REPORT_VERSION;

use super::{Listed, MAX_ABSENCES, MAX_CGROUPS, MAX_DECODED_BYTES, MAX_ENDED_PODS, Refusal, at_most, not_protobuf};

/// Tags of wire's `Report`; tags never change (docs/report.md).
const VERSION: u32 = 1;
const CGROUPS: u32 = 11;
const GPUS: u32 = 12;
const ASSIGNMENTS: u32 = 13;
const ABSENCES: u32 = 14;
/// The list within `Cgroups` and within `Gpus`.
const LIST: u32 = 2;
const MIG_INSTANCES: u32 = 5;
/// Within `Cgroups`.
const ENDED_PODS: u32 = 6;
/// The lists within `Assignments`.
const ASSIGNED: u32 = 1;
const ALLOCATABLE: u32 = 2;
/// A cgroup in memory.
const CGROUP_BYTES: usize = size_of::<Cgroup>() + size_of::<CgroupDetail>();
/// A device in memory. More than there may be are decoded, as long as there is room, and left out then.
const DEVICE_BYTES: usize = max(size_of::<Gpu>(), size_of::<MigInstance>());
/// A container or a resource with devices, likewise.
pub(super) const ASSIGNMENT_BYTES: usize = max(size_of::<Assignment>(), size_of::<DeviceIds>());
/// The largest element of the other lists in memory: every field is taken for one.
pub(super) const ELEMENT_BYTES: usize = max(max(size_of::<GpuUse>(), size_of::<XidErrors>()), size_of::<&str>());

/// Refuses what must not be decoded: cut, not protobuf, another version, too much. How many cgroups it lists.
pub(super) fn scan(body: &[u8]) -> Result<usize, Refusal> {
    let (mut version, mut listed) = (0, Counts::default());
    let mut fields = Fields::of(body);
    while let Some((tag, value)) = fields.next_field().map_err(at_top)? {
        match (tag, value) {
            // As protobuf has it, the last one counts.
            (VERSION, Value::Varint(value)) => version = value,
            (CGROUPS, Value::Bytes(inner)) => listed.cgroups(inner)?,
            (GPUS, Value::Bytes(inner)) => listed.gpus(inner)?,
            (ASSIGNMENTS, Value::Bytes(inner)) => listed.assignments(inner)?,
            (ABSENCES, Value::Bytes(_)) => listed.absences += 1,
            _ => {}
        }
    }
    if version != u64::from(REPORT_VERSION) {
        return Err(Refusal::UnsupportedVersion(version));
    }
    at_most(Listed::Cgroups, listed.cgroups, MAX_CGROUPS)?;
    at_most(Listed::Cgroups, listed.ended_pods, MAX_ENDED_PODS)?;
    at_most(Listed::Absences, listed.absences, MAX_ABSENCES)?;
    let bytes = body.len()
        + listed.cgroups * CGROUP_BYTES
        + listed.ended_pods * size_of::<EndedPod>()
        + listed.devices * DEVICE_BYTES
        + listed.assignments * ASSIGNMENT_BYTES
        + listed.elements * ELEMENT_BYTES;
    if bytes > MAX_DECODED_BYTES { Err(Refusal::DecodedOversized) } else { Ok(listed.cgroups) }
}

/// How much a message lists.
#[derive(Default)]
struct Counts {
    cgroups: usize,
    ended_pods: usize,
    devices: usize,
    assignments: usize,
    absences: usize,
    /// Of lists within those.
    elements: usize,
}

impl Counts {
    fn cgroups(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for_each(message, |tag, _| {
            match tag {
                LIST => self.cgroups += 1,
                ENDED_PODS => self.ended_pods += 1,
                _ => self.elements += 1,
            }
            Ok(())
        })
    }

    fn gpus(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for_each(message, |tag, value| {
            if let (LIST, Value::Bytes(gpu)) = (tag, value) {
                self.devices += 1;
                return self.gpu(gpu);
            }
            self.elements += 1;
            Ok(())
        })
    }

    fn gpu(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for_each(message, |tag, value| {
            if let (MIG_INSTANCES, Value::Bytes(instance)) = (tag, value) {
                self.devices += 1;
                return self.flat(instance);
            }
            self.elements += 1;
            Ok(())
        })
    }

    fn assignments(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for_each(message, |tag, value| match (tag, value) {
            (ASSIGNED | ALLOCATABLE, Value::Bytes(inner)) => {
                self.assignments += 1;
                self.flat(inner)
            }
            _ => Ok(()),
        })
    }

    fn flat(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for_each(message, |_, _| {
            self.elements += 1;
            Ok(())
        })
    }
}

fn for_each<'a>(message: &'a [u8], mut take: impl FnMut(u32, Value<'a>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut fields = Fields::of(message);
    while let Some((tag, value)) = fields.next_field().map_err(not_protobuf)? {
        take(tag, value)?;
    }
    Ok(())
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Where a message is whole, so are its parts: only at the top is one that runs over the end cut, and not a wrong length.
fn at_top(malformed: Malformed) -> Refusal {
    match malformed {
        Malformed::Cut => Refusal::Truncated,
        Malformed::Wrong(_) => not_protobuf(malformed),
    }
}
