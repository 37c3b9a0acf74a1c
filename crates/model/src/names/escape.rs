//! The one escaping rule behind all spellings.
//!
//! A character that a protocol cannot spell becomes a mark and two upper-case hex digits per UTF-8 byte. The mark itself
//! stays as it is, except where what follows would make a reader undo it: there, and nowhere else, the mark is escaped
//! as well. So decoding undoes exactly what encoding would have written, and every other text is itself.
//!
//! Why this is a bijection: call an *escape* at some place a text that encodes one character which must be escaped at that
//! place, or the encoded mark in front of what would otherwise be an escape. Encoding from right to left asks of each
//! literal mark whether an escape would begin there; decoding from left to right asks the same of each mark that it meets,
//! with the same text behind it. Both decide alike, so each undoes the other.

/// What a protocol cannot spell, and how it marks that.
pub(super) trait Spelling {
    /// The character that begins an escape.
    const MARK: u8;
    /// What stands between the mark and the digits.
    const INFIX: &'static [u8];
    /// Whether `/` and `.` change places. Otherwise both are themselves.
    const SWAPS: bool;

    /// Whether the character cannot be spelled at a place: whether that is the first of a token (a dot or nothing before
    /// it), and the spelled text behind it. Never asked for [`Spelling::MARK`] and U+0000.
    ///
    /// Of `behind`, the answer for `/` may only use whether it is empty: encoding must know where tokens begin, from left to
    /// right, before it has spelled anything.
    fn must_escape(character: char, starts_token: bool, behind: &[u8]) -> bool;
}

/// Spells a canonical name. Bound: at most [`ESCAPED_LEN_MAX`] times the name's length.
pub(super) fn encode<S: Spelling>(name: &str) -> String {
    let starts = token_starts::<S>(name);
    // Filled from its end, because a character's spelling depends on what is spelled behind it.
    let mut out = vec![0; name.len() * ESCAPED_LEN_MAX];
    let mut at = out.len();
    for (character, starts_token) in name.chars().rev().zip(starts.into_iter().rev()) {
        let behind = &out[at..];
        let escapes = if character == S::MARK as char {
            escape_behind_mark::<S>(behind, starts_token).is_some()
        } else {
            S::must_escape(character, starts_token, behind)
        };
        let mut utf8 = [0; 4];
        if escapes {
            for &byte in character.encode_utf8(&mut utf8).as_bytes().iter().rev() {
                at = put_front(&mut out, at, &hex(byte));
                at = put_front(&mut out, at, S::INFIX);
                at = put_front(&mut out, at, &[S::MARK]);
            }
        } else {
            at = put_front(&mut out, at, swap::<S>(character).encode_utf8(&mut utf8).as_bytes());
        }
    }
    String::from_utf8(out.split_off(at)).expect("whole characters and ASCII were put")
}

/// Reads a spelled name back. The caller has checked that the protocol permits it.
pub(super) fn decode<S: Spelling>(spelled: &str) -> String {
    let mut out = String::with_capacity(spelled.len());
    let mut starts_token = true;
    let mut rest = spelled;
    while let Some(character) = rest.chars().next() {
        let behind = &rest[character.len_utf8()..];
        let escape = (character == S::MARK as char)
            .then(|| escape_behind_mark::<S>(behind.as_bytes(), starts_token))
            .flatten();
        match escape {
            Some((escaped, len)) => {
                out.push(escaped);
                starts_token = false;
                rest = &behind[len..];
            }
            None => {
                out.push(swap::<S>(character));
                starts_token = character == '.';
                rest = behind;
            }
        }
    }
    out
}

/// The longest escape of one byte: mark, one byte of infix, two digits.
const ESCAPED_LEN_MAX: usize = 4;

/// For each character, whether it will be the first of a spelled token.
fn token_starts<S: Spelling>(name: &str) -> Vec<bool> {
    let mut starts = Vec::with_capacity(name.len());
    let mut starts_token = true;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        starts.push(starts_token);
        let behind: &[u8] = if characters.peek().is_some() { b"?" } else { b"" };
        starts_token = swap::<S>(character) == '.' && !S::must_escape(character, starts_token, behind);
    }
    starts
}

/// If a mark in front of `behind` begins an escape: the character that it stands for, and the escape's length without
/// the mark.
///
/// Bound: looks at the bytes up to the next mark and one character more, so that a whole name costs linear time.
fn escape_behind_mark<S: Spelling>(behind: &[u8], starts_token: bool) -> Option<(char, usize)> {
    let encoded_mark = hex(S::MARK);
    let own_len = S::INFIX.len() + 2;
    let is_own =
        |text: &[u8]| text.strip_prefix(S::INFIX).is_some_and(|text| text.starts_with(&encoded_mark));
    // The mark, encoded any number of times over, is an escape where an escape comes at last.
    let mut rest = behind;
    while is_own(rest) {
        rest = &rest[own_len..];
    }
    let (character, len) = encoded_character::<S>(rest)?;
    if !S::must_escape(character, starts_token, &rest[len..]) {
        return None;
    }
    if is_own(behind) { Some((S::MARK as char, own_len)) } else { Some((character, len)) }
}

/// The character whose UTF-8 bytes are written as escapes behind a mark, and the length of that without the first mark.
fn encoded_character<S: Spelling>(behind: &[u8]) -> Option<(char, usize)> {
    let (first, mut rest) = encoded_byte::<S>(behind)?;
    let mut utf8 = [first, 0, 0, 0];
    let len = match first {
        0x00..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    for byte in &mut utf8[1..len] {
        (*byte, rest) = encoded_byte::<S>(rest.strip_prefix(&[S::MARK])?)?;
    }
    let character = str::from_utf8(&utf8[..len]).ok()?.chars().next()?;
    let spelled = character != '\0' && character != S::MARK as char;
    spelled.then_some((character, behind.len() - rest.len()))
}

/// The byte that is written behind a mark, and what follows it.
fn encoded_byte<S: Spelling>(behind: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = behind.strip_prefix(S::INFIX)?.split_first_chunk::<2>()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some((digit(digits[0])? << 4 | digit(digits[1])?, rest))
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

fn swap<S: Spelling>(character: char) -> char {
    match character {
        '/' if S::SWAPS => '.',
        '.' if S::SWAPS => '/',
        other => other,
    }
}

/// Writes `bytes` so that they end at `at`, and returns where they begin.
fn put_front(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let start = at - bytes.len();
    out[start..at].copy_from_slice(bytes);
    start
}
