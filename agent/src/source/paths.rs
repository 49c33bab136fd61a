//! The paths of the cgroups in a walk. Each path is composed only once in a cgroup's life. This module reads nothing;
//! names come from the walk.
//!
//! The kernel lists siblings in the order in which they were created, so two walks differ only by cgroups that were
//! created or removed. Therefore the paths of the previous walk are traversed in step with the new one: while nothing
//! changes, a path costs one comparison.

use std::{collections::HashMap, sync::Arc};

/// The paths of the latest walk.
#[derive(Debug, Default)]
pub struct Paths {
    /// Paths of the previous walk, in its order.
    before: Vec<Known>,
    /// Paths of the current walk.
    now: Vec<Known>,
    /// The index in `before` of the next path, if nothing changed.
    next: usize,
    /// Index in `before` by id; filled when the two walks are first found to differ.
    places: HashMap<u64, usize>,
    /// Indices in `now` from the root down to the latest cgroup: the possible parents of the next one.
    ancestors: Vec<usize>,
}

#[derive(Debug)]
struct Known {
    id: u64,
    path: Arc<str>,
}

impl Paths {
    /// Begins a new walk.
    pub fn begin(&mut self) {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.clear();
        self.next = 0;
        self.places.clear();
        self.ancestors.clear();
    }

    /// How many cgroups the latest walk had.
    pub fn count(&self) -> usize {
        self.now.len()
    }

    /// The path of the next cgroup of the walk, parents before children. The first is the root, whatever its name.
    /// `None` if its name or its parent is not known.
    pub fn path(&mut self, id: u64, parent_id: u64, name: impl FnOnce() -> Option<String>) -> Option<Arc<str>> {
        let parent = self.ancestors.iter().rposition(|place| self.now[*place].id == parent_id);
        if let Some(depth) = parent {
            self.ancestors.truncate(depth + 1);
        }
        let path = match self.known(id) {
            Some(known) => known,
            None if self.now.is_empty() => Arc::from("/"),
            None => self.compose(parent?, &name()?)?,
        };
        self.ancestors.push(self.now.len());
        self.now.push(Known { id, path: Arc::clone(&path) });
        Some(path)
    }

    fn known(&mut self, id: u64) -> Option<Arc<str>> {
        let place = match self.before.get(self.next) {
            Some(known) if known.id == id => self.next,
            _ => self.place(id)?,
        };
        self.next = place + 1;
        Some(Arc::clone(&self.before[place].path))
    }

    fn place(&mut self, id: u64) -> Option<usize> {
        if self.places.is_empty() {
            self.places.extend(self.before.iter().enumerate().map(|(place, known)| (known.id, place)));
        }
        self.places.get(&id).copied()
    }

    fn compose(&self, depth: usize, name: &str) -> Option<Arc<str>> {
        let parent = &self.now[*self.ancestors.get(depth)?].path;
        let separator = if parent.ends_with('/') { "" } else { "/" };
        Some(Arc::from(format!("{parent}{separator}{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over (id, parent, name) and returns the paths; a path that had to be composed has a `*`.
    fn walk(paths: &mut Paths, cgroups: &[(u64, u64, Option<&str>)]) -> String {
        paths.begin();
        let shown = cgroups.iter().map(|(id, parent_id, name)| {
            let mut composed = "";
            let path = paths.path(*id, *parent_id, || {
                composed = "*";
                name.map(str::to_owned)
            });
            format!("{composed}{}", path.as_deref().unwrap_or("?"))
        });
        let shown: Vec<_> = shown.collect();
        shown.join(" ")
    }

    const ROOT: (u64, u64, Option<&str>) = (1, 99, Some("docker-1234.scope"));
    const PODS: (u64, u64, Option<&str>) = (2, 1, Some("kubepods"));
    const POD: (u64, u64, Option<&str>) = (3, 2, Some("pod"));
    const OTHER: (u64, u64, Option<&str>) = (9, 1, Some("system"));

    #[test]
    fn a_path_is_the_parents_and_the_name_and_the_first_is_the_root_whatever_the_kernel_calls_it() {
        let mut paths = Paths::default();
        assert_eq!(walk(&mut paths, &[ROOT, PODS, POD, OTHER]), "/ */kubepods */kubepods/pod */system");
        assert_eq!(paths.count(), 4);
    }

    #[test]
    fn a_name_is_asked_for_once_in_a_cgroups_life() {
        let mut paths = Paths::default();
        walk(&mut paths, &[ROOT, PODS, POD, OTHER]);
        let again = "/ /kubepods /kubepods/pod /system";
        assert_eq!(walk(&mut paths, &[ROOT, PODS, POD, OTHER]), again);
        assert_eq!(walk(&mut paths, &[ROOT, PODS, POD, OTHER]), again);
    }

    #[test]
    fn those_that_came_and_went_leave_the_others_their_paths() {
        let mut paths = Paths::default();
        walk(&mut paths, &[ROOT, PODS, POD, OTHER]);
        let new = (4, 2, Some("new"));
        assert_eq!(walk(&mut paths, &[ROOT, PODS, new, OTHER]), "/ /kubepods */kubepods/new /system");
        let inner = (5, 4, Some("inner"));
        assert_eq!(
            walk(&mut paths, &[ROOT, PODS, new, inner, OTHER]),
            "/ /kubepods /kubepods/new */kubepods/new/inner /system"
        );
        assert_eq!(walk(&mut paths, &[ROOT, OTHER, PODS, inner]), "/ /system /kubepods /kubepods/new/inner");
        assert_eq!(walk(&mut paths, &[ROOT]), "/");
        // A path that was missing in one walk is forgotten.
        assert_eq!(walk(&mut paths, &[ROOT, PODS]), "/ */kubepods");
    }

    #[test]
    fn without_a_name_or_a_parent_there_is_no_path_and_the_rest_keeps_its_own() {
        let mut paths = Paths::default();
        let unnamed = (4, 1, None);
        let orphan = (5, 4, Some("orphan"));
        assert_eq!(walk(&mut paths, &[ROOT, unnamed, orphan, PODS, POD]), "/ *? ? */kubepods */kubepods/pod");
    }
}
