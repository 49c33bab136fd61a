//! What a pod requests: containers and their requests, from the pod's own spec or from a template.
//!
//! Owns the two ways to add them up: the scheduler's (docs/accounting.md §3) and MCAD's (§1, §2).
use serde::Deserialize;
use serde_json::Value;

use super::limits::{CONTAINERS, Excess, HOST_PORTS, over};
use super::meta::nullable;
use super::pod_claims::RawPodClaim;
use super::port::{HostPort, RawPort};
use super::quantities::Quantities;
use crate::object::others::Others;
use crate::resource::quantity::Quantity;
use crate::resource::{Amounts, Resource, Triple};

/// The prefix of hugepages: of the resources without a ladder, only these can be requested for a pod as a whole.
const HUGEPAGES: &str = "hugepages-";

/// `resources` of a container or a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Requirements {
    #[serde(deserialize_with = "nullable")]
    pub(crate) requests: Quantities,
    #[serde(deserialize_with = "nullable")]
    pub(crate) limits: Quantities,
}

/// One container, which starts before or with the others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resources: Requirements,
    #[serde(deserialize_with = "nullable")]
    pub(crate) restart_policy: String,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<RawPort>,
}

impl Container {
    pub(crate) fn is_restartable(&self) -> bool {
        self.restart_policy == "Always"
    }
}

/// The part of a pod's spec that decides how much the pod requests, and of which node; constraints are kept elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Work {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node_name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) overhead: Quantities,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resources: Requirements,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resource_claims: Vec<RawPodClaim>,
    #[serde(deserialize_with = "nullable")]
    host_network: bool,
    #[serde(deserialize_with = "nullable")]
    priority: Value,
}

/// What a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effective {
    /// Amounts of resources that have a ladder.
    pub(crate) amounts: Amounts,
    /// Amounts of all other resources.
    pub(crate) others: Others,
    /// Which bound it exceeds, so that some are left out; `None` if it exceeds none.
    pub(crate) excess: Option<Excess>,
}

impl Work {
    /// The number of quantities in it that could not be read.
    pub(crate) fn unreadable(&self) -> u32 {
        let of = |resources: &Requirements| resources.requests.unreadable + resources.limits.unreadable;
        let containers = self.containers.iter().chain(&self.init_containers).map(|c| of(&c.resources));
        containers.sum::<u32>() + of(&self.resources) + self.overhead.unreadable
    }

    /// Effective requests as the scheduler counts them (docs/accounting.md §3): exact sums, rounded up once.
    ///
    /// `requests` returns the requests of one container.
    ///
    /// Source: k8s.io/component-helpers `resource/helpers.go`, `PodRequests`.
    pub(crate) fn effective(&self, requests: impl Fn(&Container) -> Quantities) -> Effective {
        let sum = self.sum(requests);
        Effective { amounts: round_up(&sum), others: Others::from_quantities(&sum), excess: sum.excess }
    }

    fn sum(&self, requests: impl Fn(&Container) -> Quantities) -> Quantities {
        let mut sum = Quantities::default();
        for container in &self.containers {
            sum.add(&requests(container));
        }
        let mut restartable = Quantities::default();
        let mut init = Quantities::default();
        for container in &self.init_containers {
            let step = requests(container);
            if container.is_restartable() {
                sum.add(&step);
                restartable.add(&step);
            } else {
                // For resources that the step itself does not request, the sidecars alone have no more than the sum has.
                init.raise(&step.and_of(&restartable));
            }
        }
        sum.raise(&init);
        for resource in [Resource::Cpu, Resource::Memory] {
            if let Some(quantity) = self.resources.requests.get(&resource) {
                sum.set(&resource, quantity);
            }
        }
        for (name, quantity) in self.resources.requests.others().filter(|(name, _)| name.starts_with(HUGEPAGES)) {
            sum.set_other(name, quantity);
        }
        sum.add(&self.overhead);
        sum
    }

    /// The same for a template, before the API server has filled in defaults: a limit replaces an absent request.
    pub(crate) fn effective_of_template(&self) -> Effective {
        let (sum, excess) = self.sum_of_template(&self.defaulted());
        Effective { amounts: round_up(&sum), others: Others::from_quantities(&sum), excess }
    }

    /// The same as Kueue counts it, by resource that is named: also of the pod as a whole, a limit replaces an absent request.
    ///
    /// Source: kubernetes-sigs/kueue `pkg/workload/resources.go`, `UseLimitsAsMissingRequestsInPod`.
    pub(crate) fn named_requests(&self) -> (Vec<(Resource, i128)>, Option<Excess>) {
        let mut filled = self.clone();
        filled.resources.requests.fill_in(&self.resources.limits);
        let (sum, excess) = self.sum_of_template(&filled);
        (named_amounts(&sum), excess)
    }

