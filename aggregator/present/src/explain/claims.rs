//! Dynamic Resource Allocation in an answer: parts of GPUs and irregularities, as numbers and as sentences.
use std::collections::BTreeMap;

use mcad_accounting::devices::exceptions::Exception;
use mcad_accounting::snapshot::Devices;
use serde::Serialize;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The number of irregularities by reason of `mcad_dra_exceptions`, without zeros.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<&'static str, u64>,
    /// By resource, devices that claims hold in parts, none as a whole; without zeros.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub partly_held: BTreeMap<String, u64>,
    /// By resource and profile, how many more parts could be allocated if all were of that profile.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub partition_slots: BTreeMap<String, BTreeMap<String, u64>>,
    /// The irregularities that need attention, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sentences: Vec<String>,
}

impl Claims {
    pub(super) fn new(devices: &Devices) -> Self {
        let there = || devices.exceptions().filter(|(_, count)| *count > 0);
        let mut partition_slots: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for ((resource, profile), count) in &devices.partition_slots {
            partition_slots.entry(resource.name().to_owned()).or_default().insert((**profile).to_owned(), *count);
        }
        let partly_held = devices.partly_held.iter().filter(|(_, count)| **count > 0);
        Self {
            exceptions: there().map(|(exception, count)| (exception.label(), count)).collect(),
            partly_held: partly_held.map(|(resource, count)| (resource.name().to_owned(), *count)).collect(),
            partition_slots,
            sentences: there().filter_map(|(exception, count)| sentence(exception, count)).collect(),
        }
    }
}

/// What the irregularity means and what to check. `None` if it needs no attention.
fn sentence(exception: Exception, count: u64) -> Option<String> {
    let (one, many, what) = match exception {
        Exception::StaleSlice | Exception::AdminAccess | Exception::UnmappedDevice => return None,
        Exception::IncompletePool => {
            ("device pool lacks", "device pools lack", "ResourceSlices: no device of an incomplete pool is allocated")
        }
        Exception::InvalidPool => (
            "device pool is",
            "device pools are",
            "invalid: a device name is duplicated or a counter is missing. No device of an invalid pool is allocated",
        ),
        Exception::OffNodeDevice => {
            ("device is", "devices are", "not on an existing node, and not in any node's ladder")
        }
        Exception::DeviceGone => (
            "device held by a claim is",
            "devices held by claims are",
            "gone: the driver publishes other devices there, but not these",
        ),
        Exception::DeviceUnseen => (
            "device held by a claim is",
            "devices held by claims are",
            "not visible: the driver publishes no devices there. It may be starting",
        ),
        Exception::UnusedClaim => {
            ("claim is", "claims are", "allocated but not used by a running pod: the devices are idle")
        }
        Exception::MissingClaim => ("claim of a running pod does", "claims of running pods do", "not exist"),
        Exception::DoublyDeclared => (
            "device is",
            "devices are",
            "declared by both kubelet and a driver's ResourceSlice, and counted once. Turn off the device plugin or the driver there",
        ),
        Exception::UnreadTaintRule => (
            "DeviceTaintRule selects",
            "DeviceTaintRules select",
            "devices by class or by expression, which only older API servers support: not applied here",
        ),
        Exception::NodeAllocatableClaim => {
            ("pod has", "pods have", "claims to CPU or memory of the node, which are not counted here")
        }
    };
    let subject = if count == 1 { one } else { many };
    Some(format!("{count} {subject} {what}."))
}
