//! Dumps in JSON: objects and lists of objects, one after another. Reads the file incrementally; the items of a list are decoded one
//! by one, so that memory holds the text of one item, however long the list is.
use std::io::{self, Read};

use serde::de::IgnoredAny;

use super::Trouble;
use super::document::{Document, Sink};
use super::window::Window;

/// Reads documents until the file ends or what follows is not JSON.
pub(super) fn read<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    while let Some(first) = next(window)? {
        match first {
            b'{' => object(window, sink)?,
            b'[' => list(window, sink)?,
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Whether what follows is JSON: a map or a list of maps whose first key is quoted, or empty ones.
pub(super) fn is_next<R: Read>(window: &mut Window<R>) -> io::Result<bool> {
    let Some(first) = next(window)? else { return Ok(false) };
    let mut at = 1;
    let mut wanted: &[u8] = match first {
        b'{' => b"\"}",
        b'[' => b"{]",
        _ => return Ok(false),
    };
    loop {
        match window.unread().get(at).copied() {
            Some(byte) if byte.is_ascii_whitespace() => at += 1,
            Some(b'{') if wanted.contains(&b'{') => (wanted, at) = (b"\"}", at + 1),
            Some(byte) => return Ok(wanted.contains(&byte)),
            None if window.more()? => {}
            None => return Ok(true),
        }
    }
}

/// Skips a `---` between two documents; returns false if something else or nothing follows.
pub(super) fn skip_marker<R: Read>(window: &mut Window<R>) -> io::Result<bool> {
    next(window)?;
    while window.unread().len() < 4 && window.more()? {}
    let is_marker = matches!(window.unread(), [b'-', b'-', b'-'] | [b'-', b'-', b'-', b' ' | b'\r' | b'\n', ..]);
    if is_marker {
        window.skip(3);
    }
    Ok(is_marker)
}

/// The next byte that is not white space, without consuming it.
fn next<R: Read>(window: &mut Window<R>) -> io::Result<Option<u8>> {
    loop {
        let spaces = window.unread().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        window.skip(spaces);
        if let Some(byte) = window.unread().first() {
            return Ok(Some(*byte));
        }
        if !window.more()? {
            return Ok(None);
        }
    }
}

fn object<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    sink.begin(window.line());
    let mut document = Document::default();
    window.skip(1);
    let mut separator = None;
    loop {
        match (next(window)?, separator) {
            (Some(b'}'), _) => break,
            (Some(b','), Some(b',')) => {
                window.skip(1);
                separator = None;
            }
            (Some(b'"'), None) => {
                let key: String = value(window, &mut |from| serde::Deserialize::deserialize(from))?;
                expect(window, b':')?;
                window.skip(1);
                if key == "items" && next(window)? == Some(b'[') {
                    document.lists();
                    items(window, sink, &mut document)?;
                } else {
                    value(window, &mut |from| document.field(&key, from))?;
                }
                separator = Some(b',');
            }
            (_, Some(_)) => return Err(unexpected(window, "a comma or the end of the object")),
            (_, None) => return Err(unexpected(window, "the name of a field, in double quotes")),
        }
    }
    window.skip(1);
    document.finish(sink);
    Ok(())
}

/// A bare list, such as the output of `jq .items`.
fn list<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>) -> Result<(), Trouble> {
    sink.begin(window.line());
    let mut document = Document::bare_list();
    items(window, sink, &mut document)?;
    document.finish(sink);
    Ok(())
}

fn items<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>, document: &mut Document) -> Result<(), Trouble> {
    window.skip(1);
    let mut is_first = true;
    loop {
        match next(window)? {
            Some(b']') => break,
            Some(b',') if !is_first => {
                window.skip(1);
                next(window)?;
            }
            Some(_) if is_first => {}
            _ => return Err(unexpected(window, "a comma or the end of the list")),
        }
        is_first = false;
        sink.line = window.line();
        item(window, sink, document)?;
    }
    window.skip(1);
    Ok(())
}

fn item<R: Read>(window: &mut Window<R>, sink: &mut Sink<'_>, document: &mut Document) -> Result<(), Trouble> {
    loop {
        let mark = sink.mark();
        let mut from = serde_json::Deserializer::from_slice(window.unread());
        match document.item(&mut from, sink) {
            Ok(()) => {
                let used = from.into_iter::<IgnoredAny>().byte_offset();
                window.skip(used);
                return Ok(());
            }
            // The item continues in bytes that are not read yet.
            Err(error) if error.is_eof() && window.more()? => sink.rewind(&mark),
            Err(error) => return Err(Trouble::json(&error, window.line())),
        }
    }
}

type Slice<'de> = serde_json::Deserializer<serde_json::de::SliceRead<'de>>;

/// One value, once all of it is in memory.
fn value<R: Read, T>(
    window: &mut Window<R>,
    read: &mut dyn for<'a, 'de> FnMut(&'a mut Slice<'de>) -> Result<T, serde_json::Error>,
) -> Result<T, Trouble> {
    loop {
        let unread = window.unread();
        let mut from = serde_json::Deserializer::from_slice(unread);
        match read(&mut from) {
            Ok(value) => {
                let used = from.into_iter::<IgnoredAny>().byte_offset();
                // A number may continue.
                if used == unread.len() && window.more()? {
                    continue;
                }
                window.skip(used);
                return Ok(value);
            }
            Err(error) if error.is_eof() && window.more()? => {}
            Err(error) => return Err(Trouble::json(&error, window.line())),
        }
    }
}

fn expect<R: Read>(window: &mut Window<R>, wanted: u8) -> Result<(), Trouble> {
    match next(window)? {
        Some(byte) if byte == wanted => Ok(()),
        _ => Err(unexpected(window, "a colon")),
    }
}

fn unexpected<R: Read>(window: &Window<R>, wanted: &str) -> Trouble {
    let line = window.line();
    match window.unread().first() {
        None => Trouble::cut(line),
        Some(_) => Trouble::text(line, format!("{wanted} is missing")),
    }
}
