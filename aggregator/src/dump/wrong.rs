//! Errors in a dump: files that cannot be read, and objects that are left out. Owns the messages: what, where, and what to do.
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mcad_accounting::object::{Excess, ObjectError};
use thiserror::Error;

/// How to make a dump.
const MAKE_ONE: &str = "make the file with `mcad-aggregator dump` or `kubectl get … -o json`";

/// Why a dump cannot be read.
#[derive(Debug, Error)]
pub enum DumpError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The text is neither YAML nor JSON.
    #[error("{}: document {document} cannot be parsed", file.display())]
    Syntax {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// The number of the document in the file, from 1; empty documents are not counted.
        document: usize,
        /// Where and why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// An object in a dump that could not be decoded.
#[derive(Debug, Error)]
#[error("{}", place(self))]
pub struct Skipped {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// The number of the document in the file, from 1; empty documents are not counted. 0 if the error is about the file.
    pub document: usize,
    /// The index of the item in a list, from 0.
    pub item: Option<usize>,
    /// The line of the file at which it begins, from 1.
    pub line: usize,
    /// The cause.
    #[source]
    pub source: ItemError,
}

fn place(Skipped { file, document, item, line, .. }: &Skipped) -> String {
    let file = file.display();
    match (document, item) {
        (0, _) => file.to_string(),
        (document, None) => format!("{file}: document {document}, line {line}"),
        (document, Some(item)) => format!("{file}: document {document}, items[{item}], line {line}"),
    }
}

/// An error in a document or an item of a list.
#[derive(Debug, Error)]
pub enum ItemError {
    /// An object of a kind that counts cannot be decoded.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It exceeds the limits of one object.
    #[error("{object} has {excess}, so {what}")]
    Excess {
        /// Kind, namespace and name.
        object: String,
        /// The part that is left out.
        what: &'static str,
        /// The exceeded limit.
        excess: Excess,
    },
    /// The file has no document.
    #[error(
        "the file is empty, which does not mean an empty cluster: kubectl writes nothing if it fails. Read the error message of kubectl, and {MAKE_ONE}"
    )]
    Empty,
    /// It has no kind.
    #[error("field `kind` is absent")]
    NoKind,
    /// A list without a kind, possibly truncated.
    #[error("field `kind` of the list is absent: the file may be truncated, so {MAKE_ONE} again")]
    ListWithoutKind,
    /// A number, a text or a list instead of an object.
    #[error("it is not an object")]
    NoObject,
    /// A kind that counts, in an unsupported version.
    #[error(
        "{object}: field `apiVersion`: `{version}` is not supported; supported: {known}. List it in a supported version"
    )]
    Version {
        /// Kind, namespace and name, as far as known.
        object: String,
        /// Its version.
        version: String,
        /// The supported versions.
        known: String,
    },
    /// kubectl's output for people, as JSON.
    #[error("kind `Table` is output for people and does not contain complete objects: use `kubectl get … -o json`")]
    Table,
    /// Objects without spec and status.
    #[error("kind `{kind}` has only names and labels: use `kubectl get … -o json` to get complete objects")]
    MetadataOnly {
        /// The kind.
        kind: String,
    },
    /// An error of the API server instead of an object.
    #[error("it is an error of the API server instead of an object: {message}")]
    Refused {
        /// The message of the error.
        message: String,
    },
    /// A field that lists do not have, such as an error message of kubectl.
    #[error(
        "`{field}: {text}` is not a field of an object: other output was written into the file. `2>&1` writes error messages into it: make the file again without `2>&1`"
    )]
    Stray {
        /// The field.
        field: String,
        /// Its value.
        text: String,
    },
    /// A record of `mcad-aggregator dump` that cannot be decoded.
    #[error("the record of `mcad-aggregator dump` cannot be decoded")]
    Record(#[source] serde_json::Error),
}

/// Why a file cannot be read completely.
pub(super) enum Trouble {
    Read(io::Error),
    Text(TextError),
}

/// An error in the text, with its line.
#[derive(Debug, Error)]
pub(super) struct TextError {
    line: usize,
    column: Option<usize>,
    message: String,
    /// A possible reason, and what to do.
    hint: &'static str,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message, hint } = self;
        write!(f, "line {line}")?;
        if let Some(column) = column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {message}{hint}")
    }
}

const MIXED: &str = ". The file begins with a message of kubectl: make the file again without `2>&1`";
const CUT_OFF: &str = ". The file ends in the middle of an object: it is truncated, so make the file again";

impl Trouble {
    pub(super) fn text(line: usize, message: String) -> Self {
        Self::Text(TextError { line, column: None, message, hint: "" })
    }

    /// The file ends in the middle of an object.
    pub(super) fn cut(line: usize) -> Self {
        Self::Text(TextError { line, column: None, message: "unexpected end of the file".to_owned(), hint: CUT_OFF })
    }

    /// An error of serde_json in a text that begins at this line.
    pub(super) fn json(error: &serde_json::Error, begins_at: usize) -> Self {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
        let line = begins_at + error.line().saturating_sub(1);
        let column = (error.line() > 1).then(|| error.column());
        Self::Text(TextError { line, column, message, hint: if error.is_eof() { CUT_OFF } else { "" } })
    }

    /// An error of the YAML parser in a document that begins with this text.
    pub(super) fn yaml(line: usize, message: String, begins_with: &str) -> Self {
        Self::Text(TextError { line, column: None, message, hint: if is_of_kubectl(begins_with) { MIXED } else { "" } })
    }

    pub(super) fn in_file(self, file: &Path, document: usize) -> DumpError {
        let file = file.to_owned();
        match self {
            Self::Read(source) => DumpError::Read { file, source },
            Self::Text(source) => DumpError::Syntax { file, document, source: Box::new(source) },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Whether a line is a message of kubectl: an error, a warning, or a line of its log (`E0105 10:00:00 …`).
fn is_of_kubectl(line: &str) -> bool {
    let mut word = line.bytes();
    let is_logged =
        matches!(word.next(), Some(b'E' | b'W' | b'I')) && word.by_ref().take(4).all(|byte| byte.is_ascii_digit());
    ["error:", "Error from server", "Warning:", "Unable to connect"].iter().any(|begin| line.starts_with(begin))
        || is_logged && word.next() == Some(b' ')
}
