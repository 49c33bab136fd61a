//! Objects that exceed a limit on what one object may contain, for as long as they exist.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::{Cluster, Source};
use crate::object::{Excess, Object};

/// How many objects are named for each reason; a person reads no more.
const NAMED: usize = 3;

/// Namespace (empty for a Node) and name.
type Name = (Arc<str>, Arc<str>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Excesses(BTreeMap<(Source, Excess), BTreeSet<Name>>);

/// Objects of one list that exceed one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The list.
    pub source: Source,
    /// The limit.
    pub excess: Excess,
    /// The number of these objects.
    pub count: usize,
    /// The first of these objects, by namespace and name.
    pub named: Vec<String>,
}

impl Excesses {
    /// Records the current state of an object.
    pub(super) fn note(&mut self, source: Source, namespace: &Arc<str>, name: &Arc<str>, excess: Option<Excess>) {
        // Usually there are none at all.
        if !self.0.is_empty() {
            self.forget(source, namespace, name);
        }
        if let Some(excess) = excess {
            self.0.entry((source, excess)).or_default().insert((namespace.clone(), name.clone()));
        }
    }

    /// An object was deleted.
    pub(super) fn forget(&mut self, source: Source, namespace: &str, name: &str) {
        if self.0.is_empty() {
            return;
        }
        let name: Name = (namespace.into(), name.into());
        self.0.retain(|(of, _), names| *of != source || !names.remove(&name) || !names.is_empty());
    }

    /// Called before a list is applied that contains these objects. Objects that exceeded a limit and are in the list
    /// still count until they are applied, because their contents are not known any better until then.
    pub(super) fn keep_listed(&mut self, source: Source, objects: &[Object]) {
        if !self.0.keys().any(|(of, _)| *of == source) {
            return;
        }
        let listed: HashSet<(&str, &str)> = objects.iter().map(Object::name).collect();
        self.0.retain(|(of, _), names| {
            if *of == source {
                names.retain(|(namespace, name)| listed.contains(&(&**namespace, &**name)));
            }
            !names.is_empty()
        });
    }
}

impl Cluster {
    /// The objects that exceed a limit, in the lists that are known, by list and limit.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        let known = self.excesses.0.iter().filter(|((source, _), _)| self.known.contains(source));
        known.map(|((source, excess), names)| LeftOut {
            source: *source,
            excess: *excess,
            count: names.len(),
            named: names.iter().take(NAMED).map(full_name).collect(),
        })
    }

    /// The lists that are known.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        self.known.iter().copied()
    }
}

