//! Applies the events of slices, claims, classes and rules, and the events of pods that use claims: to the objects
//! themselves and to the revisions of the nodes that they affect.
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{PoolName, pools};
use crate::cluster::pods::Place;
use crate::cluster::{Cluster, Source, kept, same};
use crate::object::{Claim, ClaimName, ClaimTemplate, Consumer, DeviceClass, Object, Pod, Slice, TaintRule, Uid};
use crate::table::Table;

impl Cluster {
    /// Adds or changes an object of Dynamic Resource Allocation.
    pub(in crate::cluster) fn set_device_object(&mut self, object: Object) {
        if let Some(source) = Source::of_devices(object.kind()) {
            let (namespace, name) = object.name();
            let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
            self.excesses.note(source, &namespace, &name, object.excess());
        }
        match object {
            Object::ResourceSlice(slice) => self.set_slice(slice),
            Object::ResourceClaim(claim) => self.set_claim(claim),
            Object::ResourceClaimTemplate(template) => self.set_claim_template(template),
            Object::DeviceClass(class) => self.set_device_class(class),
            Object::DeviceTaintRule(rule) => self.set_taint_rule(rule),
            _ => {}
        }
    }

    /// Removes an object of Dynamic Resource Allocation.
    pub(in crate::cluster) fn remove_device_object(&mut self, object: &Object) {
        if let Some(source) = Source::of_devices(object.kind()) {
            let (namespace, name) = object.name();
            self.excesses.forget(source, namespace, name);
        }
        match object {
            Object::ResourceSlice(slice) => self.remove_slice(&slice.name, &slice.uid),
            Object::ResourceClaim(claim) => self.remove_claim(&claim.name, &claim.uid),
            Object::ResourceClaimTemplate(template) => self.remove_claim_template(&template.name, &template.uid),
            Object::DeviceClass(class) => self.remove_device_class(&class.name, &class.uid),
            Object::DeviceTaintRule(rule) => self.remove_taint_rule(&rule.name, &rule.uid),
            _ => {}
        }
    }

    fn set_slice(&mut self, mut slice: Slice) {
        if self.devices.pools.newer(&slice.name, slice.rank) || self.devices.pools.slice(&slice.name) == Some(&slice) {
            return;
        }
        slice.share(|name| kept(&mut self.names, name), |described| kept(&mut self.described, described));
        let unreadable = slice.unreadable;
        let (before, pools) = self.devices.pools.put(slice);
        self.note_unreadable(Source::ResourceSlices, before, unreadable);
        self.touch_pools(&pools);
    }

    fn remove_slice(&mut self, name: &str, uid: &str) {
        let Some((unreadable, pool)) = self.devices.pools.take(name, uid) else { return };
        self.note_unreadable(Source::ResourceSlices, unreadable, 0);
        self.touch_pools(&[pool]);
    }

    fn set_claim(&mut self, mut claim: Claim) {
        let known = self.devices.claims.get(&claim.name);
        if known.is_some_and(|known| known.rank > claim.rank || *known == claim) {
            return;
        }
        // Usually the requests have not changed.
        let requests = known.map(|known| known.requests.clone()).filter(|known| *known == claim.requests);
        claim.requests = requests.unwrap_or_else(|| kept(&mut self.requests, &claim.requests));
        claim.share_names(|name| self.share(name));
        // The pods that use the claim already store its name.
        if let Some((used, _)) = self.devices.users.get_key_value(&claim.name) {
            claim.name = used.clone();
        }
        for consumer in &mut claim.reserved_for {
            // The pod already stores its UID.
            if let Consumer::Pod(uid) = consumer
                && let Some((_, pod)) = self.pods.of_uid(uid)
            {
                *uid = pod.uid.clone();
            }
        }
        self.devices.claims.share_nodes(&mut claim);
        let (name, after) = (claim.name.clone(), claim.requests.unreadable());
        let before = self.devices.claims.put(claim);
        let was = before.as_ref().map_or(0, |claim| claim.requests.unreadable());
        self.note_unreadable(Source::ResourceClaims, was, after);
        let mut nodes = before.map(|before| self.nodes_of(&before)).unwrap_or_default();
        nodes.extend(self.nodes_of_named(&name));
        self.touch_nodes(nodes);
    }

    fn remove_claim(&mut self, name: &ClaimName, uid: &Uid) {
        let Some(gone) = self.devices.claims.take(name, uid) else { return };
        self.note_unreadable(Source::ResourceClaims, gone.requests.unreadable(), 0);
        self.touch_claim(&gone);
    }

