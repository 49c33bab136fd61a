//! Cost of writing `/metrics` for 10,000 nodes of 8 GPUs: `cargo bench -p mcad-aggregator --bench exposition`.
//!
//! The lines have the number and length of the budget (about 360,000, 42 MB). Measured are the writer and the compression, without a
//! snapshot and without a socket.
use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use mcad_present::exposition::{Closed, Exposition, Family, Kind, Labels, Sink, Value};

const NODES: u64 = 10_000;
const RUNS: usize = 9;
const RESOURCES: [(&str, &str); 3] = [("cpu", "core"), ("memory", "byte"), ("nvidia_com_gpu", "integer")];

const fn family(name: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels: &["node", "resource", "unit", "owner"], unit: "", help: "For measuring." }
}

static FAMILIES: [Family; 12] = [
    family("mcad_node_installed"),
    family("mcad_node_healthy"),
    family("mcad_node_capacity"),
    family("mcad_node_allocatable"),
    family("mcad_node_admissible"),
    family("mcad_node_requested_by_appwrappers"),
    family("mcad_node_requested_by_others"),
    family("mcad_node_free"),
    family("mcad_node_withheld"),
    family("mcad_node_used_by_appwrappers"),
    family("mcad_node_used_by_others"),
    family("mcad_node_used_by_the_system"),
];

/// A sink that counts and discards everything.
#[derive(Default)]
struct Discard(usize);

impl Sink for Discard {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.0 += std::hint::black_box(chunk).len();
        Ok(())
    }
}

struct Gzip(GzEncoder<Vec<u8>>, usize);

impl Sink for Gzip {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.0.write_all(&chunk).map_err(|_| Closed)?;
        self.1 += self.0.get_ref().len();
        self.0.get_mut().clear();
        Ok(())
    }
}

fn write(nodes: &[String], sink: &mut dyn Sink) -> (u64, u64) {
    let mut out = Exposition::new(sink);
    let shared = RESOURCES.map(|(resource, unit)| Labels::of(&[("resource", resource), ("unit", unit)]));
    let mut labels = Labels::new();
    let mut count = 0;
    for family in &FAMILIES {
        let mut lines = out.family(family);
        for (at, node) in (0..).zip(nodes) {
            let mark = labels.cut(0).push("node", node).mark();
            for (resource, shared) in (0_u64..).zip(&shared) {
                labels.cut(mark).extend(shared).push("owner", "appwrapper");
                let value = match resource {
                    0 => Value::Nano(at * 1_234_567_891),
                    1 => Value::Unsigned(at << 33),
                    _ => Value::Unsigned(at % 9),
                };
                lines.line(&labels, value);
                count += 1;
            }
        }
    }
    (count, out.finish().unwrap_or(0))
}

fn median(run: impl Fn() -> usize) -> (Duration, usize) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..RUNS {
        let began = Instant::now();
        bytes = run();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    (times[RUNS / 2], bytes)
}

fn main() {
    let nodes: Vec<_> = (0..NODES).map(|node| format!("gpu-node-{node:05}.example")).collect();
    let (lines, bytes) = write(&nodes, &mut Discard::default());
    println!("{lines} lines, {:.1} MB", bytes as f64 / 1e6);
    let (plain, _) = median(|| {
        let mut sink = Discard::default();
        write(&nodes, &mut sink);
        sink.0
    });
    println!("plain   {plain:>8.1?}   budget 200 ms");
    let (packed, length) = median(|| {
        let mut sink = Gzip(GzEncoder::new(Vec::new(), Compression::fast()), 0);
        write(&nodes, &mut sink);
        sink.1
    });
    println!("gzip 1  {packed:>8.1?}   budget 500 ms, {:.1} MB", length as f64 / 1e6);
}
