//! The words and colours of each reason for which an amount is withheld. The page and the terminal take them from here.
use mcad_accounting::ladder::Reason;
use mcad_terminal::paint::Tone;

/// How a reason is presented.
pub(crate) struct Shown {
    /// Its name.
    pub(crate) words: &'static str,
    /// Why an amount is withheld, in a few words.
    pub(crate) title: &'static str,
    pub(crate) class: Class,
}

/// A group of reasons with the same colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Hardware does not work.
    Broken,
    /// Hardware works, but cannot be allocated.
    Stuck,
    /// Kept back by configuration or an administrator.
    Kept,
}

/// How a reason is presented.
pub(crate) fn shown(reason: Reason) -> Shown {
    let (words, title, class) = match reason {
        Reason::Lost => ("lost", "the hardware is gone", Class::Broken),
        Reason::Unhealthy => ("unhealthy", "present, but broken", Class::Broken),
        Reason::Unadvertised => ("unadvertised", "works, but neither kubelet nor a driver declares it", Class::Kept),
        Reason::DeviceTainted => ("device tainted", "a taint on the device keeps pods off", Class::Kept),
        Reason::Reserved => ("reserved", "kubelet reserves it", Class::Kept),
        Reason::Stranded => ("stranded", "healthy, but Kubernetes will not allocate it", Class::Stuck),
        Reason::NotReady => ("not ready", "the node is not ready", Class::Stuck),
        Reason::Cordoned => ("cordoned", "the node is cordoned", Class::Kept),
        Reason::Tainted => ("tainted", "the node is tainted", Class::Kept),
    };
    Shown { words, title, class }
}

impl Class {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Broken, Self::Stuck, Self::Kept];

    /// Its CSS class on the page.
    pub(crate) fn css(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Stuck => "stuck",
            Self::Kept => "kept",
        }
    }

    /// Its tone in a terminal.
    pub(crate) fn tone(self) -> Tone {
        match self {
            Self::Broken | Self::Stuck => Tone::Bad,
            Self::Kept => Tone::Held,
        }
    }

    /// The meaning of its colour: its name and its reasons.
    pub(crate) fn legend(self) -> String {
        let of_class = Reason::ALL.into_iter().map(shown).filter(|shown| shown.class == self);
        let reasons: Vec<_> = of_class.map(|shown| shown.words).collect();
        let reasons = reasons.join(", ");
        match self {
            // Phantom is not withheld, but has the same colour.
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
        assert_eq!(Class::Kept.legend(), "kept back: unadvertised, device tainted, reserved, cordoned, tainted");
        assert_eq!(Class::Broken.legend(), "broken: lost, unhealthy, phantom");
    }
}
