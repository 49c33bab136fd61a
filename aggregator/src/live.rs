//! Keeps the view of a live cluster current: hands what the watches tell to the replica, and has it work out what fits on
//! nodes, on a thread of its own. Owns those two lives; what is told and what fits is known elsewhere.

use std::{
    io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use kube::Client;
use tokio::sync::mpsc;

use crate::{
    replica::Replica,
    watch::{self, Settings},
};

/// What is told and not yet heard. The watches wait when it is full: nothing is lost, and nothing grows.
const TOLD: usize = 1024;

/// The least time between two attempts to place all waiting AppWrappers: an attempt on a large cluster takes a good part of a
/// second of one core.
const FIT_EVERY: Duration = Duration::from_secs(10);

/// Until the first attempt there are no verdicts at all, so it follows soon after the cluster is known.
const FIRST_FIT_EVERY: Duration = Duration::from_millis(200);

/// Watches the cluster for a replica, until it is dropped.
pub async fn run(client: Client, settings: Settings, replica: Arc<Replica>) -> io::Result<()> {
    let (tell, mut told) = mpsc::channel(TOLD);
    let _fitting = Fitting::start(Arc::clone(&replica))?;
    let hear = async {
        while let Some(told) = told.recv().await {
            replica.hear(told);
        }
    };
    tokio::join!(watch::run(client, settings, tell), hear);
    Ok(())
}

/// The thread that fits; it ends with this.
struct Fitting {
    /// Dropped first, which tells the thread to end.
    end: Option<std_mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Fitting {
    fn start(replica: Arc<Replica>) -> io::Result<Self> {
        let (end, ended) = std_mpsc::channel();
        let thread = thread::Builder::new().name("fit".to_owned()).spawn(move || {
            let mut pause = FIRST_FIT_EVERY;
            while ended.recv_timeout(pause) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                pause = if replica.refit() { FIT_EVERY } else { FIRST_FIT_EVERY };
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Fitting {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there; the figures of fit stand still and say their age.
            let _ = thread.join();
        }
    }
}
