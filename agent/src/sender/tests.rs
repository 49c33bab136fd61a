//! The sender against several real TCP servers and a name whose addresses change.

use std::sync::Mutex;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::posted::{posted, put};
use super::*;

const LONG: Duration = Duration::from_mins(1);

/// An aggregator on its own address. All use the same port, as replicas do.
struct Server(TcpListener);

impl Server {
    async fn start(address: &str) -> Self {
        Self(TcpListener::bind(address).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn accept(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }

    /// Accepts a new connection, reads the next report and responds; returns also the connection.
    async fn taken(&self) -> (u64, TcpStream) {
        let mut stream = self.accept().await;
        (take(&mut stream).await.unwrap(), stream)
    }
}

/// Reads the next report on a connection and responds. `None` if the agent closed the connection.
async fn take(stream: &mut TcpStream) -> Option<u64> {
    let sequence = read(stream).await?;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    Some(sequence)
}

async fn read(stream: &mut TcpStream) -> Option<u64> {
    let (head, sequence) = posted(stream).await?;
    assert!(head.contains("host: aggregator.example:1"), "{head}");
    Some(sequence)
}

/// The current addresses of the name. `None`: the name can't be looked up.
type Name = Arc<Mutex<Option<Vec<SocketAddr>>>>;

struct Agent {
    slot: watch::Sender<Option<Outgoing>>,
    name: Name,
    metrics: Arc<SelfMetrics>,
    sender: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(addresses: &[SocketAddr]) -> Self {
        let name: Name = Arc::new(Mutex::new(Some(addresses.to_vec())));
        let asked = Arc::clone(&name);
        let look_up = move |host: String, port| {
            assert_eq!((host.as_str(), port), ("aggregator.example", 1));
            let answer = asked.lock().unwrap().clone();
            async move { answer.ok_or_else(|| io::Error::other("no such name")) }
        };
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let (slot, reports) = watch::channel(None);
        let target = Target::named("aggregator.example:1");
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let sender = Sender::new(target, look_up, LONG, backoff, 0.5, Arc::clone(&metrics)).run(reports);
        let sender = tokio::spawn(sender);
        Self { slot, name, metrics, sender }
    }

    fn put(&self, sequence: u64) {
        put(&self.slot, sequence);
    }

    fn name_has(&self, addresses: &[SocketAddr]) {
        *self.name.lock().unwrap() = Some(addresses.to_vec());
    }

    fn metric(&self, name: &str) -> String {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned()
    }

    async fn end(self) {
        drop(self.slot);
        self.sender.await.unwrap();
    }
}

#[tokio::test]
async fn every_replica_gets_every_report_and_one_that_hangs_delays_no_other() {
    let (a, b) = (Server::start("127.0.0.1:0").await, Server::start("127.0.0.2:0").await);
    let agent = Agent::start(&[a.address(), b.address()]);
    agent.put(1);
    let (first, mut to_a) = a.taken().await;
    // b accepts the connection and does not respond for longer than this test runs.
    let mut to_b = b.accept().await;
    assert_eq!((first, read(&mut to_b).await), (1, Some(1)));
    for sequence in 2..=5 {
        agent.put(sequence);
        assert_eq!(take(&mut to_a).await, Some(sequence));
    }
    // When it responds at last, it gets the latest report.
    to_b.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(take(&mut to_b).await, Some(5));
    assert_eq!(
        (agent.metric("mcad_agent_replicas"), agent.metric("mcad_agent_reports_replaced_total")),
        ("2".into(), "3".into())
    );
    drop((to_a, to_b));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_listed_later_is_found_and_gets_the_latest_alone() {
    let (a, b) = (Server::start("127.0.0.1:0").await, Server::start("127.0.0.2:0").await);
    let agent = Agent::start(&[a.address()]);
    agent.put(7);
    let (first, _to_a) = a.taken().await;
    assert_eq!(first, 7);
    agent.name_has(&[a.address(), b.address()]);
    let (first, _to_b) = b.taken().await;
    assert_eq!((first, agent.metric("mcad_agent_reports_replaced_total")), (7, "0".into()));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_is_looked_for_under_its_name_and_left_when_another_is_there() {
    let (a, b) = (Server::start("127.0.0.1:0").await, Server::start("127.0.0.2:0").await);
    let agent = Agent::start(&[a.address()]);
    agent.put(1);
    let (_, to_a) = a.taken().await;
    agent.name_has(&[b.address()]);
    drop((a, to_a));
    agent.put(2);
    let (sequence, _to_b) = b.taken().await;
    assert_eq!(sequence, 2);
    while agent.metric("mcad_agent_replicas") != "1" {
        tokio::task::yield_now().await;
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_names_the_known_replicas_are_still_reported_to() {
    let a = Server::start("127.0.0.1:0").await;
    let agent = Agent::start(&[a.address()]);
    agent.put(1);
    let (_, mut to_a) = a.taken().await;
    *agent.name.lock().unwrap() = None;
    while agent.metric("mcad_agent_look_up_failures_total") == "0" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    agent.put(2);
    assert_eq!(take(&mut to_a).await, Some(2));
    agent.end().await;
}

#[tokio::test]
async fn at_the_end_each_replica_gets_what_it_has_not_got_yet() {
    let (a, b) = (Server::start("127.0.0.1:0").await, Server::start("127.0.0.2:0").await);
    let agent = Agent::start(&[a.address(), b.address()]);
    agent.put(1);
    let ((_, mut to_a), (_, mut to_b)) = tokio::join!(a.taken(), b.taken());
    agent.put(2);
    let (a, b, ()) = tokio::join!(take(&mut to_a), take(&mut to_b), agent.end());
    assert_eq!((a, b), (Some(2), Some(2)));
}

#[tokio::test]
async fn the_systems_resolver_is_asked() {
    let found = look_up("localhost".to_owned(), 9).await.unwrap();
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 9), "{found:?}");
    assert!(!found.is_empty());
}
