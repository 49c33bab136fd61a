//! Pods of an AppWrapper whose true use is known, and everything that can go wrong between them and the totals.
use mcad_wire::report::{Cgroups, GpuUse};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// This many seconds pass; whether the report arrives, and what could be read for it.
    Tick {
        seconds: u64,
        /// At each of two replicas.
        arrives: [bool; 2],
        cgroups: bool,
        devices: bool,
    },
    AgentRestarts,
    Reboots,
    /// The replica restarts, and takes over the other's totals immediately, or not.
    AggregatorRestarts {
        replica: usize,
        learns: bool,
    },
    /// The replica takes over the other's totals while both run.
    Learns {
        replica: usize,
    },
    NodeFlaps,
    /// A pod ends, and another replaces it, with the same name or a new one.
    PodEnds {
        pod: usize,
        same_name: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let often = || proptest::bool::weighted(0.8);
    let tick = (1..40_u64, [often(), often()], often(), often())
        .prop_map(|(seconds, arrives, cgroups, devices)| Step::Tick { seconds, arrives, cgroups, devices });
    let restarts =
        (0..2_usize, any::<bool>()).prop_map(|(replica, learns)| Step::AggregatorRestarts { replica, learns });
    let learns = (0..2_usize).prop_map(|replica| Step::Learns { replica });
    let ends = (0..3_usize, any::<bool>()).prop_map(|(pod, same_name)| Step::PodEnds { pod, same_name });
    let step = prop_oneof![
        12 => tick, 1 => Just(Step::AgentRestarts), 1 => Just(Step::Reboots), 1 => restarts, 1 => learns,
        1 => Just(Step::NodeFlaps), 3 => ends,
    ];
    proptest::collection::vec(step, 0..60)
}

/// A pod that always keeps one core and the GPU with its number busy.
struct Simulated {
    name: String,
    life: u64,
    cgroup: u64,
    cgroup_s: u64,
    held_s: u64,
    /// How long its agent has split its time. `None` if the agent did not see it yet.
    split_s: Option<u64>,
}

impl Simulated {
    fn json(&self) -> Value {
        let mut json = pod(&self.name);
        json["metadata"]["uid"] = format!("uid-{}", self.life).into();
        json
    }
}

