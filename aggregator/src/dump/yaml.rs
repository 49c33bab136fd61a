//! Dumps in YAML: reads documents piece by piece and turns the pieces into objects.
use std::io::Read;

use rlsp_yaml_parser::parse_events;
use serde::de::Deserializer as _;

use super::Trouble;
use super::cut::{Cutter, Part, Piece};
use super::document::{Behind, Document, Root, Sink};
use super::events::{Anchors, EventError, Events, Parsed};
use super::window::Window;

/// Reads documents until the file ends.
pub(super) fn read<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    let mut cutter = Cutter::default();
    let mut anchors = Anchors::default();
    // The list whose items are being read.
    let mut list: Option<Document> = None;
    while let Some(Piece { part, bytes }) = cutter.next(window)? {
        let line = window.line();
        let piece = &window.unread()[..bytes];
        let text = std::str::from_utf8(piece).map_err(|error| {
            let before = &piece[..error.valid_up_to()];
            Trouble::text(line + lines(before), "a byte is not UTF-8: save the file as UTF-8".to_owned())
        })?;
        let piece = Text { text, line };
        match part {
            Part::Whole => whole(piece, sink)?,
            Part::Open => {
                anchors = Anchors::default();
                list = open(piece, sink, &mut anchors)?;
            }
            Part::Items => items(piece, sink, &mut anchors, list.get_or_insert_default())?,
            Part::Close => {
                let mut list = list.take().unwrap_or_default();
                close(piece, sink, &mut anchors, &mut list)?;
                list.finish(sink);
            }
        }
        window.skip(bytes);
    }
    Ok(())
}

/// The text of a piece, and the line of the file at which it begins.
#[derive(Clone, Copy)]
struct Text<'t> {
    text: &'t str,
    line: usize,
}

impl Text<'_> {
    fn line_of(self, offset: usize) -> usize {
        self.line + lines(&self.text.as_bytes()[..offset.min(self.text.len())])
    }

    fn trouble(self, error: &EventError) -> Trouble {
        let line = error.offset.map_or(self.line, |offset| self.line_of(offset));
        let begin = self.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Trouble::yaml(line, error.to_string(), begin)
    }
}

fn lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// Starts the next document; returns false if there is none. A document that cannot be started counts as a document.
fn begin<'t>(
    events: &mut Events<'_, 't, impl Iterator<Item = Parsed<'t>>>,
    piece: Text<'t>,
    sink: &mut Sink<'_>,
) -> Result<bool, Trouble> {
    let begun = events.begin_document().and_then(|is_there| Ok(if is_there { Some(events.offset()?) } else { None }));
    match begun {
        Ok(None) => return Ok(false),
        Ok(Some(offset)) => sink.begin(piece.line_of(offset)),
        Err(error) => {
            sink.begin(piece.line);
            return Err(piece.trouble(&error));
        }
    }
    Ok(true)
}

fn whole(piece: Text<'_>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    let trouble = |error: EventError| piece.trouble(&error);
    let mut anchors = Anchors::default();
    let mut events = Events::new(parse_events(piece.text), &mut anchors);
    while begin(&mut events, piece, sink)? {
        events.forget_anchors();
        if let Some(document) = events.deserialize_any(Root(sink)).map_err(trouble)? {
            document.finish(sink);
        } else {
            sink.was_empty();
        }
    }
    Ok(())
}

/// Reads a list up to its items.
fn open(piece: Text<'_>, sink: &mut Sink<'_>, anchors: &mut Anchors) -> Result<Option<Document>, Trouble> {
    let trouble = |error: EventError| piece.trouble(&error);
    let mut events = Events::new(parse_events(piece.text), anchors);
    let mut list = None;
    while begin(&mut events, piece, sink)? {
        list = events.deserialize_any(Root(sink)).map_err(trouble)?;
    }
    Ok(list)
}

fn items(piece: Text<'_>, sink: &mut Sink<'_>, anchors: &mut Anchors, list: &mut Document) -> Result<(), Trouble> {
    let trouble = |error: EventError| piece.trouble(&error);
    let mut events = Events::new(parse_events(piece.text), anchors);
    let (mut counted, mut line) = (0, piece.line);
    while events.begin_document().map_err(trouble)? {
        if !events.begin_list().map_err(trouble)? {
            return Err(Trouble::text(line, "an item of the list is missing".to_owned()));
        }
        while !events.end_list().map_err(trouble)? {
            let offset = events.offset().map_err(trouble)?.clamp(counted, piece.text.len());
            line += lines(&piece.text.as_bytes()[counted..offset]);
            counted = offset;
            sink.line = line;
            list.item(&mut events, sink).map_err(trouble)?;
        }
    }
    Ok(())
}

/// Reads the fields of a list after its items.
fn close(piece: Text<'_>, sink: &mut Sink<'_>, anchors: &mut Anchors, list: &mut Document) -> Result<(), Trouble> {
    let trouble = |error: EventError| piece.trouble(&error);
    let mut events = Events::new(parse_events(piece.text), anchors);
    while events.begin_document().map_err(trouble)? {
        events.deserialize_any(Behind { list, sink }).map_err(trouble)?;
    }
    Ok(())
}
