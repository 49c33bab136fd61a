//! The aggregator's self-metrics, in a registry of the `prometheus` crate. Owns their names; callers decide what they count.
use std::time::Duration;

use mcad_accounting::cluster::Source;
use mcad_accounting::reported::NoNews;
use mcad_accounting::totals::Counter;
use mcad_present::exposition::{Family, Kind};
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::receive::{Part, Refusal};
use crate::trust::identity::Asked;
use crate::watch;

/// The type that holds the series of a family, by the type of the family and whether it has labels.
macro_rules! kept {
    (Counter []) => {
        IntCounter
    };
    (Counter [$($label:literal),+]) => {
        IntCounterVec
    };
    (Gauge [$($label:literal),+]) => {
        IntGaugeVec
    };
    (Histogram []) => {
        Histogram
    };
}

/// Declares the families: each once, for the list and for the struct that counts them.
macro_rules! families {
    ($($visible:vis $field:ident: $kind:ident $name:literal $labels:tt $unit:literal, $help:literal;)*) => {
        const COUNT: usize = [$($name),*].len();

        /// All of them, in the order of docs/metrics.md.
        pub static FAMILIES: [&Family; COUNT] =
            [$(&Family { name: $name, kind: Kind::$kind, labels: &$labels, unit: $unit, help: $help }),*];

        /// The self-metrics.
        #[derive(Debug)]
        pub struct SelfMetrics {
            registry: Registry,
            $(#[doc = $help] $visible $field: kept!($kind $labels),)*
        }

        impl SelfMetrics {
            /// Without a series of those that have labels.
            fn without_series() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                let [$($field),*] = FAMILIES;
                Ok(Self { $($field: registered($field, &registry)?,)* registry })
            }
        }
    };
}

families! {
    pub received: Counter "mcad_aggregator_reports_received_total" [] "reports",
        "Reports that were accepted as the latest of their node.";
    refused: Counter "mcad_aggregator_reports_refused_total" ["reason"] "reports",
        "Reports that were answered with an error, by reason.";
    dropped: Counter "mcad_aggregator_reports_dropped_total" ["reason"] "reports",
        "Duplicate or stale reports, by reason.";
    parts_left_out: Counter "mcad_aggregator_report_parts_left_out_total" ["part", "reason"] "reports",
        "Report parts that were invalid and left out, by part and reason. The rest of the report is used.";
    counter_jumps: Counter "mcad_aggregator_impossible_gains_total" ["counter"] "steps",
        "Increases of pod counters in reports that are impossible in the elapsed time, by counter. Such an increase is ignored.";
    connections: Gauge "mcad_aggregator_connections" ["listener"] "connections",
        "Open connections, by listener: metrics or reports.";
    connections_refused: Counter "mcad_aggregator_connections_refused_total" ["listener", "reason"] "connections",
        "Connections closed before their first request or because of how they sent a request, by listener and reason.";
    token_reviews: Counter "mcad_aggregator_token_reviews_total" ["result"] "reviews",
        "TokenReviews of agents' tokens by the API server, by result: accepted, refused, or failed if there was no answer.";
    certificate_not_after: Gauge "mcad_aggregator_certificate_not_after_timestamp_seconds" ["listener"] "seconds",
        "Expiry of the certificate that new connections receive, in seconds since the Unix epoch. Not exported without a certificate.";
    scrape_seconds: Histogram "mcad_aggregator_scrape_duration_seconds" [] "seconds",
        "Time to create and send one /metrics response, including waits for the reader, excluding time in the queue.";
    scrape_bytes: Counter "mcad_aggregator_scrape_bytes_total" [] "bytes",
        "Size before compression of all /metrics responses that were read to the end.";
    pub scrapes_cut: Counter "mcad_aggregator_scrapes_cut_total" [] "scrapes",
        "Scrapes whose reader disconnected or stalled before the end.";
    watches_broke: Counter "mcad_aggregator_watch_restarts_total" ["list", "reason"] "restarts",
        "Watches that broke and were resumed, or whose list was fetched again because it differed from the server's (`rewound`, `count_differs`), by list and reason.";
    undecodable: Counter "mcad_aggregator_undecodable_objects_total" ["list"] "objects",
        "Objects from the API server that could not be decoded, by list. They are left out.";
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The limit is reached, and no connection can give way.
    Full,
    /// It gave way to another connection.
    GaveWay,
    /// There is no certificate yet.
    NoCertificate,
    /// The client does not use TLS 1.3 or does not trust the certificate.
    Handshake,
    /// Its handshake takes too long.
    HandshakeSlow,
    /// The client sends no request.
    Silent,
    /// The client sends no valid token.
    Unproven,
    /// A header takes too long or is too long.
    Header,
}

