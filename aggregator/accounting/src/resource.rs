//! Resources: which ones are accounted for, how their names and units are spelled, and amounts of them.
//!
//! Amounts are whole millicores, bytes and devices, in a type wide enough that no sum of what objects can contain overflows. How a quantity
//! becomes an amount is in [`crate::resource::quantity`]; which amounts are added up is in the modules that own the rules.
pub mod amount;
pub mod quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::steps;

/// The GPUs that MCAD knows.
pub const NVIDIA_GPU: &str = "nvidia.com/gpu";

/// A resource that is accounted for. The order is the order of presentation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// CPU, in millicores.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// `nvidia.com/gpu`, in devices.
    Gpu,
    /// Any other extended resource, in devices, by the name that nodes declare.
    Extended(Arc<str>),
}

impl Resource {
    /// The resource of that name. `None` for resources that are not accounted for: `pods`, `ephemeral-storage`, hugepages, volumes.
    ///
    /// A resource is extended by Kubernetes' definition: its name has a `/` and is not in `kubernetes.io/`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "memory" => Some(Self::Memory),
            NVIDIA_GPU => Some(Self::Gpu),
            _ if name.contains('/') && !name.contains("kubernetes.io/") => Some(Self::Extended(name.into())),
            _ => None,
        }
    }

    /// Any resource of that name, also one without a ladder.
    pub fn any(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            _ => Self::extended(name),
        }
    }

    /// The extended resource of that name, without checking the name.
    pub fn extended(name: &str) -> Self {
        if name == NVIDIA_GPU { Self::Gpu } else { Self::Extended(name.into()) }
    }

    /// The name in Kubernetes.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Gpu => NVIDIA_GPU,
            Self::Extended(name) => name,
        }
    }

    /// The value of the label `resource`, spelled as in kube-state-metrics.
    pub fn label(&self) -> String {
        self.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }

    /// The value of the label `unit`, spelled as in kube-state-metrics.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Cpu => "core",
            Self::Memory => "byte",
            Self::Extended(name) if &**name == "ephemeral-storage" || name.starts_with("hugepages-") => "byte",
            Self::Gpu | Self::Extended(_) => "integer",
        }
    }

    /// Whether it is a device resource, for which kubelet itself can report devices as unhealthy.
    pub fn is_extended(&self) -> bool {
        matches!(self, Self::Gpu | Self::Extended(_))
    }
}

/// Amounts of several resources. A resource that is absent is 0, and was not named. All arithmetic saturates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amounts {
    /// CPU, in millicores.
    pub millicores: i128,
    /// Memory, in bytes.
    pub bytes: i128,
    /// `nvidia.com/gpu`, in devices.
    pub gpus: i128,
    /// All others, sorted by name: those that were named, even with 0.
    extended: Vec<(Arc<str>, i128)>,
}

impl Amounts {
    /// The amount of one resource.
    pub fn get(&self, resource: &Resource) -> i128 {
        match resource {
            Resource::Cpu => self.millicores,
            Resource::Memory => self.bytes,
            Resource::Gpu => self.gpus,
            Resource::Extended(name) => self.at(name).map_or(0, |at| self.extended[at].1),
        }
    }

    /// Adds to one resource; subtracts if `amount` is negative.
    pub fn add(&mut self, resource: &Resource, amount: i128) {
        match resource {
            Resource::Cpu => self.millicores = self.millicores.saturating_add(amount),
            Resource::Memory => self.bytes = self.bytes.saturating_add(amount),
            Resource::Gpu => self.gpus = self.gpus.saturating_add(amount),
            Resource::Extended(name) => self.add_extended(name, amount),
        }
    }

    /// Adds `other`, multiplied by `times`.
    pub fn add_times(&mut self, other: &Self, times: i128) {
        self.millicores = self.millicores.saturating_add(other.millicores.saturating_mul(times));
        self.bytes = self.bytes.saturating_add(other.bytes.saturating_mul(times));
        self.gpus = self.gpus.saturating_add(other.gpus.saturating_mul(times));
        for (name, amount) in &other.extended {
            self.add_extended(name, amount.saturating_mul(times));
        }
    }

    /// The extended resources other than `nvidia.com/gpu`, sorted by name.
    pub fn extended(&self) -> &[(Arc<str>, i128)] {
        &self.extended
    }

    /// CPU, memory and GPU always; others if they were named.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, i128)> + '_ {
        [(Resource::Cpu, self.millicores), (Resource::Memory, self.bytes), (Resource::Gpu, self.gpus)]
            .into_iter()
            .chain(self.extended.iter().map(|(name, amount)| (Resource::Extended(name.clone()), *amount)))
    }

    /// The extended resources, including `nvidia.com/gpu`, whose amount is above 0.
    pub fn devices(&self) -> impl Iterator<Item = Resource> + '_ {
        let others = self.extended.iter().filter(|(_, amount)| *amount > 0);
        let gpu = (self.gpus > 0).then_some(Resource::Gpu);
        gpu.into_iter().chain(others.map(|(name, _)| Resource::Extended(name.clone())))
    }

    /// Replaces every name by the one that `share` returns, so that equal names are one allocation.
    pub fn share_names(&mut self, mut share: impl FnMut(&Arc<str>) -> Arc<str>) {
        for (name, _) in &mut self.extended {
            *name = share(name);
        }
        self.extended.shrink_to_fit();
    }

    fn at(&self, name: &str) -> Result<usize, usize> {
        self.extended.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    fn add_extended(&mut self, name: &Arc<str>, amount: i128) {
        match self.at(name) {
            Ok(at) => self.extended[at].1 = self.extended[at].1.saturating_add(amount),
            Err(at) => {
                steps::took(self.extended.len() - at);
                self.extended.insert(at, (name.clone(), amount));
            }
        }
    }
}

