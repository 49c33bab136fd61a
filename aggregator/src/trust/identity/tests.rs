//! Tests of the cache and the reviews, against a fake API server whose answers to TokenReviews the test sets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcad_accounting::node_name::NodeName;
use mcad_testkit::reports::at;

use super::*;
use crate::reviewer::{AGENT, Reviewer, token};
use crate::trust::strangers::OF_PEER;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn peer(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// A `Tokens` whose clock the test sets.
struct Asked {
    tokens: Arc<Tokens>,
    seconds: Arc<AtomicU64>,
}

fn asking(reviewer: &Reviewer, limits: Limits) -> Asked {
    let seconds = Arc::new(AtomicU64::new(0));
    let hand = Arc::clone(&seconds);
    let clock = Clock::from_fn(move || at(hand.load(Ordering::SeqCst)));
    Asked { tokens: Arc::new(Tokens::new(reviewer.client(), AGENT.to_owned(), clock, limits)), seconds }
}

impl Asked {
    fn at(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    async fn check(&self, token: &str, expected: Result<&str, &str>) {
        let got = self.tokens.bearer(Some(token), PEER, |_| ()).await;
        let expected = expected.map(|node| Bearer::OnNode(NodeName::new(node).unwrap()));
        assert_eq!(got.map_err(|distrust| distrust.reason()), expected);
    }
}

/// The tests' clock, in seconds since the Unix epoch.
fn unix_s(seconds: u64) -> u64 {
    at(seconds).unix_ms / 1000
}

#[tokio::test]
async fn a_token_is_asked_about_once_until_it_expires() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits::default());
    let one = token(1, unix_s(3600));
    reviewer.know(&one, "gpu-17");
    for seconds in [0, 1, 3599] {
        asked.at(seconds);
        asked.check(&one, Ok("gpu-17")).await;
    }
    assert_eq!(reviewer.asked(), 1);
    asked.at(3600);
    asked.check(&one, Ok("gpu-17")).await;
    assert_eq!(reviewer.asked(), 2, "the API server has the last word");
}

#[tokio::test]
async fn one_that_is_valid_for_longer_than_a_day_is_asked_about_once_a_day() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits::default());
    let long = token(1, unix_s(365 * 86_400));
    reviewer.know(&long, "n");
    asked.check(&long, Ok("n")).await;
    asked.at(86_399);
    asked.check(&long, Ok("n")).await;
    assert_eq!(reviewer.asked(), 1);
    asked.at(86_400);
    asked.check(&long, Ok("n")).await;
    assert_eq!(reviewer.asked(), 2);
}

#[tokio::test]
async fn a_refusal_is_remembered_briefly() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits::default());
    let one = token(1, unix_s(3600));
    asked.check(&one, Err("token_rejected")).await;
    reviewer.know(&one, "n");
    asked.at(9);
    asked.check(&one, Err("token_rejected")).await;
    assert_eq!(reviewer.asked(), 1);
    asked.at(10);
    asked.check(&one, Ok("n")).await;
}

#[tokio::test]
async fn what_is_no_token_is_not_asked_about() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits::default());
    for garbage in ["", "x", "a.b.c"] {
        asked.check(garbage, Err("token_garbage")).await;
    }
    let none = asked.tokens.bearer(None, PEER, |_| ()).await;
    assert_eq!(none, Err(Distrust::NoToken));
    assert_eq!(reviewer.asked(), 0);
}

#[tokio::test]
async fn while_the_api_server_fails_those_who_are_known_go_on_and_others_wait() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits::default());
    let (known, new) = (token(1, unix_s(3600)), token(2, unix_s(3600)));
    reviewer.know(&known, "a");
    reviewer.know(&new, "b");
    asked.check(&known, Ok("a")).await;
    reviewer.fail(true);
    asked.at(3599);
    asked.check(&known, Ok("a")).await;
    asked.check(&new, Err("token_review_unavailable")).await;
    asked.at(3600);
    asked.check(&known, Err("token_review_unavailable")).await;
    // A missing answer is not cached.
    reviewer.fail(false);
    asked.check(&new, Ok("b")).await;
}

