//! GPUs and MIG instances, as they are shown one by one. Owns what of them is kept from one report to the next: all but numbers,
//! which is mostly the same.
use std::sync::Arc;

use mcad_wire::reading::{Gpu, MigInstance, NvlinkErrors, Report};

use super::held::{HeldDevice, HeldDevices};

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its UUID.
    pub uuid: Arc<str>,
    /// Product name; of an instance, its parent's.
    pub model: Arc<str>,
    /// PCI address; of an instance, its parent's.
    pub bus_id: Arc<str>,
    /// The parent and profile of a MIG instance.
    pub mig: Option<(Arc<str>, Arc<str>)>,
    /// Why it should not be used; none: it is healthy.
    pub unhealthy_reasons: Box<[Arc<str>]>,
    /// What is wrong with it although it works; in order, each once. An instance has none of its own.
    pub warnings: Box<[Arc<str>]>,
    /// Part of the last sampling period in which a kernel ran on it.
    pub utilization_ratio: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    pub memory_total_bytes: Option<u64>,
    /// Xid events by code.
    pub xid_errors: Box<[(u64, u64)]>,
    /// Errors of its NVLinks. Absent: it has none, or they are not known.
    pub nvlink_errors: Option<Box<NvlinkErrors>>,
    /// Who holds it: namespace, pod, container; in order, each once. Absent: unknown.
    pub holders: Option<Arc<[[Arc<str>; 3]]>>,
}

/// A device as a report tells of it.
struct Told<'r> {
    uuid: &'r str,
    /// Itself, or its parent.
    gpu: &'r Gpu<'r>,
    /// Absent: it is whole.
    instance: Option<&'r MigInstance<'r>>,
}

/// The devices of which a report tells, in order of UUID; those that are `known` are changed in place, so that no text is made anew
/// and hardly any memory taken.
pub(super) fn as_told(mut known: Box<[Device]>, report: &Report<'_>, held: Option<&HeldDevices<'_>>) -> Box<[Device]> {
    let all_told = told(report);
    if !known.iter().map(|device| &*device.uuid).eq(all_told.iter().map(|told| told.uuid)) {
        let mut devices: Vec<Device> = Vec::with_capacity(all_told.len());
        for told in &all_told {
            let was = known.iter().find(|device| *device.uuid == *told.uuid).cloned();
            devices.push(was.unwrap_or_else(|| Device::new(told, devices.last())));
        }
        known = devices.into();
    }
    for (device, told) in known.iter_mut().zip(&all_told) {
        device.be(told);
        device.be_held(held);
    }
    known
}

/// In order of UUID.
fn told<'r>(report: &'r Report<'r>) -> Vec<Told<'r>> {
    let gpus = report.gpus.as_ref().map_or(&[][..], |gpus| &gpus.devices);
    let mut all = Vec::with_capacity(gpus.iter().map(|gpu| 1 + gpu.mig_instances.len()).sum());
    for gpu in gpus {
        let instance = |instance: &'r MigInstance<'r>| Told { uuid: instance.uuid, gpu, instance: Some(instance) };
        all.extend(gpu.mig_instances.iter().map(instance));
        all.push(Told { uuid: gpu.uuid, gpu, instance: None });
    }
    all.sort_by_key(|told| told.uuid);
    // A UUID is one device, whatever the driver says.
    all.dedup_by_key(|told| told.uuid);
    all
}

impl Device {
    /// One of which nothing but names is known. The GPUs of a node are mostly of one model, as `like` is.
    fn new(told: &Told<'_>, like: Option<&Self>) -> Self {
        let model = like.map(|like| &like.model).filter(|model| ***model == *told.gpu.model);
        Self {
            uuid: told.uuid.into(),
            model: model.map_or_else(|| told.gpu.model.into(), Arc::clone),
            bus_id: told.gpu.bus_id.into(),
            mig: None,
            unhealthy_reasons: Box::default(),
            warnings: Box::default(),
            utilization_ratio: None,
            memory_used_bytes: None,
            memory_total_bytes: None,
            xid_errors: Box::default(),
            nvlink_errors: None,
            holders: None,
        }
    }

    fn be(&mut self, told: &Told<'_>) {
        let Told { gpu, instance, .. } = told;
        renew(&mut self.model, gpu.model);
        renew(&mut self.bus_id, gpu.bus_id);
        match (&mut self.mig, instance) {
            (Some((parent, profile)), Some(instance)) => {
                renew(parent, gpu.uuid);
                renew(profile, instance.profile);
            }
            (mig, instance) => *mig = instance.map(|instance| (gpu.uuid.into(), instance.profile.into())),
        }
        let mut reasons = gpu.unhealthy_reasons.clone();
        if let Some(instance) = instance {
            reasons.extend(&instance.unhealthy_reasons);
            reasons.sort_unstable();
            reasons.dedup();
        }
        renew_all(&mut self.unhealthy_reasons, &reasons);
        // An instance has none of its own, nor counters of links.
        let whole = Some(gpu).filter(|_| instance.is_none());
        let mut warnings = whole.map(|gpu| gpu.warnings.clone()).unwrap_or_default();
        warnings.sort_unstable();
        warnings.dedup();
        renew_all(&mut self.warnings, &warnings);
        match (&mut self.nvlink_errors, whole.and_then(|gpu| gpu.nvlink_errors.as_ref())) {
            (Some(known), Some(told)) => known.clone_from(told),
            (known, told) => *known = told.cloned(),
        }
        let xid_errors = gpu.xid_errors.iter().filter(|_| instance.is_none()).map(|errors| (errors.xid, errors.count));
        if !self.xid_errors.iter().copied().eq(xid_errors.clone()) {
            self.xid_errors = xid_errors.collect();
        }
        self.utilization_ratio = instance.map_or(gpu.utilization_ratio, |mig| mig.utilization_ratio);
        self.memory_used_bytes = instance.map_or(gpu.memory_used_bytes, |mig| mig.memory_used_bytes);
        self.memory_total_bytes = instance.map_or(gpu.memory_total_bytes, |mig| mig.memory_total_bytes);
    }

    fn be_held(&mut self, held: Option<&HeldDevices<'_>>) {
        let Some(held) = held else { return self.holders = None };
        let known =
            self.holders.iter().flat_map(|holders| &**holders).map(|holder| holder.each_ref().map(|text| &**text));
        let same = self.holders.is_some() && known.eq(held.holders_of(&self.uuid).map(HeldDevice::holder));
        if !same {
            self.holders = Some(held.holders_of(&self.uuid).map(HeldDevice::kept_holder).collect());
        }
    }
}

/// The text as it is told, and no new one where it is what it was.
fn renew(text: &mut Arc<str>, told: &str) {
    if **text != *told {
        *text = told.into();
    }
}

/// The same of several.
fn renew_all(texts: &mut Box<[Arc<str>]>, told: &[&str]) {
    if !texts.iter().map(|text| &**text).eq(told.iter().copied()) {
        *texts = told.iter().copied().map(Arc::from).collect();
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
        as_told(known, &report, named.assigned.as_deref().map(HeldDevices::new).as_ref())
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
