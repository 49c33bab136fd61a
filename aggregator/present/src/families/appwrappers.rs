//! Section C of the metrics contract: AppWrappers, how many and one by one.
use mcad_accounting::resource::{Amounts, Resource};
use mcad_accounting::snapshot::verdict::Outcome;
use mcad_accounting::snapshot::{AppWrapperView, AppWrappers, Waiting};
use mcad_accounting::totals::Total;

use super::series::Shown;
use super::{BY_LABEL, Spelling, counter, gauge};
use crate::exposition::{Exposition, Family, Labels, Lines, Value};

const ONE: &[&str] = &["appwrapper", "namespace"];
const ONE_RESOURCE: &[&str] = &["appwrapper", "namespace", "resource", "unit"];

static APPWRAPPERS: Family =
    gauge("mcad_appwrappers", &["state", "version"], "AppWrappers", "AppWrappers by version and state.");
static INFO: Family = gauge(
    "mcad_appwrapper_info",
    &["appwrapper", "namespace", "priority", "queue", "state", "version"],
    "1",
    "What an AppWrapper is.",
);
static REQUESTED: Family =
    gauge("mcad_appwrapper_requested", ONE_RESOURCE, BY_LABEL, "What the AppWrapper's spec asks for.");
static ALLOCATED: Family = gauge(
    "mcad_appwrapper_allocated",
    ONE_RESOURCE,
    BY_LABEL,
    "Effective requests of the AppWrapper's bound, unfinished pods.",
);
static USED: Family = gauge(
    "mcad_appwrapper_used",
    ONE_RESOURCE,
    BY_LABEL,
    "What its pods use now, where all that are bound and unfinished are measured.",
);
static WAITING: Family = gauge(
    "mcad_appwrapper_waiting_seconds",
    ONE,
    "seconds",
    "Time since the AppWrapper was first queued, while it waits.",
);
static FIT: Family = gauge(
    "mcad_appwrapper_fit",
    &["appwrapper", "by", "namespace"],
    "0 or 1",
    "Whether a waiting AppWrapper fits: MCAD's sum, real nodes. Of one placed in part: whether the rest of its pods fits real nodes.",
);
static FIT_UNKNOWN: Family = gauge(
    "mcad_appwrapper_fit_unknown",
    &["appwrapper", "namespace", "reason"],
    "1",
    "Whether it fits real nodes is not known: the search for a placement was cut short.",
);
static PODS: Family = gauge(
    "mcad_appwrapper_pods",
    &["appwrapper", "namespace", "state"],
    "pods",
    "Pods that the AppWrapper asks for, pods of it that are bound and have not failed, and how many are not bound.",
);
static SHORTFALL: Family = gauge(
    "mcad_appwrapper_shortfall",
    ONE_RESOURCE,
    BY_LABEL,
    "What a waiting AppWrapper misses of MCAD's sum, where it misses some.",
);
static WITHOUT_SERIES: Family = gauge(
    "mcad_appwrappers_without_series",
    &["namespace", "reason"],
    "AppWrappers",
    "AppWrappers that have no series of their own, which would be too many: `appwrapper`, of that one; `namespace`, of its \
     namespace (--max-series-per-namespace).",
);

static CPU_SECONDS: Family = counter(
    "mcad_appwrapper_cpu_seconds_total",
    ONE,
    "seconds",
    "CPU time of the AppWrapper's pods, those that ended included.",
);
static GPU_HELD_SECONDS: Family = counter(
    "mcad_appwrapper_gpu_held_seconds_total",
    ONE,
    "seconds",
    "Time that GPUs were in the hands of its pods, added up over the GPUs; a time slice or a MIG instance counts as one.",
);
static GPU_BUSY_SECONDS: Family = counter(
    "mcad_appwrapper_gpu_busy_seconds_total",
    ONE,
    "seconds",
    "Time that GPUs in the hands of its pods were busy; of a shared one in proportion to the parts that they hold.",
);
static OOM_KILLS: Family = counter(
    "mcad_appwrapper_oom_kills_total",
    ONE,
    "processes",
    "Processes of its pods that were killed for want of memory.",
);
static RUN_QUEUE_WAIT_SECONDS: Family = counter(
    "mcad_appwrapper_run_queue_wait_seconds_total",
    ONE,
    "seconds",
    "Time that tasks of its pods were ready to run and waited for a processor.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &APPWRAPPERS,
    &WITHOUT_SERIES,
    &INFO,
    &REQUESTED,
    &ALLOCATED,
    &USED,
    &WAITING,
    &FIT,
    &FIT_UNKNOWN,
    &PODS,
    &SHORTFALL,
    &CPU_SECONDS,
    &GPU_HELD_SECONDS,
    &GPU_BUSY_SECONDS,
    &OOM_KILLS,
    &RUN_QUEUE_WAIT_SECONDS,
];

type Counted = fn(&Total) -> Option<Value>;

/// The counters, and what they show.
static COUNTERS: [(&Family, Counted); 5] = [
    (&CPU_SECONDS, |total| total.cpu_ns.map(Value::Nano)),
    (&GPU_HELD_SECONDS, |total| total.gpu_held_ns.map(Value::Nano)),
    (&GPU_BUSY_SECONDS, |total| total.gpu_busy_ns.map(Value::Nano)),
    (&OOM_KILLS, |total| total.oom_kills.map(Value::Unsigned)),
    (&RUN_QUEUE_WAIT_SECONDS, |total| total.run_queue_wait_ns.map(Value::Nano)),
];

