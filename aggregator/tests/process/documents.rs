//! What documents and `--help` tell people to type: every line is a command line of this version, and what needs no cluster is run.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{CommandFactory as _, Parser as _};
use mcad_accounting::ladder::Reason;
use mcad_accounting::reported::NoNews;
use mcad_agent::sample::gpu::WorkerEnd;
use mcad_agent::self_metrics::SendFailure;
use mcad_aggregator::receive::Refusal;
use mcad_aggregator::self_metrics::{self, Closed};
use mcad_present::exposition::Family;
use mcad_present::metrics;
use mcad_testkit::golden::check_file;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and everything in docs, as text.
fn documents() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let all = docs.chain([repository().join("README.md"), repository().join("deploy/README.md")]);
    let documents = all.filter(|path| path.extension().is_some_and(|end| end == "md"));
    documents.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The command lines of our two programs in a text: `cargo run --bin X -- …` is X, and a pipe ends it.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).map(|line| line.strip_prefix("$ ").unwrap_or(line));
    let mut found = Vec::new();
    for line in lines {
        for command in line.split(" | ") {
            let command = command.split(" # ").next().unwrap().split(" > ").next().unwrap();
            let command = command.strip_prefix("source <(").map_or(command, |inner| inner.trim_end_matches(')'));
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            let bin = words.iter().position(|word| word == "--bin").and_then(|at| words.get(at + 1)).cloned();
            let rest = words.iter().position(|word| word == "--").map(|at| words[at + 1..].to_vec());
            match (words.first().map(String::as_str), bin, rest) {
                (Some("cargo"), Some(bin), Some(rest)) => found.push([vec![bin], rest].concat()),
                (Some("mcad-agent" | "mcad-aggregator"), ..) if words.len() > 1 && is_given(&words[1]) => {
                    found.push(words);
                }
                _ => {}
            }
        }
    }
    found
}

/// A sentence may begin with a program's name.
fn is_given(word: &str) -> bool {
    word.starts_with("--") || ["explain", "status", "completions", "forget-gpus"].contains(&word)
}

fn refusal(words: &[String]) -> Option<String> {
    let error = match words[0].as_str() {
        "mcad-agent" => mcad_agent::args::Args::try_parse_from(words).err()?,
        "mcad-aggregator" => mcad_aggregator::args::Args::try_parse_from(words).err()?,
        other => return Some(format!("{other} is no program of ours")),
    };
    let asked = matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
    (!asked).then(|| error.to_string())
}

#[test]
fn every_command_that_documents_and_help_show_is_one() {
    let help = |command: clap::Command| {
        let of = |command: &clap::Command| command.get_after_help().map(ToString::to_string);
        let all: Vec<_> = of(&command).into_iter().chain(command.get_subcommands().filter_map(of)).collect();
        (command.get_name().to_owned(), all.join("\n"))
    };
    let mut texts = documents();
    texts.push(help(mcad_agent::args::Args::command()));
    texts.push(help(mcad_aggregator::args::Args::command()));
    let lines: Vec<_> = texts
        .iter()
        .flat_map(|(name, text)| command_lines(text).into_iter().map(move |words| (name, words)))
        // What stands for a value of the reader's own.
        .filter(|(_, words)| !words.iter().any(|word| word == "…" || word.contains("...")))
        .collect();
    assert!(lines.len() >= 15, "{lines:#?}");
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|(name, words)| Some(format!("{name}: {}: {}", words.join(" "), refusal(words)?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_explains_the_cluster_of_its_picture() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let words = command_lines(&readme)
        .into_iter()
        .find(|words| words.iter().any(|word| word.contains("scene/cluster")))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator"))
        .args(&words[1..])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("vit-huge") && text.contains("at most 4 on one node"), "{text}");
}

#[test]
fn shells_understand_the_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator")).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("--operator-metrics") || script.contains("operator-metrics"), "{shell}: {script}");
        let checked = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn();
        let Ok(mut checking) = checked else {
            // The others are optional on a machine; every one has bash.
            assert_ne!(shell, "bash");
            continue;
        };
        checking.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(checking.wait().unwrap().success(), "{shell} does not understand its completions");
    }
}

/// A family's row of docs/metrics.md.
fn row(name: &str, kind: &dyn Display, labels: &[&str], unit: &str, help: &str) -> String {
    let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(" ") };
    format!("| `{name}` | {kind} | {labels} | {unit} | {help} |\n")
}

/// The table below the sentence that begins with the family has the reasons that its label can have, and no others.
#[track_caller]
fn check_reasons(page: &str, family: &str, reasons: impl Iterator<Item = &'static str>) {
    let (_, rest) = page.split_once(&format!("\n\n`{family}` counts ")).unwrap();
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<_> = rows.skip(2).map(|row| row.split('`').nth(1).unwrap()).collect();
    assert_eq!(listed, reasons.collect(), "{family} in docs/metrics.md");
}

#[test]
fn docs_metrics_md_lists_what_there_is() {
    let of_aggregator = |Family { name, kind, labels, unit, help }: &Family| row(name, kind, labels, unit, help);
    let of_agent = |family: &mcad_agent::self_metrics::Family| {
        row(family.name, &family.kind, family.labels, family.unit, family.help)
    };
    let tables: String = [
        ("The cluster", metrics::all().map(of_aggregator).collect::<String>()),
        ("The aggregator itself", self_metrics::FAMILIES.iter().copied().map(of_aggregator).collect()),
        ("The agent itself", mcad_agent::self_metrics::FAMILIES.iter().copied().map(of_agent).collect()),
    ]
    .map(|(title, rows)| {
        format!("## {title}\n\n| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n{rows}\n")
    })
    .concat();
    let path = repository().join("docs/metrics.md");
    // The reasons' sentences are written by hand; that none is missing is not.
    let page = std::fs::read_to_string(&path).unwrap();
    for reason in NoNews::REASONS {
        assert!(page.contains(&format!("`{reason}`")), "{} does not say what {reason} is", path.display());
    }
    check_reasons(&page, "mcad_aggregator_reports_refused_total", Refusal::reasons());
    check_reasons(&page, "mcad_aggregator_connections_refused_total", Closed::reasons());
    check_reasons(&page, "mcad_agent_report_send_failures_total", SendFailure::reasons());
    let ends = WorkerEnd::ALL.into_iter().map(WorkerEnd::as_str);
    check_reasons(&page, "mcad_agent_nvml_worker_ends_total", ends);
    let (begin, end) = ("<!-- families: begin -->\n", "<!-- families: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    check_file(&path, &format!("{before}{begin}\n{tables}{end}{after}"));
}

#[test]
fn every_reason_stands_in_the_documents_that_list_them() {
    for path in ["docs/api.md", "docs/accounting.md"] {
        let page = std::fs::read_to_string(repository().join(path)).unwrap();
        for reason in Reason::ALL {
            let label = reason.label();
            assert!(page.contains(&format!("`{label}`")), "{path} does not say what `{label}` is");
        }
    }
}
