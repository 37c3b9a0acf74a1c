//! NATS's subjects: tokens joined by `.`, none of them empty, a wildcard, or holding white space or control characters.
//!
//! `/` and `.` change places. A white space or control character becomes `%HH`; so does a `*` or `>` that would be a whole
//! token, and a `/` whose dot would leave a token empty.

use super::NameError;
use super::escape::{self, Spelling};

struct Nats;

impl Spelling for Nats {
    const MARK: u8 = b'%';
    const INFIX: &'static [u8] = b"";
    const SWAPS: bool = true;

    fn must_escape(character: char, starts_token: bool, behind: &[u8]) -> bool {
        match character {
            '/' => starts_token || behind.is_empty(),
            '*' | '>' => starts_token && matches!(behind.first(), None | Some(b'.')),
            other => !is_legal(other),
        }
    }
}

pub(super) fn encode(name: &str) -> String {
    escape::encode::<Nats>(name)
}

pub(super) fn decode(subject: &str) -> Result<String, NameError> {
    check(subject)?;
    Ok(escape::decode::<Nats>(subject))
}

fn check(subject: &str) -> Result<(), NameError> {
    super::check(subject)?;
    if let Some(forbidden) = subject.chars().find(|&found| !is_legal(found)) {
        return Err(NameError::Forbidden(forbidden));
    }
    for token in subject.split('.') {
        match token {
            "" => return Err(NameError::EmptyToken),
            "*" | ">" => return Err(NameError::Wildcard),
            _ => {}
        }
    }
    Ok(())
}

fn is_legal(character: char) -> bool {
    !character.is_ascii_control() && character != ' '
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::testing;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_name_is_spelled_legally_and_comes_back(name in testing::canonical()) {
            let spelled = encode(&name);
            prop_assert_eq!(decode(&spelled), Ok(name), "spelled {}", spelled);
        }

        #[test]
        fn every_legal_subject_comes_back(
            subject in prop_oneof![testing::spelled(is_legal), "[a%/.*>2F5AE3+-]{1,14}", "[^\0]{1,20}"]
        ) {
            if check(&subject).is_ok() {
                prop_assert_eq!(encode(&decode(&subject).unwrap()), subject);
            }
        }
    }

    #[test]
    fn spellings() {
        let table = [
            ("a b", "a%20b"),
            ("/a", "%2Fa"),
            ("a/", "a%2F"),
            ("a//b", "a.%2Fb"),
            ("/", "%2F"),
            ("a/*/b", "a.%2A.b"),
            (">", "%3E"),
            ("a*b/c>", "a*b.c>"),
            ("50%", "50%"),
            ("%20", "%2520"),
            ("x%2Fy", "x%2Fy"),
            ("x/%2Fy", "x.%252Fy"),
            ("a+b/#", "a+b.#"),
        ];
        for (canonical, nats) in table {
            assert_eq!(encode(canonical), nats);
            assert_eq!(decode(nats).as_deref(), Ok(canonical), "{nats}");
        }
    }

    #[test]
    fn what_nats_refuses() {
        assert_eq!(decode("a..b"), Err(NameError::EmptyToken));
        assert_eq!(decode("a."), Err(NameError::EmptyToken));
        assert_eq!(decode("a.*"), Err(NameError::Wildcard));
        assert_eq!(decode("a b"), Err(NameError::Forbidden(' ')));
        assert_eq!(decode(""), Err(NameError::Empty));
    }
}
