//! The body of a report, which anyone who reaches the report port can send: it is rejected with a reason, or decoded as
//! prost decodes it, and is the same after it is encoded again.
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
            // Compared as text, because a value may be NaN, which is not equal to itself.
            assert_eq!(format!("{report:?}"), format!("{decoded:?}"));
            let encoded = report.encode_to_vec();
            let again = receive(&encoded).expect("what was taken is taken again");
            assert_eq!(again.report, received.report);
        }
        Err(refusal) => {
            // The text that is logged and returned, which has a bounded length.
            assert!(!refusal.reason().is_empty() && refusal.to_string().len() < 16 * 1024);
        }
    }
});
