//! [`Observed`]: what a front saw of its clients, as operators ask for it.

use serde_json::Value;

/// What a front of this node saw of its clients lately, and what it counts. The assembly
/// implements it over the front; this crate shows what it is given, and knows no protocol.
///
/// # For implementers
///
/// - **At once.** Called on the thread that serves HTTP: answer from memory, and wait for nothing but short locks.
/// - **Bounded.** Every list is as long as the front allows it to become; it is not cut here.
/// - **As it is shown.** An entry is a JSON object that goes to the operator as it is: no payload, no secret. The names of
///   its fields are interface.
/// - **Of this node**, from its start on. What it saw is not stored.
pub trait Observed: Send + Sync {
    /// What became of a client, the oldest event first. Empty: nothing is known of it (any more).
    fn history(&self, client: &str) -> Vec<Value>;

    /// The subscriptions that are furthest behind, the slowest first. `None`: they are not looked for.
    fn slow_subscriptions(&self) -> Option<Vec<Value>>;

    /// Forgets the slow subscriptions that are known; those that are slow from now on are ranked anew. Without effect if they
    /// are not looked for.
    fn clear_slow_subscriptions(&self);

    /// What went through the topics that are counted, in the order of their filters.
    fn topic_metrics(&self) -> Vec<Value>;
}
