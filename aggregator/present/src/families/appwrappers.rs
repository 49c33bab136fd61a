//! Section C of the metrics contract: AppWrappers, counted and one by one.
use mcad_accounting::resource::{Amounts, Resource};
use mcad_accounting::snapshot::{AppWrapperView, AppWrappers, Snapshot, Waiting};
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
    "Attributes of an AppWrapper, as labels.",
);
static REQUESTED: Family =
    gauge("mcad_appwrapper_requested", ONE_RESOURCE, BY_LABEL, "Resources that the AppWrapper's spec requests.");
static ALLOCATED: Family = gauge(
    "mcad_appwrapper_allocated",
    ONE_RESOURCE,
    BY_LABEL,
    "Effective requests of the AppWrapper's bound, unfinished pods, and devices held by its claims.",
);
static USED: Family = gauge(
    "mcad_appwrapper_used",
    ONE_RESOURCE,
    BY_LABEL,
    "Current use of the AppWrapper's pods. Exported only if all its bound, unfinished pods are measured.",
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
    "Whether a waiting AppWrapper fits MCAD's sum (by=aggregate), real nodes (by=nodes) and the quota of its queue (by=quota). For \
     one placed in part: whether its remaining pods fit real nodes.",
);
static FIT_UNKNOWN: Family = gauge(
    "mcad_appwrapper_fit_unknown",
    &["appwrapper", "namespace", "reason"],
    "1",
    "1 if it is not known whether the AppWrapper fits real nodes, by reason: the search for a placement was cut short, or claims to \
     devices are missing or cannot be evaluated.",
);
static QUOTA_SHORTFALL: Family = gauge(
    "mcad_appwrapper_quota_shortfall",
    &["appwrapper", "flavor", "namespace", "resource", "unit"],
    BY_LABEL,
    "What a waiting AppWrapper misses of the quota of its queue, where it misses some.",
);
static WAITING_REASON: Family = gauge(
    "mcad_appwrapper_waiting_reason",
    &["appwrapper", "namespace", "reason"],
    "1",
    "Why an AppWrapper under Kueue waits for quota, or for its pods to be ready.",
);
static PODS: Family = gauge(
    "mcad_appwrapper_pods",
    &["appwrapper", "namespace", "state"],
    "pods",
    "Pods that the AppWrapper requests (wanted), pods that are bound and have not failed (bound), and the rest (unbound).",
);
static SHORTFALL: Family = gauge(
    "mcad_appwrapper_shortfall",
    ONE_RESOURCE,
    BY_LABEL,
    "Resources that a waiting AppWrapper needs beyond MCAD's sum. Exported only if not 0.",
);
static WITHOUT_SERIES: Family = gauge(
    "mcad_appwrappers_without_series",
    &["namespace", "reason"],
    "AppWrappers",
    "AppWrappers without series of their own, because the AppWrapper (`appwrapper`) or its namespace (`namespace`, \
     --max-series-per-namespace) would have too many.",
);

static CPU_SECONDS: Family = counter(
    "mcad_appwrapper_cpu_seconds_total",
    ONE,
    "seconds",
    "CPU time of the AppWrapper's pods, including pods that ended.",
);
static GPU_HELD_SECONDS: Family = counter(
    "mcad_appwrapper_gpu_held_seconds_total",
    ONE,
    "seconds",
    "Time that the AppWrapper's pods held GPUs, summed over the GPUs. A time slice or a MIG instance counts as one.",
);
static GPU_BUSY_SECONDS: Family = counter(
    "mcad_appwrapper_gpu_busy_seconds_total",
    ONE,
    "seconds",
    "Busy time of the GPUs held by the AppWrapper's pods. That of a shared GPU is divided by the use of its processes, as far as it is known, else by the parts that the pods hold.",
);
static GPU_IDLE_SECONDS: Family = counter(
    "mcad_appwrapper_gpu_idle_seconds_total",
    &["appwrapper", "cause", "namespace"],
    "seconds",
    "Time for which GPUs idled that the AppWrapper's pods held, by cause. The causes add up to held minus busy time. Exported only if not 0.",
);
static OOM_KILLS: Family =
    counter("mcad_appwrapper_oom_kills_total", ONE, "processes", "OOM-killed processes of the AppWrapper's pods.");
static RUN_QUEUE_WAIT_SECONDS: Family = counter(
    "mcad_appwrapper_run_queue_wait_seconds_total",
    ONE,
    "seconds",
    "Run-queue wait: time that tasks of the AppWrapper's pods were ready to run and waited for a CPU.",
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
    &QUOTA_SHORTFALL,
    &WAITING_REASON,
    &CPU_SECONDS,
    &GPU_HELD_SECONDS,
    &GPU_BUSY_SECONDS,
    &GPU_IDLE_SECONDS,
    &OOM_KILLS,
    &RUN_QUEUE_WAIT_SECONDS,
];

