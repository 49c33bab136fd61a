//! What pods do with the GPUs that they hold, in the whole cluster: busy, or idle by cause (docs/accounting.md §13).
use mcad_accounting::cluster::owner::ByOwner;
use mcad_accounting::gpu_use::{Use, Uses};
use mcad_accounting::snapshot::held::Held;

use super::{counter, gauge};
use crate::exposition::{Exposition, Family, Labels, Lines, Value};

const BY_USE: &[&str] = &["owner", "use"];

static NOW: Family = gauge(
    "mcad_cluster_gpu_held",
    BY_USE,
    "devices",
    "GPUs that pods hold, by what the pods did with them in the last interval of each agent: busy, or the cause for which the GPU idled. A time slice or a MIG instance counts as one.",
);
static TOTAL: Family = counter(
    "mcad_cluster_gpu_held_seconds_total",
    BY_USE,
    "seconds",
    "Time that pods held GPUs, including pods that are gone: busy, or idle by cause. Summed over the GPUs.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[&NOW, &TOTAL];

/// Writes the section.
pub(crate) fn write(held: &Held, out: &mut Exposition<'_>) {
    write_one(held.now.as_ref(), &mut out.family(&NOW));
    write_one(held.total_ns.as_ref(), &mut out.family(&TOTAL));
}

fn write_one(uses: Option<&ByOwner<Uses>>, lines: &mut Lines<'_, '_>) {
    for (owner, uses) in uses.iter().flat_map(|uses| [("appwrapper", &uses.appwrapper), ("other", &uses.other)]) {
        for of in Use::all() {
            lines.line(&Labels::of(&[("owner", owner), ("use", of.label())]), Value::Nano(uses.of(of)));
        }
    }
}
