//! What `run` shows, from one scrape to lines of text. Pure: no clock, no terminal, no network.

use std::collections::HashMap;
use std::fmt::Write;

use mcad_terminal::bar;
use mcad_terminal::paint::{Paint, Tone, cut};
use mcad_terminal::table::{self, Row};
use mcad_terminal::words::{GIB, count, printable};

use crate::exposition::Sample;

/// CPU time of each cgroup, as the aggregator shows it with `--cluster local`.
const CGROUP_CPU: &str = "mcad_cgroup_cpu_seconds_total";

/// GPUs as the ladder spells them: those that are whole, or their replicas.
const GPU: &str = "nvidia_com_gpu";

/// One scrape of `/metrics`.
pub(crate) struct Scrape {
    /// When it was made, in seconds since `run` began.
    pub(crate) at_s: f64,
    pub(crate) samples: Vec<Sample>,
}

impl Scrape {
    /// The sum over all samples with these labels; `None` without any, because absent is not zero.
    fn sum(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples.iter().filter(|sample| sample.family == family && sample.has(labels)).peekable();
        found.peek()?;
        Some(found.map(|sample| sample.value).sum())
    }

    /// When the report behind this scrape was taken: rates divide by this, because scrapes and reports don't keep step.
    fn reported_at_s(&self) -> Option<f64> {
        Some(self.at_s - self.sum("mcad_node_report_age_seconds", &[])?)
    }

    fn cgroup_seconds(&self) -> impl Iterator<Item = (&str, f64)> {
        let samples = self.samples.iter().filter(|sample| sample.family == CGROUP_CPU);
        samples.filter_map(|sample| Some((sample.label("cgroup")?, sample.value)))
    }
}

/// Two reports closer than this are one report seen twice: the agent of `run` sends one a second.
const SAME_REPORT_S: f64 = 0.5;

/// The view: figures of now, and rates since the report before.
#[derive(Default)]
pub(crate) struct View {
    before: Option<Scrape>,
    now: Option<Scrape>,
    /// Cores each cgroup used between the last two reports, busiest first. `None` until there are two.
    rates: Option<Vec<(String, f64)>>,
}

impl View {
    /// Takes in one more scrape.
    pub(crate) fn take(&mut self, scrape: Scrape) {
        let reported_at_s = scrape.reported_at_s();
        let is_up = scrape.sum("mcad_node_agent_up", &[]) == Some(1.0);
        match (self.before.as_ref().and_then(Scrape::reported_at_s), reported_at_s) {
            (Some(before), Some(now)) if is_up && now - before < SAME_REPORT_S => {}
            (Some(before_s), Some(now_s)) if is_up => {
                self.rates = self.before.as_ref().map(|before| rates(before, &scrape, now_s - before_s));
                self.before = Some(Scrape { at_s: scrape.at_s, samples: scrape.samples.clone() });
            }
            _ => {
                self.rates = None;
                self.before = reported_at_s.map(|_| Scrape { at_s: scrape.at_s, samples: scrape.samples.clone() });
            }
        }
        self.now = Some(scrape);
    }

