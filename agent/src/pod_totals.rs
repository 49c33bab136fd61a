//! What pods used in all, those included that ended since the last sample or never were in one. Pure.
//!
//! While a pod lives, its own cgroup's totals hold all below it, ended containers too, and nothing is to be done. When it is gone,
//! what it had used is what the last sample saw, and what each of its cgroups used between that and its removal, which the kernel half
//! tells. Every step errs to the low side, so a total is never above the truth.
//!
//! Ended pods are kept for an hour, so that an aggregator that was away has them, and at most [`ENDED_AT_MOST`] of them. Totals outlive
//! the agent in a file ([`kept`]).
pub mod kept;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::pod_cgroup::{self, PodCgroup, PodUid};
use crate::sample::{Cgroup, CgroupSample, EndedPod, Removals, Removed, RunQueue};

/// Ended pods that are kept; beyond, those that ended first are dropped. A node runs 250 pods at most by kubelet's advice, so
/// these are four generations of them within the hour.
pub const ENDED_AT_MOST: usize = 1024;

/// How long an ended pod is kept.
const KEPT_NS: u64 = 3600 * 1_000_000_000;

/// Samples without a pod after which it is taken for ended, though cgroups found no room in them: it may be among those.
const MISSED_AT_MOST: u32 = 6;

/// The totals.
#[derive(Debug, Default)]
pub struct PodTotals {
    living: HashMap<PodUid, Living>,
    /// In order of their end.
    ended: VecDeque<EndedPod>,
    /// Removals that were dropped until the last sample.
    removals_dropped: u64,
}

/// A pod that has not been seen to be gone.
#[derive(Clone, Debug, Default)]
struct Living {
    /// Its own cgroup; None until a sample or its removal tells.
    id: Option<u64>,
    /// In the last sample that saw it.
    cpu_ns: Option<u64>,
    oom_kills: Option<u64>,
    run_queue: Option<RunQueue>,
    /// Of `run_queue`, what an earlier agent measured.
    carried: RunQueue,
    /// When that sample was complete; None if there was none.
    seen_until_ns: Option<u64>,
    /// What each of its cgroups had used in that sample without those below it, and at most.
    alone_ns: HashMap<u64, u64>,
    /// What removed cgroups used after it.
    since_ns: u64,
    /// What removed cgroups used in all.
    removed_ns: u64,
    /// Samples since.
    missed: u32,
    /// Removals were dropped since.
    is_cut: bool,
    /// Its own cgroup was removed.
    is_gone: bool,
}

impl PodTotals {
    /// Takes in a sample at this instant: pods' own cgroups get what an earlier agent measured of them, too.
    pub fn take(&mut self, now_ns: u64, sample: &mut CgroupSample) {
        if let Some(removals) = &sample.removals {
            self.note(now_ns, removals);
        }
        let watched_until_ns = sample.removals.as_ref().map(|removals| removals.read_until_ns);
        // By files no instant is known before which all is in the sample: what is told later counts only where it was seen.
        self.see(now_ns, watched_until_ns.unwrap_or(u64::MAX), &mut sample.cgroups);
        self.end(now_ns, watched_until_ns.is_some(), sample.dropped == 0);
        self.forget(now_ns);
    }

    /// Pods that ended within the hour, those that ended first at the front.
    pub fn ended(&self) -> impl ExactSizeIterator<Item = &EndedPod> {
        self.ended.iter()
    }

    /// Adds what was used by cgroups that were removed before the sample that is taken in now.
    fn note(&mut self, now_ns: u64, removals: &Removals) {
        for removed in &removals.removed {
            let Some(place) = pod_cgroup::parse(&removed.path) else { continue };
            // The pod's own cgroup, where the place tells it.
            let own_id = match place {
                PodCgroup::Pod { .. } => Some(removed.id),
                PodCgroup::Container { .. } => Some(removed.parent_id),
                PodCgroup::InContainer { .. } | PodCgroup::Beside { .. } => None,
            };
            let pod = self.living.entry(place.uid().clone()).or_default();
            if pod.is_of_earlier(own_id) {
                continue;
            }
            // Its own cgroup goes last; what comes after is of one that was made anew.
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
                // Its parents come before it, so a pod that has not been seen by now has no cgroup of its own.
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
            // One that was removed and made again during the walk is there twice.
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

    /// Pods that are not in the sample have ended, unless they may only be missing in it.
    fn end(&mut self, now_ns: u64, is_watched: bool, is_complete: bool) {
        let ended = &mut self.ended;
        self.living.retain(|uid, pod| {
            // Where removals are told, that of a pod which went just before the walk is told next time.
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

/// A pod that was taken for ended and is there again, or is told of again.
fn take_back(ended: &mut VecDeque<EndedPod>, uid: &PodUid, id: u64) -> Option<Living> {
    let at = ended.iter().position(|pod| pod.id == id && pod.uid == *uid)?;
    let EndedPod { cpu_ns, oom_kills, run_queue, .. } = ended.remove(at)?;
    // What is told of it before it is seen again may be in its total already.
    Some(Living { id: Some(id), cpu_ns, oom_kills, run_queue, seen_until_ns: Some(u64::MAX), ..Living::default() })
}

impl Living {
    /// The pod had this own cgroup before the one that is known: ids grow.
    fn is_of_earlier(&self, id: Option<u64>) -> bool {
        id.zip(self.id).is_some_and(|(id, known)| id < known)
    }

    /// Its own cgroup was made anew since.
    fn is_of_later(&self, id: Option<u64>) -> bool {
        id.zip(self.id).is_some_and(|(id, known)| id > known)
    }

    /// One of its cgroups was removed.
    fn note(&mut self, removed: &Removed) {
        let since_ns = match (self.alone_ns.remove(&removed.id), self.seen_until_ns) {
            (Some(seen_ns), _) => removed.cpu_ns.saturating_sub(seen_ns),
            // It was gone when the sample was taken, and what it used is in the pod's own total.
            (None, Some(until_ns)) if removed.at_ns <= until_ns => 0,
            (None, _) => removed.cpu_ns,
        };
        self.since_ns = self.since_ns.saturating_add(since_ns);
        self.removed_ns = self.removed_ns.saturating_add(removed.cpu_ns);
        // Of the pod's own cgroup these are all, of one below it some of them.
        self.oom_kills = self.oom_kills.max(removed.oom_kills);
    }

    /// Its own cgroup, in a sample.
    fn see(&mut self, cgroup: &mut Cgroup, until_ns: u64) {
        self.id = Some(cgroup.id);
        // Two ways to read a total may differ by a rounding: where it seems to fall, it stands still.
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

    /// A cgroup below it, in the same sample.
    fn see_below(&mut self, cgroup: &Cgroup) {
        let Some(cpu_ns) = cgroup.cpu_ns else { return };
        if let Some(parents_ns) = self.alone_ns.get_mut(&cgroup.parent_id) {
            *parents_ns = parents_ns.saturating_sub(cpu_ns);
        }
        self.alone_ns.insert(cgroup.id, cpu_ns);
    }

    /// What is kept of it; nothing where its own cgroup was never known, because its removal was dropped.
    fn ended(self, now_ns: u64, uid: &PodUid) -> Option<EndedPod> {
        let since_sample_ns = self.cpu_ns.map(|cpu_ns| cpu_ns.saturating_add(self.since_ns));
        // Both are at most the truth; the latter is all of it where the pod was made and removed under this agent's eyes.
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
