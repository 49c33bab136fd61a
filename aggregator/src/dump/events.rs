//! A serde deserialiser for the events of the YAML parser: scalars by the core schema of YAML 1.2, aliases replaced by their values.
//!
//! Owns the meaning of plain words and the limit on aliases. A writer of YAML 1.1 quotes texts that look like its booleans or octal
//! numbers, a writer of 1.2 does not, and a node may be called `n`: only `true` and `false` are booleans, and a number with a leading
//! zero is a text.
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use rlsp_yaml_parser::{Event, EventMeta, ScalarStyle, Span};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// The most events from aliases in one document, plus [`BEHIND_EACH`] for each event that is not from an alias. An object has a few
/// hundred events; a document with maliciously nested aliases has billions.
const BEHIND_ALIASES: usize = 1_000_000;
/// A writer that uses aliases, such as PyYAML, uses them for lists that occur two or three times.
const BEHIND_EACH: usize = 10;

/// An error in the text, with its offset in bytes if known.
#[derive(Debug)]
pub(super) struct EventError {
    message: String,
    pub(super) offset: Option<usize>,
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EventError {}

impl de::Error for EventError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), offset: None }
    }
}

/// The values of a document's anchors, kept across its pieces.
#[derive(Default)]
pub(super) struct Anchors {
    nodes: HashMap<String, Rc<[Kept]>>,
    /// Events that are not from aliases.
    written: usize,
    /// Events that were kept or replayed for aliases.
    spent: usize,
}

/// An event that is kept for aliases.
#[derive(Clone, Debug)]
enum Kept {
    Scalar { value: Rc<str>, is_plain: bool },
    Sequence,
    SequenceEnd,
    Mapping,
    MappingEnd,
}

/// The next event.
enum Next<'t> {
    Scalar { value: Cow<'t, str>, is_plain: bool },
    Sequence,
    SequenceEnd,
    Mapping,
    MappingEnd,
    DocumentBegin,
    DocumentEnd,
    StreamEnd,
}

/// The next result of the parser.
pub(super) type Parsed<'t> = Result<(Event<'t>, Span), rlsp_yaml_parser::Error>;

/// See the module's documentation.
pub(super) struct Events<'a, 't, I> {
    parser: I,
    peeked: Option<Next<'t>>,
    anchors: &'a mut Anchors,
    /// The values of aliases that are being replayed, and how far; the innermost last.
    replayed: Vec<(Rc<[Kept]>, usize)>,
    /// The offset of the last event.
    offset: usize,
}

