//! Prints the families of a dump: `cargo run --example print_metrics -- FILE…`.
use std::collections::HashMap;
use std::path::PathBuf;

use mcad_aggregator::cluster::Cluster;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::exposition::Exposition;
use mcad_aggregator::snapshot::{Options, Snapshot};
use mcad_aggregator::{families, fit};

fn main() -> anyhow::Result<()> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let dump = Dump::read(&files)?;
    for skipped in &dump.skipped {
        eprintln!("{:#}", anyhow::anyhow!("{skipped}: {}", skipped.source));
    }
    let cluster = Cluster::from_objects(dump.objects);
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let mut snapshot = Snapshot::new(&cluster, &HashMap::new(), now_ms, &Options::default());
    let fits = fit::fits(&snapshot);
    snapshot.with_fits(&fits);
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    families::write(&snapshot, &mut out);
    out.finish()?;
    std::io::Write::write_all(&mut std::io::stdout(), &text)?;
    Ok(())
}
