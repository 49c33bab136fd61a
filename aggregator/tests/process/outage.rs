//! Five hundred agents and an aggregator that they lose and find again: no total is lower or higher than the agents' own,
//! nothing is counted twice, and they do not all come back at once.
//!
//! The senders are the agent's, the aggregator is its own process, and between them is a wire. Time is compressed: an
//! interval is three seconds, and an outage lasts until every agent has failed so often that it was of several intervals,
//! as one of a minute is of six.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::agents::{Agents, Pace, by_label, node, pods};
use crate::support::aggregator::Aggregator;
use crate::support::proxy::Wire;
use crate::support::wait::until;
use mcad_agent::sender::{Credentials, Target};
use mcad_testkit::build::{self, spec, v1beta1, with};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

const AGENTS: usize = 500;

const INTERVAL: Duration = Duration::from_secs(3);

/// Longer than anything takes that is not held back.
const PATIENT: Duration = Duration::from_mins(1);

/// Where each agent has failed so often, back-off is at its longest, and the outage lasted six intervals: the waits are half of
/// 0.5, 1 and then 1.5 intervals on average.
const LONG_OUTAGE: u64 = 6;

/// In which agents learn of it at their turns, and all wait as long as they ever do.
const OUTAGE: u64 = 3;

/// Reconnects in the busiest tenth of an interval. The back-off's longest bound is an interval and a half, which makes at most
/// 14 % of them; a herd's would be all. Between them is room for a machine that stood still for a while.
const BUSIEST_TENTH: usize = AGENTS * 2 / 5;

const FAILED: &str = "mcad_agent_report_send_failures_total";
const SENT: &str = "mcad_agent_reports_sent_total";
const NAME: &str = "reports.example";

/// One crowd at a time: five hundred are enough for a small machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How reports travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// To an address.
    Plain,
    /// To a name that has to be looked up.
    Tls,
}

/// A crowd that reports, and the totals of which are right.
struct Crowd {
    agents: Agents,
    aggregator: Aggregator,
    wire: Wire,
    files: TempDir,
    transport: Transport,
}

impl Crowd {
    async fn start(transport: Transport, deadline: Duration) -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("dump.json"), dump()).unwrap();
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        std::fs::write(files.path().join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(files.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        let aggregator = aggregator(files.path(), transport);
        let wire = Wire::to(port(&aggregator)).await;
        let target: Target = match transport {
            Transport::Plain => format!("http://127.0.0.1:{}", wire.port()).parse().unwrap(),
            Transport::Tls => {
                let target: Target = format!("https://{NAME}:{}", wire.port()).parse().unwrap();
                target.trusting(Credentials::new(Some(files.path().join("tls.crt")), None)).unwrap()
            }
        };
        let pace = Pace { interval: INTERVAL, deadline };
        let agents = Agents::start(AGENTS, &target, wire.port(), pace);
        agents.until_each(SENT, &agents.since_start(), 1).await;
        Self { agents, aggregator, wire, files, transport }
    }

    /// Waits until each agent has failed so often since now.
    async fn each_fails(&self, times: u64) {
        self.agents.until_each(FAILED, &self.agents.counted(FAILED), times).await;
    }

    /// What `/metrics` tells of all their pods, in ns, which is never more than they tell themselves.
    fn told_ns(&self) -> u64 {
        let told = told_ns(&self.aggregator.scrape());
        let own = self.agents.cpu_ns();
        assert!(told <= own, "the aggregator tells {told} ns, and the agents no more than {own}");
        told
    }

    /// After an outage: each agent reports again, and what they tell is what is told, to the nanosecond, for good.
    async fn until_whole_again(self, returned: Instant) {
        let sent = self.agents.counted(SENT);
        let before = self.told_ns();
        self.agents.until_each(SENT, &sent, 1).await;
        check_spread(&self.wire.connects_since(returned));
        assert!(self.told_ns() >= before);
        // A round more, so that what was told again would have been counted twice.
        self.agents.until_each(SENT, &sent, 3).await;
        self.agents.stop_ticks();
        until("what agents tell is what is told", || self.told_ns() == self.agents.cpu_ns()).await;
        let totals = by_label(&self.aggregator.scrape(), "mcad_appwrapper_cpu_seconds_total", "appwrapper");
        assert_eq!(totals.len(), APPWRAPPERS);
        self.agents.end().await;
    }
}

/// They come back one after the other: over an interval at least, and in no tenth of one a crowd. Who waits for an answer when
/// answers come again has no need to.
#[track_caller]
fn check_spread(connects: &[Instant]) {
    let mut after: Vec<_> = connects.iter().map(|at| at.duration_since(connects[0])).collect();
    after.sort_unstable();
    // Later ones are of agents that were too slow for each other, on a machine that has no time for all of them.
    after.retain(|at| *at < 2 * INTERVAL);
    let in_tenth = |from: &Duration| after.iter().filter(|at| *from <= **at && **at < *from + INTERVAL / 10).count();
    let (busiest, last) = (after.iter().map(in_tenth).max().unwrap(), *after.last().unwrap());
    eprintln!("{} connects in {last:?}, at most {busiest} in a tenth of {INTERVAL:?}", after.len());
    assert!(after.len() > AGENTS / 3, "{} of {AGENTS} are too few to tell", after.len());
    assert!(busiest <= BUSIEST_TENTH, "{busiest} of {AGENTS} came back within a tenth of an interval");
    assert!(last >= INTERVAL, "all of them came back within {last:?}, of an interval of {INTERVAL:?}");
}

