//! The housekeeping thread: sleeps until the journal sealed a segment or retention is due.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use broker::Shared;
use cluster::Node;
use rt::Shutdown;

use super::runtime;

/// How often retention looks at the shards that have records.
const RETENTION_EVERY: Duration = Duration::from_secs(30);

pub(super) fn start(node: Arc<Node>, shared: Arc<Shared>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("house".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = node.housekeeping_due() => node.keep_house(),
                    () = tokio::time::sleep(RETENTION_EVERY) => {
                        if shared.trim_expired().await {
                            node.keep_house();
                        }
                    }
                }
            }
        });
    })
}
