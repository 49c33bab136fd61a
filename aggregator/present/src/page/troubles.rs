//! What is wrong with a node: its problems, and how they are shown.
use maud::{Markup, html};
use mcad_accounting::ladder::{NodeState, Reason};
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::agent::{Agent, AgentHealth, Expectation};
use mcad_accounting::views::NodeView;

use super::condition::Condition;
use crate::explain::amount::span;

/// The problems of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles(u16);

/// All problems, worst first. Somebody chose those after `Silent`.
const TROUBLES: [Condition; 12] = [
    Condition::Lost,
    Condition::Unhealthy,
    Condition::Phantom,
    Condition::Stranded,
    Condition::NotReady,
    Condition::Overcommitted,
    Condition::Unadvertised,
    Condition::Unclaimed,
    Condition::Strays,
    Condition::Silent,
    Condition::Tainted,
    Condition::Cordoned,
];

/// How many of them nobody chose.
const BAD: usize = 10;

/// Whether any agent has ever reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Some,
    /// Then a node without an agent has no problem.
    None,
}

impl Heard {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let heard = |agent: &Agent| agent.health == AgentHealth::Up || agent.report_age.is_some();
        if snapshot.agents.iter().any(heard) { Self::Some } else { Self::None }
    }
}

impl Troubles {
    /// Those of a node and its agent.
    pub(super) fn of(view: &NodeView, agent: Option<&Agent>, heard: Heard) -> Self {
        let mut all = Self::default();
        for (resource, rung) in &view.rungs {
            let account = rung.account.as_ref();
            let withheld = |reason| account.is_some_and(|account| account.withheld.get(reason) != 0);
            all.put(Condition::Lost, withheld(Reason::Lost));
            // A device that a pod still holds can be unhealthy, too. Without Kubernetes the page marks whole GPUs only.
            let counts = resource.is_extended() && (view.state.is_some() || *resource == Resource::Gpu);
            let broken = counts && rung.healthy < rung.installed && !withheld(Reason::Lost);
            all.put(Condition::Unhealthy, broken || withheld(Reason::Unhealthy));
            all.put(Condition::Stranded, resource.is_extended() && withheld(Reason::Stranded));
            // Kubelet may round CPU and memory up by a page: only a device can be phantom.
            all.put(Condition::Phantom, resource.is_extended() && rung.phantom.is_some_and(|phantom| phantom != 0));
            all.put(Condition::Overcommitted, account.is_some_and(|account| account.overcommitted != 0));
            all.put(Condition::Unadvertised, resource.is_extended() && withheld(Reason::Unadvertised));
        }
        for device in view.measured.iter().flat_map(|measured| &measured.devices) {
            all.put(Condition::Unclaimed, device.unclaimed_memory_bytes.is_some_and(|bytes| bytes > 0));
            all.put(Condition::Strays, device.strays.is_some_and(|strays| strays > 0));
        }
        all.put(Condition::NotReady, view.state == Some(NodeState::NotReady));
        all.put(Condition::Cordoned, view.state == Some(NodeState::Cordoned));
        all.put(Condition::Tainted, view.state == Some(NodeState::Tainted));
        let silent =
            agent.is_none_or(|agent| agent.expectation == Expectation::Expected && agent.health == AgentHealth::Down);
        all.put(Condition::Silent, silent && heard == Heard::Some);
        all
    }

    fn put(&mut self, show: Condition, holds: bool) {
        if holds {
            self.0 |= bit(show);
        }
    }

    fn has(self, show: Condition) -> bool {
        self.0 & bit(show) != 0
    }

    /// A worse problem weighs more than all lesser ones together.
    pub(super) fn weight(self) -> u16 {
        self.0.reverse_bits()
    }

    fn iter(self) -> impl Iterator<Item = (Condition, bool)> {
        TROUBLES.into_iter().enumerate().filter(move |(_, show)| self.has(*show)).map(|(at, show)| (show, at < BAD))
    }
}

