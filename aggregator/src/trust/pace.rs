//! How often a node may report. Owns one bucket of tokens a node; asks no clock.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::table::Table;

/// Between two reports, on average. An agent sends at most ten a second (`--interval 100ms`), and as many again where it tries
/// anew.
const EVERY: Duration = Duration::from_millis(50);
/// Reports at once after a silence: two seconds' worth, for an agent that tries anew while another takes its place.
pub const AT_ONCE: u32 = 40;
/// Nodes that are remembered. One that may send [`AT_ONCE`] again needs no remembering, which is after two seconds.
const MAX_NODES: usize = 65_536;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Pace {
    /// When each node's bucket will be full again.
    nodes: Mutex<Table<NodeName, Duration>>,
}

impl Pace {
    /// Whether a node may report now; if so, it did.
    pub fn admits(&self, node: &NodeName, now: Now) -> bool {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.since_start;
        if nodes.len() >= MAX_NODES && !nodes.contains_key(node) {
            nodes.retain(|_, full| *full > now);
            if nodes.len() >= MAX_NODES {
                return false;
            }
        }
        let known = nodes.get_mut(node);
        let full = known.as_deref().copied().unwrap_or(now).max(now) + EVERY;
        if full > now + EVERY * AT_ONCE {
            return false;
        }
        match known {
            Some(known) => *known = full,
            None => drop(nodes.insert(node.clone(), full)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use mcad_testkit::reports::at;

    use super::*;

    #[test]
    fn a_node_sends_so_many_at_once_and_then_one_each_time_that_one_more_is_due() {
        let (pace, node) = (Pace::default(), NodeName::new("n").unwrap());
        let sent = |now| (0..100).filter(|_| pace.admits(&node, now)).count();
        assert_eq!(sent(at(0)), AT_ONCE as usize);
        assert_eq!(sent(at(1)), 20);
        assert_eq!(sent(at(2)), 20);
        assert_eq!(sent(at(100)), AT_ONCE as usize);
        assert!(pace.admits(&NodeName::new("other").unwrap(), at(0)), "each node has its own");
    }

    #[test]
    fn no_more_nodes_are_remembered_than_there_may_be_and_those_at_rest_make_room() {
        let pace = Pace::default();
        let node = |number: usize| NodeName::new(&number.to_string()).unwrap();
        assert!((0..MAX_NODES).all(|number| pace.admits(&node(number), at(0))));
        assert!(!pace.admits(&node(MAX_NODES), at(0)));
        assert!(pace.admits(&node(0), at(0)), "who is remembered goes on");
        assert!(pace.admits(&node(MAX_NODES), at(1)));
    }
}
