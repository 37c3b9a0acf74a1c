//! [`MemoryLimit`]: how much memory a process may use.

use super::section::{Expected, Raw};
use super::values::{ByteSize, Value, quoted};

/// The word for no limit.
const WORD: &str = "unlimited";

/// A size, or a part of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Percent of what the machine or the control group has.
    Share(u8),
    /// So many bytes.
    Size(ByteSize),
    /// None.
    Unlimited,
}

impl MemoryLimit {
    /// The limit in bytes where `available` are there; `None`: there is none, or it is not known what is there.
    #[must_use]
    pub fn bytes(self, available: Option<u64>) -> Option<u64> {
        match self {
            MemoryLimit::Share(percent) => available.map(|bytes| bytes / 100 * u64::from(percent)),
            MemoryLimit::Size(size) => Some(size.bytes()),
            MemoryLimit::Unlimited => None,
        }
    }

    /// Whether it is a size below `least`, or no share at all.
    pub(crate) fn is_less_than(self, least: ByteSize) -> bool {
        match self {
            MemoryLimit::Share(percent) => !(1..=100).contains(&percent),
            MemoryLimit::Size(size) => size < least,
            MemoryLimit::Unlimited => false,
        }
    }
}

impl Value for MemoryLimit {
    const KIND: &'static str = "size, share or \"unlimited\"";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        const EXPECTED: Expected = "a size such as \"4GiB\", a share such as \"70%\", or \"unlimited\"";
        if let Raw::Text(text) | Raw::Bare(text) = raw {
            if text == WORD {
                return Ok(MemoryLimit::Unlimited);
            }
            if let Some(percent) = text.strip_suffix('%') {
                return percent.trim().parse().map(MemoryLimit::Share).map_err(|_| EXPECTED);
            }
        }
        ByteSize::read(raw).map(MemoryLimit::Size).map_err(|_| EXPECTED)
    }

    fn show(&self) -> String {
        match self {
            MemoryLimit::Share(percent) => quoted(&format!("{percent}%")),
            MemoryLimit::Size(size) => size.show(),
            MemoryLimit::Unlimited => quoted(WORD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for limit in [MemoryLimit::Share(70), MemoryLimit::Size(ByteSize::mib(512)), MemoryLimit::Unlimited] {
            let shown = limit.show();
            assert_eq!(MemoryLimit::read(Raw::Text(shown.trim_matches('"'))), Ok(limit), "{shown}");
        }
        for text in ["70", "%", "-1%", "300%", "much"] {
            assert!(MemoryLimit::read(Raw::Text(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        assert_eq!(MemoryLimit::Share(70).bytes(Some(1000)), Some(700));
        assert_eq!(MemoryLimit::Share(70).bytes(None), None);
        assert_eq!(MemoryLimit::Unlimited.bytes(Some(1000)), None);
    }
}
