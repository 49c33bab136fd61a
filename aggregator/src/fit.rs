//! `fit`: whether what a manifest submits would fit now. From the command line to the last line printed.
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use mcad_accounting::change::Change;
use mcad_accounting::now::Now;
use mcad_accounting::object::submission::{Submission, Submitted};
use mcad_accounting::object::{AppWrapper, Object, Version};
use mcad_accounting::options::QueueMetrics;
use mcad_accounting::trial::{Ground, Trial};
use mcad_present::explain::notes;
use mcad_present::explain::submission::{self, Fit};
use mcad_present::explain::why::Places;
use mcad_present::tables;
use tracing_subscriber::filter::LevelFilter;

use crate::args::plugin::Output;
use crate::args::trial::Submit;
use crate::args::{ClusterSource, Source};
use crate::dump::manifest::{self, Document, Place};
use crate::verbs::{self, Cluster};

/// The exit status if it cannot be told whether it fits.
pub const CANNOT_BE_TOLD: u8 = 2;

/// Kueue makes at most so many Workloads of all copies. Each is tried.
const MOST_WORKLOADS: u64 = 100_000;
/// The namespace of objects that name none, if nothing else says which.
const NAMESPACE: &str = "default";

/// A manifest, read.
struct Manifest {
    submissions: Vec<(Place, Submission)>,
    /// Claims and claim templates.
    claims: Vec<Object>,
    /// The kinds of objects without pods.
    without_pods: Vec<String>,
}

/// Prints the answer. Returns the exit status.
pub fn run(submit: &Submit, source: &Source, namespace: Option<&str>, output: Output) -> ExitCode {
    verbs::exit_or(answered(submit, source, namespace, output), CANNOT_BE_TOLD.into())
}

fn answered(submit: &Submit, source: &Source, namespace: Option<&str>, output: Output) -> Result<ExitCode> {
    source.check()?;
    if source.inputs.cluster.contains(&ClusterSource::Local) {
        bail!("fit needs Kubernetes: with --cluster local, nothing is declared that pods could request");
    }
    if submit.file == Path::new("-") && source.inputs.dump().iter().any(|file| file == Path::new("-")) {
        bail!("both -f and --cluster name standard input: give one of them as a file");
    }
    verbs::log(LevelFilter::WARN)?;
    let documents = manifest::read(&submit.file)?;
    // Before the cluster is read, which takes longer. The namespace may come from it, and matters to no error.
    Manifest::of(&documents, NAMESPACE, submit)?;
    let cluster = Cluster::read(source, verbs::say)?;
    let namespace = namespace.or(cluster.namespace.as_deref()).unwrap_or(NAMESPACE);
    let manifest = Manifest::of(&documents, namespace, submit)?;
    let ground = ground(submit, &manifest, &cluster)?;
    verbs::say(&tables::warnings(&ground.snapshot));
    let fit = manifest.tried(submit.count, &ground, cluster.replica.now());
    let text = match output {
        Output::Json => verbs::json(&fit)?,
        Output::Table => tables::fit::fit(&fit, verbs::view()),
    };
    verbs::print(text.as_bytes())?;
    Ok(exit_code(fit.fits))
}

/// The exit status of an answer.
pub fn exit_code(fits: Option<bool>) -> ExitCode {
    match fits {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => CANNOT_BE_TOLD.into(),
    }
}

/// Names in their order, without those that stand before.
pub fn each_once(names: &[String]) -> Vec<String> {
    let is_first = |(at, name): &(usize, &String)| !names[..*at].contains(name);
    names.iter().enumerate().filter(is_first).map(|(_, name)| name.clone()).collect()
}

/// The cluster as the command line imagines it, with the manifest's claims.
fn ground(submit: &Submit, manifest: &Manifest, cluster: &Cluster) -> Result<Ground> {
    let uncordon = each_once(&submit.uncordon).into_iter().map(Change::Uncordon);
    // A node that is gone cannot be uncordoned.
    for change in uncordon.chain(each_once(&submit.without).into_iter().map(Change::Without)) {
        if !cluster.replica.suppose(&change) {
            bail!("no node named {}", change.node());
        }
    }
    for claim in &manifest.claims {
        cluster.replica.create(claim.clone());
    }
    Ok(cluster.replica.ground(&manifest.appwrappers().collect::<Vec<_>>(), &cluster.undecodable))
}

impl Manifest {
    fn of(documents: &[Document], namespace: &str, submit: &Submit) -> Result<Self> {
        let mut manifest = Self { submissions: Vec::new(), claims: Vec::new(), without_pods: Vec::new() };
        for Document { place, value } in documents {
            match Submitted::of(value, namespace, submit.queue.as_deref()).with_context(|| place.to_string())? {
                Submitted::Pods(submission) => manifest.submissions.push((place.clone(), *submission)),
                Submitted::Claim(claim) => manifest.claims.push(*claim),
                Submitted::Nothing(kind) => manifest.without_pods.push(kind),
            }
        }
        if manifest.submissions.is_empty() {
            bail!("{}: no object in it creates pods", submit.file.display());
        }
        let workloads = manifest.submissions.iter().map(|(_, one)| u64::from(one.workloads)).sum::<u64>();
        if workloads.saturating_mul(submit.count.into()) > MOST_WORKLOADS {
            bail!("Kueue would make more than {MOST_WORKLOADS} Workloads of it: submit less at once");
        }
        Ok(manifest)
    }

    fn appwrappers(&self) -> impl Iterator<Item = &AppWrapper> {
        self.submissions.iter().map(|(_, one)| &one.appwrapper)
    }

    /// Tries all submissions one after the other.
    fn tried(&self, copies: u32, ground: &Ground, now: Now) -> Fit {
        let mut trial = Trial::new(ground);
        let mut places = Places::new(&ground.snapshot);
        let try_one = |(place, one): &(Place, Submission)| {
            let tried = trial.submit(one, copies);
            submission::Submission::new(one, &tried, (place.document, place.item), &mut places)
        };
        let submissions = self.submissions.iter().map(try_one).collect();
        Fit::new(&ground.snapshot, submissions, self.notes(ground), now)
    }

    fn notes(&self, ground: &Ground) -> Vec<String> {
        let versions: Vec<Version> = self.appwrappers().map(|appwrapper| appwrapper.version).collect();
        let snapshot = &ground.snapshot;
        let mut notes: Vec<String> =
            notes::unread(&ground.unread, &versions).into_iter().chain(notes::fake(snapshot)).collect();
        let concerns_kueue = self.submissions.iter().any(|(_, one)| one.workload.is_some());
        if concerns_kueue && ground.facts.is_none() {
            let note = if ground.is_without_queues() {
                "Kueue is not installed, so no quotas apply."
            } else if snapshot.options.queue_metrics == QueueMetrics::Off {
                "Queues of Kueue are not known, because --queue-metrics is off: quotas are not considered."
            } else {
                "Queues of Kueue are not known, so quotas are not considered."
            };
            notes.push(note.to_owned());
        }
        if !self.without_pods.is_empty() {
            let mut kinds = self.without_pods.clone();
            kinds.sort_unstable();
            kinds.dedup();
            let kinds = mcad_present::explain::amount::list(&kinds);
            notes.push(format!("Objects that create no pods are passed over: {kinds}."));
        }
        notes
    }
}
