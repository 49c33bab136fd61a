//! A line of `--reports`: it is not a report, or it is the same after a conversion to protobuf and JSON.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mcad_aggregator::receive;
use mcad_wire::report::Report;
use prost::Message as _;

fuzz_target!(|line: &str| {
    let Ok(report) = serde_json::from_str::<Report>(line) else { return };
    let through = Report::decode(report.encode_to_vec().as_slice()).expect("our own bytes");
    assert_eq!(through, report);
    let text = serde_json::to_string(&report).expect("a report is JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("our own text"), report);
    let _ = receive::check(&report.encode_to_vec());
});
