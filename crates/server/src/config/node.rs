//! `[node]`: what of the machine this process uses.

use std::path::PathBuf;

use super::section::{Faults, section};

section! {
    /// What of the machine this node uses.
    pub struct Node ["node"] {
        /// The directory of everything that must survive: journal, key/value stores, identity. Created when missing;
        /// relative to the directory in which the broker is started. One process at a time owns it.
        pub data_dir: PathBuf,
        /// Threads that serve connections. A connection stays on one of them for life. 0 takes as many as the
        /// machine has cores.
        pub cores: u16,
    }
}

impl Default for Node {
    fn default() -> Node {
        Node { data_dir: PathBuf::from("robustmq-data"), cores: 0 }
    }
}

/// Bound: every core has its own listening sockets and runtime.
const CORES_MAX: u16 = 1024;

impl Node {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.cores > CORES_MAX {
            faults.add("node", "cores", format!("must be at most {CORES_MAX}"));
        }
    }
}
