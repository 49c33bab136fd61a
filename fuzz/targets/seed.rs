//! What a replica that starts is told of the past: refused, or learnt, shown, and told on so that it can be read.
#![no_main]
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::kubernetes::Kubernetes;
use mcad_aggregator::replica::{Mode, Replica};
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::store::{Limits, Store};
use mcad_wire::seed::Seed;
use prost::Message as _;

fuzz_target!(|body: &[u8]| {
    let Ok(seed) = Seed::decode(body) else { return };
    let mut dump = Dump::default();
    let cluster = include_str!("../../aggregator/tests/cases/1.yaml");
    dump.add(Path::new("1.yaml"), cluster).expect("a worked case");
    let kubernetes = Kubernetes::new(Cluster::from_objects(dump.objects), Options::default(), Ages::DoNot);
    let figures = SelfMetrics::new().expect("names that do not clash");
    let mode = Mode::Kubernetes(Box::new(kubernetes));
    let replica = Replica::new(Clock::system(), mode, Store::new(Limits::REPLAY), figures);
    if replica.learn(&seed).is_err() {
        return;
    }
    replica.expose(&mut Vec::new()).expect("a vector takes all");
    let told = replica.tell().expect("there is a cluster").encode_to_vec();
    Seed::decode(told.as_slice()).expect("our own bytes");
});
