//! Reads bytes that prost would not write. That all other reports are read as prost reads them is tested in
//! `wire/tests/schema`.
use prost::Message as _;

use super::*;
use crate::report as owned;

#[test]
fn room_for_cgroups_makes_no_difference_to_what_is_read() {
    let cgroups = (0..5).map(|id| owned::Cgroup { id, cpu_ns: Some(id), ..Default::default() }).collect();
    let report =
        owned::Report { cgroups: Some(owned::Cgroups { cgroups, ..Default::default() }), ..Default::default() };
    let bytes = report.encode_to_vec();
    assert_eq!(Report::read(&bytes).unwrap().to_owned(), report);
    assert_eq!(Report::read_with_room(&bytes, 3), Report::read(&bytes));
    assert_eq!(Report::read(&[]).unwrap().to_owned(), owned::Report::default());
}

#[test]
fn a_part_that_comes_again_goes_on_and_a_figure_that_comes_again_counts() {
    let [first, second] = [1, 2].map(|id| owned::Report {
        sequence: id,
        cgroups: Some(owned::Cgroups {
            cgroups: vec![owned::Cgroup { id, ..Default::default() }],
            seen: Some(id as u32),
            ..Default::default()
        }),
        ..Default::default()
    });
    let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let read = Report::read(&bytes).unwrap();
    assert_eq!(read.sequence, 2);
    assert_eq!(read.cgroups.as_ref().unwrap().cgroups.iter().map(|cgroup| cgroup.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(read.to_owned(), owned::Report::decode(&*bytes).unwrap());
}

#[test]
fn what_is_no_report_is_told_from_one_that_was_cut() {
    let check = |bytes: &[u8], expected| assert_eq!(Report::read(bytes), Err(expected), "{bytes:?}");
    check(&[0x08], Malformed::Cut);
    check(&[0x12, 2, b'a'], Malformed::Cut);
    check(&[0x00], Malformed::Wrong("field 0"));
    check(&[0x0b], Malformed::Wrong("a wire type that reports do not use"));
    check(&[0x0a, 0], OTHER_TYPE);
    check(&[0x12, 1, 0xff], Malformed::Wrong("a string that is not UTF-8"));
    check(&[&[0x08][..], &[0xff; 10]].concat(), Malformed::Wrong("a number of more than 64 bits"));
    check(&[0x80, 0x80, 0x80, 0x80, 0x10, 0], Malformed::Wrong("a field number of more than 29 bits"));
}
