//! Which module imports which, read from the paths in the sources: `crate::…` and `super::…`, in `use` lines and
//! elsewhere.
//!
//! A file and those in its own folder count as one: a module may use its submodules, and they may use it.
use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// A module, as its names from the crate's root. The root itself has none.
pub(super) type Module = Vec<String>;

/// The modules of one crate.
pub(super) struct Crate {
    root: String,
    /// Which modules each module names.
    imports: BTreeMap<Module, BTreeSet<Module>>,
    /// The top-level modules, in the order in which the root declares them.
    order: Vec<String>,
}

impl Crate {
    /// The crate whose sources are in `root`, a folder such as `agent/src`.
    pub(super) fn read(root: &str, sources: &[Source]) -> Self {
        let of_crate = |source: &&Source| source.is_in(root) && !source.path.contains("tests");
        let files: Vec<(Module, &Source)> =
            sources.iter().filter(of_crate).filter_map(|source| Some((module(root, &source.path)?, source))).collect();
        let known: BTreeSet<&Module> = files.iter().map(|(module, _)| module).collect();
        let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        let mut order = Vec::new();
        for (module, source) in &files {
            let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
            if module.is_empty() && order.is_empty() {
                order = code.lines().filter_map(declared).map(str::to_owned).collect();
            }
            let named = paths(&code).into_iter().filter_map(|path| resolve(module, &path, &known));
            let others = named.filter(|other| !other.starts_with(module) && !module.starts_with(other));
            imports.entry(module.clone()).or_default().extend(others);
        }
        Self { root: root.to_owned(), imports, order }
    }

    /// Top-level modules that name a module which is declared after them.
    pub(super) fn arrows_to_the_right(&self) -> Vec<String> {
        let place = |module: &Module| self.order.iter().position(|name| Some(name) == module.first());
        let mut arrows = Vec::new();
        for (module, others) in &self.imports {
            for other in others {
                if let (Some(here), Some(there)) = (place(module), place(other))
                    && there > here
                {
                    arrows.push(format!("{}: {} names {}, to its right", self.root, show(module), show(other)));
                }
            }
        }
        arrows
    }

    /// Modules that name one another, directly or indirectly.
    pub(super) fn circles(&self) -> Vec<String> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> =
            self.imports.keys().map(|module| (module, self.reach(module))).collect();
        let in_circle = |module: &&&Module| reach[**module].contains(**module);
        reach.keys().filter(in_circle).map(|module| format!("{}: {} is in a circle", self.root, show(module))).collect()
    }

    /// All modules that a module names, directly or indirectly.
    fn reach(&self, from: &Module) -> BTreeSet<&Module> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&Module> = self.imports[from].iter().collect();
        while let Some(module) = next.pop() {
            if found.insert(module) {
                next.extend(&self.imports[module]);
            }
        }
        found
    }
}

fn show(module: &Module) -> String {
    module.join("/")
}

/// `agent/src/source/gpu/mod.rs` is `source`, `gpu`.
fn module(root: &str, path: &str) -> Option<Module> {
    let path = path.strip_prefix(root)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let is_root = path == "lib" || path == "main";
    Some(if is_root { Module::new() } else { path.split('/').map(str::to_owned).collect() })
}

/// The name in `pub mod name;`.
fn declared(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
    (before.is_empty() || before.starts_with("pub") && !before.starts_with("pub use")).then_some(name)
}

/// All paths in the code that begin at the crate's root or at a parent module, with braces expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if is_whole {
                expand(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a tree of paths, and returns the text after it.
fn expand<'a>(mut rest: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = before.len();
    loop {
        rest = rest.trim_start();
        if let Some(mut inner) = rest.strip_prefix('{') {
            while !inner.trim_start().starts_with('}') && !inner.is_empty() {
                inner = expand(inner, before, found).trim_start();
                // Skip `as name`, up to the comma.
                inner = inner.find([',', '}']).map_or("", |at| &inner[at..]);
                inner = inner.strip_prefix(',').unwrap_or(inner);
            }
            before.truncate(depth);
            return inner.trim_start().strip_prefix('}').unwrap_or(inner);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        before.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) if more.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{') => rest = more,
            _ => break,
        }
    }
    found.push(before.clone());
    before.truncate(depth);
    rest
}

/// The innermost module that a path leads into. `None` if that is the root, which counts as nobody's neighbour.
fn resolve(module: &Module, path: &[String], known: &BTreeSet<&Module>) -> Option<Module> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let mut full = if path.first().is_some_and(|name| name == "crate") {
        path[1..].to_vec()
    } else {
        [&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()
    };
    full.retain(|name| name != "self" && !name.is_empty());
    while !full.is_empty() && !known.contains(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn an_arrow_to_the_right_and_a_circle_are_found() {
    let sources = [
        source("x/src/lib.rs", "//! X.\npub mod first;\nmod second;\n"),
        source("x/src/first.rs", "//! First.\nmod part;\nuse crate::{second::Thing, first::part};\n"),
        source("x/src/first/part.rs", "//! Part.\nuse super::Whole;\n"),
        source("x/src/second.rs", "//! Second.\nfn f() { crate::first::part::g() }\n// crate::third\n"),
    ];
    let read = Crate::read("x/src", &sources);
    assert_eq!(read.arrows_to_the_right(), ["x/src: first names second, to its right"]);
    assert_eq!(read.circles(), Vec::<String>::new(), "a file and its parts are one");

    let back = source("x/src/first/part.rs", "//! Part.\nuse crate::second::{self, deep::{A as B, C}};\n");
    let [lib, first, _, second] = sources;
    let read = Crate::read("x/src", &[lib, first, back, second]);
    assert_eq!(read.circles(), ["x/src: first/part is in a circle", "x/src: second is in a circle"]);
}

#[test]
fn trees_of_paths_are_written_out() {
    let found = paths("use crate::{a, b::{self, c as d}, e::*};\nlet x = super::super::f::g(crate::h);");
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["crate::a", "crate::b::self", "crate::b::c", "crate::e", "crate::h", "super::super::f::g"]);
}