/// The place of a condition among the bits of a set of them. Problems have the lowest bits, in the order of [`TROUBLES`].
const fn bit(show: Condition) -> u16 {
    1 << match show {
        Condition::Lost => 0,
        Condition::Unhealthy => 1,
        Condition::Phantom => 2,
        Condition::Stranded => 3,
        Condition::NotReady => 4,
        Condition::Overcommitted => 5,
        Condition::Unadvertised => 6,
        Condition::Unclaimed => 7,
        Condition::Strays => 8,
        Condition::Silent => 9,
        Condition::Tainted => 10,
        Condition::Cordoned => 11,
        Condition::Admissible => 12,
        Condition::Trouble => 13,
        Condition::All => 14,
    }
}

/// A set of conditions: those that a node is in, or that a word of a search names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions(u16);

/// How many nodes are in each condition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts([u64; u16::BITS as usize]);

impl Conditions {
    /// Those that a node with these problems is in.
    pub(super) fn of(view: &NodeView, troubles: Troubles) -> Self {
        let mut all = troubles.0 | bit(Condition::All);
        if troubles.0 & ((1 << BAD) - 1) != 0 {
            all |= bit(Condition::Trouble);
        }
        if view.state == Some(NodeState::Admissible) {
            all |= bit(Condition::Admissible);
        }
        Self(all)
    }

    pub(super) fn has(self, show: Condition) -> bool {
        self.0 & bit(show) != 0
    }

    /// Whether both sets have one condition in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(shows: I) -> Self {
        Self(shows.into_iter().fold(0, |all, show| all | bit(show)))
    }
}

impl Counts {
    /// One node more is in these conditions. Most nodes are in few of them.
    pub(super) fn add(&mut self, conditions: Conditions) {
        let mut rest = conditions.0;
        while rest != 0 {
            self.0[rest.trailing_zeros() as usize] += 1;
            rest &= rest - 1;
        }
    }

    pub(super) fn get(&self, show: Condition) -> u64 {
        self.0[bit(show).trailing_zeros() as usize]
    }
}

/// The class of a condition.
pub(super) fn tone(show: Condition) -> &'static str {
    match show {
        Condition::All | Condition::Admissible => "",
        Condition::Tainted | Condition::Cordoned => "held",
        _ => "bad",
    }
}

/// The state and the problems of a node, in words.
pub(super) fn condition(view: &NodeView, agent: Option<&Agent>, troubles: Troubles) -> Markup {
    html! {
        @if troubles == Troubles::default() {
            @if view.state.is_some() { span.fine { (Condition::Admissible.words()) } } @else { span.fine { "reporting" } }
        }
        @for (at_mark, (show, bad)) in troubles.iter().enumerate() {
            @if at_mark > 0 { " " }
            span.tag.bad[bad].held[!bad] {
                @if show == Condition::Silent { (silence(agent)) } @else { (show.words()) }
            }
        }
    }
}

fn silence(agent: Option<&Agent>) -> String {
    match agent.and_then(|agent| agent.report_age) {
        Some(age) => format!("agent silent for {}", span(age.as_secs_f64())),
        None => "no agent".to_owned(),
    }
}

/// The mark of a node with fake GPUs: they are never shown as if they were real.
pub(super) fn fake(agent: Option<&Agent>) -> Markup {
    html! { @if agent.is_some_and(Agent::has_fake_gpus) { " " strong.tag.bad { "FAKE GPUs" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_bits_in_order_of_how_bad_they_are_and_every_condition_has_one() {
        for (at, show) in TROUBLES.into_iter().enumerate() {
            assert_eq!(bit(show), 1 << at, "{show:?}");
        }
        let all: Conditions = Condition::ALL.into_iter().collect();
        assert_eq!(all.0.count_ones() as usize, Condition::ALL.len());
        let mut counts = Counts::default();
        counts.add([Condition::All, Condition::Cordoned].into_iter().collect());
        assert_eq!([Condition::All, Condition::Cordoned, Condition::Lost].map(|show| counts.get(show)), [1, 1, 0]);
    }
}
