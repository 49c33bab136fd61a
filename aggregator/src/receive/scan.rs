//! A look at the shape of a protobuf message before it is decoded. Owns telling a message that was cut from bytes that
//! are none, and the limits that must hold before memory is given out; knows tags of the report, no meaning.
use mcad_wire::report::REPORT_VERSION;

use super::{Listed, MAX_ABSENCES, MAX_ASSIGNMENTS, MAX_CGROUPS, MAX_DEVICES, MAX_ENDED_PODS, Refusal, at_most};

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

/// Refuses what must not be decoded: cut, not protobuf, another version, too much.
pub(super) fn scan(body: &[u8]) -> Result<(), Refusal> {
    let (mut version, mut cgroups, mut ended_pods, mut devices, mut assignments, mut absences) = (0, 0, 0, 0, 0, 0);
    let mut fields = Fields { rest: body, depth: Depth::Top };
    while let Some((tag, value)) = fields.next()? {
        match (tag, value) {
            // As protobuf has it, the last one counts.
            (VERSION, Value::Varint(value)) => version = value,
            (CGROUPS, Value::Bytes(inner)) => {
                cgroups += count(inner, &[LIST])?;
                ended_pods += count(inner, &[ENDED_PODS])?;
            }
            (GPUS, Value::Bytes(inner)) => devices += count_devices(inner)?,
            (ASSIGNMENTS, Value::Bytes(inner)) => assignments += count(inner, &[1, 2])?,
            (ABSENCES, Value::Bytes(_)) => absences += 1,
            _ => {}
        }
    }
    if version != u64::from(REPORT_VERSION) {
        return Err(Refusal::UnsupportedVersion(version));
    }
    at_most(Listed::Cgroups, cgroups, MAX_CGROUPS)?;
    at_most(Listed::Cgroups, ended_pods, MAX_ENDED_PODS)?;
    at_most(Listed::Devices, devices, MAX_DEVICES)?;
    at_most(Listed::Assignments, assignments, MAX_ASSIGNMENTS)?;
    at_most(Listed::Absences, absences, MAX_ABSENCES)
}

fn count(message: &[u8], tags: &[u64]) -> Result<usize, Refusal> {
    let mut fields = Fields { rest: message, depth: Depth::Nested };
    let mut found = 0;
    while let Some((tag, _)) = fields.next()? {
        found += usize::from(tags.contains(&tag));
    }
    Ok(found)
}

fn count_devices(gpus: &[u8]) -> Result<usize, Refusal> {
    let mut fields = Fields { rest: gpus, depth: Depth::Nested };
    let mut found = 0;
    while let Some((tag, value)) = fields.next()? {
        if let (LIST, Value::Bytes(gpu)) = (tag, value) {
            found += 1 + count(gpu, &[MIG_INSTANCES])?;
        }
    }
    Ok(found)
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
