//! [`Inherited`]: a setting of one listener that is that of its section unless the listener has its own.

use super::section::{Expected, Raw};
use super::values::{ByteSize, TimeSpan, Value, quoted};

/// The word for a listener that has none of its own.
const WORD: &str = "inherited";

/// A value, or none: then that of the section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited<T>(pub Option<T>);

/// A type of setting that listeners may have of their own.
pub(crate) trait Inherit: Value {
    /// What the type is when the word is allowed too, for the reference page.
    const KIND_OR_INHERITED: &'static str;
}

impl Inherit for u16 {
    const KIND_OR_INHERITED: &'static str = "integer or \"inherited\"";
}

impl Inherit for u32 {
    const KIND_OR_INHERITED: &'static str = "integer or \"inherited\"";
}

impl Inherit for ByteSize {
    const KIND_OR_INHERITED: &'static str = "size or \"inherited\"";
}

impl Inherit for Option<ByteSize> {
    const KIND_OR_INHERITED: &'static str = "size, \"unlimited\" or \"inherited\"";
}

impl Inherit for Option<TimeSpan> {
    const KIND_OR_INHERITED: &'static str = "duration, \"unlimited\" or \"inherited\"";
}

impl<T: Copy> Inherited<T> {
    /// The value in effect where `general` is that of the section.
    #[must_use]
    pub fn or(self, general: T) -> T {
        self.0.unwrap_or(general)
    }
}

impl<T: Inherit> Value for Inherited<T> {
    const KIND: &'static str = T::KIND_OR_INHERITED;

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        match raw {
            Raw::Text(WORD) | Raw::Bare(WORD) => Ok(Inherited(None)),
            raw => T::read(raw).map(|value| Inherited(Some(value))),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| quoted(WORD), Value::show)
    }
}
