//! State transfer of the histograms of AppWrapper requests. Records which AppWrappers are already counted, so that each
//! is counted once, although two replicas see it.
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use mcad_wire::state_transfer::Requests;

use super::Cluster;
use crate::cluster::histogram::RequestHistograms;
use crate::object::Served;
use crate::resource::Triple;

/// How many deleted AppWrappers are remembered by UID. One of two replicas sees a deletion a moment before the other;
/// in that moment this many may be deleted.
const REMEMBERED: usize = 1024;

/// AppWrappers that the histograms include but that are not in the cluster.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// AppWrappers that were deleted last.
    gone: VecDeque<Arc<str>>,
    /// AppWrappers that another replica counted and that do not exist here, not yet or no longer. At most as many as a
    /// state transfer contains.
    elsewhere: HashSet<Arc<str>>,
    /// AppWrappers that were removed because the API server no longer served their version. An API server that starts
    /// does not yet serve versions that it has not read; when it does, the AppWrappers are back. For each version,
    /// those of the last time.
    unserved: [HashSet<Arc<str>>; Served::ALL.len()],
}

impl Counted {
    /// A counted AppWrapper was deleted.
    pub(super) fn went(&mut self, uid: Option<Arc<str>>) {
        let Some(uid) = uid else { return };
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back(uid);
    }

    /// These AppWrappers were removed with their version.
    pub(super) fn went_unserved(&mut self, served: Served, uids: impl IntoIterator<Item = Arc<str>>) {
        self.unserved[served as usize] = uids.into_iter().collect();
    }

    /// An AppWrapper exists now. Returns whether it was counted before, here or by another replica.
    pub(super) fn came(&mut self, uid: &str) -> bool {
        let gone = self.gone.iter().position(|gone| **gone == *uid);
        if let Some(at) = gone {
            self.gone.remove(at);
        }
        // All sets are searched: two versions may contain the same object.
        let kinds = self.unserved.iter_mut().filter_map(|uids| uids.take(uid)).count();
        self.elsewhere.remove(uid) || gone.is_some() || kinds > 0
    }

    /// All AppWrappers that are counted and do not exist here.
    fn absent(&self) -> impl Iterator<Item = &Arc<str>> {
        self.gone.iter().chain(&self.elsewhere).chain(self.unserved.iter().flatten())
    }
}

impl Cluster {
    /// The histograms and the UIDs of the AppWrappers that they count, for another replica.
    pub fn tell(&mut self) -> Requests {
        self.observe();
        let there = self.appwrappers.values().filter_map(|entry| entry.observed.as_ref());
        let all = there.chain(self.counted.absent());
        self.histograms.to_wire(all.map(ToString::to_string).collect())
    }