    /// Whether the last scrape had figures of a living agent.
    pub(crate) fn is_measured(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.sum("mcad_node_agent_up", &[]) == Some(1.0))
    }

    /// One line for a log: seconds since the start, the machine, the busiest cgroups.
    pub(crate) fn line(&self) -> String {
        let at_s = self.now.as_ref().map_or(0.0, |now| now.at_s);
        let mut line = format!("{at_s:>4.0}s  {}  {}", self.machine(), self.source());
        match &self.rates {
            None => line.push_str("  busiest unknown yet"),
            Some(rates) if rates.is_empty() => line.push_str("  none below the root"),
            Some(rates) => {
                let busiest = rates.iter().take(3).map(|(cgroup, cores)| format!(" {} {cores:.2}", printable(cgroup)));
                let _infallible = write!(line, "  busiest{}", busiest.collect::<Vec<_>>().join(","));
            }
        }
        line
    }

    /// A screen of `rows` lines of at most `columns` characters that are seen.
    pub(crate) fn screen(&self, address: &str, (rows, columns): (usize, usize), paint: Paint) -> String {
        let mut text = format!("{}\n", paint.tone(Tone::Title, "This machine"));
        let _infallible = writeln!(text, "{}. The page is at {address}/. Ctrl-C ends it.", self.source());
        for (resource, title, unit) in [("cpu", "cpu, in cores", 1.0), ("memory", "memory, in GiB", GIB)] {
            self.write_ladder(&mut text, resource, title, unit, paint);
        }
        if self.figure("mcad_node_installed", GPU).is_some_and(|installed| installed > 0.0) {
            let fake = if self.are_gpus_fake() { ", FAKE" } else { "" };
            self.write_ladder(&mut text, GPU, &format!("nvidia.com/gpu, in GPUs{fake}"), 1.0, paint);
        }
        let _infallible =
            writeln!(text, "\n{}", paint.tone(Tone::Title, "Busiest cgroups, in cores, each with all below it"));
        match &self.rates {
            None => text.push_str("  waiting for two reports\n"),
            Some(rates) if rates.is_empty() => text.push_str("  none below the root\n"),
            Some(rates) => {
                let room = rows.saturating_sub(text.lines().count());
                let rows =
                    rates.iter().take(room).map(|(cgroup, cores)| row(&printable(cgroup), format!("{cores:.3}")));
                table::write(&mut text, &rows.collect::<Vec<_>>(), paint);
            }
        }
        text.lines().take(rows).map(|line| cut(line, columns)).collect::<Vec<_>>().join("\n")
    }

    /// What there is of a resource, what of it works, and who uses it, as `explain` tells it of a node without Kubernetes.
    fn write_ladder(&self, text: &mut String, resource: &str, title: &str, unit: f64, paint: Paint) {
        let known = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| rounded(value / unit));
        let [installed, healthy, used] =
            ["mcad_node_installed", "mcad_node_healthy", "mcad_node_used"].map(|family| self.figure(family, resource));
        let _infallible = writeln!(text, "\n{}", paint.tone(Tone::Title, title));
        if let (Some(installed), Some(healthy), Some(used)) = (installed, healthy, used) {
            let parts = [(Tone::Normal, used), (Tone::Good, healthy - used), (Tone::Bad, installed - healthy)];
            text.push_str(&bar::line(&parts, paint));
        }
        let by = |(owner, words)| {
            let now = self.now.as_ref()?;
            let used = now.sum("mcad_node_used", &[("resource", resource), ("owner", owner)])?;
            Some(format!("{} {words}", rounded(used / unit)))
        };
        let owners = [("appwrapper", "by AppWrappers"), ("other", "by other pods"), ("system", "by no pod")];
        let note = owners.into_iter().filter_map(by).collect::<Vec<_>>().join(", ");
        let all = [
            row("installed", known(installed)),
            Row { tone: Tone::Good, ..row("healthy", known(healthy)) },
            Row { note, ..row("used", known(used)) },
        ];
        table::write(text, &all, paint);
    }

    fn figure(&self, family: &str, resource: &str) -> Option<f64> {
        self.now.as_ref()?.sum(family, &[("resource", resource)])
    }

    fn are_gpus_fake(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.sum("mcad_node_gpus_fake", &[]) == Some(1.0))
    }

    fn machine(&self) -> String {
        let figure = |family, resource| self.figure(family, resource);
        let cpu = pair(figure("mcad_node_used", "cpu"), figure("mcad_node_installed", "cpu"), 1.0);
        let memory = pair(figure("mcad_node_used", "memory"), figure("mcad_node_installed", "memory"), GIB);
        let mut machine = format!("cpu {cpu} cores  memory {memory} GiB");
        let gpus = |family| figure(family, GPU);
        if let Some(installed) = gpus("mcad_node_installed").filter(|installed| *installed > 0.0) {
            let what = if self.are_gpus_fake() { "FAKE GPUs" } else { "GPUs" };
            let text = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"));
            let healthy = gpus("mcad_node_healthy").map_or_else(|| "unknown".to_owned(), |value| value.to_string());
            let busy = text(gpus("mcad_node_used"));
            let _infallible = write!(machine, "  {what} {installed} installed, {healthy} healthy, {busy} busy");
        }
        machine
    }

    fn source(&self) -> String {
        let Some(now) = &self.now else { return "no scrape yet".to_owned() };
        if !self.is_measured() {
            return "no report from the agent".to_owned();
        }
        let cgroups = count(now.cgroup_seconds().count() as u64, "cgroup", "cgroups");
        let sources = now.samples.iter().filter(|sample| sample.family == "mcad_node_source");
        let source =
            sources.filter(|sample| sample.has(&[("figure", "cgroup")])).find_map(|sample| sample.label("source"));
        match source {
            Some("bpf") => format!("{cgroups}, read by eBPF"),
            Some("cgroupfs") => format!("{cgroups}, read from files"),
            Some(other) => format!("no cgroups: source {other}"),
            None => "no cgroups: source unknown".to_owned(),
        }
    }
}

