//! Tests of the single rules; the last one checks what must always hold.
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::sample::CgroupSource;

const S: u64 = 1_000_000_000;

fn uid(pod: u64) -> PodUid {
    PodUid::known(&format!("{pod:08x}-5d8e-4a3f-9c1d-7e6f5a4b3c2d")).unwrap()
}

fn pod_path(pod: u64) -> String {
    format!("/kubepods/pod{}", uid(pod))
}

fn container_path(pod: u64, container: u64) -> String {
    format!("{}/{container:064x}", pod_path(pod))
}

fn cgroup(id: u64, parent_id: u64, path: &str, cpu_ns: u64) -> Cgroup {
    Cgroup { id, parent_id, path: Arc::from(path), cpu_ns: Some(cpu_ns), ..Cgroup::default() }
}

fn removed(at_ns: u64, id: u64, path: &str, cpu_ns: u64) -> Removed {
    of_parent(10, removed_of_none(at_ns, id, path, cpu_ns))
}

fn removed_of_none(at_ns: u64, id: u64, path: &str, cpu_ns: u64) -> Removed {
    Removed { at_ns, id, parent_id: 0, path: path.to_owned(), cpu_ns, oom_kills: None }
}

fn of_parent(parent_id: u64, removed: Removed) -> Removed {
    Removed { parent_id, ..removed }
}

fn sample(cgroups: Vec<Cgroup>, removals: Option<Removals>) -> CgroupSample {
    let seen = cgroups.len() as u32;
    CgroupSample {
        source: CgroupSource::Bpf,
        cgroups,
        from_files: Vec::new(),
        seen,
        probes: None,
        dropped: 0,
        removals,
    }
}

/// A sample that was complete at this instant, after these cgroups were removed.
fn watched(until_ns: u64, cgroups: Vec<Cgroup>, removed: Vec<Removed>) -> CgroupSample {
    sample(cgroups, Some(Removals { removed, read_until_ns: until_ns, ..Removals::default() }))
}

/// A pod with one container; their ids are 10 and 11.
fn pod(total_ns: u64, container_ns: u64) -> Vec<Cgroup> {
    vec![cgroup(10, 1, &pod_path(1), total_ns), cgroup(11, 10, &container_path(1, 1), container_ns)]
}

fn ended(totals: &PodTotals) -> Vec<(u64, Option<u64>, bool)> {
    totals.ended().map(|pod| (pod.id, pod.cpu_ns, pod.watched)).collect()
}

#[test]
fn a_pod_that_was_in_no_sample_has_what_its_cgroups_used() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, vec![], vec![]));
    let gone = vec![
        removed(11, 11, &container_path(1, 1), 5),
        removed(12, 12, &container_path(1, 2), 7),
        removed(13, 10, &pod_path(1), 0),
    ];
    totals.take(20, &mut watched(20, vec![], gone));
    assert_eq!(ended(&totals), [(10, Some(12), true)]);
    totals.take(30, &mut watched(30, vec![], vec![]));
    assert_eq!(ended(&totals), [(10, Some(12), true)]);
}

#[test]
fn a_pod_that_was_seen_has_what_it_used_since_on_top() {
    let mut totals = PodTotals::default();
    // 100 of an earlier container, 40 of the living one.
    totals.take(10, &mut watched(10, pod(140, 40), vec![]));
    let gone = vec![
        removed(11, 11, &container_path(1, 1), 45),
        removed(12, 12, &container_path(1, 2), 3),
        removed(13, 10, &pod_path(1), 0),
    ];
    totals.take(20, &mut watched(20, vec![], gone));
    assert_eq!(ended(&totals), [(10, Some(148), true)]);
}

#[test]
fn what_was_removed_before_the_sample_is_in_the_pods_total_and_not_added_again() {
    let mut totals = PodTotals::default();
    // Removed at 9, included in the pod's total of the sample at 10, reported only for the next sample.
    totals.take(10, &mut watched(10, vec![cgroup(10, 1, &pod_path(1), 50)], vec![]));
    let gone = vec![removed(9, 11, &container_path(1, 1), 50), removed(13, 10, &pod_path(1), 0)];
    totals.take(20, &mut watched(20, vec![], gone));
    assert_eq!(ended(&totals), [(10, Some(50), true)]);
}

