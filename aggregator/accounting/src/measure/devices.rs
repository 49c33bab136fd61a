//! GPUs and MIG instances, as they are exported one by one. Owns what is kept of them from one report to the next: everything except
//! numbers, which usually does not change.
use std::sync::Arc;

use mcad_wire::reading::{Gpu, MigInstance, NvlinkErrors, Report};

use super::held::{HeldDevice, HeldDevices};
use super::strays::Rights;
use crate::reported::Stored;

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its UUID.
    pub uuid: Arc<str>,
    /// The product name; for an instance, that of its GPU.
    pub model: Arc<str>,
    /// The PCI address; for an instance, that of its GPU.
    pub bus_id: Arc<str>,
    /// The GPU's UUID and the profile, for a MIG instance.
    pub mig: Option<(Arc<str>, Arc<str>)>,
    /// Why the device should not be used. Empty if it is healthy.
    pub unhealthy_reasons: Box<[Arc<str>]>,
    /// What is wrong with the device although it works; sorted, each once. Empty for an instance.
    pub warnings: Box<[Arc<str>]>,
    /// The part of the last sampling period in which a kernel ran on it.
    pub utilization_ratio: Option<f64>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Its memory, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// The number of Xid events, by code.
    pub xid_errors: Box<[(u64, u64)]>,
    /// Errors of its NVLinks. `None` if it has no NVLinks, or if they are not known.
    pub nvlink_errors: Option<Box<NvlinkErrors>>,
    /// The containers that hold it: namespace, pod, container; sorted, each once. `None` if unknown.
    pub holders: Option<Arc<[[Arc<str>; 3]]>>,
    /// The number of processes on it that have no right to it. `None` if unknown.
    pub strays: Option<u64>,
    /// Memory that is in use, but by no process on it, in bytes; 0 if it is not more than the options tolerate. `None` if unknown.
    pub unclaimed_memory_bytes: Option<u64>,
}

/// What devices are updated from, besides the report.
#[derive(Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// The stored form of the report.
    pub(super) stored: &'a Stored,
    /// What kubelet handed out. `None` if that is not known.
    pub(super) held: Option<&'a HeldDevices<'a>>,
    /// Whose processes may be on a device. `None` if that is not known.
    pub(super) rights: Option<Rights<'a>>,
    /// See [`crate::options::Options::unclaimed_memory_percent`].
    pub(super) unclaimed_memory_percent: u8,
}

/// A device in a report.
struct ReportedDevice<'r> {
    uuid: &'r str,
    /// The GPU itself, or the GPU of the instance.
    gpu: &'r Gpu<'r>,
    /// `None` for a whole GPU.
    instance: Option<&'r MigInstance<'r>>,
}

/// The devices of a report, sorted by UUID. The `known` devices are updated in place, so that no text is allocated again and hardly any
/// memory is needed.
pub(super) fn updated(mut known: Box<[Device]>, report: &Report<'_>, evidence: Evidence<'_>) -> Box<[Device]> {
    let all_reported = reported_devices(report);
    if !known.iter().map(|device| &*device.uuid).eq(all_reported.iter().map(|reported| reported.uuid)) {
        let mut devices: Vec<Device> = Vec::with_capacity(all_reported.len());
        for reported in &all_reported {
            let was = known.iter().find(|device| *device.uuid == *reported.uuid).cloned();
            devices.push(was.unwrap_or_else(|| Device::new(reported, devices.last())));
        }
        known = devices.into();
    }
    for (device, reported) in known.iter_mut().zip(&all_reported) {
        device.update(reported);
        device.update_holders(evidence.held);
        device.strays = evidence.rights.and_then(|rights| rights.strays(reported.gpu, reported.instance));
        device.unclaimed_memory_bytes = device.unclaimed(evidence.stored, evidence.unclaimed_memory_percent);
    }
    known
}

/// The devices of a report, sorted by UUID.
fn reported_devices<'r>(report: &'r Report<'r>) -> Vec<ReportedDevice<'r>> {
    let gpus = report.gpus.as_ref().map_or(&[][..], |gpus| &gpus.devices);
    let mut all = Vec::with_capacity(gpus.iter().map(|gpu| 1 + gpu.mig_instances.len()).sum());
    for gpu in gpus {
        let instance =
            |instance: &'r MigInstance<'r>| ReportedDevice { uuid: instance.uuid, gpu, instance: Some(instance) };
        all.extend(gpu.mig_instances.iter().map(instance));
        all.push(ReportedDevice { uuid: gpu.uuid, gpu, instance: None });
    }
    all.sort_by_key(|reported| reported.uuid);
    // A UUID stands for one device, whatever the driver reports.
    all.dedup_by_key(|reported| reported.uuid);
    all
}

