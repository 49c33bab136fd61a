//! How free accelerators are distributed: how many pods with a given number of devices could start now, and the most
//! that is free on one node (docs/accounting.md §5).
use std::collections::BTreeMap;

use crate::ladder::ResourceLadder;
use crate::options::Options;
use crate::resource::Resource;
use crate::views::NodeView;

/// The distribution of what is free, for each accelerator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    /// The distribution of `nvidia.com/gpu`. `None` if devices are not known and no node has any that are known.
    pub gpu: Option<Shape>,
    /// The distribution of every other accelerator in a node's ladder.
    pub others: BTreeMap<Resource, Shape>,
}

/// How the free devices of one accelerator are distributed over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of pods with `k` devices that could start now, by `k`.
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
    /// The distribution over no nodes. `are_devices_known`: whether it is known which devices exist.
    pub(super) fn new(are_devices_known: bool) -> Self {
        Self { gpu: are_devices_known.then(Shape::default), others: BTreeMap::new() }
    }

    /// Adds a node.
    pub(super) fn add(&mut self, view: &NodeView, options: &Options) {
        let beside = Beside::of(view, options);
        for (resource, rung) in &view.rungs {
            match resource {
                Resource::Gpu => self.gpu.get_or_insert_default().add(rung.surely_free(), &beside),
                Resource::Extended(name) if options.is_accelerator(name) => {
                    self.others.entry(resource.clone()).or_default().add(rung.surely_free(), &beside);
                }
                _ => {}
            }
        }
    }

    /// Every accelerator and its distribution.
    pub fn iter(&self) -> impl Iterator<Item = (&Resource, &Shape)> {
        self.gpu.iter().map(|gpu| (&Resource::Gpu, gpu)).chain(&self.others)
    }

    /// Adds the distribution over other nodes.
    pub(super) fn add_all(&mut self, other: &Self) {
        if let Some(gpu) = &other.gpu {
            self.gpu.get_or_insert_default().add_all(gpu);
        }
        for (resource, shape) in &other.others {
            self.others.entry(resource.clone()).or_default().add_all(shape);
        }
    }
}

/// What is free on a node besides its accelerators, and how much of it each device needs.
struct Beside {
    millicores: i128,
    bytes: i128,
    millicores_each: i128,
    bytes_each: i128,
    pods: i128,
}

impl Beside {
    fn of(view: &NodeView, options: &Options) -> Self {
        let free = |resource| view.rung(&resource).map_or(0, ResourceLadder::surely_free);
        Self {
            millicores: free(Resource::Cpu),
            bytes: free(Resource::Memory),
            millicores_each: options.slot_millicores_per_gpu.into(),
            bytes_each: options.slot_bytes_per_gpu.into(),
            pods: view.room.for_pods(),
        }
    }

    /// How many pods with this many devices each fit.
    fn pods_of(&self, count: i128) -> i128 {
        // If a device needs nothing else, any number fits.
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
    fn add_all(&mut self, other: &Self) {
        self.largest_block = self.largest_block.max(other.largest_block);
        for ((_, slots), (_, more)) in self.slots.iter_mut().zip(other.slots) {
            *slots += more;
        }
    }
}
