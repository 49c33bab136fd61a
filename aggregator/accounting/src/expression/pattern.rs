//! A regular expression of `matches`. In CEL it has the syntax of RE2.
//!
//! Decides which patterns are supported: those that RE2 and the crate `regex-automata` interpret in the same way, for
//! printable ASCII. They differ in the meaning of `\d` and `\b`, in sets (`&&`, `[a[b]]`), in `\<`, in `{,3}`, and in
//! the limits on repetition. Such a pattern is undecided.
//!
//! A pattern is compiled to a DFA table, so that a match takes one step per byte, whatever the pattern. A pattern whose
//! table would be large is also undecided.
use regex_automata::dfa::{Automaton, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, dfa::StartKind};

/// The maximum size of the table in bytes. Tables for model names take a few thousand bytes.
const TABLE: usize = 32 * 1024;
/// The maximum number of bytes for determinization, which maps sets of the pattern's states to states of the table.
const SCRATCH: usize = 64 * 1024;
/// RE2 and Go allow no higher repetition count.
const MOST_REPEATED: u32 = 1000;
const MOST_NESTED: u32 = 32;
/// The maximum length of the matched text in bytes. An attribute has at most 64 (`DeviceAttributeMaxValueLength`), a
/// driver's name at most 63.
const LONGEST_TEXT: usize = 256;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern(dense::DFA<Vec<u32>>);

impl Pattern {
    /// Compiles a pattern. `None` if it is not supported.
    pub(super) fn compile(pattern: &str) -> Option<Self> {
        Scan { rest: pattern.as_bytes() }.whole()?;
        // Bytes instead of characters: for ASCII the result is the same, and no Unicode tables are needed.
        let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(MOST_NESTED);
        let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(SCRATCH)).which_captures(WhichCaptures::None);
        let table = dense::Config::new()
            // Only whether there is a match matters, not which one.
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Unanchored)
            .accelerate(false)
            .dfa_size_limit(Some(TABLE))
            .determinize_size_limit(Some(SCRATCH));
        let built = dense::Builder::new().configure(table).syntax(syntax).thompson(nfa).build(pattern);
        built.ok().map(Self)
    }

    /// Whether the text contains a match. `None` if that is undecided.
    pub(super) fn matches(&self, text: &str) -> Option<bool> {
        let is_decided = text.len() <= LONGEST_TEXT && text.bytes().all(is_printable);
        let search = || self.0.try_search_fwd(&Input::new(text).earliest(true)).ok();
        is_decided.then(search).flatten().map(|found| found.is_some())
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// The rest of a pattern. Each function checks whether RE2 and `regex-automata` interpret the next part in the same
/// way, and skips it.
struct Scan<'a> {
    rest: &'a [u8],
}

/// The last part that was read, by what may follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that can be repeated: the start, `(`, `|`, `^`, a repetition.
    Nothing,
    /// A character or a class.
    One,
    /// A group. A group with a count is not supported, because nested counts are limited by their product.
    Group,
}

