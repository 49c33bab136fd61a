//! Cuts a YAML stream into pieces that can be parsed one by one, so that memory holds one piece and not the whole stream.
//!
//! Owns only where to cut; the parser reads the pieces. Two kinds of lines can be recognised without parsing, because the
//! specification allows no other meaning:
//! - `---` and `...` at the start of a line end a document, even in the middle of a text (YAML 1.2.2, 9.1.2);
//! - in a document whose first line is a field of the outermost map, as in `apiVersion: v1`, everything that is part of a field's
//!   value is indented more than that map, except the entries of a list (8.2.1, 8.2.2). So after the line `items:`, a line `- …`
//!   with the indentation of the first one starts an item, and a line with less indentation ends the list.
//!
//! A document that does not begin like this is one piece, and so is a document without `items`.
use std::io::{self, Read};

use super::window::Window;

/// How much of a list is parsed at once: many items, but little compared with the decoded objects.
const PIECE: usize = 512 << 10;

/// The role of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A complete document.
    Whole,
    /// A document up to the line `items:`.
    Open,
    /// Some of its items, as a list.
    Items,
    /// The fields after the items; empty if there are none.
    Close,
}

/// A piece: its role, and its length in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) part: Part,
    pub(super) bytes: usize,
}

/// Where in the stream the next piece begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Cutter {
    /// At the start of a document.
    #[default]
    Document,
    /// At an item; all items have this indentation.
    Items(usize),
    /// After the items.
    Close,
}

/// The kind of a line, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// An empty line or a comment.
    Blank,
    /// `---`, and whether the document starts on the same line.
    Begin(bool),
    /// `...`
    End,
    /// A directive such as `%YAML`.
    Directive,
    /// `- …` with this indentation.
    Entry(usize),
    /// `items:` at the start of the line, without a value on the line.
    Items,
    /// Another `name: …` at the start of the line.
    Field,
    /// Anything else with this indentation.
    Other(usize),
}

impl Cutter {
    /// The next piece, which is then completely in the window. `None` if there is none.
    pub(super) fn next<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<Option<Piece>> {
        let piece = |part, bytes| Piece { part, bytes };
        match *self {
            Self::Document => self.document(window),
            Self::Items(indent) => {
                let bytes = items(window, indent)?;
                if bytes > 0 {
                    return Ok(Some(piece(Part::Items, bytes)));
                }
                *self = Self::Close;
                self.next(window)
            }
            Self::Close => {
                *self = Self::Document;
                let mut lines = Lines::default();
                while let Some((line, length)) = lines.peek(window)? {
                    match line {
                        Line::Begin(_) => break,
                        Line::End => {
                            lines.at += length;
                            break;
                        }
                        _ => lines.at += length,
                    }
                }
                Ok(Some(piece(Part::Close, lines.at)))
            }
        }
    }

    fn document<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<Option<Piece>> {
        let mut lines = Lines::default();
        // Whether it is a map whose fields start at the start of a line. `None` before the first line.
        let mut is_map = None;
        while let Some((line, length)) = lines.peek(window)? {
            match (line, is_map) {
                (Line::Begin(_), Some(_)) => break,
                (Line::Items, None | Some(true)) => {
                    lines.at += length;
                    if let Some(indent) = lines.first_entry(window)? {
                        *self = Self::Items(indent);
                        return Ok(Some(Piece { part: Part::Open, bytes: lines.at }));
                    }
                    is_map = Some(true);
                    continue;
                }
                (Line::End, _) => {
                    lines.at += length;
                    return Ok(Some(Piece { part: Part::Whole, bytes: lines.at }));
                }
                (Line::Field, None) => is_map = Some(true),
                (Line::Begin(true) | Line::Entry(_) | Line::Other(_), None) => is_map = Some(false),
                _ => {}
            }
            lines.at += length;
        }
        Ok((lines.at > 0).then_some(Piece { part: Part::Whole, bytes: lines.at }))
    }
}

/// The length of the items of the next piece; 0 if there are no more items.
fn items<R: Read>(window: &mut Window<R>, indent: usize) -> io::Result<usize> {
    let mut lines = Lines::default();
    while let Some((line, length)) = lines.peek(window)? {
        match line {
            Line::Entry(at) if at == indent && lines.at >= PIECE => break,
            Line::Entry(at) | Line::Other(at) if at < indent => break,
            Line::Other(at) if at == indent => break,
            Line::Begin(_) | Line::End | Line::Items | Line::Field | Line::Directive => break,
            _ => lines.at += length,
        }
    }
    Ok(lines.at)
}

/// Iterates over the lines of a window.
#[derive(Default)]
struct Lines {
    /// The start of the next line.
    at: usize,
}

impl Lines {
    /// The next line, and its length including the line end.
    fn peek<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<Option<(Line, usize)>> {
        let mut searched = self.at;
        loop {
            let unread = window.unread();
            if let Some(end) = memchr::memchr(b'\n', &unread[searched..]) {
                let line = &unread[self.at..searched + end];
                return Ok(Some((Line::of(line), line.len() + 1)));
            }
            searched = unread.len();
            if !window.more()? {
                let line = &window.unread()[self.at..];
                return Ok((!line.is_empty()).then(|| (Line::of(line), line.len())));
            }
        }
    }

