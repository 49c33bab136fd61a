//! Damaged reports: the reader must accept and reject the same bytes as prost, and read the same values.
use std::sync::LazyLock;

use mcad_wire::reading::Malformed;
use mcad_wire::{reading, report};
use proptest::prelude::*;
use prost::Message as _;

use super::bytes::full;

/// A report with every field set, and two elements in each list.
fn whole() -> &'static [u8] {
    static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| full().encode_to_vec());
    &WHOLE
}

/// A change to the bytes of a report.
#[derive(Clone, Debug)]
enum Damage {
    Set { at: usize, byte: u8 },
    Cut { at: usize },
    Again { from: usize, bytes: usize, to: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set { at, byte }),
        1 => any::<usize>().prop_map(|at| Damage::Cut { at }),
        2 => (any::<usize>(), 0..64_usize, any::<usize>()).prop_map(|(from, bytes, to)| Damage::Again { from, bytes, to }),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len().max(1);
        match *damage {
            Damage::Set { at, byte } => bytes.iter_mut().skip(at % length).take(1).for_each(|known| *known = byte),
            Damage::Cut { at } => bytes.truncate(at % length),
            Damage::Again { from, bytes: count, to } => {
                let part: Vec<u8> = bytes.iter().skip(from % length).take(count).copied().collect();
                let to = (to % length).min(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_is_read_is_what_prost_reads(damages in proptest::collection::vec(damage(), 0..4)) {
        let bytes = damaged(whole().to_vec(), &damages);
        match (reading::Report::read(&bytes), report::Report::decode(&*bytes)) {
            // Compared as text: a ratio may be NaN, which equals nothing.
            (Ok(read), Ok(decoded)) => prop_assert_eq!(format!("{:?}", read.to_owned()), format!("{decoded:?}")),
            // prost skips groups in fields that it does not know.
            (Err(_), Err(_)) | (Err(Malformed::Wrong("a wire type that reports do not use")), Ok(_)) => {}
            (read, decoded) => prop_assert!(false, "{read:?}, prost: {decoded:?}"),
        }
    }
}
