//! What `fit` and `whatif` are told from: the cluster with objects that do not exist, or without nodes that do.
use std::collections::BTreeSet;

use mcad_accounting::change::Change;
use mcad_accounting::cluster::{Cluster, Source};
use mcad_accounting::drain::Held;
use mcad_accounting::now::Now;
use mcad_accounting::object::AppWrapper;
use mcad_accounting::snapshot::{AppWrappers, Snapshot, available_to_mcad};
use mcad_accounting::trial::Ground;
use mcad_accounting::unread::Unread;

use super::{Known, facts_of};

impl Known {
    /// What submissions are tried on that do not exist yet. `undecodable` are the lists with objects that could not be decoded.
    pub fn ground(&self, submitted: &[&AppWrapper], undecodable: &BTreeSet<Source>, now: Now) -> Ground {
        let (mut facts, mut available) = (None, None);
        let snapshot = self.snapshot_offering(submitted, now, |snapshot, cluster| {
            facts = facts_of(cluster, &snapshot.options);
            available = available_to_mcad(cluster);
        });
        let unread = Unread::of(&snapshot, undecodable);
        Ground { snapshot, facts, unread, available, now_ms: self.told_at_ms(now) }
    }

    /// What draining these nodes would take from AppWrappers, and the snapshot without the nodes; or the name of a node that does not exist.
    pub fn drain(&self, nodes: &[String], now: Now) -> Result<(Held, Snapshot), String> {
        let names = nodes.iter().map(String::as_str).collect();
        let mut held = Held::default();
        self.snapshot_and(now, |snapshot, cluster| held = Held::of(cluster, snapshot, &names));
        for name in names {
            if !self.suppose(&Change::Without(name.to_owned()), now) {
                return Err(name.to_owned());
            }
        }
        let appwrappers: Vec<&AppWrapper> =
            held.appwrappers.iter().filter_map(|held| held.appwrapper.as_deref()).collect();
        let snapshot = self.snapshot_offering(&appwrappers, now, |_, _| {});
        Ok((held, snapshot))
    }

    /// A snapshot with the devices that pods of these AppWrappers may use.
    fn snapshot_offering(
        &self,
        appwrappers: &[&AppWrapper],
        now: Now,
        add: impl FnOnce(&mut Snapshot, &Cluster),
    ) -> Snapshot {
        self.snapshot_and(now, |snapshot, cluster| {
            snapshot.with_offers_to(cluster, appwrappers.iter().copied());
            // What fits does not depend on other AppWrappers. Where they are not known, none is shown.
            snapshot.appwrappers.get_or_insert_with(|| AppWrappers::none(cluster));
            add(snapshot, cluster);
        })
    }

    /// Imagines that a node is different; returns false if there is no such node.
    pub fn suppose(&self, change: &Change, now: Now) -> bool {
        let Some(event) = change.event(&self.lock().cluster) else { return false };
        self.apply(event, now);
        true
    }
}
