//! `[groups]`: how many Raft groups carry the data.

use super::section::{Faults, section};

section! {
    /// The Raft groups that carry the data.
    pub struct Groups ["groups"] {
        /// Data groups of this cluster. 0 takes one per core, at least 2 and at most 16. Fixed when the
        /// data directory is created.
        pub data_groups: u16,
    }
}

#[expect(clippy::derivable_impls, reason = "every section states its defaults in one place")]
impl Default for Groups {
    fn default() -> Groups {
        Groups { data_groups: 0 }
    }
}

/// Bound: a shard's id has 12 bits for its group, and group 0 is the Meta Service.
const DATA_GROUPS_MAX: u16 = (1 << 12) - 1;

impl Groups {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.data_groups > DATA_GROUPS_MAX {
            faults.add("groups", "data_groups", format!("must be at most {DATA_GROUPS_MAX}"));
        }
    }
}
