//! `[log]`: what the process tells about itself.

use super::section::section;
use super::values::choice;

section! {
    /// What the broker tells about itself, on standard error.
    pub struct Log ["log"] {
        /// The least important events that are told. At `error` a person must act.
        pub level: LogLevel,
        /// One line of text per event for people, or one JSON object per line for machines.
        pub format: LogFormat,
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LogLevel::Info, format: LogFormat::Text }
    }
}

choice! {
    /// How important an event is.
    pub enum LogLevel: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"" {
        /// A person must act.
        Error = "error",
        /// Something is wrong and the broker goes on.
        Warn = "warn",
        /// Starts, stops and changes.
        Info = "info",
        /// For developers.
        Debug = "debug",
        /// For developers, in a loop.
        Trace = "trace",
    }
}

choice! {
    /// How an event is written.
    pub enum LogFormat: "\"text\" or \"json\"" {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
}