impl Closed {
    /// All reasons.
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

/// The values of the label `listener`.
const LISTENERS: [&str; 2] = ["metrics", "reports"];

/// Buckets around the budget: 200 ms plain and 500 ms compressed for 10,000 nodes.
const SCRAPE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

impl SelfMetrics {
    /// All metrics at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let all = Self::without_series()?;
        // A reason that has not occurred yet has a series at 0.
        for reason in Refusal::reasons() {
            all.refused.get_metric_with_label_values(&[reason])?;
        }
        for reason in NoNews::REASONS {
            all.dropped.get_metric_with_label_values(&[reason])?;
        }
        for part in Part::ALL {
            for reason in part.reasons() {
                all.parts_left_out.get_metric_with_label_values(&[part.label(), reason])?;
            }
        }
        for counter in Counter::ALL {
            all.counter_jumps.get_metric_with_label_values(&[counter.label()])?;
        }
        for listener in LISTENERS {
            all.connections.get_metric_with_label_values(&[listener])?;
            for reason in Closed::reasons() {
                all.connections_refused.get_metric_with_label_values(&[listener, reason])?;
            }
        }
        for result in Asked::ALL {
            all.token_reviews.get_metric_with_label_values(&[result.as_str()])?;
        }
        // Without Kueue there is no series of its lists.
        for list in Source::all().filter(|source| !Source::QUEUES.contains(source)) {
            all.watched(list);
        }
        Ok(all)
    }

    /// A list has its series from now on, also at 0.
    pub fn watched(&self, list: Source) {
        let list = list.to_string();
        self.undecodable.with_label_values(&[&list]);
        for reason in watch::REASONS {
            self.watches_broke.with_label_values(&[list.as_str(), reason]);
        }
    }

    /// Counts a refusal and returns the number of earlier refusals for this reason.
    pub fn refused(&self, refusal: &Refusal) -> u64 {
        let counter = self.refused.with_label_values(&[refusal.reason()]);
        let before = counter.get();
        counter.inc();
        before
    }

    /// Counts a broken watch and returns how often it broke for this reason before.
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

    /// Counts impossible increases of a counter.
    pub fn jumped(&self, counter: Counter, times: u32) {
        self.counter_jumps.with_label_values(&[counter.label()]).inc_by(times.into());
    }

    /// Counts a duplicate or stale report.
    pub fn dropped(&self, reason: NoNews) {
        self.dropped.with_label_values(&[reason.reason()]).inc();
    }

    /// Counts a connection for scrapes and the page until the returned value is dropped.
    pub fn metrics_connection(&self) -> Open {
        Open::count(&self.connections.with_label_values(&["metrics"]))
    }

    /// Counts a connection for reports until the returned value is dropped.
    pub fn report_connection(&self) -> Open {
        Open::count(&self.connections.with_label_values(&["reports"]))
    }

    /// Counts a connection that was closed.
    pub fn connection_refused(&self, listener: &str, why: Closed) {
        let reason = Closed::ALL.iter().find(|(closed, _)| *closed == why).map_or("", |(_, reason)| reason);
        self.connections_refused.with_label_values(&[listener, reason]).inc();
    }

    /// Counts a TokenReview.
    pub fn token_reviewed(&self, asked: Asked) {
        self.token_reviews.with_label_values(&[asked.as_str()]).inc();
    }

    /// Sets the expiry of a listener's certificate.
    pub fn certificate(&self, listener: &str, not_after_s: Option<u64>) {
        if let Some(not_after_s) = not_after_s.and_then(|seconds| i64::try_from(seconds).ok()) {
            self.certificate_not_after.with_label_values(&[listener]).set(not_after_s);
        }
    }

    /// Records the duration and size of a scrape.
    pub fn scraped(&self, took: Duration, bytes: u64) {
        self.scrape_seconds.observe(took.as_secs_f64());
        self.scrape_bytes.inc_by(bytes);
    }

    /// All self-metrics in the text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Something that is counted until this is dropped.
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

/// A type that holds the series of a family.
trait Kept: Collector + Clone + Sized + 'static {
    fn new(family: &Family) -> Result<Self, prometheus::Error>;
}

impl Kept for IntCounter {
    fn new(family: &Family) -> Result<Self, prometheus::Error> {
        Self::with_opts(opts(family))
    }
}

impl Kept for IntCounterVec {
    fn new(family: &Family) -> Result<Self, prometheus::Error> {
        Self::new(opts(family), family.labels)
    }
}

impl Kept for IntGaugeVec {
    fn new(family: &Family) -> Result<Self, prometheus::Error> {
        Self::new(opts(family), family.labels)
    }
}

impl Kept for Histogram {
    fn new(family: &Family) -> Result<Self, prometheus::Error> {
        Self::with_opts(HistogramOpts::from(opts(family)).buckets(SCRAPE_BUCKETS.to_vec()))
    }
}

fn registered<K: Kept>(family: &Family, registry: &Registry) -> Result<K, prometheus::Error> {
    let kept = K::new(family)?;
    registry.register(Box::new(kept.clone()))?;
    Ok(kept)
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
        // Without TLS there is no certificate.
        for family in
            FAMILIES.iter().filter(|family| family.name != "mcad_aggregator_certificate_not_after_timestamp_seconds")
        {
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