impl<'a, 't, I: Iterator<Item = Parsed<'t>>> Events<'a, 't, I> {
    pub(super) fn new(parser: I, anchors: &'a mut Anchors) -> Self {
        Self { parser, peeked: None, anchors, replayed: Vec::new(), offset: 0 }
    }

    /// The offset of the next event, in bytes.
    pub(super) fn offset(&mut self) -> Result<usize, EventError> {
        self.peek()?;
        Ok(self.offset)
    }

    /// Moves to the next document that is not empty; returns false if there is none.
    pub(super) fn begin_document(&mut self) -> Result<bool, EventError> {
        loop {
            match self.next()? {
                Next::DocumentBegin if !matches!(self.peek()?, Next::DocumentEnd) => return Ok(true),
                Next::StreamEnd => return Ok(false),
                _ => {}
            }
        }
    }

    /// Drops all anchors, which are valid only within one document.
    pub(super) fn forget_anchors(&mut self) {
        *self.anchors = Anchors::default();
    }

    /// Enters a list; returns false if something else follows.
    pub(super) fn begin_list(&mut self) -> Result<bool, EventError> {
        let is_list = matches!(self.peek()?, Next::Sequence);
        if is_list {
            self.peeked = None;
        }
        Ok(is_list)
    }

    /// Whether the list ends here; if so, consumes its end.
    pub(super) fn end_list(&mut self) -> Result<bool, EventError> {
        let is_end = matches!(self.peek()?, Next::SequenceEnd);
        if is_end {
            self.peeked = None;
        }
        Ok(is_end)
    }

    fn peek(&mut self) -> Result<&Next<'t>, EventError> {
        let next = match self.peeked.take() {
            Some(next) => next,
            None => self.take()?,
        };
        Ok(self.peeked.insert(next))
    }

    fn next(&mut self) -> Result<Next<'t>, EventError> {
        match self.peeked.take() {
            Some(next) => Ok(next),
            None => self.take(),
        }
    }

    fn wrong(&self, message: impl Into<String>) -> EventError {
        EventError { message: message.into(), offset: Some(self.offset) }
    }

    /// The next event; anchors are recorded and aliases replaced.
    fn take(&mut self) -> Result<Next<'t>, EventError> {
        if let Some((kept, at)) = self.replayed.last_mut() {
            let next = kept[*at].clone().into();
            *at += 1;
            if *at == kept.len() {
                self.replayed.pop();
            }
            return Ok(next);
        }
        let event = self.parse()?;
        if event.anchor().is_some() {
            let kept = self.keep(event)?;
            return self.replay(kept);
        }
        match event {
            Event::Alias { name } => match self.anchors.nodes.get(name) {
                Some(kept) => {
                    let kept = Rc::clone(kept);
                    self.replay(kept)
                }
                None => Err(self.wrong(format!("the alias `*{name}` has no anchor"))),
            },
            event => Ok(event.into()),
        }
    }

    fn parse(&mut self) -> Result<Event<'t>, EventError> {
        loop {
            match self.parser.next() {
                Some(Ok((Event::Comment { .. } | Event::StreamStart, _))) => {}
                Some(Ok((event, span))) => {
                    self.anchors.written += 1;
                    self.offset = span.start as usize;
                    return Ok(event);
                }
                Some(Err(error)) => {
                    return Err(EventError { message: error.message, offset: Some(error.pos.byte_offset) });
                }
                None => return Ok(Event::StreamEnd),
            }
        }
    }

    fn replay(&mut self, kept: Rc<[Kept]>) -> Result<Next<'t>, EventError> {
        self.spend(kept.len())?;
        let first = kept[0].clone().into();
        if kept.len() > 1 {
            self.replayed.push((kept, 1));
        }
        Ok(first)
    }

    fn spend(&mut self, events: usize) -> Result<(), EventError> {
        self.anchors.spent += events;
        if self.anchors.spent > BEHIND_ALIASES + BEHIND_EACH * self.anchors.written {
            return Err(self.wrong("the aliases of the document expand to too much data"));
        }
        Ok(())
    }

    /// Records the events of an anchor, including anchors inside it.
    fn keep(&mut self, first: Event<'t>) -> Result<Rc<[Kept]>, EventError> {
        let mut kept: Vec<Kept> = Vec::new();
        // Anchors that are not complete yet: name, start and depth.
        let mut open: Vec<(String, usize, usize)> = Vec::new();
        let mut depth = 0;
        let mut event = first;
        loop {
            if let Some(name) = event.anchor() {
                open.push((name.to_owned(), kept.len(), depth));
            }
            if let Event::Alias { name } = event {
                let Some(stands_for) = self.anchors.nodes.get(name).map(Rc::clone) else {
                    return Err(self.wrong(format!("the alias `*{name}` has no anchor")));
                };
                self.spend(stands_for.len())?;
                kept.extend(stands_for.iter().cloned());
            } else {
                let one = match Next::from(event) {
                    Next::Scalar { value, is_plain } => Kept::Scalar { value: value.into(), is_plain },
                    Next::Sequence => Kept::Sequence,
                    Next::SequenceEnd => Kept::SequenceEnd,
                    Next::Mapping => Kept::Mapping,
                    Next::MappingEnd => Kept::MappingEnd,
                    Next::DocumentBegin | Next::DocumentEnd | Next::StreamEnd => {
                        return Err(self.wrong("the document ends early"));
                    }
                };
                match one {
                    Kept::Sequence | Kept::Mapping => depth += 1,
                    Kept::SequenceEnd | Kept::MappingEnd => depth -= 1,
                    Kept::Scalar { .. } => {}
                }
                self.spend(1)?;
                kept.push(one);
            }
            while let Some((name, begin, _)) = open.pop_if(|(_, _, at)| *at == depth) {
                self.anchors.nodes.insert(name, kept[begin..].into());
            }
            if depth == 0 {
                return Ok(kept.into());
            }
            event = self.parse()?;
        }
    }

    /// Skips a value.
    fn pass(&mut self) -> Result<(), EventError> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Next::Sequence | Next::Mapping => depth += 1,
                Next::SequenceEnd | Next::MappingEnd => depth = depth.saturating_sub(1),
                Next::Scalar { .. } => {}
                Next::DocumentBegin | Next::DocumentEnd | Next::StreamEnd => {
                    return Err(self.wrong("the document ends early"));
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

impl<'t> From<Event<'t>> for Next<'t> {
    fn from(event: Event<'t>) -> Self {
        match event {
            Event::Scalar { value, style, meta } => {
                let is_plain = style == ScalarStyle::Plain && !is_text(meta.as_deref());
                Self::Scalar { value, is_plain }
            }
            Event::SequenceStart { .. } => Self::Sequence,
            Event::SequenceEnd => Self::SequenceEnd,
            Event::MappingStart { .. } => Self::Mapping,
            Event::MappingEnd => Self::MappingEnd,
            Event::DocumentStart { .. } => Self::DocumentBegin,
            Event::DocumentEnd { .. } => Self::DocumentEnd,
            // The other events are handled in `parse` and `take`.
            Event::StreamEnd | Event::StreamStart | Event::Comment { .. } | Event::Alias { .. } => Self::StreamEnd,
        }
    }
}

