//! Cost of a report from its bytes to its node's view, step by step, without a network: `cargo bench -p mcad-aggregator --bench
//! take`.
//!
//! The cluster is that of `cargo xtask bench-load`, whose result is this cost plus that of receiving requests. With few nodes, all data
//! is in the CPU's caches; with 10,000 nodes, none is; and after a rest, like that of the thread that handles reports, not even the
//! program is.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
#[path = "load/objects.rs"]
mod objects;
#[path = "load/report.rs"]
mod report;
mod support;

use std::thread;
use std::time::{Duration, Instant};

use mcad_accounting::cluster::Cluster;
use mcad_accounting::nodes::{Limits, Nodes};
use mcad_accounting::object::{Kind, decode};
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::receive::receive;
use prost::Message as _;
use support::{begin, figure, resident_bytes, spell};

/// The same as in the aggregator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: [&str; 3] = [
    "decoded and checked",
    "stored, if it is news, with its pods found, totals of AppWrappers, its node's view",
    "dropped",
];

/// Reports of each node before the measurement: then each report has a predecessor and a view to replace.
const WARM: u64 = 2;

/// Prime, so that every node has its turn.
const STRIDE: usize = 7_919;

fn main() {
    begin("take: a report of 8 GPUs and 40 pods, from its bytes to its node's view");
    measure(100, Rests::No);
    measure(10_000, Rests::No);
    measure(10_000, Rests::BeforeTwenty);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rests {
    No,
    /// Before every twenty reports: the time in which twenty reports arrive from 10,000 agents that report every 10 s.
    BeforeTwenty,
}

fn measure(nodes: usize, rests: Rests) {
    let objects = objects::all(nodes);
    let objects = objects.map(|(api_version, kind, object)| decode(Kind::named(api_version, kind).unwrap(), object));
    let cluster = Cluster::from_objects(objects.map(Result::unwrap));
    let (clock, mut known) = (Clock::system(), Nodes::new(Limits::KUBERNETES, Options::default()));
    let before = resident_bytes();
    let mut spent = [Duration::ZERO; STEPS.len()];
    let reports = if rests == Rests::No { 100_000 } else { 20_000 };
    let last = WARM + (reports / nodes) as u64;
    for sequence in 1..=last {
        for turn in 0..nodes {
            // Agents report in random order, so the state of the next node is not next to that of the last one in memory.
            let node = turn * STRIDE % nodes;
            let body = report::report(node, sequence, 0, 10_000).encode_to_vec();
            if rests == Rests::BeforeTwenty && sequence > WARM && turn.is_multiple_of(20) {
                thread::sleep(Duration::from_millis(20));
            }
            let now = clock.now();
            let mut began = Instant::now();
            let mut step = |at: usize| {
                let ended = Instant::now();
                spent[at] += if sequence > WARM { ended - began } else { Duration::ZERO };
                began = ended;
            };
            let received = receive(&body).unwrap();
            step(0);
            known.take(&cluster, (&received.node, &received.report, received.encoded()), now).unwrap();
            step(1);
            drop(received);
            step(2);
        }
    }
    let reports = (last - WARM) as u32 * nodes as u32;
    let between = if rests == Rests::No { "" } else { ", 20 ms of rest before every twenty" };
    figure(&format!("of {nodes} nodes{between}, a report"), spell(spent.iter().sum::<Duration>() / reports), "");
    for (what, spent) in STEPS.iter().zip(spent) {
        figure(&format!("  {what}"), spell(spent / reports), "");
    }
    let kept = resident_bytes().saturating_sub(before) as f64 / 1024.0 / nodes as f64;
    if nodes == 10_000 && rests == Rests::No {
        figure("  kept of it and made of it", format!("{kept:.1} KiB"), "budget 32 KiB, with its token");
    }
}
