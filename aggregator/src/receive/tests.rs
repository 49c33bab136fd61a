//! Tests of what is taken and what is refused: bytes in, a report or a reason out.

use mcad_testkit::reports::{cgroups, gpu, gpus, mig, report};
use mcad_wire::report::{Absence, Assignment, Assignments, Report};
use proptest::prelude::*;
use prost::Message as _;

use super::weight::weight;
use super::*;

fn bytes(change: impl FnOnce(&mut Report)) -> Vec<u8> {
    let mut report = report("n", 1);
    change(&mut report);
    report.encode_to_vec()
}

fn full() -> Report {
    let mut full = report("n", 1);
    full.cgroups = Some(cgroups(&[("/", 7), ("/a", 5)]));
    let mut parent = gpu("GPU-2", None);
    parent.mig_mode = Some(true);
    parent.mig_instances = vec![mig("MIG-1", "1g.10gb")];
    full.gpus = Some(gpus(vec![gpu("GPU-1", Some(0.5)), parent]));
    full.assignments = Some(Assignments {
        assigned: vec![Assignment { device_ids: vec!["GPU-1".into()], ..Assignment::default() }],
        allocatable: vec![],
    });
    full.absences = vec![Absence { source: "gpus".into(), reason: "no_driver".into() }];
    full
}

/// The reason of a refusal; asserts that it is a known one and has a sentence.
fn reason(body: &[u8]) -> &'static str {
    let refusal = receive(body).unwrap_err();
    assert!(Refusal::reasons().any(|reason| reason == refusal.reason()));
    assert!(refusal.to_string().len() > 20, "{refusal}");
    refusal.reason()
}

fn check_reason(change: impl FnOnce(&mut Report), expected: &str) {
    assert_eq!(reason(&bytes(change)), expected);
}

#[test]
fn a_whole_report_is_received_as_it_was_sent() {
    let body = full().encode_to_vec();
    let received = receive(&body).unwrap();
    assert_eq!(received.report.to_owned(), full());
    assert_eq!(received.node.as_str(), "n");
    assert_eq!(received.interval(), Duration::from_secs(10));
}

#[test]
fn a_report_with_nothing_measured_is_a_report() {
    let bare = Report { version: 1, node: "n".into(), interval_ms: 10_000, ..Report::default() };
    assert_eq!(receive(&bare.encode_to_vec()).unwrap().report.to_owned(), bare);
}

