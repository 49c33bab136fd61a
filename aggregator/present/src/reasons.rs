//! What each reason for which an amount is withheld is to people: in words, and at a glance. Everything that shows one asks here.
use mcad_accounting::ladder::Reason;
use mcad_terminal::paint::Tone;

/// What a reason is to people.
pub(crate) struct Shown {
    /// Its name.
    pub(crate) words: &'static str,
    /// Why an amount is withheld, in a few words.
    pub(crate) title: &'static str,
    pub(crate) class: Class,
}

/// Reasons of a kind, which have a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Hardware does not work.
    Broken,
    /// Hardware works, and cannot be had.
    Stuck,
    /// Somebody keeps it back.
    Kept,
}

/// What it is to people.
pub(crate) fn shown(reason: Reason) -> Shown {
    let (words, title, class) = match reason {
        Reason::Lost => ("lost", "the hardware is gone", Class::Broken),
        Reason::Unhealthy => ("unhealthy", "there, and broken", Class::Broken),
        Reason::Unadvertised => ("unadvertised", "works, and kubelet does not declare it", Class::Kept),
        Reason::Reserved => ("reserved", "kubelet keeps it from pods", Class::Kept),
        Reason::Stranded => ("stranded", "healthy, but Kubernetes will not hand it out", Class::Stuck),
        Reason::NotReady => ("not ready", "the node is not ready", Class::Stuck),
        Reason::Cordoned => ("cordoned", "the node is cordoned", Class::Kept),
        Reason::Tainted => ("tainted", "the node is tainted", Class::Kept),
    };
    Shown { words, title, class }
}

impl Class {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Broken, Self::Stuck, Self::Kept];

    /// On the page: a class of CSS.
    pub(crate) fn css(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Stuck => "stuck",
            Self::Kept => "kept",
        }
    }

    /// In a terminal.
    pub(crate) fn tone(self) -> Tone {
        match self {
            Self::Broken | Self::Stuck => Tone::Bad,
            Self::Kept => Tone::Held,
        }
    }

    /// What its colour means: its own words, and its reasons.
    pub(crate) fn legend(self) -> String {
        let of_class = Reason::ALL.into_iter().map(shown).filter(|shown| shown.class == self);
        let reasons: Vec<_> = of_class.map(|shown| shown.words).collect();
        let reasons = reasons.join(", ");
        match self {
            // Promised without hardware: not withheld, and of the same colour.
            Self::Broken => format!("broken: {reasons}, phantom"),
            Self::Stuck => format!("stuck: {reasons}"),
            Self::Kept => format!("kept back: {reasons}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own_and_every_class_a_reason() {
        let mut words: Vec<_> = Reason::ALL.into_iter().map(|reason| shown(reason).words).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        for class in Class::ALL {
            assert!(Reason::ALL.into_iter().any(|reason| shown(reason).class == class), "{class:?}");
        }
    }

    #[test]
    fn the_legend_names_what_has_the_colour() {
        assert_eq!(Class::Kept.legend(), "kept back: unadvertised, reserved, cordoned, tainted");
        assert_eq!(Class::Broken.legend(), "broken: lost, unhealthy, phantom");
    }
}
