//! Dynamic Resource Allocation: parts of GPUs, and irregularities of devices and claims.
use mcad_accounting::snapshot::Devices;

use crate::exposition::{Exposition, Family, Labels, Value};
use crate::families::{Spelling, gauge};

static PARTITION_SLOTS: Family = gauge(
    "mcad_gpu_partition_slots",
    &["profile", "resource"],
    "parts",
    "How many more parts of this profile admissible nodes could allocate if all were of this profile. Parts overlap: never sum over profiles.",
);
static PARTLY_HELD: Family = gauge(
    "mcad_gpu_partly_held",
    &["resource"],
    "devices",
    "Devices of which claims hold parts, but not the whole device. Other parts may be free.",
);
static EXCEPTIONS: Family = gauge(
    "mcad_dra_exceptions",
    &["reason"],
    "see docs/accounting.md",
    "Irregularities of devices and claims (Dynamic Resource Allocation), by reason.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[&PARTITION_SLOTS, &PARTLY_HELD, &EXCEPTIONS];

/// Writes the section.
pub(crate) fn write(devices: &Devices, spelling: &Spelling, out: &mut Exposition<'_>) {
    let mut lines = out.family(&PARTITION_SLOTS);
    for ((resource, profile), count) in &devices.partition_slots {
        let Some(spelled) = spelling.get(resource) else { continue };
        let mut labels = Labels::of(&[("profile", profile)]);
        lines.line(labels.extend(&spelled.resource), Value::Unsigned(*count));
    }
    let mut lines = out.family(&PARTLY_HELD);
    for (resource, count) in &devices.partly_held {
        if let Some(spelled) = spelling.get(resource) {
            lines.line(&spelled.resource, Value::Unsigned(*count));
        }
    }
    let mut lines = out.family(&EXCEPTIONS);
    for (exception, count) in devices.exceptions() {
        lines.line(&Labels::of(&[("reason", exception.label())]), Value::Unsigned(count));
    }
}
