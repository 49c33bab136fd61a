//! Kueue's queues and flavors as text: a table of the quotas, and one of the hardware behind them.
use mcad_accounting::resource::Resource;
use mcad_terminal::grid::{Column, Grid, Line, View};
use mcad_terminal::paint::{Paint, Tone};

use super::{UNKNOWN, line};
use crate::explain::amount::{Rounding, agreeing, number, printable, unit, words};
use crate::explain::cluster::Cluster;
use crate::explain::ladder::ByResource;
use crate::explain::queues::{Flavor, InAllFlavors, OfFlavor, OfQueue, Queue};
use crate::explain::quota::Quota;

/// The spec has no such quota.
const NONE: &str = "-";

/// Writes all that is known of queues.
pub(super) fn write(out: &mut String, cluster: &Cluster, queues: &[Queue], flavors: &[Flavor], paint: Paint) {
    let quotas: Vec<_> = queues.iter().flat_map(quotas).collect();
    line(out, &format!("\n{}", paint.tone(Tone::Title, "ClusterQueues")));
    write_grid(
        out,
        &Grid {
            columns: vec![
                Column::words("NAME"),
                Column::words("STATE"),
                Column::words("FLAVOR"),
                Column::words("RESOURCE"),
                Column::amounts("NOMINAL", "NOMINAL"),
                Column::amounts("RESERVED", "RESERVED"),
                Column::amounts("UNHELD", "UNHELD"),
                Column::amounts("AVAILABLE", "AVAILABLE"),
            ],
            lines: quotas,
        },
        "UNHELD: quota that Workloads reserve and that none of their pods requests. AVAILABLE: quota that the queue could still use, \
         including what it may borrow.",
        paint,
    );
    line(out, &format!("\n{}", paint.tone(Tone::Title, "Flavors")));
    write_grid(
        out,
        &Grid {
            columns: vec![
                Column::words("NAME"),
                Column::words("RESOURCE"),
                Column::amounts("NOMINAL", "NOMINAL"),
                Column::amounts("INSTALLED", "INSTALLED"),
                Column::amounts("BACKING", "BACKING"),
                Column::amounts("UNBACKED", "UNBACKED"),
                Column::amounts("UNCOVERED", "UNCOVERED"),
                Column::amounts("FREE", "FREE"),
            ],
            lines: flavors.iter().flat_map(resources).collect(),
        },
        "BACKING: hardware that works, on nodes that accept pods of the flavor, without what pods outside of quotas request. UNBACKED: \
         quota without such hardware. UNCOVERED: such hardware without quota. These values are unknown for resources that are not \
         hardware, such as pods, and for a flavor whose nodes are not all known.",
        paint,
    );
    let has_quota = |resource: &Resource| flavors.iter().any(|flavor| flavor.resources.get(resource).is_some());
    let totals = cluster.quota.iter().flat_map(ByResource::iter);
    for (resource, total) in totals.filter(|(resource, _)| has_quota(resource)) {
        line(out, &format!("  {}", in_all_flavors(&resource, *total)));
    }
}

/// `In all flavors together, where each node counts once, 24 GPUs of quota have no hardware, and 1 GPU of hardware has no quota.`
fn in_all_flavors(resource: &Resource, InAllFlavors { unbacked, uncovered }: InAllFlavors) -> String {
    let have = |number: &str| agreeing(number, "has", "have").to_owned();
    let uncovered = uncovered.map_or_else(
        || "how much hardware has no quota is unknown, because a quota is unlimited".to_owned(),
        |amount| {
            let have = have(&number(resource, amount as f64, Rounding::Down));
            format!("{} of hardware {have} no quota", words(resource, amount.into(), Rounding::Down))
        },
    );
    let have = have(&unbacked.number(resource, Rounding::Up));
    let unbacked = unbacked.words(resource, Rounding::Up);
    format!(
        "In all flavors together, where each node counts once, {unbacked} of quota {have} no hardware, and {uncovered}."
    )
}

/// Writes the table, indented like all others, and what its headings mean.
fn write_grid(out: &mut String, grid: &Grid, note: &str, paint: Paint) {
    if grid.lines.is_empty() {
        line(out, "  none");
        return;
    }
    let mut table = String::new();
    grid.write(&mut table, View { width: None, paint });
    for row in table.lines() {
        line(out, &format!("  {row}"));
    }
    line(out, &format!("  {}", paint.tone(Tone::Quiet, note)));
}

/// `cpu, cores`.
fn named(resource: &Resource) -> String {
    let (name, unit) = (resource.name(), unit(resource));
    printable(&if unit == name { name.to_owned() } else { format!("{name}, {unit}") })
}

fn quotas(queue: &Queue) -> Vec<Line> {
    let mut lines = Vec::new();
    let names = || [printable(&queue.name), queue.state.to_owned()];
    let is_active = queue.state == "active";
    for (flavor, resources) in &queue.flavors {
        for (resource, OfQueue { nominal, reserved, unheld, available, .. }) in resources.iter() {
            let amount = |amount: i64| number(&resource, amount as f64, Rounding::Nearest);
            let mut cells = names().to_vec();
            cells.extend([
                printable(flavor),
                named(&resource),
                nominal.map_or_else(|| NONE.to_owned(), |quota| quota.number(&resource, Rounding::Nearest)),
                amount(reserved.in_all()),
                unheld.map_or_else(|| UNKNOWN.to_owned(), |unheld| amount(unheld.in_all())),
                available.number(&resource, Rounding::Down),
            ]);
            lines.push(Line { cells, tone: if is_active { Tone::Normal } else { Tone::Held } });
        }
    }
    if lines.is_empty() {
        let mut cells = names().to_vec();
        cells.extend([NONE; 6].map(str::to_owned));
        lines.push(Line { cells, tone: Tone::Normal });
    }
    lines
}

fn resources(flavor: &Flavor) -> Vec<Line> {
    let line = |(resource, of): (Resource, &OfFlavor)| {
        let amount = |known: Option<i64>| {
            known.map_or_else(|| UNKNOWN.to_owned(), |amount| number(&resource, amount as f64, Rounding::Down))
        };
        let unbacked = of.unbacked.map_or_else(|| amount(None), |quota| quota.number(&resource, Rounding::Up));
        let is_backed = of.unbacked.is_none_or(|unbacked| unbacked == Quota::Units(0));
        Line {
            cells: vec![
                printable(&flavor.name),
                named(&resource),
                of.nominal.number(&resource, Rounding::Nearest),
                amount(of.installed),
                amount(of.backing),
                unbacked,
                amount(of.uncovered),
                amount(of.free),
            ],
            tone: if is_backed { Tone::Normal } else { Tone::Bad },
        }
    };
    flavor.resources.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_all_flavors_is_a_sentence_with_any_number() {
        let check = |resource: &Resource, unbacked, uncovered, expected: &str| {
            let expected = format!("In all flavors together, where each node counts once, {expected}.");
            assert_eq!(in_all_flavors(resource, InAllFlavors { unbacked, uncovered }), expected);
        };
        let expected = "24 GPUs of quota have no hardware, and 1 GPU of hardware has no quota";
        check(&Resource::Gpu, Quota::Units(24), Some(1), expected);
        // One core is 1000 millicores.
        let expected = "1 core of quota has no hardware, and 0 cores of hardware have no quota";
        check(&Resource::Cpu, Quota::Units(1000), Some(0), expected);
        let expected = "unlimited GPUs of quota have no hardware, and how much hardware has no quota is unknown, because a quota is unlimited";
        check(&Resource::Gpu, Quota::Unlimited, None, expected);
    }
}
