//! What is known of nodes: which reports are news, what is kept, what is forgotten, how often a node may report.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::node_name::NodeName;
use mcad_accounting::nodes::{AT_ONCE, Full, Limits, MOST_ASKING, Nodes, Outcome};
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::reported::{NoNews, Stored};
use mcad_testkit::reports::{at, cgroups, report};
use mcad_wire::reading;
use mcad_wire::report::Report;
use proptest::prelude::*;
use prost::Message as _;

#[expect(clippy::needless_pass_by_value, reason = "tests make it where they send it")]
fn insert(nodes: &mut Nodes, report: Report, now: Now) -> Result<Outcome, Full> {
    let encoded = report.encode_to_vec();
    let (name, reading) = (NodeName::new(&report.node).unwrap(), reading::Report::read(&encoded).unwrap());
    nodes.take(&Cluster::of_agents(), (&name, &reading, &encoded), now).map(|(outcome, _)| outcome)
}

fn within(limits: Limits) -> Nodes {
    Nodes::new(limits, Options::default())
}

fn local() -> Nodes {
    within(Limits::LOCAL)
}

/// The nodes whose report is kept at that time, in order of name.
fn reporting(nodes: &mut Nodes, now: Now) -> Vec<String> {
    nodes.tidy(&Cluster::of_agents(), now);
    let mut names: Vec<_> = nodes.reporting().map(|name| (**name).to_owned()).collect();
    names.sort();
    names
}

fn only(nodes: &mut Nodes, now: Now) -> Arc<Stored> {
    let [name] = &reporting(nodes, now)[..] else { panic!("one node") };
    Arc::clone(nodes.latest(name).unwrap())
}

/// What becomes of `new` after the second report of a node, and the sequence that is stored then.
fn check_news(change: impl FnOnce(&mut Report), expected: Outcome, stored: u64) {
    let mut nodes = local();
    insert(&mut nodes, report("n", 2), at(0)).unwrap();
    let mut new = report("n", 3);
    change(&mut new);
    assert_eq!(insert(&mut nodes, new, at(10)), Ok(expected));
    assert_eq!(only(&mut nodes, at(10)).report().sequence, stored);
}

#[test]
fn the_next_report_of_an_agent_is_taken() {
    check_news(|_| (), Outcome::Taken, 3);
}

#[test]
fn the_same_report_again_is_a_duplicate() {
    check_news(|new| *new = report("n", 2), Outcome::Dropped(NoNews::Duplicate), 2);
}

#[test]
fn a_report_that_was_overtaken_is_dropped() {
    check_news(|new| *new = report("n", 1), Outcome::Dropped(NoNews::Older), 2);
    // Whichever of the two figures says so.
    check_news(|new| new.uptime_ns = 1, Outcome::Dropped(NoNews::Older), 2);
    check_news(|new| new.sequence = 1, Outcome::Dropped(NoNews::Older), 2);
}

#[test]
fn an_agent_that_started_anew_begins_at_one_and_is_taken_even_if_the_clock_was_set_back() {
    let restarted = |new: &mut Report| (new.started_at_ms, new.sequence) = (10, 1);
    check_news(restarted, Outcome::Taken, 1);
}

#[test]
fn the_last_report_of_an_agent_that_was_replaced_is_dropped() {
    let late = |new: &mut Report| (new.started_at_ms, new.uptime_ns) = (10, 1);
    check_news(late, Outcome::Dropped(NoNews::Older), 2);
}

#[test]
fn a_machine_that_booted_anew_is_taken_however_short_its_uptime() {
    let rebooted = |new: &mut Report| (new.boot_id, new.sequence, new.uptime_ns) = ("boot-2".into(), 1, 1);
    check_news(rebooted, Outcome::Taken, 1);
}

#[test]
fn a_report_that_is_no_news_does_not_make_an_agent_younger() {
    let mut nodes = local();
    insert(&mut nodes, report("n", 1), at(0)).unwrap();
    insert(&mut nodes, report("n", 1), at(40)).unwrap();
    assert!(only(&mut nodes, at(40)).is_silent(at(40)));
}

