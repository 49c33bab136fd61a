//! Rules of the repository as tests: which files may import which crates, which files are pure, and whether documents
//! match the tree.
//!
//! Text is searched, not parsed: unusual spelling can defeat a rule, but nobody does that by accident. What the
//! compiler and clippy check (unsafe without its reason, unwrap) is not checked here.

use std::collections::BTreeSet;
use std::path::Path;

use imports::Crate;

use crate::workspace;

mod imports;

/// A crate, and the only files or folders (without `.rs`) that may name it. The rest of the tree does not use its
/// types, so that the crate can be replaced and the rest tested without it.
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
        &[
            "agent/src/admin",
            "agent/src/self_metrics",
            "aggregator/present/src/families",
            "aggregator/src/self_metrics",
        ],
    ),
];

/// Files that only compute: no clock, no I/O, no lock, no log. All files of the aggregator's pure crates are such
/// files; there, most of the crates that would be needed for I/O are missing in `Cargo.toml` already.
const PURE: [&str; 12] = [
    "agent/src/offsets",
    "agent/src/source/values",
    "agent/src/report",
    "agent/src/node_metrics",
    "agent/src/status",
    "aggregator/accounting/src",
    "aggregator/present/src",
    "aggregator/src/leader/election",
    "aggregator/src/trust/rotation",
    "aggregator/src/trust/claims",
    "aggregator/src/trust/verdict",
    "wire/src",
];

/// Crates of the aggregator, and the crates that must not be among their dependencies, direct or indirect.
const WALLS: [(&str, &[&str]); 2] = [
    (
        "mcad-accounting",
        &["tokio", "hyper", "kube", "kube-client", "kube-core", "prometheus", "tracing", "mcad-present"],
    ),
    ("mcad-present", &["tokio", "hyper", "kube", "kube-client", "kube-core"]),
];

/// Names that do not occur in a pure file.
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
    /// Whether this is `place`, or one of its modules.
    fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || rest == "_tests.rs")
    }

    /// The lines of code, numbered from 1, without tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("tests.rs");
        let lines = self.text.lines().take_while(move |line| !is_test && *line != "mod tests {");
        lines.enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn files() -> Vec<String> {
    workspace::files().unwrap()
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
            Some(format!("{}:{number} uses {impure}, but must only compute", source.path))
        })
    }));
}

#[test]
fn walls_are_walls_by_what_a_crate_depends_on() {
    check(WALLS.iter().flat_map(|(package, forbidden)| {
        let words =
            ["tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"];
        let tree = workspace::output(&mut workspace::cargo(&words)).unwrap();
        let crates: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(crates.contains(package) && crates.contains("serde"), "{tree}");
        let found: Vec<_> = forbidden.iter().filter(|name| crates.contains(*name)).collect();
        found.into_iter().map(|name| format!("{package} depends on {name}")).collect::<Vec<_>>()
    }));
}

/// Folders of sources whose modules are declared in the order in which data flows.
const IN_ORDER: [&str; 7] = [
    "wire/src",
    "agent/src",
    "aggregator/accounting/src",
    "aggregator/present/src",
    "aggregator/src",
    "lab/src",
    "xtask/src",
];

#[test]
fn data_flows_one_way() {
    let sources = sources();
    check(IN_ORDER.iter().flat_map(|root| Crate::read(root, &sources).arrows_to_the_right()));
}

#[test]
fn no_files_import_one_another() {
    let sources = sources();
    let roots: BTreeSet<&str> =
        sources.iter().filter_map(|source| source.path.find("/src/").map(|at| &source.path[..at + 4])).collect();
    assert!(roots.len() > 10, "{roots:?}");
    check(roots.into_iter().flat_map(|root| Crate::read(root, &sources).circles()));
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
    // The folder where a node's operating system keeps NVIDIA's library is not one of these.
    let homes = [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let system = concat!("/ho", "me/kubernetes/bin/nvidia");
    check(files().into_iter().flat_map(|path| {
        // Files that are not text have no such names in them.
        let text = std::fs::read_to_string(workspace::root().join(&path)).unwrap_or_default().replace(system, "");
        let found: Vec<_> = homes.iter().filter(|home| names_folder(&text, home)).collect();
        found.into_iter().map(|home| format!("{path} names {home}")).collect::<Vec<_>>()
    }));
}

/// Whether the text contains this absolute path as a whole, and not only inside a longer one.
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
    // `source/bpf` is a module and may become a folder; a path here ends in a file extension. Paths below / are on
    // other machines.
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

/// Whether the file exists, and the heading in it. `text` is that of the document that contains the link.
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

/// The anchors of headings, as the usual hosts generate them.
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
    // One reason may cover several exceptions.
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