/// Sends what one replica knows to the other over the wire.
fn learn(worlds: &mut [World; 2], replica: usize) -> Result<(), Differ> {
    let transfer = StateTransfer::decode(&*worlds[1 - replica].tell().encode_to_vec()).unwrap();
    worlds[replica].learn(&transfer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_lost_or_started_anew_totals_never_fall_and_are_never_above_the_truth(steps in steps()) {
        let mut lives = 0..;
        let mut begin = |name: String| {
            let life = lives.next().unwrap();
            Simulated { name, life, cgroup: life, cgroup_s: 0, held_s: 0, split_s: None }
        };
        let mut pods: Vec<_> = (0..3).map(|at| begin(format!("p{at}"))).collect();
        let objects = [node("n"), appwrapper("1"), pods[0].json(), pods[1].json(), pods[2].json()];
        let mut worlds = [World::new(&objects), World::new(&objects)];
        let (mut boots, mut agents, mut uptime_s, mut agent_s) = (0, 1, 100_u64, 0_u64);
        let (mut truth_s, mut names) = (0, 3);
        let mut before = [Total::default(), Total::default()];
        for step in steps {
            match step {
                Step::Tick { seconds, arrives, cgroups, devices } => {
                    for world in &mut worlds {
                        world.now = Now { since_start: world.now.since_start + Duration::from_secs(seconds), ..world.now };
                    }
                    uptime_s += seconds;
                    agent_s += seconds;
                    truth_s += 3 * seconds;
                    for pod in &mut pods {
                        pod.cgroup_s += seconds;
                        pod.held_s += seconds;
                        pod.split_s = Some(pod.split_s.map_or(0, |split_s| split_s + seconds));
                    }
                    let of_cgroup = |pod: &Simulated| Cgroup {
                        id: pod.cgroup,
                        pod_uid: format!("uid-{}", pod.life),
                        cpu_ns: Some(pod.cgroup_s * S),
                        ..Cgroup::default()
                    };
                    let held: Vec<_> = pods.iter().enumerate().map(|(at, pod)| (pod.name.clone(), [format!("GPU-{at}")], pod.held_s)).collect();
                    let ids: Vec<_> = held.iter().map(|(_, [id], _)| [id.as_str()]).collect();
                    let held: Vec<_> = held.iter().zip(&ids).map(|((name, _, s), ids)| (name.as_str(), &ids[..], s * S)).collect();
                    let busy: Vec<_> = ids.iter().map(|[id]| (*id, agent_s * S)).collect();
                    let mut report = of_gpus(report(agents, uptime_s), &held, &busy);
                    report.boot_id = format!("boot-{boots}");
                    report.cgroups = cgroups.then(|| Cgroups { cgroups: pods.iter().map(of_cgroup).collect(), ..Cgroups::default() });
                    report.assignments = report.assignments.filter(|_| devices);
                    // Every other agent is of a version that splits the time of devices.
                    for (gpu, pod) in report.gpus.iter_mut().flat_map(|gpus| &mut gpus.devices).zip(&pods).filter(|_| agents % 2 == 0) {
                        let split_ns = pod.split_s.unwrap_or(0) * S;
                        gpu.uses = vec![GpuUse { pod_uid: format!("uid-{}", pod.life), parts: vec![split_ns / 2, 0, 0, split_ns / 2], ..GpuUse::default() }];
                        gpu.vacant = vec![agent_s * S / 3, 0, 0, 0, 0, 0, 0, 0, 0, agent_s * S / 2];
                    }
                    for (world, _) in worlds.iter_mut().zip(arrives).filter(|(_, arrives)| *arrives) {
                        world.take(&report);
                    }
                }
                Step::AgentRestarts => {
                    agents += 1;
                    agent_s = 0;
                    for pod in &mut pods {
                        (pod.held_s, pod.split_s) = (0, None);
                    }
                }
                Step::Reboots => {
                    boots += 1;
                    agents += 1;
                    (uptime_s, agent_s) = (0, 0);
                    for pod in &mut pods {
                        (pod.cgroup_s, pod.held_s, pod.split_s) = (0, 0, None);
                    }
                }
                Step::AggregatorRestarts { replica, learns } => {
                    (worlds[replica].totals, worlds[replica].nodes) = (Totals::default(), Nodes::default());
                    before[replica] = Total::default();
                    if learns {
                        learn(&mut worlds, replica).unwrap();
                        // Everything that the other replica has.
                        before[replica] = worlds[1 - replica].total();
                    }
                }
                Step::Learns { replica } => {
                    let other = worlds[1 - replica].total();
                    if learn(&mut worlds, replica).is_ok() {
                        let Total { cpu_ns, gpu_held_ns, gpu_busy_ns, .. } = worlds[replica].total();
                        prop_assert!(cpu_ns >= other.cpu_ns && gpu_held_ns >= other.gpu_held_ns);
                        // Busy time is that of the replica with more held time, which may have seen less of it.
                        before[replica].gpu_busy_ns = gpu_busy_ns;
                    }
                }
                Step::NodeFlaps => {
                    for world in &mut worlds {
                        world.gone(&node("n"));
                        world.tidy();
                        world.there(&node("n"));
                    }
                }
                Step::PodEnds { pod, same_name } => {
                    for world in &mut worlds {
                        world.gone(&pods[pod].json());
                    }
                    names += 1;
                    let name = if same_name { pods[pod].name.clone() } else { format!("p{names}") };
                    // The agent identifies a pod by its name alone.
                    let held_s = if same_name { pods[pod].held_s } else { 0 };
                    pods[pod] = Simulated { held_s, ..begin(name) };
                    for world in &mut worlds {
                        world.there(&pods[pod].json());
                    }
                }
            }
            for (world, before) in worlds.iter().zip(&mut before) {
                let total = world.total();
                for (total, before) in [
                    (total.cpu_ns, before.cpu_ns), (total.gpu_held_ns, before.gpu_held_ns), (total.gpu_busy_ns, before.gpu_busy_ns),
                ] {
                    prop_assert!(total >= before, "{total:?} after {before:?}");
                    prop_assert!(total <= Some(truth_s * S), "{total:?} of {truth_s} s");
                }
                let held_ns = total.gpu_held_ns.unwrap_or(0);
                let idle_ns = total.gpu_idle_ns.as_ref().map_or(0, |idle| idle.idle_sum());
                prop_assert_eq!(total.gpu_busy_ns.unwrap_or(0) + idle_ns, held_ns);
                let in_cluster = world.totals.held_ns().copied().unwrap_or_default();
                prop_assert_eq!((in_cluster.appwrapper.sum(), in_cluster.other.sum()), (held_ns, 0));
                *before = total;
            }
        }
    }
}
