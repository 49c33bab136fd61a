//! `mcad-aggregator dump`: from the command line to the last byte. [`crate::list`] lists and writes.
use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use crate::args::Dump;
use crate::clock::Clock;
use crate::connection;
use crate::dump::record::ListState;
use crate::list;
use anyhow::{Context as _, Result};
use kube::Client;
use mcad_present::explain::amount::printable;

/// Writes a dump to standard output, and its progress to standard error.
pub async fn dump(args: &Dump) -> Result<ExitCode> {
    let client = Client::try_from(connection::config(&args.kubeconfig).await?)
        .context("cannot create a client for the API server")?;
    let mut stdout = BufWriter::new(std::io::stdout());
    let mut tell = |sentence: String| {
        // If nobody reads it, the dump still records the same.
        let _ = writeln!(std::io::stderr(), "{}", printable(&sentence));
    };
    let record = list::write(&client, &Clock::system(), &mut stdout, &mut tell).await?;
    let is_whole = record.lists.iter().all(|list| list.state != ListState::Failed);
    if !is_whole {
        tell("The dump is incomplete: the lines above and the dump name what could not be listed.".to_owned());
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
