//! A table with headings that fits a terminal. No name is cut: a name that is too long stands on a line of its own above its values, and the
//! text of the last column is continued on further lines.
use crate::paint::{Paint, Tone};

/// Between two columns.
const GAP: usize = 2;
/// The narrowest that a column of text becomes.
const NARROW_TEXT: usize = 18;
/// The narrowest that the column of names becomes.
const NARROW_NAME: usize = 4;

/// How a table is printed.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Columns of the terminal. `None` if a table may be as wide as it is: standard output is not a terminal.
    pub width: Option<usize>,
    /// Whether there are colours.
    pub paint: Paint,
}

/// How cells stand in their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
    /// To the left, and continued on further lines. For the last column.
    Wrapped,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    /// The heading where the whole one does not fit.
    short: &'static str,
    align: Align,
}

/// The values of one line.
#[derive(Clone, Debug)]
pub struct Line {
    /// As many as there are columns.
    pub cells: Vec<String>,
    /// The tone of the whole line.
    pub tone: Tone,
}

/// A table. Its first column has names.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The columns.
    pub columns: Vec<Column>,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Column {
    /// Names or words.
    pub const fn words(heading: &'static str) -> Self {
        Self { heading, short: heading, align: Align::Left }
    }

    /// Amounts.
    pub const fn amounts(heading: &'static str, short: &'static str) -> Self {
        Self { heading, short, align: Align::Right }
    }

    /// The last column, of text.
    pub const fn text(heading: &'static str) -> Self {
        Self { heading, short: heading, align: Align::Wrapped }
    }
}

impl Grid {
    /// Adds the table, as wide as the terminal allows.
    pub fn write(&self, out: &mut String, view: View) {
        let long = self.widths(|column| column.heading);
        let width = view.width.unwrap_or(usize::MAX);
        let (widths, headings): (_, Vec<_>) = if total(&long) <= width {
            (long, self.columns.iter().map(|column| column.heading).collect())
        } else {
            let short = self.widths(|column| column.short);
            (self.fitted(short, width), self.columns.iter().map(|column| column.short).collect())
        };
        let headings: Vec<_> = headings.into_iter().map(str::to_owned).collect();
        self.write_line(out, &headings, Tone::Title, &widths, view.paint);
        for line in &self.lines {
            self.write_line(out, &line.cells, line.tone, &widths, view.paint);
        }
    }

    /// What each column takes if nothing is continued.
    fn widths(&self, heading: impl Fn(&Column) -> &'static str) -> Vec<usize> {
        let of_cells = |at: usize| self.lines.iter().map(move |line| columns(&line.cells[at])).max().unwrap_or(0);
        let columns = self.columns.iter().enumerate();
        columns.map(|(at, column)| of_cells(at).max(heading(column).len())).collect()
    }

    /// The same, with names and text as narrow as the width demands.
    fn fitted(&self, mut widths: Vec<usize>, width: usize) -> Vec<usize> {
        let mut over = total(&widths).saturating_sub(width);
        let mut narrow = |at: usize, least: usize| {
            let less = widths[at].saturating_sub(least).min(over);
            widths[at] -= less;
            over -= less;
        };
        let last = self.columns.len() - 1;
        let has_text = self.columns[last].align == Align::Wrapped;
        if has_text {
            narrow(last, NARROW_TEXT.max(self.columns[last].short.len()));
        }
        narrow(0, NARROW_NAME.max(self.columns[0].short.len()));
        if has_text {
            narrow(last, self.columns[last].short.len());
        }
        widths
    }

    fn write_line(&self, out: &mut String, cells: &[String], tone: Tone, widths: &[usize], paint: Paint) {
        let mut write = |line: &str| {
            out.push_str(&paint.tone(tone, line.trim_end()));
            out.push('\n');
        };
        let name_is_long = columns(&cells[0]) > widths[0];
        if name_is_long {
            write(&cells[0]);
        }
        let mut line = String::new();
        for ((at, cell), width) in cells.iter().enumerate().zip(widths) {
            let gap = if at == 0 { 0 } else { GAP };
            let cell = if at == 0 && name_is_long { "" } else { cell };
            let start = columns(&line) + gap;
            let padded = match self.columns[at].align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
                Align::Wrapped => wrapped(cell, *width).join(&format!("\n{}", " ".repeat(start))),
            };
            line = format!("{line}{}{padded}", " ".repeat(gap));
        }
        line.split('\n').for_each(write);
    }
}

/// Text in lines of at most so many characters, broken at spaces. A longer word is not broken.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.is_empty() || columns(line) + 1 + columns(word) <= width);
        match line {
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(names: &[&str]) -> Grid {
        let line = |name: &&str| Line {
            cells: [name, "8", "1 lost, 2 not ready, 3 stranded"].map(str::to_owned).to_vec(),
            tone: Tone::Normal,
        };
        Grid {
            columns: vec![Column::words("NODE"), Column::amounts("REQUESTED", "REQ"), Column::text("WITHHELD")],
            lines: names.iter().map(line).collect(),
        }
    }

    fn check(names: &[&str], width: Option<usize>, expected: &str) {
        let mut out = String::new();
        grid(names).write(&mut out, View { width, paint: Paint::Plain });
        assert_eq!(out, expected);
        let widest = out.lines().map(columns).max().unwrap();
        assert!(width.is_none_or(|width| widest <= width.max(30)), "{widest}:\n{out}");
    }

    #[test]
    fn a_table_is_as_wide_as_it_is_where_that_does_not_matter() {
        let expected = "NODE    REQUESTED  WITHHELD\ngpu-17          8  1 lost, 2 not ready, 3 stranded\n";
        check(&["gpu-17"], None, expected);
        check(&["gpu-17"], Some(50), expected);
    }

    #[test]
    fn headings_are_shortened_then_text_is_continued_then_long_names_have_a_line_of_their_own() {
        check(&["gpu-17"], Some(44), "NODE    REQ  WITHHELD\ngpu-17    8  1 lost, 2 not ready, 3 stranded\n");
        check(
            &["gpu-17"],
            Some(36),
            "NODE    REQ  WITHHELD\ngpu-17    8  1 lost, 2 not ready, 3\n             stranded\n",
        );
        check(
            &["gpu-17.rack-4.example", "a"],
            Some(36),
            "NODE         REQ  WITHHELD\n\
             gpu-17.rack-4.example\n               8  1 lost, 2 not\n                  ready, 3 stranded\n\
             a              8  1 lost, 2 not\n                  ready, 3 stranded\n",
        );
    }

    #[test]
    fn text_is_broken_at_spaces_and_no_word_is_broken() {
        assert_eq!(wrapped("a bc def ghijklm n", 6), ["a bc", "def", "ghijklm", "n"]);
        assert_eq!(wrapped("", 6), [""]);
    }

    #[test]
    fn a_line_has_its_tone_from_beginning_to_end() {
        let mut out = String::new();
        grid(&["n"]).write(&mut out, View { width: None, paint: Paint::Colours });
        assert!(out.starts_with("\x1b[1mNODE  REQUESTED  WITHHELD\x1b[0m\nn  "), "{out:?}");
    }
}
