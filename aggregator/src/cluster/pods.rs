//! The pods of a cluster: found by name, and by the UID that their cgroups carry. Knows nothing of what they add up to.
use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::object::Pod;

/// See the module's documentation.
///
/// The tables hold addresses alone: they have room for up to twice as many pods as there are.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_name: HashSet<ByName>,
    by_uid: HashSet<ByUid>,
    /// Further bearers of a UID that is in `by_uid`; there are none but where an object is broken.
    rivals: BTreeMap<(Arc<str>, PodName), Arc<Pod>>,
}

/// Which pod: namespace and name.
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
        self.by_name.get(&(namespace, name) as &dyn Named).map(|found| &*found.0)
    }

    /// The pod whose cgroups carry this UID; of several, the first by name.
    pub(super) fn of_uid(&self, uid: &str) -> Option<&Pod> {
        self.by_uid.get(uid).map(|found| &*found.0)
    }

    /// Some UID has several bearers.
    pub(super) fn have_rivals(&self) -> bool {
        !self.rivals.is_empty()
    }

    /// Every pod whose cgroups carry this UID.
    pub(super) fn all_of_uid(&self, uid: &str) -> impl Iterator<Item = &Pod> {
        self.of_uid(uid).into_iter().chain(self.rivals_of(uid).map(|(_, pod)| &**pod))
    }

    fn rivals_of(&self, uid: &str) -> impl Iterator<Item = (&(Arc<str>, PodName), &Arc<Pod>)> {
        let nothing: Arc<str> = "".into();
        let from = (Arc::from(uid), PodName { namespace: nothing.clone(), name: nothing });
        self.rivals.range(from..).take_while(move |((rival, _), _)| **rival == *uid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.by_name.iter().map(|pod| &*pod.0)
    }

    /// Puts a pod in. It, and what was known under its name.
    pub(super) fn insert(&mut self, pod: Pod) -> (Arc<Pod>, Option<Arc<Pod>>) {
        let pod = Arc::new(pod);
        let before = self.by_name.replace(ByName(pod.clone())).map(|before| before.0);
        match &before {
            Some(before) if before.cgroup_uid == pod.cgroup_uid && self.rivals.is_empty() => {
                if !pod.cgroup_uid.is_empty() {
                    self.by_uid.replace(ByUid(pod.clone()));
                }
            }
            Some(before) => {
                self.forget_uid(before);
                self.learn_uid(pod.clone());
            }
            None => self.learn_uid(pod.clone()),
        }
        (pod, before)
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let ByName(pod) = self.by_name.take(&(namespace, name) as &dyn Named)?;
        self.forget_uid(&pod);
        Some(pod)
    }

    fn learn_uid(&mut self, pod: Arc<Pod>) {
        if pod.cgroup_uid.is_empty() {
            return;
        }
        let first = self.by_uid.get(&*pod.cgroup_uid).map(|first| PodName::of(&first.0));
        let later = match first {
            Some(first) if first < PodName::of(&pod) => Some(pod),
            _ => self.by_uid.replace(ByUid(pod)).map(|later| later.0),
        };
        if let Some(later) = later {
            self.rivals.insert((later.cgroup_uid.clone(), PodName::of(&later)), later);
        }
    }

    fn forget_uid(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.cgroup_uid;
        if !self.by_uid.get(&**uid).is_some_and(|first| Arc::ptr_eq(&first.0, pod)) {
            self.rivals.remove(&(uid.clone(), PodName::of(pod)));
            return;
        }
        self.by_uid.remove(&**uid);
        let next = self.rivals_of(uid).next().map(|(key, _)| key.clone());
        if let Some(next) = next.and_then(|next| self.rivals.remove(&next)) {
            self.by_uid.insert(ByUid(next));
        }
    }
}

/// A pod that is found by its namespace and name.
#[derive(Debug)]
struct ByName(Arc<Pod>);

/// A pod that is found by the UID that its cgroups carry.
#[derive(Debug)]
struct ByUid(Arc<Pod>);

/// What a pod is looked up by, borrowed or not: a look-up makes no copy of the names.
trait Named {
    fn parts(&self) -> (&str, &str);
}

impl Named for ByName {
    fn parts(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
    }
}

impl Named for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for ByName {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByName {}

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        &self.0.cgroup_uid
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.cgroup_uid.hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.cgroup_uid == other.0.cgroup_uid
    }
}

impl Eq for ByUid {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Kind, Object, decode};

    fn pod(name: &str, uid: &str) -> Pod {
        let json = serde_json::json!({"metadata": {"namespace": "n", "name": name, "uid": uid}});
        let Ok(Object::Pod(pod)) = decode(Kind::Pod, json) else { panic!("no pod") };
        pod
    }

    #[test]
    fn of_pods_with_one_uid_the_first_by_name_is_meant_whatever_came_first_or_went() {
        let mut pods = Pods::default();
        let check = |pods: &Pods, expected| assert_eq!(pods.of_uid("u").map(|pod| &*pod.name), expected);
        for name in ["b", "c", "a"] {
            pods.insert(pod(name, "u"));
        }
        check(&pods, Some("a"));
        pods.remove("n", "a");
        check(&pods, Some("b"));
        pods.insert(pod("b", "another"));
        check(&pods, Some("c"));
        pods.remove("n", "b");
        check(&pods, Some("c"));
        pods.remove("n", "c");
        check(&pods, None);
        pods.insert(pod("b", "u"));
        pods.insert(pod("a", "u"));
        pods.insert(pod("a", "u"));
        pods.insert(pod("b", "u"));
        check(&pods, Some("a"));
        pods.remove("n", "a");
        pods.remove("n", "b");
        assert!(pods.rivals.is_empty() && pods.by_uid.is_empty());
    }

    #[test]
    fn a_pod_is_found_by_its_names_and_leaves_no_trace() {
        let mut pods = Pods::default();
        pods.insert(pod("a", "u"));
        assert_eq!(pods.get("n", "a").map(|pod| &*pod.uid), Some("u"));
        assert_eq!(pods.get("a", "n"), None);
        assert_eq!(pods.insert(pod("a", "")).1.map(|pod| pod.uid.clone()), Some("u".into()));
        assert_eq!(pods.of_uid("u"), None);
        assert_eq!(pods.of_uid(""), None);
        assert!(pods.remove("n", "a").is_some());
        assert_eq!(pods.iter().count(), 0);
    }
}
