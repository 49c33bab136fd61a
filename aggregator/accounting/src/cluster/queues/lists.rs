//! Whether Kueue's objects are known: either all of them, or nothing that follows from them.
use std::collections::BTreeSet;

use crate::cluster::{Cluster, Source};
use crate::object::Kind;

/// The kinds that every version of Kueue has. Cohorts came later.
const NEEDED: [Kind; 4] = [Kind::ClusterQueue, Kind::LocalQueue, Kind::ResourceFlavor, Kind::Workload];

impl Cluster {
    /// From now on, queues are not known until the API server has reported which kinds it serves.
    pub(in crate::cluster) fn watch_queues(&mut self) {
        self.queues.is_watched = true;
    }

    /// Sets the kinds of Kueue that the API server serves. Objects of other kinds are removed.
    pub fn serve_queues(&mut self, served: BTreeSet<Kind>) {
        let gone = Kind::QUEUES.into_iter().filter(|kind| !served.contains(kind));
        for source in gone.filter_map(Source::of_queues) {
            self.reset(source, Vec::new());
            self.known.remove(&source);
        }
        self.queues.served = Some(served);
    }

    /// Whether Kueue is there and all its objects are known. If one of them is left out because it exceeds a limit, they
    /// are not known: what it holds is missing from the sums.
    pub fn knows_queues(&self) -> bool {
        let knows = |kind: &Kind| Source::of_queues(*kind).is_some_and(|source| self.known.contains(&source));
        let all_known = match &self.queues.served {
            Some(served) => NEEDED.iter().all(|kind| served.contains(kind)) && served.iter().all(knows),
            None => !self.queues.is_watched && !self.queues.is_empty() && Kind::QUEUES.iter().all(knows),
        };
        all_known && !self.left_out().any(|left| Source::QUEUES.contains(&left.source))
    }

    /// Whether the API server serves Kueue's kinds. `None` if that is not known.
    pub fn serves_queues(&self) -> Option<bool> {
        let served = self.queues.served.as_ref()?;
        Some(NEEDED.iter().any(|kind| served.contains(kind)))
    }

    /// Whether any object of Kueue exists.
    pub(in crate::cluster) fn has_queue_objects(&self) -> bool {
        !self.queues.is_empty()
    }
}
