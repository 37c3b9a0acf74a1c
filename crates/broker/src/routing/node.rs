//! What a node of the trie holds: its children by level, and the values of the filters that end there.
//! Performance critical: both are small vectors searched in order until they are long enough for a hash table.

use std::hash::Hash;

use ahash::AHashMap;

/// Above this many entries a table is hashed; it goes back to a vector at half of it.
const LINEAR_MAX: usize = 8;

/// No such child.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Node<V> {
    pub(super) literals: Children,
    /// The child for any one level, or [`NONE`].
    pub(super) one: u32,
    /// The child for zero or more levels, or [`NONE`].
    pub(super) many: u32,
    /// Whether some ancestor is a many-level wildcard, so that a match can come here more than once.
    pub(super) looped: bool,
    pub(super) entry: Option<Box<Entry<V>>>,
}

impl<V> Node<V> {
    pub(super) fn new(looped: bool) -> Node<V> {
        Node { literals: Children::default(), one: NONE, many: NONE, looped, entry: None }
    }

    pub(super) fn has_children(&self) -> bool {
        self.one != NONE || self.many != NONE || self.literals.len() > 0
    }
}

/// The values of the filters that end at a node.
#[derive(Debug)]
pub(super) struct Entry<V> {
    /// Of filters that see every subject.
    pub(super) open: Values<V>,
    /// Of filters that leave out subjects that start with `$`.
    pub(super) hiding: Values<V>,
}

impl<V> Default for Entry<V> {
    fn default() -> Entry<V> {
        Entry { open: Values::default(), hiding: Values::default() }
    }
}

impl<V> Entry<V> {
    pub(super) fn side(&mut self, hides_dollar: bool) -> &mut Values<V> {
        if hides_dollar { &mut self.hiding } else { &mut self.open }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.list.is_empty() && self.hiding.list.is_empty()
    }
}

/// A set of values in the order of insertion, but for holes filled from the end.
#[derive(Debug)]
pub(super) struct Values<V> {
    pub(super) list: Vec<V>,
    places: Option<Box<AHashMap<V, u32>>>,
}

impl<V> Default for Values<V> {
    fn default() -> Values<V> {
        Values { list: Vec::new(), places: None }
    }
}

impl<V: Copy + Eq + Hash> Values<V> {
    pub(super) fn insert(&mut self, value: V) -> bool {
        if self.place(value).is_some() {
            return false;
        }
        self.list.push(value);
        if let Some(places) = &mut self.places {
            places.insert(value, (self.list.len() - 1) as u32);
        } else if self.list.len() > LINEAR_MAX {
            self.places = Some(Box::new(self.list.iter().copied().zip(0..).collect()));
        }
        true
    }

    pub(super) fn remove(&mut self, value: V) -> bool {
        let Some(place) = self.place(value) else { return false };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&value);
            if let Some(moved) = self.list.get(place) {
                places.insert(*moved, place as u32);
            }
            if self.list.len() <= LINEAR_MAX / 2 {
                self.places = None;
            } else if places.len() * 4 < places.capacity() {
                let keep = places.len() * 2;
                places.shrink_to(keep);
            }
        }
        if self.list.len() * 4 < self.list.capacity() {
            self.list.shrink_to(self.list.len() * 2);
        }
        true
    }

    fn place(&self, value: V) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&value).map(|place| *place as usize),
            None => self.list.iter().position(|held| *held == value),
        }
    }
}

/// Literal children: symbol of the level -> node.
#[derive(Debug)]
pub(super) enum Children {
    Few(Vec<(u32, u32)>),
    Many(Box<AHashMap<u32, u32>>),
}

impl Default for Children {
    fn default() -> Children {
        Children::Few(Vec::new())
    }
}

impl Children {
    pub(super) fn get(&self, symbol: u32) -> Option<u32> {
        match self {
            Children::Few(list) => list.iter().find(|(held, _)| *held == symbol).map(|(_, node)| *node),
            Children::Many(table) => table.get(&symbol).copied(),
        }
    }

    pub(super) fn insert(&mut self, symbol: u32, node: u32) {
        match self {
            Children::Few(list) if list.len() < LINEAR_MAX => list.push((symbol, node)),
            Children::Few(list) => {
                let mut table: AHashMap<u32, u32> = list.drain(..).collect();
                table.insert(symbol, node);
                *self = Children::Many(Box::new(table));
            }
            Children::Many(table) => {
                table.insert(symbol, node);
            }
        }
    }

    pub(super) fn remove(&mut self, symbol: u32) {
        match self {
            Children::Few(list) => {
                list.retain(|(held, _)| *held != symbol);
                list.shrink_to(list.len() * 2);
            }
            Children::Many(table) => {
                table.remove(&symbol);
                if table.len() <= LINEAR_MAX / 2 {
                    *self = Children::Few(table.drain().collect());
                } else if table.len() * 4 < table.capacity() {
                    let keep = table.len() * 2;
                    table.shrink_to(keep);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Children::Few(list) => list.len(),
            Children::Many(table) => table.len(),
        }
    }

    pub(super) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut u32> {
        let (few, many) = match self {
            Children::Few(list) => (Some(list), None),
            Children::Many(table) => (None, Some(table)),
        };
        let few = few.into_iter().flatten().map(|(_, node)| node);
        few.chain(many.into_iter().flat_map(|table| table.values_mut()))
    }
}
