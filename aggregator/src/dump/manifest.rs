//! The documents of a manifest, as `kubectl create -f` takes one: YAML or JSON, several documents, lists. Owns the bounds of such a file,
//! and where a document is; what a document means is in [`mcad_accounting::object::submission`].
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rlsp_yaml_parser::parse_events;
use serde::Deserialize as _;
use serde_json::Value;
use thiserror::Error;

use super::document::is_list;
use super::events::{Anchors, Events};
use super::file;

/// The API server accepts requests of 3 MiB. A file may have many objects.
const MOST_BYTES: u64 = 32 << 20;
/// Documents and items of lists. Each is placed on all nodes.
const MOST_DOCUMENTS: usize = 1_000;

/// A document, or an item of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it is.
    pub place: Place,
    /// Its content.
    pub value: Value,
}

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// The number of the document in the file, from 1; empty documents are not counted.
    pub document: usize,
    /// The index of the item in a list, from 0.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}", self.file.display(), self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", items[{item}]"))
    }
}

/// Why a manifest cannot be read.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is not text.
    #[error("{}: it is not text in UTF-8", file.display())]
    NoText {
        /// The file.
        file: PathBuf,
    },
    /// It is too long.
    #[error("{}: it has more than {} MiB: submit its objects in several files", file.display(), MOST_BYTES >> 20)]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// It has too many objects.
    #[error("{}: it has more than {MOST_DOCUMENTS} objects: submit them in several files", file.display())]
    TooMany {
        /// The file.
        file: PathBuf,
    },
    /// A document is neither YAML nor JSON.
    #[error("{place}, line {line}: {message}")]
    Syntax {
        /// The document.
        place: Place,
        /// The line of the file, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It has no document.
    #[error("{}: it has no document", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// Reads the documents of a file; `-` is standard input.
pub fn read(file: &Path) -> Result<Vec<Document>, ManifestError> {
    let failed = |source| ManifestError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    file::open(file).map_err(failed)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ManifestError::TooLong { file: file.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| ManifestError::NoText { file: file.to_owned() })?;
    parse(file, &text)
}

/// The documents of a text; `file` is only its name.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    let mut add = |number: usize, value: Value| {
        let place = |item| Place { file: file.to_owned(), document: number, item };
        let is_list = value["kind"].as_str().is_some_and(is_list);
        match value {
            Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
                let items = list.get_mut("items").map(Value::take).unwrap_or_default();
                let items = if let Value::Array(items) = items { items } else { Vec::new() };
                let items = items.into_iter().enumerate();
                documents.extend(items.map(|(at, value)| Document { place: place(Some(at)), value }));
            }
            value => documents.push(Document { place: place(None), value }),
        }
        if documents.len() > MOST_DOCUMENTS {
            return Err(ManifestError::TooMany { file: file.to_owned() });
        }
        Ok(())
    };
    // JSON is also YAML, but its own parser knows all of its white space and escapes.
    if let Some(values) = json(text) {
        (1..).zip(values).try_for_each(|(number, value)| add(number, value))?;
    } else {
        let mut anchors = Anchors::default();
        let mut events = Events::new(parse_events(text), &mut anchors);
        let mut number = 0;
        loop {
            let next = events.begin_document().and_then(|is_there| {
                number += 1;
                events.forget_anchors();
                if is_there { Value::deserialize(&mut events).map(Some) } else { Ok(None) }
            });
            match next {
                Ok(Some(value)) => add(number, value)?,
                Ok(None) => break,
                Err(error) => {
                    let place = Place { file: file.to_owned(), document: number.max(1), item: None };
                    let offset = error.offset.unwrap_or_default().min(text.len());
                    let line = 1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..offset]).count();
                    return Err(ManifestError::Syntax { place, line, message: error.to_string() });
                }
            }
        }
    }
    if documents.is_empty() {
        return Err(ManifestError::Empty { file: file.to_owned() });
    }
    Ok(documents)
}

/// The values of a text in JSON. `None` if it is something else.
fn json(text: &str) -> Option<Vec<Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: &[(usize, Option<usize>, Value)]) {
        let documents = parse(Path::new("f"), text).unwrap();
        let found: Vec<_> = documents.into_iter().map(|one| (one.place.document, one.place.item, one.value)).collect();
        assert_eq!(found, expected);
    }

    fn refusal(text: &str) -> String {
        parse(Path::new("f"), text).unwrap_err().to_string()
    }

    #[test]
    fn documents_and_items_are_counted_as_kubectl_takes_them() {
        let (a, b) = (json!({"kind": "A"}), json!({"kind": "B"}));
        check("kind: A\n---\n---\n# nothing\n---\nkind: B\n", &[(1, None, a.clone()), (2, None, b.clone())]);
        check("{\"kind\": \"A\"}\n{\"kind\": \"B\"}", &[(1, None, a.clone()), (2, None, b.clone())]);
        check("{\"kind\": \"A\"}\n---\n{\"kind\": \"B\"}", &[(1, None, a.clone()), (2, None, b.clone())]);
        check("kind: List\nitems:\n- kind: A\n- kind: B\n", &[(1, Some(0), a), (1, Some(1), b)]);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_document_and_line() {
        assert_eq!(refusal(""), "f: it has no document");
        let wrong = refusal("kind: A\n---\nkind: B\nspec: [1, 2\n---\nkind: C\n");
        assert!(wrong.starts_with("f: document 2, line "), "{wrong}");
        let wrong = refusal("a: &a [1]\n---\nb: *a\n");
        assert_eq!(wrong, "f: document 2, line 3: the alias `*a` has no anchor");
        let wrong = refusal("{\"kind\": \"A\",\n\"spec\": [}");
        assert!(wrong.starts_with("f: document 1, line "), "{wrong}");
    }

    #[test]
    fn a_file_is_bounded() {
        let many = "kind: A\n---\n".repeat(MOST_DOCUMENTS);
        assert_eq!(parse(Path::new("f"), &many).unwrap().len(), MOST_DOCUMENTS);
        assert!(refusal(&format!("{many}kind: A\n")).contains("more than 1000 objects"));
        let list = json!({"kind": "List", "items": vec![json!({}); MOST_DOCUMENTS + 1]}).to_string();
        assert!(refusal(&list).contains("more than 1000 objects"));
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("long");
        std::fs::write(&path, vec![b' '; MOST_BYTES as usize + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("more than 32 MiB"));
        // Aliases that expand to billions of values.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..12 {
            let before = vec![format!("*a{}", at - 1); 10].join(", ");
            let line = format!("a{at}: &a{at} [{before}]\n");
            bomb.push_str(&line);
        }
        assert!(refusal(&bomb).contains("expand to too much data"));
    }

    #[test]
    fn a_deep_document_is_refused_or_read_and_never_overflows_the_stack() {
        let depth = 20_000;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let _ = parse(Path::new("f"), &deep);
        let _ = parse(Path::new("f"), &format!("{{\"a\": {deep}}}"));
    }
}