#[tokio::test]
async fn many_who_come_with_one_token_ask_once() {
    let reviewer = Reviewer::hesitant().await;
    let asked = asking(&reviewer, Limits::default());
    let one = token(1, unix_s(3600));
    reviewer.know(&one, "n");
    let all = futures::future::join_all((0..50).map(|_| asked.check(&one, Ok("n"))));
    let answer = async {
        reviewer.until_asked(1).await;
        reviewer.answer(1);
    };
    tokio::join!(all, answer);
    assert_eq!(reviewer.asked(), 1);
}

#[tokio::test]
async fn if_the_one_who_asks_leaves_the_next_asks_anew() {
    let reviewer = Reviewer::hesitant().await;
    let asked = asking(&reviewer, Limits::default());
    let one = token(1, unix_s(3600));
    reviewer.know(&one, "n");
    let (tokens, also) = (Arc::clone(&asked.tokens), one.clone());
    let first = tokio::spawn(async move { tokens.bearer(Some(&also), PEER, |_| ()).await });
    reviewer.until_asked(1).await;
    let leave = async {
        first.abort();
        reviewer.until_asked(2).await;
        reviewer.answer(2);
    };
    tokio::join!(asked.check(&one, Ok("n")), leave);
    assert!(asked.tokens.known().asked.is_empty());
}

#[tokio::test]
async fn no_more_are_asked_about_at_once_than_may_be() {
    let reviewer = Reviewer::hesitant().await;
    let asked = asking(&reviewer, Limits { asking: 1, turn: Duration::ZERO, ..Limits::default() });
    let (one, two) = (token(1, unix_s(3600)), token(2, unix_s(3600)));
    reviewer.know(&one, "a");
    reviewer.know(&two, "b");
    let second = async {
        reviewer.until_asked(1).await;
        asked.check(&two, Err("token_review_busy")).await;
        reviewer.answer(9);
    };
    tokio::join!(asked.check(&one, Ok("a")), second);
    asked.check(&two, Ok("b")).await;
}

/// A limit under test: shorter than the API client's own, and longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(200);

/// Asserts that something ended at the limit. Paused time jumps to it.
async fn check_ends_at_the_limit(ends: impl Future<Output = ()>) {
    let began = tokio::time::Instant::now();
    tokio::time::pause();
    ends.await;
    tokio::time::resume();
    assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
}

/// Lets most of the limit pass at once; the rest passes in real time.
async fn within_the_limit() {
    tokio::time::pause();
    tokio::time::sleep(LIMIT / 2).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_answer_is_waited_for_as_long_as_it_may_take_and_no_longer() {
    let reviewer = Reviewer::hesitant().await;
    let asked = asking(&reviewer, Limits { answer: LIMIT, ..Limits::default() });
    let one = token(1, unix_s(3600));
    reviewer.know(&one, "n");
    let answered = async {
        reviewer.until_asked(1).await;
        within_the_limit().await;
        reviewer.answer(1);
    };
    tokio::join!(asked.check(&one, Ok("n")), answered);
    check_ends_at_the_limit(asked.check(&token(2, unix_s(3600)), Err("token_review_unavailable"))).await;
}

#[tokio::test]
async fn a_turn_is_waited_for_as_long_as_it_may_take_and_no_longer() {
    let reviewer = Reviewer::hesitant().await;
    let asked = asking(&reviewer, Limits { asking: 1, turn: LIMIT, answer: LIMIT * 1000, ..Limits::default() });
    let tokens = [1, 2, 3].map(|number| token(number, unix_s(3600)));
    for token in &tokens {
        reviewer.know(token, "n");
    }
    let [one, two, three] = tokens;
    let turns = async {
        reviewer.until_asked(1).await;
        // The second waits for its turn and gets it in time.
        let in_turn = async {
            within_the_limit().await;
            reviewer.answer(1);
            reviewer.until_asked(2).await;
            // The third waits for the second, which gets no answer meanwhile.
            check_ends_at_the_limit(asked.check(&three, Err("token_review_busy"))).await;
            reviewer.answer(1);
        };
        tokio::join!(asked.check(&two, Ok("n")), in_turn);
    };
    tokio::join!(asked.check(&one, Ok("n")), turns);
}

#[tokio::test]
async fn as_many_are_remembered_as_may_be_and_what_is_over_soonest_makes_room() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits { accepted: 2, refused: 2, ..Limits::default() });
    let tokens = [1, 2, 3].map(|number| token(number, unix_s(3600 + u64::from(number))));
    for token in &tokens {
        reviewer.know(token, "n");
        asked.check(token, Ok("n")).await;
    }
    asked.check(&tokens[1], Ok("n")).await;
    asked.check(&tokens[2], Ok("n")).await;
    assert_eq!(reviewer.asked(), 3);
    asked.check(&tokens[0], Ok("n")).await;
    assert_eq!(reviewer.asked(), 4, "the first one had to go");
    for number in 10..20 {
        // Fewer tokens of one peer are reviewed.
        let (token, peer) = (token(number, unix_s(3600)), peer(number));
        assert_eq!(asked.tokens.bearer(Some(&token), peer, |_| ()).await, Err(Distrust::Rejected));
    }
    let known = asked.tokens.known();
    assert_eq!((known.accepted.len(), known.refused.len()), (2, 2), "refusals take no room from the others");
}