    /// With the requests of the pod as a whole that the API server fills in: a limit becomes one only if no container has a request.
    fn defaulted(&self) -> Self {
        let mut filled = self.clone();
        let mut containers = Quantities::default();
        self.containers.iter().chain(&self.init_containers).for_each(|one| containers.fill_in(&filled_in(one)));
        for (resource, limit) in self.resources.limits.iter() {
            if self.resources.requests.get(resource).is_none() && containers.get(resource).is_none() {
                filled.resources.requests.set(resource, limit);
            }
        }
        for (name, limit) in self.resources.limits.others() {
            if self.resources.requests.other(name).is_none() && containers.other(name).is_none() {
                filled.resources.requests.set_other(name, limit);
            }
        }
        filled
    }

    /// The sum of this template, whose pod as a whole has the requests in `filled`.
    fn sum_of_template(&self, filled: &Self) -> (Quantities, Option<Excess>) {
        let sum = filled.sum(filled_in);
        let named = self.resources.requests.excess.or(self.resources.limits.excess);
        let of_containers = over(self.containers.len() + self.init_containers.len(), CONTAINERS, Excess::Containers);
        let excess = sum.excess.or(named).or(of_containers);
        (sum, excess)
    }

    /// The host ports of its containers and sidecars, sorted, each once. If there are too many, only the first are returned.
    pub(crate) fn host_ports(&self) -> (Box<[HostPort]>, Option<Excess>) {
        let sidecars = self.init_containers.iter().filter(|container| container.is_restartable());
        let ports = self.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        let mut ports: Vec<HostPort> = ports.filter_map(|port| port.on_host(self.host_network)).collect();
        ports.sort_unstable();
        ports.dedup();
        let excess = over(ports.len(), HOST_PORTS, Excess::HostPorts);
        ports.truncate(HOST_PORTS);
        (ports.into(), excess)
    }

    /// Its `priority`, or 0.
    pub(crate) fn priority(&self) -> i64 {
        self.priority.as_i64().unwrap_or(0)
    }

    /// The pod as MCAD v1 counts it (§1): containers only, each rounded by itself.
    pub(crate) fn dispatcher_v1(&self) -> Triple {
        self.containers.iter().map(|c| dispatcher_triple(&c.resources.requests)).fold(Triple::default(), Triple::plus)
    }

    /// The pod as MCAD v2 counts it (§1): the larger of the sum of its containers and each init container, plus overhead.
    pub(crate) fn dispatcher_v2(&self) -> Triple {
        let mut sum = Quantities::default();
        for container in &self.containers {
            sum.add(&container.resources.requests);
        }
        for container in &self.init_containers {
            sum.raise(&container.resources.requests);
        }
        sum.add(&self.overhead);
        exact_triple(&sum)
    }
}

/// A container's requests, with its limits for absent requests.
fn filled_in(container: &Container) -> Quantities {
    let mut requests = container.resources.requests.clone();
    requests.fill_in(&container.resources.limits);
    requests
}

fn round_up(sum: &Quantities) -> Amounts {
    let mut amounts = Amounts::default();
    for (resource, quantity) in sum.iter() {
        amounts.add(resource, whole(resource, quantity));
    }
    amounts
}

/// The amount of each resource that a list names, also of those without a ladder, rounded up.
pub(crate) fn named_amounts(list: &Quantities) -> Vec<(Resource, i128)> {
    let laddered = list.iter().map(|(resource, quantity)| (resource.clone(), whole(resource, quantity)));
    let others = list.others().map(|(name, quantity)| (Resource::Extended(name.clone()), quantity.units()));
    laddered.chain(others).collect()
}

/// Millicores of CPU, whole units of everything else, rounded up.
pub(crate) fn whole(resource: &Resource, quantity: Quantity) -> i128 {
    match resource {
        Resource::Cpu => quantity.millis(),
        Resource::Memory | Resource::Gpu | Resource::Extended(_) => quantity.units(),
    }
}

/// One list as MCAD v1 reads it (`NewResource`). For GPUs, `AsInt64`, or 0 if that fails.
pub(crate) fn dispatcher_triple(list: &Quantities) -> Triple {
    Triple {
        cpu: list.get(&Resource::Cpu).map_or(0, Quantity::millis),
        memory: list.get(&Resource::Memory).map_or(0, Quantity::units),
        gpu: list.get(&Resource::Gpu).and_then(Quantity::as_int64).map_or(0, i128::from),
    }
}

/// One list as MCAD v2 reads it: exact, in billionths.
pub(crate) fn exact_triple(list: &Quantities) -> Triple {
    Triple {
        cpu: list.get(&Resource::Cpu).map_or(0, Quantity::nanos),
        memory: list.get(&Resource::Memory).map_or(0, Quantity::nanos),
        gpu: list.get(&Resource::Gpu).map_or(0, Quantity::nanos),
    }
}
