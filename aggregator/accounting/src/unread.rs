//! Objects of the cluster that exist and could not be read. What follows from them is missing everywhere, so that neither a yes nor a no
//! about pods that are not there yet is certain.
use std::collections::BTreeSet;

use crate::cluster::Source;
use crate::object::Version;
use crate::snapshot::Snapshot;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The lists of a live cluster that have such objects.
    pub sources: BTreeSet<Source>,
    /// Whether the dump has such objects. Of which lists they are is not known.
    pub is_in_dump: bool,
}

impl Unread {
    /// The objects that a snapshot lacks. `undecodable` are the lists with objects that could not be decoded at all.
    pub fn of(snapshot: &Snapshot, undecodable: &BTreeSet<Source>) -> Self {
        let Some(input) = &snapshot.input else {
            let exceeding = snapshot.left_out.iter().map(|left| left.source);
            return Self { sources: exceeding.chain(undecodable.iter().copied()).collect(), is_in_dump: false };
        };
        Self { sources: BTreeSet::new(), is_in_dump: !input.left_out.is_empty() || input.more_left_out > 0 }
    }

    /// The lists of those that matter to an AppWrapper of this version. No AppWrapper takes more than its pods do, except that MCAD
    /// promises its sum to those of v1beta1.
    pub fn of_version(&self, version: Version) -> impl Iterator<Item = Source> {
        let matters = move |source: &Source| match source {
            Source::AppWrappers(_) => version == Version::V1Beta1 && source.is_of(Version::V1Beta1),
            _ => true,
        };
        self.sources.iter().copied().filter(matters)
    }

    /// Whether none of them matters to an AppWrapper of this version.
    pub fn is_nothing_to(&self, version: Version) -> bool {
        !self.is_in_dump && self.of_version(version).next().is_none()
    }
}
