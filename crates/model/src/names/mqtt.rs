//! MQTT's topic names are the canonical names. Only `+` and `#`, which other protocols permit in a name and MQTT reserves
//! for filters, become `%2B` and `%23`.

use std::borrow::Cow;

use super::escape::{self, Spelling};
use super::{NAME_LEN_MAX, NameError, check_len};

struct Mqtt;

impl Spelling for Mqtt {
    const MARK: u8 = b'%';
    const INFIX: &'static [u8] = b"";
    const SWAPS: bool = false;

    fn must_escape(character: char, _starts_token: bool, _behind: &[u8]) -> bool {
        matches!(character, '+' | '#')
    }
}

pub(super) fn encode(name: &str) -> Result<Cow<'_, str>, NameError> {
    if !name.bytes().any(|byte| matches!(byte, b'+' | b'#' | b'%')) {
        return Ok(Cow::Borrowed(name));
    }
    let spelled = escape::encode::<Mqtt>(name);
    check_len(spelled.len(), NAME_LEN_MAX)?;
    Ok(Cow::Owned(spelled))
}

pub(super) fn decode(name: &str) -> Result<Cow<'_, str>, NameError> {
    check_len(name.len(), NAME_LEN_MAX)?;
    let mut marked = false;
    for byte in name.bytes() {
        match byte {
            b'+' | b'#' | 0 => return Err(NameError::Forbidden(byte as char)),
            b'%' => marked = true,
            _ => {}
        }
    }
    Ok(if marked { Cow::Owned(escape::decode::<Mqtt>(name)) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::testing;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_name_comes_back(name in testing::canonical()) {
            let spelled = encode(&name).unwrap();
            prop_assert_eq!(decode(&spelled).unwrap(), &name[..]);
        }

        #[test]
        fn every_legal_mqtt_name_comes_back(
            name in prop_oneof![testing::spelled(|found| !matches!(found, '+' | '#')), "[^\0+#]{1,40}"]
        ) {
            if !name.is_empty() {
                let decoded = decode(&name).unwrap();
                prop_assert_eq!(encode(&decoded).unwrap(), &name[..]);
            }
        }
    }

    #[test]
    fn only_what_mqtt_reserves_is_escaped() {
        let table = [
            ("50%/a b", "50%/a b"),
            ("%20", "%20"),
            ("%25", "%25"),
            ("c++", "c%2B%2B"),
            ("%2B", "%252B"),
            ("%252B", "%25252B"),
        ];
        for (canonical, mqtt) in table {
            assert_eq!(encode(canonical).as_deref(), Ok(mqtt));
            assert_eq!(decode(mqtt).as_deref(), Ok(canonical));
        }
        assert_eq!(decode("a/+"), Err(NameError::Forbidden('+')));
        assert_eq!(decode(""), Err(NameError::Empty));
        assert!(matches!(encode(&"+".repeat(30_000)), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn a_hostile_name_costs_linear_time() {
        let chain = format!("%{}2B", "25".repeat(32_000));
        let canonical = decode(&chain).unwrap();
        assert_eq!(canonical.len(), chain.len() - 2);
        assert_eq!(encode(&canonical).as_deref(), Ok(&chain[..]));
        let marks = "%2".repeat(32_000);
        assert_eq!(decode(&marks).as_deref(), Ok(&marks[..]));
    }
}