#[test]
fn fields_of_a_later_format_are_passed_over() {
    let mut body = full().encode_to_vec();
    // Field 1000, eight bytes: additive changes keep the version.
    body.extend_from_slice(&[0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(receive(&body).unwrap().report.to_owned(), full());
}

#[test]
fn bytes_that_are_no_report_are_refused_for_what_they_are() {
    assert_eq!(reason(b""), "unsupported_version");
    assert_eq!(reason(b"hello, world"), "not_protobuf");
    assert_eq!(reason(&[0xff; 64]), "not_protobuf");
    assert_eq!(reason(&[0x0b]), "not_protobuf");
    assert_eq!(reason(&vec![0; MAX_BODY_BYTES + 1]), "oversized");
    let whole = full().encode_to_vec();
    assert_eq!(reason(&whole[..whole.len() - 1]), "truncated");
    // A string that is not UTF-8.
    assert_eq!(reason(&[0x08, 1, 0x12, 1, 0xff]), "not_protobuf");
    // A length within a part that runs out of it.
    assert_eq!(reason(&[0x08, 1, 0x5a, 2, 0x12, 9]), "not_protobuf");
}

#[test]
fn only_this_version_is_received() {
    check_reason(|report| report.version = 0, "unsupported_version");
    check_reason(|report| report.version = 2, "unsupported_version");
    let later = receive(&bytes(|report| report.version = 7)).unwrap_err();
    assert_eq!(later, Refusal::UnsupportedVersion(7));
    assert!(later.to_string().contains("version is 7; this aggregator supports version 1"), "{later}");
}

#[test]
fn a_later_version_is_refused_as_such_even_where_it_means_something_else() {
    // Version 2, whose node is a number.
    assert_eq!(reason(&[0x08, 2, 0x10, 5]), "unsupported_version");
}

#[test]
fn a_node_has_a_name_that_can_be_one() {
    for name in ["", " ", "a b", "a\n", "ü", &"x".repeat(254)] {
        check_reason(|report| report.node = name.to_owned(), "node_name");
    }
    for name in ["n", "Host_7.example", &"x".repeat(253)] {
        assert!(receive(&bytes(|report| report.node = name.to_owned())).is_ok(), "{name}");
    }
}

#[test]
fn what_is_listed_is_bounded_before_it_is_decoded() {
    // Two bytes each on the wire: field 11 of 20,002 bytes, and in it field 2, empty, one too often.
    let many_empty = [&[0x08, 1, 0x5a, 0xa2, 0x9c, 0x01], &[0x12, 0].repeat(MAX_CGROUPS + 1)[..]].concat();
    assert_eq!(scan::scan(&many_empty), Err(Refusal::TooMany { of: Listed::Cgroups, limit: MAX_CGROUPS }));
}

#[test]
fn a_body_has_as_many_bytes_as_it_may() {
    let mut body = full().encode_to_vec();
    // Field 1000 of a later format, with enough bytes to fill the body.
    let rest = MAX_BODY_BYTES - body.len() - 5;
    body.extend_from_slice(&[
        0xc2,
        0x3e,
        (rest & 0x7f) as u8 | 0x80,
        (rest >> 7 & 0x7f) as u8 | 0x80,
        (rest >> 14) as u8,
    ]);
    body.resize(MAX_BODY_BYTES, 0);
    assert_eq!(receive(&body).unwrap().report.to_owned(), full());
    body.push(0);
    assert_eq!(reason(&body), "oversized");
}

#[test]
fn a_report_that_grows_when_it_is_decoded_is_refused_before() {
    // An assignment of many devices without a name, two bytes each.
    let body = |devices: usize| {
        bytes(|report| {
            let assigned = vec![Assignment { device_ids: vec![String::new(); devices], ..Assignment::default() }];
            report.assignments = Some(Assignments { assigned, allocatable: vec![] });
        })
    };
    let decoded = |devices: usize| body(devices).len() + scan::ASSIGNMENT_BYTES + devices * scan::ELEMENT_BYTES;
    let mut most = MAX_DECODED_BYTES / (scan::ELEMENT_BYTES + 2);
    while decoded(most) > MAX_DECODED_BYTES {
        most -= 1;
    }
    assert!(decoded(most + 1) > MAX_DECODED_BYTES);
    assert!(weight(&receive(&body(most)).unwrap()) <= MAX_DECODED_BYTES as u64);
    assert_eq!(reason(&body(most + 1)), "decoded_oversized");
}

#[test]
fn an_id_is_listed_once() {
    let twice = |report: &mut Report| {
        let mut all = cgroups(&[("/a", 1), ("/b", 1)]);
        all.cgroups[1].id = 1;
        report.cgroups = Some(all);
    };
    check_reason(twice, "duplicate_id");
    let gpu_twice = |report: &mut Report| report.gpus = Some(gpus(vec![gpu("GPU-1", None), gpu("GPU-1", None)]));
    check_left_out(gpu_twice, Part::Gpus, "duplicate_id");
    let instance = |report: &mut Report| {
        let mut parent = gpu("GPU-1", None);
        parent.mig_instances = vec![mig("MIG-1", "1g.10gb"), mig("MIG-1", "1g.10gb")];
        report.gpus = Some(gpus(vec![parent]));
    };
    check_left_out(instance, Part::Gpus, "duplicate_id");
}

/// Asserts that the report is accepted without this part, for this reason.
#[track_caller]
fn check_left_out(change: impl FnOnce(&mut Report), part: Part, reason: &str) {
    let mut sent = full();
    change(&mut sent);
    let body = sent.encode_to_vec();
    let received = receive(&body).unwrap();
    let left_out: Vec<_> = received.left_out.iter().map(|left| (left.part, left.why.reason())).collect();
    assert_eq!(left_out, [(part, reason)]);
    match part {
        Part::Gpus => sent.gpus = None,
        Part::Assignments => sent.assignments = None,
    }
    assert_eq!(received.report.to_owned(), sent);
    assert_eq!(received.encoded(), sent.encode_to_vec());
}

#[test]
fn a_driver_or_a_kubelet_that_says_nonsense_costs_that_part_alone() {
    let many = (0..600).map(|at| gpu(&format!("GPU-{at}"), None)).collect::<Vec<_>>();
    check_left_out(|report| report.gpus = Some(gpus(many)), Part::Gpus, "too_many_devices");
    check_left_out(|report| report.gpus = Some(gpus(vec![gpu("", None)])), Part::Gpus, "impossible_figure");
    let long = |name: &str| Assignment { pod: name.repeat(300), ..Assignment::default() };
    let assigned = |assigned| Some(Assignments { assigned, allocatable: vec![] });
    check_left_out(|report| report.assignments = assigned(vec![long("x")]), Part::Assignments, "name_too_long");
    let many = vec![Assignment::default(); MAX_ASSIGNMENTS + 1];
    check_left_out(|report| report.assignments = assigned(many), Part::Assignments, "too_many_assignments");
}

#[test]
fn devices_that_would_take_more_memory_than_a_report_may_are_refused_before_they_are_decoded() {
    // Two bytes each on the wire: field 12, and in it field 2, empty.
    let list = [0x12, 0].repeat(200_000);
    let body = [&[0x08, 1, 0x62, 0x80, 0xb5, 0x18][..], &list].concat();
    assert_eq!(scan::scan(&body), Err(Refusal::DecodedOversized));
}

#[test]
fn a_report_cut_anywhere_is_refused_or_holds_only_what_was_sent() {
    let whole = full().encode_to_vec();
    for end in 0..whole.len() {
        match receive(&whole[..end]) {
            // The cut is between two parts, and the following parts are absent.
            Ok(received) => assert_eq!(received.report.to_owned().encode_to_vec(), whole[..end]),
            Err(refusal) => assert!(
                ["truncated", "unsupported_version", "node_name", "impossible_figure"].contains(&refusal.reason()),
                "{refusal}"
            ),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_received_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = receive(&body);
    }

    #[test]
    fn a_report_with_changed_bytes_is_received_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut body = full().encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(received) = receive(&body) {
            // A report that passed once passes again.
            let encoded = received.report.to_owned().encode_to_vec();
            let again = check(&encoded).map(|again| (again.node, again.report));
            prop_assert_eq!(again, Ok((received.node, received.report)));
        }
    }
}
