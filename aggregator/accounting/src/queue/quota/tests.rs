//! The tree against a second, literal transcription of Kueue's recursion, on random trees.
use proptest::prelude::*;

use super::*;
use crate::object::quotas::FlavorQuotas;
use crate::resource::Resource;

const UNLIMITED: i64 = i64::MAX;

/// Kueue's amounts: the largest number is unlimited.
fn add(a: i64, b: i64) -> i64 {
    if a == UNLIMITED || b == UNLIMITED { UNLIMITED } else { a.saturating_add(b) }
}

fn sub(a: i64, b: i64) -> i64 {
    match (a == UNLIMITED, b == UNLIMITED) {
        (true, true) => 0,
        (true, false) => UNLIMITED,
        (false, true) => i64::MIN,
        (false, false) => a.saturating_sub(b),
    }
}

/// A node as `resource_node.go` has it, of one flavor and resource.
#[derive(Clone, Debug, Default)]
struct Literal {
    parent: Option<usize>,
    children: Vec<usize>,
    nominal: i64,
    borrowing: Option<i64>,
    lending: Option<i64>,
    subtree: i64,
    usage: i64,
}

struct Nodes(Vec<Literal>);

impl Nodes {
    fn local_quota(&self, at: usize) -> i64 {
        self.0[at].lending.map_or(0, |limit| sub(self.0[at].subtree, limit).max(0))
    }

    fn update(&mut self, at: usize) {
        let is_queue = self.0[at].children.is_empty() && self.0[at].usage != 0;
        self.0[at].subtree = self.0[at].nominal;
        if !is_queue && !self.0[at].children.is_empty() {
            self.0[at].usage = 0;
        }
        for child in self.0[at].children.clone() {
            self.update(child);
            let local = self.local_quota(child);
            let (subtree, usage) = (self.0[child].subtree, self.0[child].usage);
            self.0[at].subtree = add(self.0[at].subtree, sub(subtree, local));
            self.0[at].usage = add(self.0[at].usage, sub(usage, local).max(0));
        }
    }

    fn available(&self, at: usize) -> i64 {
        let node = &self.0[at];
        let Some(parent) = node.parent else { return sub(node.subtree, node.usage) };
        let mut from_parent = self.available(parent);
        let local = self.local_quota(at);
        if let Some(limit) = node.borrowing {
            let stored = sub(node.subtree, local);
            let used = sub(node.usage, local).max(0);
            from_parent = add(sub(stored, used), limit).min(from_parent);
        }
        add(sub(local, node.usage).max(0), from_parent)
    }

    fn potential(&self, at: usize) -> i64 {
        let node = &self.0[at];
        let Some(parent) = node.parent else { return node.subtree };
        let most = add(self.local_quota(at), self.potential(parent));
        node.borrowing.map_or(most, |limit| add(node.subtree, limit).min(most))
    }
}

fn of() -> FlavorResource {
    ("f".into(), Resource::Gpu)
}

fn groups(quota: Quota) -> Arc<[ResourceGroup]> {
    let flavors = [FlavorQuotas { name: "f".into(), quotas: [(Resource::Gpu, quota)].into() }];
    [ResourceGroup { covered: [Resource::Gpu].into(), flavors: flavors.into() }].into()
}

fn cohort(name: &str, parent: &str, quota: Quota) -> Arc<Cohort> {
    Arc::new(Cohort {
        name: name.into(),
        uid: Arc::default(),
        rank: 0,
        parent: parent.into(),
        groups: groups(quota),
        unreadable: 0,
        excess: None,
    })
}

fn queue(name: &str, cohort: &str, quota: Quota) -> Arc<ClusterQueue> {
    Arc::new(ClusterQueue {
        name: name.into(),
        uid: Arc::default(),
        rank: 0,
        cohort: cohort.into(),
        strategy: "BestEffortFIFO".into(),
        is_stopped: false,
        active: None,
        avoids_borrowing: false,
        shares_fairly: false,
        groups: groups(quota),
        unreadable: 0,
        excess: None,
    })
}

fn quota(nominal: i64, borrowing: Option<i64>, lending: Option<i64>) -> Quota {
    let amount = |units: i64| Amount::of(units.into());
    Quota { nominal: amount(nominal), borrowing_limit: borrowing.map(amount), lending_limit: lending.map(amount) }
}

/// What is left for each queue of these: name, cohort, nominal, borrowing limit, lending limit, used.
type Line = (&'static str, &'static str, i64, Option<i64>, Option<i64>, i64);

