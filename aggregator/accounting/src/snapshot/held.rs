//! What pods do with the GPUs that they hold, in the whole cluster and by AppWrapper (docs/accounting.md §13).
use std::collections::HashMap;

use crate::cluster::owner::ByOwner;
use crate::gpu_use::{HeldOnNode, Uses};
use crate::object::AppWrapperName;
use crate::totals::Totals;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// In the last interval of each agent that reports: parts of devices, in billionths. `None` if no agent says who holds devices.
    pub now: Option<ByOwner<Uses>>,
    /// The time for which they were held, including pods that are gone. `None` if that was never known.
    pub total_ns: Option<ByOwner<Uses>>,
    /// As `now`, by AppWrapper; only those whose pods hold devices.
    by_appwrapper: HashMap<AppWrapperName, Uses>,
}

impl Held {
    /// From the nodes whose agents report.
    pub fn new<'a>(nodes: impl Iterator<Item = &'a HeldOnNode>, totals: &Totals) -> Self {
        let mut held = Self { total_ns: totals.held_ns().copied(), ..Self::default() };
        for node in nodes {
            let now = held.now.get_or_insert_default();
            for (owner, uses) in node {
                now.of_mut(owner.as_ref()).add_all(uses);
                let Some(owner) = owner else { continue };
                match held.by_appwrapper.get_mut(owner) {
                    Some(sum) => sum.add_all(uses),
                    None => drop(held.by_appwrapper.insert(owner.clone(), *uses)),
                }
            }
        }
        held
    }

    /// What the pods of an AppWrapper do with the devices that they hold: parts of devices, in billionths. `None` if they hold none, or that
    /// is not known.
    pub fn of(&self, appwrapper: &AppWrapperName) -> Option<&Uses> {
        self.by_appwrapper.get(appwrapper)
    }

    /// The AppWrappers whose pods hold devices, unordered.
    pub fn appwrappers(&self) -> impl Iterator<Item = (&AppWrapperName, &Uses)> {
        self.by_appwrapper.iter()
    }
}
