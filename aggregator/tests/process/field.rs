//! What the program says of inputs after public bug reports: the whole program, a file in, an exit status, text and metrics out.
//! `field/README.md` says how `expected.md` is read.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the program came to.
struct Run {
    status: Option<i32>,
    /// Standard output.
    printed: String,
    /// Standard output and standard error.
    said: String,
}

/// What `expected.md` demands.
#[derive(Debug, Default)]
struct Expected {
    status: Option<i32>,
    /// Of each line, the phrases of which one must be there.
    contains: Vec<Vec<String>>,
    lacks: Vec<String>,
    /// The phrase with which the input may be refused instead.
    refusal: Option<String>,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    /// The sum of all series with these labels; nothing: there is none.
    sum: Option<f64>,
}

fn field() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/field")
}

fn run(input: &Path, arguments: &[&str]) -> Run {
    let cluster = format!("file:{}", input.display());
    let output = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator"))
        .args(arguments)
        .args(["--cluster", &cluster])
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    let (printed, errors) = (text(output.stdout), text(output.stderr));
    Run { status: output.status.code(), said: format!("{errors}{printed}"), printed }
}

fn expected(text: &str) -> Expected {
    let mut expected = Expected::default();
    let phrases = |list: &str| list.split(" | ").map(|phrase| phrase.trim().to_lowercase()).collect();
    for line in text.lines() {
        if let Some(status) = line.strip_prefix("Exit status:") {
            expected.status = Some(status.trim().parse().expect("an exit status"));
        } else if let Some(list) = line.strip_prefix("Explain must contain:") {
            expected.contains.push(phrases(list));
        } else if let Some(phrase) = line.strip_prefix("Explain must not contain:") {
            expected.lacks.push(phrase.trim().to_lowercase());
        } else if let Some(phrase) = line.strip_prefix("Or else, exit status 1 and:") {
            expected.refusal = Some(phrase.trim().to_lowercase());
        } else if line.starts_with("    ") {
            expected.series.push(series(line.trim()));
        }
    }
    expected
}

/// `name{"label": "value"} sum`
fn series(line: &str) -> Series {
    let (name, rest) = line.split_once('{').expect("labels");
    let (labels, sum) = rest.rsplit_once('}').expect("the end of the labels");
    let labels = serde_json::from_str(&format!("{{{labels}}}")).expect("labels as JSON");
    let sum = Some(sum.trim()).filter(|sum| *sum != "absent").map(|sum| sum.parse().expect("a sum"));
    Series { name: name.into(), labels, sum }
}

/// Whether the phrase is in the text; `…` stands for up to 200 characters.
fn contains(text: &str, phrase: &str) -> bool {
    let Some((first, rest)) = phrase.split_once('…') else { return text.contains(phrase) };
    let (first, rest) = (first.trim(), rest.trim());
    text.match_indices(first).any(|(at, _)| {
        let after = &text[at + first.len()..];
        let end = after.char_indices().nth(200 + rest.chars().count()).map_or(after.len(), |(end, _)| end);
        contains(&after[..end], rest)
    })
}

/// The value of a line of the exposition that is a series of that name with these labels.
fn value(line: &str, wanted: &Series) -> Option<f64> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    // Names and values in these inputs need no escapes.
    let has = |(label, value): (&String, &String)| {
        labels.trim_end_matches('}').split(',').any(|pair| pair == format!("{label}=\"{value}\""))
    };
    (name == wanted.name && wanted.labels.iter().all(has)).then(|| value.parse().expect("a value"))
}

fn check(case: &str) {
    let folder = field().join(case);
    let input = ["input.yaml", "input.json"].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
    let input = input.expect("an input");
    let text = fs::read_to_string(folder.join("expected.md")).expect("what is expected");
    let expected = expected(&text);
    assert!(expected.status.is_some() || !expected.contains.is_empty() || !expected.series.is_empty(), "{expected:?}");

    let (explained, exposed) = (run(&input, &["explain"]), run(&input, &["--print-metrics"]));
    let said = explained.said.to_lowercase();
    if let Some(refusal) = &expected.refusal
        && explained.status == Some(1)
        && contains(&said, refusal)
    {
        return;
    }
    if let Some(status) = expected.status {
        assert_eq!(explained.status, Some(status), "explain: {}", explained.said);
        assert_eq!(exposed.status, Some(status), "--print-metrics: {}", exposed.said);
    }
    for phrases in &expected.contains {
        assert!(phrases.iter().any(|phrase| contains(&said, phrase)), "none of {phrases:?}: {}", explained.said);
    }
    for phrase in &expected.lacks {
        assert!(!contains(&said, phrase), "{phrase:?}: {}", explained.said);
    }
    for series in &expected.series {
        let values: Vec<f64> = exposed.printed.lines().filter_map(|line| value(line, series)).collect();
        let sum = (!values.is_empty()).then(|| values.iter().sum::<f64>());
        assert_eq!(sum, series.sum, "{series:?}: {}", exposed.said);
    }
}

/// A test for each case, and one that no folder is forgotten.
macro_rules! cases {
    ($($test:ident: $folder:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($folder);
            }
        )*

        #[test]
        fn every_folder_has_its_test() {
            let folders = fs::read_dir(field()).unwrap().map(|entry| entry.unwrap());
            let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
            let mut folders: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
            folders.sort_unstable();
            let mut tested = vec![$($folder),*];
            tested.sort_unstable();
            assert_eq!(folders, tested);
        }
    };
}

cases! {
    a_running_appwrapper_with_an_unplaced_pod_is_explained: "admitted-not-placed",
    scratch_space_that_no_node_has_fits_nowhere: "ephemeral-storage",
    an_error_message_in_the_file_is_no_cluster: "error-in-file",
    shared_gpus_are_shown_where_there_are_no_others: "gpu-shared-only",
    gpus_held_on_a_node_that_no_longer_declares_them_count: "held-undeclared",
    hugepages_that_no_node_has_fit_nowhere: "hugepages",
    a_node_whose_pods_are_used_up_takes_no_more: "max-pods",
    mig_profiles_are_shown_where_there_are_no_whole_gpus: "mig-only",
    an_allocatable_below_zero_is_said: "negative-allocatable",
    an_empty_file_is_no_empty_cluster: "no-crd",
    without_pods_nothing_is_known_to_be_free: "nodes-without-rights-on-pods",
    pods_of_deleted_nodes_are_in_no_ladder_and_said: "orphans",
    pods_without_nodes_say_what_they_hold: "pods-only",
    a_table_is_no_cluster: "table",
    an_appwrapper_whose_pods_are_unknown_does_not_fit: "tas-slices-unknown-kind",
    an_appwrapper_of_an_unknown_version_is_left_out_and_said: "unknown-apiversion",
    a_file_of_powershell_is_read: "utf16-powershell",
}

#[test]
fn an_ellipsis_stands_for_up_to_two_hundred_characters() {
    let gap = |width: usize| format!("2 pods {} node", "x".repeat(width));
    assert!(contains(&gap(100), "2 pods … node"));
    assert!(!contains(&gap(300), "2 pods … node"));
    assert!(!contains("node 2 pods", "2 pods … node"));
}
