//! The pods of a cluster: found by name, and by the UID that their cgroups carry. Knows nothing of what they add up to.
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::object::Pod;

/// See the module's documentation.
///
/// A pod is in a box of its own: a table has room for up to twice as many as it holds, and would have it for whole pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_name: HashMap<PodName, Box<Pod>>,
    by_uid: HashMap<Arc<str>, PodName>,
    /// Further bearers of a UID that is in `by_uid`; there are none but where an object is broken.
    rivals: BTreeSet<(Arc<str>, PodName)>,
}

/// Which pod: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Pods {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.by_name.get(&(namespace, name) as &dyn Named).map(|pod| &**pod)
    }

    /// The pod whose cgroups carry this UID; of several, the first by name.
    pub(super) fn of_uid(&self, uid: &str) -> Option<&Pod> {
        self.by_name.get(self.by_uid.get(uid)?).map(|pod| &**pod)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &PodName> {
        self.by_name.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.by_name.values().map(|pod| &**pod)
    }

    /// Puts a pod in; what was known under its name comes out.
    pub(super) fn insert(&mut self, pod: Pod) -> Option<Pod> {
        let name = PodName { namespace: pod.namespace.clone(), name: pod.name.clone() };
        let uid = pod.cgroup_uid.clone();
        let before = match self.by_name.entry(name.clone()) {
            Entry::Occupied(mut known) => Some(std::mem::replace(&mut **known.get_mut(), pod)),
            Entry::Vacant(new) => {
                new.insert(Box::new(pod));
                None
            }
        };
        if before.as_ref().is_none_or(|before| before.cgroup_uid != uid) {
            if let Some(before) = &before {
                self.forget_uid(&before.cgroup_uid, &name);
            }
            self.learn_uid(uid, name);
        }
        before
    }

    pub(super) fn remove(&mut self, name: &PodName) -> Option<Pod> {
        let pod = *self.by_name.remove(name)?;
        self.forget_uid(&pod.cgroup_uid, name);
        Some(pod)
    }

    fn learn_uid(&mut self, uid: Arc<str>, name: PodName) {
        if uid.is_empty() {
            return;
        }
        match self.by_uid.entry(uid) {
            Entry::Occupied(mut first) => {
                let uid = first.key().clone();
                let later = if name < *first.get() { first.insert(name) } else { name };
                self.rivals.insert((uid, later));
            }
            Entry::Vacant(new) => {
                new.insert(name);
            }
        }
    }

    fn forget_uid(&mut self, uid: &Arc<str>, name: &PodName) {
        if self.by_uid.get(uid) != Some(name) {
            self.rivals.remove(&(uid.clone(), name.clone()));
            return;
        }
        self.by_uid.remove(uid);
        let nothing: Arc<str> = "".into();
        let from = (uid.clone(), PodName { namespace: nothing.clone(), name: nothing });
        if let Some(next) = self.rivals.range(from..).next().filter(|(rival, _)| rival == uid).cloned() {
            self.rivals.remove(&next);
            self.by_uid.insert(next.0, next.1);
        }
    }
}

/// What a pod is looked up by, borrowed or not: a look-up makes no copy of the names.
trait Named {
    fn parts(&self) -> (&str, &str);
}

impl Named for PodName {
    fn parts(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for PodName {
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

impl Hash for PodName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
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

    fn name(name: &str) -> PodName {
        PodName { namespace: "n".into(), name: name.into() }
    }

    #[test]
    fn of_pods_with_one_uid_the_first_by_name_is_meant_whatever_came_first_or_went() {
        let mut pods = Pods::default();
        let check = |pods: &Pods, expected| assert_eq!(pods.of_uid("u").map(|pod| &*pod.name), expected);
        for name in ["b", "c", "a"] {
            pods.insert(pod(name, "u"));
        }
        check(&pods, Some("a"));
        pods.remove(&name("a"));
        check(&pods, Some("b"));
        pods.insert(pod("b", "another"));
        check(&pods, Some("c"));
        pods.remove(&name("b"));
        check(&pods, Some("c"));
        pods.remove(&name("c"));
        check(&pods, None);
        assert!(pods.rivals.is_empty() && pods.by_uid.is_empty());
    }

    #[test]
    fn a_pod_is_found_by_its_names_and_leaves_no_trace() {
        let mut pods = Pods::default();
        pods.insert(pod("a", "u"));
        assert_eq!(pods.get("n", "a").map(|pod| &*pod.uid), Some("u"));
        assert_eq!(pods.get("a", "n"), None);
        assert_eq!(pods.insert(pod("a", "")).map(|pod| pod.uid), Some("u".into()));
        assert_eq!(pods.of_uid("u"), None);
        assert_eq!(pods.of_uid(""), None);
        assert!(pods.remove(&name("a")).is_some());
        assert_eq!(pods.iter().count(), 0);
    }
}
