//! Parts of a report that are left out where they cannot be right, so that the rest of it counts: a driver that lists a device twice
//! must not cost its node the measurements of its pods. Owns which parts these are, and why they can be left out.
use mcad_wire::reading::Report;

use super::{Refusal, check_assignments, check_gpus};

/// A part of a report that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What NVML says.
    Gpus,
    /// What kubelet handed out.
    Assignments,
}

/// A part that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which one.
    pub part: Part,
    /// What is wrong with it.
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

    /// Why it can be left out, in one word each.
    pub fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Gpus => &["too_many_devices", "name_too_long", "duplicate_id", "impossible_figure"],
            Self::Assignments => &["too_many_assignments", "name_too_long"],
        }
    }
}

/// Takes the parts out of a report that cannot be right.
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
