//! The aggregator's figures about itself, in a registry of the `prometheus` crate. Owns their names; what they count is
//! known by who calls.
use std::time::Duration;

use mcad_accounting::cluster::Source;
use mcad_accounting::reported::NoNews;
use mcad_accounting::totals::Counter;
use mcad_present::exposition::{Family, Kind};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::receive::{Part, Refusal};
use crate::trust::identity::Asked;
use crate::watch;

static RECEIVED: Family = Family {
    name: "mcad_aggregator_reports_received_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "reports",
    help: "Reports that became the last one of their node.",
};
static REFUSED: Family = Family {
    name: "mcad_aggregator_reports_refused_total",
    kind: Kind::Counter,
    labels: &["reason"],
    unit: "reports",
    help: "Reports that were answered with an error, by reason.",
};
static DROPPED: Family = Family {
    name: "mcad_aggregator_reports_dropped_total",
    kind: Kind::Counter,
    labels: &["reason"],
    unit: "reports",
    help: "Reports that were no news, by reason.",
};
static PARTS_LEFT_OUT: Family = Family {
    name: "mcad_aggregator_report_parts_left_out_total",
    kind: Kind::Counter,
    labels: &["part", "reason"],
    unit: "reports",
    help: "Reports of which a part could not be right and is left out, by part and reason. The rest of them counts.",
};
static COUNTER_JUMPS: Family = Family {
    name: "mcad_aggregator_impossible_gains_total",
    kind: Kind::Counter,
    labels: &["counter"],
    unit: "steps",
    help: "Counters of pods in reports that grew by more than there was time for, by counter. Nothing of that step counts.",
};
static CONNECTIONS: Family = Family {
    name: "mcad_aggregator_connections",
    kind: Kind::Gauge,
    labels: &["listener"],
    unit: "connections",
    help: "Open connections, by listener: metrics or reports.",
};
static CONNECTIONS_REFUSED: Family = Family {
    name: "mcad_aggregator_connections_refused_total",
    kind: Kind::Counter,
    labels: &["listener", "reason"],
    unit: "connections",
    help: "Connections that were closed before their first request, or for how they sent one, by listener and reason.",
};
static TOKEN_REVIEWS: Family = Family {
    name: "mcad_aggregator_token_reviews_total",
    kind: Kind::Counter,
    labels: &["result"],
    unit: "reviews",
    help: "Questions to the API server about agents' tokens, by result: accepted, refused, or failed for want of an answer.",
};
static CERTIFICATE_NOT_AFTER: Family = Family {
    name: "mcad_aggregator_certificate_not_after_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &["listener"],
    unit: "seconds",
    help: "Until when the certificate is valid that new connections are shown, in seconds since the Unix epoch. \
           No line where there is none.",
};
static SCRAPE_SECONDS: Family = Family {
    name: "mcad_aggregator_scrape_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    unit: "seconds",
    help: "Time to make and hand over one /metrics, waiting for the reader included, for its turn not.",
};
static SCRAPE_BYTES: Family = Family {
    name: "mcad_aggregator_scrape_bytes_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "bytes",
    help: "Length of all /metrics that were read to the end, before compression.",
};
static SCRAPES_CUT: Family = Family {
    name: "mcad_aggregator_scrapes_cut_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "scrapes",
    help: "Scrapes whose reader left or stalled before the end.",
};

static WATCHES_BROKE: Family = Family {
    name: "mcad_aggregator_watch_restarts_total",
    kind: Kind::Counter,
    labels: &["list", "reason"],
    unit: "restarts",
    help: "Watches of the API server that broke and were resumed, or whose list was made anew because the server had something else \
           than they told (`rewound`, `count_differs`), by list and reason.",
};
static UNDECODABLE: Family = Family {
    name: "mcad_aggregator_undecodable_objects_total",
    kind: Kind::Counter,
    labels: &["list"],
    unit: "objects",
    help: "Objects that the API server told and that could not be decoded, by list. They are left out.",
};

/// All of them.
pub static FAMILIES: &[&Family] = &[
    &RECEIVED,
    &REFUSED,
    &DROPPED,
    &PARTS_LEFT_OUT,
    &COUNTER_JUMPS,
    &CONNECTIONS,
    &CONNECTIONS_REFUSED,
    &TOKEN_REVIEWS,
    &CERTIFICATE_NOT_AFTER,
    &SCRAPE_SECONDS,
    &SCRAPE_BYTES,
    &SCRAPES_CUT,
    &WATCHES_BROKE,
    &UNDECODABLE,
];

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// There are as many as there may be, and none can give way.
    Full,
    /// It made room for another one.
    GaveWay,
    /// There is no certificate to show yet.
    NoCertificate,
    /// It speaks no TLS 1.3, or does not trust the certificate.
    Handshake,
    /// Its handshake takes too long.
    HandshakeSlow,
    /// It asks for nothing.
    Silent,
    /// It shows no token that is good.
    Unproven,
    /// A header takes too long, or is too long.
    Header,
}

