//! GPUs that are connected by NVSwitch: a problem of one does not affect the other seven.

use fake_nvml::scenario::NvLink;

use super::*;
use crate::sample::gpu::{NvlinkErrors, Warning};

/// Everything is known and nothing is wrong; each test changes one condition.
const WELL: u32 = 0x1aa;

/// Eight GPUs of one tray. The third is changed after the first sample.
fn tray(change: impl FnOnce(&mut Device)) -> Node {
    let mut node = Node::new(Scenario::of(8, H100));
    assert_eq!(unhealthy(&node.sample()).concat(), Vec::<&str>::new());
    node.change(|scenario| change(&mut scenario.devices[2]));
    node
}

fn warnings(sample: &GpuSample) -> Vec<Vec<Warning>> {
    sample.devices.iter().map(|gpu| gpu.warnings.clone()).collect()
}

/// Checks that the third is unhealthy only for this reason, that all others are healthy, and that it recovers.
#[track_caller]
fn check(change: impl FnOnce(&mut Device), reason: &'static str) {
    let mut node = tray(change);
    let mut expected = vec![vec![]; 8];
    expected[2] = vec![reason];
    // Some values are read for one device per round.
    let sample = (0..8).map(|_| node.sample()).last().unwrap();
    assert_eq!(unhealthy(&sample), expected);
    assert_eq!(warnings(&sample).concat(), []);
    node.change(|scenario| scenario.devices[2] = Device::of(2, H100));
    let mended = (0..8).map(|_| node.sample()).last().unwrap();
    assert_eq!(unhealthy(&mended).concat(), Vec::<&str>::new(), "{reason}");
}

#[test]
fn a_sick_gpu_in_a_tray_of_eight_does_not_make_the_other_seven_sick() {
    check(|gpu| gpu.fabric_status = 999, "fabric_failed");
    check(|gpu| gpu.fabric_state = Some(2), "fabric_not_ready");
    check(|gpu| gpu.fabric_health = Some(WELL & !0x30 | 0x10), "fabric_route_unhealthy");
    check(|gpu| gpu.fabric_health = Some(WELL & !0xc0 | 0x40), "fabric_access_timeout");
    check(|gpu| gpu.fabric_health = Some(WELL & !0xf00 | 0x400), "fabric_no_partition");
    check(|gpu| gpu.fabric_health = Some(WELL & !0xf00 | 0x500), "fabric_misconfigured");
    check(|gpu| gpu.sram_threshold_exceeded = true, "sram_threshold_exceeded");
}

#[test]
fn an_xid_of_nvlink_is_the_gpus_that_raised_it() {
    let mut node = tray(|_| {});
    let uuid = node.scenario.devices[5].uuid.clone();
    node.change(|scenario| scenario.xids.push(Xid { device: uuid, xid: 74, ..Xid::default() }));
    let mut expected = vec![vec![]; 8];
    expected[5] = vec!["xid"];
    assert_eq!(unhealthy(&node.sample()), expected);
}

#[test]
fn less_bandwidth_and_a_route_that_recovers_are_warnings_and_the_gpu_stays_healthy() {
    for (mask, warning) in
        [(WELL & !0x3 | 0x1, Warning::FabricDegradedBandwidth), (WELL & !0xc | 0x4, Warning::FabricRouteRecovery)]
    {
        let mut node = tray(|gpu| gpu.fabric_health = Some(mask));
        let sample = node.sample();
        assert_eq!(unhealthy(&sample).concat(), Vec::<&str>::new());
        let mut expected = vec![vec![]; 8];
        expected[2] = vec![warning];
        assert_eq!(warnings(&sample), expected);
    }
}

#[test]
fn of_a_tray_without_its_fabric_manager_every_gpu_waits() {
    let mut scenario = Scenario::of(8, H100);
    scenario.devices.iter_mut().for_each(|gpu| gpu.fabric_state = Some(1));
    assert_eq!(unhealthy(&Node::new(scenario).sample()), vec![vec!["fabric_not_ready"]; 8]);
}

#[test]
fn an_older_driver_is_asked_as_it_knows_to_answer_and_the_way_is_found_once() {
    // For each newest struct that the driver supports: what it reports as status and mask, and how many calls that
    // takes.
    for (fabric_info, expected, first, later) in [
        (3, vec!["fabric_failed", "fabric_route_unhealthy"], 1, 1),
        (2, vec!["fabric_failed", "fabric_route_unhealthy"], 2, 1),
        (1, vec!["fabric_failed"], 3, 1),
        (0, vec![], 3, 0),
    ] {
        let mut scenario = Scenario::of(1, H100);
        scenario.driver.fabric_info = fabric_info;
        (scenario.devices[0].fabric_status, scenario.devices[0].fabric_health) = (999, Some(0x19a));
        let mut node = Node::new(scenario);
        let samples = [node.sample(), node.sample()];
        assert_eq!(samples.each_ref().map(unhealthy), [vec![expected.clone()], vec![expected]], "{fabric_info}");
        // At first 5, 1 for the handle, 4 for the identification, 1 for the events; then each time 2, 6, and 2 for
        // values that change seldom.
        assert_eq!(samples.map(|sample| sample.calls), [11 + 12 + first, 12 + later], "{fabric_info}");
    }
}

