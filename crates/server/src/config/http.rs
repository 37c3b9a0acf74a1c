//! `[http]`: health, metrics and administration.

use super::section::section;
use super::values::Bind;

section! {
    /// Health, metrics and administration over HTTP.
    pub struct Http ["http"] {
        /// Where to listen. Port 0 takes a free one.
        pub bind: Bind,
    }
}

impl Default for Http {
    fn default() -> Http {
        Http { bind: Bind::loopback(58080) }
    }
}