    fn set_claim_template(&mut self, template: ClaimTemplate) {
        let known = self.devices.templates.get(&template.name);
        if known.is_none_or(|known| known.rank <= template.rank) {
            let (before, after) =
                (known.map_or(0, |known| known.requests.unreadable()), template.requests.unreadable());
            self.note_unreadable(Source::ResourceClaimTemplates, before, after);
            self.devices.templates.insert(template.name.clone(), Arc::new(template));
        }
    }

    fn remove_claim_template(&mut self, name: &ClaimName, uid: &str) {
        if self.devices.templates.get(name).is_some_and(|known| same(&known.uid, uid))
            && let Some(gone) = self.devices.templates.remove(name)
        {
            self.note_unreadable(Source::ResourceClaimTemplates, gone.requests.unreadable(), 0);
        }
    }

    fn set_device_class(&mut self, class: DeviceClass) {
        let known = self.devices.classes.get(&class.name);
        if known.is_none_or(|known| known.rank <= class.rank && **known != class) {
            self.devices.classes.insert(class.name.clone(), Arc::new(class));
            self.touch_all_devices();
        }
    }

    fn remove_device_class(&mut self, name: &str, uid: &str) {
        if self.devices.classes.get(name).is_some_and(|known| same(&known.uid, uid)) {
            self.devices.classes.remove(name);
            self.touch_all_devices();
        }
    }

    fn set_taint_rule(&mut self, rule: TaintRule) {
        let known = self.devices.rules.get(&rule.name);
        if known.is_none_or(|known| known.rank <= rule.rank && **known != rule) {
            let rule = Arc::new(rule);
            if let Some(before) = self.devices.rules.insert(rule.name.clone(), rule.clone()) {
                self.touch_tainted(&before);
            }
            self.touch_tainted(&rule);
        }
    }

    fn remove_taint_rule(&mut self, name: &str, uid: &str) {
        if self.devices.rules.get(name).is_some_and(|known| same(&known.uid, uid))
            && let Some(gone) = self.devices.rules.remove(name)
        {
            self.touch_tainted(&gone);
        }
    }

    /// Removes the objects of a list of devices or claims that the list no longer contains.
    pub(in crate::cluster) fn keep_devices(&mut self, source: Source, objects: &[Object]) {
        let listed: HashSet<(&str, &str)> = objects.iter().map(Object::name).collect();
        let is_gone = |namespace: &str, name: &str| !listed.contains(&(namespace, name));
        let names =
            |of: &mut dyn Iterator<Item = &Arc<str>>| of.filter(|name| is_gone("", name)).cloned().collect::<Vec<_>>();
        match source {
            Source::ResourceSlices => {
                let gone = names(&mut self.devices.pools.slice_names());
                for name in &gone {
                    self.remove_slice(name, "");
                }
            }
            Source::ResourceClaims => {
                let all = self.devices.claims.all().map(|claim| &claim.name);
                let gone: Vec<_> = all.filter(|of| is_gone(&of.namespace, &of.name)).cloned().collect();
                for name in &gone {
                    self.remove_claim(name, &Uid::Unknown);
                }
            }
            Source::ResourceClaimTemplates => {
                let all = self.devices.templates.keys();
                let gone: Vec<_> = all.filter(|of| is_gone(&of.namespace, &of.name)).cloned().collect();
                for name in &gone {
                    self.remove_claim_template(name, "");
                }
            }
            Source::DeviceClasses => {
                let gone = names(&mut self.devices.classes.keys());
                for name in &gone {
                    self.remove_device_class(name, "");
                }
            }
            Source::DeviceTaintRules => {
                let gone = names(&mut self.devices.rules.keys());
                for name in &gone {
                    self.remove_taint_rule(name, "");
                }
            }
            _ => {}
        }
    }

    /// Records that a pod uses claims, or no longer uses them.
    pub(in crate::cluster) fn note_claims_used(&mut self, pod: &Pod, place: Place, uses: bool) {
        let Some(claims) = pod.claims() else { return };
        if let Some(node) = &pod.node {
            note(&mut self.devices.pods_on, node.clone(), place, uses);
        }
        for name in &claims.names {
            let name = ClaimName { namespace: pod.namespace.clone(), name: name.clone() };
            note(&mut self.devices.users, name, place, uses);
        }
    }

    /// Whether the pod at that place uses no claims.
    pub(in crate::cluster) fn uses_no_devices(&self, place: Place) -> bool {
        let uses = |pod: &Pod| {
            pod.claims().is_some()
                || (!self.devices.claims.is_empty() && self.devices.claims.reserved_for(&pod.uid).next().is_some())
        };
        !self.pods.at(place).is_some_and(uses)
    }