#[test]
fn a_removal_that_is_told_after_the_pod_was_missed_once_still_counts() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, pod(40, 40), vec![]));
    totals.take(20, &mut watched(20, vec![], vec![]));
    assert_eq!(ended(&totals), []);
    let gone = vec![removed(19, 11, &container_path(1, 1), 45), removed(19, 10, &pod_path(1), 0)];
    totals.take(30, &mut watched(30, vec![], gone));
    assert_eq!(ended(&totals), [(10, Some(45), true)]);
}

#[test]
fn where_nobody_watched_the_last_sample_stands_and_says_so() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut sample(pod(40, 40), None));
    totals.take(20, &mut sample(vec![], None));
    assert_eq!(ended(&totals), [(10, Some(40), false)]);
    // Removals that were dropped are as good as unknown.
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, pod(40, 40), vec![]));
    let removals = Removals { dropped: 1, read_until_ns: 20, ..Removals::default() };
    let removals = Removals { removed: vec![removed(13, 10, &pod_path(1), 0)], ..removals };
    totals.take(20, &mut sample(vec![], Some(removals)));
    assert_eq!(ended(&totals), [(10, Some(40), false)]);
}

#[test]
fn a_pod_whose_own_removal_was_dropped_ends_two_samples_later() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, pod(40, 40), vec![]));
    totals.take(20, &mut watched(20, vec![], vec![removed(13, 11, &container_path(1, 1), 44)]));
    totals.take(30, &mut watched(30, vec![], vec![]));
    assert_eq!(ended(&totals), [(10, Some(44), false)]);
    // A cgroup that was in no sample has an id that identifies no pod.
    let nested = format!("{}/init.scope", container_path(2, 1));
    totals.take(40, &mut watched(40, vec![], vec![removed(33, 21, &nested, 44)]));
    totals.take(50, &mut watched(50, vec![], vec![]));
    assert_eq!(ended(&totals).len(), 1);
    assert!(totals.living.is_empty());
}

#[test]
fn a_pod_that_found_no_room_in_the_sample_has_not_ended() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, pod(40, 40), vec![]));
    for at in 0..MISSED_AT_MOST {
        totals.take(20 + u64::from(at), &mut CgroupSample { dropped: 1, ..watched(20, vec![], vec![]) });
        assert_eq!(ended(&totals), []);
    }
    // At some time it counts as ended. If it has not ended, that is taken back.
    totals.take(90, &mut CgroupSample { dropped: 1, ..watched(90, vec![], vec![]) });
    assert_eq!(ended(&totals), [(10, Some(40), false)]);
    totals.take(100, &mut watched(100, pod(60, 60), vec![]));
    assert_eq!(ended(&totals), []);
}

#[test]
fn a_pod_whose_cgroup_was_made_anew_is_told_of_once_for_each() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, pod(40, 40), vec![]));
    // A static pod whose kubelet restarted: three cgroups within one interval.
    let gone = vec![
        removed(11, 10, &pod_path(1), 0),
        of_parent(15, removed(12, 16, &container_path(1, 1), 5)),
        removed(13, 15, &pod_path(1), 0),
    ];
    let mut third = watched(20, vec![cgroup(20, 1, &pod_path(1), 2)], gone);
    totals.take(20, &mut third);
    assert_eq!(third.cgroups[0].cpu_ns, Some(2));
    assert_eq!(ended(&totals), [(10, Some(40), true), (15, Some(5), true)]);
}

