//! A dump: the result is either an error that names the place, or a cluster whose ladder adds up on every node and for
//! every resource.
#![no_main]
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::fit;
use mcad_accounting::ladder::ResourceLadder;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::views::without_reports;
use mcad_aggregator::dump::Dump;
use mcad_present::exposition::Exposition;
use mcad_present::families;

fn adds_up(rung: &ResourceLadder) {
    // If the pods are not known, requests are not known either.
    let Some(account) = &rung.account else { return };
    let handed_out = account.requested_in_all() + account.free + account.withheld.total();
    let installed = rung.installed.expect("kubelet's word at least");
    assert_eq!(installed + account.overcommitted, handed_out, "{rung:?}");
}

fuzz_target!(|text: &str| {
    let mut dump = Dump::default();
    if dump.add(Path::new("fuzz.yaml"), text).is_err() {
        return;
    }
    let cluster = Cluster::from_objects_known(dump.objects, &dump.known);
    let options = Options::default();
    let views = without_reports(&cluster, &options);
    let mut snapshot = Snapshot::new(&cluster, views, Now::default(), 1_767_607_200_000, &options);
    let fits = fit::fits(&snapshot);
    snapshot.with_fits(&fits);
    if let Some(nodes) = &snapshot.nodes {
        nodes.nodes.iter().flat_map(|node| &node.rungs).for_each(|(_, rung)| adds_up(rung));
        nodes.sums.values().for_each(adds_up);
    }
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    families::write(&snapshot, &mut out);
    out.finish().expect("a sink takes all");
});