impl From<Kept> for Next<'_> {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Scalar { value, is_plain } => Self::Scalar { value: Cow::Owned(value.to_string()), is_plain },
            Kept::Sequence => Self::Sequence,
            Kept::SequenceEnd => Self::SequenceEnd,
            Kept::Mapping => Self::Mapping,
            Kept::MappingEnd => Self::MappingEnd,
        }
    }
}

/// Whether a tag makes the scalar a text, whatever it looks like.
fn is_text(meta: Option<&EventMeta<'_>>) -> bool {
    let tag = meta.and_then(|meta| meta.tag.as_deref());
    tag.is_some_and(|tag| matches!(tag, "!" | "tag:yaml.org,2002:str" | "tag:yaml.org,2002:binary"))
}

/// The meaning of a plain scalar.
#[derive(Debug, PartialEq)]
enum Word {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

impl Word {
    fn of(text: &str) -> Self {
        let Some(first) = text.bytes().next() else { return Self::Null };
        match first {
            b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => Self::Null,
            b't' | b'T' if matches!(text, "true" | "True" | "TRUE") => Self::Bool(true),
            b'f' | b'F' if matches!(text, "false" | "False" | "FALSE") => Self::Bool(false),
            b'0'..=b'9' | b'+' | b'-' | b'.' => Self::number(text).unwrap_or(Self::Text),
            _ => Self::Text,
        }
    }

    fn number(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let base =
            [("0x", 16), ("0o", 8)].into_iter().find_map(|(mark, base)| Some((unsigned.strip_prefix(mark)?, base)));
        if let Some((digits, base)) = base {
            let is_signed = unsigned.len() < text.len() || digits.starts_with('+');
            return u64::from_str_radix(digits, base).ok().filter(|_| !is_signed).map(Self::Unsigned);
        }
        let (whole, rest) = unsigned.split_at(unsigned.bytes().take_while(u8::is_ascii_digit).count());
        if whole.len() > 1 && whole.starts_with('0') {
            return None;
        }
        if rest.is_empty() {
            let number = text.strip_prefix('+').unwrap_or(text);
            let whole = || number.parse().map(Self::Unsigned).or_else(|_| number.parse().map(Self::Signed));
            return whole().ok().or_else(|| number.parse().ok().map(Self::Float));
        }
        let is_float = rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
        let float = || text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Self::Float);
        if is_float { float() } else { None }
    }
}

