//! The command lines of `fit` and `whatif`: what is submitted, and what is imagined.
use std::path::PathBuf;

use super::{Source, examples};

/// The command line of `fit`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = examples::FIT_SHORT, after_long_help = examples::FIT)]
#[command(mut_arg("print_metrics", |flag| flag.hide(true)), mut_arg("agent_nodes", |flag| flag.hide_short_help(true)))]
pub struct Fit {
    /// What is submitted.
    #[command(flatten)]
    pub submit: Submit,
    /// The namespace of objects that name none. Default: that of the kubeconfig's context, else default.
    #[arg(short, long, value_name = "NAMESPACE", help_heading = "Submission")]
    pub namespace: Option<String>,
    /// Print JSON (docs/api.md).
    #[arg(long, help_heading = "Submission")]
    pub json: bool,
    /// What it is tried on.
    #[command(flatten)]
    pub source: Source,
}

/// The command line of `whatif`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = examples::WHATIF_SHORT, after_long_help = examples::WHATIF)]
#[command(mut_arg("print_metrics", |flag| flag.hide(true)), mut_arg("agent_nodes", |flag| flag.hide_short_help(true)))]
pub struct WhatIf {
    /// What is imagined.
    #[command(flatten)]
    pub imagined: Imagined,
    /// Print JSON (docs/api.md).
    #[arg(long, help_heading = "Change")]
    pub json: bool,
    /// Of which cluster.
    #[command(flatten)]
    pub source: Source,
}

/// What is imagined.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Change")]
pub struct Imagined {
    /// The node that is drained. May be given several times.
    #[arg(long, value_name = "NODE", required = true)]
    pub drain: Vec<String>,
}

/// What is submitted, and to which cluster.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Submission")]
pub struct Submit {
    /// The manifest, as `kubectl create -f` takes it; `-` is standard input.
    ///
    /// AppWrapper, Pod, Job, JobSet, PyTorchJob, RayCluster, RayJob, LeaderWorkerSet, Deployment and StatefulSet, in YAML or JSON, several
    /// documents and lists. Objects are tried one after the other.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: PathBuf,
    /// The LocalQueue of Kueue that it is submitted to, instead of the label kueue.x-k8s.io/queue-name.
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// How many times each object is submitted.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// As if this node were gone. May be given several times.
    #[arg(long, value_name = "NODE")]
    pub without: Vec<String>,
    /// As if this node were not cordoned. May be given several times.
    #[arg(long, value_name = "NODE")]
    pub uncordon: Vec<String>,
}
