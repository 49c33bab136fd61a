//! Prometheus' text format 0.0.4, for one node: escaping and the format of numbers. It knows no metric families.

use std::fmt::Write as _;

/// The fixed part of a family.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// The type of a family.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

/// A sample's value. All variants except `Float` are written exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    /// Thousandths.
    Milli(u64),
    /// Billionths.
    Nano(u64),
    Float(f64),
}

/// One exposition.
#[derive(Default)]
pub(super) struct Text(String);

/// The lines of one family.
pub(super) struct Lines<'a> {
    out: &'a mut String,
    family: &'static Family,
    header: Header,
}

enum Header {
    Due,
    Written,
}

impl Text {
    /// Begins a family. Its header is written before its first line, and not at all if there are no lines.
    pub(super) fn family(&mut self, family: &'static Family) -> Lines<'_> {
        Lines { out: &mut self.0, family, header: Header::Due }
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl Lines<'_> {
    /// Writes one line. The labels must be sorted by name.
    pub(super) fn line(&mut self, labels: &[(&str, &str)], value: Value) {
        if matches!(self.header, Header::Due) {
            self.header = Header::Written;
            let Family { name, kind, help } = self.family;
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.out.push_str(self.family.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            push_escaped(self.out, value);
            self.out.push('"');
        }
        self.out.push_str(if labels.is_empty() { " " } else { "} " });
        push_value(self.out, value);
        self.out.push('\n');
    }
}

fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '"' | '\\' => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
}

fn push_value(out: &mut String, value: Value) {
    match value {
        Value::Whole(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Milli(value) => push_decimal(out, value, 3),
        Value::Nano(value) => push_decimal(out, value, 9),
        Value::Float(value) => push_float(out, value),
    }
}

/// `value / 10^places`, exactly, without trailing zeros.
fn push_decimal(out: &mut String, value: u64, places: u32) {
    let scale = 10_u64.pow(places);
    let _ = write!(out, "{}", value / scale);
    if !value.is_multiple_of(scale) {
        let decimals = format!("{:0width$}", value % scale, width = places as usize);
        out.push('.');
        out.push_str(decimals.trim_end_matches('0'));
    }
}

/// The shortest digits that parse as the same number, with an exponent if that is shorter.
fn push_float(out: &mut String, value: f64) {
    let _ = if value == 0.0 {
        write!(out, "0")
    } else if (1e-5..1e17).contains(&value.abs()) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    static FAMILY: Family = Family { name: "a_total", kind: Kind::Counter, help: "What it is." };

    #[test]
    fn a_family_has_its_header_once_and_only_with_a_line() {
        let mut text = Text::default();
        text.family(&FAMILY);
        let mut lines = text.family(&FAMILY);
        lines.line(&[], Value::Whole(1));
        lines.line(&[("a", "x\\\"\ny"), ("b", "")], Value::Whole(u64::MAX));
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 1\n\
             a_total{a=\"x\\\\\\\"\\ny\",b=\"\"} 18446744073709551615\n";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn numbers_are_spelled_exactly() {
        let check = |value, expected: &str| {
            let mut out = String::new();
            push_value(&mut out, value);
            assert_eq!(out, expected);
        };
        check(Value::Milli(64_000), "64");
        check(Value::Milli(30_010), "30.01");
        check(Value::Nano(12_345_678_901_234_567), "12345678.901234567");
        check(Value::Nano(5), "0.000000005");
        check(Value::Float(0.37), "0.37");
        check(Value::Float(-0.0), "0");
        check(Value::Float(1e-6), "1e-6");
    }
}
