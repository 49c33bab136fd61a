//! Keeps the view of a live cluster current: hands what the watches tell to the replica, and has it work out what fits on
//! nodes, on a thread of its own; or only until all of it is known. Owns those lives; what is told and what fits is known
//! elsewhere.

mod refit;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use kube::Client;
use mcad_accounting::cluster::{Event, Source};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    task::JoinSet,
};

use self::refit::{LOOK, Last};
use crate::replica::Replica;
use crate::watch::{self, Settings, Told};

/// What is told and not yet heard. The watches wait when it is full: nothing is lost, and nothing grows.
const TOLD: usize = 1024;

/// A runtime of one thread for the watches: to decode and take in a large list, or an object as large as one may be, takes long,
/// and nothing else may wait for it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("watch").enable_all().build()
}

/// Watches the cluster for a replica on [its own runtime](runtime), until it is dropped.
pub async fn run(client: Client, settings: Settings, replica: Arc<Replica>, runtime: &Handle) -> io::Result<()> {
    let (tell, mut told) = mpsc::channel(TOLD);
    let _fitting = Fitting::start(Arc::clone(&replica))?;
    let hear = async move {
        while let Some(told) = told.recv().await {
            replica.hear(told);
        }
    };
    // They end with this.
    let mut watching = JoinSet::new();
    watching.spawn_on(async move { tokio::join!(watch::run(client, settings, tell), hear) }, runtime);
    while let Some(ended) = watching.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    Ok(())
}

/// What was not known in time.
#[derive(Debug, thiserror::Error)]
#[error("after {} s the cluster is not known: {}", waited.as_secs(), Missing(missing))]
pub struct Unknown {
    waited: Duration,
    /// Each list that did not come, and why its watch last broke, if it did.
    missing: Vec<(String, Option<&'static str>)>,
}

struct Missing<'a>(&'a [(String, Option<&'static str>)]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (what, reason)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match reason {
                Some(reason) => write!(f, "{comma}{what} ({reason})")?,
                None => write!(f, "{comma}{what} (no answer yet)")?,
            }
        }
        Ok(())
    }
}

/// Watches the cluster for a replica until all of it is known, and works out what fits; or says what is missing.
pub async fn until_known(client: Client, settings: Settings, replica: &Replica, wait: Duration) -> Result<(), Unknown> {
    let (tell, mut told) = mpsc::channel(TOLD);
    let mut progress = Progress::default();
    let hear = async {
        while let Some(told) = told.recv().await {
            progress.note(&told);
            replica.hear(told);
            if progress.missing().is_empty() {
                break;
            }
        }
    };
    let known = async {
        tokio::select! {
            () = watch::run(client, settings, tell) => {}
            () = hear => {}
        }
    };
    let in_time = tokio::time::timeout(wait, known).await.is_ok();
    let missing = progress.missing();
    if in_time && missing.is_empty() {
        replica.refit();
        return Ok(());
    }
    Err(Unknown { waited: wait, missing })
}

/// Which lists have come.
#[derive(Default)]
struct Progress {
    /// AppWrappers that the API server serves. Absent: it has not said.
    served: Option<Vec<Source>>,
    known: BTreeMap<Source, Result<(), &'static str>>,
}

impl Progress {
    fn note(&mut self, told: &Told) {
        match told {
            Told::Serves(served) => {
                self.served = Some(served.iter().map(|served| Source::AppWrappers(*served)).collect());
            }
            Told::Event(Event::Reset(source, _)) => drop(self.known.insert(*source, Ok(()))),
            Told::Event(Event::Lost(source)) => drop(self.known.remove(source)),
            Told::Broke(source, reason) => {
                // What was listed once stands until it is lost.
                let known = self.known.entry(*source).or_insert(Err(reason));
                *known = known.map_err(|_| *reason);
            }
            Told::Event(_) | Told::Undecodable(..) => {}
        }
    }

    fn missing(&self) -> Vec<(String, Option<&'static str>)> {
        let lists = [Source::Nodes, Source::Pods].into_iter().chain(self.served.iter().flatten().copied());
        let of = |source: Source| match self.known.get(&source) {
            Some(Ok(())) => None,
            Some(Err(reason)) => Some((source.to_string(), Some(*reason))),
            None => Some((source.to_string(), None)),
        };
        let versions = self.served.is_none().then(|| ("which AppWrappers are served".to_owned(), None));
        lists.filter_map(of).chain(versions).collect()
    }
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
            let mut last: Option<(Last, Instant)> = None;
            while ended.recv_timeout(LOOK) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                // What is told while it is worked out may not be in it.
                let changes = replica.changes();
                if last.is_some_and(|(last, ended)| !last.is_over(changes, ended.elapsed())) {
                    continue;
                }
                let begun = Instant::now();
                // Until the cluster is known there are no verdicts at all, so the first attempts follow soon.
                last = replica.refit().then(|| (Last { changes, cost: begun.elapsed() }, Instant::now()));
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
