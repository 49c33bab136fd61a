//! Calls that hang: the sample meanwhile, the number of processes, and the recovery.

use super::*;

#[test]
fn a_call_that_hangs_leaves_the_figures_absent_and_they_return_when_it_does() {
    for call in ["nvmlDeviceGetMemoryInfo_v2", "nvmlInit_v2", "nvmlEventSetWait_v2", "nvmlDeviceGetCount_v2"] {
        let mut node = Node::new(Scenario::of(8, H100));
        let at_first = (call != "nvmlInit_v2").then(|| node.sample());
        node.hang(call);
        for _ in 0..6 {
            assert_eq!(node.try_sample(), Err(Reason::Timeout), "{call}");
        }
        assert_eq!(node.gpus.watchdog.processes(), 1, "{call}");
        node.gpus.watchdog.set_patience(IMPATIENT, Duration::ZERO);
        for _ in 0..6 {
            assert_eq!(node.try_sample(), Err(Reason::Timeout), "{call}");
        }
        assert_eq!(node.gpus.watchdog.processes(), 2, "{call}");
        assert_eq!(node.gpus.worker_ends(), [2, 0, 0, 0, 0], "{call}");
        node.mend();
        let back = node.sample();
        assert_eq!(node.gpus.watchdog.processes(), 1, "{call}");
        assert_eq!(back.devices.len(), 8, "{call}");
        if let Some(at_first) = at_first {
            assert_eq!(back.devices[0].uuid, at_first.devices[0].uuid);
        }
    }
}

#[test]
fn a_call_that_never_returns_costs_one_more_process_which_reads_on() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.change(|scenario| {
        scenario.hangs = vec![Hang { call: "nvmlDeviceGetName".into(), calls: Some(1), ..Hang::default() }];
    });
    node.gpus.watchdog.set_patience(IMPATIENT, PATIENT);
    assert_eq!(node.try_sample(), Err(Reason::Timeout));
    node.wait_until_hung(1);
    node.gpus.watchdog.set_patience(PATIENT, Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(node.sample().devices.len(), 2);
        assert_eq!(node.gpus.watchdog.processes(), 2);
    }
    // If the new process hangs, too, no third one is started.
    node.hang("nvmlDeviceGetMemoryInfo_v2");
    node.gpus.watchdog.set_patience(IMPATIENT, Duration::ZERO);
    for _ in 0..50 {
        assert_eq!(node.try_sample(), Err(Reason::Timeout));
        assert!(node.gpus.watchdog.processes() <= 2);
    }
    assert_eq!(node.gpus.watchdog.processes(), 2);
    node.mend();
    assert_eq!((node.sample().devices.len(), node.gpus.watchdog.processes()), (2, 1));
}

#[test]
fn an_event_that_comes_with_a_late_answer_is_counted_though_its_figures_are_thrown_away() {
    let mut node = Node::new(Scenario::of(1, H100));
    node.sample();
    node.hang("nvmlDeviceGetMemoryInfo_v2");
    assert_eq!(node.try_sample(), Err(Reason::Timeout));
    let uuid = node.scenario.devices[0].uuid.clone();
    node.change(|scenario| scenario.xids.push(Xid { device: uuid, xid: 119, ..Xid::default() }));
    node.mend();
    let back = node.sample();
    assert_eq!((back.devices[0].xid_errors.clone(), unhealthy(&back)), (vec![(119, 1)], vec![vec!["xid"]]));
}

#[test]
fn busy_time_is_not_made_up_for_the_time_of_a_hang() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0].utilization = Level::Steady(1.0);
    let mut node = Node::new(scenario);
    node.sample();
    let before = node.sample().devices[0].load.busy_ns;
    assert_eq!(before, Some(10 * SECOND));
    node.hang("nvmlDeviceGetMemoryInfo_v2");
    assert_eq!(node.try_sample(), Err(Reason::Timeout));
    node.mend();
    assert_eq!(node.sample().devices[0].load.busy_ns, before);
    assert_eq!(node.sample().devices[0].load.busy_ns, Some(20 * SECOND));
}

/// An initialisation that takes longer than the deadline, as with many GPUs without persistence mode, must not lose the
/// healthy devices.
#[test]
fn a_search_that_takes_longer_than_the_deadline_costs_its_own_sample_and_no_other() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.on_bus("0000:18:00.0");
    node.on_bus("0000:19:00.0");
    node.sample();
    node.change(|scenario| scenario.devices[1].lost = true);
    // One minute until the search, then two, of which the sample after the first is one.
    for samples in [6, 10] {
        for _ in 0..samples {
            assert_eq!(node.sample().devices[0].load.utilization_ratio, Some(0.0));
        }
        node.hang("nvmlInit_v2");
        assert_eq!(node.try_sample(), Err(Reason::Timeout));
        node.mend();
        // The next initialisation would be as slow.
        node.hang("nvmlInit_v2");
        node.gpus.watchdog.set_patience(Duration::from_secs(5), PATIENT);
        let after = node.try_sample().unwrap();
        assert_eq!((after.devices.len(), after.lost_bus_ids), (1, vec!["0000:19:00.0".to_owned()]));
        node.mend();
    }
    // The device is still searched for.
    node.change(|scenario| scenario.devices[1].lost = false);
    assert!((0..30).any(|_| node.sample().devices.len() == 2));
}
