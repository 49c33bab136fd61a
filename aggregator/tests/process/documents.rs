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
use mcad_aggregator::args::plugin::PluginArgs;
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

/// Everything in docs, decisions included: the name, and the lines outside of code blocks with their numbers.
fn pages() -> Vec<(String, Vec<(usize, String)>)> {
    let folders = ["docs", "docs/decisions"].map(|folder| repository().join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.sort();
    let lines = |path: &PathBuf| {
        let mut is_code = false;
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().zip(1..).filter(|(line, _)| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_fence && !is_code
        });
        lines.map(|(line, number)| (number, line.to_owned())).collect()
    };
    files.iter().map(|path| (path.strip_prefix(repository()).unwrap().display().to_string(), lines(path))).collect()
}

/// What a line break may not divide: words, code spans, and links.
fn unbreakable(line: &str) -> usize {
    let (mut parts, mut is_code, mut is_target) = (0, false, false);
    for word in line.split_whitespace() {
        parts += usize::from(!is_code && !is_target);
        is_code ^= word.matches('`').count() % 2 == 1;
        is_target = !is_code && word.rfind("](").is_some_and(|at| !word[at..].contains(')'));
    }
    parts
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
                (Some("kubectl"), ..)
                    if words.get(1).is_some_and(|word| word == "mcad") && is_of_plugin(&words[2..]) =>
                {
                    found.push([vec!["kubectl-mcad".to_owned()], words[2..].to_vec()].concat());
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

/// The same of `kubectl mcad`.
fn is_of_plugin(words: &[String]) -> bool {
    let verbs = ["why", "nodes", "gpus", "completions"];
    words.first().is_none_or(|word| word.starts_with('-') || verbs.contains(&word.as_str()))
}

fn refusal(words: &[String]) -> Option<String> {
    let error = match words[0].as_str() {
        "mcad-agent" => mcad_agent::args::Args::try_parse_from(words).err()?,
        "mcad-aggregator" => mcad_aggregator::args::Args::try_parse_from(words).err()?,
        "kubectl-mcad" => PluginArgs::try_parse_from(words).err()?,
        other => return Some(format!("{other} is no program of ours")),
    };
    let asked = matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
    (!asked).then(|| error.to_string())
}

#[test]
fn every_command_that_documents_and_help_show_is_one() {
    let help = |command: clap::Command| {
        let of = |command: &clap::Command| {
            let both = [command.get_after_help(), command.get_after_long_help()].into_iter().flatten();
            both.map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let all: Vec<_> = [of(&command)].into_iter().chain(command.get_subcommands().map(of)).collect();
        (command.get_name().to_owned(), all.join("\n"))
    };
    let mut texts = documents();
    texts.push(help(mcad_agent::args::Args::command()));
    texts.push(help(mcad_aggregator::args::Args::command()));
    texts.push(help(PluginArgs::command()));
    let lines: Vec<_> = texts
        .iter()
        .flat_map(|(name, text)| command_lines(text).into_iter().map(move |words| (name, words)))
        // What stands for a value of the reader's own.
        .filter(|(_, words)| !words.iter().any(|word| word == "…" || word.contains("...")))
        .collect();
    assert!(lines.len() >= 15, "{lines:#?}");
    assert!(lines.iter().filter(|(_, words)| words[0] == "kubectl-mcad").count() >= 12, "{lines:#?}");
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
    let programs = [
        (env!("CARGO_BIN_EXE_mcad-aggregator"), "operator-metrics"),
        (env!("CARGO_BIN_EXE_kubectl-mcad"), "namespace"),
    ];
    for (shell, (program, flag)) in ["bash", "zsh", "fish"].iter().flat_map(|shell| programs.map(|of| (*shell, of))) {
        let output = Command::new(program).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(flag), "{shell}: {script}");
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

#[test]
fn no_table_cell_is_longer_than_a_phrase() {
    const PHRASE: usize = 200;
    let mut long = Vec::new();
    for (name, lines) in pages() {
        for (number, line) in lines.iter().filter(|(_, line)| line.trim_start().starts_with('|')) {
            let line = line.replace("\\|", "/");
            for cell in line.split('|').map(str::trim).filter(|cell| cell.chars().count() > PHRASE) {
                long.push(format!("{name}:{number}: {} characters: {cell}", cell.chars().count()));
            }
        }
    }
    assert!(long.is_empty(), "longer than {PHRASE} characters; put it below the table:\n{}", long.join("\n"));
}

#[test]
fn prose_is_wrapped_at_100_columns() {
    const COLUMNS: usize = 100;
    let mut long = Vec::new();
    for (name, lines) in pages() {
        for (number, line) in &lines {
            let prose = line.trim_start();
            let item = prose.strip_prefix("- ").unwrap_or(prose);
            if line.chars().count() > COLUMNS && !prose.starts_with('|') && unbreakable(item) > 1 {
                long.push(format!("{name}:{number}: {line}"));
            }
        }
    }
    assert!(long.is_empty(), "longer than {COLUMNS} columns:\n{}", long.join("\n"));
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
