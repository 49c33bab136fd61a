//! The tables of messages in docs/report.md, which are generated from the schema and its comments. `MCAD_BLESS=1 cargo
//! test -p mcad-wire` rewrites them.
use std::fmt::Write as _;
use std::path::Path;

use mcad_wire::report::{REPORT_VERSION, Report};
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};

use super::{SCHEMA, compiled, message, type_of};

const BEGIN: &str = "<!-- messages: begin -->\n";
const END: &str = "<!-- messages: end -->";

/// The comment above a declaration, line by line, with the JSON names of fields.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let location = source.location.iter().find(|location| location.path == path).unwrap();
    let comment = location.leading_comments();
    assert!(comment.trim().len() > 3, "a declaration of report.proto has no comment: {path:?}");
    let lines: Vec<_> = comment.lines().map(str::trim).collect();
    let names = file.messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    names.fold(lines.join("\n").trim().to_owned(), |text, field| {
        text.replace(&format!("`{}`", field.name()), &format!("`{}`", field.json_name()))
    })
}

fn section(message: &MessageDescriptor) -> String {
    let file = message.parent_file();
    let mut text = format!("### {}\n\n{}\n\n", message.name(), comment(&file, message.path()));
    text.push_str("| tag | field | type | meaning |\n|---|---|---|---|\n");
    for field in message.fields() {
        let (tag, name, kind) = (field.number(), field.json_name(), type_of(&field));
        let meaning = comment(&file, field.path()).replace('\n', " ");
        writeln!(text, "| {tag} | `{name}` | {kind} | {meaning} |").unwrap();
    }
    text
}

fn sections(pool: &DescriptorPool) -> String {
    let file = message(pool, "Report").parent_file();
    file.messages().map(|message| section(&message) + "\n").collect()
}

#[test]
fn the_documents_tables_are_those_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let right = format!("{before}{BEGIN}\n{}{END}{after}", sections(&compiled(SCHEMA)));
    if std::env::var_os("MCAD_BLESS").is_some() {
        std::fs::write(&path, &right).unwrap();
    } else {
        let hint = "MCAD_BLESS=1 cargo test -p mcad-wire --test schema rewrites it; review the diff";
        assert!(page == right, "docs/report.md does not match wire/report.proto; {hint}\n{right}");
    }
}

#[test]
fn the_json_names_are_those_that_serde_writes() {
    let report = Report { started_at_ms: 1, ..Default::default() };
    assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"startedAtMs":"1"}"#);
}

#[test]
fn document_and_schema_name_the_version() {
    let document = include_str!("../../../docs/report.md");
    assert!(document.contains(&format!("`version` is {REPORT_VERSION}.")));
    assert!(SCHEMA.contains(&format!("The version of the format: {REPORT_VERSION}.")));
}