/// Seconds are printed exactly: steps are eighths of one.
fn told_ns(exposition: &str) -> u64 {
    let totals = by_label(exposition, "mcad_appwrapper_cpu_seconds_total", "appwrapper");
    totals.values().map(|seconds| (seconds * 1e9) as u64).sum()
}

fn port(aggregator: &Aggregator) -> u16 {
    aggregator.reports.rsplit_once(':').unwrap().1.parse().unwrap()
}

fn aggregator(files: &Path, transport: Transport) -> Aggregator {
    let path = |name: &str| files.join(name).display().to_string();
    let (cluster, certificate, key) = (format!("file:{}", path("dump.json")), path("tls.crt"), path("tls.key"));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let tls = if transport == Transport::Tls { &tls[..] } else { &[] };
    Aggregator::start(&[&["--cluster", &cluster], tls].concat())
}

/// Whose the pods are, by turns.
const APPWRAPPERS: usize = 10;

/// Their nodes and pods, as Kubernetes knows them throughout.
fn dump() -> String {
    let pod = |uid: &str, number: usize| {
        let pod = build::pod(uid, &node(number), json!({"cpu": "1"}));
        let pod = with(pod, "/metadata/uid", json!(uid));
        with(pod, "/metadata/labels", json!({"appwrapper.mcad.ibm.com": format!("w-{}", number % APPWRAPPERS)}))
    };
    let appwrapper = |number: usize| {
        let template = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec(json!({"cpu": "1"}))});
        let items = json!([{"generictemplate": template}]);
        v1beta1(&format!("w-{number}"), items, json!({"state": "Running", "canrun": true}))
    };
    let nodes = (0..AGENTS).map(|number| build::node(&node(number), json!({"cpu": "8", "memory": "32Gi"})));
    let pods = (0..AGENTS).flat_map(|number| pods(number).map(|uid| pod(&uid, number)));
    let items: Vec<Value> = nodes.chain(pods).chain((0..APPWRAPPERS).map(appwrapper)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_was_killed_knows_all_again_and_is_not_met_by_all_at_once() {
    let _alone = ALONE.lock().await;
    let mut crowd = Crowd::start(Transport::Tls, PATIENT).await;
    crowd.aggregator.kill();
    // What ends now only the agents know.
    crowd.agents.end_pods();
    crowd.each_fails(LONG_OUTAGE).await;
    crowd.aggregator = aggregator(crowd.files.path(), crowd.transport);
    let returned = Instant::now();
    crowd.wire.leads_to(port(&crowd.aggregator));
    crowd.until_whole_again(returned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_were_cut_half_way_count_for_nothing_and_those_who_sent_them_come_back_by_and_by() {
    let _alone = ALONE.lock().await;
    let crowd = Crowd::start(Transport::Plain, PATIENT).await;
    crowd.agents.end_pods();
    crowd.wire.stop_half_way();
    until("a body of each agent is on its way", || crowd.wire.held() == AGENTS).await;
    // All of them lose it at the same instant: from here on only the jitter spreads them.
    crowd.wire.cut();
    crowd.each_fails(OUTAGE).await;
    let returned = Instant::now();
    crowd.wire.mend();
    crowd.until_whole_again(returned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_whose_answers_come_too_late_are_counted_once() {
    let _alone = ALONE.lock().await;
    // As an answer that takes 30 s is for an agent that waits 5 s: it tries again, and often the same report.
    let crowd = Crowd::start(Transport::Plain, INTERVAL * 2 / 3).await;
    crowd.wire.mute();
    crowd.agents.end_pods();
    crowd.each_fails(OUTAGE).await;
    let text = crowd.aggregator.scrape();
    let again = by_label(&text, "mcad_aggregator_reports_dropped_total", "reason");
    assert!(again["duplicate"] > 0.0, "some were sent twice: {again:?}");
    let returned = Instant::now();
    crowd.wire.mend();
    crowd.until_whole_again(returned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_names_agents_find_their_way_back_to_where_the_aggregator_was() {
    let _alone = ALONE.lock().await;
    let crowd = Crowd::start(Transport::Tls, PATIENT).await;
    crowd.agents.lose_names();
    crowd.agents.end_pods();
    crowd.wire.cut();
    crowd.each_fails(OUTAGE).await;
    let asked = crowd.agents.since_start();
    crowd.agents.until_each("mcad_agent_look_up_failures_total", &asked, 1).await;
    let returned = Instant::now();
    crowd.wire.mend();
    crowd.until_whole_again(returned).await;
}
