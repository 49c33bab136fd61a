//! Keeps the state of a live cluster current: passes the events of the watches to the replica and lets it compute fit on nodes, on a
//! separate thread; or does so once, until the whole cluster is known. Owns these tasks and threads.

mod refit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use kube::Client;
use mcad_accounting::cluster::{Event, Source};
use mcad_accounting::object::{DEVICE_GROUP, QUEUE_GROUP};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    task::JoinSet,
};

use self::refit::{LOOK, Last};
use crate::replica::Replica;
use crate::watch::{self, Settings, Told};

/// The most events that are queued. The watches wait when the queue is full: nothing is lost, and memory is bounded.
const TOLD: usize = 1024;

/// A runtime of one thread for the watches: decoding a large list or the largest possible object takes long, and nothing else may
/// wait for it.
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
    // The tasks end when this future ends.
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

/// The parts of the cluster that were not known in time.
#[derive(Debug, thiserror::Error)]
#[error("after {} s, these parts of the cluster are not known: {}", waited.as_secs(), Missing(missing))]
pub struct Unknown {
    waited: Duration,
    /// Each missing list, and why its watch last broke, if it did.
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

/// What could not be read of what the API server has. The log has the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The lists of devices or queues that were refused.
    pub refused: BTreeSet<Source>,
    /// The lists with objects that could not be decoded and are left out.
    pub undecodable: BTreeSet<Source>,
}

impl Reading {
    /// Whether everything was read.
    pub fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.undecodable.is_empty()
    }
}

/// Watches the cluster for a replica until all of it is known and computes fit; or returns what is missing.
pub async fn until_known(
    client: Client,
    settings: Settings,
    replica: &Replica,
    wait: Duration,
) -> Result<Reading, Unknown> {
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
        return Ok(progress.reading());
    }
    Err(Unknown { waited: wait, missing })
}

/// Which lists have been received.
#[derive(Default)]
struct Progress {
    /// AppWrappers that the API server serves. `None` if not known yet.
    served: Option<Vec<Source>>,
    /// The same for devices and claims.
    served_devices: Option<Vec<Source>>,
    /// The same for queues.
    served_queues: Option<Vec<Source>>,
    known: BTreeMap<Source, Result<(), &'static str>>,
    /// The lists with objects that could not be decoded.
    undecodable: BTreeSet<Source>,
}

impl Progress {
    fn note(&mut self, told: &Told) {
        match told {
            Told::Serves(served) => {
                self.served = Some(served.iter().map(|served| Source::AppWrappers(*served)).collect());
            }
            Told::ServesDevices(served) => {
                let served = served.iter().flatten().filter_map(|kind| Source::of_devices(*kind));
                self.served_devices = Some(served.collect());
            }
            Told::ServesQueues(served) => {
                let served = served.iter().flatten().filter_map(|kind| Source::of_queues(*kind));
                self.served_queues = Some(served.collect());
            }
            Told::Event(Event::Reset(source, _)) => drop(self.known.insert(*source, Ok(()))),
            Told::Event(Event::Lost(source)) => {
                if self.known.get(source) == Some(&Ok(())) {
                    self.known.remove(source);
                }
            }
            Told::Broke(source, reason) => {
                // A list that was received counts until it is lost.
                let known = self.known.entry(*source).or_insert(Err(reason));
                *known = known.map_err(|_| *reason);
            }
            Told::Undecodable(source, _) => drop(self.undecodable.insert(*source)),
            Told::Event(_) => {}
        }
    }

    fn reading(&self) -> Reading {
        let refused = self.known.iter().filter(|(_, known)| known.is_err());
        Reading { refused: refused.map(|(source, _)| *source).collect(), undecodable: self.undecodable.clone() }
    }

    fn missing(&self) -> Vec<(String, Option<&'static str>)> {
        let lists = [Source::Nodes, Source::Pods].into_iter().chain(self.served.iter().flatten().copied());
        let of = |source: Source| match self.known.get(&source) {
            Some(Ok(())) => None,
            Some(Err(reason)) => Some((source.to_string(), Some(*reason))),
            None => Some((source.to_string(), None)),
        };
        let versions = self.served.is_none().then(|| ("the served versions of AppWrappers".to_owned(), None));
        let kinds = self.served_devices.is_none().then(|| (format!("the served kinds of {DEVICE_GROUP}"), None));
        let groups = self.served_queues.is_none().then(|| (format!("the served kinds of {QUEUE_GROUP}"), None));
        // A list of devices or queues that cannot be read is left out; the rest is used.
        let served = self.served_devices.iter().chain(&self.served_queues).flatten();
        let devices = served.filter(|source| !self.known.contains_key(source));
        lists
            .filter_map(of)
            .chain(versions)
            .chain(kinds)
            .chain(groups)
            .chain(devices.map(|source| (source.to_string(), None)))
            .collect()
    }
}

/// The thread that computes fit; it ends when this is dropped.
struct Fitting {
    /// Dropped first, which ends the thread.
    end: Option<std_mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Fitting {
    fn start(replica: Arc<Replica>) -> io::Result<Self> {
        let (end, ended) = std_mpsc::channel();
        let thread = thread::Builder::new().name("fit".to_owned()).spawn(move || {
            let mut last: Option<(Last, Instant)> = None;
            while ended.recv_timeout(LOOK) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                // Read before the computation, which may miss later changes.
                let (changes, is_known) = (replica.changes(), replica.knows_cluster());
                if last.is_some_and(|(last, ended)| !last.is_over(changes, is_known, ended.elapsed())) {
                    continue;
                }
                let begun = Instant::now();
                replica.refit();
                last = Some((Last { changes, is_known, cost: begun.elapsed() }, Instant::now()));
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Fitting {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already printed; the fit stays as it was, and its age shows that.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use mcad_accounting::object::Kind;

    use super::*;

    #[test]
    fn devices_are_waited_for_until_they_are_there_or_cannot_be_had() {
        let mut progress = Progress::default();
        progress.note(&Told::ServesQueues(Some(BTreeSet::new())));
        progress.note(&Told::Serves(Vec::new()));
        for source in [Source::Nodes, Source::Pods] {
            progress.note(&Told::Event(Event::Reset(source, Vec::new())));
        }
        assert_eq!(progress.missing(), [("the served kinds of resource.k8s.io".to_owned(), None)]);
        let served: BTreeSet<_> = [Kind::ResourceSlice, Kind::ResourceClaim].into();
        progress.note(&Told::ServesDevices(Some(served)));
        assert_eq!(progress.missing(), ["resourceslices", "resourceclaims"].map(|of| (of.to_owned(), None)));
        progress.note(&Told::Event(Event::Reset(Source::ResourceSlices, Vec::new())));
        progress.note(&Told::Broke(Source::ResourceClaims, "forbidden"));
        assert_eq!(progress.missing(), []);
        assert_eq!(progress.reading().refused, [Source::ResourceClaims].into());
        // Nor if it has failed for so long that the list counts as lost.
        progress.note(&Told::Event(Event::Lost(Source::ResourceClaims)));
        assert_eq!(progress.missing(), []);
        progress.note(&Told::Event(Event::Reset(Source::ResourceClaims, Vec::new())));
        assert!(progress.reading().is_whole());
        progress.note(&Told::Event(Event::Lost(Source::Nodes)));
        assert_eq!(progress.missing(), [("nodes".to_owned(), None)]);
        progress.note(&Told::Undecodable(Source::Pods, "a pod without a name".to_owned()));
        let undecodable = [Source::Pods].into();
        assert_eq!(progress.reading(), Reading { undecodable, ..Reading::default() });
    }
}
