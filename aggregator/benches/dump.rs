//! Cost of reading a dump in JSON and in YAML, compared with the parsers alone: `cargo bench -p mcad-aggregator --bench dump`. For another
//! size: `-- NODES PODS`.
//!
//! The files are written first, as by kubectl. Measured are wall time, CPU time and memory: the peak resident memory minus the memory
//! before. The parsers alone need the whole text in memory.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use mcad_aggregator::dump::Dump;
use rlsp_yaml_parser::parse_events;
use serde::de::IgnoredAny;
use serde_json::Value;
use support::objects::{Shape, node_json};
use support::{begin, figure, forget_peak, megabytes, on_cpu, peak_bytes, resident_bytes, spell, timed};

/// About 100 MB of YAML.
const NODES: usize = 500;
const PODS: usize = 8_000;

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [nodes, pods] = given[..] else { return measure(NODES, PODS) };
    measure(nodes, pods);
}

fn measure(nodes: usize, pods: usize) {
    begin(&format!("a dump of {nodes} nodes and {pods} pods"));
    let folder = tempfile::tempdir().unwrap();
    let (json, yaml) = (folder.path().join("dump.json"), folder.path().join("dump.yaml"));
    write(nodes, pods, &json, &yaml);
    let read = |path: &PathBuf| {
        let dump = Dump::read(std::slice::from_ref(path)).unwrap();
        assert_eq!((dump.objects.len(), dump.skipped.len()), (nodes + pods, 0));
        dump
    };
    run("JSON", &json, || read(&json), "");
    run("YAML", &yaml, || read(&yaml), "≥ 60 MB/s, or as the bare parser");
    run(
        "YAML, the bare parser: rlsp-yaml-parser",
        &yaml,
        || {
            let text = fs::read_to_string(&yaml).unwrap();
            parse_events(&text).map(Result::unwrap).count()
        },
        "",
    );
    run(
        "JSON, the bare parser: serde_json, all passed over",
        &json,
        || {
            let text = fs::read_to_string(&json).unwrap();
            serde_json::from_str::<IgnoredAny>(&text).unwrap()
        },
        "",
    );
}

fn run<T>(what: &str, file: &Path, mut run: impl FnMut() -> T, budget: &str) {
    let bytes = fs::metadata(file).unwrap().len();
    // The first run warms the caches, and its memory counts.
    let before = resident_bytes();
    forget_peak();
    drop(run());
    let memory = peak_bytes().saturating_sub(before);
    let (by_clock, (on_cpu, made)) = timed(|| on_cpu(&mut run));
    drop(made);
    let speed = bytes as f64 / 1e6 / on_cpu.as_secs_f64();
    figure(
        &format!("{what}, {}: wall / CPU time", megabytes(bytes)),
        format!("{} / {}", spell(by_clock), spell(on_cpu)),
        "",
    );
    figure("  throughput by CPU time", format!("{speed:.0} MB/s"), budget);
    figure("  memory beyond before, at most", megabytes(memory), "");
}

/// Writes both files at once, so that only one object is in memory.
fn write(nodes: usize, pods: usize, json: &Path, yaml: &Path) {
    let [mut json, mut yaml] = [json, yaml].map(|path| BufWriter::new(File::create(path).unwrap()));
    json.write_all(b"{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n").unwrap();
    yaml.write_all(b"apiVersion: v1\nitems:\n").unwrap();
    let shape = Shape { nodes, pods_per_node: pods.div_ceil(nodes), appwrappers: pods.div_ceil(64) };
    let nodes = (0..nodes).map(|at| node_json(at, &[]));
    let pods = (0..pods).map(|at| serde_json::from_str(&shape.pod(at)).unwrap());
    for (at, object) in nodes.chain(pods).enumerate() {
        let comma = if at == 0 { "" } else { ",\n" };
        write!(json, "{comma}        {}", pretty(&object).replace('\n', "\n        ")).unwrap();
        let text = serde_saphyr::to_string(&object).unwrap();
        writeln!(yaml, "- {}", text.trim_end().replace('\n', "\n  ")).unwrap();
    }
    json.write_all(
        b"\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n",
    )
    .unwrap();
    yaml.write_all(b"kind: List\nmetadata:\n  resourceVersion: \"\"\n").unwrap();
}

/// With four spaces, as in kubectl.
fn pretty(object: &Value) -> String {
    let mut text = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(object, &mut serde_json::Serializer::with_formatter(&mut text, four)).unwrap();
    String::from_utf8(text).unwrap()
}
