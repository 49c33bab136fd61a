//! Reads a dump's file as UTF-8, whatever its encoding. Owns opening, decompression and encodings.
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use encoding_rs_io::DecodeReaderBytesBuilder;
use flate2::read::MultiGzDecoder;

/// Bytes per read of a file: few system calls, and small enough for a CPU cache.
const AT_ONCE: usize = 256 << 10;

/// Opens a file; `-` is standard input.
pub(super) fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    let raw: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(file)?) };
    let (head, raw) = peek(raw)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let (head, unpacked) = peek(Box::new(MultiGzDecoder::new(raw)))?;
        return decoded(head, unpacked);
    }
    decoded(head, raw)
}

/// The first bytes, and a reader of all bytes.
fn peek(mut from: Box<dyn Read>) -> io::Result<([u8; 4], Box<dyn Read>)> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match from.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let first = io::Cursor::new(head[..filled].to_vec());
    Ok((head, Box::new(first.chain(BufReader::with_capacity(AT_ONCE, from)))))
}

fn decoded(head: [u8; 4], from: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    // The text begins with an ASCII character: which of its two bytes is 0 shows the byte order.
    let utf_16 = match head {
        [0xff, 0xfe, ..] => Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => Some(encoding_rs::UTF_16BE),
        [first, 0, _, _] if first != 0 => Some(encoding_rs::UTF_16LE),
        [0, second, _, _] if second != 0 => Some(encoding_rs::UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = utf_16 {
        // This also removes the byte order mark.
        return Ok(Box::new(DecodeReaderBytesBuilder::new().encoding(Some(encoding)).bom_override(true).build(from)));
    }
    let packed = match head {
        [b'P', b'K', 3, 4] => Some("a zip archive"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("compressed with zstd"),
        [0xfd, b'7', b'z', b'X'] => Some("compressed with xz"),
        [b'B', b'Z', b'h', _] => Some("compressed with bzip2"),
        _ => None,
    };
    if let Some(packed) = packed {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file is {packed}: decompress it first")));
    }
    let mut from = BufReader::with_capacity(AT_ONCE, from);
    if head.starts_with(&[0xef, 0xbb, 0xbf]) {
        io::copy(&mut from.by_ref().take(3), &mut io::sink())?;
    }
    // Read once here, so that an error of the first read counts as an error of opening.
    from.fill_buf()?;
    Ok(Box::new(from))
}
