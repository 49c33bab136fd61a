//! The total use of each pod, including pods that ended since the last sample or were in no sample at all. Pure.
//!
//! While a pod lives, the totals of its own cgroup include all descendants, also ended containers, and nothing needs to
//! be added. When it has ended, its total is the value in the last sample plus what each of its cgroups used between
//! that sample and its removal, which the eBPF programs report. Every step errs on the low side, so a total is never
//! above the true value.
//!
//! Ended pods are kept for an hour, for an aggregator that was unavailable, and at most [`ENDED_AT_MOST`] of them.
//! Totals are kept in a file across restarts of the agent ([`kept`]).
pub mod kept;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::pod_cgroup::{self, PodCgroup, PodUid};
use crate::retention::KEPT_NS;
use crate::sample::{Cgroup, CgroupSample, EndedPod, Removals, Removed, RunQueue};

/// How many ended pods are kept; if there are more, those that ended first are dropped. kubelet's documentation advises
/// at most 250 pods per node, so this is enough for four generations of them within the hour.
pub const ENDED_AT_MOST: usize = 1024;

/// If cgroups did not fit into samples, a pod may only be missing in them. After this many samples without it, it
/// counts as ended nevertheless.
const MISSED_AT_MOST: u32 = 6;

/// The totals of all pods.
#[derive(Debug, Default)]
pub struct PodTotals {
    living: HashMap<PodUid, Living>,
    /// In the order in which they ended.
    ended: VecDeque<EndedPod>,
    /// The counter of dropped removals at the last sample.
    removals_dropped: u64,
}

/// A pod that is not known to have ended.
#[derive(Clone, Debug, Default)]
struct Living {
    /// The id of its own cgroup. `None` until a sample or a removal contains it.
    id: Option<u64>,
    /// CPU time in the last sample that contained it.
    cpu_ns: Option<u64>,
    oom_kills: Option<u64>,
    run_queue: Option<RunQueue>,
    /// The part of `run_queue` that an earlier agent measured.
    carried: RunQueue,
    /// When that sample was complete. `None` if there was none.
    seen_until_ns: Option<u64>,
    /// An upper bound of what each of its cgroups used in that sample, without its descendants.
    alone_ns: HashMap<u64, u64>,
    /// What removed cgroups used after that sample.
    since_ns: u64,
    /// What removed cgroups used in total.
    removed_ns: u64,
    /// The number of samples since then.
    missed: u32,
    /// Whether records of removals were dropped since then.
    is_cut: bool,
    /// Whether its own cgroup was removed.
    is_gone: bool,
}

impl PodTotals {
    /// Processes a sample taken at this instant. Adds to the pods' own cgroups what an earlier agent measured of them.
    pub fn take(&mut self, now_ns: u64, sample: &mut CgroupSample) {
        if let Some(removals) = &sample.removals {
            self.note(now_ns, removals);
        }
        let watched_until_ns = sample.removals.as_ref().map(|removals| removals.read_until_ns);
        // With files, no time is known before which everything is in the sample. What is reported later counts only for
        // cgroups that were seen.
        self.see(now_ns, watched_until_ns.unwrap_or(u64::MAX), &mut sample.cgroups);
        self.end(now_ns, watched_until_ns.is_some(), sample.dropped == 0);
        self.forget(now_ns);
    }

    /// Pods that ended within the hour, in the order in which they ended.
    pub fn ended(&self) -> impl ExactSizeIterator<Item = &EndedPod> {
        self.ended.iter()
    }

    /// Adds what was used by cgroups that were removed before the current sample.
    fn note(&mut self, now_ns: u64, removals: &Removals) {
        for removed in &removals.removed {
            let Some(place) = pod_cgroup::parse(&removed.path) else { continue };
            // The id of the pod's own cgroup, if the removed cgroup determines it.
            let own_id = match place {
                PodCgroup::Pod { .. } => Some(removed.id),
                PodCgroup::Container { .. } => Some(removed.parent_id),
                PodCgroup::InContainer { .. } | PodCgroup::Beside { .. } => None,
            };
            let pod = self.living.entry(place.uid().clone()).or_default();
            if pod.is_of_earlier(own_id) {
                continue;
            }
            // The pod's own cgroup is removed last, so any later record belongs to one that was created again.
            if pod.is_gone || pod.is_of_later(own_id) {
                let before = std::mem::take(pod);
                push(&mut self.ended, before.ended(now_ns, place.uid()));
            }
            if pod.id.is_none()
                && let Some(known) = own_id.and_then(|id| take_back(&mut self.ended, place.uid(), id))
            {
                *pod = known;
            }
            pod.id = pod.id.or(own_id);
            pod.is_gone = matches!(place, PodCgroup::Pod { .. });
            pod.note(removed);
        }
        if removals.dropped != self.removals_dropped {
            self.removals_dropped = removals.dropped;
            self.living.values_mut().for_each(|pod| pod.is_cut = true);
        }
    }

    fn see(&mut self, now_ns: u64, until_ns: u64, cgroups: &mut [Cgroup]) {
        for pod in self.living.values_mut() {
            pod.missed += 1;
        }
        for cgroup in cgroups {
            let Some(place) = pod_cgroup::parse(&cgroup.path) else { continue };
            if !matches!(place, PodCgroup::Pod { .. }) {
                // Parents come before their children, so if the pod was not seen until now, it has no cgroup of its
                // own.
                if let Some(pod) = self.living.get_mut(place.uid()).filter(|pod| pod.missed == 0) {
                    pod.see_below(cgroup);
                }
                continue;
            }
            let uid = place.uid().clone();
            let pod = match self.living.entry(uid.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(take_back(&mut self.ended, &uid, cgroup.id).unwrap_or_default()),
            };
            // A cgroup that was removed and created again during the walk is in the sample twice.
            if pod.is_of_earlier(Some(cgroup.id)) {
                continue;
            }
            if pod.is_of_later(Some(cgroup.id)) {
                let before = std::mem::take(pod);
                push(&mut self.ended, before.ended(now_ns, &uid));
            }
            pod.see(cgroup, until_ns);
        }
    }

