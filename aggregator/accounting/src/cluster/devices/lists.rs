//! Which lists of devices and claims are known, and which ones start-up still waits for.
use std::collections::BTreeSet;

use crate::cluster::{Cluster, Source};
use crate::object::Kind;

/// Whether the lists of devices and claims are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceInput {
    /// The API server does not serve these kinds: no claim holds a device.
    #[default]
    Absent,
    /// These kinds exist, or may exist, and not every list that is needed is known.
    Unknown,
    /// Slices and claims are known.
    Known,
}

/// The lists that a ladder of devices needs, if they are served: the devices, their holders, the devices that taints
/// keep pods off, and the other names under which pods request them.
const NEEDED: [Source; 4] =
    [Source::ResourceSlices, Source::ResourceClaims, Source::DeviceTaintRules, Source::DeviceClasses];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Kinds that the API server serves. `None` until that is known.
    served: Option<BTreeSet<Kind>>,
    /// The state of the lists of a watched API server. `None` if no API server is watched.
    watched: Option<Watched>,
}

/// The state of the lists of a watched API server.
#[derive(Debug, Default)]
struct Watched {
    /// Lists that could not be read at least once.
    failed: BTreeSet<Source>,
    /// Whether each list was read, or failed, at least once. From then on nothing waits for them.
    is_settled: bool,
}

impl Lists {
    fn serves(&self, source: Source) -> bool {
        self.served.as_ref().is_some_and(|served| served.contains(&source.kind()))
    }
}

impl Cluster {
    /// From now on, nothing is concluded from missing objects until the API server has reported which kinds it serves.
    pub(in crate::cluster) fn watch_devices(&mut self) {
        self.devices.lists.watched = Some(Watched::default());
    }

    /// Sets the kinds of Dynamic Resource Allocation that the API server serves.
    pub fn serve_devices(&mut self, served: BTreeSet<Kind>) {
        let gone = Kind::DEVICES.into_iter().filter(|kind| !served.contains(kind));
        for source in gone.filter_map(Source::of_devices) {
            // Objects may also remain from a kind whose list was lost before.
            self.reset(source, Vec::new());
            self.known.remove(&source);
        }
        self.devices.lists.served = Some(served);
        self.settle_devices();
    }

    /// The watched API server does not report which of these kinds it serves: nothing waits for them.
    pub fn serves_unknown_devices(&mut self) {
        if let Some(watched) = &mut self.devices.lists.watched {
            watched.is_settled = true;
        }
    }

    /// A list of a watched API server cannot be read: nothing waits for it.
    pub fn list_failed(&mut self, source: Source) {
        if let Some(watched) = &mut self.devices.lists.watched {
            watched.failed.insert(source);
        }
        self.settle_devices();
    }

    /// Records when every list was read or has failed.
    pub(in crate::cluster) fn settle_devices(&mut self) {
        let lists = &self.devices.lists;
        let (Some(_), Some(watched)) = (&lists.served, &lists.watched) else { return };
        let is_settled =
            |source: &Source| !lists.serves(*source) || self.known.contains(source) || watched.failed.contains(source);
        if NEEDED.iter().all(is_settled)
            && let Some(watched) = &mut self.devices.lists.watched
        {
            watched.is_settled = true;
        }
    }

    /// Whether there is nothing left to wait for.
    pub(in crate::cluster) fn devices_are_settled(&self) -> bool {
        self.devices.lists.watched.as_ref().is_none_or(|watched| watched.is_settled)
    }