#[test]
fn kills_for_want_of_memory_are_those_of_the_pods_own_cgroup() {
    let mut totals = PodTotals::default();
    totals.take(10, &mut watched(10, vec![], vec![]));
    let kills = |oom_kills, removed| Removed { oom_kills: Some(oom_kills), ..removed };
    let gone = vec![
        kills(1, removed(11, 11, &container_path(1, 1), 5)),
        kills(1, removed(12, 12, &container_path(1, 2), 5)),
        kills(2, removed(13, 10, &pod_path(1), 0)),
    ];
    totals.take(20, &mut watched(20, vec![], gone));
    assert_eq!(totals.ended().next().unwrap().oom_kills, Some(2));
}

#[test]
fn ended_pods_are_kept_for_an_hour_and_the_oldest_go_first() {
    let mut totals = PodTotals::default();
    let end = |totals: &mut PodTotals, at_ns: u64, pod: u64| {
        totals.take(at_ns, &mut watched(at_ns, vec![], vec![removed(at_ns, 100 + pod, &pod_path(pod), 1)]));
    };
    for pod in 0..2000 {
        end(&mut totals, S + pod, pod);
    }
    assert_eq!(totals.ended().len(), ENDED_AT_MOST);
    assert_eq!(totals.ended().next().unwrap().uid, uid(2000 - ENDED_AT_MOST as u64));
    totals.take(3601 * S + 1999, &mut watched(0, vec![], vec![]));
    assert_eq!(totals.ended().len(), 1);
    totals.take(3602 * S, &mut watched(0, vec![], vec![]));
    assert_eq!(totals.ended().len(), 0);
}

#[test]
fn a_total_that_seems_to_fall_stands_still_and_waits_go_on_from_an_earlier_agents() {
    let run_queue = |wait_ns| Some(RunQueue { wait_ns, waits: 1 });
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept::KeptPods::new(directory.path(), "boot");
    let mut totals = kept.recall();
    let mut first = watched(10, pod(40, 40), vec![]);
    first.cgroups[0].run_queue = run_queue(70);
    totals.take(10, &mut first);
    kept.keep(&totals);

    let mut totals = kept.recall();
    let mut second = watched(20, pod(39, 39), vec![]);
    second.cgroups[0].run_queue = run_queue(5);
    totals.take(20, &mut second);
    assert_eq!(second.cgroups[0].cpu_ns, Some(40));
    assert_eq!(second.cgroups[0].run_queue, Some(RunQueue { wait_ns: 75, waits: 2 }));
    // The same pod with a newly created cgroup starts from zero.
    let mut third = watched(30, vec![cgroup(12, 1, &pod_path(1), 1)], vec![removed(25, 10, &pod_path(1), 0)]);
    third.cgroups[0].run_queue = run_queue(3);
    totals.take(30, &mut third);
    assert_eq!((third.cgroups[0].cpu_ns, third.cgroups[0].run_queue), (Some(1), run_queue(3)));
}

/// What happens between samples.
#[derive(Clone, Debug)]
enum Step {
    /// A container of this pod uses CPU.
    Run {
        pod: usize,
        container: usize,
        ns: u64,
    },
    /// A container of this pod is removed.
    Remove {
        pod: usize,
        container: usize,
    },
    /// All its containers and the pod itself are removed; the next pod has another UID, or the same.
    End {
        pod: usize,
        same_uid: bool,
    },
    /// The record of a removal is lost.
    Lose,
    Sample {
        watched: bool,
        late: bool,
    },
    AgentRestarts,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (pod, container) = (|| 0..3_usize, || 0..3_usize);
    let step = prop_oneof![
        6 => (pod(), container(), 1..100_u64).prop_map(|(pod, container, ns)| Step::Run { pod, container, ns }),
        3 => (pod(), container()).prop_map(|(pod, container)| Step::Remove { pod, container }),
        1 => (pod(), any::<bool>()).prop_map(|(pod, same_uid)| Step::End { pod, same_uid }),
        1 => Just(Step::Lose),
        4 => (proptest::bool::weighted(0.9), any::<bool>()).prop_map(|(watched, late)| Step::Sample { watched, late }),
        1 => Just(Step::AgentRestarts),
    ];
    proptest::collection::vec(step, 0..120)
}