impl<'t, I: Iterator<Item = Parsed<'t>>> Deserializer<'t> for &mut Events<'_, 't, I> {
    type Error = EventError;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        match self.next()? {
            Next::Scalar { value, is_plain } => {
                let word = if is_plain { Word::of(&value) } else { Word::Text };
                match (word, value) {
                    (Word::Null, _) => visitor.visit_unit(),
                    (Word::Bool(value), _) => visitor.visit_bool(value),
                    (Word::Unsigned(value), _) => visitor.visit_u64(value),
                    (Word::Signed(value), _) => visitor.visit_i64(value),
                    (Word::Float(value), _) => visitor.visit_f64(value),
                    (Word::Text, Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
                    (Word::Text, Cow::Owned(text)) => visitor.visit_string(text),
                }
            }
            Next::Sequence => visitor.visit_seq(Elements(self)),
            Next::Mapping => visitor.visit_map(Entries(self)),
            Next::SequenceEnd | Next::MappingEnd | Next::DocumentBegin | Next::DocumentEnd | Next::StreamEnd => {
                Err(self.wrong("a value is missing"))
            }
        }
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        let is_null = matches!(self.peek()?, Next::Scalar { value, is_plain: true } if Word::of(value) == Word::Null);
        if is_null {
            self.peeked = None;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.pass()?;
        visitor.visit_unit()
    }

    /// The name of a field, which is a text even if it looks like a number.
    fn deserialize_identifier<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        match self.next()? {
            Next::Scalar { value, is_plain: true } if value == "<<" => {
                Err(self.wrong("merge keys (`<<`) are not supported: write out the fields"))
            }
            Next::Scalar { value: Cow::Borrowed(text), .. } => visitor.visit_borrowed_str(text),
            Next::Scalar { value: Cow::Owned(text), .. } => visitor.visit_string(text),
            _ => Err(self.wrong("the name of a field is not a string")),
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum
    }
}

/// The elements of a list.
struct Elements<'b, 'a, 't, I>(&'b mut Events<'a, 't, I>);

impl<'t, I: Iterator<Item = Parsed<'t>>> SeqAccess<'t> for Elements<'_, '_, 't, I> {
    type Error = EventError;

    fn next_element_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<Option<T::Value>, EventError> {
        if self.0.end_list()? { Ok(None) } else { seed.deserialize(&mut *self.0).map(Some) }
    }
}

/// The entries of a map.
struct Entries<'b, 'a, 't, I>(&'b mut Events<'a, 't, I>);

impl<'t, I: Iterator<Item = Parsed<'t>>> MapAccess<'t> for Entries<'_, '_, 't, I> {
    type Error = EventError;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, EventError> {
        if matches!(self.0.peek()?, Next::MappingEnd) {
            self.0.peeked = None;
            return Ok(None);
        }
        seed.deserialize(FieldName(&mut *self.0)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, EventError> {
        seed.deserialize(&mut *self.0)
    }
}

/// A key of a map, whatever type is requested.
struct FieldName<'b, 'a, 't, I>(&'b mut Events<'a, 't, I>);

impl<'t, I: Iterator<Item = Parsed<'t>>> Deserializer<'t> for FieldName<'_, '_, 't, I> {
    type Error = EventError;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.0.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.0.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_word_is_what_yaml_1_2_says() {
        let check = |text: &str, word: Word| assert_eq!(Word::of(text), word, "{text}");
        for text in ["", "~", "null", "Null"] {
            check(text, Word::Null);
        }
        check("true", Word::Bool(true));
        check("False", Word::Bool(false));
        check("0", Word::Unsigned(0));
        check("+12", Word::Unsigned(12));
        check("-12", Word::Signed(-12));
        check("0x1f", Word::Unsigned(31));
        check("0o17", Word::Unsigned(15));
        check("18446744073709551616", Word::Float(18_446_744_073_709_551_616.0));
        check("0.5", Word::Float(0.5));
        check(".5", Word::Float(0.5));
        check("-1e3", Word::Float(-1000.0));
        for text in [
            "n",
            "yes",
            "off",
            "nUll",
            "012",
            "00",
            "1_000",
            "4Gi",
            "500m",
            "1.2.3.4",
            "2026-01-05T10:00:00Z",
            "12:30",
            "-",
            "+",
            ".",
            "...",
            "-x",
            "0x",
            "0b1",
            "1e999",
            "1-2",
            "e3",
            ".inf",
            "infinity",
            "nan",
        ] {
            check(text, Word::Text);
        }
    }
}
