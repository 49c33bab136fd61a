//! The ladder of one resource, of a node or of the cluster, and one value for each resource.
use std::collections::BTreeMap;

use mcad_accounting::hardware::shares;
use mcad_accounting::ladder::{self, NodeState, Reason};
use mcad_accounting::measure::Used;
use mcad_accounting::resource::{Amounts, NVIDIA_GPU, Resource, Triple};
use serde::{Serialize, Serializer};

use super::amount::{Rounding, list, words};
use crate::resources::in_unit;

/// One value for each resource. The names of the fields include the unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByResource<T> {
    /// CPU, in millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<T>,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<T>,
    /// Extended resources in devices, by the name that nodes declare.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, T>,
}

/// The ladder of one resource. Whole millicores, bytes or devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LadderEntry {
    /// The hardware of the machine. Always known with Kubernetes: if no agent reports, it is what kubelet declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<i64>,
    /// Installed minus lost and unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<i64>,
    /// `status.capacity`, and devices in ResourceSlices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
    /// `status.allocatable`, and devices in ResourceSlices that pods may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<i64>,
    /// Allocatable on nodes that accept new pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admissible: Option<i64>,
    /// Effective requests of bound, unfinished pods. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Requested>,
    /// Free for a new pod. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
    /// Neither requested nor free. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<WithheldEntry>,
    /// Requests beyond installed. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overcommitted: Option<i64>,
    /// Allocatable without healthy hardware behind it. `None` if no agent reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<i64>,
    /// Measured use. `None` if no agent has measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<UsedBy>,
    /// Whether ResourceSlices declare some of it.
    #[serde(skip)]
    pub has_slices: bool,
}

/// Requests of pods, and devices held by their claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Requested {
    /// Of pods of AppWrappers.
    pub appwrapper: i64,
    /// Of all other pods.
    pub other: i64,
}

impl Requested {
    /// The sum over both owners.
    pub fn in_all(self) -> i64 {
        self.appwrapper.saturating_add(self.other)
    }
}

/// Withheld amounts by reason, serialised under the label of the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithheldEntry([i64; Reason::ALL.len()]);

/// Shares of devices that are allocated several times each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// The number of shares.
    pub shares: i64,
    /// The number of devices that they are shares of.
    pub devices: i64,
}

impl From<shares::Shares> for Shares {
    fn from(shares: shares::Shares) -> Self {
        Self { shares: whole(shares.shares), devices: whole(shares.devices) }
    }
}

/// Measured use by owner; millicores and devices may be fractions. `None` if not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct UsedBy {
    /// By pods of AppWrappers.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub appwrapper: Option<f64>,
    /// By other pods.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub other: Option<f64>,
    /// By everything outside pods.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub system: Option<f64>,
}

impl<T> Default for ByResource<T> {
    fn default() -> Self {
        Self { cpu_millicores: None, memory_bytes: None, devices: BTreeMap::new() }
    }
}

impl<T> ByResource<T> {
    /// The value of a resource.
    pub fn get(&self, resource: &Resource) -> Option<&T> {
        match resource {
            Resource::Cpu => self.cpu_millicores.as_ref(),
            Resource::Memory => self.memory_bytes.as_ref(),
            Resource::Gpu | Resource::Extended(_) => self.devices.get(resource.name()),
        }
    }

    /// Every resource and its value, in the order in which they are shown: cpu, memory, GPUs, others by name.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, &T)> {
        let gpu = self.devices.get(NVIDIA_GPU).map(|value| (Resource::Gpu, value));
        let others = self.devices.iter().filter(|(name, _)| *name != NVIDIA_GPU);
        let cpu = self.cpu_millicores.as_ref().map(|value| (Resource::Cpu, value));
        let memory = self.memory_bytes.as_ref().map(|value| (Resource::Memory, value));
        [cpu, memory, gpu].into_iter().flatten().chain(others.map(|(name, value)| (Resource::extended(name), value)))
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<T> FromIterator<(Resource, T)> for ByResource<T> {
    fn from_iter<I: IntoIterator<Item = (Resource, T)>>(values: I) -> Self {
        let mut all = Self::default();
        for (resource, value) in values {
            match resource {
                Resource::Cpu => all.cpu_millicores = Some(value),
                Resource::Memory => all.memory_bytes = Some(value),
                Resource::Gpu | Resource::Extended(_) => {
                    all.devices.insert(resource.name().to_owned(), value);
                }
            }
        }
        all
    }
}

impl ByResource<i64> {
    /// The amounts above 0 with their units, or `nothing`: `16 GPUs and 64 cores`.
    pub fn words(&self) -> String {
        let named: Vec<_> = self.in_words().filter(|(amount, _)| *amount != 0).map(|(_, words)| words).collect();
        if named.is_empty() { "nothing".to_owned() } else { list(&named) }
    }