impl From<Triple> for Amounts {
    /// From a triple in millicores.
    fn from(Triple { cpu, memory, gpu }: Triple) -> Self {
        Self { millicores: cpu, bytes: memory, gpus: gpu, extended: Vec::new() }
    }
}

impl From<&Amounts> for Triple {
    /// In millicores; other resources are left out.
    fn from(amounts: &Amounts) -> Self {
        Self { cpu: amounts.millicores, memory: amounts.bytes, gpu: amounts.gpus }
    }
}

/// A sum of amounts that come and go. It names a resource for as long as one of its amounts names it.
///
/// Users who create pods choose the names, so adding or removing one name must not move all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// CPU in millicores, memory and GPUs.
    triple: Triple,
    /// All others: the amount, and how many amounts name it.
    extended: BTreeMap<Arc<str>, (i128, u32)>,
}

impl Sum {
    /// The sum.
    pub fn amounts(&self) -> Amounts {
        let extended = self.extended.iter().map(|(name, (amount, _))| (name.clone(), *amount));
        Amounts { extended: extended.collect(), ..Amounts::from(self.triple) }
    }

    /// Adds an amount.
    pub fn put(&mut self, amounts: &Amounts) {
        self.triple = self.triple.plus(amounts.into());
        for (name, amount) in &amounts.extended {
            match self.extended.get_mut(name) {
                Some((sum, named)) => (*sum, *named) = (sum.saturating_add(*amount), *named + 1),
                None => drop(self.extended.insert(name.clone(), (*amount, 1))),
            }
        }
    }

    /// Takes away an amount that was put in.
    pub fn take(&mut self, amounts: &Amounts) {
        self.triple = self.triple.minus(amounts.into());
        for (name, amount) in &amounts.extended {
            let Some((sum, named)) = self.extended.get_mut(name) else { continue };
            (*sum, *named) = (sum.saturating_sub(*amount), named.saturating_sub(1));
            if *named == 0 {
                self.extended.remove(name);
            }
        }
    }
}

/// MCAD's three dimensions, in the units of its own rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Triple {
    /// CPU: millicores in MCAD v1, billionths of a core in v2. In v2 the other two are billionths, too.
    pub cpu: i128,
    /// Memory, in bytes.
    pub memory: i128,
    /// `nvidia.com/gpu`.
    pub gpu: i128,
}

impl Triple {
    /// Applies the same operation to every dimension.
    #[must_use]
    pub fn zip(self, other: Self, f: impl Fn(i128, i128) -> i128) -> Self {
        Self { cpu: f(self.cpu, other.cpu), memory: f(self.memory, other.memory), gpu: f(self.gpu, other.gpu) }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, i128::saturating_add)
    }

    /// The difference, signed.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip(other, i128::saturating_sub)
    }

    /// Replaces negative values by 0.
    #[must_use]
    pub fn clamped(self) -> Self {
        self.zip(Self::default(), i128::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_kube_state_metrics_spells_them() {
        let label = |name| Resource::named(name).map(|r| (r.label(), r.unit()));
        assert_eq!(label("cpu"), Some(("cpu".into(), "core")));
        assert_eq!(label("memory"), Some(("memory".into(), "byte")));
        assert_eq!(label("nvidia.com/gpu"), Some(("nvidia_com_gpu".into(), "integer")));
        assert_eq!(label("nvidia.com/mig-1g.10gb"), Some(("nvidia_com_mig_1g_10gb".into(), "integer")));
    }

    #[test]
    fn only_cpu_memory_and_extended_resources_count() {
        for name in ["pods", "ephemeral-storage", "hugepages-2Mi", "attachable-volumes-aws-ebs", "kubernetes.io/batch"]
        {
            assert_eq!(Resource::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_resource_is_named_in_a_sum_as_long_as_one_of_its_amounts_names_it_even_at_0() {
        let fpga = Resource::named("example.com/fpga").unwrap();
        let of = |amount| {
            let mut amounts = Amounts::default();
            amounts.add(&fpga, amount);
            amounts
        };
        let mut sum = Sum::default();
        sum.put(&of(2));
        sum.put(&of(0));
        sum.take(&of(2));
        assert_eq!(sum.amounts().extended(), [("example.com/fpga".into(), 0)]);
        sum.take(&of(0));
        assert_eq!(sum, Sum::default());
    }
}
