//! What `run` shows: turns responses of the aggregator into lines of text. Pure: no clock, no terminal, no network.

use std::collections::HashMap;
use std::fmt::Write;

use mcad_terminal::bar;
use mcad_terminal::paint::{Paint, Tone, cut};
use mcad_terminal::table::{self, Row};
use mcad_terminal::words::{GIB, count, printable};

use crate::machine::{Amounts, GPU, Machine};

/// The machine, and when the aggregator was queried, in seconds since `run` began.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) at_s: f64,
    pub(crate) machine: Machine,
}

impl Answer {
    /// When the report behind this response was taken. Rates divide by the time between reports, because responses and
    /// reports are not synchronised.
    fn reported_at_s(&self) -> Option<f64> {
        Some(self.at_s - self.machine.report_age_s?)
    }
}

/// Two reports closer than this are the same report, seen twice: the agent of `run` sends one a second.
const SAME_REPORT_S: f64 = 0.5;

/// The view: the machine now, and rates since the previous report.
#[derive(Default)]
pub(crate) struct View {
    before: Option<Answer>,
    now: Option<Answer>,
    /// Cores used by each cgroup between the last two reports, busiest first. `None` until there are two reports.
    rates: Option<Vec<(String, f64)>>,
}

impl View {
    /// Processes one more response.
    pub(crate) fn take(&mut self, answer: Answer) {
        let is_up = answer.machine.is_up;
        match (self.before.as_ref().and_then(Answer::reported_at_s), answer.reported_at_s()) {
            (Some(before), Some(now)) if is_up && now - before < SAME_REPORT_S => {}
            (Some(before_s), Some(now_s)) if is_up => {
                self.rates = self.before.as_ref().map(|before| rates(before, &answer, now_s - before_s));
                self.before = Some(answer.clone());
            }
            _ => {
                self.rates = None;
                self.before = answer.reported_at_s().map(|_| answer.clone());
            }
        }
        self.now = Some(answer);
    }

    /// Whether the last response had measurements of an agent that reports.
    pub(crate) fn is_measured(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.machine.is_up)
    }

    /// One line for a log: seconds since the start, the machine, the busiest cgroups.
    pub(crate) fn line(&self) -> String {
        let at_s = self.now.as_ref().map_or(0.0, |now| now.at_s);
        let mut line = format!("{at_s:>4.0}s  {}  {}", self.summary(), self.source());
        match &self.rates {
            None => line.push_str("  busiest not known yet"),
            Some(rates) if rates.is_empty() => line.push_str("  none below the root"),
            Some(rates) => {
                let busiest = rates.iter().take(3).map(|(cgroup, cores)| format!(" {} {cores:.2}", printable(cgroup)));
                let _infallible = write!(line, "  busiest{}", busiest.collect::<Vec<_>>().join(","));
            }
        }
        line
    }

    /// A screen of `rows` lines, each at most `columns` visible characters wide.
    pub(crate) fn screen(&self, address: &str, (rows, columns): (usize, usize), paint: Paint) -> String {
        let mut text = format!("{}\n", paint.tone(Tone::Title, "This machine"));
        let _infallible = writeln!(text, "{}. The page is at {address}/. Ctrl-C ends it.", self.source());
        let machine = self.machine();
        write_ladder(&mut text, &machine.cpu, "cpu, in cores", 1.0, paint);
        write_ladder(&mut text, &machine.memory, "memory, in GiB", GIB, paint);
        if has_some(&machine.gpu) {
            let fake = if machine.has_fake_gpus { ", FAKE" } else { "" };
            write_ladder(&mut text, &machine.gpu, &format!("{GPU}, in GPUs{fake}"), 1.0, paint);
        }
        let _infallible = writeln!(
            text,
            "\n{}",
            paint.tone(Tone::Title, "Busiest cgroups, in cores, each including its descendants")
        );
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

    fn machine(&self) -> Machine {
        self.now.as_ref().map(|now| now.machine.clone()).unwrap_or_default()
    }

    fn summary(&self) -> String {
        let machine = self.machine();
        let cpu = pair(machine.cpu.used(), machine.cpu.installed, 1.0);
        let memory = pair(machine.memory.used(), machine.memory.installed, GIB);
        let mut summary = format!("cpu {cpu} cores  memory {memory} GiB");
        if has_some(&machine.gpu) {
            let what = if machine.has_fake_gpus { "FAKE GPUs" } else { "GPUs" };
            let known = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
            let (installed, healthy) = (known(machine.gpu.installed), known(machine.gpu.healthy));
            let busy = machine.gpu.used().map_or_else(|| "unknown".to_owned(), |busy| format!("{busy:.2}"));
            let _infallible = write!(summary, "  {what} {installed} installed, {healthy} healthy, {busy} busy");
        }
        summary
    }

    fn source(&self) -> String {
        if self.now.is_none() {
            return "no response from the aggregator yet".to_owned();
        }
        let machine = self.machine();
        if !machine.is_up {
            return "no report from the agent".to_owned();
        }
        let cgroups = count(machine.cgroups.len() as u64, "cgroup", "cgroups");
        match machine.cgroup_source.as_deref() {
            Some("bpf") => format!("{cgroups}, read by eBPF"),
            Some("cgroupfs") => format!("{cgroups}, read from files"),
            Some(other) => format!("no cgroups: source {other}"),
            None => "no cgroups: source unknown".to_owned(),
        }
    }
}

