//! The devices of a fake-nvml scenario as a device plugin lists them: names, ids, replicas, health. Pure.

use std::collections::BTreeMap;

use fake_nvml::scenario::{Device as Gpu, Scenario, Xid};

use crate::device_plugin_api::Device;

/// Xid errors that the real plugin attributes to the application.
const IGNORED_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// How devices are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// How many times each device is listed; named `UUID::N` if more than once.
    pub replicas: u32,
    /// Whether the plugin checks the health of its devices.
    pub checks: HealthChecks,
}

/// Whether a plugin checks the health of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChecks {
    /// It checks.
    On,
    /// It does not check: all devices it once found stay healthy.
    Off,
}

impl Default for Listing {
    fn default() -> Self {
        Self { replicas: 1, checks: HealthChecks::On }
    }
}

/// What a plugin found when it started. A device that is lost later stays in it, unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// UUIDs by resource, in NVML's order.
    resources: BTreeMap<String, Vec<String>>,
}

impl Inventory {
    /// The devices that NVML lists for a process that starts now; MIG instances under their profile's name (strategy
    /// `mixed`).
    pub fn new(scenario: &Scenario) -> Self {
        let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for gpu in scenario.devices.iter().filter(|gpu| !gpu.lost) {
            match &gpu.mig {
                None => resources.entry("nvidia.com/gpu".to_owned()).or_default().push(gpu.uuid.clone()),
                Some(instances) => {
                    for instance in instances {
                        let resource = format!("nvidia.com/mig-{}", instance.profile.replace('+', "."));
                        resources.entry(resource).or_default().push(instance.uuid.clone());
                    }
                }
            }
        }
        Self { resources }
    }

    /// The devices in this scenario, by resource.
    pub fn devices(&self, scenario: &Scenario, listing: Listing) -> BTreeMap<String, Vec<Device>> {
        let list = |uuids: &Vec<String>| {
            let devices = uuids.iter().flat_map(|uuid| {
                let broken = listing.checks == HealthChecks::On && is_broken(scenario, uuid);
                let health = if broken { Device::UNHEALTHY } else { Device::HEALTHY };
                ids(uuid, listing.replicas).map(move |id| Device { id, health: health.to_owned() })
            });
            devices.collect()
        };
        self.resources.iter().map(|(resource, uuids)| (resource.clone(), list(uuids))).collect()
    }
}

fn ids(uuid: &str, replicas: u32) -> impl Iterator<Item = String> + use<'_> {
    (0..replicas.max(1)).map(move |replica| if replicas > 1 { format!("{uuid}::{replica}") } else { uuid.to_owned() })
}

/// Whether a GPU, or the parent of an instance, is gone, or had an error that is not the application's.
fn is_broken(scenario: &Scenario, uuid: &str) -> bool {
    let holds = |gpu: &&Gpu| gpu.uuid == uuid || gpu.mig.iter().flatten().any(|instance| instance.uuid == uuid);
    let Some(gpu) = scenario.devices.iter().find(holds) else { return true };
    let concerns = |xid: &&Xid| xid.device == gpu.uuid && !IGNORED_XIDS.contains(&xid.xid);
    gpu.lost || scenario.xids.iter().any(|xid| concerns(&xid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy(scenario: &Scenario, found: &Inventory, listing: Listing) -> BTreeMap<String, Vec<bool>> {
        let devices = found.devices(scenario, listing).into_iter();
        devices.map(|(resource, devices)| (resource, devices.iter().map(Device::is_healthy).collect())).collect()
    }

    #[test]
    fn a_device_that_is_handed_out_several_times_has_as_many_ids() {
        let scenario = Scenario::of(1, "L4");
        let listing = Listing { replicas: 2, ..Listing::default() };
        let devices = &Inventory::new(&scenario).devices(&scenario, listing)["nvidia.com/gpu"];
        let uuid = &scenario.devices[0].uuid;
        let ids: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
        assert_eq!(ids, [format!("{uuid}::0"), format!("{uuid}::1")]);
    }

    #[test]
    fn an_error_of_the_application_breaks_no_gpu_and_one_of_the_device_does() {
        let mut scenario = Scenario::of(2, "L4");
        let found = Inventory::new(&scenario);
        let raise = |scenario: &mut Scenario, xid| {
            scenario.xids.push(Xid { device: scenario.devices[1].uuid.clone(), xid, ..Xid::default() });
        };
        raise(&mut scenario, 13);
        assert_eq!(healthy(&scenario, &found, Listing::default())["nvidia.com/gpu"], [true, true]);
        raise(&mut scenario, 79);
        assert_eq!(healthy(&scenario, &found, Listing::default())["nvidia.com/gpu"], [true, false]);
        let unaware = Listing { checks: HealthChecks::Off, ..Listing::default() };
        assert_eq!(healthy(&scenario, &found, unaware)["nvidia.com/gpu"], [true, true]);
    }

    #[test]
    fn all_instances_of_a_lost_gpu_are_listed_and_unhealthy() {
        let mut scenario = Scenario::of(2, "A100-SXM4-80GB");
        scenario.devices[0] = scenario.devices[0].clone().in_smallest_instances();
        let found = Inventory::new(&scenario);
        scenario.devices[0].lost = true;
        let healthy = healthy(&scenario, &found, Listing::default());
        assert_eq!(healthy["nvidia.com/mig-1g.10gb"], [false; 7]);
        assert_eq!(healthy["nvidia.com/gpu"], [true]);
        assert!(
            !Inventory::new(&scenario).devices(&scenario, Listing::default()).contains_key("nvidia.com/mig-1g.10gb")
        );
    }
}
