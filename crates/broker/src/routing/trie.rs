//! The trie of filters. Performance critical: it is asked for every message that its callers have not cached.
//!
//! Filters without a wildcard are in a hash table by whole name. The others are a trie by level; a match moves a
//! set of nodes through it, one level of the subject at a time:
//!
//! ```text
//!   filters  a/+/c   a/#/d          subject a / b / d
//!                                             |   |   |
//!   root -- a -+- + -- c              {root} {a} {+} { }      at the end: values of the set match
//!              +- # -- d         entered:     {#} {#} {#}     a `#` stays once entered, and matches at once
//!                                                     {d}
//! ```
//!
//! Invariant: a node is in the set at most once per level. A node that is not a `#` has one parent, whose step
//! alone leads to it; a `#` is entered once in a match and stays. So a match costs at most nodes of the trie times
//! levels of the subject whatever the filters are, and nothing here recurses.

use std::hash::Hash;
use std::mem;

use ahash::{AHashMap, AHashSet};
use slab::Slab;

use super::filter::{Filter, Level, Levels};
use super::node::{Entry, NONE, Node, Values};
use super::symbols::Symbols;

const ROOT: u32 = 0;

/// Below this many slots the arena is not worth packing.
const PACK_FROM: usize = 1024;

/// Filters with values, of every dialect together; finds the values whose filters match a subject.
///
/// A filter may have many values, and a value many filters. Values are compared, copied and never looked into.
#[derive(Debug)]
pub struct Trie<V> {
    exact: AHashMap<Box<str>, Values<V>>,
    /// Invariant: the root is at [`ROOT`] and always there; any other node has children or an entry.
    nodes: Slab<Node<V>>,
    symbols: Symbols,
    generation: u64,
    len: usize,
}

/// The working memory of matching, kept by the caller so that a match allocates nothing once it has grown.
#[derive(Debug, Default)]
pub struct Scratch {
    current: Vec<u32>,
    next: Vec<u32>,
    /// The `#` nodes entered that have children, in order of entry.
    staying: Vec<u32>,
    /// The `#` nodes below another `#` that were entered; only these can be met twice.
    entered: AHashSet<u32>,
    visited: u64,
}

impl Scratch {
    /// How many nodes the last match looked at.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    fn clear(&mut self) {
        self.current.clear();
        self.staying.clear();
        self.entered.clear();
        self.visited = 0;
    }
}

impl<V: Copy + Eq + Hash> Default for Trie<V> {
    fn default() -> Trie<V> {
        Trie::new()
    }
}

