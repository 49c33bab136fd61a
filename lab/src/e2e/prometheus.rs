//! A real Prometheus with the shipped scrape configuration and rules, optionally with shorter times. Runs its process
//! and queries it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::child::Child;
use xtask::{test, workspace};

use super::wait::until;

/// The factor by which every `for` and every range of the rules is shortened: 3 minutes become 12 seconds. A Lease is
/// shortened by 5 ([`super::install`]), so that a fail-over still takes less time than an alert.
const HURRY: u64 = 15;

/// Whether the times in the files are used as shipped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// All times as they are shipped.
    Shipped,
    /// A scrape each second, and the rules' times divided.
    Shortened,
}

/// A running Prometheus.
pub(super) struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Starts it. Its targets are read from files in `targets`.
    pub(super) fn start(work: &Path, targets: &Path, pace: Pace) -> Result<Self> {
        let read = |name: &str| {
            let path = workspace::root().join("deploy/monitoring").join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let config = work.join("prometheus.yaml");
        std::fs::write(&config, by_files(&read("prometheus.yaml")?, targets, pace))?;
        let rules = read("rules.yaml")?;
        std::fs::write(work.join("rules.yaml"), if pace == Pace::Shortened { shorten(&rules)? } else { rules })?;
        // The port is free now, which is sufficient on a machine without other users.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).context("no free port")?.port();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", work.join("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        if let Some(path) = test::path_with_promtool()? {
            command.env("PATH", path);
        }
        let child = Child::start("prometheus", command, work).context("Debian has it in `prometheus`")?;
        let mut started = Self { child, port };
        until("Prometheus responds", 60, || {
            started.child.check()?;
            started.query("vector(1)")
        })?;
        Ok(started)
    }

    /// The values of an expression.
    pub(super) fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let encoded = expression.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        let samples = answer["data"]["result"].as_array().into_iter().flatten().map(|sample| {
            let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
            Ok(Sample { labels: sample["metric"].clone(), value: value.context("the value is not a number")? })
        });
        samples.collect()
    }

    /// The single value of an expression.
    pub(super) fn value(&self, expression: &str) -> Result<f64> {
        match self.query(expression)?.as_slice() {
            [sample] => Ok(sample.value),
            samples => bail!("{expression}: {} values", samples.len()),
        }
    }

    /// Waits until each of these expressions, which are comparisons, has a result.
    pub(super) fn holds(&self, what: &str, limit_s: u64, expressions: &[String]) -> Result<()> {
        until(what, limit_s, || {
            for expression in expressions {
                if self.query(expression)?.is_empty() {
                    let left = expression.split(" == ").next().unwrap_or_default();
                    let found: Vec<_> =
                        self.query(left)?.iter().map(|it| format!("{} {}", it.labels, it.value)).collect();
                    bail!("{expression} does not hold; the values are {}", found.join("; "));
                }
            }
            Ok(())
        })
    }

    /// The alerts that fire now.
    pub(super) fn firing(&self) -> Result<BTreeSet<String>> {
        let answer = self.get("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array().context("the response has no alerts")?.iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The alerts that fired at any time so far.
    pub(super) fn fired(&self) -> Result<BTreeSet<String>> {
        let samples = self.query("count by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[1h]))")?;
        Ok(samples.iter().map(|it| it.labels["alertname"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The rules that failed, each with its error, and those that were not evaluated yet.
    pub(super) fn sick_rules(&self) -> Result<Vec<String>> {
        let answer = self.get("/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().context("the response has no groups of rules")?.iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let sick = rules.filter(|rule| rule["health"] != "ok");
        Ok(sick.map(|rule| format!("{} ({} {})", rule["name"], rule["health"], rule["lastError"])).collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).context("cannot reach Prometheus")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: prometheus\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("Prometheus did not respond")?;
        serde_json::from_str(body).context("the response of Prometheus is not JSON")
    }
}

/// One series of a result.
pub(super) struct Sample {
    pub(super) labels: Value,
    pub(super) value: f64,
}

/// The shipped configuration with target files instead of Kubernetes discovery; if the times are shortened, with a
/// scrape each second.
fn by_files(config: &str, targets: &Path, pace: Pace) -> String {
    let lines = config.lines().filter(|line| !line.trim_start().starts_with("namespaces:")).map(|line| {
        if let Some(role) = line.strip_prefix("  - role: ") {
            return format!("  - files: [{}]", targets.join(format!("{role}.json")).display());
        }
        let line = line.replace("kubernetes_sd_configs:", "file_sd_configs:");
        let shortened = ["scrape_interval:", "scrape_timeout:", "evaluation_interval:"];
        match line.split_once(": ") {
            Some((key, _)) if pace == Pace::Shortened && shortened.contains(&format!("{}:", key.trim()).as_str()) => {
                format!("{key}: 1s")
            }
            _ => line,
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// The shipped rules with every `for` and every range shortened.
fn shorten(rules: &str) -> Result<String> {
    let mut text = String::new();
    for line in rules.lines() {
        match line.split_once("for: ") {
            Some((indent, time)) if indent.trim().is_empty() => write!(text, "{indent}for: {}s", seconds(time)?)?,
            _ => {
                let mut rest = line;
                while let Some((before, (time, after))) =
                    rest.split_once('[').and_then(|(before, after)| Some((before, after.split_once(']')?)))
                {
                    write!(text, "{before}[{}s]", seconds(time)?)?;
                    rest = after;
                }
                text += rest;
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn seconds(time: &str) -> Result<u64> {
    let (digits, unit_s) = match time.trim().split_at(time.trim().len() - 1) {
        (digits, "m") => (digits, 60),
        (digits, "h") => (digits, 3600),
        _ => bail!("the rules have a time {time:?}, which is neither minutes nor hours"),
    };
    Ok(digits.parse::<u64>()? * unit_s / HURRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_rules_are_shorter_and_nothing_else_changes() {
        let rules = "        expr: rate(x[15m]) > 0 and y[1h]\n        for: 3m\n      # for: ever\n";
        let expected = "        expr: rate(x[60s]) > 0 and y[240s]\n        for: 12s\n      # for: ever\n";
        assert_eq!(shorten(rules).unwrap(), expected);
        assert!(shorten("for: 3d").is_err());
    }

    #[test]
    fn files_stand_in_for_discovery() {
        let config =
            "global:\n  scrape_interval: 15s\n  kubernetes_sd_configs:\n  - role: pod\n    namespaces: {names: [x]}\n";
        let expected = "global:\n  scrape_interval: 1s\n  file_sd_configs:\n  - files: [/t/pod.json]\n";
        assert_eq!(by_files(config, Path::new("/t"), Pace::Shortened), expected);
        assert_eq!(by_files(config, Path::new("/t"), Pace::Shipped), expected.replace(" 1s", " 15s"));
    }
}
