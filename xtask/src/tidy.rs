//! The repository's promises as tests: who may import what, which files are pure, documents that follow the tree.
//!
//! Text is searched, not parsed: a promise that can be broken by spelling it oddly is still kept by everyone who doesn't.
//! What the compiler and clippy check (unsafe without its reason, unwrap) is theirs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::workspace;

/// A crate, and the only places that may name it: files or folders, without `.rs`. The rest of the tree stays free of its
/// types, so that it can be replaced, and tested without it.
const IMPORTS: [(&str, &[&str]); 13] = [
    ("aya", &["agent/src/probe", "agent/src/source/bpf"]),
    ("nvml_wrapper", &["agent/src/source/gpu"]),
    ("nvml_wrapper_sys", &["agent/src/source/gpu", "fake-nvml/src"]),
    ("kube::runtime", &["aggregator/src/watch", "aggregator/src/main"]),
    (
        "hyper",
        &["agent/src/sender", "agent/src/admin", "aggregator/src/server", "aggregator/src/peer", "fake-kubelet/src"],
    ),
    (
        "hyper_util",
        &["agent/src/sender", "agent/src/admin", "aggregator/src/server", "aggregator/src/peer", "fake-kubelet/src"],
    ),
    ("tonic", &["agent/src/source/pods", "fake-kubelet/src"]),
    ("rustls", &["agent/src/sender", "aggregator/src/trust"]),
    ("tokio_rustls", &["agent/src/sender", "aggregator/src/server", "aggregator/src/peer"]),
    ("rcgen", &["aggregator/src/trust"]),
    ("ring", &["agent/src/sender", "aggregator/src/trust"]),
    ("x509_parser", &["aggregator/src/trust"]),
    (
        "prometheus",
        &["agent/src/admin", "agent/src/self_metrics", "aggregator/src/families", "aggregator/src/self_metrics"],
    ),
];

/// Files that turn values into values: no clock, no I/O, no lock, no log.
const PURE: [&str; 25] = [
    "agent/src/report",
    "agent/src/status",
    "aggregator/src/demand",
    "aggregator/src/capacity",
    "aggregator/src/fit",
    "aggregator/src/merge",
    "aggregator/src/quantity",
    "aggregator/src/resource",
    "aggregator/src/histogram",
    "aggregator/src/hardware",
    "aggregator/src/ladder",
    "aggregator/src/views",
    "aggregator/src/options",
    "aggregator/src/snapshot",
    "aggregator/src/families",
    "aggregator/src/metrics",
    "aggregator/src/explain",
    "aggregator/src/api",
    "aggregator/src/history",
    "aggregator/src/page",
    "aggregator/src/leader/election",
    "aggregator/src/trust/rotation",
    "aggregator/src/trust/claims",
    "aggregator/src/trust/verdict",
    "wire/src",
];

/// What a pure file does not name.
const IMPURE: [&str; 12] = [
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "tokio",
    "tracing",
    "Mutex",
    "RwLock",
    "println!",
    "Atomic",
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Whether it is `place`, or one of `place`'s modules.
    fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || rest == "_tests.rs")
    }

    /// The lines that are code, numbered from 1, without those that only test it.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("tests.rs") || self.path.ends_with("tidy.rs");
        let lines = self.text.lines().take_while(move |line| !is_test && *line != "mod tests {");
        lines.enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// Every file that is or is about to be part of the repository.
fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(workspace::root());
    let listed = workspace::output(&mut git).unwrap();
    listed.lines().filter(|path| workspace::root().join(path).is_file()).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources() -> Vec<Source> {
    let rust = |path: &String| Path::new(path).extension().is_some_and(|extension| extension == "rs");
    let sources: Vec<_> = files().into_iter().filter(rust).map(|path| Source { text: read(&path), path }).collect();
    assert!(sources.len() > 10, "only {} sources found", sources.len());
    sources
}

