//! Sums up the objects of Kubernetes a second time, independently of the aggregator's code. Pure.

use anyhow::{Context, Result};
use serde_json::Value;

use super::kubectl::items;

/// Kubernetes' suffixes. None of them ends with another one.
const UNITS: [(&str, f64); 12] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
];

/// Parses an amount in the formats that occur in clusters.
pub(super) fn amount(text: &Value) -> Result<f64> {
    let text = text.as_str().with_context(|| format!("{text} is not an amount"))?;
    let (digits, unit) =
        UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1.0));
    Ok(digits.parse::<f64>().with_context(|| format!("{text} is not an amount"))? * unit)
}

/// The same, and 0 for a missing value.
fn amount_or_none(value: &Value) -> Result<f64> {
    if value.is_null() { Ok(0.0) } else { amount(value) }
}

/// The sum of a field of all nodes' status, `capacity` or `allocatable`, in cores, bytes or devices.
pub(super) fn of_nodes(nodes: &Value, field: &str, resource: &str) -> Result<f64> {
    items(nodes).map(|node| amount_or_none(&node["status"][field][resource])).sum()
}

/// What MCAD regards as allocatable: for nodes that are not cordoned, what they declare minus the requests of the
/// containers of their unfinished pods, in cores, bytes or devices; 0 if they request more.
pub(super) fn unrequested(nodes: &Value, pods: &Value, resource: &str) -> Result<f64> {
    let open: Vec<_> = items(nodes).filter(|node| node["spec"]["unschedulable"] != true).collect();
    let declared: f64 =
        open.iter().map(|node| amount_or_none(&node["status"]["allocatable"][resource])).sum::<Result<f64>>()?;
    let counts = |pod: &&Value| {
        let ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
        let open = open.iter().any(|node| node["metadata"]["name"] == pod["spec"]["nodeName"]);
        // A mistake in MCAD: nothing sets this label.
        open && !ended && pod["metadata"]["labels"]["appwrappers.mcad.ibm.com"].is_null()
    };
    let containers = items(pods).filter(counts).filter_map(|pod| pod["spec"]["containers"].as_array());
    let requests = containers.flatten().map(|container| amount_or_none(&container["resources"]["requests"][resource]));
    Ok((declared - requests.sum::<Result<f64>>()?).max(0.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_read_as_clusters_spell_them() {
        for (text, expected) in
            [("3920m", 3.92), ("2", 2.0), ("16Gi", 17_179_869_184.0), ("1M", 1e6), ("128974848000m", 128_974_848.0)]
        {
            assert!((amount(&json!(text)).unwrap() / expected - 1.0).abs() < 1e-12, "{text}");
        }
        for not in [json!("much"), json!(""), json!("1X"), json!(3)] {
            assert!(amount(&not).is_err(), "{not}");
        }
    }

    #[test]
    fn what_ended_or_runs_on_a_cordoned_node_counts_for_nothing() {
        let node = |name: &str, cordoned: bool| {
            json!({"metadata": {"name": name}, "spec": {"unschedulable": cordoned},
                   "status": {"capacity": {"cpu": "8"}, "allocatable": {"cpu": "4"}}})
        };
        let nodes = json!({"items": [node("a", false), node("b", true)]});
        let pod = |node: &str, phase: &str| {
            json!({"metadata": {}, "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "500m"}}}, {}]},
                   "status": {"phase": phase}})
        };
        let pods = json!({"items": [pod("a", "Running"), pod("a", "Failed"), pod("b", "Running"), pod("", "Pending")]});
        let close = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}");
        close(unrequested(&nodes, &pods, "cpu").unwrap(), 3.5);
        close(unrequested(&nodes, &pods, "nvidia.com/gpu").unwrap(), 0.0);
        close(of_nodes(&nodes, "capacity", "cpu").unwrap(), 16.0);
    }
}