#[test]
fn an_agent_is_silent_after_three_of_its_own_intervals() {
    let mut nodes = local();
    let mut slow = report("n", 1);
    slow.interval_ms = 60_000;
    insert(&mut nodes, slow, at(0)).unwrap();
    let stored = only(&mut nodes, at(180));
    assert!(!stored.is_silent(at(180)));
    assert!(stored.is_silent(at(181)));
}

/// Cores busy after a first and a second report.
fn check_busy(change: impl FnOnce(&mut Report, &mut Report), expected: Option<u64>) {
    let (mut first, mut second) = (report("n", 1), report("n", 2));
    change(&mut first, &mut second);
    let mut nodes = local();
    insert(&mut nodes, first, at(0)).unwrap();
    insert(&mut nodes, second, at(0)).unwrap();
    assert_eq!(only(&mut nodes, at(0)).cpu_busy_nanocores(), expected);
}

#[test]
fn cores_busy_are_the_difference_of_two_reports_over_their_sample_times() {
    check_busy(|_, _| (), Some(1_000_000_000));
    check_busy(|_, second| second.uptime_ns += 10_000_000_000, Some(500_000_000));
    check_busy(|first, second| second.machine.clone_from(&first.machine), Some(0));
}

#[test]
fn one_report_is_no_rate() {
    let mut nodes = local();
    insert(&mut nodes, report("n", 1), at(0)).unwrap();
    assert_eq!(only(&mut nodes, at(0)).cpu_busy_nanocores(), None);
}

#[test]
fn two_boots_are_no_rate() {
    check_busy(|first, _| first.boot_id = "boot-0".into(), None);
}

#[test]
fn a_total_that_fell_is_no_rate() {
    check_busy(|first, _| first.machine.as_mut().unwrap().cpu_busy_ns = Some(u64::MAX), None);
}

#[test]
fn more_than_twice_the_processors_busy_is_no_rate() {
    check_busy(|_, second| second.machine.as_mut().unwrap().cpu_busy_ns = Some(u64::MAX), None);
    check_busy(|first, _| first.machine.as_mut().unwrap().cpu_busy_ns = None, None);
    check_busy(|_, second| second.machine = None, None);
}

#[test]
fn an_agent_that_restarted_within_a_boot_goes_on_with_the_rates() {
    check_busy(|_, second| (second.started_at_ms, second.sequence) = (2_000, 1), Some(1_000_000_000));
}

#[test]
fn a_cgroup_has_a_rate_if_it_was_in_both_reports() {
    let (mut first, mut second) = (report("n", 1), report("n", 2));
    first.cgroups = Some(cgroups(&[("/a", 5_000_000_000), ("/b", 9)]));
    second.cgroups = Some(cgroups(&[("/a", 10_000_000_000), ("/b", 3), ("/new", 7)]));
    let mut nodes = local();
    insert(&mut nodes, first, at(0)).unwrap();
    insert(&mut nodes, second, at(0)).unwrap();
    let stored = only(&mut nodes, at(0));
    assert_eq!(stored.cgroup_nanocores(1, 10_000_000_000), Some(500_000_000));
    assert_eq!(stored.cgroup_nanocores(2, 3), None);
    assert_eq!(stored.cgroup_nanocores(3, 7), None);
}

#[test]
fn as_many_nodes_are_kept_as_there_may_be_and_the_silent_make_room() {
    let mut nodes = within(Limits { nodes: 2, keep: Duration::from_mins(1), ..Limits::LOCAL });
    insert(&mut nodes, report("a", 1), at(0)).unwrap();
    insert(&mut nodes, report("b", 1), at(30)).unwrap();
    // Silent from 30 s on, and a minute more.
    assert_eq!(insert(&mut nodes, report("c", 1), at(89)), Err(Full::Nodes(2)));
    assert_eq!(insert(&mut nodes, report("b", 2), at(89)), Ok(Outcome::Taken));
    assert_eq!(insert(&mut nodes, report("c", 1), at(90)), Ok(Outcome::Taken));
    assert_eq!(reporting(&mut nodes, at(90)), ["b", "c"]);
}

