//! What the program starts from: where the cluster is read from, and what agents have said already. Owns the way from flags to both;
//! what a dump says is [`mcad_aggregator::dump`]'s.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_aggregator::args::{Figures, Inputs};
use mcad_aggregator::clock::Clock;
use mcad_aggregator::dump::{self, Dump};
use mcad_aggregator::kubernetes::{Dumped, Kubernetes};
use mcad_aggregator::receive;
use mcad_aggregator::replica::Mode;
use mcad_aggregator::store::{self, Store};
use mcad_wire::report::Report;
use prost::Message as _;

/// See the module's documentation.
pub(crate) struct Input {
    pub(crate) mode: Mode,
    pub(crate) store: Store,
    /// What is said of the dump. Absent: there is none.
    dump: Option<Arc<mcad_accounting::input::Input>>,
}

impl Input {
    /// Reads what the flags name; `bytes` is what reports may take of memory.
    pub(crate) fn read(inputs: &Inputs, figures: &Figures, bytes: u64) -> Result<Self> {
        let now = Clock::system().now();
        if inputs.is_kube() {
            let kubernetes = Kubernetes::new(Cluster::default(), figures.options(), Ages::Count);
            let store = Store::new(store::Limits { bytes, ..store::Limits::KUBERNETES });
            return Ok(Self { mode: Mode::Kubernetes(Box::new(kubernetes)), store, dump: None });
        }
        let files = inputs.dump();
        if files.is_empty() {
            let mut store = Store::new(store::Limits { bytes, ..store::Limits::LOCAL });
            replay(None, &mut store, &inputs.reports, now)?;
            return Ok(Self { mode: Mode::Local, store, dump: None });
        }
        let dump = Dump::read(&files)?;
        let instant = dump.instant(inputs.at.map(Timestamp::as_millisecond));
        let said = Arc::new(dump::input::said_of(&dump, instant));
        let dumped = Dumped { unix_ms: instant.map(|instant| instant.unix_ms), input: Arc::clone(&said) };
        let kubernetes = Kubernetes::new(dump.into_cluster(), figures.options(), Ages::DoNot).of_dump(dumped);
        let mut store = Store::new(store::Limits::REPLAY);
        replay(Some(&kubernetes), &mut store, &inputs.reports, now)?;
        // What agents send beside the file is bounded.
        let mut store = store.bounded(bytes);
        kubernetes.refit(&store.reports(now), now);
        Ok(Self { mode: Mode::Kubernetes(Box::new(kubernetes)), store, dump: Some(said) })
    }

    /// All that is wrong with it, a sentence each.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        self.dump.iter().flat_map(|dump| dump.complaints())
    }

    /// Says in the log what is wrong with it.
    pub(crate) fn warn(&self) {
        for complaint in self.complaints() {
            tracing::warn!("the dump is not whole. {complaint}");
        }
    }

    /// 0 where everything was read, 1 where something was left out or is missing.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.dump.as_ref().is_none_or(|dump| dump.complete) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Takes in files of reports.
fn replay(kubernetes: Option<&Kubernetes>, store: &mut Store, files: &[PathBuf], now: Now) -> Result<()> {
    files.iter().try_for_each(|path| replay_file(kubernetes, store, path, now))
}

/// Takes in reports, one a line.
fn replay_file(kubernetes: Option<&Kubernetes>, store: &mut Store, path: &Path, now: Now) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}: line {number}", path.display());
        let report: Report = serde_json::from_str(line).with_context(place)?;
        let encoded = report.encode_to_vec();
        let received = receive::check(&encoded).with_context(place)?;
        for left_out in &received.left_out {
            tracing::warn!("{}: {} are left out: {}", place(), left_out.part.label(), left_out.why);
        }
        match kubernetes {
            Some(kubernetes) => kubernetes.replay(store, &received, now),
            None => store.insert(&received, now),
        }
        .with_context(place)?;
    }
    Ok(())
}
