//! Many agents in one process: their real senders, over real sockets, with reports that a test knows the totals of.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcad_agent::self_metrics::SelfMetrics;
use mcad_agent::sender::{Backoff, Sender, Target};
use mcad_agent::ticker::{Outgoing, turn};
use mcad_wire::report::{Cgroup, Cgroups, EndedPod, REPORT_VERSION, Report};
use prost::Message as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::support::wait::until;

/// So many reports' time is one second of CPU: exact in seconds and in nanoseconds.
const STEP_NS: u64 = 125_000_000;

/// How agents run.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Between two reports.
    pub(crate) interval: Duration,
    /// For an answer.
    pub(crate) deadline: Duration,
}

/// All agents of a cluster.
pub(crate) struct Agents {
    shared: Arc<Shared>,
    crowd: Vec<Agent>,
    tasks: JoinSet<()>,
    ticks: watch::Sender<bool>,
}

struct Shared {
    /// Where the aggregator's name leads now; None: names can't be looked up.
    name: Mutex<Option<SocketAddr>>,
    /// From now on each agent's second pod has ended.
    ended: AtomicBool,
}

struct Agent {
    metrics: Arc<SelfMetrics>,
    /// What its pods have used in all, as its latest report says.
    cpu_ns: Arc<AtomicU64>,
    _slot: watch::Sender<Option<Outgoing>>,
}

/// The node of an agent.
pub(crate) fn node(number: usize) -> String {
    format!("gpu-{number}")
}

/// The pods of a node, by UID: one that lives throughout and one that ends.
pub(crate) fn pods(number: usize) -> [String; 2] {
    [format!("uid-lives-{number}"), format!("uid-ends-{number}")]
}

impl Agents {
    /// So many, each at its node's turn, that report to a port of loopback.
    pub(crate) fn start(count: usize, target: &Target, port: u16, pace: Pace) -> Self {
        allow_many_files();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared { name: Mutex::new(Some(at)), ended: false.into() });
        let (mut tasks, (ticks, running)) = (JoinSet::new(), watch::channel(true));
        let agent = |number| {
            let (slot, reports) = watch::channel(None);
            let metrics = Arc::new(SelfMetrics::new().unwrap());
            let names = Arc::clone(&shared);
            let look_up = move |_, _| {
                let known = *names.name.lock().unwrap();
                async move { Ok(vec![known.ok_or_else(|| io::Error::other("no such name"))?]) }
            };
            let (backoff, turn) = (Backoff::of_interval(pace.interval), turn(&node(number)));
            let sender = Sender::new(target.clone(), look_up, pace.deadline, backoff, turn, Arc::clone(&metrics));
            tasks.spawn(sender.run(reports));
            let cpu_ns = Arc::new(AtomicU64::new(0));
            let ticker =
                Ticker { number, shared: Arc::clone(&shared), cpu_ns: Arc::clone(&cpu_ns), slot: slot.clone() };
            tasks.spawn(ticker.run(pace.interval, turn, running.clone()));
            Agent { metrics, cpu_ns, _slot: slot }
        };
        let agents = (0..count).map(agent).collect();
        Self { shared, crowd: agents, tasks, ticks }
    }

    /// From now on names can't be looked up.
    pub(crate) fn lose_names(&self) {
        *self.shared.name.lock().unwrap() = None;
    }

    /// From now on each agent's second pod is gone: only the agent knows what it used.
    pub(crate) fn end_pods(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }

    /// What their pods have used in all, as their latest reports say.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.crowd.iter().map(|agent| agent.cpu_ns.load(Ordering::SeqCst)).sum()
    }

    /// Waits until each agent has counted so many more of this than `before`.
    pub(crate) async fn until_each(&self, what: &str, before: &Counted, more: u64) {
        // What holds of one goes on to hold: each is looked at until it does.
        let done = AtomicU64::new(0);
        let holds = || {
            let at = done.load(Ordering::Relaxed) as usize;
            let held = self.crowd[at..].iter().zip(&before.0[at..]);
            let held = held.take_while(|(agent, before)| agent.count(what) >= *before + more).count();
            done.fetch_add(held as u64, Ordering::Relaxed);
            at + held == self.crowd.len()
        };
        until(&format!("{more} more {what} of each agent"), holds).await;
    }

    /// Nothing was counted before they started.
    pub(crate) fn since_start(&self) -> Counted {
        Counted(vec![0; self.crowd.len()])
    }

    /// How many of these each agent has counted.
    pub(crate) fn counted(&self, what: &str) -> Counted {
        Counted(self.crowd.iter().map(|agent| agent.count(what)).collect())
    }

    /// Makes no more reports; the latest ones are still on their way.
    pub(crate) fn stop_ticks(&self) {
        self.ticks.send_replace(false);
    }

    /// Ends all of them.
    pub(crate) async fn end(self) {
        self.stop_ticks();
        drop(self.crowd);
        self.tasks.join_all().await;
    }
}

