//! The types that a setting may have: each reads itself from text or TOML and shows itself as TOML.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::section::{Expected, Raw};

/// A type of setting. What `show` writes, `read` reads back to an equal value.
pub(crate) trait Value: Sized {
    /// What it is, as a noun, for the reference page.
    const KIND: &'static str;

    /// Reads a value, or says what was expected.
    fn read(raw: Raw<'_>) -> Result<Self, Expected>;

    /// The value as TOML.
    fn show(&self) -> String;
}

/// A type that has a word for "none".
pub(crate) trait Absent: Value {
    /// The word.
    const WORD: &'static str;
    /// What the type is when the word is allowed too, for the reference page.
    const KIND_OR_WORD: &'static str;
}

impl<T: Absent> Value for Option<T> {
    const KIND: &'static str = T::KIND_OR_WORD;

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        match raw {
            Raw::Bare(text) | Raw::Text(text) if text == T::WORD => Ok(None),
            raw => T::read(raw).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| quoted(T::WORD), Value::show)
    }
}

macro_rules! integer {
    ($($type:ty: $expected:literal,)+) => { $(
        impl Value for $type {
            const KIND: &'static str = "integer";

            fn read(raw: Raw<'_>) -> Result<Self, Expected> {
                match raw {
                    Raw::Bare(text) => text.trim().replace('_', "").parse().map_err(|_| $expected),
                    Raw::Integer(number) => number.try_into().map_err(|_| $expected),
                    Raw::Text(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other => Err($expected),
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}

integer! {
    u16: "an integer from 0 to 65535",
    u32: "an integer from 0 to 4294967295",
}

impl Absent for u32 {
    const WORD: &'static str = "unlimited";
    const KIND_OR_WORD: &'static str = "integer or \"unlimited\"";
}

/// Permissions of a file, written as `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octal(pub u32);

impl Value for Octal {
    const KIND: &'static str = "permissions";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        const EXPECTED: Expected = "permissions as text, such as \"0660\"";
        let (Raw::Bare(text) | Raw::Text(text)) = raw else { return Err(EXPECTED) };
        let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        u32::from_str_radix(text, 8).ok().filter(|_| digits).map(Octal).ok_or(EXPECTED)
    }

    fn show(&self) -> String {
        quoted(&format!("{:04o}", self.0))
    }
}

/// The name of something that settings may list: small letters, digits and `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(String);

/// Bound: it stands at the beginning of a line.
const NAME_BYTES_MAX: usize = 32;

impl Name {
    /// The name; empty if none was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Name {
    const KIND: &'static str = "name";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        const EXPECTED: Expected = "a name of small letters, digits and -, such as \"mqtt-tls\"";
        let (Raw::Bare(text) | Raw::Text(text)) = raw else { return Err(EXPECTED) };
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits);
        if valid { Ok(Name(text.to_owned())) } else { Err(EXPECTED) }
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}

impl Value for bool {
    const KIND: &'static str = "boolean";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        match raw {
            Raw::Bare("true") | Raw::Boolean(true) => Ok(true),
            Raw::Bare("false") | Raw::Boolean(false) => Ok(false),
            Raw::Bare(_) | Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other => Err("true or false"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        match raw {
            Raw::Bare(text) | Raw::Text(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            _ => Err("a path such as \"robustmq-data\""),
        }
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Absent for PathBuf {
    const WORD: &'static str = "none";
    const KIND_OR_WORD: &'static str = "path or \"none\"";
}

impl Value for String {
    const KIND: &'static str = "text";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        match raw {
            Raw::Bare(text) | Raw::Text(text) => Ok(text.to_owned()),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other => Err("a text in quotes"),
        }
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

/// Some texts, written as a TOML array, in a variable too.
impl Value for Vec<String> {
    const KIND: &'static str = "list of texts";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        const EXPECTED: Expected = "a list of texts, such as [\"one\", \"another\"]";
        let (Raw::Bare(text) | Raw::List(text)) = raw else { return Err(EXPECTED) };
        let table: toml::Table = format!("list = {text}").parse().map_err(|_| EXPECTED)?;
        let Some(toml::Value::Array(items)) = table.get("list").filter(|_| table.len() == 1) else {
            return Err(EXPECTED);
        };
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(EXPECTED)).collect()
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A number of bytes, written as `"64MiB"` (or `B`, `KiB`, `GiB`, `TiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Units of [`ByteSize`], smallest first.
const SIZES: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl ByteSize {
    /// That many MiB.
    pub(crate) const fn mib(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }

    /// That many KiB.
    pub(crate) const fn kib(count: u64) -> ByteSize {
        ByteSize(count << 10)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0, SIZES)
    }
}

impl Value for ByteSize {
    const KIND: &'static str = "size";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        read_in_units(raw, SIZES)
            .map(ByteSize)
            .ok_or("a size with its unit (B, KiB, MiB, GiB, TiB), such as \"64MiB\"")
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Absent for ByteSize {
    const WORD: &'static str = "unlimited";
    const KIND_OR_WORD: &'static str = "size or \"unlimited\"";
}

/// A length of time in whole milliseconds, written as `"10s"` (or `ms`, `m`, `h`, `d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(u64);

/// Units of [`TimeSpan`] in milliseconds, smallest first.
const SPANS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl TimeSpan {
    /// That many milliseconds.
    pub(crate) const fn millis(count: u64) -> TimeSpan {
        TimeSpan(count)
    }

    /// That many seconds.
    pub(crate) const fn seconds(count: u64) -> TimeSpan {
        TimeSpan(count * 1_000)
    }

    /// That many hours.
    pub(crate) const fn hours(count: u64) -> TimeSpan {
        TimeSpan(count * 3_600_000)
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0, SPANS)
    }
}

impl Value for TimeSpan {
    const KIND: &'static str = "duration";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        read_in_units(raw, SPANS)
            .map(TimeSpan)
            .ok_or("a duration with its unit (ms, s, m, h, d), such as \"10s\"")
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Absent for TimeSpan {
    const WORD: &'static str = "unlimited";
    const KIND_OR_WORD: &'static str = "duration or \"unlimited\"";
}

/// `123unit` or `123 unit`; nothing for anything else and for what does not fit.
fn read_in_units(raw: Raw<'_>, units: &[(&str, u64)]) -> Option<u64> {
    let (Raw::Bare(text) | Raw::Text(text)) = raw else { return None };
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let unit = text[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    text[..digits].parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that leaves no rest.
fn write_in_units(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = units.iter().rev().find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor));
    let (name, factor) = exact.unwrap_or(&units[0]);
    write!(f, "{}{name}", amount / factor)
}

/// An address to listen on, `"127.0.0.1:1883"` or `"[::1]:1883"`. Port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(SocketAddr);

impl Bind {
    /// A port on IPv4 loopback.
    pub(crate) const fn loopback(port: u16) -> Bind {
        Bind(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port))
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        self.0
    }

    /// The port; 0 means a free one.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0.port()
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub const fn is_loopback(self) -> bool {
        self.0.ip().is_loopback()
    }

    /// The same host with a port that the system picks.
    pub(crate) fn take_any_port(&mut self) {
        self.0.set_port(0);
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for Bind {
    const KIND: &'static str = "address";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        let (Raw::Bare(text) | Raw::Text(text)) = raw else { return Err(EXPECTED_BIND) };
        SocketAddr::from_str(text).map(Bind).map_err(|_| EXPECTED_BIND)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Absent for Bind {
    const WORD: &'static str = "none";
    const KIND_OR_WORD: &'static str = "address or \"none\"";
}

const EXPECTED_BIND: Expected = "an IP address with a port, such as \"127.0.0.1:1883\" or \"[::]:1883\"";

/// A name or an address that clients can reach, with or without a port: `"broker.example.org"`, `"10.0.0.1:9092"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

/// Bound: the longest name of the domain name system.
const HOST_BYTES_MAX: usize = 253;

impl Host {
    /// The name or the address, without brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if it is not the one that is listened on.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    fn parse(text: &str) -> Option<Host> {
        if let Ok(address) = SocketAddr::from_str(text) {
            return (address.port() != 0)
                .then(|| Host { name: address.ip().to_string(), port: Some(address.port()) });
        }
        if let Ok(address) = IpAddr::from_str(text.trim_start_matches('[').trim_end_matches(']')) {
            return Some(Host { name: address.to_string(), port: None });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (text, None),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let valid = !name.is_empty() && name.len() <= HOST_BYTES_MAX && name.chars().all(is_name);
        valid.then(|| Host { name: name.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.name.contains(':') => write!(f, "[{}]:{port}", self.name),
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Value for Host {
    const KIND: &'static str = "host";

    fn read(raw: Raw<'_>) -> Result<Self, Expected> {
        let (Raw::Bare(text) | Raw::Text(text)) = raw else { return Err(EXPECTED_HOST) };
        Host::parse(text).ok_or(EXPECTED_HOST)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

const EXPECTED_HOST: Expected =
    "a host with or without a port, such as \"broker.example.org:9092\", or \"auto\"";

impl Absent for Host {
    const WORD: &'static str = "auto";
    const KIND_OR_WORD: &'static str = "host or \"auto\"";
}

/// Declares an enum whose variants are words.
macro_rules! choice {
    (
        $(#[doc = $type_doc:literal])+
        pub enum $name:ident: $expected:literal {
            $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $type_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// The word that stands for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $( $name::$variant => $word, )+
                }
            }
        }

        impl $crate::config::values::Value for $name {
            const KIND: &'static str = $expected;

            fn read(
                raw: $crate::config::section::Raw<'_>,
            ) -> Result<Self, $crate::config::section::Expected> {
                use $crate::config::section::Raw;
                match raw {
                    $( Raw::Bare($word) | Raw::Text($word) => Ok($name::$variant), )+
                    _ => Err($expected),
                }
            }

            fn show(&self) -> String {
                $crate::config::values::quoted(self.word())
            }
        }
    };
}

pub(crate) use choice;

/// `text` as a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