fn check(broken: impl IntoIterator<Item = String>) {
    let broken: Vec<_> = broken.into_iter().collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Whether a line of code names the crate or path: `aya::`, `use aya;`, but neither `aya_ebpf` nor `crate::aya`.
fn names(line: &str, path: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(path).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + path.len()..]);
        let used = before.trim_end().ends_with("use") && !after.starts_with(part_of_word);
        !before.ends_with(part_of_word) && !before.ends_with(':') && (used || after.starts_with("::"))
    })
}

#[test]
fn a_crate_is_named_only_where_it_may_be() {
    check(sources().iter().filter(|source| source.path.contains("/src/")).flat_map(|source| {
        let forbidden = IMPORTS.iter().filter(|(_, places)| !places.iter().any(|place| source.is_in(place)));
        forbidden.flat_map(move |(path, places)| {
            let lines = source.code().filter(|(_, line)| names(line, path));
            lines.map(move |(number, _)| format!("{}:{number} names {path}; only {places:?} may", source.path))
        })
    }));
}

#[test]
fn naming_a_crate_is_told_from_names_that_look_alike() {
    assert!(names("use aya::Btf;", "aya"));
    assert!(names("    Load(#[source] aya::EbpfError),", "aya"));
    assert!(names("use aya;", "aya"));
    assert!(names("use kube::runtime::watcher;", "kube::runtime"));
    assert!(!names("use aya_ebpf::maps;", "aya"));
    assert!(!names("use crate::prometheus::x;", "prometheus"));
    assert!(!names("let himalaya = 1;", "aya"));
    assert!(!names("use hyper_util::rt;", "hyper"));
}

#[test]
fn pure_files_have_no_clock_no_files_no_lock_and_no_log() {
    check(sources().iter().filter(|source| PURE.iter().any(|place| source.is_in(place))).flat_map(|source| {
        let lines = source.code();
        lines.filter_map(|(number, line)| {
            let impure = IMPURE.iter().find(|word| line.contains(**word))?;
            Some(format!("{}:{number} names {impure}, and is to be pure", source.path))
        })
    }));
}

#[test]
fn channels_are_bounded() {
    let unbounded = concat!("unbounded", "_channel");
    check(sources().iter().flat_map(|source| {
        let lines = source.code().filter(|(_, line)| line.contains(unbounded));
        lines.map(|(number, _)| format!("{}:{number} makes a channel without a bound", source.path))
    }));
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    check(sources().iter().filter(silent).map(|source| format!("{} does not open with `//! `", source.path)));
}

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[", "ignore");
    let broken = |source: &&Source| source.text.contains(ignored);
    check(
        sources().iter().filter(broken).map(|source| {
            format!("{} ignores a test; one that can't run here prints `SKIPPED: ` and why", source.path)
        }),
    );
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    // Where a node's operating system keeps NVIDIA's library is no such folder.
    let homes = [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let system = concat!("/ho", "me/kubernetes/bin/nvidia");
    check(files().into_iter().flat_map(|path| {
        // What isn't text has no such names in it.
        let text = std::fs::read_to_string(workspace::root().join(&path)).unwrap_or_default().replace(system, "");
        let found: Vec<_> = homes.iter().filter(|home| names_folder(&text, home)).collect();
        found.into_iter().map(|home| format!("{path} names {home}")).collect::<Vec<_>>()
    }));
}

/// Whether the text has this absolute path, and not one that merely has it inside.
fn names_folder(text: &str, folder: &str) -> bool {
    let inside = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "_.-}*".contains(c));
    text.match_indices(folder).any(|(at, _)| !inside(&text[..at]))
}

#[test]
fn a_folder_is_told_from_one_of_the_same_name_further_down() {
    let folder = concat!("/ro", "ot/");
    assert!(names_folder(&format!("cd {folder}x"), folder) && names_folder(&format!("\"{folder}x\""), folder));
    assert!(!names_folder(&format!("target{folder}x"), folder));
}

