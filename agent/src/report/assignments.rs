//! Converts what kubelet assigned for the report.

use mcad_wire::report;

use crate::sample::assignment::{Assignment, AssignmentSample, DeviceIds, HeldBy};

pub(super) fn assignments(sample: &AssignmentSample) -> report::Assignments {
    report::Assignments {
        assigned: sample.assigned.iter().map(assigned).collect(),
        allocatable: sample.allocatable.iter().map(allocatable).collect(),
    }
}

fn assigned(assignment: &Assignment) -> report::Assignment {
    let of_container = report::Assignment {
        namespace: assignment.holder.namespace.clone(),
        pod: assignment.holder.pod.clone(),
        container: assignment.holder.container.clone(),
        device_ids: assignment.device_ids.clone(),
        held_ns: Some(assignment.held_ns),
        ..report::Assignment::default()
    };
    match &assignment.holder.by {
        HeldBy::Resource(resource) => report::Assignment { resource: resource.clone(), ..of_container },
        HeldBy::Claim(claimed) => report::Assignment {
            claim_namespace: claimed.claim_namespace.clone(),
            claim: claimed.claim.clone(),
            driver: claimed.driver.clone(),
            pool: claimed.pool.clone(),
            device: claimed.device.clone(),
            share_id: claimed.share_id.clone(),
            ..of_container
        },
    }
}

fn allocatable(devices: &DeviceIds) -> report::DeviceIds {
    report::DeviceIds { resource: devices.resource.clone(), device_ids: devices.device_ids.clone() }
}
