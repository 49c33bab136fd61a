//! Writes the Prometheus text format 0.0.4 directly into chunks. Owns escaping, the format of numbers and the chunk size;
//! knows no family and no transport.
//!
//! The `prometheus` crate's encoder needs all samples as values first: 200 MB for 330,000 lines. Here a line is copied
//! once, from labels that were escaped once, into a chunk that is passed to the sink when it is full.
use std::fmt;
use std::io::Write as _;

/// A chunk is passed to the sink when it has reached this size. Large enough that the cost per chunk is negligible, small enough
/// that a dozen in flight are below a megabyte.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up, or restarts.
    Counter,
    /// Buckets, a sum and a count.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        })
    }
}

/// The fixed part of a metric family. docs/metrics.md lists all families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The labels that its series may have, in their order.
    pub labels: &'static [&'static str],
    /// Unit of its value, for the documentation: `1` if the value is always 1.
    pub unit: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// A sample's value. All but `Float` are written exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// An integer that is never negative.
    Unsigned(u64),
    /// Thousandths: millicores are written as cores, milliseconds as seconds.
    Milli(u64),
    /// Billionths: nanocores are written as cores, nanoseconds as seconds.
    Nano(u64),
    /// Written as the shortest text that parses to the same number.
    Float(f64),
}

/// Takes finished chunks.
pub trait Sink {
    /// Takes one. [`Closed`] ends the writing: the reader is gone.
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed>;
}

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reader has gone")]
pub struct Closed;

impl Sink for Vec<u8> {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.extend_from_slice(&chunk);
        Ok(())
    }
}

/// Labels, rendered once for all lines that share them.
#[derive(Clone, Debug, Default)]
pub struct Labels(Vec<u8>);

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// These labels only, in this order.
    pub fn of(labels: &[(&str, &str)]) -> Self {
        let mut all = Self::new();
        for (name, value) in labels {
            all.push(name, value);
        }
        all
    }

    /// Adds one.
    pub fn push(&mut self, name: &str, value: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"=\"");
        push_escaped(&mut self.0, value, Quotes::Escaped);
        self.0.push(b'"');
        self
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: &Labels) -> &mut Self {
        if !self.0.is_empty() && !others.0.is_empty() {
            self.0.push(b',');
        }
        self.0.extend_from_slice(&others.0);
        self
    }

    /// The current length, as an argument for [`cut`](Self::cut).
    pub fn mark(&self) -> usize {
        self.0.len()
    }

    /// Drops what was added since `mark`.
    pub fn cut(&mut self, mark: usize) -> &mut Self {
        self.0.truncate(mark);
        self
    }
}

/// One exposition being written.
pub struct Exposition<'a> {
    chunk: Vec<u8>,
    sink: &'a mut dyn Sink,
    state: Result<(), Closed>,
    bytes: u64,
}

impl<'a> Exposition<'a> {
    /// Begins one.
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self { chunk: new_chunk(), sink, state: Ok(()), bytes: 0 }
    }

    /// Begins a family. Its header is written before its first line; without lines, no header is written.
    pub fn family(&mut self, family: &'static Family) -> Lines<'_, 'a> {
        Lines { out: self, family, header: Header::Due }
    }

    /// Adds text that is already in this format.
    pub fn raw(&mut self, text: &[u8]) {
        for piece in text.chunks(CHUNK_BYTES) {
            self.chunk.extend_from_slice(piece);
            self.hand_on_if_full();
        }
    }

    /// Passes the last chunk to the sink and returns the number of bytes of all chunks.
    pub fn finish(mut self) -> Result<u64, Closed> {
        if !self.chunk.is_empty() {
            self.hand_on();
        }
        self.state.map(|()| self.bytes)
    }

    fn hand_on_if_full(&mut self) {
        if self.chunk.len() >= CHUNK_BYTES {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        if self.state.is_err() {
            self.chunk.clear();
            return;
        }
        let full = std::mem::replace(&mut self.chunk, new_chunk());
        self.bytes += full.len() as u64;
        self.state = self.sink.take(full);
    }
}

/// The lines of one family.
pub struct Lines<'e, 'a> {
    out: &'e mut Exposition<'a>,
    family: &'static Family,
    header: Header,
}

enum Header {
    Due,
    Written,
}

impl Lines<'_, '_> {
    /// Writes one line.
    pub fn line(&mut self, labels: &Labels, value: Value) {
        if matches!(self.header, Header::Due) {
            self.write_header();
        }
        let chunk = &mut self.out.chunk;
        chunk.extend_from_slice(self.family.name.as_bytes());
        if !labels.0.is_empty() {
            chunk.push(b'{');
            chunk.extend_from_slice(&labels.0);
            chunk.push(b'}');
        }
        chunk.push(b' ');
        push_value(chunk, value);
        chunk.push(b'\n');
        self.out.hand_on_if_full();
    }

    fn write_header(&mut self) {
        self.header = Header::Written;
        let chunk = &mut self.out.chunk;
        for (keyword, text) in [("# HELP ", self.family.help), ("# TYPE ", "")] {
            chunk.extend_from_slice(keyword.as_bytes());
            chunk.extend_from_slice(self.family.name.as_bytes());
            chunk.push(b' ');
            if text.is_empty() {
                push_fmt(chunk, format_args!("{}", self.family.kind));
            } else {
                push_escaped(chunk, text, Quotes::Plain);
            }
            chunk.push(b'\n');
        }
    }
}

fn new_chunk() -> Vec<u8> {
    // Room for one line beyond the limit; a longer line makes the chunk grow.
    Vec::with_capacity(CHUNK_BYTES + 512)
}

#[derive(Clone, Copy)]
enum Quotes {
    Plain,
    Escaped,
}

fn push_escaped(out: &mut Vec<u8>, text: &str, quotes: Quotes) {
    let special = |byte: u8| byte == b'\\' || byte == b'\n' || (byte == b'"' && matches!(quotes, Quotes::Escaped));
    if !text.bytes().any(special) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            byte if special(byte) => out.extend_from_slice(&[b'\\', byte]),
            byte => out.push(byte),
        }
    }
}

fn push_value(out: &mut Vec<u8>, value: Value) {
    match value {
        Value::Integer(value) => {
            if value < 0 {
                out.push(b'-');
            }
            push_digits(out, value.unsigned_abs());
        }
        Value::Unsigned(value) => push_digits(out, value),
        Value::Milli(value) => push_decimal(out, value, 3),
        Value::Nano(value) => push_decimal(out, value, 9),
        Value::Float(value) => push_float(out, value),
    }
}

fn push_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `value / 10^places`, exactly, without trailing zeros.
fn push_decimal(out: &mut Vec<u8>, value: u64, places: u32) {
    let scale = 10_u64.pow(places);
    push_digits(out, value / scale);
    let mut rest = value % scale;
    if rest == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = scale;
    while rest != 0 {
        unit /= 10;
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
    }
}

fn push_float(out: &mut Vec<u8>, value: f64) {
    // Rust writes the fewest digits in both notations; outside these bounds the exponent is shorter.
    let plain = 1e-5..1e17;
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value == 0.0 {
        out.push(b'0');
    } else if plain.contains(&value.abs()) {
        push_fmt(out, format_args!("{value}"));
    } else {
        push_fmt(out, format_args!("{value:e}"));
    }
}

fn push_fmt(out: &mut Vec<u8>, args: fmt::Arguments<'_>) {
    // Writing to a Vec never fails.
    let _ = out.write_fmt(args);
}

#[cfg(test)]
mod tests;
