//! `cargo xtask strings`: writes every text that a user can read into one file, to find sentences that are hard to
//! understand.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use xtask::workspace;

/// The sources of the programs that users run.
const SOURCES: [&str; 8] = [
    "agent/src",
    "aggregator/src",
    "aggregator/accounting/src",
    "aggregator/present/src",
    "terminal/src",
    "fake-kubelet/src",
    "xtask/src",
    "lab/src",
];

/// Texts that are not in Rust files.
const TEXTS: [&str; 2] = ["deploy/monitoring/rules.yaml", "aggregator/present/src/page/page.js"];

/// Write every text that a user can read to target/strings.txt: help, errors, logs, metrics, alerts, the page.
///
/// Lists the string literals with more than one word, and the comments that clap prints as help, from the source of each
/// program without tests. A text that occurs several times is listed once, at its first place. Read the file from top to bottom with the glossary beside you.
#[derive(Args)]
pub(crate) struct Strings {
    /// The file to write. Default: target/strings.txt
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Strings {
    pub(crate) fn run(self) -> Result<()> {
        let root = workspace::root();
        let (mut text, mut seen) = (String::new(), BTreeSet::new());
        for folder in SOURCES {
            for file in rust_files(&root.join(folder))? {
                let source = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let found = of_rust(&source).with_context(|| format!("{} is not Rust", file.display()))?;
                list(&mut text, file.strip_prefix(root).unwrap_or(&file), found, &mut seen);
            }
        }
        for file in TEXTS {
            let source = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
            list(&mut text, Path::new(file), quoted(&source), &mut seen);
        }
        ensure!(!seen.is_empty(), "no texts were found below {}", root.display());
        let path = self.output.unwrap_or_else(|| workspace::target().join("strings.txt"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("strings: {} texts are in {}", seen.len(), path.display());
        Ok(())
    }
}

/// The Rust files of a folder that are not tests, in order of path.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem == "tests" || stem.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Appends the texts of a file that were not listed before.
fn list(text: &mut String, file: &Path, found: Vec<String>, seen: &mut BTreeSet<String>) {
    let new: Vec<_> = found.into_iter().filter(|found| seen.insert(found.clone())).collect();
    if !new.is_empty() {
        let _infallible = write!(text, "== {}\n{}\n\n", file.display(), new.join("\n"));
    }
}

/// The texts of a Rust file.
fn of_rust(source: &str) -> Result<Vec<String>> {
    let tokens = TokenStream::from_str(source).map_err(|error| anyhow::anyhow!("{error}"))?;
    let prints_comments =
        ["Parser)", "Args)", "Subcommand)", "ValueEnum)", "Parser,", "Args,", "Subcommand,", "ValueEnum,"];
    let has_help = source.contains("clap") && prints_comments.iter().any(|derived| source.contains(derived));
    let mut found = Vec::new();
    collect(tokens, has_help, &mut found);
    Ok(found)
}

/// Literals of more than one word, and doc comments if they are help. An item after `#[cfg(test)]` is skipped.
fn collect(tokens: TokenStream, has_help: bool, found: &mut Vec<String>) {
    let mut is_test = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let inside = group.stream().to_string();
                match group.delimiter() {
                    Delimiter::Bracket if inside == "cfg (test)" || inside == "test" => is_test = true,
                    Delimiter::Bracket if inside.starts_with("doc =") && !has_help => {}
                    Delimiter::Brace if is_test => is_test = false,
                    _ => collect(group.stream(), has_help, found),
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_test = false,
            TokenTree::Literal(literal) => found.extend(text_of(&literal.to_string()).filter(|_| !is_test)),
            _ => {}
        }
    }
}

/// The text of a string literal, if it has more than one word.
fn text_of(literal: &str) -> Option<String> {
    let quote = literal.find('"')?;
    let text = literal[quote + 1..].trim_end_matches('#').strip_suffix('"')?;
    // A backslash at the end of a line joins it with the next.
    let lines: Vec<&str> =
        text.split("\\\n").enumerate().map(|(at, line)| if at == 0 { line } else { line.trim_start() }).collect();
    let text = lines.concat().replace("\\n", "\n").replace("\\\"", "\"");
    let words = text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count();
    (words > 1).then(|| text.trim().to_owned())
}

/// Quoted texts in a file that is not Rust, and the texts after `summary:` and `description:`.
fn quoted(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let uncommented = source.lines().map(|line| line.split(" // ").next().unwrap_or_default().trim());
    for line in uncommented.filter(|line| !line.starts_with("//") && !line.starts_with('#')) {
        let annotation = ["summary:", "description:"].iter().find_map(|key| line.strip_prefix(key));
        match annotation {
            Some(text) => found.push(text.trim().to_owned()),
            None => found
                .extend(line.split(['"', '`']).skip(1).step_by(2).filter_map(|text| text_of(&format!("\"{text}\"")))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_literals_of_more_than_one_word_outside_of_tests() {
        let source = r#"
            /// Not help.
            fn f() { bail!("cannot \
                read {x}"); g("word"); h('"', "two \"words\""); }
            #[test] fn t() { k("of a test"); }
            #[cfg(test)] mod tests { fn t() { k("of a test"); } }
            #[cfg(test)] mod more;
            const C: &str = "also a text";
        "#;
        assert_eq!(of_rust(source).unwrap(), ["cannot read {x}", "two \"words\"", "also a text"]);
    }

    #[test]
    fn comments_are_texts_where_clap_prints_them() {
        let source = "use clap::Args; #[derive(Debug, Args)] struct A { /// What it does\n flag: bool }";
        assert_eq!(of_rust(source).unwrap(), ["What it does"]);
    }

    #[test]
    fn annotations_and_quoted_texts_are_found_elsewhere() {
        let yaml = "# a comment here\nsummary: One GPU is lost.\nexpr: up == 0\n";
        assert_eq!(quoted(yaml), ["One GPU is lost."]);
        assert_eq!(quoted("say('x', \"no more nodes\"); // \"a comment\" here\n"), ["no more nodes"]);
    }
}
