//! Draws the parts of a whole as one line of cells. Each tone has its own sign, so that a bar can be read without
//! colours, too.
use crate::paint::{Paint, Tone};

/// Cells of a bar: half the width of a narrow terminal, and fine enough to show a twentieth.
pub const WIDTH: usize = 40;

/// A part of a whole: what it is, and how much.
pub type Part = (Tone, f64);

/// The parts in their order, as a line. Empty without colours, or if there is nothing to show.
///
/// Cells are distributed by size; the remaining cells go to the parts that rounding cut most. Every part above 0 has at
/// least one cell, because users look for one broken GPU of a thousand.
pub fn line(parts: &[Part], paint: Paint) -> String {
    if paint == Paint::Plain {
        return String::new();
    }
    let cells = cells(parts, WIDTH).into_iter().zip(parts);
    let bar: String = cells.map(|(count, (tone, _))| paint.tone(*tone, &sign(*tone).repeat(count))).collect();
    if bar.is_empty() { bar } else { format!("  {bar}\n") }
}

fn sign(tone: Tone) -> &'static str {
    match tone {
        Tone::Title | Tone::Normal => "█",
        Tone::Quiet => "▓",
        Tone::Held => "▒",
        Tone::Bad => "×",
        Tone::Good => "░",
    }
}

/// How many cells each part has; the sum is `width`.
fn cells(parts: &[Part], width: usize) -> Vec<usize> {
    let sizes: Vec<f64> =
        parts.iter().map(|(_, amount)| if amount.is_finite() { amount.max(0.0) } else { 0.0 }).collect();
    let whole: f64 = sizes.iter().sum();
    let there = sizes.iter().filter(|size| **size > 0.0).count();
    if whole <= 0.0 || there > width {
        return vec![0; parts.len()];
    }
    let exact: Vec<f64> = sizes.iter().map(|size| size / whole * width as f64).collect();
    let mut cells: Vec<usize> =
        exact.iter().map(|exact| if *exact > 0.0 { (*exact as usize).max(1) } else { 0 }).collect();
    loop {
        let given: usize = cells.iter().sum();
        // The part that exceeds its exact size most; the first of equals.
        let excess = |at: usize| cells[at] as f64 - exact[at];
        let of_size = |at: &usize| sizes[*at] > 0.0;
        let next = match given.cmp(&width) {
            std::cmp::Ordering::Equal => return cells,
            std::cmp::Ordering::Less => {
                (0..cells.len()).filter(of_size).min_by(|a, b| excess(*a).total_cmp(&excess(*b)))
            }
            std::cmp::Ordering::Greater => {
                (0..cells.len()).filter(|at| cells[*at] > 1).min_by(|a, b| excess(*b).total_cmp(&excess(*a)))
            }
        };
        let Some(next) = next else { return cells };
        if given < width {
            cells[next] += 1;
        } else {
            cells[next] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[f64], width: usize, expected: &[usize]) {
        let parts: Vec<Part> = sizes.iter().map(|size| (Tone::Normal, *size)).collect();
        assert_eq!(cells(&parts, width), expected, "{sizes:?}");
    }

    #[test]
    fn a_bar_is_as_wide_as_it_is_and_what_is_there_is_seen() {
        check(&[1.0, 1.0], 10, &[5, 5]);
        check(&[1.0, 1.0, 1.0], 10, &[4, 3, 3]);
        check(&[1.0, 999.0], 10, &[1, 9]);
        check(&[1.0, 1.0, 1.0, 997.0], 10, &[1, 1, 1, 7]);
        check(&[0.0, 3.0], 10, &[0, 10]);
        check(&[0.0, 0.0], 10, &[0, 0]);
        check(&[f64::NAN, -1.0, 2.0], 4, &[0, 0, 4]);
        check(&[1.0; 5], 4, &[0; 5]);
    }

    #[test]
    fn a_program_gets_no_bar_and_a_person_one_that_needs_no_colours() {
        let parts = [(Tone::Normal, 1.0), (Tone::Held, 1.0), (Tone::Bad, 1.0), (Tone::Good, 1.0)];
        assert_eq!(line(&parts, Paint::Plain), "");
        let shown = line(&parts, Paint::Colours);
        let signs: Vec<_> = "█▒×░".chars().map(|sign| shown.matches(sign).count()).collect();
        assert_eq!(signs, [10; 4], "{shown}");
        assert_eq!(line(&[], Paint::Colours), "");
    }
}