    /// The same with those that are 0.
    pub fn words_of_all(&self) -> String {
        list(&self.in_words().map(|(_, words)| words).collect::<Vec<_>>())
    }

    fn in_words(&self) -> impl Iterator<Item = (i64, String)> {
        self.iter().map(|(resource, amount)| (*amount, words(&resource, (*amount).into(), Rounding::Nearest)))
    }
}

/// The number of nodes in each state, in the order of [`NodeState::ALL`], by label.
pub(super) fn by_state(states: &[u64; NodeState::ALL.len()]) -> BTreeMap<&'static str, u64> {
    NodeState::ALL.into_iter().map(|state| (state.label(), states[state as usize])).collect()
}

impl From<&Amounts> for ByResource<i64> {
    fn from(amounts: &Amounts) -> Self {
        amounts.iter().map(|(resource, amount)| (resource, whole(amount))).collect()
    }
}

impl From<Triple> for ByResource<i64> {
    /// From amounts in millicores, bytes and devices.
    fn from(triple: Triple) -> Self {
        Self::from(&Amounts::from(triple))
    }
}

impl LadderEntry {
    /// From a snapshot.
    pub fn new(resource: &Resource, rung: &ladder::ResourceLadder, used: Option<&Used>) -> Self {
        let account = rung.account.as_ref();
        Self {
            installed: rung.installed.map(whole),
            healthy: rung.healthy.map(whole),
            capacity: rung.capacity().map(whole),
            allocatable: rung.allocatable().map(whole),
            admissible: rung.declared.map(|declared| whole(declared.admissible)),
            requested: account.map(|account| Requested {
                appwrapper: whole(account.requested.appwrapper),
                other: whole(account.requested.other),
            }),
            free: account.map(|account| whole(account.free)),
            withheld: account.map(|account| WithheldEntry::new(&account.withheld)),
            overcommitted: account.map(|account| whole(account.overcommitted)),
            phantom: rung.phantom.map(whole),
            used: used.and_then(|used| UsedBy::new(resource, used)),
            has_slices: rung.has_units,
        }
    }

    /// Whether the resource does not exist and is not requested.
    pub fn is_nothing(&self) -> bool {
        let requested = self.requested.map(Requested::in_all);
        let amounts = [self.installed, self.capacity, self.allocatable, requested];
        amounts.into_iter().flatten().all(|amount| amount == 0)
    }
}

impl WithheldEntry {
    fn new(withheld: &ladder::WithheldByReason) -> Self {
        Self(Reason::ALL.map(|reason| whole(withheld.get(reason))))
    }

    /// The amount that is withheld for a reason.
    pub fn get(&self, reason: Reason) -> i64 {
        self.0[reason as usize]
    }

    /// The sum over all reasons.
    pub fn total(&self) -> i64 {
        self.0.into_iter().fold(0, i64::saturating_add)
    }
}

impl Serialize for WithheldEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Reason::ALL.into_iter().map(|reason| (reason.label(), self.get(reason))))
    }
}

impl UsedBy {
    /// What all users use. `None` if use outside of pods was not measured: a sum with an unknown part is unknown. Without Kubernetes all
    /// use is outside of pods.
    pub fn in_all(&self) -> Option<f64> {
        Some([self.appwrapper, self.other].into_iter().flatten().sum::<f64>() + self.system?)
    }

    /// `None` if nothing was measured.
    pub fn new(resource: &Resource, used: &Used) -> Option<Self> {
        let of = |amount: Option<u64>| amount.map(|amount| in_unit(resource, amount));
        let Used { appwrapper, other, system } = *used;
        used.is_measured().then(|| Self { appwrapper: of(appwrapper), other: of(other), system: of(system) })
    }
}

/// As a 64-bit integer; amounts outside its range become its bounds.
pub(super) fn whole(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// Serialises a whole number without a decimal point.
#[expect(clippy::ref_option, reason = "the signature that serde requires")]
fn plain<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        // Above 2^53, an f64 cannot represent every whole number.
        Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => serializer.serialize_i64(*number as i64),
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}
