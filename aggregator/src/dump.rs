//! Reads dumps of a cluster that `mcad-aggregator dump` or `kubectl get … -o json` wrote.
//!
//! Owns files, documents and lists, which objects count, which kinds are known, and the sentences about the input;
//! [`mcad_accounting::object`] owns the meaning of an object. A List, several documents, YAML, JSON, and any mix of them are
//! equivalent. Files are read one object at a time: memory holds the decoded objects, not the text.
mod file;
mod window;

mod cut;
mod events;
mod json;
mod yaml;

mod document;
pub mod instant;
pub mod record;

pub mod input;
pub mod manifest;
mod wrong;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use document::Sink;
use instant::{By, Instant};
use mcad_accounting::cluster::Cluster;
use mcad_accounting::object::{Kind, Object, UnreadableQuantity};
use record::{ListState, Record};
use window::Window;
use wrong::Trouble;

pub use wrong::{DumpError, ItemError, Skipped};

/// The content of a dump.
#[derive(Debug, Default)]
pub struct Dump {
    /// The objects that count, in the order of the files.
    pub objects: Vec<Object>,
    /// Objects that should count but could not be decoded.
    pub skipped: Vec<Skipped>,
    /// The number of further such objects.
    pub more_skipped: usize,
    /// The kinds of which all objects are here (docs/accounting.md §6): an object or an empty list of the kind was read, or the record
    /// says so.
    pub known: BTreeSet<Kind>,
    /// The records that `mcad-aggregator dump` wrote, one for each of its files.
    pub records: Vec<Record>,
    /// Quantities that could not be parsed.
    pub unreadable: Vec<UnreadableQuantity>,
    /// The number of further such quantities.
    pub more_unreadable: usize,
    /// The files, in their order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// The number of objects of each kind that were read, in the order of [`Kind::ALL`].
    of_kind: [usize; Kind::ALL.len()],
    /// The newest time in these objects, in ms since the Unix epoch.
    newest_ms: Option<i64>,
}

impl Dump {
    /// Reads files one after another; `-` is standard input.
    pub fn read(files: &[PathBuf]) -> Result<Self, DumpError> {
        let mut dump = Self::default();
        for file in files {
            let opened = file::open(file).map_err(|source| DumpError::Read { file: file.clone(), source })?;
            dump.add_from(file, opened)?;
        }
        Ok(dump)
    }

    /// Reads the text of one file; `file` is only its name.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), DumpError> {
        self.add_from(file, text.as_bytes())
    }

    /// The number of objects of a kind that were read.
    pub fn count(&self, kind: Kind) -> usize {
        self.of_kind[kind as usize]
    }

    /// Whether the record says that the API server does not serve this kind, so that no object of it exists.
    pub fn is_not_served(&self, kind: Kind) -> bool {
        let mut lists = self.records.iter().flat_map(|record| record.lists_of(kind)).peekable();
        !self.known.contains(&kind) && lists.peek().is_some() && lists.all(|list| list.state == ListState::NotServed)
    }

    /// Whether objects of a kind could not be listed.
    pub fn has_failed(&self, kind: Kind) -> bool {
        let mut lists = self.records.iter().flat_map(|record| record.lists_of(kind));
        lists.any(|list| list.state == ListState::Failed)
    }

    /// The kinds of Dynamic Resource Allocation that are served according to the record. `None` if the record does not mention them.
    fn devices_recorded(&self) -> Option<BTreeSet<Kind>> {
        self.recorded(Kind::DEVICES)
    }

    fn recorded(&self, kinds: [Kind; 5]) -> Option<BTreeSet<Kind>> {
        let of = |kind: &Kind| self.records.iter().flat_map(|record| record.lists_of(*kind)).collect::<Vec<_>>();
        let said =
            kinds.into_iter().any(|kind| self.records.iter().any(|record| record.lists_of(kind).next().is_some()));
        let is_served = |kind: &Kind| of(kind).iter().any(|list| list.state != ListState::NotServed);
        said.then(|| kinds.into_iter().filter(is_served).collect())
    }

    /// The same of Kueue.
    fn queues_recorded(&self) -> Option<BTreeSet<Kind>> {
        self.recorded(Kind::QUEUES)
    }

    /// The cluster of the dump.
    pub fn into_cluster(self) -> Cluster {
        let is_served = !self.is_not_served(Kind::AppWrapper);
        let (recorded, queues) = (self.devices_recorded(), self.queues_recorded());
        let has_queues = Kind::QUEUES.into_iter().any(|kind| self.of_kind[kind as usize] > 0);
        let mut known = self.known;
        // A dump has all kinds of devices and claims or none, unless its record says otherwise: many clusters have no claims, and an
        // empty list leaves no trace in kubectl's output.
        if recorded.is_none() && Kind::DEVICES.into_iter().any(|kind| self.of_kind[kind as usize] > 0) {
            known.extend(Kind::DEVICES);
        }
        if queues.is_none() && has_queues {
            known.extend(Kind::QUEUES);
        }
        let mut cluster = Cluster::from_objects_known(self.objects, &known);
        if let Some(served) = queues {
            cluster.serve_queues(served);
        }
        if let Some(served) = recorded {
            cluster.serve_devices(served);
        }
        if !is_served {
            cluster.serve([]);
        }
        cluster
    }

    /// When it was made: from its record, else from the command line, else the newest time in it. `None` if it contains no time.
    pub fn instant(&self, given_ms: Option<i64>) -> Option<Instant> {
        let recorded = self.records.iter().filter_map(Record::unix_ms).max();
        let said = [(By::Record, recorded), (By::Flag, given_ms), (By::Newest, self.newest_ms)];
        said.into_iter().find_map(|(by, unix_ms)| Some(Instant { unix_ms: unix_ms?, by }))
    }

    fn add_from(&mut self, file: &Path, from: impl Read) -> Result<(), DumpError> {
        self.files.push(file.to_owned());
        let mut window = Window::new(from);
        let mut sink = Sink::new(self, file);
        let read = read(&mut window, &mut sink);
        let documents = sink.document;
        match read {
            Ok(()) if documents == 0 => sink.leave_out(ItemError::Empty),
            Ok(()) => {}
            // If the first document could not be started, the error is about document 1.
            Err(trouble) => return Err(trouble.in_file(file, documents.max(1))),
        }
        self.believe_records();
        Ok(())
    }

    /// Applies the records, which also say that a kind has no objects, or that not all objects are in the dump.
    fn believe_records(&mut self) {
        for record in &self.records {
            self.known.extend(record.known());
        }
        for list in self.records.iter().flat_map(|record| &record.lists) {
            if let Some(kind) = Kind::named(&list.api_version, &list.kind)
                && list.state == ListState::Failed
                && list.objects > 0
            {
                self.known.remove(&kind);
            }
        }
    }
}

/// Reads documents in YAML or JSON until the file ends.
fn read<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    loop {
        if !json::is_next(window)? {
            // YAML is a superset of JSON, but the JSON parser is many times faster for a large dump.
            return yaml::read(window, sink);
        }
        json::read(window, sink)?;
        // Documents may be separated by `---` as in YAML.
        if !json::skip_marker(window)? {
            return yaml::read(window, sink);
        }
    }
}
