//! The shape of what the Meta Service keeps: named, versioned, opaque bytes with an owner who understands them.
//!
//! The store itself is `meta`'s; which kinds exist is known only to the crates that define them.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::ErrorKind;

/// A kind of resource: a small piece of cluster-wide configuration such as a user, a schema or a capture.
///
/// # For implementers
///
/// - The crate that owns the kind defines it; nobody else needs to know that it exists. A new kind is one file.
/// - A resource is stored under [`Resource::path`] = `KIND/key`. Two resources of one kind with equal keys are the same
///   resource. Listing a kind lists the prefix `KIND/`, in byte order of the keys; choose keys so that this order and its
///   prefixes are useful (`tenant/name`).
/// - A stored resource is a 2-byte big-endian encoding version and a body. The body is the implementer's; it must be
///   deterministic (equal resources give equal bytes), because replicas compare what they hold.
/// - [`Resource::VERSION`] starts at 1 and grows with each change of the body that older code would misread.
///   [`Resource::decode_body`] reads every version from 1 up to its own; [`Resource::decode`] refuses newer ones, so that an
///   older node stops rather than guesses.
/// - Decoding takes hostile bytes: no panic, no allocation from an unchecked length.
/// - [`Resource::validate`] is about the resource alone (bounds, legal names). What depends on other resources is the
///   transaction's concern: expected versions, not validation.
///
/// The version here is that of the *encoding*. Which revision of the resource this is, for compare-and-set, is the store's
/// and is no part of the bytes.
pub trait Resource: Sized + Send + Sync + 'static {
    /// The first part of the path: a singular, lower-case, constant word without `/`, such as `user`.
    const KIND: &'static str;

    /// The version of the body that [`Resource::encode_body`] writes, at least 1.
    const VERSION: u16;

    /// What identifies the resource within its kind; not empty, and never changing for the life of the resource.
    fn key(&self) -> String;

    /// Appends the body in the form of [`Resource::VERSION`].
    fn encode_body(&self, body: &mut BytesMut);

    /// Reads a body of `version`, 1 up to [`Resource::VERSION`].
    ///
    /// # Errors
    /// [`ResourceError::Malformed`] if the bytes are not such a body, or not all of them belong to it.
    fn decode_body(version: u16, body: &[u8]) -> Result<Self, ResourceError>;

    /// Checks bounds and names, before the resource is stored.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`] with the first field that breaks a rule.
    fn validate(&self) -> Result<(), ResourceError>;

    /// Where the resource is stored: `KIND/key`.
    fn path(&self) -> String {
        format!("{}/{}", Self::KIND, self.key())
    }

    /// The stored form: version, then body.
    fn encode(&self) -> Bytes {
        let mut stored = BytesMut::new();
        stored.put_u16(Self::VERSION);
        self.encode_body(&mut stored);
        stored.freeze()
    }

    /// Reads the stored form back.
    ///
    /// # Errors
    /// [`ResourceError::Newer`] if a newer release wrote it, [`ResourceError::Malformed`] if it is damaged.
    fn decode(stored: &[u8]) -> Result<Self, ResourceError> {
        let malformed = ResourceError::Malformed { kind: Self::KIND, field: "version" };
        let (version, body) = stored.split_first_chunk::<2>().ok_or(malformed)?;
        match u16::from_be_bytes(*version) {
            0 => Err(malformed),
            version if version > Self::VERSION => {
                Err(ResourceError::Newer { kind: Self::KIND, version, known: Self::VERSION })
            }
            version => Self::decode_body(version, body),
        }
    }
}

/// Why bytes are not a resource, or a resource must not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResourceError {
    /// Written by a newer release than this one.
    #[error("{kind} has encoding version {version}, this release knows up to {known}")]
    Newer {
        /// The resource's kind.
        kind: &'static str,
        /// What the bytes say.
        version: u16,
        /// What this code understands.
        known: u16,
    },
    /// Not the bytes of such a resource.
    #[error("{kind} cannot be read at its {field}")]
    Malformed {
        /// The resource's kind.
        kind: &'static str,
        /// Which field could not be read.
        field: &'static str,
    },
    /// Well formed, but against a rule.
    #[error("{field} of {kind} {rule}")]
    Invalid {
        /// The resource's kind.
        kind: &'static str,
        /// Which field breaks the rule.
        field: &'static str,
        /// The rule, as the end of a sentence: `must not be empty`.
        rule: &'static str,
    },
}

impl ResourceError {
    /// The kind that a front maps.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            ResourceError::Newer { .. } => ErrorKind::Unsupported,
            ResourceError::Malformed { .. } => ErrorKind::Corrupt,
            ResourceError::Invalid { .. } => ErrorKind::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Note(String);

    impl Resource for Note {
        const KIND: &'static str = "note";
        const VERSION: u16 = 2;

        fn key(&self) -> String {
            self.0.to_lowercase()
        }

        fn encode_body(&self, body: &mut BytesMut) {
            body.put_slice(self.0.as_bytes());
        }

        fn decode_body(version: u16, body: &[u8]) -> Result<Note, ResourceError> {
            let malformed = ResourceError::Malformed { kind: Note::KIND, field: "text" };
            let text = str::from_utf8(body).map_err(|_| malformed)?;
            Ok(if version == 1 { Note(text.to_uppercase()) } else { Note(text.to_owned()) })
        }

        fn validate(&self) -> Result<(), ResourceError> {
            let rule = ResourceError::Invalid { kind: Note::KIND, field: "text", rule: "must not be empty" };
            if self.0.is_empty() { Err(rule) } else { Ok(()) }
        }
    }

    #[test]
    fn a_stored_resource_says_its_version_and_older_ones_are_still_read() {
        let note = Note("Hi".to_owned());
        assert_eq!(note.path(), "note/hi");
        assert_eq!(&note.encode()[..], b"\x00\x02Hi");
        assert_eq!(Note::decode(&note.encode()), Ok(note));
        assert_eq!(Note::decode(b"\x00\x01hi"), Ok(Note("HI".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let malformed = |field| Err(ResourceError::Malformed { kind: "note", field });
        assert_eq!(Note::decode(b"\x00"), malformed("version"));
        assert_eq!(Note::decode(b"\x00\x00"), malformed("version"));
        assert_eq!(Note::decode(b"\x00\x02\xff"), malformed("text"));
        let newer = ResourceError::Newer { kind: "note", version: 3, known: 2 };
        assert_eq!(Note::decode(b"\x00\x03"), Err(newer));
        let invalid = Note(String::new()).validate().unwrap_err();
        assert_eq!(invalid.to_string(), "text of note must not be empty");
    }
}
