//! `[node]`: who this process is and what of the machine it uses.

use std::path::PathBuf;

use super::section::{Faults, section};

section! {
    /// Who this node is and what of the machine it uses.
    pub struct Node ["node"] {
        /// The number of this node in its cluster, from 1. The data directory belongs to it and refuses another.
        pub id: u64,
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
        Node { id: 1, data_dir: PathBuf::from("robustmq-data"), cores: 0 }
    }
}

/// Bound: every core has its own listening sockets and runtime.
const CORES_MAX: u16 = 1024;

impl Node {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.id == 0 {
            faults.add("node", "id", "must be at least 1".to_owned());
        }
        if self.cores > CORES_MAX {
            faults.add("node", "cores", format!("must be at most {CORES_MAX}"));
        }
    }
}
