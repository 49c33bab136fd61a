//! `cargo xtask fuzz`: feeds random input to all parsers of untrusted input.
//!
//! Uses libFuzzer, with the coverage that the pinned compiler supports: no nightly, and therefore no address sanitizer.
//! The targets are safe Rust, where a finding is a panic, an overflow, a sum that does not add up, a hang, or unbounded
//! memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mcad_wire::report::Report;
use prost::Message as _;
use xtask::workspace;

use crate::guest::TARGET;

/// Fuzz the parsers of untrusted input: reports, replayed reports, dumps, API objects, state transfers of another
/// replica, short texts such as selectors and tokens.
///
/// Each target runs for the given time. A finding ends its target, is printed, and is kept in target/fuzz/findings.
/// Inputs that reached new code are kept in target/fuzz/corpus, and the next run continues from there.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only this target; may be given several times
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    seconds: u32,
    /// Seed of the random numbers, to repeat a run; by default each run has its own
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// Two minutes for all targets together, with a fixed seed, as CI does
    #[arg(long, conflicts_with_all = ["seconds", "seed", "target"])]
    briefly: bool,
}

/// A target, the folder of its initial inputs, and their maximum length.
struct Case {
    name: &'static str,
    seeds: &'static str,
    bytes_at_most: u32,
}

const CASES: [Case; 6] = [
    Case { name: "report", seeds: "agent/tests/golden", bytes_at_most: 65_536 },
    Case { name: "report_json", seeds: "agent/tests/golden", bytes_at_most: 65_536 },
    Case { name: "dump", seeds: "aggregator/tests/cases", bytes_at_most: 16_384 },
    Case { name: "object", seeds: "aggregator/tests/objects", bytes_at_most: 65_536 },
    Case { name: "state_transfer", seeds: "", bytes_at_most: 16_384 },
    Case { name: "words", seeds: "", bytes_at_most: 512 },
];

/// The time for all targets together in CI. CI uses the same inputs each time, so a finding there is caused by the
/// change. Long runs find new inputs.
const BRIEFLY_S: u32 = 120;

/// A single input may take this long, with coverage and on a busy machine, before it counts as a hang.
const HANG_S: u32 = 60;

/// The memory limit. A report of the maximum size uses less.
const MEMORY_MIB: u32 = 1_024;

impl Fuzz {
    pub(crate) fn run(mut self) -> Result<()> {
        if self.briefly {
            (self.seconds, self.seed) = (BRIEFLY_S / CASES.len() as u32, Some(1));
        }
        if let Some(unknown) = self.target.iter().find(|asked| CASES.iter().all(|case| case.name != **asked)) {
            bail!("there is no target {unknown}; the targets are {}", CASES.map(|case| case.name).join(", "));
        }
        println!("fuzz: building (minutes the first time)");
        build()?;
        let mut found = Vec::new();
        for case in CASES.iter().filter(|case| self.target.is_empty() || self.target.iter().any(|t| t == case.name)) {
            println!("fuzz: {} for {} s", case.name, self.seconds);
            if !case.run(self.seconds, self.seed)? {
                found.push(case.name);
            }
        }
        ensure!(
            found.is_empty(),
            "findings in {}; their inputs are in {}",
            found.join(", "),
            folder("findings")?.display()
        );
        println!("fuzz: no finding");
        Ok(())
    }
}

impl Case {
    /// Runs a target. Returns whether nothing was found.
    fn run(&self, seconds: u32, seed: Option<u32>) -> Result<bool> {
        let (corpus, findings) = (folder(&format!("corpus/{}", self.name))?, folder("findings")?);
        self.seed(&corpus)?;
        let status = Command::new(program(self.name))
            .arg(&corpus)
            .arg(format!("-artifact_prefix={}/{}-", findings.display(), self.name))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", self.bytes_at_most))
            .arg(format!("-timeout={HANG_S}"))
            // 0 makes libFuzzer choose a new seed each time.
            .arg(format!("-seed={}", seed.unwrap_or(0)))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .current_dir(workspace::root())
            .status()
            .with_context(|| format!("cannot start the target {}", self.name))?;
        Ok(status.success())
    }

    /// Puts the initial inputs into the corpus: text files as they are, reports in their wire format.
    fn seed(&self, corpus: &Path) -> Result<()> {
        if self.seeds.is_empty() {
            return Ok(());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(workspace::root().join(self.seeds))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json" || extension == "yaml") {
                files.push(path);
            }
        }
        ensure!(!files.is_empty(), "{} has no initial inputs", self.seeds);
        for file in files {
            let name = file.file_name().context("a file has a name")?;
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let seed = match self.name {
                "report" => serde_json::from_str::<Report>(&text)?.encode_to_vec(),
                _ => text.into_bytes(),
            };
            std::fs::write(corpus.join(name), seed)?;
        }
        Ok(())
    }
}

/// With an explicit target triple, build scripts and macros are built without coverage.
fn build() -> Result<()> {
    workspace::run(
        workspace::cargo(&["build", "--quiet", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml"])
            .args(["--target", TARGET, "--target-dir", "target/fuzz"])
            .env(
                "RUSTFLAGS",
                "-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
                 -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
                 -C llvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing",
            ),
    )
}

fn program(name: &str) -> PathBuf {
    workspace::root().join("target/fuzz").join(TARGET).join("release").join(name)
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::root().join("target/fuzz").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