/// The number of reviews if each of these peers sends a number of invalid tokens at once.
async fn flood(asked: &Asked, reviewer: &Reviewer, peers: std::ops::Range<u8>, tokens: u8) -> usize {
    let before = reviewer.asked();
    let sent = peers.flat_map(|number| (0..tokens).map(move |at| (number, at)));
    let all = sent.map(|(number, at)| async move {
        let token = token(at, unix_s(3600) + u64::from(number));
        asked.tokens.bearer(Some(&token), peer(number), |_| ()).await.unwrap_err()
    });
    for distrust in futures::future::join_all(all).await {
        assert!(matches!(distrust, Distrust::Rejected | Distrust::Busy), "{distrust}");
    }
    reviewer.asked() - before
}

#[tokio::test]
async fn strangers_cause_so_many_questions_and_agents_that_are_known_are_heard_meanwhile() {
    let reviewer = Reviewer::start().await;
    // Nothing waits for a turn here, so that all is counted at one instant.
    let asked = asking(&reviewer, Limits { turn: Duration::ZERO, ..Limits::default() });
    let (agent, renewed) = (token(1, unix_s(3600)), token(2, unix_s(3600)));
    reviewer.know(&agent, "n");
    reviewer.know(&renewed, "n");
    asked.check(&agent, Ok("n")).await;
    tokio::time::pause();
    assert_eq!(flood(&asked, &reviewer, 100..101, 50).await, OF_PEER, "of one peer");
    let more = flood(&asked, &reviewer, 101..150, 4).await;
    assert_eq!(more, Limits::default().of_strangers - OF_PEER, "of all of them together");
    asked.check(&renewed, Ok("n")).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    asked.at(1);
    assert_eq!(flood(&asked, &reviewer, 150..200, 4).await, Limits::default().of_strangers);
}

#[tokio::test]
async fn agents_that_an_aggregator_meets_for_the_first_time_do_not_hold_one_another_up() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits { turn: LIMIT, ..Limits::default() });
    let all = (0..100).map(|number| {
        let (token, asked) = (token(number, unix_s(3600)), &asked);
        reviewer.know(&token, "n");
        async move { asked.tokens.bearer(Some(&token), peer(number), |_| ()).await }
    });
    assert!(futures::future::join_all(all.collect::<Vec<_>>()).await.iter().all(Result::is_ok));
    assert_eq!(reviewer.asked(), 100);
}

#[tokio::test]
async fn agents_behind_one_address_wait_for_the_first_of_them_and_are_all_heard() {
    let reviewer = Reviewer::start().await;
    let asked = asking(&reviewer, Limits { turn: LIMIT, ..Limits::default() });
    let all = (0..100).map(|number| {
        let token = token(number, unix_s(3600));
        reviewer.know(&token, "n");
        token
    });
    let all: Vec<_> = all.collect();
    futures::future::join_all(all.iter().map(|token| asked.check(token, Ok("n")))).await;
    assert_eq!(reviewer.asked(), 100);
}
