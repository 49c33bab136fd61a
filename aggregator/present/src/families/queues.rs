//! Kueue's queues: quotas, what is used of them, and the hardware behind each flavor.
use mcad_accounting::cluster::owner::ByOwner;
use mcad_accounting::ladder::NodeState;
use mcad_accounting::queue::Accounts;
use mcad_accounting::queue::account::{QueueAccount, QuotaAccount, WorkloadState};
use mcad_accounting::queue::hardware::{Backing, FlavorHardware, FlavorResources};
use mcad_accounting::queue::usage::Usage;

use super::{BY_LABEL, Spelled, Spelling, gauge};
use crate::exposition::{Exposition, Family, Labels, Value};

const QUOTA: &[&str] = &["cluster_queue", "flavor", "resource", "unit"];
const USAGE: &[&str] = &["cluster_queue", "flavor", "owner", "resource", "unit"];
const FLAVOR: &[&str] = &["flavor", "resource", "unit"];
const TOTAL: &[&str] = &["resource", "unit"];

static INFO: Family = gauge(
    "mcad_queue_info",
    &["cluster_queue", "cohort", "state", "strategy"],
    "1",
    "A ClusterQueue: its cohort, its strategy, and whether it is active, stopped or inactive.",
);
static NOMINAL: Family = gauge("mcad_queue_nominal", QUOTA, BY_LABEL, "Nominal quota of a ClusterQueue.");
static BORROWING_LIMIT: Family =
    gauge("mcad_queue_borrowing_limit", QUOTA, BY_LABEL, "How much a ClusterQueue may borrow, where that is limited.");
static LENDING_LIMIT: Family =
    gauge("mcad_queue_lending_limit", QUOTA, BY_LABEL, "How much a ClusterQueue may lend, where that is limited.");
static AVAILABLE: Family = gauge(
    "mcad_queue_available",
    QUOTA,
    BY_LABEL,
    "Quota that a ClusterQueue could still use, with what it may borrow; 0 if it is not active.",
);
static RESERVED: Family =
    gauge("mcad_queue_reserved", USAGE, BY_LABEL, "Quota that Workloads of a ClusterQueue reserve.");
static ADMITTED: Family =
    gauge("mcad_queue_admitted", USAGE, BY_LABEL, "Quota that admitted Workloads of a ClusterQueue reserve.");
static UNHELD: Family = gauge(
    "mcad_queue_unheld",
    USAGE,
    BY_LABEL,
    "Quota that Workloads reserve and that no bound, unfinished pod of theirs requests.",
);
static EXCESS: Family = gauge(
    "mcad_queue_excess",
    USAGE,
    BY_LABEL,
    "What bound, unfinished pods of Workloads request beyond the quota that these reserve.",
);
static PENDING: Family = gauge(
    "mcad_queue_pending",
    &["cluster_queue", "owner", "resource", "unit"],
    BY_LABEL,
    "What Workloads request that wait for quota of a ClusterQueue.",
);
static WORKLOADS: Family = gauge(
    "mcad_queue_workloads",
    &["cluster_queue", "owner", "state"],
    "Workloads",
    "Unfinished Workloads of a ClusterQueue that wait for quota, reserve it, or are admitted.",
);
static FLAVOR_NODES: Family =
    gauge("mcad_queue_flavor_nodes", &["flavor", "state"], "nodes", "Nodes of a flavor by whether they take its pods.");
static FLAVOR_NOMINAL: Family =
    gauge("mcad_queue_flavor_nominal", FLAVOR, BY_LABEL, "Nominal quota of a flavor in all ClusterQueues and Cohorts.");
static FLAVOR_INSTALLED: Family =
    gauge("mcad_queue_flavor_installed", FLAVOR, BY_LABEL, "What the nodes of a flavor have.");
static FLAVOR_HEALTHY: Family =
    gauge("mcad_queue_flavor_healthy", FLAVOR, BY_LABEL, "What of that is neither lost nor unhealthy.");
static FLAVOR_ADMISSIBLE: Family = gauge(
    "mcad_queue_flavor_admissible",
    FLAVOR,
    BY_LABEL,
    "What is allocatable on the nodes of a flavor that take its pods.",
);
static FLAVOR_FREE: Family =
    gauge("mcad_queue_flavor_free", FLAVOR, BY_LABEL, "What pods of a flavor could get on these nodes now.");
