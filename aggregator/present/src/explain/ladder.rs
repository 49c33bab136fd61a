//! The ladder as it is told: the rungs of one resource, of a node or added up, and one value for each resource.
use std::collections::BTreeMap;

use crate::resources::in_unit;
use mcad_accounting::hardware::shares;
use mcad_accounting::ladder::{self, Reason};
use mcad_accounting::measure::Used;
use mcad_accounting::merge::Figures;
use mcad_accounting::resource::{Amounts, NVIDIA_GPU, Resource, Triple};
use serde::{Serialize, Serializer};

/// One value for each resource, under names that say the unit of what is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByResource<T> {
    /// Processors, in millicores.
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
pub struct Rung {
    /// What the machine has. With Kubernetes it is always known; kubelet's word where no agent reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<i64>,
    /// Installed less what is lost or unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<i64>,
    /// `status.capacity`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
    /// `status.allocatable`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<i64>,
    /// Allocatable where new pods may land.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admissible: Option<i64>,
    /// Effective requests of bound, unfinished pods. Absent: Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Requested>,
    /// What a new pod could get. Absent: Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
    /// Neither requested nor free. Absent: Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Withheld>,
    /// Requests beyond installed. Absent: Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overcommitted: Option<i64>,
    /// Allocatable that no healthy hardware stands behind. Absent: no agent has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<i64>,
    /// What is used. Absent: no agent has measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<UsedBy>,
}

/// What pods hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Requested {
    /// Pods of AppWrappers.
    pub appwrapper: i64,
    /// All other pods.
    pub other: i64,
}

/// Amounts withheld, by reason, each under its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld([i64; Reason::ALL.len()]);

/// Shares of devices that are handed out several times each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// How many are handed out.
    pub shares: i64,
    /// Of how many devices.
    pub devices: i64,
}

impl From<shares::Shares> for Shares {
    fn from(shares: shares::Shares) -> Self {
        Self { shares: whole(shares.shares), devices: whole(shares.devices) }
    }
}

/// What is used, by whom; of millicores and devices a part may be in use. Absent: not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct UsedBy {
    /// By pods of AppWrappers.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub appwrapper: Option<f64>,
    /// By other pods.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub other: Option<f64>,
    /// By all that is no pod.
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

    /// There is none.
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

impl From<&Amounts> for ByResource<i64> {
    fn from(amounts: &Amounts) -> Self {
        amounts.iter().map(|(resource, amount)| (resource, whole(amount))).collect()
    }
}

impl From<Triple> for ByResource<i64> {
    /// Of a triple in millicores.
    fn from(triple: Triple) -> Self {
        Self::from(&Amounts::from(triple))
    }
}

impl Rung {
    /// With Kubernetes.
    pub fn new(resource: &Resource, rung: &ladder::Rung, used: Option<&Used>) -> Self {
        let account = rung.account.as_ref();
        Self {
            installed: Some(whole(rung.installed)),
            healthy: Some(whole(rung.healthy)),
            capacity: Some(whole(rung.capacity)),
            allocatable: Some(whole(rung.allocatable)),
            admissible: Some(whole(rung.admissible)),
            requested: account.map(|account| Requested {
                appwrapper: whole(account.requested.appwrapper),
                other: whole(account.requested.other),
            }),
            free: account.map(|account| whole(account.free)),
            withheld: account.map(|account| Withheld::new(&account.withheld)),
            overcommitted: account.map(|account| whole(account.overcommitted)),
            phantom: rung.phantom.map(whole),
            used: used.and_then(|used| UsedBy::new(resource, used)),
        }
    }

    /// Whether there is none of it, and nobody requests any.
    pub fn is_nothing(&self) -> bool {
        let requested = self.requested.map(|requested| requested.appwrapper.saturating_add(requested.other));
        let amounts = [self.installed, self.capacity, self.allocatable, requested];
        amounts.into_iter().flatten().all(|amount| amount == 0)
    }

    /// Without Kubernetes: what agents measured.
    pub fn local(resource: &Resource, figures: &Figures) -> Self {
        let known = |amount: Option<u64>| amount.map(|amount| i64::try_from(amount).unwrap_or(i64::MAX));
        Self {
            installed: known(figures.installed),
            healthy: known(figures.healthy),
            used: UsedBy::new(resource, &figures.used),
            ..Self::default()
        }
    }
}

impl Withheld {
    fn new(withheld: &ladder::Withheld) -> Self {
        Self(Reason::ALL.map(|reason| whole(withheld.get(reason))))
    }

    /// How much for that reason.
    pub fn get(&self, reason: Reason) -> i64 {
        self.0[reason as usize]
    }

    /// All reasons together.
    pub fn total(&self) -> i64 {
        self.0.into_iter().fold(0, i64::saturating_add)
    }
}

impl Serialize for Withheld {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Reason::ALL.into_iter().map(|reason| (reason.label(), self.get(reason))))
    }
}

impl UsedBy {
    /// All that is measured to be in use.
    pub fn in_all(&self) -> f64 {
        [self.appwrapper, self.other, self.system].into_iter().flatten().sum()
    }

    /// Nothing where nothing was measured.
    pub fn new(resource: &Resource, used: &Used) -> Option<Self> {
        let of = |amount: Option<u64>| amount.map(|amount| in_unit(resource, amount));
        let Used { appwrapper, other, system } = *used;
        used.is_measured().then(|| Self { appwrapper: of(appwrapper), other: of(other), system: of(system) })
    }
}

/// The largest number that JSON's readers agree on stands for all that is above.
pub(super) fn whole(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// A whole number without a point.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn plain<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        // Above 2^53 not every whole number is one.
        Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => serializer.serialize_i64(*number as i64),
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}