impl Device {
    /// A device of which only the names are known. It shares the text of its model with `like`, because the GPUs of a node are usually of
    /// one model.
    fn new(reported: &ReportedDevice<'_>, like: Option<&Self>) -> Self {
        let model = like.map(|like| &like.model).filter(|model| ***model == *reported.gpu.model);
        Self {
            uuid: reported.uuid.into(),
            model: model.map_or_else(|| reported.gpu.model.into(), Arc::clone),
            bus_id: reported.gpu.bus_id.into(),
            mig: None,
            unhealthy_reasons: Box::default(),
            warnings: Box::default(),
            utilization_ratio: None,
            memory_used_bytes: None,
            memory_total_bytes: None,
            xid_errors: Box::default(),
            nvlink_errors: None,
            holders: None,
            strays: None,
            unclaimed_memory_bytes: None,
        }
    }

    fn update(&mut self, reported: &ReportedDevice<'_>) {
        let ReportedDevice { gpu, instance, .. } = reported;
        set_text(&mut self.model, gpu.model);
        set_text(&mut self.bus_id, gpu.bus_id);
        match (&mut self.mig, instance) {
            (Some((parent, profile)), Some(instance)) => {
                set_text(parent, gpu.uuid);
                set_text(profile, instance.profile);
            }
            (mig, instance) => *mig = instance.map(|instance| (gpu.uuid.into(), instance.profile.into())),
        }
        let mut reasons = gpu.unhealthy_reasons.clone();
        if let Some(instance) = instance {
            reasons.extend(&instance.unhealthy_reasons);
            reasons.sort_unstable();
            reasons.dedup();
        }
        set_texts(&mut self.unhealthy_reasons, &reasons);
        // An instance has no warnings, Xid events or NVLink counters of its own.
        let whole = Some(gpu).filter(|_| instance.is_none());
        let mut warnings = whole.map(|gpu| gpu.warnings.clone()).unwrap_or_default();
        warnings.sort_unstable();
        warnings.dedup();
        set_texts(&mut self.warnings, &warnings);
        match (&mut self.nvlink_errors, whole.and_then(|gpu| gpu.nvlink_errors.as_ref())) {
            (Some(known), Some(new)) => known.clone_from(new),
            (known, new) => *known = new.cloned(),
        }
        let xid_errors = gpu.xid_errors.iter().filter(|_| instance.is_none()).map(|errors| (errors.xid, errors.count));
        if !self.xid_errors.iter().copied().eq(xid_errors.clone()) {
            self.xid_errors = xid_errors.collect();
        }
        self.utilization_ratio = instance.map_or(gpu.utilization_ratio, |mig| mig.utilization_ratio);
        self.memory_used_bytes = instance.map_or(gpu.memory_used_bytes, |mig| mig.memory_used_bytes);
        self.memory_total_bytes = instance.map_or(gpu.memory_total_bytes, |mig| mig.memory_total_bytes);
    }

    fn update_holders(&mut self, held: Option<&HeldDevices<'_>>) {
        let Some(held) = held else { return self.holders = None };
        let known =
            self.holders.iter().flat_map(|holders| &**holders).map(|holder| holder.each_ref().map(|text| &**text));
        let same = self.holders.is_some() && known.eq(held.holders_of(&self.uuid).map(HeldDevice::holder));
        if !same {
            self.holders = Some(held.holders_of(&self.uuid).map(HeldDevice::kept_holder).collect());
        }
    }

    /// 0 if it is at most this part of the device's memory.
    fn unclaimed(&self, stored: &Stored, percent: u8) -> Option<u64> {
        let bytes = stored.unclaimed_bytes(&self.uuid)?;
        let is_more = u128::from(bytes) * 100 > u128::from(self.memory_total_bytes?) * u128::from(percent);
        Some(if is_more { bytes } else { 0 })
    }
}

/// Sets a text, and keeps the allocation if the text is unchanged.
fn set_text(text: &mut Arc<str>, new: &str) {
    if **text != *new {
        *text = new.into();
    }
}

/// The same for several texts.
fn set_texts(texts: &mut Box<[Arc<str>]>, new: &[&str]) {
    if !texts.iter().map(|text| &**text).eq(new.iter().copied()) {
        *texts = new.iter().copied().map(Arc::from).collect();
    }
}