    /// Ends the pods that are not in the sample, unless they may only be missing in it.
    fn end(&mut self, now_ns: u64, is_watched: bool, is_complete: bool) {
        let ended = &mut self.ended;
        self.living.retain(|uid, pod| {
            // If removals are reported, the removal of a pod that ended just before the walk is reported next time.
            let is_over = is_complete && (!is_watched || pod.missed > 1);
            if pod.missed > 0 && (pod.is_gone || is_over || pod.missed > MISSED_AT_MOST) {
                push(ended, std::mem::take(pod).ended(now_ns, uid));
                return false;
            }
            true
        });
    }

    fn forget(&mut self, now_ns: u64) {
        while self.ended.front().is_some_and(|first| now_ns.saturating_sub(first.ended_ns) > KEPT_NS) {
            self.ended.pop_front();
        }
    }
}

fn push(ended: &mut VecDeque<EndedPod>, pod: Option<EndedPod>) {
    ended.extend(pod);
    if ended.len() > ENDED_AT_MOST {
        ended.pop_front();
    }
}

/// Takes back a pod that counted as ended and is in a sample or a removal again.
fn take_back(ended: &mut VecDeque<EndedPod>, uid: &PodUid, id: u64) -> Option<Living> {
    let at = ended.iter().position(|pod| pod.id == id && pod.uid == *uid)?;
    let EndedPod { cpu_ns, oom_kills, run_queue, .. } = ended.remove(at)?;
    // What is reported of it before it is seen again may be in its total already.
    Some(Living { id: Some(id), cpu_ns, oom_kills, run_queue, seen_until_ns: Some(u64::MAX), ..Living::default() })
}

impl Living {
    /// Whether the pod's own cgroup with this id is older than the known one: ids only grow.
    fn is_of_earlier(&self, id: Option<u64>) -> bool {
        id.zip(self.id).is_some_and(|(id, known)| id < known)
    }

    /// Whether the pod's own cgroup was created again since.
    fn is_of_later(&self, id: Option<u64>) -> bool {
        id.zip(self.id).is_some_and(|(id, known)| id > known)
    }

    /// Processes the removal of one of its cgroups.
    fn note(&mut self, removed: &Removed) {
        let since_ns = match (self.alone_ns.remove(&removed.id), self.seen_until_ns) {
            (Some(seen_ns), _) => removed.cpu_ns.saturating_sub(seen_ns),
            // It was removed before the sample was taken, so the pod's own total includes it.
            (None, Some(until_ns)) if removed.at_ns <= until_ns => 0,
            (None, _) => removed.cpu_ns,
        };
        self.since_ns = self.since_ns.saturating_add(since_ns);
        self.removed_ns = self.removed_ns.saturating_add(removed.cpu_ns);
        // The pod's own cgroup counts all OOM kills of the pod, a descendant counts some of them.
        self.oom_kills = self.oom_kills.max(removed.oom_kills);
    }

    /// Processes its own cgroup in a sample.
    fn see(&mut self, cgroup: &mut Cgroup, until_ns: u64) {
        self.id = Some(cgroup.id);
        // Two ways to read a total may differ by rounding, so the total never decreases here.
        self.cpu_ns = self.cpu_ns.max(cgroup.cpu_ns);
        self.oom_kills = self.oom_kills.max(cgroup.oom_kills);
        if cgroup.cpu_ns.is_some() {
            cgroup.cpu_ns = self.cpu_ns;
        }
        if let Some(own) = &mut cgroup.run_queue {
            let before = self.run_queue.unwrap_or_default();
            own.wait_ns = own.wait_ns.saturating_add(self.carried.wait_ns).max(before.wait_ns);
            own.waits = own.waits.saturating_add(self.carried.waits).max(before.waits);
            self.run_queue = Some(*own);
        }
        self.seen_until_ns = Some(until_ns);
        self.alone_ns.clear();
        self.alone_ns.extend(cgroup.cpu_ns.map(|cpu_ns| (cgroup.id, cpu_ns)));
        (self.since_ns, self.missed, self.is_cut, self.is_gone) = (0, 0, false, false);
    }

    /// Processes a descendant of its own cgroup, in the same sample.
    fn see_below(&mut self, cgroup: &Cgroup) {
        let Some(cpu_ns) = cgroup.cpu_ns else { return };
        if let Some(parents_ns) = self.alone_ns.get_mut(&cgroup.parent_id) {
            *parents_ns = parents_ns.saturating_sub(cpu_ns);
        }
        self.alone_ns.insert(cgroup.id, cpu_ns);
    }

    /// The record to keep of it. `None` if its own cgroup was never known, because the record of its removal was
    /// dropped.
    fn ended(self, now_ns: u64, uid: &PodUid) -> Option<EndedPod> {
        let since_sample_ns = self.cpu_ns.map(|cpu_ns| cpu_ns.saturating_add(self.since_ns));
        // Both are at most the true value. The second is exact if the pod was created and removed while this agent ran.
        let removed_ns = (self.removed_ns > 0 || self.is_gone).then_some(self.removed_ns);
        Some(EndedPod {
            uid: uid.clone(),
            id: self.id?,
            cpu_ns: since_sample_ns.max(removed_ns),
            oom_kills: self.oom_kills,
            run_queue: self.run_queue,
            ended_ns: now_ns,
            watched: self.is_gone && !self.is_cut,
        })
    }
}
