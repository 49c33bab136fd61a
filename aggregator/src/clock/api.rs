//! The API server's time, from the `Date` header of its answers, and whether this machine's clock agrees. Owns the last such
//! answer; callers decide what they stop doing while the two disagree.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use http::header::DATE;
use http::{HeaderMap, Response};
use tower::util::MapResponseLayer;

use super::{Clock, Now};

/// Clocks that differ by at most this agree. A certificate is valid from a day before it is made, and a Lease does not depend on
/// the time of day, so an hour does no harm; a machine without NTP drifts by seconds a day.
const TOLERANCE_S: u64 = 3600;

/// See the module's documentation; all clones are one.
#[derive(Clone, Debug)]
pub struct ApiClock {
    clock: Clock,
    heard: Arc<Mutex<Option<Heard>>>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Now,
    unix_s: u64,
}

/// One instant by both clocks, in s since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// This machine's.
    pub own_s: u64,
    /// The same in ms.
    own_ms: u64,
    /// The API server's. `None` if no answer had a `Date`.
    api_s: Option<u64>,
}

impl ApiClock {
    /// A clock that has not seen an answer yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, heard: Arc::default() }
    }

    /// The time by this machine's clocks.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// A layer for a client of the API server that reads the `Date` of all its answers.
    pub fn layer<B>(&self) -> MapResponseLayer<impl Fn(Response<B>) -> Response<B> + Clone + use<B>> {
        let heard = self.clone();
        MapResponseLayer::new(move |answer: Response<B>| {
            heard.hear(answer.headers());
            answer
        })
    }

    fn hear(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let Some(since) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else { return };
        let heard = Heard { at: self.now(), unix_s: since.as_secs() };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    /// Both times of this instant. The monotonic clock measures the age of the API server's answer.
    pub fn times(&self) -> Times {
        let now = self.now();
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let api_s = heard.map(|heard| heard.unix_s + now.since(heard.at).as_secs());
        Times { own_s: now.unix_ms / 1000, own_ms: now.unix_ms, api_s }
    }
}

impl Times {
    /// The API server's time, if the two clocks disagree.
    pub fn other_s(self) -> Option<u64> {
        self.api_s.filter(|api_s| api_s.abs_diff(self.own_s) > TOLERANCE_S)
    }

    /// The time to write where others compare it with the API server's times, in ms.
    pub fn written_ms(self) -> u64 {
        self.other_s().map_or(self.own_ms, |api_s| api_s * 1000)
    }

    /// The earlier of the two times.
    pub fn earliest_s(self) -> u64 {
        self.other_s().unwrap_or(self.own_s).min(self.own_s)
    }

    /// The later of the two times.
    pub fn latest_s(self) -> u64 {
        self.other_s().unwrap_or(self.own_s).max(self.own_s)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use mcad_testkit::reports::at;

    use super::*;

    const DAY_S: u64 = 86_400;

    fn heard(clock: &ApiClock, date: &'static str) {
        clock.hear(&HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]));
    }

    #[test]
    fn clocks_agree_within_an_hour_and_what_was_not_heard_is_no_disagreement() {
        let clock = ApiClock::new(Clock::from_fn(|| Now { unix_ms: 1_800_000_000_000, ..Now::default() }));
        let other = |date| {
            heard(&clock, date);
            clock.times().other_s()
        };
        assert_eq!(clock.times().other_s(), None);
        assert_eq!(other("no date"), None);
        assert_eq!(other("Fri, 15 Jan 2027 09:00:00 GMT"), None);
        assert_eq!(other("Fri, 15 Jan 2027 09:00:01 GMT"), Some(1_800_003_601));
        assert_eq!(other("Fri, 15 Jan 2027 07:00:00 GMT"), None);
        assert_eq!(other("Fri, 15 Jan 2027 06:59:59 GMT"), Some(1_799_996_399));
    }

    #[test]
    fn an_answer_ages_by_the_clock_that_never_jumps() {
        let now = Arc::new(Mutex::new(at(0)));
        let hand = Arc::clone(&now);
        let clock = ApiClock::new(Clock::from_fn(move || *hand.lock().unwrap()));
        let began_s = at(0).unix_ms / 1000;
        let date = httpdate::fmt_http_date(UNIX_EPOCH + std::time::Duration::from_secs(began_s));
        clock.hear(&HeaderMap::from_iter([(DATE, HeaderValue::from_str(&date).unwrap())]));
        *now.lock().unwrap() = at(2 * DAY_S);
        let (times, later_s) = (clock.times(), began_s + 2 * DAY_S);
        assert_eq!(times, Times { own_s: later_s, own_ms: later_s * 1000, api_s: Some(later_s) });
        // The wall clock is changed; the monotonic clock is not.
        *now.lock().unwrap() = Now { unix_ms: at(400 * DAY_S).unix_ms, ..at(2 * DAY_S) };
        let times = clock.times();
        assert_eq!((times.other_s(), times.written_ms()), (Some(later_s), later_s * 1000));
        assert_eq!((times.earliest_s(), times.latest_s()), (later_s, began_s + 400 * DAY_S));
    }
}
