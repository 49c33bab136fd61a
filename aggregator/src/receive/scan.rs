//! Scans the structure of a protobuf message before it is decoded. Distinguishes a truncated message from bytes that are not
//! protobuf, and checks the limits that must hold before memory is allocated; knows the tags of the report, not their meaning.
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
/// Lists within `Gpu` and within `MigInstance`: of `GpuUse`, and of numbers.
const OF_GPU: DeviceLists = DeviceLists { uses: 12, vacant: 15 };
const OF_INSTANCE: DeviceLists = DeviceLists { uses: 10, vacant: 11 };
/// The list of numbers within `GpuUse`.
const PARTS: u32 = 6;
/// Within `Cgroups`.
const ENDED_PODS: u32 = 6;
/// The lists within `Assignments`.
const ASSIGNED: u32 = 1;
const ALLOCATABLE: u32 = 2;
/// Memory of a cgroup.
const CGROUP_BYTES: usize = size_of::<Cgroup>() + size_of::<CgroupDetail>();
/// Memory of a device. More devices than allowed are decoded as long as the memory limit permits, and left out later.
const DEVICE_BYTES: usize = max(size_of::<Gpu>(), size_of::<MigInstance>());
/// Memory of a container or a resource with devices, likewise.
pub(super) const ASSIGNMENT_BYTES: usize = max(size_of::<Assignment>(), size_of::<DeviceIds>());
/// Memory of the largest element of the other lists: every field counts as such an element.
pub(super) const ELEMENT_BYTES: usize = max(max(size_of::<GpuUse>(), size_of::<XidErrors>()), size_of::<&str>());

/// The tags of a device's lists.
#[derive(Clone, Copy)]
struct DeviceLists {
    uses: u32,
    vacant: u32,
}

/// Refuses what must not be decoded: truncated, not protobuf, another version, too large. Returns the number of cgroups.
pub(super) fn scan(body: &[u8]) -> Result<usize, Refusal> {
    let (mut version, mut listed) = (0, Counts::default());
    let mut fields = Fields::of(body);
    while let Some((tag, value)) = fields.next_field().map_err(at_top)? {
        match (tag, value) {
            // In protobuf, the last value counts.
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
        + listed.elements * ELEMENT_BYTES
        + listed.numbers * size_of::<u64>();
    if bytes > MAX_DECODED_BYTES { Err(Refusal::DecodedOversized) } else { Ok(listed.cgroups) }
}

/// The numbers of elements in a message.
#[derive(Default)]
struct Counts {
    cgroups: usize,
    ended_pods: usize,
    devices: usize,
    assignments: usize,
    absences: usize,
    /// Elements of lists within those.
    elements: usize,
    /// Numbers in packed lists: one byte of a report may be one of them.
    numbers: usize,
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
                return for_each(instance, |tag, value| self.of_device(OF_INSTANCE, tag, value));
            }
            self.of_device(OF_GPU, tag, value)
        })
    }

    fn of_device(&mut self, lists: DeviceLists, tag: u32, value: Value<'_>) -> Result<(), Refusal> {
        self.elements += 1;
        match value {
            Value::Bytes(packed) if tag == lists.vacant => self.packed(packed),
            Value::Bytes(used) if tag == lists.uses => {
                return for_each(used, |tag, value| {
                    match value {
                        Value::Bytes(packed) if tag == PARTS => self.packed(packed),
                        Value::Varint(_) if tag == PARTS => self.numbers += 1,
                        _ => {}
                    }
                    Ok(())
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn packed(&mut self, list: &[u8]) {
        self.numbers += list.iter().filter(|byte| **byte < 0x80).count();
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

/// Maps an error at the top level: only there does a field that runs over the end mean a truncated message. The parts of a complete
/// message are complete, so in a part it is a wrong length.
fn at_top(malformed: Malformed) -> Refusal {
    match malformed {
        Malformed::Cut => Refusal::Truncated,
        Malformed::Wrong(_) => not_protobuf(malformed),
    }
}
