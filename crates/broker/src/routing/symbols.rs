//! Names of levels as small numbers, so that a subject's level is hashed once and then compared as an integer at
//! every node. Counted: a name lives as long as some node bears it.

use ahash::AHashMap;
use slab::Slab;

#[derive(Debug, Default)]
pub(super) struct Symbols {
    ids: AHashMap<Box<str>, u32>,
    /// How many nodes bear the name.
    uses: Slab<u32>,
}

impl Symbols {
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The number of `name`, with one more use.
    pub(super) fn acquire(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            self.uses[*id as usize] += 1;
            return *id;
        }
        let id = self.uses.insert(1) as u32;
        self.ids.insert(name.into(), id);
        id
    }

    /// Takes back one use of `name`, whose number is `id`.
    pub(super) fn release(&mut self, name: &str, id: u32) {
        let uses = &mut self.uses[id as usize];
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        self.uses.remove(id as usize);
        self.ids.remove(name);
        if self.ids.len() * 4 < self.ids.capacity() {
            let keep = self.ids.len() * 2;
            self.ids.shrink_to(keep);
            self.uses.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
