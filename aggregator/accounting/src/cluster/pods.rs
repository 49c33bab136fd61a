//! Stores the pods of a cluster, indexed by name and by the UID in the names of their cgroups. Does not compute sums.
mod slab;

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::mem::replace;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

pub use self::slab::Place;
use self::slab::Slab;
use crate::object::Pod;
use crate::table::Secret;

/// See the module's documentation.
///
/// The tables hold only places, four bytes each, because a table reserves space for up to twice as many pods as there
/// are. A pod keeps its place while it changes, so an update costs one look-up and does not copy the rest of the pod.
#[derive(Debug, Default)]
pub(super) struct Pods {
    kept: Slab,
    by_name: HashTable<Place>,
    by_uid: HashTable<Place>,
    /// Further pods with a UID that is in `by_uid`. Empty unless objects are broken.
    rivals: Rivals,
    hasher: Secret,
}

type Rivals = BTreeMap<(Arc<str>, PodName), Place>;

/// Identifies a pod: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PodName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl PodName {
    pub(super) fn of(pod: &Pod) -> Self {
        Self { namespace: pod.namespace.clone(), name: pod.name.clone() }
    }
}

impl Pods {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.find(namespace, name).map(|(_, pod)| pod)
    }

    /// The pod with that name, and its place, which is valid until the pod is removed.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<(Place, &Pod)> {
        let is_it = |pod: &Pod| *pod.name == *name && *pod.namespace == *namespace;
        let hash = self.hasher.hash_one((namespace, name));
        let place = *self.by_name.find(hash, |place| self.kept.get(*place).is_some_and(is_it))?;
        Some((place, self.kept.get(place)?))
    }

    /// The same, tried at `place` first: if the pod is there, no table is searched.
    pub(super) fn find_at(&self, namespace: &str, name: &str, place: Place) -> Option<(Place, &Pod)> {
        let there = self.kept.get(place).filter(|pod| *pod.name == *name && *pod.namespace == *namespace);
        there.map(|pod| (place, pod)).or_else(|| self.find(namespace, name))
    }

    /// The pod whose cgroups carry this UID, and its place. If there are several, the first by name.
    pub(super) fn of_uid(&self, uid: &str) -> Option<(Place, &Pod)> {
        let bears = |place: &Place| self.kept.get(*place).is_some_and(|pod| *pod.cgroup_uid == *uid);
        let place = *self.by_uid.find(self.hasher.hash_one(uid), bears)?;
        Some((place, self.kept.get(place)?))
    }

    /// The same, tried at `place` first: if the pod is there, no table is searched.
    pub(super) fn of_uid_at(&self, uid: &str, place: Place) -> Option<(Place, &Pod)> {
        let there = self.kept.get(place).filter(|pod| *pod.cgroup_uid == *uid && !self.have_rivals());
        there.map(|pod| (place, pod)).or_else(|| self.of_uid(uid))
    }

    /// Whether several pods share a UID.
    pub(super) fn have_rivals(&self) -> bool {
        !self.rivals.is_empty()
    }

    /// Every pod whose cgroups carry this UID.
    pub(super) fn all_of_uid(&self, uid: &str) -> impl Iterator<Item = &Pod> {
        let rivals = rivals_of(&self.rivals, uid).filter_map(|(_, place)| self.kept.get(*place));
        self.of_uid(uid).map(|(_, pod)| pod).into_iter().chain(rivals)
    }

    /// The pod at that place.
    pub(super) fn at(&self, place: Place) -> Option<&Pod> {
        self.kept.get(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.kept.iter()
    }

    /// Updates the progress of the pod at that place to that of `pod`; afterwards `pod` holds the earlier progress.
    pub(super) fn advance(&mut self, place: Place, pod: &mut Pod) -> Option<&Pod> {
        let known = self.kept.get_mut(place)?;
        known.trade_progress(pod);
        Some(known)
    }

    /// Adds a pod whose name is not known yet, and returns its place.
    pub(super) fn insert(&mut self, pod: Pod) -> Place {
        let by_name = |pod: &Pod| self.hasher.hash_one((&*pod.namespace, &*pod.name));
        let hash = by_name(&pod);
        let place = self.kept.put(pod);
        self.by_name.insert_unique(hash, place, |place| self.kept.get(*place).map_or(0, by_name));
        self.learn_uid(place);
        place
    }

    /// Replaces the pod of the same name, and returns the earlier one.
    pub(super) fn replace(&mut self, place: Place, pod: Pod) -> Option<Pod> {
        let stays = self.kept.get(place)?.cgroup_uid == pod.cgroup_uid;
        if !stays {
            self.forget_uid(place);
        }
        let before = replace(self.kept.get_mut(place)?, pod);
        if !stays {
            self.learn_uid(place);
        }
        Some(before)
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Pod> {
        self.forget_uid(place);
        let pod = self.kept.take(place)?;
        let hash = self.hasher.hash_one((&*pod.namespace, &*pod.name));
        if let Ok(found) = self.by_name.find_entry(hash, |known| *known == place) {
            found.remove();
        }
        Some(pod)
    }

    fn learn_uid(&mut self, place: Place) {
        let Some(pod) = self.kept.get(place).filter(|pod| !pod.cgroup_uid.is_empty()) else { return };
        let uid = |place: &Place| self.kept.get(*place).map(|pod| &*pod.cgroup_uid);
        let by_uid = |place: &Place| uid(place).map_or(0, |uid| self.hasher.hash_one(uid));
        match self.by_uid.entry(by_uid(&place), |known| uid(known) == uid(&place), by_uid) {
            Entry::Vacant(free) => drop(free.insert(place)),
            Entry::Occupied(mut first) => {
                let is_later = self.kept.get(*first.get()).is_some_and(|first| PodName::of(first) < PodName::of(pod));
                let later = if is_later { place } else { replace(first.get_mut(), place) };
                if let Some(pod) = self.kept.get(later) {
                    self.rivals.insert((pod.cgroup_uid.clone(), PodName::of(pod)), later);
                }
            }
        }
    }

    fn forget_uid(&mut self, place: Place) {
        let Some(pod) = self.kept.get(place) else { return };
        let uid = &pod.cgroup_uid;
        let Ok(mut first) = self.by_uid.find_entry(self.hasher.hash_one(&**uid), |known| *known == place) else {
            self.rivals.remove(&(uid.clone(), PodName::of(pod)));
            return;
        };
        let next = rivals_of(&self.rivals, uid).next().map(|(key, _)| key.clone());
        match next.and_then(|next| self.rivals.remove(&next)) {
            Some(next) => *first.get_mut() = next,
            None => drop(first.remove()),
        }
    }
}

fn rivals_of<'a>(rivals: &'a Rivals, uid: &str) -> impl Iterator<Item = (&'a (Arc<str>, PodName), &'a Place)> {
    // Usually there are none. In that case no key is allocated for the search.
    let from = (!rivals.is_empty()).then(|| {
        let nothing: Arc<str> = "".into();
        (Arc::from(uid), PodName { namespace: nothing.clone(), name: nothing })
    });
    let later = from.into_iter().flat_map(|from| rivals.range(from..));
    later.take_while(move |((rival, _), _)| **rival == *uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Kind, Object, decode};

    fn pod(name: &str, uid: &str) -> Pod {
        let json = serde_json::json!({"metadata": {"namespace": "n", "name": name, "uid": uid}});
        let Ok(Object::Pod(pod)) = decode(Kind::Pod, json) else { panic!("no pod") };
        pod
    }

    /// Adds or replaces a pod, as the cluster does, and returns the earlier pod of that name.
    fn put(pods: &mut Pods, pod: Pod) -> Option<Pod> {
        let known = pods.find(&pod.namespace, &pod.name).map(|(place, _)| place);
        if let Some(place) = known {
            return pods.replace(place, pod);
        }
        pods.insert(pod);
        None
    }

    fn remove(pods: &mut Pods, name: &str) -> Option<Pod> {
        let place = pods.find("n", name).map(|(place, _)| place);
        place.and_then(|place| pods.remove(place))
    }

    #[test]
    fn of_pods_with_one_uid_the_first_by_name_is_meant_whatever_came_first_or_went() {
        let mut pods = Pods::default();
        let check = |pods: &Pods, expected| assert_eq!(pods.of_uid("u").map(|(_, pod)| &*pod.name), expected);
        for name in ["b", "c", "a"] {
            put(&mut pods, pod(name, "u"));
        }
        check(&pods, Some("a"));
        remove(&mut pods, "a");
        check(&pods, Some("b"));
        put(&mut pods, pod("b", "another"));
        check(&pods, Some("c"));
        remove(&mut pods, "b");
        check(&pods, Some("c"));
        remove(&mut pods, "c");
        check(&pods, None);
        put(&mut pods, pod("b", "u"));
        put(&mut pods, pod("a", "u"));
        put(&mut pods, pod("a", "u"));
        put(&mut pods, pod("b", "u"));
        check(&pods, Some("a"));
        remove(&mut pods, "a");
        remove(&mut pods, "b");
        assert!(pods.rivals.is_empty() && pods.by_uid.is_empty());
    }

    #[test]
    fn pods_that_come_where_others_went_need_no_more_room_and_all_are_found() {
        let names: Vec<_> = (0..1_000).map(|at| format!("p{at}")).collect();
        let mut pods = Pods::default();
        for round in 0..3 {
            for name in &names {
                put(&mut pods, pod(name, &format!("{name}-{round}")));
            }
            for name in names.iter().step_by(2) {
                assert!(remove(&mut pods, name).is_some());
            }
            for (at, name) in names.iter().enumerate() {
                let expected = (at % 2 == 1).then_some(name.as_str());
                let found = |pod: &Pod| (*pod.name).to_owned();
                assert_eq!(pods.get("n", name).map(found).as_deref(), expected);
                assert_eq!(pods.of_uid(&format!("{name}-{round}")).map(|(_, pod)| found(pod)).as_deref(), expected);
            }
            assert_eq!((pods.iter().count(), pods.by_name.len(), pods.by_uid.len()), (500, 500, 500));
        }
        assert_eq!(pods.kept.room(), 1_024, "four pieces");
    }

    #[test]
    fn where_a_pod_was_is_no_more_than_a_hint() {
        let mut pods = Pods::default();
        let check = |pods: &Pods, place, uid, expected: Option<&str>| {
            assert_eq!(pods.of_uid_at(uid, place).map(|(_, pod)| &*pod.name), expected, "{uid}");
            assert_eq!(pods.of_uid_at(uid, place), pods.of_uid(uid));
            for name in ["a", "b", "c", "d"] {
                assert_eq!(pods.find_at("n", name, place), pods.find("n", name), "{name}");
            }
        };
        put(&mut pods, pod("b", "u"));
        put(&mut pods, pod("c", "v"));
        let (place, _) = pods.of_uid("u").unwrap();
        check(&pods, place, "u", Some("b"));
        check(&pods, place, "v", Some("c"));
        check(&pods, place, "w", None);
        // A pod with the same UID whose name comes first.
        put(&mut pods, pod("a", "u"));
        check(&pods, place, "u", Some("a"));
        remove(&mut pods, "a");
        remove(&mut pods, "b");
        check(&pods, place, "u", None);
        // Another pod is now at that place.
        put(&mut pods, pod("d", "w"));
        assert_eq!(pods.of_uid("w").unwrap().0, place);
        check(&pods, place, "u", None);
        check(&pods, place, "w", Some("d"));
    }

    #[test]
    fn a_pod_is_found_by_its_names_and_leaves_no_trace() {
        let mut pods = Pods::default();
        put(&mut pods, pod("a", "u"));
        assert_eq!(pods.get("n", "a").map(|pod| &*pod.uid), Some("u"));
        assert_eq!(pods.get("a", "n"), None);
        assert_eq!(put(&mut pods, pod("a", "")).map(|pod| pod.uid.clone()), Some("u".into()));
        assert_eq!(pods.of_uid("u"), None);
        assert_eq!(pods.of_uid(""), None);
        assert!(remove(&mut pods, "a").is_some());
        assert_eq!(pods.iter().count(), 0);
    }
}