#[test]
fn the_code_map_names_every_crate_and_nothing_that_is_gone() {
    let map = read("ARCHITECTURE.md");
    assert!(map.lines().count() <= 200, "ARCHITECTURE.md has {} lines; 200 are what one reads", map.lines().count());
    let manifest: Vec<_> = read("Cargo.toml").lines().map(str::to_owned).collect();
    let members = manifest.iter().find(|line| line.starts_with("members = ")).unwrap();
    let named: BTreeSet<_> = map.split('`').skip(1).step_by(2).collect();
    let crates = members.split('"').skip(1).step_by(2).map(|member| format!("{member}/"));
    check(crates.filter(|member| !named.contains(member.as_str())).map(|member| format!("{member} is not in the map")));
    // `source/bpf` is a module, and one day's; a path ends in what it is. Those under / are of other machines.
    let path = |name: &str| {
        name.contains('/') && !name.starts_with('/') && [".rs", ".md", "/"].iter().any(|end| name.ends_with(end))
    };
    let gone = named.iter().filter(|name| path(name) && !workspace::root().join(name).exists());
    check(gone.map(|path| format!("ARCHITECTURE.md names {path}, which is not there")));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = files().into_iter().filter(|path| Path::new(path).extension().is_some_and(|end| end == "md"));
    check(documents.flat_map(|path| {
        let folder = workspace::root().join(&path).parent().unwrap().to_owned();
        let text = read(&path);
        let links: Vec<_> = links(&text).map(str::to_owned).collect();
        let dead =
            links.into_iter().filter(move |link| !link.contains("://") && !leads_somewhere(&folder, &text, link));
        dead.map(|link| format!("{path} links to {link}, which is not there")).collect::<Vec<_>>()
    }));
}

/// The file is there, and the heading in it. `text` is that of the document that links.
fn leads_somewhere(folder: &Path, text: &str, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = folder.join(file);
    if !file.is_empty() && !target.exists() {
        return false;
    }
    let Some(anchor) = anchor else { return true };
    let other = if file.is_empty() { text.to_owned() } else { std::fs::read_to_string(target).unwrap_or_default() };
    anchors(&other).any(|known| known == anchor)
}

/// What headings are found by, as the usual hosts make it of their words.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.is_empty())
}

#[test]
fn links_are_found() {
    let found: Vec<_> = links("a [b](c.md) d [e](https://f) [g](h/i.md#j) [k](#l)").collect();
    assert_eq!(found, ["c.md", "https://f", "h/i.md#j", "#l"]);
    assert_eq!(anchors("# A b: `c`\ntext").collect::<Vec<_>>(), ["a-b-c"]);
}

#[test]
fn every_exception_from_a_lint_has_its_reason() {
    let manifest = read("Cargo.toml");
    let lines: Vec<_> = manifest.lines().collect();
    let exceptions: Vec<_> = lines.iter().enumerate().filter(|(_, line)| line.ends_with("= \"allow\"")).collect();
    assert!(!exceptions.is_empty());
    // One reason may stand over several.
    check(exceptions.iter().filter_map(|(index, line)| {
        let above = lines[..*index].iter().rev().find(|above| !above.ends_with("= \"allow\""));
        let explained = above.is_some_and(|above| above.starts_with("# ") && !above.contains("Exceptions"));
        (!explained).then(|| format!("Cargo.toml: {line} has no reason above it"))
    }));
}

#[test]
fn people_and_ci_run_the_same() {
    let readme = read("README.md");
    assert!(readme.contains("cargo xtask run") && readme.contains("cargo xtask test"), "README.md names both commands");
    assert!(read(".ci/run").lines().any(|line| line == "cargo xtask ci"), ".ci/run runs `cargo xtask ci`");
}

/// Commands that documents show, one each: the program and its words, for `cargo xtask`, `mcad-agent` and `mcad-aggregator`.
fn commands() -> Vec<(String, Vec<String>)> {
    let documents = files()
        .into_iter()
        .filter(|path| path == "README.md" || path == "deploy/README.md" || path.starts_with("docs/"));
    let documents = documents.filter(|path| Path::new(path).extension().is_some_and(|end| end == "md"));
    let mut commands = Vec::new();
    for path in documents {
        let text = read(&path);
        let mut inside = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                inside = line.contains("console");
            } else if let Some(command) = line.trim_start().strip_prefix("$ ").filter(|_| inside) {
                let command = command.split(" # ").next().unwrap_or(command).split(" | ").next().unwrap_or(command);
                commands.push((path.clone(), command.split_whitespace().map(str::to_owned).collect()));
            }
        }
    }
    commands
}

