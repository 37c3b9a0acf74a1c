//! Prints what building, validating and decoding a batch costs per record. Run it with `--release`.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use model::batch::{BatchBuilder, Records, validate};

const RECORDS: usize = 500;
const ROUNDS: usize = 400;
const REPEATS: usize = 9;
const LIMIT: usize = 64 << 20;

fn main() {
    println!(
        "{:>6} {:>8} {:>10} {:>10} {:>12} {:>12}",
        "value", "build", "validate", "decode", "read slices", "read Bytes"
    );
    for len in [64, 1024] {
        let value = vec![0x5a; len];
        let batch = build(&value);
        let records = Records::decode(&batch, LIMIT).expect("a batch of our own decodes");
        println!(
            "{len:>6} {:>8.1} {:>10.1} {:>10.1} {:>12.1} {:>12.1}  ns per record",
            nanoseconds(|| _ = black_box(build(black_box(&value)))),
            nanoseconds(|| _ = black_box(validate(black_box(&batch)))),
            nanoseconds(|| _ = black_box(Records::decode(black_box(&batch), LIMIT))),
            nanoseconds(|| {
                for record in records.iter() {
                    black_box((record.key(), record.value(), record.timestamp()));
                }
            }),
            nanoseconds(|| {
                for record in records.iter() {
                    black_box((record.key_bytes(), record.value_bytes(), record.timestamp()));
                }
            }),
        );
    }
}

fn build(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(64 + RECORDS * (value.len() + 16));
    for index in 0..RECORDS {
        let timestamp = 1_700_000_000_000 + index as i64 / 8;
        builder.push(timestamp, None, Some(value), []).expect("the batch is small");
    }
    builder.finish()
}

/// The median over some repeats of what one record costs.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let mut samples: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / (ROUNDS * RECORDS) as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[REPEATS / 2]
}