fn left(cohorts: &[Arc<Cohort>], queues: &[Line]) -> Vec<i128> {
    let objects: Vec<_> =
        queues.iter().map(|(name, of, nominal, b, l, _)| queue(name, of, quota(*nominal, *b, *l))).collect();
    let tree = Tree::new(&objects, cohorts, |name, add| {
        let line = queues.iter().find(|line| line.0 == name).unwrap();
        add(&of(), Amount::of(line.5.into()));
    });
    queues.iter().map(|line| tree.queue(line.0).unwrap().available(&of()).units().unwrap()).collect()
}

#[test]
fn a_queue_borrows_what_others_lend_and_no_more_than_its_limit() {
    let b = ("b", "c", 10, None, Some(4), 2);
    assert_eq!(left(&[], &[("a", "c", 10, None, None, 8), b]), [6, 10]);
    assert_eq!(left(&[], &[("a", "c", 10, Some(1), None, 8), b])[0], 3);
}

#[test]
fn a_cohort_borrows_from_the_one_above_it_within_its_limit() {
    let cohorts = [cohort("root", "", quota(8, None, None)), cohort("child", "root", quota(0, Some(4), None))];
    for (used, expected) in [(6, 4), (12, 0), (18, -6)] {
        let queues = [("x", "child", 4, None, None, 4), ("y", "root", 4, None, None, used)];
        assert_eq!(left(&cohorts, &queues)[0], expected, "{used}");
    }
}

#[test]
fn a_cycle_of_cohorts_and_all_below_it_is_found_and_ends() {
    let none = quota(0, None, None);
    let cohorts = [cohort("a", "b", none), cohort("b", "a", none), cohort("c", "a", none), cohort("d", "", none)];
    let queues = [queue("q", "c", none), queue("r", "d", none)];
    let tree = Tree::new(&queues, &cohorts, |_, _| {});
    assert!(tree.queue("q").unwrap().is_cyclic() && !tree.queue("r").unwrap().is_cyclic());
    assert_eq!(tree.queue("q").unwrap().available(&of()), Amount::ZERO);
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..20_i64, 1 => Just(UNLIMITED), 1 => Just(i64::MAX / 2)]
}

fn limits() -> impl Strategy<Value = (i64, Option<i64>, Option<i64>)> {
    (amount(), proptest::option::of(amount()), proptest::option::of(amount()))
}

proptest! {
    #[test]
    fn what_is_left_and_the_most_there_can_be_are_what_kueue_computes(
        cohorts in proptest::collection::vec((limits(), any::<prop::sample::Index>()), 1..6),
        queues in proptest::collection::vec((limits(), 0..30_i64, any::<prop::sample::Index>()), 1..6),
    ) {
        let name = |at: usize| format!("c{at}");
        // The parent of a cohort comes before it; the first is a root.
        let parents: Vec<Option<usize>> =
            cohorts.iter().enumerate().map(|(at, (_, parent))| (at > 0).then(|| parent.index(at))).collect();
        let objects: Vec<_> = cohorts
            .iter()
            .enumerate()
            .map(|(at, ((nominal, b, l), _))| {
                let parent = parents[at].map(name).unwrap_or_default();
                cohort(&name(at), &parent, quota(*nominal, *b, *l))
            })
            .collect();
        let mut nodes = Nodes(Vec::new());
        for (at, ((nominal, borrowing, lending), _)) in cohorts.iter().enumerate() {
            let literal =
                Literal { parent: parents[at], nominal: *nominal, borrowing: *borrowing, lending: *lending, ..Literal::default() };
            nodes.0.push(literal);
            if let Some(parent) = parents[at] {
                nodes.0[parent].children.push(at);
            }
        }
        let mut of_queues = Vec::new();
        for (at, ((nominal, borrowing, lending), used, of_cohort)) in queues.iter().enumerate() {
            let parent = of_cohort.index(cohorts.len());
            let own = nodes.0.len();
            nodes.0[parent].children.push(own);
            of_queues.push(queue(&format!("q{at}"), &name(parent), quota(*nominal, *borrowing, *lending)));
            nodes.0.push(Literal {
                parent: Some(parent), nominal: *nominal, borrowing: *borrowing, lending: *lending, usage: *used,
                ..Literal::default()
            });
        }
        nodes.update(0);
        let tree = Tree::new(&of_queues, &objects, |name, add| {
            let at: usize = name[1..].parse().unwrap();
            add(&of(), Amount::of(queues[at].1.into()));
        });
        for at in 0..queues.len() {
            let node = tree.queue(&format!("q{at}")).unwrap();
            prop_assert_eq!(node.available(&of()), Amount::of(nodes.available(cohorts.len() + at).into()));
            prop_assert_eq!(node.most(&of()), Amount::of(nodes.potential(cohorts.len() + at).into()));
        }
    }
}
