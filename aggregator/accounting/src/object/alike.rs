//! Values that many objects have in common, each in memory once. The list of 10,000 nodes is in memory as a whole while it is read, and is
//! far larger than what is kept of it.
use std::collections::HashSet;
use std::sync::Arc;

use super::request::Requests;
use super::slice::Described;
use super::{NodeSelector, Object};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Alike {
    names: HashSet<Arc<str>>,
    described: HashSet<Arc<Described>>,
    requests: HashSet<Arc<Requests>>,
    selectors: HashSet<Arc<NodeSelector>>,
}

impl Alike {
    /// Replaces values that earlier objects have, too, by the earlier ones. The content of the object stays the same.
    pub fn share(&mut self, object: &mut Object) {
        let Self { names, described, requests, selectors } = self;
        match object {
            Object::ResourceSlice(slice) => slice.share(|name| once(names, name), |alike| once(described, alike)),
            Object::ResourceClaim(claim) => {
                claim.share_names(|name| once(names, name));
                claim.share_nodes(|nodes| once(selectors, nodes));
                claim.requests = once(requests, &claim.requests);
            }
            _ => {}
        }
    }
}

fn once<T: ?Sized + Eq + std::hash::Hash>(known: &mut HashSet<Arc<T>>, value: &Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(value) {
        return known.clone();
    }
    known.insert(value.clone());
    value.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::{Kind, read};

    fn slice(name: &str, uuid: &str) -> Object {
        let json = json!({"metadata": {"name": name}, "spec": {"driver": "gpu.nvidia.com", "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"uuid": {"string": uuid}, "type": {"string": "gpu"}}}]}});
        read(Kind::ResourceSlice, &json).unwrap()
    }

    #[test]
    fn what_is_alike_is_one_and_the_object_is_what_it_was() {
        let (mut alike, mut described) = (Alike::default(), Vec::new());
        for (name, uuid) in [("a", "GPU-1"), ("b", "GPU-2")] {
            let mut object = slice(name, uuid);
            alike.share(&mut object);
            assert_eq!(object, slice(name, uuid));
            let Object::ResourceSlice(slice) = object else { panic!("another kind") };
            described.push(slice.devices[0].described.clone());
        }
        assert!(Arc::ptr_eq(&described[0], &described[1]));
    }
}