#[test]
fn a_node_is_forgotten_when_it_was_silent_for_an_hour() {
    let mut nodes = local();
    insert(&mut nodes, report("n", 1), at(0)).unwrap();
    assert_eq!(reporting(&mut nodes, at(3_629)), ["n"]);
    assert_eq!(reporting(&mut nodes, at(3_630)), [""; 0]);
}

#[test]
fn a_report_that_was_kept_from_a_boot_that_is_over_is_no_news() {
    let mut nodes = local();
    let boot = |number: u64| Report { boot_id: format!("boot-{number}"), ..report("n", 1) };
    for number in 1..=6 {
        assert_eq!(insert(&mut nodes, boot(number), at(number)), Ok(Outcome::Taken));
    }
    for number in 2..=5 {
        assert_eq!(insert(&mut nodes, boot(number), at(9)), Ok(Outcome::Dropped(NoNews::Older)), "{number}");
    }
    assert_eq!(only(&mut nodes, at(9)).report().boot_id, "boot-6");
}

#[test]
fn reports_take_as_much_memory_as_they_may_and_a_byte_more_is_refused() {
    let alone = |report: Report| {
        let mut nodes = local();
        insert(&mut nodes, report, at(0)).unwrap();
        nodes.report_bytes()
    };
    let first = alone(report("a", 1));
    let grown = |sequence| {
        let mut grown = report("b", sequence);
        grown.cgroups = Some(cgroups(&[("/a", 1), ("/b", 2)]));
        grown
    };
    let bytes = first + alone(grown(1));
    let mut nodes = within(Limits { bytes: bytes - 1, ..Limits::LOCAL });
    insert(&mut nodes, report("a", 1), at(0)).unwrap();
    assert_eq!(insert(&mut nodes, grown(1), at(0)), Err(Full::Bytes(bytes - 1)));
    let mut nodes = within(Limits { bytes, ..Limits::LOCAL });
    insert(&mut nodes, report("a", 1), at(0)).unwrap();
    assert_eq!(insert(&mut nodes, grown(1), at(0)), Ok(Outcome::Taken));
    // What the next one is measured against takes memory, too.
    assert_eq!(insert(&mut nodes, grown(2), at(10)), Err(Full::Bytes(bytes)));
    // A node that is forgotten makes room.
    assert_eq!(reporting(&mut nodes, at(4_000)), [""; 0]);
    assert_eq!(insert(&mut nodes, grown(3), at(4_000)), Ok(Outcome::Taken));
}

#[test]
fn a_clock_is_as_far_off_as_the_quicker_of_two_reports_says() {
    let mut nodes = local();
    let mut tell = |sequence, sampled_at_ms, now: Now| {
        insert(&mut nodes, Report { sampled_at_ms, ..report("n", sequence) }, now).unwrap();
        only(&mut nodes, now).clock_skew_ms()
    };
    let unix_ms = |seconds: u64| at(seconds).unix_ms;
    assert_eq!(tell(1, unix_ms(0) + 3_000, at(0)), Some(3_000));
    assert_eq!(tell(2, unix_ms(10) - 9_000, at(10)), Some(3_000), "that one was on its way for long");
    assert_eq!(tell(3, unix_ms(20) - 9_000, at(20)), Some(-9_000), "so the clock was set");
    assert_eq!(tell(4, 0, at(30)), Some(-9_000));
    assert_eq!(tell(5, 0, at(40)), None, "it is not known");
    assert_eq!(tell(6, u64::MAX, at(50)), Some(-1 - unix_ms(50).cast_signed()), "no number is too large");
}