impl Closed {
    /// Every reason that there is.
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(|(_, reason)| reason)
    }

    const ALL: [(Self, &str); 8] = [
        (Self::Full, "full"),
        (Self::GaveWay, "gave_way"),
        (Self::NoCertificate, "no_certificate"),
        (Self::Handshake, "handshake"),
        (Self::HandshakeSlow, "handshake_slow"),
        (Self::Silent, "silent"),
        (Self::Unproven, "unproven"),
        (Self::Header, "header"),
    ];
}

/// The listeners, as labels spell them.
const LISTENERS: [&str; 2] = ["metrics", "reports"];

/// Buckets around the budget: 200 ms plain and 500 ms compressed for 10,000 nodes.
const SCRAPE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// The figures.
#[derive(Debug)]
pub struct SelfMetrics {
    registry: Registry,
    /// Reports that were taken.
    pub received: IntCounter,
    refused: IntCounterVec,
    dropped: IntCounterVec,
    parts_left_out: IntCounterVec,
    counter_jumps: IntCounterVec,
    metrics_connections: IntGauge,
    report_connections: IntGauge,
    connections_refused: IntCounterVec,
    token_reviews: IntCounterVec,
    certificate_not_after: IntGaugeVec,
    scrape_seconds: Histogram,
    scrape_bytes: IntCounter,
    /// Scrapes that nobody read to the end.
    pub scrapes_cut: IntCounter,
    watches_broke: IntCounterVec,
    undecodable: IntCounterVec,
}

