//! From the device plugin through kubelet to PodResources, over their sockets, with the devices of a fake-nvml
//! scenario.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::time::Duration;

use fake_kubelet::inventory::{Inventory, Listing};
use fake_kubelet::kubelet::{Declared, NotAdmitted, SOCKET};
use fake_kubelet::{DevicePlugin, Kubelet, device_plugin};
use fake_nvml::Scenario;
use fake_nvml::scenario::Xid;
use tempfile::TempDir;

const GPU: &str = "nvidia.com/gpu";
/// Far longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_mins(2);

struct Chain {
    directory: TempDir,
    scenario: Scenario,
    found: Inventory,
    listing: Listing,
    kubelet: Kubelet,
    plugin: DevicePlugin,
}

impl Chain {
    fn new(scenario: Scenario, listing: Listing) -> Self {
        let directory = TempDir::new().unwrap();
        let kubelet = Kubelet::start(directory.path(), &directory.path().join("pod-resources.sock")).unwrap();
        let found = Inventory::new(&scenario);
        let devices = found.devices(&scenario, listing).remove(GPU).unwrap();
        let plugin = DevicePlugin::start(directory.path(), GPU, devices).unwrap();
        plugin.register().unwrap();
        Self { directory, scenario, found, listing, kubelet, plugin }
    }

    /// Makes the plugin read the scenario.
    fn look(&self) {
        self.plugin.list(self.found.devices(&self.scenario, self.listing).remove(GPU).unwrap());
    }

    fn break_gpu(&mut self, index: usize) {
        let device = self.scenario.devices[index].uuid.clone();
        self.scenario.xids.push(Xid { device, xid: 79, ..Xid::default() });
        self.look();
    }

    #[track_caller]
    fn check(&self, capacity: usize, allocatable: usize) {
        let declared = Declared { capacity, allocatable };
        let now = || self.kubelet.declared(GPU);
        assert!(self.kubelet.declares(GPU, declared, PATIENCE), "{:?} is not {declared:?}", now());
        let responses = self.kubelet.pod_resources().responses().allocatable.clone();
        assert_eq!(responses.devices.iter().map(|of| of.device_ids.len()).sum::<usize>(), allocatable);
    }
}

#[test]
fn what_a_plugin_calls_unhealthy_is_capacity_and_not_allocatable() {
    let mut chain = Chain::new(Scenario::of(8, "H100 80GB HBM3"), Listing::default());
    chain.check(8, 8);
    chain.break_gpu(3);
    chain.check(8, 7);
    chain.scenario.xids.clear();
    chain.look();
    chain.check(8, 8);
}

#[test]
fn a_pod_keeps_the_gpu_that_broke_in_its_hands_and_no_other_gets_it() {
    let mut chain = Chain::new(Scenario::of(8, "H100 80GB HBM3"), Listing::default());
    chain.check(8, 8);
    chain.kubelet.admit("ml", "train-0", GPU, 2).unwrap();
    let answer = chain.kubelet.admit("ml", "train-1", GPU, 2).unwrap();
    let uuid = |index: usize| chain.scenario.devices[index].uuid.clone();
    assert_eq!(answer.container_responses[0].envs[device_plugin::VISIBLE_DEVICES], [uuid(2), uuid(3)].join(","));
    chain.break_gpu(3);
    chain.check(8, 7);
    assert_eq!(chain.kubelet.pod_resources().responses().pods.pod_resources.len(), 2);
    assert!(matches!(chain.kubelet.admit("ml", "train-2", GPU, 5), Err(NotAdmitted::TooFew)));
    // Free again, but broken: it is still assigned to nobody.
    chain.kubelet.pod_resources().responses().end("ml", "train-1");
    assert!(matches!(chain.kubelet.admit("ml", "train-2", GPU, 6), Err(NotAdmitted::TooFew)));
    chain.kubelet.admit("ml", "train-2", GPU, 5).unwrap();
}

#[test]
fn every_replica_of_a_broken_gpu_is_unhealthy_and_a_container_sees_each_gpu_once() {
    let listing = Listing { replicas: 4, ..Listing::default() };
    let mut chain = Chain::new(Scenario::of(2, "L4"), listing);
    chain.check(8, 8);
    let answer = chain.kubelet.admit("ml", "notebook", GPU, 2).unwrap();
    assert_eq!(answer.container_responses[0].envs[device_plugin::VISIBLE_DEVICES], chain.scenario.devices[0].uuid);
    chain.break_gpu(1);
    chain.check(8, 4);
}

#[test]
fn without_its_plugin_nothing_is_allocatable_until_it_registers_again() {
    let mut chain = Chain::new(Scenario::of(2, "L4"), Listing::default());
    chain.check(2, 2);
    let devices = chain.found.devices(&chain.scenario, chain.listing).remove(GPU).unwrap();
    // Another plugin, in a directory of its own, replaces the old one.
    let elsewhere = TempDir::new().unwrap();
    let next = DevicePlugin::start(elsewhere.path(), GPU, devices.clone()).unwrap();
    drop(std::mem::replace(&mut chain.plugin, next));
    chain.check(2, 0);
    chain.plugin = DevicePlugin::start(chain.directory.path(), GPU, devices).unwrap();
    chain.plugin.register().unwrap();
    chain.check(2, 2);
}

#[test]
fn a_plugin_finds_no_kubelet_where_there_is_none() {
    let directory = TempDir::new().unwrap();
    let plugin = DevicePlugin::start(directory.path(), GPU, Vec::new()).unwrap();
    assert!(!directory.path().join(SOCKET).exists());
    plugin.register().unwrap_err();
    assert!(plugin.is_reachable());
}