proptest! {
    #[test]
    fn in_whatever_order_and_however_often_reports_arrive_the_newest_stays(
        sequences in proptest::collection::vec(1_u64..20, 1..40)
    ) {
        let mut nodes = local();
        let mut taken = 0;
        for sequence in &sequences {
            let outcome = insert(&mut nodes, report("n", *sequence), at(0));
            prop_assert_eq!(outcome == Ok(Outcome::Taken), *sequence > taken);
            taken = taken.max(*sequence);
        }
        let stored = only(&mut nodes, at(0));
        prop_assert_eq!(stored.report().sequence, taken);
        // A core was busy all the time, so it is over any two reports.
        let expected = stored.baseline.as_ref().map(|_| 1_000_000_000);
        prop_assert_eq!(stored.cpu_busy_nanocores(), expected);
    }
}

#[test]
fn a_time_since_boot_that_was_years_off_silences_its_node_for_no_other_report() {
    let years_ns = 10 * 365 * 24 * 3600 * 1_000_000_000;
    let mut nodes = within(Limits::KUBERNETES);
    assert_eq!(insert(&mut nodes, report("n", 1), at(0)), Ok(Outcome::Taken));
    let wrong = Report { uptime_ns: years_ns, ..report("n", 2) };
    assert_eq!(insert(&mut nodes, wrong, at(10)), Ok(Outcome::Taken));
    assert_eq!(insert(&mut nodes, report("n", 3), at(20)), Ok(Outcome::Taken));
    assert_eq!(insert(&mut nodes, report("n", 4), at(30)), Ok(Outcome::Taken));
    // One that somebody kept is still older.
    assert_eq!(insert(&mut nodes, report("n", 2), at(40)), Ok(Outcome::Dropped(NoNews::Older)));
    // The same of an agent that was started since.
    let wrong = Report { uptime_ns: years_ns, ..report("n", 5) };
    assert_eq!(insert(&mut nodes, wrong, at(50)), Ok(Outcome::Taken));
    let next = Report { started_at_ms: 2_000, sequence: 1, uptime_ns: 170_000_000_000, ..report("n", 6) };
    assert_eq!(insert(&mut nodes, next, at(60)), Ok(Outcome::Taken));
    let before = Report { uptime_ns: 100_000_000_000, ..report("n", 7) };
    assert_eq!(insert(&mut nodes, before, at(70)), Ok(Outcome::Dropped(NoNews::Older)));
}

#[test]
fn a_node_sends_so_many_at_once_and_then_one_each_time_that_one_more_is_due() {
    let (mut nodes, node) = (local(), NodeName::new("n").unwrap());
    let mut sent = |now| (0..100).filter(|_| nodes.admits(&node, now)).count();
    assert_eq!(sent(at(0)), AT_ONCE as usize);
    assert_eq!(sent(at(1)), 20);
    assert_eq!(sent(at(2)), 20);
    assert_eq!(sent(at(100)), AT_ONCE as usize);
    assert!(nodes.admits(&NodeName::new("other").unwrap(), at(0)), "each node has its own");
}

#[test]
fn no_more_nodes_that_only_ask_are_remembered_than_there_may_be_and_those_at_rest_make_room() {
    let mut nodes = local();
    let node = |number: usize| NodeName::new(&number.to_string()).unwrap();
    assert!((0..MOST_ASKING).all(|number| nodes.admits(&node(number), at(0))));
    assert!(!nodes.admits(&node(MOST_ASKING), at(0)));
    assert!(nodes.admits(&node(0), at(0)), "who is remembered goes on");
    // One that reports is more than one that asks.
    insert(&mut nodes, report("0", 1), at(0)).unwrap();
    assert!(nodes.admits(&node(MOST_ASKING), at(0)));
    assert!(!nodes.admits(&node(MOST_ASKING + 1), at(0)));
    assert!(nodes.admits(&node(MOST_ASKING + 1), at(1)));
}