impl SelfMetrics {
    /// All at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let received = IntCounter::with_opts(opts(&RECEIVED))?;
        let refused = IntCounterVec::new(opts(&REFUSED), REFUSED.labels)?;
        let dropped = IntCounterVec::new(opts(&DROPPED), DROPPED.labels)?;
        let parts_left_out = IntCounterVec::new(opts(&PARTS_LEFT_OUT), PARTS_LEFT_OUT.labels)?;
        let counter_jumps = IntCounterVec::new(opts(&COUNTER_JUMPS), COUNTER_JUMPS.labels)?;
        let connections = IntGaugeVec::new(opts(&CONNECTIONS), CONNECTIONS.labels)?;
        let connections_refused = IntCounterVec::new(opts(&CONNECTIONS_REFUSED), CONNECTIONS_REFUSED.labels)?;
        let token_reviews = IntCounterVec::new(opts(&TOKEN_REVIEWS), TOKEN_REVIEWS.labels)?;
        let certificate_not_after = IntGaugeVec::new(opts(&CERTIFICATE_NOT_AFTER), CERTIFICATE_NOT_AFTER.labels)?;
        let buckets = HistogramOpts::from(opts(&SCRAPE_SECONDS)).buckets(SCRAPE_BUCKETS.to_vec());
        let scrape_seconds = Histogram::with_opts(buckets)?;
        let scrape_bytes = IntCounter::with_opts(opts(&SCRAPE_BYTES))?;
        let scrapes_cut = IntCounter::with_opts(opts(&SCRAPES_CUT))?;
        let watches_broke = IntCounterVec::new(opts(&WATCHES_BROKE), WATCHES_BROKE.labels)?;
        let undecodable = IntCounterVec::new(opts(&UNDECODABLE), UNDECODABLE.labels)?;
        // A reason that did not occur yet is known to be 0.
        for reason in Refusal::reasons() {
            refused.get_metric_with_label_values(&[reason])?;
        }
        for reason in NoNews::REASONS {
            dropped.get_metric_with_label_values(&[reason])?;
        }
        for part in Part::ALL {
            for reason in part.reasons() {
                parts_left_out.get_metric_with_label_values(&[part.label(), reason])?;
            }
        }
        for counter in Counter::ALL {
            counter_jumps.get_metric_with_label_values(&[counter.label()])?;
        }
        for listener in LISTENERS {
            for reason in Closed::reasons() {
                connections_refused.get_metric_with_label_values(&[listener, reason])?;
            }
        }
        for result in Asked::ALL {
            token_reviews.get_metric_with_label_values(&[result.as_str()])?;
        }
        for list in Source::all().map(|source| source.to_string()) {
            undecodable.get_metric_with_label_values(&[&list])?;
            for reason in watch::REASONS {
                watches_broke.get_metric_with_label_values(&[list.as_str(), reason])?;
            }
        }
        let metrics_connections = connections.get_metric_with_label_values(&["metrics"])?;
        let report_connections = connections.get_metric_with_label_values(&["reports"])?;
        let all: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(received.clone()),
            Box::new(refused.clone()),
            Box::new(dropped.clone()),
            Box::new(parts_left_out.clone()),
            Box::new(counter_jumps.clone()),
            Box::new(connections),
            Box::new(connections_refused.clone()),
            Box::new(token_reviews.clone()),
            Box::new(certificate_not_after.clone()),
            Box::new(scrape_seconds.clone()),
            Box::new(scrape_bytes.clone()),
            Box::new(scrapes_cut.clone()),
            Box::new(watches_broke.clone()),
            Box::new(undecodable.clone()),
        ];
        all.into_iter().try_for_each(|one| registry.register(one))?;
        Ok(Self {
            registry,
            received,
            refused,
            dropped,
            parts_left_out,
            counter_jumps,
            metrics_connections,
            report_connections,
            connections_refused,
            token_reviews,
            certificate_not_after,
            scrape_seconds,
            scrape_bytes,
            scrapes_cut,
            watches_broke,
            undecodable,
        })
    }

    /// Counts a refusal and says how many there were for this reason before it.
    pub fn refused(&self, refusal: &Refusal) -> u64 {
        let counter = self.refused.with_label_values(&[refusal.reason()]);
        let before = counter.get();
        counter.inc();
        before
    }

    /// Counts a watch that broke and says how often it did for this reason before.
    pub fn watch_broke(&self, source: Source, reason: &str) -> u64 {
        let counter = self.watches_broke.with_label_values(&[source.to_string().as_str(), reason]);
        let before = counter.get();
        counter.inc();
        before
    }

    /// Counts an object that is left out.
    pub fn undecodable(&self, source: Source) {
        self.undecodable.with_label_values(&[source.to_string()]).inc();
    }

    /// Counts a part of a report that is left out.
    pub fn part_left_out(&self, part: Part, why: &Refusal) {
        self.parts_left_out.with_label_values(&[part.label(), why.reason()]).inc();
    }

    /// Counts how often a counter grew by more than it can.
    pub fn jumped(&self, counter: Counter, times: u32) {
        self.counter_jumps.with_label_values(&[counter.label()]).inc_by(times.into());
    }

    /// Counts a report that was no news.
    pub fn dropped(&self, reason: NoNews) {
        self.dropped.with_label_values(&[reason.reason()]).inc();
    }

    /// Counts a connection of scrapes and the page until what it returns is dropped.
    pub fn metrics_connection(&self) -> Open {
        Open::count(&self.metrics_connections)
    }

    /// Counts a connection of reports until what it returns is dropped.
    pub fn report_connection(&self) -> Open {
        Open::count(&self.report_connections)
    }

    /// Counts a connection that was closed.
    pub fn connection_refused(&self, listener: &str, why: Closed) {
        let reason = Closed::ALL.iter().find(|(closed, _)| *closed == why).map_or("", |(_, reason)| reason);
        self.connections_refused.with_label_values(&[listener, reason]).inc();
    }

    /// Counts a question about a token.
    pub fn token_reviewed(&self, asked: Asked) {
        self.token_reviews.with_label_values(&[asked.as_str()]).inc();
    }

    /// Notes until when a listener's certificate is valid.
    pub fn certificate(&self, listener: &str, not_after_s: Option<u64>) {
        if let Some(not_after_s) = not_after_s.and_then(|seconds| i64::try_from(seconds).ok()) {
            self.certificate_not_after.with_label_values(&[listener]).set(not_after_s);
        }
    }

    /// Notes the cost of a scrape.
    pub fn scraped(&self, took: Duration, bytes: u64) {
        self.scrape_seconds.observe(took.as_secs_f64());
        self.scrape_bytes.inc_by(bytes);
    }

    /// All of them in the text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Something that is counted for as long as this lives, however it ends.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Open {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_line_before_it_occurred() {
        let text = String::from_utf8(SelfMetrics::new().unwrap().text().unwrap()).unwrap();
        for reason in Refusal::reasons() {
            let line = format!("mcad_aggregator_reports_refused_total{{reason=\"{reason}\"}} 0\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        // Where nothing is encrypted there is no certificate.
        for family in FAMILIES.iter().filter(|family| family.name != CERTIFICATE_NOT_AFTER.name) {
            assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind)), "{}", family.name);
        }
    }

    #[test]
    fn a_refusal_is_counted_under_its_reason_alone() {
        let metrics = SelfMetrics::new().unwrap();
        assert_eq!(metrics.refused(&Refusal::Truncated), 0);
        assert_eq!(metrics.refused(&Refusal::Truncated), 1);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("{reason=\"truncated\"} 2\n"), "{text}");
        assert!(text.contains("{reason=\"oversized\"} 0\n"), "{text}");
    }
}
