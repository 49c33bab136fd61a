//! Dumps: what `kubectl get nodes,pods,appwrappers -A -o yaml` writes, read back.
//!
//! Owns files, documents and lists; what an object says is [`crate::object`]'s. A List, several documents, YAML, JSON, and
//! any mix of them are the same.
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::object::{self, Kind, Object, ObjectError};

/// What a dump says.
#[derive(Debug, Default)]
pub struct Dump {
    /// The objects that count, in the order of the files.
    pub objects: Vec<Object>,
    /// What should have been an object that counts and was none.
    pub skipped: Vec<Skipped>,
    /// The kinds of which all objects are here (docs/accounting.md §6): one of it was read, or an empty list of it.
    pub known: BTreeSet<Kind>,
}

/// Why a dump cannot be read.
#[derive(Debug, Error)]
pub enum DumpError {
    /// The file itself.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its text is neither YAML nor JSON.
    #[error("{}: document {document} is not readable", file.display())]
    Syntax {
        /// Which file; `-` is standard input.
        file: PathBuf,
        /// Which document in it, from 1; empty ones are not counted.
        document: usize,
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An object in a dump that could not be decoded.
#[derive(Debug, Error)]
#[error("{}: document {document}{}", file.display(), item.map(|at| format!(", items[{at}]")).unwrap_or_default())]
pub struct Skipped {
    /// Which file; `-` is standard input.
    pub file: PathBuf,
    /// Which document in it, from 1; empty ones are not counted.
    pub document: usize,
    /// Which item of a list, from 0.
    pub item: Option<usize>,
    /// Why.
    #[source]
    pub source: ItemError,
}

/// What is wrong with a document or an item of a list.
#[derive(Debug, Error)]
pub enum ItemError {
    /// It says of itself that it counts, but cannot be decoded.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It is no object: it does not say what it is.
    #[error("field `kind` is absent")]
    NoKind,
}

impl Dump {
    /// Reads files one after the other; `-` is standard input.
    pub fn read(files: &[PathBuf]) -> Result<Self, DumpError> {
        let mut dump = Self::default();
        for file in files {
            let mut text = String::new();
            let read = if file == Path::new("-") {
                io::stdin().lock().read_to_string(&mut text)
            } else {
                File::open(file).and_then(|mut opened| opened.read_to_string(&mut text))
            };
            read.map_err(|source| DumpError::Read { file: file.clone(), source })?;
            dump.add(file, &text)?;
        }
        Ok(dump)
    }

    /// Reads the text of one file; `file` is only its name.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), DumpError> {
        // YAML is a superset of JSON, but a large dump is read many times faster as what it is.
        let is_json = text.trim_start().starts_with('{') && !text.lines().any(|line| line.starts_with("---"));
        if is_json {
            let documents = serde_json::Deserializer::from_str(text).into_iter::<Document>();
            self.add_documents(file, documents)
        } else {
            let mut bytes = text.as_bytes();
            let documents = serde_saphyr::read_with_options::<_, Document>(&mut bytes, unlimited());
            self.add_documents(file, documents)
        }
    }

    fn add_documents<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        file: &Path,
        documents: impl Iterator<Item = Result<Document, E>>,
    ) -> Result<(), DumpError> {
        for (document, read) in (1..).zip(documents) {
            let syntax = |source: E| DumpError::Syntax { file: file.to_owned(), document, source: source.into() };
            for (item, decoded) in read.map_err(syntax)?.objects() {
                match decoded {
                    Ok(object) => {
                        self.known.extend(object.iter().map(Object::kind));
                        self.objects.extend(object);
                    }
                    Err(source) => self.skipped.push(Skipped { file: file.to_owned(), document, item, source }),
                }
            }
        }
        Ok(())
    }
}

/// A dump is the user's own file, so its size is no attack; the limits on aliases stay. Words and numbers are those of YAML
/// 1.2: writers of 1.1 quote what they would take for a boolean or an octal number, those of 1.2 do not, and a node may be
/// called `n`.
fn unlimited() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_documents: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
        },
    }
}

/// One document: an object, or a list of objects. The items of a list are decoded while it is read.
#[derive(Default)]
struct Document {
    object: Map<String, Value>,
    items: Option<Vec<Item>>,
}

/// An item, decoded, or as it stands where only the list can say what it is.
#[expect(clippy::large_enum_variant, reason = "nearly all items are of the large one")]
enum Item {
    Decoded(Decoded),
    Untyped(Value),
    /// A list in a list, as tools leave behind that put dumps together.
    List(Document),
}

/// Nothing where the object does not count.
type Decoded = Result<Option<Object>, ItemError>;

impl Document {
    fn objects(self) -> Vec<(Option<usize>, Decoded)> {
        let text = |field: &str| self.object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(items) = self.items else {
            return vec![(None, decode_typed(&api_version, &kind, Value::Object(self.object)))];
        };
        // A typed list, as the API itself answers, says once what all its items are.
        let item_kind = kind.strip_suffix("List").unwrap_or_default();
        let decoded = items.into_iter().enumerate().flat_map(|(at, item)| {
            let decoded = match item {
                Item::Decoded(decoded) => vec![decoded],
                Item::Untyped(mut value) => {
                    if let Some(object) = value.as_object_mut() {
                        object.insert("apiVersion".into(), api_version.as_str().into());
                    }
                    vec![decode_typed(&api_version, item_kind, value)]
                }
                Item::List(list) => list.objects().into_iter().map(|(_, decoded)| decoded).collect(),
            };
            decoded.into_iter().map(move |decoded| (Some(at), decoded))
        });
        decoded.collect()
    }
}

impl Item {
    fn decode(value: Value) -> Self {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        match text("kind") {
            "" => Self::Untyped(value),
            kind if kind.ends_with("List") && value["items"].is_array() => match serde_json::from_value(value) {
                Ok(list) => Self::List(list),
                // What is an object with a list of items is a list.
                Err(_) => Self::Decoded(Err(ItemError::NoKind)),
            },
            kind => Self::Decoded(match Kind::named(text("apiVersion"), kind) {
                Some(kind) => object::decode(kind, value).map(Some).map_err(Into::into),
                None => Ok(None),
            }),
        }
    }
}

fn decode_typed(api_version: &str, kind: &str, value: Value) -> Decoded {
    if kind.is_empty() {
        return Err(ItemError::NoKind);
    }
    match Kind::named(api_version, kind) {
        Some(kind) => Ok(Some(object::decode(kind, value)?)),
        None => Ok(None),
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                document.items = Some(map.next_value::<Option<Items>>()?.map(|items| items.0).unwrap_or_default());
            } else {
                document.object.insert(key, map.next_value()?);
            }
        }
        Ok(document)
    }
}

struct Items(Vec<Item>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the items of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            items.push(Item::decode(value));
        }
        Ok(Items(items))
    }
}
