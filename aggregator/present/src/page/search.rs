//! The search: which nodes match the words that somebody typed. Each word must match the name of the node, its pool or its state.
use super::condition::Condition;
use super::troubles::Conditions;

/// Fewer characters than this match no state, or the first letter of a name would match a state of most nodes.
const STATE_CHARS: usize = 3;

/// The words of a search.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    words: Vec<Word>,
}

#[derive(Clone, Debug)]
struct Word {
    text: String,
    /// The conditions that it names.
    conditions: Conditions,
}

impl Search {
    pub(super) fn new(text: &str) -> Self {
        let word = |text: &str| Word { conditions: conditions(text), text: text.to_owned() };
        Self { words: text.split_whitespace().map(word).collect() }
    }

    /// Whether it has no words: then every node matches.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Which of the words match a pool's name. Made once for each pool.
    pub(super) fn in_pool(&self, name: Option<&str>) -> Box<[bool]> {
        self.words.iter().map(|word| name.is_some_and(|name| contains(name, &word.text))).collect()
    }

    /// Whether a node matches: its name, which words match its pool, and the conditions that it is in.
    pub(super) fn matches(&self, name: &str, in_pool: &[bool], conditions: Conditions) -> bool {
        let matches = |(word, in_pool): (&Word, &bool)| {
            *in_pool || word.conditions.meets(conditions) || contains(name, &word.text)
        };
        self.words.iter().zip(in_pool).all(matches)
    }
}

/// The conditions whose label, or a part of it, begins with this.
fn conditions(word: &str) -> Conditions {
    if word.chars().count() < STATE_CHARS {
        return Conditions::default();
    }
    let word = word.to_ascii_lowercase();
    let begins = |label: &str| label.starts_with(&word) || label.split('_').any(|part| part.starts_with(&word));
    Condition::ALL.into_iter().filter(|show| *show != Condition::All && begins(show.label())).collect()
}

/// Whether a text contains a word, whatever the case of ASCII letters.
fn contains(text: &str, word: &str) -> bool {
    let Some(first) = word.bytes().next() else { return true };
    let (first, word) = (first.to_ascii_lowercase(), word.as_bytes());
    text.as_bytes()
        .windows(word.len())
        .any(|part| part[0].to_ascii_lowercase() == first && part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(search: &str, expected: bool) {
        let search = Search::new(search);
        let in_pool = search.in_pool(Some("NVIDIA-H100-80GB-HBM3"));
        let conditions = [Condition::All, Condition::NotReady, Condition::Trouble].into_iter().collect();
        assert_eq!(search.matches("gpu-17.example", &in_pool, conditions), expected, "{search:?}");
    }

    #[test]
    fn every_word_matches_the_name_the_pool_or_the_state() {
        for search in ["", "gpu-17", "GPU-17", "h100", "17 h100 not_ready", "not", "ready", "trouble", "example hbm3"] {
            check(search, true);
        }
        for search in ["gpu-18", "a100", "17 a100", "cordoned", "adm", "gpu-17.example-and-more", "\u{e9}"] {
            check(search, false);
        }
    }

    #[test]
    fn one_or_two_letters_name_no_state() {
        check("no", false);
        check("tr", false);
        assert!(Search::new("  ").is_empty());
    }
}