    /// Whether devices and claims are known.
    pub fn device_input(&self) -> DeviceInput {
        let (devices, lists) = (&self.devices, &self.devices.lists);
        let knows = |source| self.known.contains(&source);
        match &lists.served {
            Some(served) if served.is_empty() => DeviceInput::Absent,
            None if lists.watched.is_some() => DeviceInput::Unknown,
            // It never reported what it serves, like a cluster that is read from a dump.
            None if !Source::DEVICES.into_iter().any(knows) && devices.is_empty() => DeviceInput::Absent,
            _ if !knows(Source::ResourceSlices) || !knows(Source::ResourceClaims) => DeviceInput::Unknown,
            _ if NEEDED.into_iter().any(|source| lists.serves(source) && !knows(source)) => DeviceInput::Unknown,
            _ => DeviceInput::Known,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::{Event, Missing};
    use crate::object::{Object, read};

    /// A watched cluster in which everything except devices is known.
    fn watched() -> Cluster {
        let mut cluster = Cluster::watched();
        cluster.serve([]);
        cluster.apply(Event::Reset(Source::Nodes, Vec::new()));
        cluster.apply(Event::Reset(Source::Pods, Vec::new()));
        cluster
    }

    fn slice() -> Object {
        let spec = json!({"driver": "gpu.nvidia.com", "nodeName": "n", "devices": [{"name": "gpu-0"}],
            "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}});
        read(Kind::ResourceSlice, &json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn misses_devices(cluster: &Cluster) -> bool {
        cluster.missing().contains(&Missing::Devices)
    }

    #[test]
    fn before_the_api_server_has_said_what_it_serves_nothing_is_concluded_and_all_waits() {
        let mut cluster = watched();
        assert_eq!(cluster.device_input(), DeviceInput::Unknown);
        assert!(!cluster.is_listed() && misses_devices(&cluster));
        cluster.serve_devices(BTreeSet::new());
        assert_eq!(cluster.device_input(), DeviceInput::Absent);
        assert!(cluster.is_listed() && !misses_devices(&cluster));
    }

    #[test]
    fn one_that_does_not_say_what_it_serves_holds_nothing_up() {
        let mut cluster = watched();
        cluster.serves_unknown_devices();
        assert_eq!(cluster.device_input(), DeviceInput::Unknown);
        assert!(cluster.is_listed() && misses_devices(&cluster));
    }

    #[test]
    fn each_list_that_ladders_rest_on_is_waited_for_until_it_is_there_or_cannot_be_had() {
        let mut cluster = watched();
        cluster.serve_devices(Kind::DEVICES.into());
        for source in [Source::ResourceSlices, Source::ResourceClaims, Source::DeviceClasses] {
            assert!(!cluster.is_listed() && cluster.device_input() == DeviceInput::Unknown, "{source}");
            cluster.apply(Event::Reset(source, Vec::new()));
        }
        cluster.list_failed(Source::DeviceTaintRules);
        assert!(cluster.is_listed());
        assert_eq!(cluster.device_input(), DeviceInput::Unknown, "a device may be tainted");
        cluster.apply(Event::Reset(Source::DeviceTaintRules, Vec::new()));
        assert_eq!(cluster.device_input(), DeviceInput::Known);
        // A list that is lost later does not make the cluster unready.
        cluster.apply(Event::Lost(Source::ResourceClaims));
        assert!(cluster.is_listed() && misses_devices(&cluster));
    }

    #[test]
    fn a_kind_that_comes_later_is_unknown_until_it_is_listed_and_holds_nothing_up() {
        let mut cluster = watched();
        cluster.serve_devices(BTreeSet::new());
        cluster.serve_devices([Kind::ResourceSlice, Kind::ResourceClaim].into());
        assert!(cluster.is_listed() && misses_devices(&cluster));
        cluster.apply(Event::Reset(Source::ResourceSlices, vec![slice()]));
        cluster.apply(Event::Reset(Source::ResourceClaims, Vec::new()));
        assert_eq!(cluster.device_input(), DeviceInput::Known);
    }

    #[test]
    fn of_a_kind_that_is_served_no_longer_nothing_stays_even_where_its_list_was_lost_before() {
        let mut cluster = watched();
        cluster.serve_devices([Kind::ResourceSlice, Kind::ResourceClaim].into());
        cluster.apply(Event::Reset(Source::ResourceSlices, vec![slice()]));
        cluster.apply(Event::Lost(Source::ResourceSlices));
        cluster.serve_devices(BTreeSet::new());
        assert!(!cluster.has_device_objects());
        assert_eq!(cluster.device_input(), DeviceInput::Absent);
    }
}
