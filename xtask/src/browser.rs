//! What the tests of the page need: a browser and its driver, from Debian; and axe-core, installed by npm into the
//! target folder. Neither is part of the repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{facts, workspace};

/// The versions of the npm packages are pinned in these files, together with their hashes.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs what is missing. If that fails, prints a message; tests that need the missing program are then skipped.
pub(crate) fn ensure_or_say() {
    for (what, outcome) in
        [("a browser", chromium()), ("axe-core", axe()), ("programs that examples use", of_examples())]
    {
        if let Err(error) = outcome {
            println!("test: WITHOUT {what}, tests that need it are skipped: {error:#}");
        }
    }
}

/// Installs Chromium and its driver. They need too many libraries to be unpacked into a folder.
pub fn chromium() -> Result<()> {
    if facts::on_path("chromedriver").is_some() && facts::on_path("chromium").is_some() {
        return Ok(());
    }
    install(&["chromium", "chromium-driver"])
}

/// Programs that the examples in documents and `--help` pipe into, and `ip`, which gives a test its own network.
fn of_examples() -> Result<()> {
    let missing: Vec<_> = [("jq", "jq"), ("curl", "curl"), ("ip", "iproute2")]
        .into_iter()
        .filter(|(program, _)| facts::on_path(program).is_none())
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(packages: &[&str]) -> Result<()> {
    let line = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    ensure!(
        facts::on_path("apt-get").is_some(),
        "there is no apt-get on this machine to install {}",
        packages.join(", ")
    );
    ensure!(workspace::is_root(), "not root; run: sudo {line}");
    println!("test: $ {line}");
    workspace::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--quiet=2", "--no-install-recommends"]).args(packages);
    workspace::run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn axe() -> Result<()> {
    let folder: PathBuf = workspace::target().join("axe");
    if folder.join("node_modules/axe-core/axe.min.js").is_file() {
        return Ok(());
    }
    if facts::on_path("npm").is_none() {
        install(&["npm"])?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for name in MANIFESTS {
        let pinned = workspace::root().join("xtask/axe").join(name);
        std::fs::copy(&pinned, folder.join(name)).with_context(|| format!("cannot copy {}", pinned.display()))?;
    }
    println!("test: installing axe-core with npm into {}", folder.display());
    // `npm ci` installs exactly what the lock file names, checks it against its hash, and with these options runs no
    // script of a package.
    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    workspace::run(Command::new("npm").args(words).current_dir(&folder))
}
