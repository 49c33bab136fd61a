//! The bearer of a token: each token is reviewed once by the API server, and the result is cached until the token expires. Owns the
//! cache, the requests to the API server and their limits; `verdict` interprets the answers.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use mcad_accounting::now::Now;
use mcad_accounting::table::Table;
use ring::digest;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::claims::Claims;
use super::strangers::{Answer, Peers, Sender, Turn, WINDOW};
use super::verdict::{AUDIENCE, Bearer, Distrust, verdict};
use crate::clock::Clock;

/// Limits on reviews and on the cache.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cached accepted tokens. An agent has two while kubelet renews its token.
    pub accepted: usize,
    /// Cached refused tokens.
    pub refused: usize,
    /// How long a refused token is not reviewed again.
    pub refused_for: Duration,
    /// How long an accepted token is at most trusted without another review, however long it is valid.
    pub accepted_for: Duration,
    /// Reviews at the same time.
    pub asking: usize,
    /// Of these, reviews of tokens from strangers: peers without an accepted token. A token that is not accepted counts for a second.
    pub of_strangers: usize,
    /// How long a token waits for its review.
    pub turn: Duration,
    /// How long an answer may take.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::AGENTS
    }
}

impl Limits {
    /// For tokens of agents.
    pub const AGENTS: Self = Self {
        // Six times the nodes of the largest cluster that Kubernetes supports, at 300 bytes each.
        accepted: 32_768,
        refused: 4096,
        // A refused token does not become valid; a pod that was deleted and created again has another token.
        refused_for: Duration::from_secs(10),
        // Kubelet renews a token before it is a day old.
        accepted_for: Duration::from_hours(24),
        // The tokens of 5,000 agents are reviewed within seconds at 5 ms each, a low load for an API server.
        asking: 32,
        // New agents are accepted, so they do not delay one another.
        of_strangers: 20,
        // The sum is less than the 5 s that an agent waits for its answer.
        turn: Duration::from_secs(1),
        answer: Duration::from_secs(3),
    };

    /// For tokens of replicas: there are few, and a flood of invalid ones must not delay the reviews of agents' tokens.
    pub const PEERS: Self = Self { accepted: 64, refused: 64, asking: 2, of_strangers: 2, ..Self::AGENTS };
}

/// The result of a review, for a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The token was accepted.
    Accepted,
    /// The token was refused.
    Refused,
    /// There was no answer.
    Failed,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Failed];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tokens {
    reviews: Api<TokenReview>,
    runtime: Handle,
    service_account: String,
    clock: Clock,
    limits: Limits,
    known: Mutex<Known>,
    turns: Semaphore,
    peers: Mutex<Peers>,
    /// Notified of each answer.
    answered: Notify,
    strangers: Arc<Semaphore>,
}

/// The SHA-256 of a token; the token itself is not kept.
type Hash = [u8; 32];
type Verdict = Result<Bearer, Distrust>;

#[derive(Debug, Default)]
struct Known {
    /// Each with its expiry, by the monotonic clock.
    accepted: Table<Hash, (Bearer, Duration)>,
    refused: Table<Hash, (Distrust, Duration)>,
    /// Tokens that are being reviewed; at most one for each connection.
    asked: Table<Hash, watch::Receiver<Option<Verdict>>>,
}

impl Known {
    /// The cached verdict on a token, until it expires.
    fn verdict(&self, hash: &Hash, now: Duration) -> Option<Verdict> {
        if let Some((bearer, _)) = self.accepted.get(hash).filter(|(_, until)| *until > now) {
            return Some(Ok(bearer.clone()));
        }
        let (distrust, _) = self.refused.get(hash).filter(|(_, until)| *until > now)?;
        Some(Err(distrust.clone()))
    }
}

enum Found<'a> {
    Known(Verdict),
    /// The token is being reviewed.
    Asked(watch::Receiver<Option<Verdict>>),
    /// The caller must have it reviewed.
    Ask(Asking<'a>),
}

/// The right to have one token reviewed; waiting callers notice if this is dropped without an answer.
struct Asking<'a> {
    tokens: &'a Tokens,
    hash: Hash,
    answer: watch::Sender<Option<Verdict>>,
}

/// A question that a peer caused, until it is answered or given up.
struct Question<'a> {
    tokens: &'a Tokens,
    peer: IpAddr,
    sender: Sender,
    answer: Answer,
    /// Of a stranger, one of those that all of them have together, and since when.
    share: Option<(OwnedSemaphorePermit, tokio::time::Instant)>,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let now = self.tokens.clock.now().since_start;
        self.tokens.peers().answered(self.peer, self.sender, self.answer, now);
        self.tokens.answered.notify_waiters();
        if self.answer != Answer::Good
            && let Some((share, since)) = self.share.take()
        {
            drop(self.tokens.runtime.spawn(async move {
                tokio::time::sleep_until(since + WINDOW).await;
                drop(share);
            }));
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.tokens.known().asked.remove(&self.hash);
    }
}

impl Tokens {
    /// Accepts tokens of this ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`. All requests are made on the runtime that this is
    /// called on, where the client has its connections.
    pub fn new(client: Client, service_account: String, clock: Clock, limits: Limits) -> Self {
        let (turns, strangers) = (Semaphore::new(limits.asking), Arc::new(Semaphore::new(limits.of_strangers)));
        let (reviews, runtime) = (Api::all(client), Handle::current());
        let (known, peers) = (Mutex::default(), Mutex::default());
        Self {
            reviews,
            runtime,
            service_account,
            clock,
            limits,
            known,
            turns,
            peers,
            answered: Notify::new(),
            strangers,
        }
    }