    /// A pod changed: the nodes of the devices that it holds change with it.
    pub(in crate::cluster) fn touch_devices_of(&mut self, pod: &Pod) {
        if self.devices.claims.is_empty() && self.devices.users.is_empty() {
            return;
        }
        let used = pod.claims().into_iter().flat_map(|claims| &claims.names);
        let used = used.map(|name| ClaimName { namespace: pod.namespace.clone(), name: name.clone() });
        let reserved = self.devices.claims.reserved_for(&pod.uid).map(|claim| claim.name.clone());
        let mut names: Vec<ClaimName> = used.chain(reserved).collect();
        names.sort();
        names.dedup();
        for name in &names {
            self.touch_claim_named(name);
        }
    }

    fn touch_claim_named(&mut self, name: &ClaimName) {
        self.touch_nodes(self.nodes_of_named(name));
    }

    /// The nodes that a claim concerns, and the nodes of the pods that use it.
    fn nodes_of_named(&self, name: &ClaimName) -> BTreeSet<Arc<str>> {
        let mut nodes = self.devices.claims.get(name).map(|claim| self.nodes_of(claim)).unwrap_or_default();
        self.add_nodes_of_users(name, &mut nodes);
        nodes
    }

    fn add_nodes_of_users(&self, name: &ClaimName, nodes: &mut BTreeSet<Arc<str>>) {
        let users = self.devices.users.get(name).into_iter().flatten().filter_map(|place| self.pods.at(*place));
        nodes.extend(users.filter_map(|pod| pod.node.clone()));
    }

    fn touch_claim(&mut self, claim: &Claim) {
        let mut nodes = self.nodes_of(claim);
        self.add_nodes_of_users(&claim.name, &mut nodes);
        self.touch_nodes(nodes);
    }

    /// The nodes of the devices that are allocated to a claim.
    fn nodes_of(&self, claim: &Claim) -> BTreeSet<Arc<str>> {
        let mut nodes: BTreeSet<Arc<str>> = claim.only_node().map(Arc::from).into_iter().collect();
        // The claim represents the pod's requests of an extended resource, wherever the devices are.
        let pod = claim.extended_of().and_then(|uid| self.pods.of_uid(uid));
        nodes.extend(pod.and_then(|(_, pod)| pod.node.clone()));
        for granted in claim.granted() {
            let Some(pool) = self.devices.pools.get(&PoolName::of_granted(granted)) else { continue };
            match pool.nodes() {
                [node] => drop(nodes.insert(node.clone())),
                several => {
                    let listed = pool.listed().find(|listed| *listed.name() == granted.device);
                    match listed {
                        Some(listed) => nodes.extend(listed.node().cloned()),
                        // A device that it was partitioned from may be on any of these nodes.
                        None => nodes.extend(several.iter().cloned()),
                    }
                }
            }
        }
        nodes
    }

    fn touch_pools(&mut self, pools: &[pools::Changed]) {
        let mut nodes = BTreeSet::new();
        for pools::Changed { name, nodes: before } in pools {
            nodes.extend(before.iter().cloned());
            let after = self.devices.pools.get(name);
            nodes.extend(after.iter().flat_map(|pool| pool.nodes()).cloned());
            // Devices that its claims hold may now be listed, or no longer listed.
            let claims = self.devices.claims.of_pool(name);
            nodes.extend(claims.filter_map(Claim::only_node).map(Arc::from));
        }
        self.touch_nodes(nodes);
    }

    /// Updates the revision of the nodes that may have devices tainted by a rule.
    fn touch_tainted(&mut self, rule: &TaintRule) {
        match rule.about() {
            (Some(driver), Some(pool)) => {
                let name = PoolName { driver: driver.clone(), pool: pool.clone() };
                self.touch_pools(&[pools::Changed { name, nodes: Box::default() }]);
            }
            _ => self.touch_all_devices(),
        }
    }

    fn touch_all_devices(&mut self) {
        let mut nodes: BTreeSet<Arc<str>> = self.devices.pools.nodes().cloned().collect();
        nodes.extend(self.devices.claims.nodes().cloned());
        nodes.extend(self.devices.pods_on.keys().cloned());
        self.touch_nodes(nodes);
    }

    fn touch_nodes(&mut self, nodes: BTreeSet<Arc<str>>) {
        for node in nodes {
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.revision = self.revision.next();
            }
        }
    }
}

/// Adds a place to those of a key, or removes it.
fn note<K: Eq + std::hash::Hash>(table: &mut Table<K, Vec<Place>>, key: K, place: Place, is_there: bool) {
    if is_there {
        let places = table.entry(key).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
    } else if let Some(places) = table.get_mut(&key) {
        places.retain(|known| *known != place);
        if places.is_empty() {
            table.remove(&key);
        }
    }
}