fn row(label: &str, amount: String) -> Row {
    Row { label: label.to_owned(), amount, note: String::new(), tone: Tone::Normal }
}

/// With two digits at most. Little is not nothing.
fn rounded(amount: f64) -> String {
    let rounded = (amount * 100.0).round() / 100.0;
    if rounded == 0.0 && amount > 0.0 { "<0.01".to_owned() } else { rounded.to_string() }
}

/// `1.23 of 2`, each part as far as it is known.
fn pair(used: Option<f64>, installed: Option<f64>, unit: f64) -> String {
    let text = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{:.2}", value / unit));
    format!("{} of {}", text(used), text(installed))
}

/// Cores used by each cgroup that is in both scrapes, busiest first; the root is the machine, and has a line of its own.
fn rates(before: &Scrape, now: &Scrape, seconds: f64) -> Vec<(String, f64)> {
    let before: HashMap<_, _> = before.cgroup_seconds().collect();
    let mut rates: Vec<_> = now
        .cgroup_seconds()
        .filter(|(cgroup, _)| *cgroup != "/")
        .filter_map(|(cgroup, now)| {
            let used = now - before.get(cgroup)?;
            // A total that fell is another cgroup under the same path.
            (used >= 0.0).then(|| (cgroup.to_owned(), used / seconds))
        })
        .collect();
    rates.sort_by(|(left, a), (right, b)| b.total_cmp(a).then_with(|| left.cmp(right)));
    rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::parse;

    fn scrape(at_s: f64, age_s: f64, busy_s: f64) -> Scrape {
        let text = format!(
            "mcad_node_agent_up{{node=\"n\"}} 1\n\
             mcad_node_report_age_seconds{{node=\"n\"}} {age_s}\n\
             mcad_node_source{{node=\"n\",figure=\"cgroup\",source=\"bpf\"}} 1\n\
             mcad_node_installed{{node=\"n\",resource=\"cpu\",unit=\"core\"}} 2\n\
             mcad_node_healthy{{node=\"n\",resource=\"cpu\",unit=\"core\"}} 2\n\
             mcad_node_used{{node=\"n\",resource=\"cpu\",unit=\"core\",owner=\"system\"}} 1.25\n\
             mcad_node_used{{node=\"n\",resource=\"cpu\",unit=\"core\",owner=\"other\"}} 0.25\n\
             mcad_cgroup_cpu_seconds_total{{node=\"n\",cgroup=\"/\"}} 99\n\
             mcad_cgroup_cpu_seconds_total{{node=\"n\",cgroup=\"/idle\"}} 5\n\
             mcad_cgroup_cpu_seconds_total{{node=\"n\",cgroup=\"/busy\"}} {busy_s}\n"
        );
        Scrape { at_s, samples: parse(&text) }
    }

    fn view(scrapes: impl IntoIterator<Item = Scrape>) -> View {
        let mut view = View::default();
        scrapes.into_iter().for_each(|scrape| view.take(scrape));
        view
    }

    #[test]
    fn a_screen_shows_the_ladder_of_this_machine_and_the_busiest_cgroups() {
        let shown = view([scrape(1.0, 0.0, 10.0), scrape(2.0, 0.0, 10.5)]);
        let expected = "\
This machine
3 cgroups, read by eBPF. The page is at http://a/. Ctrl-C ends it.

cpu, in cores
  installed    2
  healthy      2
  used       1.5  0.25 by other pods, 1.25 by no pod

memory, in GiB
  installed  unknown
  healthy    unknown
  used       unknown

Busiest cgroups, in cores, each with all below it
  /busy  0.500
  /idle  0.000";
        assert_eq!(shown.screen("http://a", (40, 80), Paint::Plain), expected);
        let coloured = shown.screen("http://a", (40, 80), Paint::Colours);
        assert!(coloured.contains("\x1b[1mcpu, in cores\x1b[0m\n  ██████████"), "{coloured}");
    }

    #[test]
    fn a_name_that_a_terminal_would_obey_is_spelled_out() {
        let evil = |busy_s: f64, at_s| {
            let mut scrape = scrape(at_s, 0.0, 10.0);
            scrape.samples.extend(parse(&format!(
                "mcad_cgroup_cpu_seconds_total{{node=\"n\",cgroup=\"/\u{1b}[2J\"}} {busy_s}\n"
            )));
            scrape
        };
        let shown = view([evil(1.0, 1.0), evil(9.0, 2.0)]);
        for said in [shown.line(), shown.screen("http://a", (40, 80), Paint::Plain)] {
            assert!(said.contains("/\\u{1b}[2J") && !said.contains('\u{1b}'), "{said:?}");
        }
    }

    #[test]
    fn a_line_is_for_logs() {
        let line = view([scrape(1.0, 0.0, 10.0), scrape(2.0, 0.0, 10.5)]).line();
        assert_eq!(
            line,
            "   2s  cpu 1.50 of 2.00 cores  memory unknown of unknown GiB  3 cgroups, read by eBPF  \
             busiest /busy 0.50, /idle 0.00"
        );
    }

    #[test]
    fn gpus_are_shown_where_there_are_some_and_fake_ones_as_such() {
        let check = |more: &str, expected: Option<&str>| {
            let mut scrape = scrape(1.0, 0.0, 10.0);
            scrape.samples.extend(parse(more));
            let line = view([scrape]).line();
            match expected {
                Some(expected) => assert!(line.contains(expected), "{line}"),
                None => assert!(!line.contains("GPU"), "{line}"),
            }
        };
        let installed = "mcad_node_installed{node=\"n\",resource=\"nvidia_com_gpu\",unit=\"integer\"}";
        let healthy = installed.replace("installed", "healthy");
        let used = "mcad_node_used{node=\"n\",owner=\"system\",resource=\"nvidia_com_gpu\",unit=\"integer\"}";
        let all = format!("{installed} 8\n{healthy} 7\n{used} 3.5\n");
        check(&all, Some("  GPUs 8 installed, 7 healthy, 3.50 busy  "));
        check(&format!("{all}mcad_node_gpus_fake{{node=\"n\"}} 1\n"), Some("  FAKE GPUs 8 installed, 7 healthy"));
        check(&format!("{installed} 8\n"), Some("  GPUs 8 installed, unknown healthy, unknown busy  "));
        check(&format!("{installed} 0\n{healthy} 0\n"), None);
        check("", None);
    }

    #[test]
    fn a_machine_with_nothing_but_the_root_cgroup_says_so() {
        let bare = |at_s| {
            let text = "mcad_node_agent_up 1\nmcad_node_report_age_seconds 0\n\
                        mcad_node_source{figure=\"cgroup\",source=\"cgroupfs\"} 1\n\
                        mcad_cgroup_cpu_seconds_total{cgroup=\"/\"} 9\n";
            Scrape { at_s, samples: parse(text) }
        };
        let line = view([bare(1.0), bare(2.0)]).line();
        assert!(line.ends_with("1 cgroup, read from files  none below the root"), "{line}");
    }

    #[test]
    fn a_rate_needs_two_reports() {
        assert!(view([scrape(1.0, 0.0, 10.0)]).line().ends_with("busiest unknown yet"));
    }

    #[test]
    fn rates_divide_by_the_time_between_reports_not_between_scrapes() {
        // Scrapes a second apart, reports two seconds apart: 1 s of CPU is half a core.
        let shown = view([scrape(2.0, 1.0, 10.0), scrape(3.0, 0.0, 11.0)]).line();
        assert!(shown.contains("/busy 0.50"), "{shown}");
    }

    #[test]
    fn a_report_seen_twice_does_not_make_the_machine_look_idle() {
        let shown = view([scrape(1.0, 0.0, 10.0), scrape(2.0, 0.0, 10.5), scrape(3.0, 1.0, 10.5)]).line();
        assert!(shown.contains("/busy 0.50"), "{shown}");
    }

    #[test]
    fn rates_vanish_when_the_agent_falls_silent() {
        let silent = Scrape { at_s: 9.0, samples: parse("mcad_node_agent_up{node=\"n\"} 0\n") };
        let view = view([scrape(1.0, 0.0, 10.0), scrape(2.0, 0.0, 10.5), silent]);
        assert!(!view.is_measured());
        let shown = view.line();
        assert!(shown.contains("no report from the agent") && shown.ends_with("busiest unknown yet"), "{shown}");
    }

    #[test]
    fn a_screen_keeps_to_its_size() {
        let shown = view([scrape(1.0, 0.0, 10.0), scrape(2.0, 0.0, 10.5)]).screen("http://a", (7, 20), Paint::Plain);
        assert_eq!(shown.lines().count(), 7);
        assert!(shown.lines().all(|line| line.chars().count() <= 20));
    }
}
