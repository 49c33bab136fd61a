//! What a pod asks for: containers and their requests, from a pod's own spec or from the template that makes it.
//!
//! Owns the two ways to add them up: as the scheduler does (docs/accounting.md §3) and as MCAD does (§1, §2).
use serde::Deserialize;
use serde_json::Value;

use super::limits::{CONTAINERS, Excess, HOST_PORTS, over};
use super::meta::nullable;
use super::port::{HostPort, RawPort};
use super::quantities::Quantities;
use crate::object::others::Others;
use crate::resource::quantity::Quantity;
use crate::resource::{Amounts, Resource, Triple};

/// What the names of hugepages begin with: of resources without a ladder, the only ones that a pod can request as a whole.
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

/// One container, started before or with the others.
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

/// The part of a pod's spec that decides how much it asks for, and of which node; its constraints are apart.
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
    host_network: bool,
    #[serde(deserialize_with = "nullable")]
    priority: Value,
}

/// What a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effective {
    /// Of resources that have a ladder.
    pub(crate) amounts: Amounts,
    /// Of all others.
    pub(crate) others: Others,
    /// Why some are left out; absent: all are there.
    pub(crate) excess: Option<Excess>,
}

impl Work {
    /// Quantities in it that could not be read.
    pub(crate) fn unreadable(&self) -> u32 {
        let of = |resources: &Requirements| resources.requests.unreadable + resources.limits.unreadable;
        let containers = self.containers.iter().chain(&self.init_containers).map(|c| of(&c.resources));
        containers.sum::<u32>() + of(&self.resources) + self.overhead.unreadable
    }

    /// Effective requests as the scheduler counts them (docs/accounting.md §3): exact sums, rounded up once.
    ///
    /// `requests` answers what one container requests.
    /// Source: k8s.io/component-helpers `resource/helpers.go`, `PodRequests`.
    pub(crate) fn effective(&self, requests: impl Fn(&Container) -> Quantities) -> Effective {
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
                // Of what the step itself does not request, sidecars alone have no more than in the sum.
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
        Effective { amounts: round_up(&sum), others: Others::from_quantities(&sum), excess: sum.excess }
    }

    /// The same for a template, before the API server has filled it in: a limit stands in for an absent request.
    pub(crate) fn effective_of_template(&self) -> Effective {
        let mut filled = self.clone();
        // As the API server does for the pod itself: a limit becomes its request only where no container has one.
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
        let effective = filled.effective(filled_in);
        let named = self.resources.requests.excess.or(self.resources.limits.excess);
        let of_containers = over(self.containers.len() + self.init_containers.len(), CONTAINERS, Excess::Containers);
        Effective { excess: effective.excess.or(named).or(of_containers), ..effective }
    }

    /// The host ports of its containers and sidecars, each once, in order. Of too many, the first.
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

    /// Its `priority`; without one it is 0.
    pub(crate) fn priority(&self) -> i64 {
        self.priority.as_i64().unwrap_or(0)
    }

    /// As MCAD v1 counts a pod (§1): containers alone, each rounded by itself.
    pub(crate) fn dispatcher_v1(&self) -> Triple {
        self.containers.iter().map(|c| dispatcher_triple(&c.resources.requests)).fold(Triple::default(), Triple::plus)
    }

    /// As MCAD v2 counts a pod (§1): the larger of its containers together and each init container, and overhead.
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

/// Requests, with limits where a request is absent.
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

/// Millicores of cpu, whole units of everything else, rounded up.
pub(crate) fn whole(resource: &Resource, quantity: Quantity) -> i128 {
    match resource {
        Resource::Cpu => quantity.millis(),
        Resource::Memory | Resource::Gpu | Resource::Extended(_) => quantity.units(),
    }
}

/// One list as MCAD v1 reads it (`NewResource`): `AsInt64` for GPUs, 0 where that fails.
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
