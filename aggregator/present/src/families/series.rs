//! Which AppWrappers have series of their own: whoever may create AppWrappers must not be able to fill Prometheus with them.
//!
//! Owns how many series one has, and who has none. The text is in [`super::appwrappers`].
use std::collections::BTreeMap;

use mcad_accounting::resource::Amounts;
use mcad_accounting::snapshot::verdict::Outcome;
use mcad_accounting::snapshot::{AppWrapperView, Waiting};

/// Series of one AppWrapper. One whose spec and pods name as many resources as they may has 285; more come of many pods that
/// each name others.
const PER_APPWRAPPER: usize = 500;

/// Why an AppWrapper has no series of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unshown {
    /// It alone would have too many.
    AppWrapper,
    /// Those of its namespace would have too many together.
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
    /// Those that have series, in order of namespace and name.
    pub(super) views: Vec<&'a AppWrapperView>,
    /// How many have none, by namespace and reason.
    pub(super) unshown: BTreeMap<(&'a str, Unshown), u64>,
}

impl<'a> Shown<'a> {
    /// Of these, in order of namespace and name, where the AppWrappers of one namespace may have so many series.
    pub(super) fn of(views: &'a [AppWrapperView], per_namespace: usize) -> Self {
        let mut shown = Self { views: Vec::with_capacity(views.len()), unshown: BTreeMap::new() };
        for of_namespace in views.chunk_by(|a, b| a.appwrapper.name.namespace == b.appwrapper.name.namespace) {
            let before = shown.views.len();
            let mut series = 0;
            for view in of_namespace {
                let of_one = count(view);
                if of_one > PER_APPWRAPPER {
                    shown.leave_out(view, Unshown::AppWrapper);
                } else {
                    series += of_one;
                    shown.views.push(view);
                }
            }
            // Not the first so many: which they are would change with every AppWrapper that comes, and each sum over the
            // namespace would be wrong unnoticed.
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

/// How many series an AppWrapper has, as [`super::appwrappers`] writes them.
fn count(view: &AppWrapperView) -> usize {
    let amounts = |amounts: &Amounts| 3 + amounts.extended().len();
    let some = |known: bool| usize::from(known);
    let waiting = view.waiting.as_ref();
    let verdict = view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
    let missing = waiting.and_then(|waiting| waiting.shortfall);
    let total = &view.total;
    let is_wanted = view.pods.wanted > 0;
    1 + amounts(&view.appwrapper.demand.total)
        + view.allocated.as_ref().map_or(0, amounts)
        + view.used.as_ref().map_or(0, |used| {
            some(used.nanocores.is_some()) + some(used.bytes.is_some()) + some(used.nanodevices.is_some())
        })
        + some(waiting.is_some_and(|waiting| waiting.seconds.is_some()))
        + some(waiting.is_some_and(|waiting| Waiting::fits_aggregate(waiting).is_some()))
        + some(verdict.is_some_and(|verdict| verdict.fits().is_some()))
        + some(verdict.is_some_and(|verdict| verdict.outcome == Outcome::Unproven))
        + some(is_wanted)
        + some(view.pods.bound.is_some())
        + some(is_wanted && view.pods.unbound().is_some())
        + missing.map_or(0, |missing| [missing.cpu, missing.memory, missing.gpu].iter().filter(|of| **of > 0).count())
        + [total.cpu_ns, total.gpu_held_ns, total.gpu_busy_ns, total.oom_kills, total.run_queue_wait_ns]
            .iter()
            .filter(|counter| counter.is_some())
            .count()
}
