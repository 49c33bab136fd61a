//! Prometheus text, as far as our own aggregator writes it, back into samples: `run` shows what a scrape would see.

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) family: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether all these labels have these values.
    pub(crate) fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(*value))
    }
}

/// The samples of an exposition, in its order. A line that isn't one is left out.
pub(crate) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (family, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((name.to_owned(), value));
            rest = after;
        }
    }
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { family: family.to_owned(), labels, value })
}

/// A label's value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, labels: &[(&str, &str)], value: f64) {
        let samples = parse(line);
        assert_eq!(samples.len(), 1, "{line}");
        let expected: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(samples[0].labels, expected, "{line}");
        assert!((samples[0].value - value).abs() < 1e-9, "{line}");
    }

    #[test]
    fn a_line_is_a_family_labels_and_a_value() {
        check("mcad_x 1", &[], 1.0);
        check("mcad_x{a=\"b\",c=\"d e\"} 2.5", &[("a", "b"), ("c", "d e")], 2.5);
        check("mcad_x{a=\"b\",} 1e3 1700000000000", &[("a", "b")], 1000.0);
    }

    #[test]
    fn escapes_in_a_cgroups_name_are_undone() {
        check("mcad_x{a=\"b\\\\x2d\\\"c\\n}\"} 1", &[("a", "b\\x2d\"c\n}")], 1.0);
    }

    #[test]
    fn what_is_no_sample_is_left_out() {
        assert_eq!(parse("# HELP mcad_x is\n\nmcad_x{a=\"b\nmcad_x one\n"), []);
    }
}
