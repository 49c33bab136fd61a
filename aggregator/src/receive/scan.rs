//! A look at the shape of a protobuf message before it is decoded. Owns telling a message that was cut from bytes that
//! are none, and the limits that must hold before memory is given out; knows tags of the report, no meaning.
use std::mem::size_of;

use mcad_wire::report::{Cgroup, CgroupDetail, EndedPod, GpuUse, REPORT_VERSION, XidErrors};

use super::{
    Listed, MAX_ABSENCES, MAX_ASSIGNMENTS, MAX_CGROUPS, MAX_DECODED_BYTES, MAX_DEVICES, MAX_ENDED_PODS, Refusal,
    at_most,
};

/// Tags of wire's `Report`; tags never change (docs/report.md).
const VERSION: u64 = 1;
const CGROUPS: u64 = 11;
const GPUS: u64 = 12;
const ASSIGNMENTS: u64 = 13;
const ABSENCES: u64 = 14;
/// The list within `Cgroups` and within `Gpus`.
const LIST: u64 = 2;
const MIG_INSTANCES: u64 = 5;
/// Within `Cgroups`.
const ENDED_PODS: u64 = 6;
/// The lists within `Assignments`.
const ASSIGNED: u64 = 1;
const ALLOCATABLE: u64 = 2;
/// A cgroup in memory.
const CGROUP_BYTES: usize = size_of::<Cgroup>() + size_of::<CgroupDetail>();
/// The largest element of the other lists in memory: every field is taken for one.
pub(super) const ELEMENT_BYTES: usize = max(max(size_of::<GpuUse>(), size_of::<XidErrors>()), size_of::<String>());

/// Refuses what must not be decoded: cut, not protobuf, another version, too much.
pub(super) fn scan(body: &[u8]) -> Result<(), Refusal> {
    let (mut version, mut listed) = (0, Counts::default());
    let mut fields = Fields { rest: body, depth: Depth::Top };
    while let Some((tag, value)) = fields.next()? {
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
    at_most(Listed::Devices, listed.devices, MAX_DEVICES)?;
    at_most(Listed::Assignments, listed.assignments, MAX_ASSIGNMENTS)?;
    at_most(Listed::Absences, listed.absences, MAX_ABSENCES)?;
    let bytes = body.len()
        + listed.cgroups * CGROUP_BYTES
        + listed.ended_pods * size_of::<EndedPod>()
        + listed.elements * ELEMENT_BYTES;
    if bytes > MAX_DECODED_BYTES { Err(Refusal::DecodedOversized) } else { Ok(()) }
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

fn for_each<'a>(message: &'a [u8], mut take: impl FnMut(u64, Value<'a>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut fields = Fields { rest: message, depth: Depth::Nested };
    while let Some((tag, value)) = fields.next()? {
        take(tag, value)?;
    }
    Ok(())
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// The fields of one message.
struct Fields<'a> {
    rest: &'a [u8],
    depth: Depth,
}

/// Where a field that runs over the end is a cut message, and where it is a wrong length.
#[derive(Clone, Copy)]
enum Depth {
    Top,
    Nested,
}

enum Value<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Refusal> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = key >> 3;
        if tag == 0 {
            return Err(wrong("field 0"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // 3 and 4 are groups, which a report never had; 6 and 7 are nothing.
            _ => return Err(wrong("a wire type that no report has")),
        };
        Ok(Some((tag, value)))
    }

    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for at in 0..10 {
            let Some((byte, rest)) = self.rest.split_first() else { return Err(self.over()) };
            self.rest = rest;
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("a number of more than 64 bits"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Refusal> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| self.over())?;
        self.rest = rest;
        Ok(taken)
    }

    fn over(&self) -> Refusal {
        match self.depth {
            Depth::Top => Refusal::Truncated,
            Depth::Nested => wrong("a length beyond its message"),
        }
    }
}

fn wrong(what: &str) -> Refusal {
    Refusal::NotProtobuf(what.to_owned())
}
