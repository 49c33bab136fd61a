//! `wire/report.proto` is the schema of the report. These tests compare it with the table that structs and readers are
//! generated from (`table`), with the way they read bytes (`bytes`, `damage`), and with docs/report.md, whose tables
//! are generated from it (`document`).
#![allow(
    clippy::unwrap_used,
    reason = "the whole file is a test; clippy.toml exempts only functions that are marked as tests"
)]

mod bytes;
mod damage;
mod document;
mod table;

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use protox::Compiler;
use protox::file::{File, FileResolver};

const SCHEMA: &str = include_str!("../../report.proto");
const PACKAGE: &str = "mcad.report.v1";
const FILE: &str = "report.proto";

/// A resolver whose only file is this text.
struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == FILE { File::from_source(name, &self.0) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// Compiles this text as the schema, with its comments.
fn compiled(text: &str) -> DescriptorPool {
    let mut compiler = Compiler::with_file_resolver(Text(text.to_owned()));
    compiler.include_source_info(true);
    compiler.open_file(FILE).unwrap_or_else(|error| panic!("{error}"));
    compiler.descriptor_pool()
}

fn message(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap()
}

/// `optional uint64`, `repeated Absence`, `string`: as the schema spells it.
fn type_of(field: &FieldDescriptor) -> String {
    let label = match field.field_descriptor_proto().proto3_optional() {
        true => "optional ",
        false if field.is_list() => "repeated ",
        false => "",
    };
    match field.kind() {
        Kind::Message(message) => format!("{label}{}", message.name()),
        scalar => format!("{label}{scalar:?}"),
    }
}

/// Each field as `Message 1 field_name type`.
fn fields() -> BTreeSet<String> {
    let messages: Vec<_> = compiled(SCHEMA).all_messages().collect();
    let of = |message: &MessageDescriptor| {
        let line = |field: FieldDescriptor| {
            format!("{} {} {} {}", message.name(), field.number(), field.name(), type_of(&field))
        };
        message.fields().map(line).collect::<Vec<_>>()
    };
    messages.iter().flat_map(of).collect()
}

#[test]
fn the_schema_has_no_more_than_messages_of_fields() {
    let pool = compiled(SCHEMA);
    assert_eq!(pool.all_enums().count() + pool.services().count() + pool.all_extensions().count(), 0);
    for message in pool.all_messages() {
        assert_eq!(message.oneofs().filter(|oneof| !oneof.is_synthetic()).count(), 0, "{}", message.name());
    }
    assert!(fields().contains("Cgroup 5 cpu_ns optional uint64"), "{:#?}", fields());
}
