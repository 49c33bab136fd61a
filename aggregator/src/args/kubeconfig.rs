//! Flags that select the API server of a kubeconfig, with the names that kubectl uses.
use std::path::PathBuf;

/// How the API server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub struct Kubeconfig {
    /// The kubeconfig's context. Default: its current context.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config, else the pod's ServiceAccount.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
