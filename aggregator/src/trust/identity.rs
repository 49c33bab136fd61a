//! Who bears a token: asked of the API server once a token, remembered until the token expires. Owns that memory, the way
//! to the API server and how much is asked of it at once; what an answer means is `verdict`'s.
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

/// How much is asked and remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens that were accepted. An agent has two while kubelet renews its own.
    pub accepted: usize,
    /// Tokens that were not.
    pub refused: usize,
    /// How long one that was refused is not asked about again.
    pub refused_for: Duration,
    /// The longest that one is believed without being asked about again, however long it is valid.
    pub accepted_for: Duration,
    /// Tokens that are asked about at the same time.
    pub asking: usize,
    /// Of these, tokens of peers of whom none was accepted before; each that is not accepted counts for a second.
    pub of_strangers: usize,
    /// How long one waits for its turn to be asked about.
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
    /// Of agents' tokens.
    pub const AGENTS: Self = Self {
        // Six times the largest cluster that Kubernetes promises to work with, at 300 bytes each.
        accepted: 32_768,
        refused: 4096,
        // A token does not become better; a pod that was deleted and made anew has another one.
        refused_for: Duration::from_secs(10),
        // Kubelet renews a token before it is a day old.
        accepted_for: Duration::from_hours(24),
        // 5,000 agents that meet a new aggregator are through in seconds at 5 ms each, and no API server minds.
        asking: 32,
        // Agents that an aggregator does not know yet are accepted, and so do not hold one another up.
        of_strangers: 20,
        // Together less than the 5 s that an agent waits for its answer.
        turn: Duration::from_secs(1),
        answer: Duration::from_secs(3),
    };

    /// Of replicas' tokens: there are a few, and who floods with others must not keep agents' from being asked about.
    pub const PEERS: Self = Self { accepted: 64, refused: 64, asking: 2, of_strangers: 2, ..Self::AGENTS };
}

/// What came of asking, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The token is an agent's.
    Accepted,
    /// It is not.
    Refused,
    /// There was no answer.
    Failed,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Failed];

    /// In one word.
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
    /// Told whenever a question is answered.
    answered: Notify,
    strangers: Arc<Semaphore>,
}

/// A token is not kept, only its SHA-256.
type Hash = [u8; 32];
type Verdict = Result<Bearer, Distrust>;

#[derive(Debug, Default)]
struct Known {
    /// And until when, by the clock that never jumps.
    accepted: Table<Hash, (Bearer, Duration)>,
    refused: Table<Hash, (Distrust, Duration)>,
    /// Tokens that are being asked about; not more than there are connections.
    asked: Table<Hash, watch::Receiver<Option<Verdict>>>,
}

impl Known {
    /// What was said of a token, for as long as it holds.
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
    /// Somebody asks already.
    Asked(watch::Receiver<Option<Verdict>>),
    /// Nobody does.
    Ask(Asking<'a>),
}

/// The right to ask about one token; whoever waits for the answer learns when this is dropped without one.
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
    /// Believes tokens of this ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`. Whoever waits for an answer, it is asked for
    /// on the runtime that this is called on, where the client has its connections.
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

    /// Who bears this token that `peer` sent. `count` is told of each question to the API server.
    pub async fn bearer(&self, token: Option<&str>, peer: IpAddr, count: impl Fn(Asked)) -> Result<Bearer, Distrust> {
        let token = token.ok_or(Distrust::NoToken)?;
        let mut hash = Hash::default();
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        // Mostly it was asked about before, and read then.
        if let Some(verdict) = self.known().verdict(&hash, self.clock.now().since_start) {
            return verdict;
        }
        let claims = Claims::read(token).ok_or(Distrust::Garbage)?;
        loop {
            match self.find(hash) {
                Found::Known(verdict) => return verdict,
                Found::Asked(mut answer) => {
                    // The one who asked may have left without an answer: then it is asked anew.
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

    /// `None`: this peer, or all strangers together, have caused as many questions as they may.
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
            // From here on no answer is missed.
            answered.as_mut().enable();
            // On a line of its own, so that the lock is not held while it waits.
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
        // A set of one, which ends with whoever waits.
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
                // The API server verified the claims with the token. One that never expires is asked about again.
                let left_s = claims.exp.map(|exp_s| exp_s.saturating_sub(unix_ms / 1000));
                let left = left_s.map_or(self.limits.refused_for, Duration::from_secs).min(self.limits.accepted_for);
                // By a clock that is ahead of the API server's it has expired, and would be asked about for each report.
                let left = left.max(self.limits.refused_for);
                make_room(&mut known.accepted, self.limits.accepted, now);
                known.accepted.insert(hash, (bearer.clone(), now + left));
            }
            // To ask again is what they are told to do.
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
        // Each change is whole before it can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out what is over, and if that is not enough what is over soonest.
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
