//! What draining nodes would take from AppWrappers.
use mcad_accounting::drain::{Drain, Held, Loss};
use mcad_accounting::now::Now;
use mcad_accounting::object::Version;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Verdict;
use mcad_accounting::unread::Unread;
use serde::Serialize;

use super::amount::{Rounding, count, list, words};
use super::ladder::ByResource;
use super::submission::{Place, few, on_which};
use super::why::Places;
use super::{Answer, is_zero, notes};

/// The answer to `whatif --drain`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhatIf {
    /// What it was made from.
    #[serde(flatten)]
    pub of: Answer,
    /// The nodes that are drained.
    pub drained: Vec<String>,
    /// Whether all pods of AppWrappers that lose their node fit on the other nodes. `None` if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// The AppWrappers that lose pods, in order of namespace and name.
    pub appwrappers: Vec<Loses>,
    /// How many pods on the nodes belong to no AppWrapper. Those of DaemonSets, which stay, are among them.
    pub other_pods: u64,
    /// What these hold.
    pub other_holds: ByResource<i64>,
    /// What else there is to know, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An AppWrapper that loses pods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loses {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many of its pods are on the nodes.
    pub pods: u64,
    /// How many of its pods are bound to any node and have not ended.
    pub pods_bound: u64,
    /// What the pods on the nodes hold: what they request, and devices that they hold through claims.
    pub holds: ByResource<i64>,
    /// Whether these fit on the other nodes, if nothing else needs a node. `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// How many of these find a place. `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// Some of the nodes with places, those for most pods first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// How many more nodes have places.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_places: usize,
    /// The same as a sentence.
    pub why: String,
}

impl WhatIf {
    /// What follows if these nodes are drained. `snapshot` is of the cluster without them, and `unread` what it lacks.
    pub fn new(snapshot: &Snapshot, drained: &[String], held: &Held, unread: &Unread, now: Now) -> Self {
        let Drain { losses, fits } = Drain::new(snapshot, held, unread);
        let mut places = Places::new(snapshot);
        let mut answer = Self {
            of: Answer::of(snapshot, now),
            drained: drained.to_vec(),
            fits,
            appwrappers: losses.iter().map(|loss| Loses::new(loss, &mut places)).collect(),
            other_pods: held.other_pods,
            other_holds: ByResource::from(&held.by_others),
            notes: Vec::new(),
        };
        if !losses.is_empty() {
            answer.notes.extend(notes::unread(unread, &[Version::V1Beta2]));
            answer.notes.extend(notes::fake(snapshot));
        }
        answer.notes.extend(answer.of_each());
        answer.notes.extend(answer.of_others());
        answer
    }

    fn of_each(&self) -> Option<String> {
        let sentence =
            "Each AppWrapper is judged as if only its pods needed a node; the first sentence is about all of them.";
        (self.appwrappers.len() > 1).then(|| sentence.to_owned())
    }

    fn of_others(&self) -> Option<String> {
        let (belong, hold) = if self.other_pods == 1 { ("belongs", "holds") } else { ("belong", "hold") };
        let others = count(self.other_pods, "pod that is there", "pods that are there");
        (self.other_pods > 0).then(|| {
            format!(
                "{others} {belong} to no AppWrapper and {hold} {}: whether they fit elsewhere is not computed. Pods of DaemonSets are \
                 among them and are not moved.",
                amounts(&self.other_holds)
            )
        })
    }
}

impl Loses {
    fn new(loss: &Loss, places: &mut Places<'_>) -> Self {
        let held = &loss.held;
        let (named, more_places) = few(&loss.places);
        let why = match &loss.view {
            _ if loss.verdict().and_then(Verdict::fits) == Some(true) => {
                let pods = if held.pods == 1 { "it".to_owned() } else { format!("all {}", held.pods) };
                format!("places for {pods}{}", on_which(&loss.places, held.pods))
            }
            Some(view) => places.why_in_part(view).sentence,
            None if held.appwrapper.is_none() => {
                "not known: no AppWrapper of that name exists, so it is not known where its pods may run".to_owned()
            }
            None => "not known: its spec does not have as many pods as are bound".to_owned(),
        };
        Self {
            namespace: (*held.name.namespace).to_owned(),
            name: (*held.name.name).to_owned(),
            pods: held.pods,
            pods_bound: held.all_pods,
            holds: ByResource::from(&held.amounts),
            fits: loss.fits,
            pods_placed: loss.verdict().map(|verdict| verdict.placed.min(verdict.needed)),
            places: named,
            more_places,
            why,
        }
    }
}

/// Amounts as words.
pub fn amounts(amounts: &ByResource<i64>) -> String {
    let named = amounts.iter().filter(|(_, amount)| **amount != 0);
    let named: Vec<_> = named.map(|(resource, amount)| words(&resource, (*amount).into(), Rounding::Nearest)).collect();
    if named.is_empty() { "nothing".to_owned() } else { list(&named) }
}
