//! Stores pods in fixed-size chunks of memory. A pod stays at its place until it is taken out.
use crate::object::Pod;

/// Pods per chunk. Chunks are neither moved nor copied when more are added; a single growing list would briefly need
/// twice its memory. A chunk is smaller than 128 KiB, the size from which the allocator maps memory for each allocation
/// separately.
const PIECE: usize = 256;

/// Identifies where a pod is stored. Another pod may use the place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    fn parts(self) -> (usize, usize) {
        (self.0 as usize / PIECE, self.0 as usize % PIECE)
    }
}

/// See the module's documentation. Free places are reused first, so the size is determined by the highest number of
/// pods that existed at the same time.
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// All chunks except the last are full. A free place is `None`.
    pieces: Vec<Vec<Option<Pod>>>,
    free: Vec<Place>,
}

impl Slab {
    pub(super) fn get(&self, place: Place) -> Option<&Pod> {
        let (piece, at) = place.parts();
        self.pieces.get(piece)?.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Pod> {
        self.slot(place)?.as_mut()
    }

    fn slot(&mut self, place: Place) -> Option<&mut Option<Pod>> {
        let (piece, at) = place.parts();
        self.pieces.get_mut(piece)?.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.pieces.iter().flatten().flatten()
    }

    /// How many pods fit without another allocation.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }

    /// Stores a pod, and returns its place.
    pub(super) fn put(&mut self, pod: Pod) -> Place {
        if let Some(place) = self.free.pop()
            && let Some(slot) = self.slot(place)
        {
            *slot = Some(pod);
            return place;
        }
        if self.pieces.last().is_none_or(|last| last.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let mut place = (self.pieces.len() - 1) * PIECE;
        if let Some(last) = self.pieces.last_mut() {
            place += last.len();
            last.push(Some(pod));
        }
        // The highest place needs far more pods than fit into memory.
        Place(place as u32)
    }

    /// Removes and returns the pod at that place.
    pub(super) fn take(&mut self, place: Place) -> Option<Pod> {
        let pod = self.slot(place)?.take();
        if pod.is_some() {
            self.free.push(place);
        }
        pod
    }
}