/// What each agent has counted.
pub(crate) struct Counted(Vec<u64>);

impl Agent {
    /// The sum of a family over its labels.
    fn count(&self, family: &str) -> u64 {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        let samples = text.lines().filter(|line| line.starts_with(family));
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }
}

/// Makes an agent's reports.
struct Ticker {
    number: usize,
    shared: Arc<Shared>,
    cpu_ns: Arc<AtomicU64>,
    slot: watch::Sender<Option<Outgoing>>,
}

impl Ticker {
    async fn run(self, interval: Duration, turn: f64, mut running: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval.mul_f64(turn), interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut used_ns = [0; 2];
        for sequence in 1.. {
            tokio::select! {
                biased;
                _ = running.wait_for(|running| !running) => return,
                _ = ticks.tick() => {}
            }
            let ended = self.shared.ended.load(Ordering::SeqCst);
            used_ns[0] += STEP_NS;
            used_ns[1] += if ended { 0 } else { 2 * STEP_NS };
            // Before anybody else could know it.
            self.cpu_ns.store(used_ns.iter().sum(), Ordering::SeqCst);
            let bytes = report(self.number, sequence, interval, used_ns, ended).encode_to_vec().into();
            self.slot.send_replace(Some(Outgoing { sequence, bytes }));
        }
    }
}

fn report(number: usize, sequence: u64, interval: Duration, used_ns: [u64; 2], ended: bool) -> Report {
    let [lives, ends] = pods(number);
    let pod = |id, uid: &str, cpu_ns| Cgroup {
        id,
        path: format!("/kubepods.slice/kubepods-pod{uid}.slice"),
        pod_uid: uid.to_owned(),
        cpu_ns: Some(cpu_ns),
        ..Cgroup::default()
    };
    let container = |id: u64| Cgroup { container_id: format!("{id:064x}"), ..pod(id, &lives, 0) };
    let mut cgroups = vec![pod(1, &lives, used_ns[0])];
    // Two KB of them, so that a body is told from a head on the wire.
    cgroups.extend((10..26).map(container));
    let gone = EndedPod { uid: ends.clone(), id: 2, cpu_ns: Some(used_ns[1]), ..EndedPod::default() };
    if !ended {
        cgroups.push(pod(2, &ends, used_ns[1]));
    }
    let ended_pods = if ended { vec![gone] } else { Vec::new() };
    Report {
        version: REPORT_VERSION,
        node: node(number),
        boot_id: "boot".to_owned(),
        started_at_ms: 1,
        sequence,
        uptime_ns: sequence * interval.as_nanos() as u64,
        interval_ms: interval.as_millis() as u64,
        cgroups: Some(Cgroups { source: "bpf".to_owned(), cgroups, ended_pods, ..Cgroups::default() }),
        ..Report::default()
    }
}

/// A connection of each agent has three ends in this process.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// What of an exposition begins with a family's name, by the value of one label.
pub(crate) fn by_label(exposition: &str, family: &str, label: &str) -> BTreeMap<String, f64> {
    let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
    let sample = |line: &str| {
        let (_, rest) = line.split_once(&format!("{label}=\"")).unwrap();
        let value = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        (rest.split('"').next().unwrap().to_owned(), value)
    };
    exposition.lines().filter(of_family).map(sample).collect()
}
