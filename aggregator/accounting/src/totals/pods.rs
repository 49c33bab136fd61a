//! The cgroups of a node's pods, as they were last seen. Owns what of a cgroup is counted: nothing twice, even if the cgroup was created
//! again.
use std::sync::Arc;

use mcad_wire::reading::{Cgroup, EndedPod};

use super::gains::Gains;
use super::life::Life;
use super::possible::{Counter, Doubt, Possible};
use super::row::Row;
use super::since::{of_kernel, of_probe};
use super::{Now, add, kept};
use crate::cluster::Cluster;
use crate::object::{AppWrapper, AppWrapperName, Pod};

/// The pod cgroups of one node.
#[derive(Debug, Default)]
pub(super) struct NodePods(Row<PodCgroup>);

/// What was last seen of the cgroup of an AppWrapper's pod.
#[derive(Debug)]
pub(super) struct PodCgroup {
    /// The pod UID of its cgroups.
    pub(super) uid: Arc<str>,
    pub(super) owner: AppWrapperName,
    /// The UID of its AppWrapper.
    pub(super) owner_uid: Arc<str>,
    gone: Option<Now>,
    /// Boot and id of the cgroup to which the counters belong.
    pub(super) cgroup: Option<(Arc<str>, u64)>,
    pub(super) cpu_ns: u64,
    pub(super) oom_kills: u64,
    pub(super) run_queue_wait_ns: u64,
    /// When it was last reported, in ns since boot; 0 if it was not.
    seen_ns: u64,
    /// Doubts about the three counters; nearly always there are none.
    doubts: Option<Box<[Option<Doubt>; 3]>>,
}

impl PodCgroup {
    /// The values up to which its three counters have been counted: CPU time, OOM kills, run-queue wait.
    pub(super) fn counted_up_to(&self) -> [u64; 3] {
        let plain = [self.cpu_ns, self.oom_kills, self.run_queue_wait_ns];
        let Some(doubts) = &self.doubts else { return plain };
        let mut counted = plain;
        for (total, doubt) in counted.iter_mut().zip(doubts.iter()) {
            *total = doubt.as_ref().map_or(*total, Doubt::total);
        }
        counted
    }
}

/// The counters in a report of a pod's own cgroup, whether the cgroup exists or is gone.
pub(super) struct Counted {
    id: u64,
    cpu_ns: Option<u64>,
    oom_kills: Option<u64>,
    run_queue_wait_ns: Option<u64>,
}