static FLAVOR_BACKING: Family = gauge(
    "mcad_queue_flavor_backing",
    FLAVOR,
    BY_LABEL,
    "What is healthy and allocatable on these nodes, without the requests of pods that no quota counts.",
);
static FLAVOR_UNBACKED: Family =
    gauge("mcad_queue_flavor_unbacked", FLAVOR, BY_LABEL, "Quota of a flavor that no hardware stands behind.");
static FLAVOR_UNCOVERED: Family =
    gauge("mcad_queue_flavor_uncovered", FLAVOR, BY_LABEL, "Hardware of a flavor that no quota hands out.");
static UNBACKED: Family = gauge(
    "mcad_queue_unbacked",
    TOTAL,
    BY_LABEL,
    "Quota of all flavors that no hardware stands behind, if each node gives its hardware once.",
);
static UNCOVERED: Family = gauge(
    "mcad_queue_uncovered",
    TOTAL,
    BY_LABEL,
    "Hardware of all nodes that take pods and that no quota hands out, if each node gives its hardware once.",
);
static SLACK: Family = gauge(
    "mcad_queue_slack_lending_limit",
    &["by", "cluster_queue", "flavor", "resource", "unit"],
    BY_LABEL,
    "What the slack queue (--slack-queue) should lend at most: by the rule that the AppWrapper controller once had, and by the \
     hardware that is missing behind its flavor.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &INFO,
    &NOMINAL,
    &BORROWING_LIMIT,
    &LENDING_LIMIT,
    &AVAILABLE,
    &RESERVED,
    &ADMITTED,
    &UNHELD,
    &EXCESS,
    &PENDING,
    &WORKLOADS,
    &FLAVOR_NODES,
    &FLAVOR_NOMINAL,
    &FLAVOR_INSTALLED,
    &FLAVOR_HEALTHY,
    &FLAVOR_ADMISSIBLE,
    &FLAVOR_FREE,
    &FLAVOR_BACKING,
    &FLAVOR_UNBACKED,
    &FLAVOR_UNCOVERED,
    &UNBACKED,
    &UNCOVERED,
    &SLACK,
];

/// Writes the section.
pub(crate) fn write(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    let mut lines = out.family(&INFO);
    for QueueAccount { queue, state, .. } in &all.queues {
        let labels = Labels::of(&[
            ("cluster_queue", &queue.name),
            ("cohort", &queue.cohort),
            ("state", state.label()),
            ("strategy", &queue.strategy),
        ]);
        lines.line(&labels, Value::Unsigned(1));
    }
    write_quotas(all, spelling, out);
    write_usage(all, spelling, out);
    write_pending(all, spelling, out);
    write_flavors(all, spelling, out);
    write_totals(all, spelling, out);
}

type OfQuota = fn(&QuotaAccount, &Spelled) -> Option<Value>;

fn write_quotas(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    let families: [(&Family, OfQuota); 4] = [
        (&NOMINAL, |account, spelled| Some(spelled.quota(account.quota?.nominal))),
        (&BORROWING_LIMIT, |account, spelled| Some(spelled.quota(account.quota?.borrowing_limit?))),
        (&LENDING_LIMIT, |account, spelled| Some(spelled.quota(account.quota?.lending_limit?))),
        (&AVAILABLE, |account, spelled| Some(spelled.quota(account.available))),
    ];
    for (family, value) in families {
        let mut lines = out.family(family);
        for queue in &all.queues {
            for ((flavor, resource), account) in &queue.quotas {
                let Some(spelled) = spelling.get(resource) else { continue };
                let mut labels = Labels::of(&[("cluster_queue", &queue.queue.name), ("flavor", flavor)]);
                if let Some(value) = value(account, spelled) {
                    lines.line(labels.extend(&spelled.labels), value);
                }
            }
        }
    }
}

