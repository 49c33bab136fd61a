//! What the view of a cluster costs, 100,000 pods on 5,000 nodes: `cargo bench -p mcad-aggregator --bench view`.
//!
//! The pods are read from text as the API server sends it, decoded as the watch decodes them, and taken in as the first list
//! of a watch is. Beside it stands the same text as k8s-openapi's `Pod`, which a client keeps that does not choose fields.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use k8s_openapi::api::core::v1::Pod;
use mcad_aggregator::cluster::{Cluster, Event, Source};
use mcad_aggregator::object::{self, Kind, Object};
use support::objects::{Shape, node};
use support::{Times, begin, figure, forget_peak, megabytes, peak_bytes, resident_bytes, spell, timed};

const SHAPE: Shape = Shape { nodes: 5_000, pods_per_node: 20, appwrappers: 2_000 };
/// Events and texts whose time is taken, each by itself.
const SAMPLES: usize = 20_000;
/// As many as fit into memory beside the rest.
const PEERS: usize = 10_000;

fn main() {
    begin("view: 100,000 pods on 5,000 nodes");
    let pod = |at| decode(&SHAPE.pod(at));
    // Whatever a first decode leaves behind is not the view's.
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

    // Far apart, so that nothing is at hand from the sample before.
    let some = || (0..SAMPLES).map(|sample| SHAPE.pod(sample * 7_919 % SHAPE.pods()));
    let mut apply = |text: String| {
        let event = Event::Apply(decode(&text));
        timed(|| cluster.apply(event)).0
    };
    let alike = Times::new(some().map(&mut apply).collect());
    let phase = |text: String| text.replace(r#""phase":"Running""#, r#""phase":"Succeeded""#);
    let changed = Times::new(some().map(phase).map(&mut apply).collect());
    for (what, applied) in [("that ends a pod", changed), ("that changes nothing that is kept", alike)] {
        figure(&format!("apply of a decoded event {what}, median"), spell(applied.quantile(0.5)), "budget 5 µs");
        figure("  99 % are below", spell(applied.quantile(0.99)), "");
    }
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
        // Given back, its memory would be the next one's, and not be counted.
        kept.push(peers);
    }
}

fn decode(text: &str) -> Object {
    let needed = object::needed(Kind::Pod, &mut serde_json::Deserializer::from_str(text)).unwrap();
    object::decode(Kind::Pod, needed).unwrap()
}

fn decode_times<T>(texts: &[String], decode: impl Fn(&str) -> T) -> Times {
    Times::new((0..SAMPLES).map(|sample| timed(|| decode(&texts[sample % texts.len()])).0).collect())
}
