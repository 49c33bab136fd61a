//! Checks that `deploy/Dockerfile` builds what `cargo xtask image` writes. It is read line by line, and must stay
//! simple enough for that.

use std::collections::{BTreeMap, BTreeSet};

use xtask::workspace;
use xtask::workspace::REMAPPED;

use super::recipe::{Program, Sources};

/// A stage: what it is made from, and its instructions.
struct Stage {
    from: String,
    instructions: Vec<(String, String)>,
}

impl Stage {
    /// The arguments of all instructions of a kind.
    fn all(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.instructions.iter().filter(|(other, _)| other == kind);
        of_kind.map(|(_, arguments)| arguments.as_str()).collect()
    }

    #[track_caller]
    fn one(&self, kind: &str) -> &str {
        let all = self.all(kind);
        let [one] = all[..] else { panic!("{kind}: {all:?}") };
        one
    }

    /// The arguments, with the defaults of the stage's own ARGs inserted.
    fn resolved(&self, kind: &str) -> String {
        let defaults = self.all("ARG").into_iter().filter_map(|argument| argument.split_once('='));
        defaults.fold(self.one(kind).to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
    }
}

/// The stages by their names.
fn stages(dockerfile: &str) -> BTreeMap<String, Stage> {
    let lines = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text: Vec<_> = lines.collect();
    let text = text.join("\n").replace("\\\n", " ");
    let mut stages = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (kind, arguments) = line.split_once(' ').unwrap();
        if kind == "FROM" {
            let (from, stage) = arguments.split_once(" AS ").unwrap();
            stage.clone_into(&mut name);
            stages.insert(name.clone(), Stage { from: from.to_owned(), instructions: Vec::new() });
        } else if let Some(stage) = stages.get_mut(&name) {
            stage.instructions.push((kind.to_owned(), arguments.trim().to_owned()));
        }
    }
    stages
}

/// `key="value" other="value"`, or without quotes if there is no space.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        pairs.insert(key.to_owned(), value.to_owned());
        rest = tail.trim();
    }
    pairs
}

fn dockerfile() -> String {
    std::fs::read_to_string(workspace::root().join("deploy/Dockerfile")).unwrap()
}

#[test]
fn sources_do_not_lie_where_the_programs_say_that_they_did() {
    let stages = stages(&dockerfile());
    let folder = stages["build"].one("WORKDIR");
    assert!(
        !REMAPPED.contains(&folder),
        "{folder}: the kernel half would have their lines, and no other machine's has"
    );
}

#[test]
fn the_dockerfile_sets_what_the_images_have() {
    let stages = stages(&dockerfile());
    let sources =
        Sources { version: env!("CARGO_PKG_VERSION").to_owned(), revision: "unknown".to_owned(), written_s: 0 };
    for (name, program) in [("agent", Program::Agent), ("aggregator", Program::Aggregator)] {
        let stage = &stages[name];
        assert_eq!(stage.from, "scratch");
        assert_eq!(stage.one("USER"), program.user());
        assert_eq!(stage.one("WORKDIR"), "/");
        let entrypoint: Vec<String> = serde_json::from_str(stage.one("ENTRYPOINT")).unwrap();
        assert_eq!(entrypoint, [program.entrypoint()]);
        assert_eq!(pairs(&stage.resolved("LABEL")), program.labels(&sources));
        assert_eq!(pairs(stage.one("ENV")), pairs(&program.environment().join(" ")));
        let ports: BTreeSet<_> = stage.all("EXPOSE").into_iter().flat_map(|ports| ports.split(' ')).collect();
        let ours: Vec<_> = program.ports().iter().map(|port| format!("{port}/tcp")).collect();
        assert_eq!(ports, ours.iter().map(String::as_str).collect());
        // Exactly the files that the verb writes.
        assert_eq!(stage.one("COPY"), format!("--from=build-{name} /images/{}/ /", program.name()));
        assert_eq!(
            stages[&format!("build-{name}")].one("RUN"),
            format!("cargo xtask image --out /archives --unpacked /images {name}")
        );
        for other in ["RUN", "CMD", "SHELL", "ADD", "VOLUME"] {
            assert_eq!(stage.all(other), [""; 0], "{name} has {other}");
        }
    }
}

#[test]
fn the_dockerfile_builds_by_the_pinned_toolchain() {
    let pinned = std::fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap();
    let channel = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let builder = format!("ARG BUILDER=docker.io/library/rust:{channel}-bookworm");
    assert!(dockerfile().lines().any(|line| line == builder), "{builder}");
}

#[test]
fn the_parser_reads_what_is_compared() {
    let stages = stages("ARG A=1\nFROM x AS y\n# no\nLABEL a=\"b c\" \\\n  d=${E}\nARG E=f\n");
    assert_eq!(stages["y"].from, "x");
    let read = pairs(&stages["y"].resolved("LABEL"));
    assert_eq!(read, BTreeMap::from([("a", "b c"), ("d", "f")].map(|(key, value)| (key.to_owned(), value.to_owned()))));
}
