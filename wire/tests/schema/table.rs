//! The table of messages in the code.
use std::collections::BTreeSet;

const TABLE: &str = include_str!("../../src/schema.rs");

/// Each field as `Message 1 field_name type`.
fn declared() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let mut message = "";
    for line in TABLE.lines().filter(|line| !line.starts_with("//")) {
        let line = line.trim();
        if let Some(name) = line.strip_suffix(" {") {
            message = name.trim_end_matches("<'a>");
        } else if let Some((numbered, kind)) = line.strip_suffix(',').and_then(|field| field.split_once(": ")) {
            let kind = kind.trim_end_matches("<'a>");
            let kind = match kind.split_once(' ').unwrap() {
                ("implicit" | "boxed", kind) => kind.to_owned(),
                // A message can always be absent, so protobuf has no label for it.
                ("optional", kind) if kind.starts_with(char::is_uppercase) => kind.to_owned(),
                (label, kind) => format!("{label} {kind}"),
            };
            fields.insert(format!("{message} {numbered} {kind}"));
        }
    }
    fields
}

#[test]
fn the_table_has_the_fields_of_the_schema_and_no_others() {
    let (schema, code) = (super::fields(), declared());
    let only_schema: Vec<_> = schema.difference(&code).collect();
    let only_code: Vec<_> = code.difference(&schema).collect();
    let equal = only_schema.is_empty() && only_code.is_empty();
    assert!(equal, "only in report.proto: {only_schema:#?}, only in the code: {only_code:#?}");
}
