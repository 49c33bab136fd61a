//! Parts of a report that are left out if they are invalid, so that the rest of the report is used: a driver that lists a device
//! twice must not cost the node the measurements of its pods. Owns these parts and the reasons to leave them out.
use mcad_wire::reading::Report;

use super::{Refusal, check_assignments, check_gpus};

/// A part of a report that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// GPUs, from NVML.
    Gpus,
    /// Devices that kubelet allocated to containers.
    Assignments,
}

/// A part that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The part.
    pub part: Part,
    /// Why it is left out.
    pub why: Refusal,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Gpus, Self::Assignments];

    /// The label `part`, which is the name of the report's field.
    pub fn label(self) -> &'static str {
        match self {
            Self::Gpus => "gpus",
            Self::Assignments => "assignments",
        }
    }

    /// All reasons to leave it out, as label values.
    pub fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Gpus => &["too_many_devices", "name_too_long", "duplicate_id", "impossible_figure"],
            Self::Assignments => &["too_many_assignments", "name_too_long"],
        }
    }
}

/// Removes the invalid parts of a report.
pub(super) fn leave_out_wrong(report: &mut Report<'_>) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    if let Err(why) = check_gpus(report) {
        report.gpus = None;
        left_out.push(LeftOut { part: Part::Gpus, why });
    }
    if let Err(why) = check_assignments(report) {
        report.assignments = None;
        left_out.push(LeftOut { part: Part::Assignments, why });
    }
    left_out
}