#[cfg(test)]
mod tests {
    use mcad_testkit::reports as fixtures;
    use mcad_wire::report::{self, Assignment, Assignments, GpuUse, NvlinkErrors, XidErrors};
    use proptest::prelude::*;
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::cluster::Cluster;
    use crate::measure::{NamedPods, Places};
    use crate::now::Now;
    use crate::object::{Kind, decode};

    const UUIDS: [&str; 4] = ["GPU-a", "GPU-b", "MIG-c", "MIG-d"];

    fn cluster() -> Cluster {
        let node = ("Node", json!({"metadata": {"name": "n"}}));
        let pod = |name: &str| {
            let metadata = json!({"namespace": "team", "name": name, "uid": name});
            ("Pod", json!({"metadata": metadata, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}))
        };
        let all = [node, pod("p"), pod("q")];
        Cluster::from_objects(all.map(|(kind, object)| decode(Kind::named("v1", kind).unwrap(), object).unwrap()))
    }

    fn uuid() -> impl Strategy<Value = String> {
        prop::sample::select(UUIDS.as_slice()).prop_map(str::to_owned)
    }

    fn reasons() -> impl Strategy<Value = Vec<String>> {
        prop::sample::subsequence(vec!["xid-79".to_owned(), "ecc".to_owned()], 0..=2).prop_shuffle()
    }

    fn instance() -> impl Strategy<Value = report::MigInstance> {
        (uuid(), "[12]g", reasons(), any::<Option<u64>>()).prop_map(|(uuid, profile, unhealthy_reasons, memory)| {
            report::MigInstance { unhealthy_reasons, memory_used_bytes: memory, ..fixtures::mig(&uuid, &profile) }
        })
    }

    fn gpu() -> impl Strategy<Value = report::Gpu> {
        let names = (uuid(), "[AB]", "0[12]");
        let xid_errors = prop::collection::vec((0..2_u64).prop_map(|xid| XidErrors { xid, count: xid }), 0..2);
        let nvlinks = prop::option::of(any::<Option<u64>>())
            .prop_map(|replay| replay.map(|replay| Box::new(NvlinkErrors { replay, ..NvlinkErrors::default() })));
        let instances = prop::collection::vec(instance(), 0..3);
        (names, [reasons(), reasons()], prop::option::of(0.0..1.0), instances, xid_errors, nvlinks).prop_map(
            |(names, [unhealthy_reasons, warnings], utilization_ratio, mig_instances, xid_errors, nvlink_errors)| {
                let (uuid, model, bus_id) = names;
                report::Gpu {
                    model,
                    bus_id,
                    unhealthy_reasons,
                    mig_instances,
                    xid_errors,
                    uses: vec![GpuUse::default()],
                    warnings,
                    nvlink_errors,
                    ..fixtures::gpu(&uuid, utilization_ratio)
                }
            },
        )
    }

    fn assignments() -> impl Strategy<Value = Assignments> {
        let assigned =
            ("[pqr]", "[xy]", prop::collection::vec(uuid(), 0..4)).prop_map(|(pod, container, device_ids)| {
                Assignment { namespace: "team".into(), pod, container, device_ids, ..Assignment::default() }
            });
        let assigned = prop::collection::vec(assigned, 0..4);
        assigned.prop_map(|assigned| Assignments { assigned, ..Assignments::default() })
    }

    fn a_report() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(gpu(), 0..4), prop::option::of(assignments())).prop_map(|(devices, assignments)| {
            let gpus = Some(fixtures::gpus(devices));
            report::Report { gpus, assignments, ..fixtures::report("n", 1) }.encode_to_vec()
        })
    }

    fn devices(cluster: &Cluster, known: Box<[Device]>, encoded: &[u8]) -> Box<[Device]> {
        let report = Report::read(encoded).unwrap();
        let named = NamedPods::find(cluster, &report, &Places::default());
        let stored = Stored::after(None, &report, encoded, Now::default());
        let held = named.assigned.as_deref().map(HeldDevices::new);
        let rights = held.as_ref().and_then(|held| Rights::new(cluster, &report, held));
        let evidence = Evidence { stored: &stored, held: held.as_ref(), rights, unclaimed_memory_percent: 1 };
        updated(known, &report, evidence)
    }

    proptest! {
        #[test]
        fn what_was_known_before_makes_no_difference(before in a_report(), now in a_report()) {
            let cluster = cluster();
            let anew = devices(&cluster, Box::default(), &now);
            let known = devices(&cluster, Box::default(), &before);
            prop_assert_eq!(&devices(&cluster, known, &now), &anew);
            prop_assert_eq!(&devices(&cluster, anew.clone(), &now), &anew);
            prop_assert!(anew.is_sorted_by(|a, b| a.uuid < b.uuid));
        }
    }
}
