//! Kafka's topic names: 1 to 249 of ASCII letters, digits, `.`, `_` and `-`, but not `.` or `..`.
//!
//! `/` becomes `.`; every other character that Kafka forbids, and a literal `.`, becomes `_-HH` per byte.

use super::escape::{self, Spelling};
use super::{NameError, check_len};

/// The longest topic name. Spec: Kafka, `Topic.MAX_NAME_LENGTH`.
const LEN_MAX: usize = 249;

struct Kafka;

impl Spelling for Kafka {
    const MARK: u8 = b'_';
    const INFIX: &'static [u8] = b"-";
    const SWAPS: bool = true;

    fn must_escape(character: char, _starts_token: bool, _behind: &[u8]) -> bool {
        !(character.is_ascii_alphanumeric() || matches!(character, '-' | '/'))
    }
}

pub(super) fn encode(name: &str) -> Result<String, NameError> {
    // No character is spelled in fewer bytes than it has.
    check_len(name.len(), LEN_MAX)?;
    let spelled = escape::encode::<Kafka>(name);
    check(&spelled)?;
    Ok(spelled)
}

pub(super) fn decode(name: &str) -> Result<String, NameError> {
    check(name)?;
    Ok(escape::decode::<Kafka>(name))
}

fn check(name: &str) -> Result<(), NameError> {
    check_len(name.len(), LEN_MAX)?;
    if let Some(forbidden) = name.chars().find(|&found| !is_legal(found)) {
        return Err(NameError::Forbidden(forbidden));
    }
    if matches!(name, "." | "..") { Err(NameError::Dots) } else { Ok(()) }
}

fn is_legal(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::testing;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_name_that_fits_comes_back(name in testing::canonical()) {
            match encode(&name) {
                Ok(spelled) => prop_assert_eq!(decode(&spelled), Ok(name)),
                Err(NameError::Dots) => prop_assert!(name == "/" || name == "//"),
                Err(error) => {
                    prop_assert!(matches!(error, NameError::TooLong { .. }), "{error:?}");
                    prop_assert!(name.len() * 4 > LEN_MAX);
                }
            }
        }

        #[test]
        fn every_legal_kafka_name_comes_back(
            name in prop_oneof![testing::spelled(is_legal), "[a-zA-Z0-9._-]{1,249}", "[_5F2E.-]{1,30}"]
        ) {
            if check(&name).is_ok() {
                prop_assert_eq!(encode(&decode(&name).unwrap()), Ok(name));
            }
        }
    }

    #[test]
    fn spellings() {
        let table = [
            ("log_2024", "log_2024"),
            ("a b", "a_-20b"),
            ("é", "_-C3_-A9"),
            ("/a//b/", ".a..b."),
            ("a_-b", "a_-b"),
            // 41 is a letter, which is never escaped, so this is itself.
            ("a_-41", "a_-41"),
            // 20 would be read as a space, so the mark is escaped.
            ("a_-20", "a_-5F-20"),
            ("a_-5F-20", "a_-5F-5F-20"),
            ("a_-5F", "a_-5F"),
            ("_-C3_-A9", "_-5F-C3_-A9"),
            ("_-A9", "_-A9"),
            ("x_-00", "x_-00"),
            ("x_-2e", "x_-2e"),
        ];
        for (canonical, kafka) in table {
            assert_eq!(encode(canonical).as_deref(), Ok(kafka));
            assert_eq!(decode(kafka).as_deref(), Ok(canonical));
        }
    }

    #[test]
    fn what_kafka_refuses() {
        assert_eq!(decode(""), Err(NameError::Empty));
        assert_eq!(decode("."), Err(NameError::Dots));
        assert_eq!(decode(".."), Err(NameError::Dots));
        assert_eq!(decode("a/b"), Err(NameError::Forbidden('/')));
        assert_eq!(encode("//"), Err(NameError::Dots));
        assert!(encode(&"x".repeat(249)).is_ok());
        assert_eq!(encode(&"x".repeat(250)), Err(NameError::TooLong { len: 250, len_max: 249 }));
        assert_eq!(encode(&" ".repeat(63)), Err(NameError::TooLong { len: 252, len_max: 249 }));
    }
}