#[test]
fn a_driver_that_does_not_know_of_sram_errors_leaves_the_gpu_healthy_and_is_not_asked_again() {
    for code in [3, 13, 25] {
        let mut scenario = Scenario::of(1, H100);
        scenario.devices[0].sram_threshold_exceeded = true;
        scenario.devices[0].errors.insert("nvmlDeviceGetSramEccErrorStatus".into(), code);
        let mut node = Node::new(scenario);
        let (first, second) = (node.sample(), node.sample());
        assert_eq!((unhealthy(&first), unhealthy(&second)), (vec![vec![]], vec![vec![]]), "{code}");
        assert_eq!((first.calls, second.calls), (24, 12), "{code}");
    }
}

fn counts(replay: u64, crc_data: u64) -> NvlinkErrors {
    NvlinkErrors {
        replay: Some(replay),
        recovery: Some(0),
        crc_flit: Some(0),
        crc_data: Some(crc_data),
        ecc_data: Some(0),
    }
}

/// A driver without sums over all links.
fn without_totals(device: &mut Device) {
    device.field_errors = [38, 45, 52, 59, 160].map(|field| (field, 3)).into();
}

#[test]
fn errors_of_nvlinks_are_counted_over_the_links_and_say_nothing_of_health() {
    for change in [|_: &mut Device| {}, without_totals] {
        let mut scenario = Scenario::of(2, H100);
        let mut links = scenario.devices[1].nvlinks();
        (links[0].replay, links[17].replay, links[17].crc_data) = (40, 2, 7);
        scenario.devices[1].nvlinks = Some(links);
        scenario.devices.iter_mut().for_each(change);
        scenario.devices.push(Device::of(2, "L40S"));
        let sample = Node::new(scenario).sample();
        let errors: Vec<_> = sample.devices.iter().map(|gpu| gpu.nvlink_errors).collect();
        assert_eq!(errors, [Some(counts(0, 0)), Some(counts(42, 7)), None]);
        assert_eq!(unhealthy(&sample).concat(), Vec::<&str>::new());
    }
}

#[test]
fn an_exceeded_threshold_is_found_in_the_first_round_of_every_gpu_and_later_in_its_turn() {
    let mut scenario = Scenario::of(3, H100);
    scenario.devices[2].sram_threshold_exceeded = true;
    let mut node = Node::new(scenario);
    let exceeded = "sram_threshold_exceeded";
    assert_eq!(unhealthy(&node.sample()), [vec![], vec![], vec![exceeded]]);
    node.change(|scenario| scenario.devices[1].sram_threshold_exceeded = true);
    assert_eq!(unhealthy(&node.sample()), [vec![], vec![], vec![exceeded]]);
    assert_eq!(unhealthy(&node.sample()), [vec![], vec![exceeded], vec![exceeded]]);
}

#[test]
fn nvlinks_are_read_of_all_gpus_at_first_and_then_of_one_after_the_other() {
    let mut node = Node::new(Scenario::of(3, H100));
    node.sample();
    node.change(|scenario| {
        for device in &mut scenario.devices {
            device.nvlinks = Some(vec![NvLink { replay: 1, ..NvLink::default() }]);
        }
    });
    let mut read = || {
        let sample = node.sample();
        sample.devices.iter().map(|gpu| gpu.nvlink_errors.unwrap().replay.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!([read(), read(), read()], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]);
}

#[test]
fn without_totals_each_link_in_use_is_read_and_a_link_that_goes_out_of_use_keeps_its_errors() {
    let mut node = Node::new(Scenario::of(1, H100));
    let link = |replay| NvLink { replay, ..NvLink::default() };
    node.change(|scenario| {
        without_totals(&mut scenario.devices[0]);
        scenario.devices[0].nvlinks = Some(vec![link(5), NvLink { inactive: true, ..link(100) }, link(3)]);
    });
    let errors = |sample: &GpuSample| sample.devices[0].nvlink_errors.unwrap().replay;
    assert_eq!(errors(&node.sample()), Some(8));
    node.change(|scenario| {
        scenario.devices[0].nvlinks = Some(vec![link(6), link(100), NvLink { inactive: true, ..link(3) }]);
    });
    let sample = node.sample();
    assert_eq!(errors(&sample), Some(6 + 100 + 3));
    // 2, 10 of the device; three links and the missing fourth, and two links with five kinds.
    assert_eq!(sample.calls, 2 + 10 + 4 + 2 * 5);
}

#[test]
fn a_gpu_that_is_lost_keeps_the_errors_that_its_nvlinks_had() {
    let mut node = tray(|gpu| gpu.nvlinks = Some(vec![NvLink { crc_data: 9, ..NvLink::default() }]));
    (0..3).for_each(|_| drop(node.sample()));
    node.change(|scenario| scenario.devices[2].lost = true);
    for sample in [node.sample(), node.sample()] {
        let mut expected = vec![vec![]; 8];
        expected[2] = vec!["lost"];
        assert_eq!(unhealthy(&sample), expected);
        assert_eq!(sample.devices[2].nvlink_errors, Some(counts(0, 9)));
    }
}
