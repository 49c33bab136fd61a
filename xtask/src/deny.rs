//! `cargo xtask deny`: checks licences, bans, sources and advisories of every crate in Cargo.lock, with cargo-deny and
//! deny.toml.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{facts, workspace};

/// The version of cargo-deny that is built if none is installed.
const CARGO_DENY: &str = "0.20.2";

/// Check licences, banned crates, sources and advisories of every dependency.
///
/// Uses cargo-deny from the cache or the path. If there is none, builds it into the cache once, which takes about three
/// minutes on two cores. The rules and their reasons are in deny.toml.
///
/// Advisories are checked against RUSTSEC's database if this machine has it (`cargo deny fetch db` downloads it), and
/// always against the list in deny.toml, which needs no network.
#[derive(Args, Default)]
pub(crate) struct Deny {}

impl Deny {
    #[expect(clippy::unused_self, reason = "every verb has the same method")]
    pub(crate) fn run(self) -> Result<()> {
        let program = ensure()?;
        // Not offline: cargo needs the manifests of dependencies for other systems too, and downloads those that are
        // missing.
        let deny = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            // Without the graphs of dependents: `cargo tree --invert CRATE` prints them when they are needed.
            command.args(arguments).args(["check", "--hide-inclusion-graph"]).current_dir(workspace::root());
            command
        };
        workspace::run(deny(&["--locked"]).args(["bans", "licenses", "sources"]))
            .context("a dependency breaks a rule of deny.toml; the rule and its reason are above")?;
        if !has_advisories() {
            println!(
                "deny: NO ADVISORY DATABASE on this machine: only the list in deny.toml was checked; `cargo deny fetch db` downloads the database"
            );
            return Ok(());
        }
        workspace::run(deny(&["--locked", "--offline"]).arg("advisories"))
            .context("a dependency has an advisory, or the database is out of date: `cargo deny fetch db` updates it")
    }
}

/// Returns the path of cargo-deny, after building it if needed.
fn ensure() -> Result<PathBuf> {
    let root = workspace::cache()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let cached = root.join("bin/cargo-deny");
    if cached.is_file() {
        return Ok(cached);
    }
    if let Some(path) = facts::on_path("cargo-deny") {
        return Ok(path);
    }
    println!("deny: building cargo-deny {CARGO_DENY} into {}, once; this takes about three minutes", root.display());
    let mut install = workspace::cargo(&["install", "cargo-deny", "--locked", "--version", CARGO_DENY, "--root"]);
    workspace::run(install.arg(&root))
        .context("cargo-deny can't be built; you can also install it yourself: `cargo install cargo-deny`")?;
    Ok(cached)
}

/// Whether RUSTSEC's database exists where cargo-deny keeps it.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let databases = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    databases.is_some_and(|mut databases| databases.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}
