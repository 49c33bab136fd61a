//! The AppWrappers of a cluster: the object as each source reports it, which of these views counts, and whether the
//! histograms include it. The sums of their pods are computed in `pod_events`.
use std::collections::BTreeSet;
use std::sync::Arc;

use super::pods::Place;
use super::sums::Gained;
use super::{Cluster, Source, same};
use crate::cluster::histogram::RequestHistograms;
use crate::object::{AppWrapper, AppWrapperName, Served, Version};
use crate::resource::Triple;

/// An AppWrapper as each source reports it, and its pods. If the AppWrapper does not exist yet, the entry collects its
/// pods.
#[derive(Debug, Default)]
pub(super) struct AppWrapperEntry {
    /// In the order of [`Served`].
    pub(super) views: [Option<Arc<AppWrapper>>; 3],
    /// Which views exceed a limit, in the same order. If any does, no view counts, because the others may lack what
    /// this one has.
    pub(super) is_over: [bool; 3],
    pub(super) gained: Gained,
    /// The places of its pods, unordered.
    pub(super) pods: Vec<Place>,
    /// The UID that the histograms include.
    pub(super) observed: Option<Arc<str>>,
}

impl Cluster {
    /// Sets the versions of AppWrappers that the API server serves. Objects of other versions are removed.
    pub fn serve(&mut self, served: impl IntoIterator<Item = Served>) {
        let served: BTreeSet<Served> = served.into_iter().collect();
        let unserved: Vec<_> = Served::ALL.into_iter().filter(|version| !served.contains(version)).collect();
        self.served = Some(served);
        for gone in unserved {
            if self.known.contains(&Source::AppWrappers(gone)) {
                self.observe();
                let there = self.appwrappers.values().filter(|entry| entry.views[gone as usize].is_some());
                let observed: Vec<_> = there.filter_map(|entry| entry.observed.clone()).collect();
                self.counted.went_unserved(gone, observed);
                self.reset(Source::AppWrappers(gone), Vec::new());
                self.known.remove(&Source::AppWrappers(gone));
            }
        }
    }

    /// Adds AppWrappers that are new since the last call to the histograms. Separate from [`Self::apply`], because it
    /// may take two sources to know an object's version.
    pub fn observe(&mut self) {
        for name in std::mem::take(&mut self.unobserved) {
            self.observe_one(&name);
        }
    }

    /// Whether AppWrappers are known: at least one version is served, and the list of every served version is complete.
    pub fn knows_appwrappers(&self) -> bool {
        let some = self.known.iter().any(|source| matches!(source, Source::AppWrappers(_)));
        some && self.lists_appwrappers()
    }

    /// Whether the list of every served version is complete.
    pub(super) fn lists_appwrappers(&self) -> bool {
        let all =
            |served: &BTreeSet<Served>| served.iter().all(|served| self.known.contains(&Source::AppWrappers(*served)));
        self.served.as_ref().is_some_and(all)
    }

    /// The versions of AppWrappers that the API server is known to serve.
    pub fn served(&self) -> BTreeSet<Version> {
        self.served.iter().flatten().map(|served| served.version()).collect()
    }

    /// The AppWrappers that exist, by namespace and name, and what their pods were given.
    pub fn appwrappers(&self) -> impl Iterator<Item = (&Arc<AppWrapper>, &Gained)> {
        let there = self.appwrappers.values().filter_map(|entry| Some((entry.effective()?, &entry.gained)));
        let mut appwrappers: Vec<_> = there.collect();
        appwrappers.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        appwrappers.into_iter()
    }

    /// The AppWrapper with that name.
    pub fn appwrapper(&self, name: &AppWrapperName) -> Option<&Arc<AppWrapper>> {
        self.appwrappers.get(name)?.effective()
    }

    /// Histograms of the requests of the AppWrappers seen so far.
    pub fn histograms(&self) -> &RequestHistograms {
        &self.histograms
    }