impl Scan<'_> {
    fn whole(&mut self) -> Option<()> {
        self.skip(b"(?i)");
        let mut open = 0_u32;
        let mut before = Before::Nothing;
        while let Some(byte) = self.take() {
            before = match byte {
                b'(' => {
                    open += 1;
                    if self.rest.first() == Some(&b'?') && !self.skip(b"?:") {
                        return None;
                    }
                    Before::Nothing
                }
                b')' => {
                    open = open.checked_sub(1)?;
                    Before::Group
                }
                b'|' | b'^' | b'$' => Before::Nothing,
                b'*' | b'+' | b'?' | b'{' => {
                    self.repetition(byte, before)?;
                    Before::Nothing
                }
                b'[' => self.class()?,
                b'\\' => self.escape()?,
                _ => is_printable(byte).then_some(Before::One)?,
            };
        }
        (open == 0).then_some(())
    }

    fn repetition(&mut self, byte: u8, before: Before) -> Option<()> {
        match (before, byte) {
            (Before::Nothing, _) | (Before::Group, b'{') => return None,
            (Before::One, b'{') => self.counts()?,
            _ => {}
        }
        // A lazy repetition: it changes which match is found, not whether there is one.
        self.skip(b"?");
        Some(())
    }

    /// `3}`, `3,}` or `3,5}`.
    fn counts(&mut self) -> Option<()> {
        self.count()?;
        if self.skip(b",") && self.rest.first()?.is_ascii_digit() {
            self.count()?;
        }
        self.skip(b"}").then_some(())
    }

    fn count(&mut self) -> Option<()> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let count: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (count <= MOST_REPEATED && (digits.len() == 1 || digits[0] != b'0')).then_some(())
    }

    /// A class, after its opening bracket. `&&`, `--` and `~~` are operators in one of the two and characters in the
    /// other.
    fn class(&mut self) -> Option<Before> {
        self.skip(b"^");
        // A hyphen is literal if it is first, unless another one follows, or if it is last.
        let has_hyphen = self.rest.get(1)? != &b'-' && self.skip(b"-");
        if !has_hyphen && self.rest.starts_with(b"]") {
            return None;
        }
        while !self.skip(b"]") {
            let may_start = self.class_byte()?;
            if may_start && self.rest.starts_with(b"-") && self.rest.get(1)? != &b']' {
                self.take()?;
                self.class_byte().filter(|may_end| *may_end)?;
            }
        }
        Some(Before::One)
    }

    /// One character, and whether a range may start or end with it.
    fn class_byte(&mut self) -> Option<bool> {
        match self.take()? {
            b'\\' => match self.take()? {
                b'd' | b'D' | b'w' | b'W' | b's' | b'S' => Some(false),
                escaped => escaped.is_ascii_punctuation().then_some(true),
            },
            b'-' => (self.rest.first()? == &b']').then_some(false),
            b'[' | b'&' | b'~' => None,
            byte => is_printable(byte).then_some(true),
        }
    }

    fn escape(&mut self) -> Option<Before> {
        match self.take()? {
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' => Some(Before::One),
            // One of the two interprets `\b{start}` as a single assertion.
            b'b' | b'B' => (self.rest.first() != Some(&b'{')).then_some(Before::Nothing),
            b'<' | b'>' => None,
            escaped => escaped.is_ascii_punctuation().then_some(Before::One),
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn skip(&mut self, expected: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pattern: &str, text: &str) -> Option<bool> {
        Pattern::compile(pattern)?.matches(text)
    }

    #[test]
    fn a_match_may_stand_anywhere_unless_the_pattern_says_where() {
        for (pattern, matching, other) in [
            ("A100", "NVIDIA A100-SXM4", "NVIDIA H100"),
            ("^NVIDIA (A|H)100", "NVIDIA H100", "an NVIDIA H100"),
            ("80GB$", "A100 80GB", "A100 80GB PCIe"),
            ("(?i)^nvidia.*h[12]00", "NVIDIA H200", "NVIDIA L4"),
            (r"^\d{1,3}g\.\d+gb$", "3g.20gb", "3g20gb"),
            (r"\bA10\b", "NVIDIA A10 PCIe", "NVIDIA A100"),
            ("^[^a-f_.-]{2,}$", "xyz", "x-z"),
            ("^(?:ab|cd)+?e*$", "abcdee", "abc"),
            (r"^[\w\-\]]+$", "a-b]", "a b"),
            ("^[- ]a[^-z]b[-a-c9-]$", "-aabb", "-a-bb"),
            (r"^a\{2}$", "a{2}", "aa"),
            ("^(a|)b$", "b", "cb"),
        ] {
            assert_eq!(answer(pattern, matching), Some(true), "{pattern}");
            assert_eq!(answer(pattern, other), Some(false), "{pattern}");
        }
        assert_eq!(answer("", ""), Some(true));
    }

    #[test]
    fn what_two_engines_may_read_in_two_ways_is_not_decided() {
        for pattern in [
            "a&&b]",
            "[a&&b]",
            "[a--b]",
            "[--a]",
            "[a-b-c]",
            "[a~~b]",
            "[a[b]]",
            "[[:alpha:]]",
            "[]a]",
            "[^]]",
            r"\<a",
            r"\b{start}",
            "a{,3}",
            "a{",
            "a{2",
            "a{x}",
            "a{01}",
            "a{1001}",
            "(a{2}){3}",
            "a**",
            "a*+",
            "a{2}{3}",
            "^*",
            "(?x)a b",
            "(?P<n>a)",
            "(?<n>a)",
            "(?s:a)",
            "(?-i)a",
            "a(?i)b",
            r"\pL",
            r"\x41",
            r"\Qa\E",
            r"\z",
            r"\A",
            r"\u0041",
            r"\1",
            r"[\b]",
            r"[a-\d]",
            r"[\d-a]",
            "(",
            ")",
            "(a",
            "a)",
            "[",
            "[a",
            "[a-",
            "\\",
            "*",
            "|*",
            "\u{e9}",
            "\t",
            "(?=a)",
            "[b-a]",
            "a{3,2}",
        ] {
            // `&&` outside of a set has no special meaning.
            let expected = (pattern == "a&&b]").then_some(false);
            assert_eq!(answer(pattern, "x"), expected, "{pattern}");
        }
    }

    #[test]
    fn only_printable_ascii_is_matched() {
        for text in ["\u{e9}", "a\nb", "\t", "\u{b}", "\u{7f}"] {
            assert_eq!(answer(".", text), None, "{text:?}");
        }
        assert_eq!(answer("a", &"b".repeat(LONGEST_TEXT)), Some(false));
        assert_eq!(answer("a", &"a".repeat(LONGEST_TEXT + 1)), None);
    }

    #[test]
    fn a_pattern_whose_table_would_be_large_is_not_decided() {
        for bomb in ["(a|b)*a[ab]{14}", "(x+x+)+y.{900}", "[a-z]{1000}[b-y]{1000}.*a.{30}"] {
            assert_eq!(answer(bomb, "aaaa"), None, "{bomb}");
        }
        // Here, few states of the pattern form a state of the table, and each state of the table is wide.
        let alphabet: String = ('a'..='z').collect();
        assert_eq!(answer(&format!("^{alphabet}"), &alphabet), Some(true));
        assert_eq!(answer(&format!("^{}", alphabet.repeat(12)), &alphabet), None);
        assert_eq!(answer(&"(".repeat(5000), "a"), None);
        assert_eq!(answer(&format!("{}a{}", "(".repeat(5000), ")".repeat(5000)), "a"), None);
        assert_eq!(answer("(a*)*b", &"a".repeat(200)), Some(false));
    }

    #[test]
    fn a_pattern_for_models_takes_little_memory() {
        let pattern = Pattern::compile("(?i)^nvidia (a100|h100|h200)[- ](sxm|pcie).*(40|80|141)gb$").unwrap();
        assert!(pattern.0.memory_usage() < 12 * 1024, "{}", pattern.0.memory_usage());
    }
}