    /// The bearer of a token that `peer` sent. `count` is called for each request to the API server.
    pub async fn bearer(&self, token: Option<&str>, peer: IpAddr, count: impl Fn(Asked)) -> Result<Bearer, Distrust> {
        let token = token.ok_or(Distrust::NoToken)?;
        let mut hash = Hash::default();
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        // Usually the token was reviewed before.
        if let Some(verdict) = self.known().verdict(&hash, self.clock.now().since_start) {
            return verdict;
        }
        let claims = Claims::read(token).ok_or(Distrust::Garbage)?;
        loop {
            match self.find(hash) {
                Found::Known(verdict) => return verdict,
                Found::Asked(mut answer) => {
                    // The other caller may have ended without an answer: then the review is repeated.
                    let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
                    if let Some(verdict) = answer {
                        return verdict;
                    }
                }
                Found::Ask(asking) => {
                    let mut question = self.may_ask(peer).await.ok_or(Distrust::Busy)?;
                    let verdict = self.ask(token, &claims).await;
                    let (asked, answer) = match &verdict {
                        Ok(_) => (Asked::Accepted, Answer::Good),
                        Err(Distrust::Unavailable | Distrust::Busy) => (Asked::Failed, Answer::None),
                        Err(_) => (Asked::Refused, Answer::Bad),
                    };
                    count(asked);
                    question.answer = answer;
                    drop(question);
                    self.remember(hash, &verdict, &claims);
                    asking.answer.send_replace(Some(verdict.clone()));
                    return verdict;
                }
            }
        }
    }

    /// `None` if this peer, or all strangers together, have caused too many reviews.
    async fn may_ask(&self, peer: IpAddr) -> Option<Question<'_>> {
        let sender = tokio::time::timeout(self.limits.turn, self.sender(peer)).await.ok()??;
        let mut question = Question { tokens: self, peer, sender, answer: Answer::None, share: None };
        if sender == Sender::Stranger {
            let share = Arc::clone(&self.strangers).acquire_owned();
            let share = tokio::time::timeout(self.limits.turn, share).await.ok()?.ok()?;
            question.share = Some((share, tokio::time::Instant::now()));
        }
        Some(question)
    }

    async fn sender(&self, peer: IpAddr) -> Option<Sender> {
        loop {
            let mut answered = std::pin::pin!(self.answered.notified());
            // From here on, no notification is missed.
            answered.as_mut().enable();
            // A separate statement, so that the lock is not held during the wait.
            let turn = self.peers().ask(peer, self.clock.now().since_start);
            match turn {
                Turn::Now(sender) => return Some(sender),
                Turn::Never => return None,
                Turn::Later => answered.await,
            }
        }
    }

    fn find(&self, hash: Hash) -> Found<'_> {
        let now = self.clock.now().since_start;
        let mut known = self.known();
        if let Some(verdict) = known.verdict(&hash, now) {
            return Found::Known(verdict);
        }
        if let Some(answer) = known.asked.get(&hash) {
            return Found::Asked(answer.clone());
        }
        let (answer, waiting) = watch::channel(None);
        known.asked.insert(hash, waiting);
        Found::Ask(Asking { tokens: self, hash, answer })
    }

    async fn ask(&self, token: &str, claims: &Claims) -> Verdict {
        let turn = tokio::time::timeout(self.limits.turn, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Distrust::Busy) };
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let reviews = self.reviews.clone();
        // A set of one task, which is aborted if the caller ends.
        let mut asked = JoinSet::new();
        asked.spawn_on(async move { reviews.create(&parameters, &review).await }, &self.runtime);
        let review = match tokio::time::timeout(self.limits.answer, asked.join_next()).await {
            Ok(Some(Ok(Ok(review)))) => review,
            Ok(Some(Ok(Err(error)))) => {
                tracing::debug!(%error, "TokenReview failed");
                return Err(Distrust::Unavailable);
            }
            Ok(Some(Err(_)) | None) | Err(_) => return Err(Distrust::Unavailable),
        };
        let now_s = self.clock.now().unix_ms / 1000;
        verdict(&review.status.unwrap_or_default(), claims, &self.service_account, now_s)
    }

    fn remember(&self, hash: Hash, verdict: &Verdict, claims: &Claims) {
        let Now { since_start: now, unix_ms } = self.clock.now();
        let mut known = self.known();
        match verdict {
            Ok(bearer) => {
                // The API server has verified the claims with the token. A token that never expires is reviewed again.
                let left_s = claims.exp.map(|exp_s| exp_s.saturating_sub(unix_ms / 1000));
                let left = left_s.map_or(self.limits.refused_for, Duration::from_secs).min(self.limits.accepted_for);
                // If this clock is ahead of the API server's, the token may seem expired and would be reviewed for each report.
                let left = left.max(self.limits.refused_for);
                make_room(&mut known.accepted, self.limits.accepted, now);
                known.accepted.insert(hash, (bearer.clone(), now + left));
            }
            // Not cached: senders are asked to retry.
            Err(Distrust::Unavailable | Distrust::Busy) => {}
            Err(distrust) => {
                make_room(&mut known.refused, self.limits.refused, now);
                known.refused.insert(hash, (distrust.clone(), now + self.limits.refused_for));
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before a panic is possible, so a poisoned lock can be used.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes expired entries and, if that is not enough, the entry that expires first.
fn make_room<T>(entries: &mut Table<Hash, (T, Duration)>, limit: usize, now: Duration) {
    if entries.len() < limit {
        return;
    }
    entries.retain(|_, (_, until)| *until > now);
    if entries.len() >= limit
        && let Some(soonest) = entries.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| *hash)
    {
        entries.remove(&soonest);
    }
}

#[cfg(test)]
mod tests;
