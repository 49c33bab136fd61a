//! Small charts of the last hour. A line has a gap where a value was unknown or no snapshot was taken.
use std::fmt::Write as _;

use maud::{Markup, html};
use mcad_accounting::now::Now;
use mcad_accounting::resource::Resource;

use super::amount::shown;
use super::bars::digits;
use crate::explain::amount::span;
use crate::history::{History, ResourceValues, SPAN};

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 36.0;

/// Points further apart than this have a gap between them: at least three are missing.
const GAP_S: f64 = 60.0;

type Pick = fn(&ResourceValues) -> Option<f64>;
/// The name, the class and the value of each line.
const LINES: [(&str, &str, Pick); 4] = [
    ("works", "works", |values| values.healthy),
    ("held", "appwrapper", |values| values.held),
    ("in use", "system", |values| values.used),
    ("free", "free", |values| values.free),
];

/// Small charts of one scale, one for each known value of a resource. Empty before there are two points.
pub(super) fn lines(resource: &Resource, history: &History, now: Now) -> Markup {
    let of = |point: &crate::history::Point| {
        point.values.iter().find(|(known, _)| known == resource).map(|(_, values)| *values).unwrap_or_default()
    };
    let points: Vec<(f64, ResourceValues)> =
        history.points().map(|point| (now.since(point.at).as_secs_f64(), of(point))).collect();
    let oldest = points.first().map_or(0.0, |(age, _)| *age);
    let top = points.iter().filter_map(|(_, values)| values.installed).fold(0.0_f64, f64::max);
    let known = LINES.iter().filter(|(_, _, pick)| points.iter().any(|(_, values)| pick(values).is_some()));
    html! {
        @if points.len() >= 2 && top > 0.0 {
            figure.lines {
                figcaption { "The last hour" @if oldest < SPAN.as_secs_f64() - GAP_S { " (this replica has seen " (span(oldest)) " of it)" } }
                @for (label, class, pick) in known {
                    @let values: Vec<_> = points.iter().map(|(age, values)| (*age, pick(values))).collect();
                    div {
                        span { (label) }
                        (line(&values, top, class, label, resource))
                    }
                }
            }
        }
    }
}

fn line(values: &[(f64, Option<f64>)], top: f64, class: &str, label: &str, resource: &Resource) -> Markup {
    let known = || values.iter().filter_map(|(_, value)| *value);
    let (least, most) =
        known().fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let spoken = format!("{label}: from {} to {}", shown(resource, least), shown(resource, most));
    html! {
        svg class={"line " (class)} viewBox="0 -1 240 38" preserveAspectRatio="none" role="img" aria-label=(spoken) {
            path.base d="M0 36H240" {}
            path.curve d=(path(values, top)) vector-effect="non-scaling-stroke" {}
        }
        span.range { (shown(resource, least)) @if (most - least).abs() > f64::EPSILON { "–" (shown(resource, most)) } }
    }
}

/// From an hour ago on the left to now on the right.
fn path(values: &[(f64, Option<f64>)], top: f64) -> String {
    let mut path = String::new();
    let mut last: Option<f64> = None;
    for (age, value) in values {
        let Some(value) = value else {
            last = None;
            continue;
        };
        let x = (1.0 - age / SPAN.as_secs_f64()).max(0.0) * WIDTH;
        let y = HEIGHT * (1.0 - (value / top).clamp(0.0, 1.0));
        let joined = last.is_some_and(|before| before - age <= GAP_S);
        // Writing to a String has no error.
        let _ = write!(path, "{}{} {}", if joined { 'L' } else { 'M' }, digits(x), digits(y));
        if !joined {
            // A single point must be visible, too.
            path.push_str("h0.1");
        }
        last = Some(*age);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_value_was_unknown_the_line_has_a_gap() {
        let values = [(60.0, Some(1.0)), (45.0, Some(2.0)), (30.0, None), (15.0, Some(4.0))];
        assert_eq!(path(&values, 4.0), "M236 27h0.1L237 18M239 0h0.1");
    }

    #[test]
    fn where_nobody_looked_the_line_has_a_gap() {
        assert_eq!(path(&[(3600.0, Some(0.0)), (1800.0, Some(0.0))], 4.0), "M0 36h0.1M120 36h0.1");
    }
}
