//! What a program starts from, given its flags: the cluster of a dump, and reports from files. [`crate::dump`] reads the dump.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::args::{Inputs, MetricsArgs};
use crate::clock::Clock;
use crate::dump::{self, Dump};
use crate::known::{Dumped, Known};
use crate::receive;
use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::nodes::Outcome;
use mcad_accounting::now::Now;
use mcad_accounting::reported::NoNews;
use mcad_wire::report::Report;
use prost::Message as _;

/// What is known at the start.
pub struct Input {
    /// The cluster and the nodes' reports.
    pub known: Known,
    /// What the dump is of, and what it lacks. `None` if there is no dump.
    dump: Option<Arc<mcad_accounting::input::Input>>,
    /// Whether all reports count, with all of their parts. If not, the log says which do not.
    reports: Reports,
}

/// Whether the reports of files count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reports {
    /// All of them, whole.
    Whole,
    /// One of them does not count, or a part of it.
    InPart,
}

impl Input {
    /// Reads what the flags name. Reports may take `bytes` of memory.
    pub fn read(inputs: &Inputs, metrics: &MetricsArgs, bytes: u64) -> Result<Self> {
        let now = Clock::system().now();
        if inputs.is_kube() {
            let known = Known::new(Cluster::watched(), metrics.options(), Ages::Count).bounded(bytes);
            return Ok(Self { known, dump: None, reports: Reports::Whole });
        }
        let files = inputs.dump();
        if files.is_empty() {
            let known = Known::of_agents().bounded(bytes);
            let reports = replay(&known, &inputs.reports, now)?;
            return Ok(Self { known, dump: None, reports });
        }
        let dump = Dump::read(&files)?;
        let instant = dump.instant(inputs.at.map(Timestamp::as_millisecond));
        let said = Arc::new(dump::input::said_of(&dump, instant));
        let dumped = Dumped { unix_ms: instant.map(|instant| instant.unix_ms), input: Arc::clone(&said) };
        let known = Known::new(dump.into_cluster(), metrics.options(), Ages::DoNot).of_dump(dumped);
        let reports = replay(&known, &inputs.reports, now)?;
        // Only what agents send later is bounded.
        let known = known.bounded(bytes);
        known.refit(now);
        Ok(Self { known, dump: Some(said), reports })
    }

    /// What is wrong with the dump, a sentence each.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        self.dump.iter().flat_map(|dump| dump.complaints())
    }

    /// Logs what is wrong with the dump.
    pub fn warn(&self) {
        for complaint in self.complaints() {
            tracing::warn!("the dump is incomplete. {complaint}");
        }
    }

    /// 0 if everything was read; 1 if something was left out or is missing.
    pub fn exit_code(&self) -> ExitCode {
        let is_whole = self.dump.as_ref().is_none_or(|dump| dump.complete) && self.reports == Reports::Whole;
        if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Reads files of reports.
fn replay(known: &Known, files: &[PathBuf], now: Now) -> Result<Reports> {
    let mut reports = Reports::Whole;
    for path in files {
        if replay_file(known, path, now)? == Reports::InPart {
            reports = Reports::InPart;
        }
    }
    Ok(reports)
}

/// Reads reports, one a line.
fn replay_file(known: &Known, path: &Path, now: Now) -> Result<Reports> {
    let mut reports = Reports::Whole;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}: line {number}", path.display());
        let report: Report = serde_json::from_str(line).with_context(place)?;
        let encoded = report.encode_to_vec();
        let received = receive::check(&encoded).with_context(place)?;
        for left_out in &received.left_out {
            reports = Reports::InPart;
            tracing::warn!("{}: {} are left out: {}", place(), left_out.part.label(), left_out.why);
        }
        let why = match known.replay(&received, now).with_context(place)? {
            Outcome::Dropped(NoNews::Duplicate) => "the report before it is the same",
            Outcome::Dropped(NoNews::Older) => "a report of this node before it is newer",
            Outcome::Taken if !known.has_node(&received.node) => "the dump has no such node",
            Outcome::Taken => continue,
        };
        reports = Reports::InPart;
        tracing::warn!("{}: the report of node {} is ignored: {why}", place(), received.node);
    }
    Ok(reports)
}
