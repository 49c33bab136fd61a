//! What can be wrong with a dump: a file that cannot be read at all, and objects that are left out of one that can. Owns the sentences:
//! what, where, and what to do.
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mcad_accounting::object::{Excess, ObjectError};
use thiserror::Error;

/// How a dump is made.
const MAKE_ONE: &str = "make it with `mcad-aggregator dump` or `kubectl get … -o json`";

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
        source: Box<dyn Error + Send + Sync>,
    },
}

/// An object in a dump that could not be decoded.
#[derive(Debug, Error)]
#[error("{}", place(self))]
pub struct Skipped {
    /// Which file; `-` is standard input.
    pub file: PathBuf,
    /// Which document in it, from 1; empty ones are not counted. 0: it is about the file.
    pub document: usize,
    /// Which item of a list, from 0.
    pub item: Option<usize>,
    /// The line of the file that it begins at, from 1.
    pub line: usize,
    /// Why.
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

/// What is wrong with a document or an item of a list.
#[derive(Debug, Error)]
pub enum ItemError {
    /// It says of itself that it counts, but cannot be decoded.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It brings more than one object may.
    #[error("{object} has {excess}, so {what}")]
    Excess {
        /// Kind, namespace and name.
        object: String,
        /// What is left out.
        what: &'static str,
        /// What is too much.
        excess: Excess,
    },
    /// The file has no document.
    #[error(
        "the file is empty, which is no empty cluster: kubectl writes nothing where it fails. See what it printed, and {MAKE_ONE}"
    )]
    Empty,
    /// It is no object: it does not say what it is.
    #[error("field `kind` is absent")]
    NoKind,
    /// A list ends before it says that it is one.
    #[error("field `kind` of the list is absent: the file may be cut off, so {MAKE_ONE} again")]
    ListWithoutKind,
    /// A number, a text or a list where an object should be.
    #[error("it is no object")]
    NoObject,
    /// A kind that counts, of a version that this does not know.
    #[error("{object}: field `apiVersion`: `{version}` is not known; known is {known}. List it in a version that is")]
    Version {
        /// Kind, namespace and name, as far as it says.
        object: String,
        /// What it says.
        version: String,
        /// What it could say.
        known: String,
    },
    /// What kubectl prints for people, as JSON.
    #[error(
        "kind `Table` is for people to look at, and has no whole objects: ask for objects, as `kubectl get … -o json` does"
    )]
    Table,
    /// Objects without spec and status.
    #[error("kind `{kind}` has names and labels only: ask for whole objects, as `kubectl get … -o json` does")]
    MetadataOnly {
        /// Which of the two kinds.
        kind: String,
    },
    /// An answer of the API server that is no object.
    #[error("it is an error of the API server: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// A field that lists do not have, such as what kubectl prints when something fails.
    #[error(
        "`{field}: {text}` is no field of an object: something else was written into the file. With `2>&1` errors are; leave it out"
    )]
    Stray {
        /// The field.
        field: String,
        /// Its value.
        text: String,
    },
    /// A record of `mcad-aggregator dump` that it did not write so.
    #[error("the record of `mcad-aggregator dump`")]
    Record(#[source] serde_json::Error),
}

/// Why a file cannot be read to its end.
pub(super) enum Trouble {
    Read(io::Error),
    Text(TextError),
}

/// What is wrong with a text, and in which line.
#[derive(Debug, Error)]
pub(super) struct TextError {
    line: usize,
    column: Option<usize>,
    message: String,
    /// What may be the reason, and what to do.
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

const MIXED: &str = ". It begins with a message of kubectl: make the file without `2>&1`";
const CUT_OFF: &str = ". The file ends in the middle of an object: it was cut off, so make it again";

impl Trouble {
    pub(super) fn text(line: usize, message: String) -> Self {
        Self::Text(TextError { line, column: None, message, hint: "" })
    }

    /// The file ends in an object.
    pub(super) fn cut(line: usize) -> Self {
        Self::Text(TextError { line, column: None, message: "there is no more".to_owned(), hint: CUT_OFF })
    }

    /// serde_json's error in a text that begins at that line.
    pub(super) fn json(error: &serde_json::Error, begins_at: usize) -> Self {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
        let line = begins_at + error.line().saturating_sub(1);
        let column = (error.line() > 1).then(|| error.column());
        Self::Text(TextError { line, column, message, hint: if error.is_eof() { CUT_OFF } else { "" } })
    }

    /// The YAML parser's, of a document that begins so.
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

/// Whether a line is what kubectl prints beside what it was asked for: errors, warnings, or a line of its log (`E0105 10:00:00 …`).
fn is_of_kubectl(line: &str) -> bool {
    let mut word = line.bytes();
    let is_logged =
        matches!(word.next(), Some(b'E' | b'W' | b'I')) && word.by_ref().take(4).all(|byte| byte.is_ascii_digit());
    ["error:", "Error from server", "Warning:", "Unable to connect"].iter().any(|begin| line.starts_with(begin))
        || is_logged && word.next() == Some(b' ')
}
