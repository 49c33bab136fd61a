//! A wire between clients and a server that a test can cut and mend, and on which it can stop bodies and answers half way.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;

/// A piece that is longer is part of a body: heads and handshakes of these clients are shorter.
const BODY_BYTES: usize = 1000;

/// What becomes of what is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// There are no connections.
    Cut,
    /// Of a body one half arrives, and no answer.
    HalfWay,
    /// Requests arrive, answers do not.
    Mute,
}

/// Forwards connections to a port while it is whole.
pub(crate) struct Wire {
    port: u16,
    state: watch::Sender<State>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    server: AtomicU16,
    /// Bodies that are stopped half way now.
    held: AtomicUsize,
    /// When each connection that reached the server did.
    connects: Mutex<Vec<Instant>>,
}

impl Wire {
    /// A whole wire to that port on loopback.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, states) = watch::channel(State::Whole);
        let shared = Arc::new(Shared { server: server.into(), ..Shared::default() });
        let known = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, shared) = (states.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    let mut cut = state.clone();
                    tokio::select! {
                        biased;
                        _ = cut.wait_for(|state| *state == State::Cut) => {}
                        // However it ended, both ends learn it.
                        _ = connect(client, &shared, &state) => {}
                    }
                });
            }
        });
        Self { port, state, shared }
    }

    /// Its near end.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on it leads to that port.
    pub(crate) fn leads_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::Relaxed);
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Stops every body half way.
    pub(crate) fn stop_half_way(&self) {
        self.state.send_replace(State::HalfWay);
    }

    /// Stops every answer.
    pub(crate) fn mute(&self) {
        self.state.send_replace(State::Mute);
    }

    /// Lets everything through, what it held back first.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }

    /// How many bodies it holds back now.
    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// When connections reached the server, of those that did since.
    pub(crate) fn connects_since(&self, since: Instant) -> Vec<Instant> {
        self.shared.connects.lock().unwrap().iter().copied().filter(|at| *at >= since).collect()
    }
}

/// Carries both ways until both have ended.
async fn connect(client: TcpStream, shared: &Shared, state: &watch::Receiver<State>) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server.load(Ordering::Relaxed))).await?;
    shared.connects.lock().unwrap().push(Instant::now());
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(
        carry_requests(from_client, to_server, shared, state.clone()),
        carry_answers(from_server, to_client, state.clone())
    )?;
    Ok(())
}

async fn carry_requests(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    shared: &Shared,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &piece[..read];
        if read > BODY_BYTES && *state.borrow() == State::HalfWay {
            let (half, other) = rest.split_at(read / 2);
            to.write_all(half).await?;
            let held = Held::new(&shared.held);
            let _ = state.wait_for(|state| *state != State::HalfWay).await;
            drop(held);
            rest = other;
        }
        to.write_all(rest).await?;
    }
}

async fn carry_answers(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let _ = state.wait_for(|state| *state != State::Mute).await;
        to.write_all(&piece[..read]).await?;
    }
}

/// One more that is held back, for as long as this lives.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(held: &'a AtomicUsize) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
