//! Cost of the state of a cluster with 100,000 pods on 5,000 nodes: `cargo bench -p mcad-aggregator --bench view`.
//!
//! The pods are read from text as the API server sends it, decoded as by the watch, and applied like the first list of a watch. For
//! comparison: the same text decoded to k8s-openapi's `Pod`, which a client keeps that does not select fields.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::object::{self, Kind, Object};
use support::objects::{Shape, node};
use support::{Times, begin, figure, forget_peak, megabytes, peak_bytes, resident_bytes, spell, timed};

const SHAPE: Shape = Shape { nodes: 5_000, pods_per_node: 20, appwrappers: 2_000 };
/// Texts that are timed one by one.
const SAMPLES: usize = 20_000;
/// Rounds of the same measurement, since other load on the machine varies from second to second.
const ROUNDS: usize = 7;
/// Events of each kind in a round.
const EVENTS: usize = 2_000;
/// As many as fit into memory with the rest.
const PEERS: usize = 10_000;

/// The same as in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    begin("view: 100,000 pods on 5,000 nodes");
    let pod = |at| decode(&SHAPE.pod(at));
    // What the first decode allocates does not belong to the view.
    drop(pod(0));

    let before = resident_bytes();
    forget_peak();
    let mut cluster = Cluster::default();
    cluster.apply(Event::Reset(Source::Nodes, (0..SHAPE.nodes).map(|at| node(at, &["rdma/hca"])).collect()));
    let nodes = resident_bytes() - before;
    cluster.apply(Event::Reset(Source::Pods, (0..SHAPE.pods()).map(pod).collect()));
    let view = resident_bytes() - before;
    figure("resident, the view", megabytes(view), "budget 100 MB");
    figure("resident, the nodes in it", megabytes(nodes), "");
    figure("most while the first list was taken in", megabytes(peak_bytes() - before), "");

    events(&mut cluster);
    drop(cluster);

    let texts: Vec<String> = (0..SAMPLES / 20).map(|at| SHAPE.pod(at)).collect();
    let decoded = decode_times(&texts, decode);
    let of = format!("decode from {:.1} KB of text, median", texts[0].len() as f64 / 1e3);
    figure(&of, spell(decoded.quantile(0.5)), "budget 50 µs");
    let peers = decode_times(&texts, |text| serde_json::from_str::<Pod>(text).unwrap_or_default());
    figure("peer: decode as k8s-openapi Pod, median", spell(peers.quantile(0.5)), "");

    let mut kept = Vec::new();
    for (what, managed_fields) in
        [("peer: kept as k8s-openapi Pod", true), ("peer: the same without managedFields", false)]
    {
        let before = resident_bytes();
        let peers: Vec<Pod> = (0..PEERS)
            .map(|at| {
                let mut pod: Pod = serde_json::from_str(&SHAPE.pod(at)).unwrap_or_default();
                pod.metadata.managed_fields = pod.metadata.managed_fields.filter(|_| managed_fields);
                pod
            })
            .collect();
        let each = (resident_bytes() - before) / peers.len() as u64;
        figure(&format!("{what}, 100,000 of them"), megabytes(each * 100_000), "");
        // If freed, its memory would be reused by the next one and not be counted.
        kept.push(peers);
    }
}

/// The cost of events by kind: for each, the median of the medians of the rounds.
fn events(cluster: &mut Cluster) {
    const KINDS: [&str; 5] = [
        "changes nothing that is kept",
        "ends a pod",
        "tells of a pod that is gone",
        "tells of a pod that waits for a node",
        "binds a pod to its node",
    ];
    let mut medians: [Vec<_>; KINDS.len()] = Default::default();
    let mut most: [Vec<_>; KINDS.len()] = Default::default();
    let (mut yard, yardstick) = (Vec::new(), Yardstick::new());
    for round in 0..ROUNDS {
        // Far apart, so that nothing is cached from the sample before.
        let some = || (0..EVENTS).map(|sample| SHAPE.pod((round * EVENTS + sample) * 7_919 % SHAPE.pods()));
        let ended = |text: String| text.replace(r#""phase":"Running""#, r#""phase":"Succeeded""#);
        let waiting = |text: String| {
            let (before, after) = text.split_once(r#""nodeName":""#).unwrap();
            let (_, after) = after.split_once(r#"","#).unwrap();
            format!("{before}{after}").replace(r#""phase":"Running""#, r#""phase":"Pending""#)
        };
        let mut time = |texts: &mut dyn Iterator<Item = String>, event: fn(Object) -> Event| {
            let apply = |text: String| {
                let event = event(decode(&text));
                timed(|| cluster.apply(event)).0
            };
            Times::new(texts.map(apply).collect())
        };
        let times = [
            time(&mut some(), Event::Apply),
            time(&mut some().map(ended), Event::Apply),
            time(&mut some(), Event::Delete),
            time(&mut some().map(waiting), Event::Apply),
            time(&mut some(), Event::Apply),
        ];
        yard.push(yardstick.median());
        for (at, times) in times.iter().enumerate() {
            medians[at].push(times.quantile(0.5));
            most[at].push(times.quantile(0.99));
        }
    }
    for (at, what) in KINDS.iter().enumerate() {
        let medians = Times::new(std::mem::take(&mut medians[at]));
        figure(&format!("apply of a decoded event that {what}, median"), spell(medians.quantile(0.5)), "budget 5 µs");
        let (least, most_of) = (medians.quantile(0.0), medians.quantile(1.0));
        figure("  of the rounds, least and most", format!("{} to {}", spell(least), spell(most_of)), "");
        figure("  99 % are below", spell(Times::new(std::mem::take(&mut most[at])).quantile(0.5)), "");
    }
    let yard = Times::new(yard);
    figure("beside them: 8 reads, each where the one before says, of 64 MiB", spell(yard.quantile(0.5)), "");
    figure(
        "  of the rounds, least and most",
        format!("{} to {}", spell(yard.quantile(0.0)), spell(yard.quantile(1.0))),
        "",
    );
}

/// A yardstick for the machine at the moment: constant work that waits for memory like an event.
struct Yardstick(Vec<u32>);

impl Yardstick {
    const READS: usize = 8;

    /// One ring through 64 MiB, in no order (Sattolo's shuffle).
    fn new() -> Self {
        let mut ring: Vec<u32> = (0..16 << 20).collect();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for at in (1..ring.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            ring.swap(at, (random % at as u64) as usize);
        }
        Self(ring)
    }

    fn median(&self) -> Duration {
        let mut at = 0;
        let mut walk = || {
            for _ in 0..Self::READS {
                at = self.0[at] as usize;
            }
            at
        };
        Times::new((0..EVENTS).map(|_| timed(&mut walk).0).collect()).quantile(0.5)
    }
}

fn decode(text: &str) -> Object {
    let needed = object::needed(Kind::Pod, &mut serde_json::Deserializer::from_str(text)).unwrap();
    object::decode(Kind::Pod, needed).unwrap()
}

fn decode_times<T>(texts: &[String], decode: impl Fn(&str) -> T) -> Times {
    Times::new((0..SAMPLES).map(|sample| timed(|| decode(&texts[sample % texts.len()])).0).collect())
}
