//! What the AppWrappers of one node gained by one report. Most pods of a node belong to a few AppWrappers, so each AppWrapper and its total
//! is looked up once.
use std::sync::Arc;

use super::Total;
use crate::cluster::Cluster;
use crate::object::{AppWrapper, AppWrapperName};

/// See the module's documentation.
pub(super) struct Gains<'a> {
    cluster: &'a Cluster,
    /// As many entries as the node's pods have AppWrappers, a few hundred at most.
    by_appwrapper: Vec<(&'a Arc<AppWrapper>, Total)>,
}

impl<'a> Gains<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, by_appwrapper: Vec::new() }
    }

    pub(super) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Whether there may be an AppWrapper of that name that the cluster does not have yet.
    pub(super) fn may_come(&mut self, name: &AppWrapperName) -> bool {
        self.of(name).is_none() && !self.cluster.knows_appwrappers()
    }

    /// The AppWrapper of that name, if the cluster has it, and what it gained so far.
    pub(super) fn of(&mut self, name: &AppWrapperName) -> Option<(&'a AppWrapper, &mut Total)> {
        let known = self.by_appwrapper.iter().rposition(|(appwrapper, _)| appwrapper.name == *name);
        if known.is_none() {
            self.by_appwrapper.push((self.cluster.appwrapper(name)?, Total::default()));
        }
        let at = known.unwrap_or(self.by_appwrapper.len() - 1);
        self.by_appwrapper.get_mut(at).map(|(appwrapper, gained)| (&***appwrapper, gained))
    }

    pub(super) fn all(self) -> impl Iterator<Item = (&'a AppWrapper, Total)> {
        self.by_appwrapper.into_iter().map(|(appwrapper, gained)| (&**appwrapper, gained))
    }
}
