//! The body of a report, as anyone who reaches the report port may send it: refused with a reason, or taken as prost
//! reads it, and the same when sent on.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mcad_aggregator::receive::{Part, receive};
use mcad_wire::report::Report;
use prost::Message as _;

fuzz_target!(|body: &[u8]| {
    match receive(body) {
        Ok(received) => {
            let report = received.report.to_owned();
            let mut decoded = Report::decode(body).expect("what is read is what prost reads");
            for left_out in &received.left_out {
                match left_out.part {
                    Part::Gpus => decoded.gpus = None,
                    Part::Assignments => decoded.assignments = None,
                }
            }
            // By text: a figure may be no number, which equals nothing.
            assert_eq!(format!("{report:?}"), format!("{decoded:?}"));
            let encoded = report.encode_to_vec();
            let again = receive(&encoded).expect("what was taken is taken again");
            assert_eq!(again.report, received.report);
        }
        Err(refusal) => {
            // What is logged and answered, of a bounded length.
            assert!(!refusal.reason().is_empty() && refusal.to_string().len() < 16 * 1024);
        }
    }
});
