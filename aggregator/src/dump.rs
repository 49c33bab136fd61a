//! Dumps: what `mcad-aggregator dump` or `kubectl get … -o json` wrote of a cluster, read back.
//!
//! Owns files, documents and lists, what of them counts, which kinds are known by them, and what is said of them as an input; what an
//! object says is [`mcad_accounting::object`]'s. A List, several documents, YAML, JSON, and any mix of them are the same. Files are read as
//! they come, an object at a time: memory holds what is decoded, not the text.
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

/// What a dump says.
#[derive(Debug, Default)]
pub struct Dump {
    /// The objects that count, in the order of the files.
    pub objects: Vec<Object>,
    /// What should have been an object that counts and was none.
    pub skipped: Vec<Skipped>,
    /// How many more there are of these.
    pub more_skipped: usize,
    /// The kinds of which all objects are here (docs/accounting.md §6): one of it was read, an empty list of it was, or the record says
    /// so.
    pub known: BTreeSet<Kind>,
    /// What `mcad-aggregator dump` wrote down, of each file that it made.
    pub records: Vec<Record>,
    /// Quantities that could not be read.
    pub unreadable: Vec<UnreadableQuantity>,
    /// How many more there are of these.
    pub more_unreadable: usize,
    /// The files, in their order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// How many objects of each kind were read, in the order of [`Kind::ALL`].
    of_kind: [usize; 3],
    /// The newest time in the objects that count, in ms since the Unix epoch.
    newest_ms: Option<i64>,
}

impl Dump {
    /// Reads files one after the other; `-` is standard input.
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

    /// How many objects of a kind were read.
    pub fn count(&self, kind: Kind) -> usize {
        self.of_kind[kind as usize]
    }

    /// Whether the record says that the API server has no such kind, so that there can be none of it.
    pub fn is_not_served(&self, kind: Kind) -> bool {
        let mut lists = self.records.iter().flat_map(|record| record.lists_of(kind)).peekable();
        !self.known.contains(&kind) && lists.peek().is_some() && lists.all(|list| list.state == ListState::NotServed)
    }

    /// The cluster that it is of.
    pub fn into_cluster(self) -> Cluster {
        let is_served = !self.is_not_served(Kind::AppWrapper);
        let mut cluster = Cluster::from_objects_known(self.objects, &self.known);
        if !is_served {
            cluster.serve([]);
        }
        cluster
    }

    /// When it was made: as its record says, else as the command line does, else the newest time in it. Absent: there is no time in it.
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
            // A document that could not be begun is the next one.
            Err(trouble) => return Err(trouble.in_file(file, documents.max(1))),
        }
        self.believe_records();
        Ok(())
    }

    /// A record says more than the objects do: that there are none of a kind, or not all.
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

/// Reads documents, as YAML or as JSON, until the file ends.
fn read<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    loop {
        if !json::is_next(window)? {
            // YAML is a superset of JSON, but a large dump is read many times faster as what it is.
            return yaml::read(window, sink);
        }
        json::read(window, sink)?;
        // Documents may be separated as in YAML.
        if !json::skip_marker(window)? {
            return yaml::read(window, sink);
        }
    }
}
