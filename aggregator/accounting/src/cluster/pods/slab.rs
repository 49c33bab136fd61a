//! Pods side by side in memory, each in a place of its own until it is taken out.
use crate::object::Pod;

/// So many lie in one piece. Pieces are neither moved nor copied when there are more: a list that grew as a whole would for that
/// moment be in memory twice. One is below the 128 KiB from which on the allocator maps memory for each apart.
const PIECE: usize = 256;

/// Where a pod is. Another may be there later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    fn parts(self) -> (usize, usize) {
        (self.0 as usize / PIECE, self.0 as usize % PIECE)
    }
}

/// See the module's documentation. Places that are free are used again first: it is as large as the most pods that there were at
/// the same time.
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// All full but the last; absent in a place that is free.
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

    /// How many there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }

    /// Puts one in, and says where.
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
        // As many as there may be are far more than fit into memory.
        Place(place as u32)
    }

    /// Takes out the one that is there.
    pub(super) fn take(&mut self, place: Place) -> Option<Pod> {
        let pod = self.slot(place)?.take();
        if pod.is_some() {
            self.free.push(place);
        }
        pod
    }
}