impl Counted {
    pub(super) fn of_cgroup(cgroup: &Cgroup<'_>) -> Self {
        let Cgroup { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *cgroup;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }

    pub(super) fn of_ended(pod: &EndedPod<'_>) -> Self {
        let EndedPod { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *pod;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }
}

impl NodePods {
    pub(super) fn all(&self) -> &[PodCgroup] {
        self.0.all()
    }

    pub(super) fn get(&self, uid: &str) -> Option<&PodCgroup> {
        self.0.get(|known| (*known.uid).cmp(uid))
    }

    /// Takes a report's counters of a pod. `there` is the pod with that UID, on whichever node it is, if the cluster has it.
    pub(super) fn take(
        &mut self,
        (gains, possible): (&mut Gains<'_>, &mut Possible),
        node: &Arc<str>,
        (uid, there): (&str, Option<&Pod>),
        counted: &Counted,
        life: &Life,
    ) {
        let owner = match there {
            Some(pod) if pod.node.as_ref() == Some(node) => pod.owner.as_ref(),
            Some(_) => None,
            None => self.get(uid).map(|gone| &gone.owner),
        };
        let Some((appwrapper, gained)) = owner.and_then(|owner| gains.of(owner)) else { return };
        // The pod's own text is used, which is near in memory when it is compared again.
        let gone = there.is_none().then(|| uid.into());
        let Some(uid) = there.map(|pod| &pod.cgroup_uid).or(gone.as_ref()) else { return };
        let known = self.get_or_new(uid, &appwrapper.name, &appwrapper.uid);
        if there.is_some() {
            known.set_owner(appwrapper);
        } else if known.owner_uid != appwrapper.uid {
            return;
        }
        if !known.switch_to(life.boot(), counted.id) {
            return;
        }
        let [mut cpu, mut oom, mut wait] = known.doubts.take().map_or([None; 3], |doubts| *doubts);
        let seen_ns = known.seen_ns;
        let cpu_ns = counted
            .cpu_ns
            .map(|total| possible.grown(Counter::Cpu, of_kernel, (&mut known.cpu_ns, seen_ns), &mut cpu, total));
        let oom_kills = counted.oom_kills.map(|total| {
            possible.grown(Counter::OomKills, of_kernel, (&mut known.oom_kills, seen_ns), &mut oom, total)
        });
        let wait_ns = counted.run_queue_wait_ns.map(|total| {
            possible.grown(Counter::RunQueueWait, of_probe, (&mut known.run_queue_wait_ns, seen_ns), &mut wait, total)
        });
        known.seen_ns = possible.now_ns();
        if cpu.is_some() || oom.is_some() || wait.is_some() {
            known.doubts = Some(Box::new([cpu, oom, wait]));
        }
        add(&mut gained.cpu_ns, cpu_ns);
        add(&mut gained.oom_kills, oom_kills);
        add(&mut gained.run_queue_wait_ns, wait_ns);
    }

    /// Notes that a pod is gone; its agent may still report what it used.
    pub(super) fn gone(&mut self, uid: &Arc<str>, appwrapper: &AppWrapper, now: Now) {
        self.get_or_new(uid, &appwrapper.name, &appwrapper.uid).gone.get_or_insert(now);
    }

    /// Drops pods that the node no longer has, after an hour.
    pub(super) fn tidy(&mut self, cluster: &Cluster, node: &str, now: Now) {
        self.0.retain(|known| {
            let there = cluster.pod_of_uid(&known.uid).is_some_and(|pod| pod.node.as_deref() == Some(node));
            kept(&mut known.gone, there, now)
        });
    }

    /// What is known of a pod; if nothing is, a new entry that belongs to this AppWrapper.
    pub(super) fn get_or_new(
        &mut self,
        uid: &Arc<str>,
        owner: &AppWrapperName,
        owner_uid: &Arc<str>,
    ) -> &mut PodCgroup {
        let (is, order) = (|known: &PodCgroup| known.uid == *uid, |known: &PodCgroup| known.uid.cmp(uid));
        self.0.get_or_put(is, order, |_| PodCgroup::new(uid.clone(), owner, owner_uid))
    }
}

impl PodCgroup {
    fn new(uid: Arc<str>, owner: &AppWrapperName, owner_uid: &Arc<str>) -> Self {
        Self {
            uid,
            owner: owner.clone(),
            owner_uid: owner_uid.clone(),
            gone: None,
            cgroup: None,
            cpu_ns: 0,
            oom_kills: 0,
            run_queue_wait_ns: 0,
            seen_ns: 0,
            doubts: None,
        }
    }

    /// Sets the AppWrapper that the pod belongs to by the cluster's objects. The cluster has the pod.
    fn set_owner(&mut self, appwrapper: &AppWrapper) {
        if self.owner != appwrapper.name {
            self.owner = appwrapper.name.clone();
        }
        if self.owner_uid != appwrapper.uid {
            self.owner_uid = appwrapper.uid.clone();
        }
        self.gone = None;
    }

    /// Makes this cgroup the current one. A cgroup that is created again, for example after a reboot, counts from 0. Returns false for an
    /// earlier cgroup of the pod, which is known by its smaller id because ids grow: everything in it has been added already.
    fn switch_to(&mut self, boot: &Arc<str>, id: u64) -> bool {
        match &self.cgroup {
            Some((known_boot, known_id)) if known_boot == boot && id < *known_id => return false,
            Some((known_boot, known_id)) if known_boot == boot && id == *known_id => {}
            known => {
                // A cgroup that was created again in the same boot is younger than what was last seen of its predecessor.
                if known.as_ref().is_none_or(|(known_boot, _)| known_boot != boot) {
                    self.seen_ns = 0;
                }
                self.doubts = None;
                self.cgroup = Some((boot.clone(), id));
                (self.cpu_ns, self.oom_kills, self.run_queue_wait_ns) = (0, 0, 0);
            }
        }
        true
    }
}