    /// Takes over what another replica counted, and adds what it did not count.
    pub fn learn(&mut self, received: &Requests) {
        self.observe();
        let Some(mut histograms) = RequestHistograms::from_wire(received) else { return };
        let mut elsewhere: HashSet<Arc<str>> = received.counted.iter().map(|uid| uid.as_str().into()).collect();
        for entry in self.appwrappers.values() {
            if let (Some(uid), Some(appwrapper)) = (&entry.observed, entry.effective())
                && !elsewhere.remove(uid)
            {
                histograms.observe(Triple::from(&appwrapper.demand.total));
            }
        }
        // AppWrappers that came and went here and that the other replica never saw.
        histograms.raise_to(&self.histograms);
        self.histograms = histograms;
        for uid in self.counted.absent() {
            elsewhere.remove(uid);
        }
        self.counted.elsewhere.extend(elsewhere);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::{Event, Source};
    use crate::object::{AppWrapperName, Kind, Object, Served, decode};

    /// An AppWrapper that requests this many cores.
    fn appwrapper(name: &str, uid: &str, cores: u64) -> Object {
        let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "image": "x", "resources": {"requests": {"cpu": cores.to_string()}}}]}});
        let object: Value = json!({"apiVersion": "mcad.ibm.com/v1beta1", "kind": "AppWrapper",
            "metadata": {"name": name, "namespace": "a", "uid": uid},
            "spec": {"resources": {"GenericItems": [{"replicas": 1, "generictemplate": template}]}}});
        decode(Kind::named("mcad.ibm.com/v1beta1", "AppWrapper").unwrap(), object).unwrap()
    }

    fn cluster(objects: impl IntoIterator<Item = Object>) -> Cluster {
        Cluster::from_objects(objects)
    }

    fn end(cluster: &mut Cluster, object: Object) {
        cluster.apply(Event::Delete(object));
        cluster.observe();
    }

    /// The number of observations of cpu, and their sum in cores.
    fn counted(cluster: &mut Cluster) -> (u64, i128) {
        cluster.observe();
        (cluster.histograms().cpu.count, cluster.histograms().cpu.sum / 1000)
    }

    #[test]
    fn a_replica_that_starts_learns_of_those_that_are_gone_and_counts_those_that_are_there_once() {
        let (a, b, c) = (appwrapper("a", "1", 1), appwrapper("b", "2", 10), appwrapper("c", "3", 100));
        let mut other = cluster([a.clone(), b.clone()]);
        end(&mut other, a);
        // The other replica has not seen c yet.
        let mut fresh = cluster([b, c]);
        fresh.learn(&other.tell());
        assert_eq!(counted(&mut fresh), (3, 111));
        // Learning the same twice changes nothing.
        fresh.learn(&other.tell());
        assert_eq!(counted(&mut fresh), (3, 111));
    }

    #[test]
    fn one_whose_end_only_the_other_has_heard_of_counts_once() {
        let a = appwrapper("a", "1", 1);
        let mut other = cluster([a.clone()]);
        end(&mut other, a.clone());
        let mut fresh = cluster([a.clone()]);
        fresh.learn(&other.tell());
        assert_eq!(counted(&mut fresh), (1, 1));
        end(&mut fresh, a);
        assert_eq!(counted(&mut fresh), (1, 1));
    }

    #[test]
    fn one_that_the_other_heard_of_first_is_not_counted_again_but_its_successor_is() {
        let mut other = cluster([appwrapper("a", "1", 1)]);
        let mut fresh = cluster([]);
        fresh.learn(&other.tell());
        assert_eq!(counted(&mut fresh), (1, 1));
        fresh.apply(Event::Apply(appwrapper("a", "1", 1)));
        assert_eq!(counted(&mut fresh), (1, 1));
        fresh.apply(Event::Apply(appwrapper("a", "2", 5)));
        assert_eq!(counted(&mut fresh), (2, 6));
        // A third replica also learns of the first AppWrapper, which is gone here as well.
        let mut third = cluster([appwrapper("a", "1", 1)]);
        third.learn(&fresh.tell());
        assert_eq!(counted(&mut third), (2, 6));
    }

    #[test]
    fn a_relist_after_learning_counts_nothing_twice() {
        let objects = || vec![appwrapper("a", "1", 1), appwrapper("b", "2", 10)];
        let mut other = cluster(objects());
        let mut fresh = cluster(objects());
        fresh.learn(&other.tell());
        fresh.apply(Event::Reset(Source::AppWrappers(Served::McadV1Beta1), objects()));
        assert_eq!(counted(&mut fresh), (2, 11));
        let name = AppWrapperName { namespace: "a".into(), name: "a".into() };
        assert!(fresh.appwrapper(&name).is_some());
    }

    #[test]
    fn those_of_a_kind_that_is_served_again_count_once_however_many_they_are() {
        let served = Served::McadV1Beta1;
        let objects: Vec<_> = (0..=REMEMBERED).map(|at| appwrapper(&at.to_string(), &format!("uid-{at}"), 1)).collect();
        let all = objects.len() as u64;
        let mut cluster = Cluster::default();
        let list = Event::Reset(Source::AppWrappers(served), objects);
        for _ in 0..3 {
            cluster.serve([served]);
            cluster.apply(list.clone());
            assert_eq!(counted(&mut cluster), (all, i128::from(all)));
            // As an API server does that has not read its definitions yet.
            cluster.serve([]);
            assert_eq!((cluster.appwrappers().count(), counted(&mut cluster).0), (0, all));
        }
        // A replica that starts in between learns of them, too.
        let mut fresh = Cluster::default();
        fresh.learn(&cluster.tell());
        fresh.serve([served]);
        fresh.apply(list);
        assert_eq!(counted(&mut fresh), (all, i128::from(all)));
    }

    #[test]
    fn one_that_is_listed_again_after_its_end_counts_once() {
        let a = appwrapper("a", "1", 1);
        let mut cluster = cluster([a.clone()]);
        end(&mut cluster, a.clone());
        // An API server that lags behind the previous one may list an AppWrapper that was deleted.
        cluster.apply(Event::Apply(a));
        assert_eq!(counted(&mut cluster), (1, 1));
    }

    #[test]
    fn what_another_version_counts_otherwise_is_not_learnt() {
        let mut other = cluster([appwrapper("a", "1", 1)]);
        let mut received = other.tell();
        received.cpu.as_mut().unwrap().cumulative.pop();
        let mut fresh = cluster([]);
        fresh.learn(&received);
        assert_eq!(counted(&mut fresh), (0, 0));
    }

    #[test]
    fn those_that_are_gone_are_remembered_up_to_a_bound() {
        let mut counted = Counted::default();
        for uid in 0..=REMEMBERED {
            counted.went(Some(uid.to_string().into()));
        }
        assert_eq!((counted.gone.len(), &*counted.gone[0]), (REMEMBERED, "1"));
    }
}
