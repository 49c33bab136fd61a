//! The histograms of what AppWrappers request, told to a replica that starts and learnt by it. Owns which AppWrappers are
//! counted already, so that none is counted by two.
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use mcad_wire::seed::Requests;

use super::Cluster;
use crate::histogram::RequestHistograms;
use crate::resource::Triple;

/// How many AppWrappers that are gone are remembered by UID. Of two replicas one hears of an end a moment before the other;
/// in that moment so many may end.
const REMEMBERED: usize = 1024;

/// What is in the histograms and not among the AppWrappers.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Those that went last.
    gone: VecDeque<Arc<str>>,
    /// Those that another replica counted and that are not here, yet or any more. As many as a seed has.
    elsewhere: HashSet<Arc<str>>,
}

impl Counted {
    /// One that was counted is gone.
    pub(super) fn went(&mut self, uid: Option<Arc<str>>) {
        let Some(uid) = uid else { return };
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back(uid);
    }

    /// One is there; whether another replica counted it.
    pub(super) fn came(&mut self, uid: &str) -> bool {
        self.elsewhere.remove(uid)
    }
}

impl Cluster {
    /// The histograms, and which AppWrappers are in them.
    pub fn tell(&mut self) -> Requests {
        self.observe();
        let there = self.appwrappers.values().filter_map(|entry| entry.observed.as_ref());
        let all = there.chain(&self.counted.gone).chain(&self.counted.elsewhere);
        self.histograms.tell(all.map(ToString::to_string).collect())
    }

    /// Takes in what another replica counted, and adds what it did not.
    pub fn learn(&mut self, told: &Requests) {
        self.observe();
        let Some(mut histograms) = RequestHistograms::told(told) else { return };
        let mut elsewhere: HashSet<Arc<str>> = told.counted.iter().map(|uid| uid.as_str().into()).collect();
        for entry in self.appwrappers.values() {
            if let (Some(uid), Some(appwrapper)) = (&entry.observed, entry.effective())
                && !elsewhere.remove(uid)
            {
                histograms.observe(Triple::from(&appwrapper.demand.total));
            }
        }
        // What came and went here, and was never seen there.
        histograms.rise_to(&self.histograms);
        self.histograms = histograms;
        for uid in &self.counted.gone {
            elsewhere.remove(uid);
        }
        self.counted.elsewhere.extend(elsewhere);
    }
}
