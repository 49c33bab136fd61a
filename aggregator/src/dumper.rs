//! `mcad-aggregator dump`: from the command line to the last byte. What is listed and written is [`mcad_aggregator::list`]'s.
use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use mcad_aggregator::args::Dump;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::dump::record::ListState;
use mcad_aggregator::list;
use mcad_present::explain::amount::printable;

/// Writes a dump to standard output, and how far it is to standard error.
pub(crate) async fn dump(args: &Dump) -> Result<ExitCode> {
    let client = client(args).await?;
    let mut stdout = BufWriter::new(std::io::stdout());
    let mut tell = |sentence: String| {
        // Whoever does not read it has the record.
        let _ = writeln!(std::io::stderr(), "{}", printable(&sentence));
    };
    let record = list::write(&client, &Clock::system(), &mut stdout, &mut tell).await?;
    let is_whole = record.lists.iter().all(|list| list.state != ListState::Failed);
    if !is_whole {
        tell("The dump is not whole: what could not be listed is named above, and in the dump.".to_owned());
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn client(Dump { context, kubeconfig }: &Dump) -> Result<Client> {
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let config = match (kubeconfig, context) {
        (Some(file), _) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(read, &options).await.context("--kubeconfig or --context")?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.context("--context")?,
        (None, None) => Config::infer().await.context(
            "there is no Kubernetes API server to list: neither a kubeconfig ($KUBECONFIG, ~/.kube/config, --kubeconfig) nor a pod's \
             service account",
        )?,
    };
    Client::try_from(config).context("no client of the API server can be made")
}
