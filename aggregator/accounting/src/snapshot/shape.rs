//! The shape of what is free: how many pods of so many devices could start now, and the most that is free on one node
//! (docs/accounting.md §5).
use std::collections::BTreeMap;

use crate::ladder::Rung;
use crate::options::Options;
use crate::resource::Resource;
use crate::views::NodeView;

/// The shape of what is free of each accelerator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    /// Of `nvidia.com/gpu`.
    pub gpu: Shape,
    /// Of each other accelerator that a node's ladder has.
    pub others: BTreeMap<Resource, Shape>,
}

/// How what is free of one accelerator is spread over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pods of `k` devices that could start now, by `k`.
    pub slots: [(u32, i128); 4],
    /// The most free devices on one admissible node.
    pub largest_block: i128,
}

impl Default for Shape {
    fn default() -> Self {
        Self { slots: [1, 2, 4, 8].map(|count| (count, 0)), largest_block: 0 }
    }
}

impl Shapes {
    /// Adds a node.
    pub(super) fn add(&mut self, view: &NodeView, options: &Options) {
        let beside = Beside::of(view, options);
        for (resource, rung) in &view.rungs {
            match resource {
                Resource::Gpu => self.gpu.add(rung.surely_free(), &beside),
                Resource::Extended(name) if options.is_accelerator(name) => {
                    self.others.entry(resource.clone()).or_default().add(rung.surely_free(), &beside);
                }
                _ => {}
            }
        }
    }
}

/// What is left on a node beside its accelerators, in devices that it suffices for.
struct Beside {
    millicores: i128,
    bytes: i128,
    millicores_each: i128,
    bytes_each: i128,
    pods: i128,
}

impl Beside {
    fn of(view: &NodeView, options: &Options) -> Self {
        let free = |resource| view.rung(&resource).map_or(0, Rung::surely_free);
        Self {
            millicores: free(Resource::Cpu),
            bytes: free(Resource::Memory),
            millicores_each: options.slot_millicores_per_gpu.into(),
            bytes_each: options.slot_bytes_per_gpu.into(),
            pods: view.room.for_pods(),
        }
    }

    /// How many pods of so many devices each have room.
    fn pods_of(&self, count: i128) -> i128 {
        // Nothing beside a device means that any number fits.
        let of = |free: i128, each: i128| free.checked_div(each * count).unwrap_or(i128::MAX);
        of(self.millicores, self.millicores_each).min(of(self.bytes, self.bytes_each)).min(self.pods)
    }
}

impl Shape {
    fn add(&mut self, free: i128, beside: &Beside) {
        self.largest_block = self.largest_block.max(free);
        for (count, slots) in self.slots.iter_mut().filter(|_| free > 0) {
            let count = i128::from(*count);
            *slots += (free / count).min(beside.pods_of(count));
        }
    }
}