/// A pod as the kernel sees it.
struct Truth {
    number: u64,
    id: u64,
    containers: [Option<(u64, u64)>; 3],
    total_ns: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_a_pods_total_never_falls_and_is_never_above_the_truth(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept::KeptPods::new(directory.path(), "boot");
        let mut totals = PodTotals::default();
        let (mut ids, mut now_ns) = (1000.., 0);
        let mut next = || ids.next().unwrap();
        let mut pods: Vec<Truth> = (0..3).map(|number| Truth { number, id: next(), containers: [None; 3], total_ns: 0 }).collect();
        let mut numbers = 3..;
        let mut told: Vec<Removed> = Vec::new();
        let mut dropped = 0;
        // Keyed by the id of the pod's own cgroup.
        let (mut truth, mut shown): (HashMap<u64, u64>, HashMap<u64, u64>) = Default::default();
        for step in steps {
            now_ns += 1;
            match step {
                Step::Run { pod, container, ns } => {
                    let pod = &mut pods[pod];
                    let (_, used_ns) = pod.containers[container].get_or_insert_with(|| (next(), 0));
                    *used_ns += ns;
                    pod.total_ns += ns;
                    truth.insert(pod.id, pod.total_ns);
                }
                Step::Remove { pod, container } => {
                    let pod = &mut pods[pod];
                    if let Some((id, used_ns)) = pod.containers[container].take() {
                        told.push(of_parent(pod.id, removed(now_ns, id, &container_path(pod.number, id), used_ns)));
                    }
                }
                Step::End { pod, same_uid } => {
                    let pod = &mut pods[pod];
                    for (id, used_ns) in std::mem::take(&mut pod.containers).into_iter().flatten() {
                        told.push(of_parent(pod.id, removed(now_ns, id, &container_path(pod.number, id), used_ns)));
                    }
                    told.push(removed(now_ns, pod.id, &pod_path(pod.number), 0));
                    let number = if same_uid { pod.number } else { numbers.next().unwrap() };
                    *pod = Truth { number, id: next(), containers: [None; 3], total_ns: 0 };
                }
                Step::Lose => dropped += u64::from(told.pop().is_some()),
                Step::Sample { watched, late } => {
                    let mut cgroups = Vec::new();
                    for pod in &pods {
                        cgroups.push(cgroup(pod.id, 1, &pod_path(pod.number), pod.total_ns));
                        let containers = pod.containers.iter().flatten();
                        cgroups.extend(containers.map(|(id, used_ns)| cgroup(*id, pod.id, &container_path(pod.number, *id), *used_ns)));
                    }
                    // Some removals may be reported only with the next sample.
                    let tells = match (watched, late) {
                        (false, _) => 0,
                        (true, true) => told.len() / 2,
                        (true, false) => told.len(),
                    };
                    let removed = told.drain(..tells).collect();
                    let removals = watched.then(|| Removals { removed, read_until_ns: now_ns, dropped, ..Removals::default() });
                    let mut sample = sample(cgroups, removals);
                    totals.take(now_ns, &mut sample);
                    kept.keep(&totals);
                    let own = sample.cgroups.iter().filter(|cgroup| pods.iter().any(|pod| pod.id == cgroup.id)).map(|cgroup| (cgroup.id, cgroup.cpu_ns));
                    for (id, cpu_ns) in own.chain(totals.ended().map(|pod| (pod.id, pod.cpu_ns))) {
                        let (cpu_ns, before_ns) = (cpu_ns.unwrap_or(0), shown.get(&id).copied().unwrap_or(0));
                        prop_assert!(cpu_ns >= before_ns, "{id}: {cpu_ns} after {before_ns}");
                        let truth_ns = truth.get(&id).copied().unwrap_or(0);
                        prop_assert!(cpu_ns <= truth_ns, "{id}: {cpu_ns} of {truth_ns}");
                        shown.insert(id, cpu_ns);
                    }
                }
                Step::AgentRestarts => {
                    totals = kept.recall();
                    // The new agent has a ring of its own.
                    told.clear();
                    dropped = 0;
                }
            }
        }
    }
}