impl<V: Copy + Eq + Hash> Trie<V> {
    /// A trie without filters, at generation 0.
    pub fn new() -> Trie<V> {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(false));
        Trie { exact: AHashMap::new(), nodes, symbols: Symbols::default(), generation: 0, len: 0 }
    }

    /// Adds `value` to `filter`. False, and nothing changes, if it was there.
    pub fn insert(&mut self, filter: &Filter, value: V) -> bool {
        let is_new = if filter.is_exact() {
            match self.exact.get_mut(filter.as_str()) {
                Some(values) => values.insert(value),
                None => self.exact.entry(filter.as_str().into()).or_default().insert(value),
            }
        } else {
            let (mut node, mut looped) = (ROOT, false);
            for level in filter.levels() {
                node = self.child_or_new(node, level, looped);
                looped |= level == Level::Many;
            }
            let entry = self.nodes[node as usize].entry.get_or_insert_default();
            entry.side(filter.hides_dollar()).insert(value)
        };
        self.len += usize::from(is_new);
        self.generation += u64::from(is_new);
        is_new
    }

    /// Takes `value` from `filter` and frees what nothing else needs. False, and nothing changes, if it was not
    /// there.
    pub fn remove(&mut self, filter: &Filter, value: V) -> bool {
        let removed = if filter.is_exact() {
            self.remove_exact(filter, value)
        } else {
            self.remove_wild(filter, value)
        };
        self.len -= usize::from(removed);
        self.generation += u64::from(removed);
        removed
    }

    /// Calls `found` with each value whose filter matches `subject` (canonical spelling), once per filter: a value
    /// with two filters that match comes twice. The order is the same for the same history of calls.
    ///
    /// Costs in proportion to the nodes that match a prefix of the subject, not to the filters held.
    pub fn matches(&self, subject: &str, scratch: &mut Scratch, mut found: impl FnMut(V)) {
        scratch.clear();
        if let Some(values) = self.exact.get(subject) {
            values.list.iter().copied().for_each(&mut found);
        }
        if !self.nodes[ROOT as usize].has_children() {
            return;
        }
        let mut emit = Emit { found, sees_hiding: !subject.starts_with('$') };
        scratch.current.push(ROOT);
        self.enter_many(ROOT, scratch, &mut emit);
        for level in Levels::of(subject) {
            if scratch.current.is_empty() && scratch.staying.is_empty() {
                return;
            }
            self.step(self.symbols.get(level), scratch, &mut emit);
        }
        for node in &scratch.current {
            emit.entry(&self.nodes[*node as usize].entry);
        }
    }

    /// A number that grows with every change that could alter a match. A cached match is good while it stands.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many pairs of filter and value are held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the filters held take up: exact names, nodes and level names, 0 if there are none. For inspection.
    pub fn footprint(&self) -> usize {
        self.exact.len() + (self.nodes.len() - 1) + self.symbols.len()
    }

    #[cfg(test)]
    pub(super) fn nodes_held(&self) -> usize {
        self.nodes.capacity()
    }

    /// Moves the set of nodes over one level of the subject, `symbol` being its number if any filter has it.
    fn step(&self, symbol: Option<u32>, scratch: &mut Scratch, emit: &mut Emit<impl FnMut(V)>) {
        let current = mem::take(&mut scratch.current);
        let staying = scratch.staying.len();
        for at in 0..current.len() + staying {
            let from = if at < current.len() { current[at] } else { scratch.staying[at - current.len()] };
            scratch.visited += 1;
            let node = &self.nodes[from as usize];
            if let Some(child) = symbol.and_then(|symbol| node.literals.get(symbol)) {
                scratch.next.push(child);
                self.enter_many(child, scratch, emit);
            }
            if node.one != NONE {
                scratch.next.push(node.one);
                self.enter_many(node.one, scratch, emit);
            }
        }
        scratch.current = mem::replace(&mut scratch.next, current);
        scratch.next.clear();
    }

    /// Enters the `#` below `node`, and any that follow it without a level between.
    fn enter_many(&self, node: u32, scratch: &mut Scratch, emit: &mut Emit<impl FnMut(V)>) {
        let mut many = self.nodes[node as usize].many;
        while many != NONE {
            let node = &self.nodes[many as usize];
            if node.looped && !scratch.entered.insert(many) {
                return;
            }
            scratch.visited += 1;
            // It takes all that is left of the subject, so its values match already.
            emit.entry(&node.entry);
            if node.has_children() {
                scratch.staying.push(many);
            }
            many = node.many;
        }
    }

    fn remove_exact(&mut self, filter: &Filter, value: V) -> bool {
        let Some(values) = self.exact.get_mut(filter.as_str()) else { return false };
        let removed = values.remove(value);
        if values.list.is_empty() {
            self.exact.remove(filter.as_str());
            if self.exact.len() * 4 < self.exact.capacity() {
                let keep = self.exact.len() * 2;
                self.exact.shrink_to(keep);
            }
        }
        removed
    }

    fn remove_wild(&mut self, filter: &Filter, value: V) -> bool {
        let mut path = Vec::with_capacity(filter.levels().len() + 1);
        path.push(ROOT);
        for level in filter.levels() {
            match self.child(path[path.len() - 1], level) {
                Some(child) => path.push(child),
                None => return false,
            }
        }
        let end = &mut self.nodes[path[path.len() - 1] as usize];
        let Some(entry) = &mut end.entry else { return false };
        if !entry.side(filter.hides_dollar()).remove(value) {
            return false;
        }
        if entry.is_empty() {
            end.entry = None;
        }
        for (link, level) in path.windows(2).zip(filter.levels()).rev() {
            let child = &self.nodes[link[1] as usize];
            if child.entry.is_some() || child.has_children() {
                break;
            }
            self.nodes.remove(link[1] as usize);
            self.unlink(link[0], level);
        }
        self.pack();
        true
    }

    fn child(&self, parent: u32, level: Level<'_>) -> Option<u32> {
        let node = &self.nodes[parent as usize];
        match level {
            Level::Literal(name) => node.literals.get(self.symbols.get(name)?),
            Level::One => Some(node.one).filter(|child| *child != NONE),
            Level::Many => Some(node.many).filter(|child| *child != NONE),
        }
    }

    /// The child of `parent` for `level`; a new one is marked with whether it is below a `#`.
    fn child_or_new(&mut self, parent: u32, level: Level<'_>, looped: bool) -> u32 {
        if let Some(child) = self.child(parent, level) {
            return child;
        }
        let child = self.nodes.insert(Node::new(looped)) as u32;
        let parent = &mut self.nodes[parent as usize];
        match level {
            Level::Literal(name) => parent.literals.insert(self.symbols.acquire(name), child),
            Level::One => parent.one = child,
            Level::Many => parent.many = child,
        }
        child
    }

    fn unlink(&mut self, parent: u32, level: Level<'_>) {
        let parent = &mut self.nodes[parent as usize];
        match level {
            Level::Literal(name) => {
                let symbol = self.symbols.get(name).expect("a node bears this name until here");
                parent.literals.remove(symbol);
                self.symbols.release(name, symbol);
            }
            Level::One => parent.one = NONE,
            Level::Many => parent.many = NONE,
        }
    }

    /// Moves the nodes into a smaller arena when three quarters of it are free: a cost of one per removal.
    fn pack(&mut self) {
        if self.nodes.capacity() < PACK_FROM || self.nodes.len() * 4 >= self.nodes.capacity() {
            return;
        }
        let mut packed: Slab<Node<V>> = Slab::with_capacity(self.nodes.len() * 2);
        packed.insert(mem::replace(&mut self.nodes[ROOT as usize], Node::new(false)));
        let mut at = 0;
        while at < packed.len() {
            // Children go behind all that was moved before, so `at` meets each node once.
            let mut node = mem::replace(&mut packed[at], Node::new(false));
            let wild = [&mut node.one, &mut node.many];
            for child in node.literals.nodes_mut().chain(wild.into_iter().filter(|child| **child != NONE)) {
                *child = packed.insert(self.nodes.remove(*child as usize)) as u32;
            }
            packed[at] = node;
            at += 1;
        }
        self.nodes = packed;
    }
}

struct Emit<F> {
    found: F,
    /// Whether filters that hide `$` see this subject.
    sees_hiding: bool,
}

impl<F> Emit<F> {
    fn entry<V: Copy>(&mut self, entry: &Option<Box<Entry<V>>>)
    where
        F: FnMut(V),
    {
        let Some(entry) = entry else { return };
        entry.open.list.iter().copied().for_each(&mut self.found);
        if self.sees_hiding {
            entry.hiding.list.iter().copied().for_each(&mut self.found);
        }
    }
}
