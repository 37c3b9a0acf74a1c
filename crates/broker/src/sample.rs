//! What is counted above the broker, in the form in which the metrics endpoint can show it without knowing who counts.

/// One value of a front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Name without a prefix of the product; that of a counter ends in `_total`. Samples of one name follow each other.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// Label and its value; both empty if there is none.
    pub label: (&'static str, &'static str),
    /// The value.
    pub value: u64,
}
