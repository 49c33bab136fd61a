//! Checks the commands in documents and `--help`: each verb exists and accepts the options shown, and each folder
//! exists. Only the text is read; nothing is run.

use std::path::Path;

use clap::CommandFactory as _;
use xtask::workspace;

fn check(broken: impl IntoIterator<Item = String>) {
    let broken: Vec<_> = broken.into_iter().collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// The whole command line of `cargo xtask`: its own verbs, and those of the lab with their options.
fn command() -> clap::Command {
    let lab = crate::Lab::command();
    lab.get_subcommands()
        .fold(xtask::command(), |command, verb| command.mut_subcommand(verb.get_name(), |_| verb.clone()))
}

/// Commands in documents: the program and its arguments, for `cargo xtask`, `mcad-agent` and `mcad-aggregator`.
fn commands() -> Vec<(String, Vec<String>)> {
    let documents = workspace::files()
        .unwrap()
        .into_iter()
        .filter(|path| path == "README.md" || path == "deploy/README.md" || path.starts_with("docs/"));
    let documents = documents.filter(|path| Path::new(path).extension().is_some_and(|end| end == "md"));
    let mut commands = Vec::new();
    for path in documents {
        let text = std::fs::read_to_string(workspace::root().join(&path)).unwrap();
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

/// The program of a command, and its arguments: `cargo run --bin X -- …` is X.
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
    assert_eq!(of("cargo run --profile quick --bin mcad-agent -- status").as_deref(), Some("mcad-agent: status"));
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
        let error = command().try_get_matches_from(line).err()?;
        let asked =
            matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
        (!asked).then(|| format!("{path}: {}: {error}", words.join(" ")))
    }));
}

#[test]
fn every_verb_that_help_names_is_one() {
    let own = command();
    let helps = own.get_subcommands().chain([&own]).map(|verb| {
        let mut text = verb.clone().render_long_help().to_string().replace('\n', " ");
        // Help is as wide as the terminal, so a command may be split over two lines.
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
    // Words in capitals are placeholders.
    check(named.into_iter().filter_map(|(verb, rest)| {
        let line = std::iter::once("xtask").chain(rest.split_whitespace());
        let error = command().try_get_matches_from(line).err()?;
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
