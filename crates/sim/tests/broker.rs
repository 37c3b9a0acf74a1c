//! A whole node on a disk that loses power.

use rt::{Rng, SeededRng};
use sim::{BrokerLoad, each_seed};

/// Publish, lose power at a random change of the disk, open, check every promise, go on.
#[test]
fn what_a_node_acknowledged_survives_power_loss() {
    let (mut acknowledged, mut produced) = (0, 0);
    each_seed(200, |seed| {
        let choices = SeededRng::new(!seed);
        let mut load = BrokerLoad::new(seed);
        for _ in 0..4 {
            load.live(Some(choices.below(300)));
        }
        load.live(None);
        acknowledged += load.acknowledged();
        produced += load.produced();
    });
    assert!(acknowledged > 200, "the load must get somewhere: {acknowledged}");
    assert!(produced > 200, "the producer too: {produced}");
}
