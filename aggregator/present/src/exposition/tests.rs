//! Tests of the writer: families in, text in chunks out.

use super::*;

static FAMILY: Family =
    Family { name: "mcad_x", kind: Kind::Gauge, labels: &["a"], unit: "1", help: "A \\ and\na \"quote\"." };

fn written(write: impl FnOnce(&mut Exposition<'_>)) -> String {
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    write(&mut out);
    let bytes = out.finish().unwrap();
    assert_eq!(bytes, text.len() as u64);
    String::from_utf8(text).unwrap()
}

fn check_value(value: Value, expected: &str) {
    let mut text = Vec::new();
    push_value(&mut text, value);
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_family_has_one_header_and_then_its_lines() {
    let text = written(|out| {
        let mut lines = out.family(&FAMILY);
        lines.line(&Labels::new(), Value::Unsigned(1));
        lines.line(&Labels::of(&[("a", "b"), ("c", "d")]), Value::Unsigned(2));
    });
    assert_eq!(
        text,
        concat!(
            "# HELP mcad_x A \\\\ and\\na \"quote\".\n",
            "# TYPE mcad_x gauge\n",
            "mcad_x 1\n",
            "mcad_x{a=\"b\",c=\"d\"} 2\n"
        )
    );
}

#[test]
fn a_family_without_lines_has_no_header() {
    let text = written(|out| {
        out.family(&FAMILY);
    });
    assert_eq!(text, "");
}

#[test]
fn backslash_quote_and_newline_are_escaped_in_label_values_and_nothing_else_is() {
    let text = written(|out| out.family(&FAMILY).line(&Labels::of(&[("a", "\\ \" \n ü\t\r")]), Value::Integer(-3)));
    assert!(text.ends_with("mcad_x{a=\"\\\\ \\\" \\n ü\t\r\"} -3\n"), "{text}");
}

#[test]
fn labels_cut_back_to_a_mark_are_shared_by_the_next_line() {
    let mut labels = Labels::of(&[("node", "n")]);
    let mark = labels.mark();
    labels.push("a", "1");
    labels.cut(mark).push("a", "2").extend(&Labels::new()).extend(&Labels::of(&[("b", "3")]));
    assert_eq!(labels.0, b"node=\"n\",a=\"2\",b=\"3\"");
}

#[test]
fn values_are_exact_where_they_are_integers_and_shortest_where_they_are_not() {
    check_value(Value::Integer(i64::MIN), "-9223372036854775808");
    check_value(Value::Unsigned(u64::MAX), "18446744073709551615");
    check_value(Value::Unsigned(0), "0");
    check_value(Value::Milli(0), "0");
    check_value(Value::Milli(1500), "1.5");
    check_value(Value::Milli(7), "0.007");
    check_value(Value::Milli(64_000), "64");
    check_value(Value::Nano(1_000_000_001), "1.000000001");
    check_value(Value::Nano(u64::MAX), "18446744073.709551615");
    check_value(Value::Float(0.1), "0.1");
    check_value(Value::Float(-0.0), "0");
    check_value(Value::Float(3.0), "3");
    check_value(Value::Float(1e300), "1e300");
    check_value(Value::Float(2.5e-7), "2.5e-7");
    check_value(Value::Float(f64::NAN), "NaN");
    check_value(Value::Float(f64::INFINITY), "+Inf");
    check_value(Value::Float(f64::NEG_INFINITY), "-Inf");
}

/// Records the sizes of the chunks and closes after `leaves_after` of them.
struct Reader {
    sizes: Vec<usize>,
    leaves_after: usize,
}

impl Sink for Reader {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.sizes.push(chunk.len());
        if self.sizes.len() == self.leaves_after { Err(Closed) } else { Ok(()) }
    }
}

fn many_lines(out: &mut Exposition<'_>) {
    let labels = Labels::of(&[("a", "b")]);
    let mut lines = out.family(&FAMILY);
    for value in 0..100_000 {
        lines.line(&labels, Value::Unsigned(value));
    }
}

#[test]
fn chunks_stay_near_their_size_however_much_is_written() {
    let mut reader = Reader { sizes: Vec::new(), leaves_after: usize::MAX };
    let mut out = Exposition::new(&mut reader);
    many_lines(&mut out);
    out.raw(&vec![b'#'; 10 * CHUNK_BYTES]);
    let bytes = out.finish().unwrap();
    assert_eq!(bytes, reader.sizes.iter().sum::<usize>() as u64);
    assert!(reader.sizes.len() > 20);
    assert!(reader.sizes.iter().all(|size| *size <= 2 * CHUNK_BYTES), "{:?}", reader.sizes);
}

#[test]
fn a_reader_that_left_is_sent_nothing_more() {
    let mut reader = Reader { sizes: Vec::new(), leaves_after: 2 };
    let mut out = Exposition::new(&mut reader);
    many_lines(&mut out);
    assert_eq!(out.finish(), Err(Closed));
    assert_eq!(reader.sizes.len(), 2);
}
