//! Values under small numbers that stay the same while the value is there.

use std::ops::{Index, IndexMut};

/// No value: ends lists and stands for an absent link.
pub(super) const NONE: u32 = u32::MAX;

/// Values of a chunk. Chunks never move, so a slab of a million values grows without copying what is there.
const CHUNK_LENGTH: usize = 1024;

#[derive(Clone, Debug)]
enum Slot<V> {
    /// The next free slot.
    Free(u32),
    Used(V),
}

/// A slab. Freed numbers are used again, the last freed one first; an empty slab holds no heap.
#[derive(Clone, Debug)]
pub(super) struct Slab<V> {
    chunks: Vec<Vec<Slot<V>>>,
    first_free: u32,
    len: usize,
}

impl<V> Slab<V> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), first_free: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Stores a value and returns its number.
    ///
    /// # Panics
    /// At 2^32 - 1 values, which no machine that this runs on can hold.
    pub(super) fn insert(&mut self, value: V) -> u32 {
        self.len += 1;
        if let Some(slot) = self.slot_mut(self.first_free)
            && let Slot::Free(next) = *slot
        {
            *slot = Slot::Used(value);
            return std::mem::replace(&mut self.first_free, next);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LENGTH) {
            // The first chunk grows as it fills: most slabs are small. The others come whole.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK_LENGTH };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let chunk_index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk_index];
        let key = chunk_index * CHUNK_LENGTH + chunk.len();
        assert!(key < NONE as usize, "a slab holds at most 2^32 - 1 values");
        chunk.push(Slot::Used(value));
        key as u32
    }

    pub(super) fn get(&self, key: u32) -> Option<&V> {
        match self.chunks.get(key as usize / CHUNK_LENGTH)?.get(key as usize % CHUNK_LENGTH)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut V> {
        match self.slot_mut(key)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn remove(&mut self, key: u32) -> Option<V> {
        let next = self.first_free;
        let slot = self.slot_mut(key)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(next)) else {
            return None;
        };
        self.first_free = key;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::new();
        }
        Some(value)
    }

    /// Every value with its number, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        (0u32..).zip(self.chunks.iter().flatten()).filter_map(|(key, slot)| match slot {
            Slot::Used(value) => Some((key, value)),
            Slot::Free(_) => None,
        })
    }

    fn slot_mut(&mut self, key: u32) -> Option<&mut Slot<V>> {
        self.chunks.get_mut(key as usize / CHUNK_LENGTH)?.get_mut(key as usize % CHUNK_LENGTH)
    }
}

impl<V> Index<u32> for Slab<V> {
    type Output = V;

    /// For links inside a structure, which never point at a freed value.
    fn index(&self, key: u32) -> &V {
        let Some(value) = self.get(key) else { dangling(key) };
        value
    }
}

impl<V> IndexMut<u32> for Slab<V> {
    fn index_mut(&mut self, key: u32) -> &mut V {
        let Some(value) = self.get_mut(key) else { dangling(key) };
        value
    }
}

#[cold]
fn dangling(key: u32) -> ! {
    panic!("a link of the URI map points at {key}, which is free: the map is corrupt, this is a bug");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_used_again() {
        let mut slab = Slab::new();
        let keys: Vec<u32> = (0..3000u32).map(|value| slab.insert(value)).collect();
        assert!(keys.iter().all(|&key| slab[key] == key));
        assert_eq!((slab.remove(7), slab.remove(2000), slab.remove(7)), (Some(7), Some(2000), None));
        assert_eq!((slab.get(7), slab.len()), (None, 2998));
        assert_eq!((slab.insert(5), slab.insert(6), slab.insert(8)), (2000, 7, 3000));
        assert_eq!(slab.iter().count(), 3001);
        for key in 0..=3000 {
            assert!(slab.remove(key).is_some());
        }
        assert_eq!((slab.len(), slab.chunks.capacity(), slab.first_free), (0, 0, NONE));
        assert_eq!(slab.get(NONE), None);
    }
}
