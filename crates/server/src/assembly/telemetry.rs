//! Logging: to standard error, as the settings say.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. A process that logs already (a test) keeps its own.
pub(super) fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // The consensus library tells its every step; what it warns about is what concerns an operator.
    let quiet = level.min(LevelFilter::WARN);
    // Of one thing it warns in vain: that it passes over what was under way for an earlier vote, as it does at a first start.
    let filter = Targets::new()
        .with_default(level)
        .with_target("openraft", quiet)
        .with_target("openraft::core::raft_core", level.min(LevelFilter::ERROR));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    // A failure means that somebody was first; then that is who logs.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}