fn full_name((namespace, name): &Name) -> String {
    if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Event;
    use crate::object::limits::{CONDITIONS, CONTAINERS, HOST_PORTS, POD_SETS, RESOURCES, VALUES};
    use crate::object::{Kind, Served, decode};

    const SOURCE: Source = Source::AppWrappers(Served::WorkloadV1Beta2);

    fn appwrapper(name: &str, resources: usize) -> Object {
        let requests: serde_json::Map<String, Value> =
            (0..resources).map(|at| (format!("example.com/r{at}"), "1".into())).collect();
        let pod = json!({ "containers": [{ "resources": { "requests": requests } }] });
        let template = json!({ "apiVersion": "v1", "kind": "Pod", "spec": pod });
        let value = json!({
            "apiVersion": "workload.codeflare.dev/v1beta2",
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "components": [{ "template": template }] },
        });
        decode(Kind::AppWrapper, value).unwrap()
    }

    fn cluster(events: impl IntoIterator<Item = Event>) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.apply(Event::Reset(SOURCE, Vec::new()));
        events.into_iter().for_each(|event| cluster.apply(event));
        cluster
    }

    /// What is left out for one reason: how many objects, and their names.
    type Excluded = (Excess, usize, Vec<String>);

    fn existing_and_excluded(cluster: &Cluster) -> (Vec<String>, Vec<Excluded>) {
        let there = cluster.appwrappers().map(|(appwrapper, _)| appwrapper.name.name.to_string()).collect();
        let left_out = cluster.left_out().map(|left| (left.excess, left.count, left.named)).collect();
        (there, left_out)
    }

    #[test]
    fn an_appwrapper_that_asks_for_too_much_is_left_out_whole_and_named() {
        let apply = |name, resources| Event::Apply(appwrapper(name, resources));
        let cluster = cluster([apply("at", RESOURCES), apply("over", RESOURCES + 1)]);
        assert_eq!(
            existing_and_excluded(&cluster),
            (vec!["at".into()], vec![(Excess::Resources, 1, vec!["team/over".into()])])
        );
    }

    #[test]
    fn one_that_grows_over_a_bound_leaves_no_stale_demand_and_comes_back_when_it_shrinks() {
        let mut cluster = cluster([Event::Apply(appwrapper("one", 1)), Event::Apply(appwrapper("one", RESOURCES + 1))]);
        assert_eq!(existing_and_excluded(&cluster), (vec![], vec![(Excess::Resources, 1, vec!["team/one".into()])]));
        cluster.apply(Event::Apply(appwrapper("one", 2)));
        assert_eq!(existing_and_excluded(&cluster), (vec!["one".into()], vec![]));
    }

    #[test]
    fn of_one_in_two_versions_the_other_does_not_stand_in_for_what_is_too_much() {
        const OLDER: Source = Source::AppWrappers(Served::WorkloadV1Beta1);
        let older = || {
            let value = json!({
                "apiVersion": "workload.codeflare.dev/v1beta1", "metadata": { "name": "one", "namespace": "team" }, "spec": {},
            });
            decode(Kind::AppWrapper, value).unwrap()
        };
        let over = || appwrapper("one", RESOURCES + 1);
        for events in [[older(), over()], [over(), older()]] {
            let mut cluster = cluster([Event::Reset(OLDER, Vec::new())]);
            for object in events {
                cluster.apply(Event::Apply(object));
            }
            assert_eq!(existing_and_excluded(&cluster).0, Vec::<String>::new());
            cluster.apply(Event::Apply(appwrapper("one", 1)));
            assert_eq!(existing_and_excluded(&cluster), (vec!["one".into()], vec![]));
            // If the newer version is gone, the older one counts.
            cluster.apply(Event::Apply(over()));
            cluster.apply(Event::Reset(SOURCE, Vec::new()));
            assert_eq!(existing_and_excluded(&cluster), (vec!["one".into()], vec![]));
            cluster.apply(Event::Delete(older()));
            assert_eq!(existing_and_excluded(&cluster), (vec![], vec![]));
        }
    }

    #[test]
    fn what_is_gone_is_named_no_more() {
        let over = || appwrapper("over", RESOURCES + 1);
        for end in [Event::Delete(over()), Event::Reset(SOURCE, Vec::new()), Event::Lost(SOURCE)] {
            let cluster = cluster([Event::Apply(over()), end]);
            assert_eq!(existing_and_excluded(&cluster).1, [], "still there");
        }
    }

    #[test]
    fn while_a_list_is_taken_in_what_is_over_a_bound_stays_so_until_its_turn_comes() {
        let over = || appwrapper("over", RESOURCES + 1);
        let mut cluster = cluster([Event::Apply(over()), Event::Apply(appwrapper("gone", RESOURCES + 1))]);
        cluster.begin_reset(SOURCE, &[over()]);
        assert_eq!(existing_and_excluded(&cluster), (vec![], vec![(Excess::Resources, 1, vec!["team/over".into()])]));
        cluster.apply(Event::Apply(over()));
        cluster.end_reset(SOURCE);
        assert_eq!(existing_and_excluded(&cluster), (vec![], vec![(Excess::Resources, 1, vec!["team/over".into()])]));
    }

    #[test]
    fn of_many_only_some_are_named_and_all_are_counted() {
        let cluster = cluster((0..10).map(|at| Event::Apply(appwrapper(&format!("a{at}"), RESOURCES + 1))));
        let names = vec!["team/a0".into(), "team/a1".into(), "team/a2".into()];
        assert_eq!(existing_and_excluded(&cluster).1, [(Excess::Resources, 10, names)]);
    }

    #[test]
    fn each_bound_holds_at_it_and_not_one_beyond() {
        let of = |template: Value, sets: usize| {
            let value = json!({
                "apiVersion": "workload.codeflare.dev/v1beta2",
                "metadata": { "name": "a", "namespace": "team" },
                "spec": { "components": [{ "template": template, "podSets": vec![json!({ "path": "template" }); sets] }] },
            });
            let Object::AppWrapper(appwrapper) = decode(Kind::AppWrapper, value).unwrap() else { unreachable!() };
            assert!(appwrapper.excess.is_none() || appwrapper.demand.groups.is_empty(), "half of a demand");
            appwrapper.excess
        };
        let pod = |spec: Value| json!({ "spec": spec });
        let check = |excess, bound: usize, made: &dyn Fn(usize) -> Option<Excess>| {
            assert_eq!(made(bound), None, "{excess:?} at {bound}");
            assert_eq!(made(bound + 1), Some(excess), "{excess:?} beyond {bound}");
        };
        check(Excess::PodSets, POD_SETS, &|n| of(pod(json!({ "containers": [] })), n));
        check(Excess::Containers, CONTAINERS, &|n| of(pod(json!({ "containers": vec![json!({}); n] })), 1));
        check(Excess::HostPorts, HOST_PORTS, &|n| {
            let ports: Vec<_> = (1..=n).map(|port| json!({ "hostPort": port })).collect();
            of(pod(json!({ "containers": [{ "ports": ports }] })), 1)
        });
        check(Excess::Conditions, CONDITIONS, &|n| of(pod(json!({ "tolerations": vec![json!({}); n] })), 1));
        let affinity = |terms: Value| {
            let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
            pod(json!({ "affinity": { "nodeAffinity": required } }))
        };
        check(Excess::Conditions, CONDITIONS, &|n| of(affinity(json!(vec![json!({}); n])), 1));
        check(Excess::Conditions, VALUES, &|n| {
            of(affinity(json!([{ "matchExpressions": [{ "values": vec!["x"; n] }] }])), 1)
        });
    }
}