/// A machine without GPUs has no section for them.
fn has_some(gpu: &Amounts) -> bool {
    gpu.installed.is_some_and(|installed| installed > 0.0)
}

/// What the machine has of a resource, how much of it works, and who uses it: as `explain` shows a node without Kubernetes.
fn write_ladder(text: &mut String, amounts: &Amounts, title: &str, unit: f64, paint: Paint) {
    let known = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| rounded(value / unit));
    let (installed, healthy, used) = (amounts.installed, amounts.healthy, amounts.used());
    let _infallible = writeln!(text, "\n{}", paint.tone(Tone::Title, title));
    if let (Some(installed), Some(healthy), Some(used)) = (installed, healthy, used) {
        let parts = [(Tone::Normal, used), (Tone::Good, healthy - used), (Tone::Bad, installed - healthy)];
        text.push_str(&bar::line(&parts, paint));
    }
    let by = |(owner, words): (&str, &str)| {
        let (_, used) = amounts.used.as_ref()?.iter().find(|(name, _)| name == owner)?;
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

fn row(label: &str, amount: String) -> Row {
    Row { label: label.to_owned(), amount, note: String::new(), tone: Tone::Normal }
}

/// Rounds to at most two digits. A small amount is not shown as 0.
fn rounded(amount: f64) -> String {
    let rounded = (amount * 100.0).round() / 100.0;
    if rounded == 0.0 && amount > 0.0 { "<0.01".to_owned() } else { rounded.to_string() }
}

/// `1.23 of 2`. Each part is "unknown" if it is not known.
fn pair(used: Option<f64>, installed: Option<f64>, unit: f64) -> String {
    let text = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{:.2}", value / unit));
    format!("{} of {}", text(used), text(installed))
}

/// Cores used by each cgroup that is in both responses, busiest first. The root cgroup is left out: it is the machine,
/// which is shown above.
fn rates(before: &Answer, now: &Answer, seconds: f64) -> Vec<(String, f64)> {
    let before: HashMap<&str, f64> = before.machine.cgroups.iter().map(|(path, cpu_s)| (&**path, *cpu_s)).collect();
    let rate = |(path, cpu_s): &(String, f64)| {
        let used = cpu_s - before.get(&**path)?;
        // If the total decreased, another cgroup was created with the same path.
        (used >= 0.0).then(|| (path.clone(), used / seconds))
    };
    let mut rates: Vec<_> = now.machine.cgroups.iter().filter(|(path, _)| path != "/").filter_map(rate).collect();
    rates.sort_by(|(left, a), (right, b)| b.total_cmp(a).then_with(|| left.cmp(right)));
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(used: &[(&str, f64)]) -> Vec<(String, f64)> {
        used.iter().map(|(owner, amount)| ((*owner).to_owned(), *amount)).collect()
    }

    fn answer(at_s: f64, age_s: f64, busy_s: f64) -> Answer {
        let used = Some(owners(&[("system", 1.25), ("other", 0.25)]));
        let cgroups = [("/", 99.0), ("/idle", 5.0), ("/busy", busy_s)];
        let machine = Machine {
            is_up: true,
            report_age_s: Some(age_s),
            cgroup_source: Some("bpf".to_owned()),
            cpu: Amounts { installed: Some(2.0), healthy: Some(2.0), used },
            cgroups: cgroups.map(|(path, cpu_s)| (path.to_owned(), cpu_s)).into(),
            ..Machine::default()
        };
        Answer { at_s, machine }
    }

    fn view(answers: impl IntoIterator<Item = Answer>) -> View {
        let mut view = View::default();
        answers.into_iter().for_each(|answer| view.take(answer));
        view
    }

    #[test]
    fn a_screen_shows_the_ladder_of_this_machine_and_the_busiest_cgroups() {
        let shown = view([answer(1.0, 0.0, 10.0), answer(2.0, 0.0, 10.5)]);
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

Busiest cgroups, in cores, each including its descendants
  /busy  0.500
  /idle  0.000";
        assert_eq!(shown.screen("http://a", (40, 80), Paint::Plain), expected);
        let coloured = shown.screen("http://a", (40, 80), Paint::Colours);
        assert!(coloured.contains("\x1b[1mcpu, in cores\x1b[0m\n  ██████████"), "{coloured}");
    }

    #[test]
    fn a_name_that_a_terminal_would_obey_is_spelled_out() {
        let evil = |busy_s: f64, at_s| {
            let mut answer = answer(at_s, 0.0, 10.0);
            answer.machine.cgroups.push(("/\u{1b}[2J".to_owned(), busy_s));
            answer
        };
        let shown = view([evil(1.0, 1.0), evil(9.0, 2.0)]);
        for said in [shown.line(), shown.screen("http://a", (40, 80), Paint::Plain)] {
            assert!(said.contains("/\\u{1b}[2J") && !said.contains('\u{1b}'), "{said:?}");
        }
    }

    #[test]
    fn a_line_is_for_logs() {
        let line = view([answer(1.0, 0.0, 10.0), answer(2.0, 0.0, 10.5)]).line();
        assert_eq!(
            line,
            "   2s  cpu 1.50 of 2.00 cores  memory unknown of unknown GiB  3 cgroups, read by eBPF  \
             busiest /busy 0.50, /idle 0.00"
        );
    }

    #[test]
    fn gpus_are_shown_where_there_are_some_and_fake_ones_as_such() {
        let check = |gpu: Amounts, has_fake_gpus: bool, expected: Option<&str>| {
            let mut answer = answer(1.0, 0.0, 10.0);
            answer.machine = Machine { has_fake_gpus, gpu, ..answer.machine };
            let line = view([answer]).line();
            match expected {
                Some(expected) => assert!(line.contains(expected), "{line}"),
                None => assert!(!line.contains("GPU"), "{line}"),
            }
        };
        let all = || Amounts { installed: Some(8.0), healthy: Some(7.0), used: Some(owners(&[("system", 3.5)])) };
        check(all(), false, Some("  GPUs 8 installed, 7 healthy, 3.50 busy  "));
        check(all(), true, Some("  FAKE GPUs 8 installed, 7 healthy"));
        let unknown = Amounts { installed: Some(8.0), ..Amounts::default() };
        check(unknown, false, Some("  GPUs 8 installed, unknown healthy, unknown busy  "));
        check(Amounts { installed: Some(0.0), healthy: Some(0.0), used: None }, false, None);
        check(Amounts::default(), false, None);
    }

    #[test]
    fn a_machine_with_nothing_but_the_root_cgroup_says_so() {
        let bare = |at_s| {
            let mut bare = answer(at_s, 0.0, 10.0);
            bare.machine.cgroup_source = Some("cgroupfs".to_owned());
            bare.machine.cgroups.retain(|(path, _)| path == "/");
            bare
        };
        let line = view([bare(1.0), bare(2.0)]).line();
        assert!(line.ends_with("1 cgroup, read from files  none below the root"), "{line}");
    }

    #[test]
    fn a_rate_needs_two_reports() {
        assert!(view([answer(1.0, 0.0, 10.0)]).line().ends_with("busiest not known yet"));
    }

    #[test]
    fn rates_divide_by_the_time_between_reports_not_between_answers() {
        // Answers a second apart, reports two seconds apart: 1 s of CPU is half a core.
        let shown = view([answer(2.0, 1.0, 10.0), answer(3.0, 0.0, 11.0)]).line();
        assert!(shown.contains("/busy 0.50"), "{shown}");
    }

    #[test]
    fn a_report_seen_twice_does_not_make_the_machine_look_idle() {
        let shown = view([answer(1.0, 0.0, 10.0), answer(2.0, 0.0, 10.5), answer(3.0, 1.0, 10.5)]).line();
        assert!(shown.contains("/busy 0.50"), "{shown}");
    }

    #[test]
    fn rates_vanish_when_the_agent_falls_silent() {
        let silent = Answer { at_s: 9.0, machine: Machine::default() };
        let view = view([answer(1.0, 0.0, 10.0), answer(2.0, 0.0, 10.5), silent]);
        assert!(!view.is_measured());
        let shown = view.line();
        assert!(shown.contains("no report from the agent") && shown.ends_with("busiest not known yet"), "{shown}");
    }

    #[test]
    fn a_screen_keeps_to_its_size() {
        let shown = view([answer(1.0, 0.0, 10.0), answer(2.0, 0.0, 10.5)]).screen("http://a", (7, 20), Paint::Plain);
        assert_eq!(shown.lines().count(), 7);
        assert!(shown.lines().all(|line| line.chars().count() <= 20));
    }
}
