//! `Passwords`: a bounded place, off the serving cores, where passwords are compared.

use std::sync::{Arc, OnceLock};

use rt::Rng;
use tokio::sync::{Semaphore, oneshot};

use crate::password::PasswordHash;
use crate::resources::User;
use crate::scram::{Mechanism, StoredKeys};

/// Runs work somewhere else than on the calling thread. It need not be bounded: the caller is.
pub type Offload = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// Bound: comparisons that wait for their turn. Beyond it, logins are refused at once.
const WAITING_MAX: usize = 16_384;

/// Hashes and compares passwords off the serving cores, a few at a time: with argon2id's 19 MiB each, that bounds the
/// memory. One per node, for our own users and for providers that fetch hashes; clones are the same.
#[derive(Clone)]
pub struct Passwords {
    desk: Arc<Desk>,
}

struct Desk {
    offload: Offload,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What an unknown user's password is compared with.
    nobody: Arc<OnceLock<PasswordHash>>,
    rng: Arc<dyn Rng>,
}

/// More comparisons wait than may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Passwords {
    /// A desk where at most `at_once` passwords are compared at a time, by `offload`.
    pub fn new(offload: Offload, at_once: usize, rng: Arc<dyn Rng>) -> Passwords {
        let desk = Desk {
            offload,
            running: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            nobody: Arc::default(),
            rng,
        };
        Passwords { desk: Arc::new(desk) }
    }

    /// Whether this is the password; never for `None`. Either takes the time of one argon2id at least, and exactly
    /// that for hashes that we make.
    pub(crate) async fn verify(&self, hash: Option<PasswordHash>, password: Vec<u8>) -> Result<bool, Busy> {
        let (nobody, rng) = (self.desk.nobody.clone(), self.desk.rng.clone());
        // Made by the first who needs it: a start need not wait for it.
        let nobody = move || {
            nobody.get_or_init(|| PasswordHash::argon2id(&rng.next_u64().to_be_bytes(), &*rng)).clone()
        };
        self.run(move || match hash {
            Some(hash) if hash.is_of_usual_cost() => hash.verify(&password),
            Some(hash) => {
                // An imported hash may be quick to compare, which would tell that the user exists.
                let right = hash.verify(&password);
                nobody().verify(&password);
                right
            }
            None => {
                nobody().verify(&password);
                false
            }
        })
        .await
    }

    /// Hashes a new password.
    pub(crate) async fn hash(&self, password: Vec<u8>) -> Result<PasswordHash, Busy> {
        let rng = self.desk.rng.clone();
        self.run(move || PasswordHash::argon2id(&password, &*rng)).await
    }

    /// The user with a new password, and all that it is compared by: its hash, and its keys of both SCRAM mechanisms.
    pub(crate) async fn give(&self, user: User, password: &[u8]) -> Result<User, Busy> {
        let (rng, password) = (self.desk.rng.clone(), password.to_vec());
        self.run(move || User {
            scram_sha_256: Some(StoredKeys::derive(Mechanism::Sha256, &password, &*rng)),
            scram_sha_512: Some(StoredKeys::derive(Mechanism::Sha512, &password, &*rng)),
            ..user.with_password(&PasswordHash::argon2id(&password, &*rng))
        })
        .await
    }

    /// Runs one piece of work off this thread. If the caller goes away while it waits, the work is not done; if it runs
    /// already, it keeps its place until it ends.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let waiting = self.desk.waiting.clone().try_acquire_owned().map_err(|_| Busy)?;
        let running = self.desk.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        drop(waiting);
        let (done, answer) = oneshot::channel();
        (self.desk.offload)(Box::new(move || {
            let outcome = work();
            drop(running);
            let _ = done.send(outcome);
        }));
        answer.await.map_err(|_| Busy)
    }
}

/// Work on the runtime's threads for blocking calls.
pub fn offload_to_blocking_threads() -> Offload {
    Arc::new(|work| {
        tokio::task::spawn_blocking(work);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rt::SystemRng;

    use super::*;

    #[tokio::test]
    async fn never_more_at_once_than_allowed() {
        let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let seen = counts.clone();
        let passwords = Passwords::new(offload_to_blocking_threads(), 2, Arc::new(SystemRng));
        let jobs = (0..24).map(|_| {
            let (passwords, seen) = (passwords.clone(), seen.clone());
            tokio::spawn(async move {
                let work = move || {
                    let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.1.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    seen.0.fetch_sub(1, Ordering::SeqCst);
                };
                passwords.run(work).await
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            assert_eq!(job.await.unwrap(), Ok(()));
        }
        let (running, most) = (counts.0.load(Ordering::SeqCst), counts.1.load(Ordering::SeqCst));
        assert!(running == 0 && (1..=2).contains(&most), "{most} at once");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_no_work_behind() {
        type Work = Box<dyn FnOnce() + Send>;
        let held: Arc<parking_lot::Mutex<Vec<Work>>> = Arc::default();
        let desk = held.clone();
        let offload: Offload = Arc::new(move |work| desk.lock().push(work));
        let passwords = Passwords::new(offload, 1, Arc::new(SystemRng));
        let mut first = Box::pin(passwords.run(|| 1));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending())).await
        );
        {
            let mut second = Box::pin(passwords.run(|| 2));
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending()))
                    .await
            );
        }
        let work = held.lock().pop().unwrap();
        work();
        assert_eq!(first.await, Ok(1));
        assert!(held.lock().is_empty());
        assert_eq!(passwords.desk.waiting.available_permits(), WAITING_MAX);
        assert_eq!(passwords.desk.running.available_permits(), 1);
    }
}