/// The program that a command is for, and what it is given: `cargo run --bin X -- …` is X.
fn program(words: &[String]) -> Option<(&str, &[String])> {
    let bin = words.iter().position(|word| word == "--bin").and_then(|at| words.get(at + 1));
    let rest = words.iter().position(|word| word == "--").map_or(&[][..], |at| &words[at + 1..]);
    match (words.first()?.as_str(), bin) {
        ("cargo", Some(bin)) => Some((bin, rest)),
        ("cargo", None) if words.get(1).is_some_and(|word| word == "xtask") => Some(("xtask", &words[2..])),
        ("mcad-agent" | "mcad-aggregator", _) => Some((words[0].as_str(), &words[1..])),
        _ => None,
    }
}

#[test]
fn commands_of_documents_are_told_apart() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let of = |line: &str| program(&words(line)).map(|(program, rest)| format!("{program}: {}", rest.join(" ")));
    assert_eq!(of("cargo run --release --bin mcad-agent -- status").as_deref(), Some("mcad-agent: status"));
    assert_eq!(of("cargo xtask run --fake-gpus 8").as_deref(), Some("xtask: run --fake-gpus 8"));
    assert_eq!(of("mcad-agent --once").as_deref(), Some("mcad-agent: --once"));
    assert_eq!(of("kubectl apply -k deploy/base"), None);
}

#[test]
fn every_verb_that_documents_show_is_one() {
    let shown: Vec<_> =
        commands().into_iter().filter(|(_, words)| matches!(program(words), Some(("xtask", _)))).collect();
    assert!(shown.len() >= 3, "{shown:?}");
    check(shown.iter().filter_map(|(path, words)| {
        let (_, rest) = program(words)?;
        let line = std::iter::once("xtask".to_owned()).chain(rest.iter().cloned());
        let error = crate::command().try_get_matches_from(line).err()?;
        let asked =
            matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
        (!asked).then(|| format!("{path}: {}: {error}", words.join(" ")))
    }));
}

#[test]
fn every_verb_that_help_names_is_one() {
    let own = crate::command();
    let helps = own.get_subcommands().chain([&own]).map(|verb| {
        let mut text = verb.clone().render_long_help().to_string().replace('\n', " ");
        // As wide as the terminal of whoever runs this: a command may be broken over two lines.
        while text.contains("  ") {
            text = text.replace("  ", " ");
        }
        (verb.get_name().to_owned(), text)
    });
    let named = helps.flat_map(|(name, help)| {
        let named = help.split("`cargo xtask ").skip(1).filter_map(|rest| rest.split('`').next());
        named.map(|rest| (name.clone(), rest.to_owned())).collect::<Vec<_>>()
    });
    let named: Vec<_> = named.collect();
    assert!(named.len() >= 5, "{named:?}");
    // What is written large stands for a name of the reader's own, and is one.
    check(named.into_iter().filter_map(|(verb, rest)| {
        let line = std::iter::once("xtask").chain(rest.split_whitespace());
        let error = crate::command().try_get_matches_from(line).err()?;
        Some(format!("{verb} --help: cargo xtask {rest}: {error}"))
    }));
}

#[test]
fn every_folder_and_file_that_documents_give_to_kubectl_is_there() {
    let given = commands().into_iter().filter(|(_, words)| words.first().is_some_and(|word| word == "kubectl"));
    check(given.filter_map(|(path, words)| {
        let at = words.iter().position(|word| word == "-k" || word == "-f")?;
        let folder = words.get(at + 1)?;
        (folder.starts_with("deploy/") && !workspace::root().join(folder).exists())
            .then(|| format!("{path} names {folder}, which is not there"))
    }));
}