fn by_owner<T>(of: &ByOwner<T>) -> [(&'static str, &T); 2] {
    [("appwrapper", &of.appwrapper), ("other", &of.other)]
}

type OfUsage = fn(&Usage) -> i128;

fn write_usage(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    let families: [(&Family, bool, OfUsage); 4] = [
        (&RESERVED, false, |usage| usage.reserved),
        (&ADMITTED, false, |usage| usage.admitted),
        (&UNHELD, true, |usage| usage.unheld),
        (&EXCESS, true, |usage| usage.excess),
    ];
    for (family, _, value) in families.into_iter().filter(|(_, needs_pods, _)| all.knows_pods || !needs_pods) {
        let mut lines = out.family(family);
        for queue in &all.queues {
            for ((flavor, resource), account) in &queue.quotas {
                let Some(spelled) = spelling.get(resource) else { continue };
                for (owner, usage) in by_owner(&account.usage) {
                    let mut labels =
                        Labels::of(&[("cluster_queue", &queue.queue.name), ("flavor", flavor), ("owner", owner)]);
                    lines.line(labels.extend(&spelled.labels), spelled.value(value(usage)));
                }
            }
        }
    }
}

fn write_pending(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    let mut lines = out.family(&PENDING);
    for queue in &all.queues {
        for (resource, pending) in &queue.pending {
            let Some(spelled) = spelling.get(resource) else { continue };
            for (owner, amount) in by_owner(pending) {
                let mut labels = Labels::of(&[("cluster_queue", &queue.queue.name), ("owner", owner)]);
                lines.line(labels.extend(&spelled.labels), spelled.value(*amount));
            }
        }
    }
    let mut lines = out.family(&WORKLOADS);
    for queue in &all.queues {
        for (owner, counts) in by_owner(&queue.workloads) {
            for (state, count) in WorkloadState::ALL.into_iter().zip(counts) {
                let labels = [("cluster_queue", &*queue.queue.name), ("owner", owner), ("state", state.label())];
                lines.line(&Labels::of(&labels), Value::Unsigned(*count));
            }
        }
    }
}

type OfFlavor = fn(&FlavorResources, &Spelled) -> Option<Value>;

fn write_flavors(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    fn hardware(of: &FlavorResources, value: fn(FlavorHardware) -> i128) -> Option<i128> {
        of.hardware.map(value)
    }
    fn backing(of: &FlavorResources, value: fn(Backing) -> i128) -> Option<i128> {
        Some(value(of.hardware?.pods?))
    }
    let families: [(&Family, OfFlavor); 8] = [
        (&FLAVOR_NOMINAL, |of, spelled| Some(spelled.quota(of.nominal))),
        (&FLAVOR_INSTALLED, |of, spelled| Some(spelled.value(hardware(of, |of| of.installed)?))),
        (&FLAVOR_HEALTHY, |of, spelled| Some(spelled.value(hardware(of, |of| of.healthy)?))),
        (&FLAVOR_ADMISSIBLE, |of, spelled| Some(spelled.value(hardware(of, |of| of.admissible)?))),
        (&FLAVOR_FREE, |of, spelled| Some(spelled.value(backing(of, |of| of.free)?))),
        (&FLAVOR_BACKING, |of, spelled| Some(spelled.value(backing(of, |of| of.backing)?))),
        (&FLAVOR_UNBACKED, |of, spelled| Some(spelled.quota(of.unbacked()?))),
        (&FLAVOR_UNCOVERED, |of, spelled| Some(spelled.value(of.uncovered()?))),
    ];
    let mut lines = out.family(&FLAVOR_NODES);
    for flavor in &all.flavors {
        for (state, count) in NodeState::ALL.into_iter().zip(flavor.nodes.into_iter().flatten()) {
            let labels = Labels::of(&[("flavor", &flavor.name), ("state", state.label())]);
            lines.line(&labels, Value::Unsigned(count));
        }
    }
    for (family, value) in families {
        let mut lines = out.family(family);
        for flavor in &all.flavors {
            for (resource, of) in &flavor.resources {
                let Some(spelled) = spelling.get(resource) else { continue };
                if let Some(value) = value(of, spelled) {
                    let mut labels = Labels::of(&[("flavor", &flavor.name)]);
                    lines.line(labels.extend(&spelled.labels), value);
                }
            }
        }
    }
}

fn write_totals(all: &Accounts, spelling: &Spelling, out: &mut Exposition<'_>) {
    let mut lines = out.family(&UNBACKED);
    for (resource, total) in &all.totals {
        if let Some(spelled) = spelling.get(resource) {
            lines.line(&spelled.labels, spelled.quota(total.unbacked));
        }
    }
    let mut lines = out.family(&UNCOVERED);
    for (resource, total) in &all.totals {
        if let (Some(spelled), Some(uncovered)) = (spelling.get(resource), total.uncovered) {
            lines.line(&spelled.labels, spelled.value(uncovered));
        }
    }
    let mut lines = out.family(&SLACK);
    for limit in &all.slack {
        let (flavor, resource) = &limit.of;
        let Some(spelled) = spelling.get(resource) else { continue };
        for (by, amount) in [("appwrapper", limit.by_appwrapper), ("hardware", limit.by_hardware)] {
            let Some(amount) = amount else { continue };
            let mut labels = Labels::of(&[("by", by), ("cluster_queue", &all.slack_queue), ("flavor", flavor)]);
            lines.line(labels.extend(&spelled.labels), spelled.quota(amount));
        }
    }
}
