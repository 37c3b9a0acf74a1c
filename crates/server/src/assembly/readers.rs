//! Threads for what blocks: cold batches and rows.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use broker::Offload;
use parking_lot::Mutex;

type Work = Box<dyn FnOnce() + Send>;

/// Starts the readers. They end when the last handle is gone.
///
/// Bound: each caller waits for its own work before it asks for more.
pub(super) fn start(count: usize) -> io::Result<Offload> {
    let (submit, work) = channel::<Work>();
    let work = Arc::new(Mutex::new(work));
    for number in 0..count {
        let work = Arc::clone(&work);
        std::thread::Builder::new().name(format!("reader {number}")).spawn(move || run(&work))?;
    }
    Ok(Arc::new(move |work| {
        // Only fails when all readers are gone, at the very end of the process.
        let _ = submit.send(work);
    }))
}

fn run(queue: &Mutex<Receiver<Work>>) {
    loop {
        // One reader waits in the channel, the others for the lock: each piece of work wakes one.
        let next = queue.lock().recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}
