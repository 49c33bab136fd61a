//! What kubelet handed out, as the report has it.

use mcad_wire::report;

use crate::sample::assignment::{Assignment, AssignmentSample, DeviceIds};

pub(super) fn assignments(sample: &AssignmentSample) -> report::Assignments {
    report::Assignments {
        assigned: sample.assigned.iter().map(assigned).collect(),
        allocatable: sample.allocatable.iter().map(allocatable).collect(),
    }
}

fn assigned(assignment: &Assignment) -> report::Assignment {
    report::Assignment {
        namespace: assignment.holder.namespace.clone(),
        pod: assignment.holder.pod.clone(),
        container: assignment.holder.container.clone(),
        resource: assignment.holder.resource.clone(),
        device_ids: assignment.device_ids.clone(),
        held_ns: Some(assignment.held_ns),
    }
}

fn allocatable(devices: &DeviceIds) -> report::DeviceIds {
    report::DeviceIds { resource: devices.resource.clone(), device_ids: devices.device_ids.clone() }
}
