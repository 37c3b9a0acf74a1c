//! Reads the subject out of a certificate: whom it names [RFC 5280, 4.1.2.6], as text [RFC 4514].
//!
//! Only certificates that were verified come here; what is in them is an authority's word, and still only bytes: lengths
//! are checked against what is there, and a form that is not known gives no name rather than a wrong one.

use std::fmt::Write as _;

use crate::peer::CertificateName;

/// Bound: a subject has a handful of attributes; more than this is nobody's name.
const ATTRIBUTES_MAX: usize = 32;

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xA0;

/// The common name: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The name in the subject of a certificate in DER. None if it cannot be read.
pub fn certificate_name(der: &[u8]) -> Option<CertificateName> {
    let certificate = Der(der).take(SEQUENCE)?;
    let mut body = Der(Der(certificate).take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    // Serial number, signature, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        body.take(tag)?;
    }
    read_subject(body.take(SEQUENCE)?)
}

fn read_subject(subject: &[u8]) -> Option<CertificateName> {
    let mut sets = Der(subject);
    let (mut parts, mut common_name) = (Vec::new(), None);
    while !sets.0.is_empty() {
        let mut set = Der(sets.take(SET)?);
        let mut part = String::new();
        while !set.0.is_empty() {
            let mut attribute = Der(set.take(SEQUENCE)?);
            let kind = attribute.take(OBJECT_IDENTIFIER)?;
            let value = attribute.take_text()?;
            if kind == COMMON_NAME {
                common_name = Some(value.as_str().into());
            }
            let plus = if part.is_empty() { "" } else { "+" };
            // Writing to a string does not fail.
            let _ = write!(part, "{plus}{}={}", attribute_name(kind)?, escaped(&value));
        }
        parts.push(part);
        if parts.len() > ATTRIBUTES_MAX {
            return None;
        }
    }
    // Spec: the last comes first [RFC 4514, 2.1].
    parts.reverse();
    (!parts.is_empty()).then(|| CertificateName { common_name, subject: parts.join(",").into() })
}

/// The short name of an attribute, else its number in dots.
fn attribute_name(kind: &[u8]) -> Option<String> {
    let name = match kind {
        COMMON_NAME => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 25] => "DC",
        _ => return dotted(kind),
    };
    Some(name.to_owned())
}

fn dotted(kind: &[u8]) -> Option<String> {
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    for byte in kind {
        number = number.checked_mul(128)? | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (first, rest) = numbers.split_first()?;
    let root = (*first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for number in rest {
        let _ = write!(text, ".{number}");
    }
    Some(text)
}

/// Spec: what would be mistaken for a separator is escaped [RFC 4514, 2.4].
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            _ => text.push(character),
        }
    }
    text
}

/// What is left of a run of DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    /// A string of a type that is a part of UTF-8, without control characters: as a user name it is printed and compared.
    fn take_text(&mut self) -> Option<String> {
        const UTF8: u8 = 0x0C;
        const NUMERIC: u8 = 0x12;
        const PRINTABLE: u8 = 0x13;
        const IA5: u8 = 0x16;
        const VISIBLE: u8 = 0x1A;
        let (UTF8 | NUMERIC | PRINTABLE | IA5 | VISIBLE, content) = self.next()? else { return None };
        let text = std::str::from_utf8(content).ok()?;
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (len, rest) = match usize::from(*first) {
            len @ 0..0x80 => (len, rest),
            long => {
                let (digits, rest) = rest.split_at_checked(long & 0x7F)?;
                let digits: [u8; 4] = {
                    let mut padded = [0; 4];
                    padded.get_mut(4_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
                    padded
                };
                (usize::try_from(u32::from_be_bytes(digits)).ok()?, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_subject_is_written_as_rfc_4514_has_it() {
        let der = certificate(&[
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().expect("printable"))),
            (DnType::OrganizationName, utf8("Acme, Inc.")),
            (DnType::OrganizationalUnitName, utf8(" #4+ ")),
            (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 999_999, 7]), utf8("x")),
            (DnType::CommonName, utf8("gerät-7")),
        ]);
        let name = certificate_name(&der).expect("a name");
        assert_eq!(name.common_name.as_deref(), Some("gerät-7"));
        assert_eq!(&*name.subject, "CN=gerät-7,1.3.6.1.4.1.999999.7=x,OU=\\ #4\\+\\ ,O=Acme\\, Inc.,C=DE");
    }

    #[test]
    fn a_subject_without_a_readable_name_gives_none() {
        assert_eq!(certificate_name(&certificate(&[])), None, "an empty subject");
        let control = certificate(&[(DnType::CommonName, utf8("root\nadmin"))]);
        assert_eq!(certificate_name(&control), None, "a line break");
        let unit = certificate(&[(DnType::OrganizationalUnitName, utf8("Line 4"))]);
        let name = certificate_name(&unit).expect("a subject");
        assert_eq!((name.common_name, &*name.subject), (None, "OU=Line 4"));
    }

    #[test]
    fn a_cut_certificate_gives_none_and_a_changed_one_does_not_panic() {
        let der = certificate(&[(DnType::CommonName, utf8("device"))]);
        for len in 0..der.len() {
            assert_eq!(certificate_name(&der[..len]), None);
        }
        for at in 0..der.len() {
            for change in [1, 0x20, 0x7F, 0x80, 0xFF] {
                let mut changed = der.clone();
                changed[at] ^= change;
                let _ = certificate_name(&changed);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = certificate_name(&bytes);
            let _ = read_subject(&bytes);
        }
    }
}
