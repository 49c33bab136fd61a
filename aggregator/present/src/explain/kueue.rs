//! What Kueue has to do with one AppWrapper: its queue, flavors and shortfall, why it waits, and what Kueue says.
use std::collections::BTreeMap;

use mcad_accounting::queue::AppWrapperQuota;
use mcad_accounting::queue::account::QuotaAccount;
use mcad_accounting::queue::reason::{self, WaitingReason};
use mcad_accounting::resource::amount::Amount;
use mcad_accounting::snapshot::{AppWrapperView, Snapshot};
use serde::Serialize;

use super::ladder::ByResource;
use super::queues::NoQueues;
use super::quota::{Quota, Says, Shortfall, by_flavor};
use super::waiting::{Case, sentence};
use super::why::Places;

/// What Kueue has to do with an AppWrapper.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OfKueue {
    /// Its Workload. `None` if it has none that is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its LocalQueue. Empty if it names none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_queue: String,
    /// The ClusterQueue that it takes quota from, else the one that its LocalQueue leads to. `None` if there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_queue: Option<String>,
    /// Quota by flavor that it reserves or, if it waits, would be assigned.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flavors: BTreeMap<String, ByResource<Quota>>,
    /// Whether it fits its quota. `None` if it does not wait, has no Workload, or its queue is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_quota: Option<bool>,
    /// What is missing from its quota, by flavor.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shortfall: BTreeMap<String, ByResource<Shortfall>>,
    /// Why it or some of its pods wait: a reason of `mcad_appwrapper_waiting_reason`. `None` if it does not wait, or if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Kueue's own words on why it reserves no quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<Says>,
    #[serde(skip)]
    waits: Option<WaitingReason>,
}

impl OfKueue {
    /// `None` if Kueue has nothing to do with it, or if that is not known.
    pub(super) fn new(view: &AppWrapperView, places: &mut Places<'_>) -> Option<Self> {
        let snapshot = places.snapshot();
        let Some(quota) = snapshot.quota_of(view) else {
            // Without Kueue there is one thing to say: why nothing happens.
            let is_without = NoQueues::of(snapshot) == Some(NoQueues::NotInstalled);
            let reason = is_without.then(|| reason::without_kueue(&view.appwrapper));
            let mut of_kueue = Self::default();
            of_kueue.waits_for(reason.flatten()?, view, snapshot, None);
            return Some(of_kueue);
        };
        let queued = &quota.queued;
        let mut of_kueue = Self {
            workload: queued.workload.as_deref().map(str::to_owned),
            local_queue: (*queued.local_queue).to_owned(),
            cluster_queue: queued.cluster_queue.as_deref().map(str::to_owned),
            flavors: by_flavor(queued.flavors.iter().map(|(of, amount)| (of.clone(), Quota::from(*amount)))),
            fits_quota: quota.fits,
            shortfall: shortfall(quota, snapshot),
            says: queued.words.as_ref().filter(|words| !words.message.is_empty() || !words.reason.is_empty()).map(
                |words| Says { reason: words.reason.as_ref().to_owned(), message: words.message.as_ref().to_owned() },
            ),
            ..Self::default()
        };
        if let Some(reason) = view.waiting_reason(quota) {
            let lacks = (reason == WaitingReason::NodesShort).then(|| places.lacks_of_rest(view));
            of_kueue.waits_for(reason, view, snapshot, lacks.as_deref());
        }
        Some(of_kueue)
    }

    /// The reason, and its sentence. `None` if it does not wait, or if that is not known.
    pub(super) fn waiting(&self) -> Option<(WaitingReason, &str)> {
        self.waits.zip(self.why.as_deref())
    }

    fn waits_for(&mut self, reason: WaitingReason, view: &AppWrapperView, snapshot: &Snapshot, lacks: Option<&str>) {
        let case = Case {
            view,
            quota: snapshot.quota_of(view),
            queues: snapshot.queues.as_deref(),
            short: &self.shortfall,
            lacks,
        };
        self.why = Some(sentence(reason, &case));
        self.reason = Some(reason.label());
        self.waits = Some(reason);
    }
}

fn shortfall(quota: &AppWrapperQuota, snapshot: &Snapshot) -> BTreeMap<String, ByResource<Shortfall>> {
    let queues = snapshot.queues.iter().flat_map(|all| &all.queues);
    let queue = queues.into_iter().find(|account| Some(&account.queue.name) == quota.queued.cluster_queue.as_ref());
    let account = |of| queue.and_then(|queue| Some(&queue.quotas.iter().find(|(known, _)| known == of)?.1));
    let entries = quota.shortfall.iter().filter_map(|(of, missing)| {
        let QuotaAccount { quota, available, most, .. } = account(of)?;
        let nominal = quota.map_or(Amount::ZERO, |quota| quota.nominal);
        let borrowed = most.minus(nominal).or_zero();
        let shortfall = Shortfall {
            missing: (*missing).into(),
            available: (*available).into(),
            most: (*most).into(),
            borrowed: borrowed.into(),
        };
        Some((of.clone(), shortfall))
    });
    by_flavor(entries)
}