/// Writes the section.
pub(crate) fn write(all: &AppWrappers, spelling: &Spelling, per_namespace: usize, out: &mut Exposition<'_>) {
    let mut lines = out.family(&APPWRAPPERS);
    for ((version, state), count) in &all.states {
        lines.line(&Labels::of(&[("state", state), ("version", version.label())]), Value::Unsigned(*count));
    }
    let Shown { views, unshown } = Shown::of(&all.appwrappers, per_namespace);
    let mut lines = out.family(&WITHOUT_SERIES);
    for ((namespace, why), count) in &unshown {
        lines.line(&Labels::of(&[("namespace", namespace), ("reason", why.reason())]), Value::Unsigned(*count));
    }
    let all = &views[..];
    let mut lines = out.family(&INFO);
    for AppWrapperView { appwrapper, .. } in all {
        let labels = Labels::of(&[
            ("appwrapper", &appwrapper.name.name),
            ("namespace", &appwrapper.name.namespace),
            ("priority", &appwrapper.priority),
            ("queue", &appwrapper.queue),
            ("state", &appwrapper.state),
            ("version", appwrapper.version.label()),
        ]);
        lines.line(&labels, Value::Unsigned(1));
    }
    let mut lines = out.family(&REQUESTED);
    each(all, |view, labels| write_amounts(&mut lines, labels, spelling, &view.appwrapper.demand.total));
    let mut lines = out.family(&ALLOCATED);
    each(all, |view, labels| {
        if let Some(allocated) = &view.allocated {
            write_amounts(&mut lines, labels, spelling, allocated);
        }
    });
    let mut lines = out.family(&USED);
    each(all, |view, labels| {
        let Some(used) = &view.used else { return };
        let mark = labels.mark();
        for (resource, used) in
            [(Resource::Cpu, used.nanocores), (Resource::Memory, used.bytes), (Resource::Gpu, used.nanodevices)]
        {
            if let (Some(used), Some(resource)) = (used, spelling.get(&resource)) {
                lines.line(labels.cut(mark).extend(&resource.labels), resource.used(used));
            }
        }
    });
    let mut lines = out.family(&WAITING);
    each(all, |view, labels| {
        if let Some(seconds) = view.waiting.as_ref().and_then(|waiting| waiting.seconds) {
            lines.line(labels, Value::Float(seconds));
        }
    });
    write_fit(all, &mut out.family(&FIT));
    write_fit_unknown(all, &mut out.family(&FIT_UNKNOWN));
    write_pods(all, &mut out.family(&PODS));
    let mut lines = out.family(&SHORTFALL);
    each(all, |view, labels| {
        let missing = view.waiting.iter().filter_map(|waiting| waiting.shortfall).flat_map(|missing| {
            [(Resource::Cpu, missing.cpu), (Resource::Memory, missing.memory), (Resource::Gpu, missing.gpu)]
        });
        let mark = labels.mark();
        for (resource, amount) in missing.filter(|(_, amount)| *amount > 0) {
            let Some(resource) = spelling.get(&resource) else { continue };
            lines.line(labels.cut(mark).extend(&resource.labels), resource.value(amount));
        }
    });
    for (family, counted) in &COUNTERS {
        let mut lines = out.family(family);
        each(all, |view, labels| {
            if let Some(value) = counted(&view.total) {
                lines.line(labels, value);
            }
        });
    }
}

fn write_fit(all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    for AppWrapperView { appwrapper, waiting, unplaced, .. } in all {
        let aggregate = waiting.as_ref().and_then(Waiting::fits_aggregate);
        let nodes = unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref()?.fits());
        for (by, fits) in [("aggregate", aggregate), ("nodes", nodes)] {
            let Some(fits) = fits else { continue };
            let name = &appwrapper.name;
            let labels = Labels::of(&[("appwrapper", &name.name), ("by", by), ("namespace", &name.namespace)]);
            lines.line(&labels, Value::Unsigned(fits.into()));
        }
    }
}

fn write_fit_unknown(all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    each(all, |view, labels| {
        let verdict = view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
        if verdict.is_some_and(|verdict| verdict.outcome == Outcome::Unproven) {
            lines.line(labels.push("reason", "search"), Value::Unsigned(1));
        }
    });
}

fn write_pods(all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    each(all, |view, labels| {
        let pods = view.pods;
        // Where it is not known what it asks for, all that can be said is what is there.
        let of_wanted = |count: Option<u64>| count.filter(|_| pods.wanted > 0);
        let states =
            [("wanted", of_wanted(Some(pods.wanted))), ("bound", pods.bound), ("unbound", of_wanted(pods.unbound()))];
        let mark = labels.mark();
        for (state, count) in states {
            let Some(count) = count else { continue };
            lines.line(labels.cut(mark).push("state", state), Value::Unsigned(count));
        }
    });
}

fn write_amounts(lines: &mut Lines<'_, '_>, labels: &mut Labels, spelling: &Spelling, amounts: &Amounts) {
    let mark = labels.mark();
    for (resource, amount) in amounts.iter() {
        let Some(resource) = spelling.get(&resource) else { continue };
        lines.line(labels.cut(mark).extend(&resource.labels), resource.value(amount));
    }
}

/// Calls `write` with each AppWrapper and its two labels.
fn each(all: &[&AppWrapperView], mut write: impl FnMut(&AppWrapperView, &mut Labels)) {
    let mut labels = Labels::new();
    for view in all {
        let name = &view.appwrapper.name;
        labels.cut(0).push("appwrapper", &name.name).push("namespace", &name.namespace);
        write(view, &mut labels);
    }
}