    /// Moves to the first entry of a list, if one follows, and returns its indentation.
    fn first_entry<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<Option<usize>> {
        let mut ahead = Self { at: self.at };
        while let Some((line, length)) = ahead.peek(window)? {
            match line {
                Line::Blank => ahead.at += length,
                Line::Entry(indent) => {
                    self.at = ahead.at;
                    return Ok(Some(indent));
                }
                _ => break,
            }
        }
        Ok(None)
    }
}

impl Line {
    fn of(line: &[u8]) -> Self {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        let text = &line[indent..];
        let is_end = |rest: &[u8]| rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
        match (indent, text) {
            (_, [] | [b'#', ..]) => Self::Blank,
            (_, [b'\t', ..]) if text.trim_ascii().is_empty() => Self::Blank,
            (0, [b'-', b'-', b'-', rest @ ..]) if is_end(rest) => {
                let rest = rest.trim_ascii_start();
                Self::Begin(!matches!(rest, [] | [b'#', ..]))
            }
            (0, [b'.', b'.', b'.', rest @ ..]) if is_end(rest) => Self::End,
            (0, [b'%', ..]) => Self::Directive,
            (_, [b'-', rest @ ..]) if is_end(rest) => Self::Entry(indent),
            (0, _) => Self::field(text),
            _ => Self::Other(indent),
        }
    }

    /// The kind of a line without indentation.
    fn field(text: &[u8]) -> Self {
        let name = text.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        match text[name..] {
            [b':', ref rest @ ..] if name > 0 && matches!(rest, [] | [b' ' | b'\t', ..]) => {
                let value = rest.trim_ascii_start();
                if &text[..name] == b"items" && matches!(value, [] | [b'#', ..]) { Self::Items } else { Self::Field }
            }
            _ => Self::Other(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a text, read in steps of a byte.
    fn pieces(text: &str) -> Vec<(Part, &str)> {
        let mut window = Window::new(text.as_bytes());
        let (mut cutter, mut at, mut pieces) = (Cutter::default(), 0, Vec::new());
        while let Some(Piece { part, bytes }) = cutter.next(&mut window).unwrap() {
            window.skip(bytes);
            pieces.push((part, &text[at..at + bytes]));
            at += bytes;
        }
        assert_eq!(at, text.len());
        pieces
    }

    #[test]
    fn documents_are_cut_where_they_begin_and_end() {
        assert_eq!(pieces(""), []);
        let [a, b] = ["# one\n%YAML 1.2\n---\na: 1\n", "--- {b: |\n  text}\n"];
        assert_eq!(pieces(&format!("{a}{b}")), [(Part::Whole, a), (Part::Whole, b)]);
        assert_eq!(pieces("a: 1\n...\nb: 1"), [(Part::Whole, "a: 1\n...\n"), (Part::Whole, "b: 1")]);
        assert_eq!(pieces("---\n---\n"), [(Part::Whole, "---\n---\n")]);
        assert_eq!(pieces("--- 1\n---- 2\n"), [(Part::Whole, "--- 1\n---- 2\n")]);
    }

    #[test]
    fn a_list_is_cut_into_what_stands_before_its_items_the_items_and_what_stands_behind() {
        let [open, items, close] =
            ["a: v1\nitems: # all\n\n", "- x: |\n\n   - y\n  z: 1\n# no item\n- []\n", "kind: List\n"];
        let expected = [(Part::Open, open), (Part::Items, items), (Part::Close, close)];
        assert_eq!(pieces(&format!("{open}{items}{close}")), expected);
        // Indented, with Windows line ends, as the first field, with nothing after it.
        let [open, items] = ["items:\r\n", "  - x\r\n  -\r\n    y\r\n"];
        let expected = [(Part::Open, open), (Part::Items, items), (Part::Close, "")];
        assert_eq!(pieces(&format!("{open}{items}")), expected);
        // The next document ends the items, too.
        let next = "---\nb: 1\n";
        let expected = [(Part::Open, open), (Part::Items, items), (Part::Close, ""), (Part::Whole, next)];
        assert_eq!(pieces(&format!("{open}{items}{next}")), expected);
    }

    #[test]
    fn what_only_looks_like_a_list_is_one_piece() {
        for text in [
            "items:\nkind: List\n",
            "items: []\n",
            "a:\n  items:\n  - x\n",
            "--- |\nitems:\n- x\n",
            "--- {a: 1,\nitems:\n- x}\n",
            "{a: 1,\nitems:\n- x}\n",
            "|\nitems:\n- x\n",
            "- items:\n- x\n",
            "'items':\n- x\n",
        ] {
            assert_eq!(pieces(text), [(Part::Whole, text)]);
        }
    }

    #[test]
    fn a_long_list_is_cut_between_items_alone() {
        let item = format!("- a: {}\n  b: 1\n", "x".repeat(1000));
        let text = format!("items:\n{}kind: List\n", item.repeat(2000));
        let pieces = pieces(&text);
        assert_eq!((pieces[0], *pieces.last().unwrap()), ((Part::Open, "items:\n"), (Part::Close, "kind: List\n")));
        let items = &pieces[1..pieces.len() - 1];
        assert!(items.len() > 2, "{}", items.len());
        for (part, text) in items {
            assert_eq!((*part, text.len() % item.len()), (Part::Items, 0));
        }
    }
}
