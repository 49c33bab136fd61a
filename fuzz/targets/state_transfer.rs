//! A state transfer to a replica that starts: it is rejected, or accepted, exported, and passed on so that it can be
//! decoded.
#![no_main]
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::known::Known;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_wire::state_transfer::StateTransfer;
use prost::Message as _;

fuzz_target!(|body: &[u8]| {
    let Ok(transfer) = StateTransfer::decode(body) else { return };
    let mut dump = Dump::default();
    let cluster = include_str!("../../aggregator/tests/cases/1.yaml");
    dump.add(Path::new("1.yaml"), cluster).expect("a worked case");
    let known = Known::new(Cluster::from_objects(dump.objects), Options::default(), Ages::DoNot);
    let metrics = SelfMetrics::new().expect("names that do not clash");
    let replica = Replica::new(Clock::system(), known, metrics);
    if replica.apply_transfer(&transfer).is_err() {
        return;
    }
    replica.expose(&mut Vec::new()).expect("a vector takes all");
    let transferred = replica.state_transfer().expect("there is a cluster").encode_to_vec();
    StateTransfer::decode(transferred.as_slice()).expect("our own bytes");
});