type Counted = fn(&Total) -> Option<Value>;

/// The counters, and the value that each exports.
static COUNTERS: [(&Family, Counted); 5] = [
    (&CPU_SECONDS, |total| total.cpu_ns.map(Value::Nano)),
    (&GPU_HELD_SECONDS, |total| total.gpu_held_ns.map(Value::Nano)),
    (&GPU_BUSY_SECONDS, |total| total.gpu_busy_ns.map(Value::Nano)),
    (&OOM_KILLS, |total| total.oom_kills.map(Value::Unsigned)),
    (&RUN_QUEUE_WAIT_SECONDS, |total| total.run_queue_wait_ns.map(Value::Nano)),
];

/// Writes the section.
pub(crate) fn write(snapshot: &Snapshot, all: &AppWrappers, spelling: &Spelling, out: &mut Exposition<'_>) {
    let mut lines = out.family(&APPWRAPPERS);
    for ((version, state), count) in &all.states {
        lines.line(&Labels::of(&[("state", state), ("version", version.label())]), Value::Unsigned(*count));
    }
    let Shown { views, unshown } = Shown::of(snapshot, &all.appwrappers);
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
    each(all, |view, labels| {
        let mark = labels.mark();
        for (resource, amount) in view.requested.known() {
            let Some(resource) = spelling.get(&resource) else { continue };
            lines.line(labels.cut(mark).extend(&resource.labels), resource.value(amount));
        }
    });
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
    write_fit(snapshot, all, &mut out.family(&FIT));
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
    write_quota(snapshot, all, spelling, &mut out.family(&QUOTA_SHORTFALL));
    write_reasons(snapshot, all, &mut out.family(&WAITING_REASON));
    for (family, counted) in &COUNTERS {
        let mut lines = out.family(family);
        each(all, |view, labels| {
            if let Some(value) = counted(&view.total) {
                lines.line(labels, value);
            }
        });
    }
    let mut lines = out.family(&GPU_IDLE_SECONDS);
    for view in all {
        let name = &view.appwrapper.name;
        for (cause, ns) in view.total.gpu_idle_ns.iter().flat_map(|idle| idle.idle()).filter(|(_, ns)| *ns > 0) {
            let labels =
                Labels::of(&[("appwrapper", &name.name), ("cause", cause.label()), ("namespace", &name.namespace)]);
            lines.line(&labels, Value::Nano(ns));
        }
    }
}

fn write_fit(snapshot: &Snapshot, all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    for view in all {
        let AppWrapperView { appwrapper, waiting, unplaced, .. } = view;
        let aggregate = waiting.as_ref().and_then(Waiting::fits_aggregate);
        let nodes = unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref()?.fits());
        let quota = waiting.as_ref().and_then(|_| snapshot.quota_of(view)?.fits);
        for (by, fits) in [("aggregate", aggregate), ("nodes", nodes), ("quota", quota)] {
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
        if let Some(reason) = verdict.and_then(|verdict| verdict.outcome.unknown()) {
            lines.line(labels.push("reason", reason), Value::Unsigned(1));
        }
    });
}

fn write_quota(snapshot: &Snapshot, all: &[&AppWrapperView], spelling: &Spelling, lines: &mut Lines<'_, '_>) {
    for view in all.iter().filter(|view| view.waiting.is_some()) {
        let name = &view.appwrapper.name;
        for ((flavor, resource), missing) in snapshot.quota_of(view).iter().flat_map(|quota| &quota.shortfall) {
            let Some(resource) = spelling.get(resource) else { continue };
            let mut labels =
                Labels::of(&[("appwrapper", &name.name), ("flavor", flavor), ("namespace", &name.namespace)]);
            lines.line(labels.extend(&resource.labels), resource.quota(*missing));
        }
    }
}

fn write_reasons(snapshot: &Snapshot, all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    each(all, |view, labels| {
        if let Some(reason) = snapshot.quota_of(view).and_then(|quota| view.waiting_reason(quota)) {
            lines.line(labels.push("reason", reason.label()), Value::Unsigned(1));
        }
    });
}

fn write_pods(all: &[&AppWrapperView], lines: &mut Lines<'_, '_>) {
    each(all, |view, labels| {
        let pods = view.pods;
        // If its requests are not known, only the number of bound pods can be exported.
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

/// Calls `write` with each AppWrapper and the labels `appwrapper` and `namespace`.
fn each(all: &[&AppWrapperView], mut write: impl FnMut(&AppWrapperView, &mut Labels)) {
    let mut labels = Labels::new();
    for view in all {
        let name = &view.appwrapper.name;
        labels.cut(0).push("appwrapper", &name.name).push("namespace", &name.namespace);
        write(view, &mut labels);
    }
}