    pub(super) fn set_appwrapper(&mut self, mut appwrapper: AppWrapper) {
        appwrapper.name.namespace = self.share(&appwrapper.name.namespace);
        appwrapper.name.name = self.share(&appwrapper.name.name);
        appwrapper.state = self.share(&appwrapper.state);
        appwrapper.queue = self.share(&appwrapper.queue);
        appwrapper.priority = self.share(&appwrapper.priority);
        let name = appwrapper.name.clone();
        let entry = self.appwrappers.entry(name.clone()).or_default();
        if entry.observed.as_ref() != Some(&appwrapper.uid) {
            self.unobserved.push(name);
        }
        let (served, unreadable) = (appwrapper.served, appwrapper.demand.unreadable);
        entry.is_over[served as usize] = false;
        let before = entry.views[served as usize].replace(Arc::new(appwrapper));
        let before = before.map_or(0, |appwrapper| appwrapper.demand.unreadable);
        self.note_unreadable(Source::AppWrappers(served), before, unreadable);
    }

    pub(super) fn remove_appwrapper(&mut self, name: &AppWrapperName, served: Served, uid: &str) {
        // An AppWrapper that came and went between two calls of `observe` counts as well.
        if self.appwrappers.get(name).is_some_and(|entry| entry.observed.is_none()) {
            self.observe_one(name);
        }
        let Some(entry) = self.appwrappers.get_mut(name) else { return };
        entry.is_over[served as usize] = false;
        let gone = entry.views[served as usize].take_if(|view| same(&view.uid, uid));
        if entry.effective().is_none() {
            self.counted.went(entry.observed.take());
        }
        if entry.is_forgotten() {
            self.appwrappers.remove(name);
        }
        self.note_unreadable(Source::AppWrappers(served), gone.map_or(0, |view| view.demand.unreadable), 0);
    }

    /// The AppWrapper exceeds a limit: its earlier requests are no longer valid, and its current ones are not known.
    pub(super) fn leave_out_appwrapper(&mut self, name: &AppWrapperName, served: Served) {
        self.remove_appwrapper(name, served, "");
        let name = AppWrapperName { namespace: self.share(&name.namespace), name: self.share(&name.name) };
        let entry = self.appwrappers.entry(name).or_default();
        entry.is_over[served as usize] = true;
        if entry.effective().is_none() {
            self.counted.went(entry.observed.take());
        }
    }

    fn observe_one(&mut self, name: &AppWrapperName) {
        let Some(entry) = self.appwrappers.get_mut(name) else { return };
        let Some(effective) = entry.effective().filter(|a| a.version == Version::V1Beta1) else { return };
        if entry.observed.as_ref() == Some(&effective.uid) {
            return;
        }
        let (uid, demand) = (effective.uid.clone(), Triple::from(&effective.demand.total));
        let is_counted = self.counted.came(&uid);
        self.counted.went(entry.observed.replace(uid));
        if !is_counted {
            self.histograms.observe(demand);
        }
    }
}

impl AppWrapperEntry {
    /// The view that counts. The `workload` group takes precedence. Within that group, one CRD may serve an object in
    /// two versions and may have pruned the fields that only the other version has: the view that has components
    /// counts, otherwise the view of the older version.
    pub(super) fn effective(&self) -> Option<&Arc<AppWrapper>> {
        if self.is_over.contains(&true) {
            return None;
        }
        let [v1beta1, v1beta2, mcad] = &self.views;
        let with_components = [v1beta2, v1beta1].into_iter().flatten().find(|view| view.version == Version::V1Beta2);
        with_components.or(v1beta1.as_ref()).or(v1beta2.as_ref()).or(mcad.as_ref())
    }

    /// Whether a source lists it, even if it exceeds a limit there.
    pub(super) fn is_listed_by(&self, served: Served) -> bool {
        self.views[served as usize].is_some() || self.is_over[served as usize]
    }

    pub(super) fn is_forgotten(&self) -> bool {
        Served::ALL.into_iter().all(|served| !self.is_listed_by(served)) && self.gained == Gained::default()
    }
}
