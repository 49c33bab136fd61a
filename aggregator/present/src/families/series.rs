//! Which AppWrappers have series of their own: a user who may create AppWrappers must not be able to overload Prometheus.
//!
//! Owns how many series one AppWrapper has, and which AppWrappers have none. [`super::appwrappers`] writes the text.
use std::collections::BTreeMap;

use mcad_accounting::queue::AppWrapperQuota;
use mcad_accounting::resource::Amounts;
use mcad_accounting::snapshot::{AppWrapperView, Snapshot, Waiting};

/// The most series of one AppWrapper. An AppWrapper whose spec and pods name as many resources as allowed has 285; more are
/// possible if many pods each name different resources.
const PER_APPWRAPPER: usize = 500;

/// Why an AppWrapper has no series of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unshown {
    /// This AppWrapper alone would have too many.
    AppWrapper,
    /// The AppWrappers of its namespace together would have too many.
    Namespace,
}

impl Unshown {
    /// The label `reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::AppWrapper => "appwrapper",
            Self::Namespace => "namespace",
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// AppWrappers that have series, in order of namespace and name.
    pub(super) views: Vec<&'a AppWrapperView>,
    /// How many AppWrappers have none, by namespace and reason.
    pub(super) unshown: BTreeMap<(&'a str, Unshown), u64>,
}

impl<'a> Shown<'a> {
    /// Selects from `views`, which are in order of namespace and name; the AppWrappers of one namespace have at most
    /// `max_series_per_namespace` series.
    pub(super) fn of(snapshot: &Snapshot, views: &'a [AppWrapperView]) -> Self {
        let per_namespace = snapshot.options.max_series_per_namespace;
        let mut shown = Self { views: Vec::with_capacity(views.len()), unshown: BTreeMap::new() };
        for of_namespace in views.chunk_by(|a, b| a.appwrapper.name.namespace == b.appwrapper.name.namespace) {
            let before = shown.views.len();
            let mut series = 0;
            for view in of_namespace {
                let of_one = count(view) + snapshot.quota_of(view).map_or(0, of_quota);
                if of_one > PER_APPWRAPPER {
                    shown.leave_out(view, Unshown::AppWrapper);
                } else {
                    series += of_one;
                    shown.views.push(view);
                }
            }
            // All of them, not only those beyond the limit: otherwise every new AppWrapper would change which have series, and
            // sums over the namespace would be silently wrong.
            if series > per_namespace {
                for view in shown.views.split_off(before) {
                    shown.leave_out(view, Unshown::Namespace);
                }
            }
        }
        shown
    }

    fn leave_out(&mut self, view: &'a AppWrapperView, why: Unshown) {
        *self.unshown.entry((&view.appwrapper.name.namespace, why)).or_default() += 1;
    }
}

/// How many more series it has for its quota.
fn of_quota(quota: &AppWrapperQuota) -> usize {
    quota.shortfall.len() + usize::from(quota.fits.is_some()) + usize::from(quota.standing.is_some())
}

/// How many series an AppWrapper has, as [`super::appwrappers`] writes them.
fn count(view: &AppWrapperView) -> usize {
    let amounts = |amounts: &Amounts| 3 + amounts.extended().len();
    let some = |known: bool| usize::from(known);
    let waiting = view.waiting.as_ref();
    let verdict = view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
    let missing = waiting.and_then(|waiting| waiting.shortfall);
    let total = &view.total;
    let is_wanted = view.pods.wanted > 0;
    1 + view.requested.known().count()
        + view.allocated.as_ref().map_or(0, amounts)
        + view.used.as_ref().map_or(0, |used| {
            some(used.nanocores.is_some()) + some(used.bytes.is_some()) + some(used.nanodevices.is_some())
        })
        + some(waiting.is_some_and(|waiting| waiting.seconds.is_some()))
        + some(waiting.is_some_and(|waiting| Waiting::fits_aggregate(waiting).is_some()))
        // A verdict gives one series: whether it fits the nodes, or why that is not known.
        + some(verdict.is_some())
        + some(is_wanted)
        + some(view.pods.bound.is_some())
        + some(is_wanted && view.pods.unbound().is_some())
        + missing.map_or(0, |missing| [missing.cpu, missing.memory, missing.gpu].iter().filter(|of| **of > 0).count())
        + [total.cpu_ns, total.gpu_held_ns, total.gpu_busy_ns, total.oom_kills, total.run_queue_wait_ns]
            .iter()
            .filter(|counter| counter.is_some())
            .count()
        + total.gpu_idle_ns.iter().flat_map(|idle| idle.idle()).filter(|(_, ns)| *ns > 0).count()
}
