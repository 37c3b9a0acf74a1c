//! The notation of transcripts: a file into steps, its words into bytes, bytes into words. `tests/transcripts/README.md` tells it.

use std::iter::Peekable;
use std::str::Chars;
use std::time::Duration;

use mqtt::MqttConfig;
use wire::mqtt::Version;

/// The client of a line that names none.
const CLIENT: &str = "c";

/// A part of a transcript that begins with new connections.
pub(crate) struct Exchange {
    pub(crate) title: String,
    /// Settings of the listener, if they are not the usual ones.
    pub(crate) config: Option<MqttConfig>,
    pub(crate) steps: Vec<Step>,
}

/// One line, with those that continue it.
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    /// A client says CONNECT and is accepted.
    Connect(String, Version),
    /// A client sends bytes.
    Send(String, Vec<u8>),
    /// The broker says exactly this to a client.
    Hear(String, Pattern),
    /// The connection of a client breaks.
    Break(String),
    /// The broker closes, and has said nothing more.
    Close(String),
    /// Time passes.
    Wait(Duration),
}

/// Bytes, of which some may be any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Option<u8>>);

/// Takes a file apart. Panics with file and line where it is not written as the page says.
pub(crate) fn parse(name: &str, text: &str) -> Vec<Exchange> {
    let lines = joined(text);
    let parts = lines.chunk_by(|_, (_, next)| !next.starts_with("== "));
    parts
        .flat_map(|part| exchanges(part).unwrap_or_else(|(line, wrong)| panic!("{name}:{line}: {wrong}")))
        .collect()
}

/// The exchange that some lines tell, or one for each of its variants.
fn exchanges(lines: &[(usize, String)]) -> Result<Vec<Exchange>, (usize, String)> {
    let Some(((line, title), steps)) = lines.split_first() else { return Ok(Vec::new()) };
    let title = title.strip_prefix("== ").ok_or((*line, "a step before the first `==`".to_owned()))?;
    let variants = steps.first().and_then(|(_, text)| text.strip_prefix("each @ = "));
    let steps = if variants.is_some() { &steps[1..] } else { steps };
    let one_of = |variant: Option<&str>| {
        let title = variant.map_or(title.to_owned(), |variant| format!("{title}: {variant}"));
        let mut exchange = Exchange { title, config: None, steps: Vec::new() };
        for (line, text) in steps {
            let text = text.replace('@', variant.unwrap_or("@"));
            exchange.read(*line, &text).map_err(|wrong| (*line, wrong))?;
        }
        Ok(exchange)
    };
    match variants {
        Some(variants) => variants.split('|').map(|variant| one_of(Some(variant.trim()))).collect(),
        None => Ok(vec![one_of(None)?]),
    }
}

/// Lines with their numbers, without comments; one that is indented continues the one before.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with(' ') => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push((index + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

impl Exchange {
    fn read(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(setting) = text.strip_prefix("with ") {
            let (name, value) = setting.split_once(' ').ok_or("a setting without a value")?;
            return set(self.config.get_or_insert_default(), name, value);
        }
        let action = match text.strip_prefix("wait ") {
            Some(time) => Action::Wait(duration(time)?),
            None => action(text)?,
        };
        self.steps.push(Step { line, action });
        Ok(())
    }
}

fn set(config: &mut MqttConfig, name: &str, value: &str) -> Result<(), String> {
    let number: u32 = value.parse().map_err(|_| format!("`{value}` is no number"))?;
    let short = || u16::try_from(number).map_err(|_| format!("{number} is too large"));
    match name {
        "receive_maximum" => config.receive_maximum = short()?.try_into().map_err(|_| "0")?,
        "topic_alias_max" => config.topic_alias_max = short()?,
        "server_keep_alive" => config.server_keep_alive = Some(short()?.try_into().map_err(|_| "0")?),
        "keep_alive_max" => config.keep_alive_max = Some(short()?.try_into().map_err(|_| "0")?),
        "session_expiry_max" => config.session_expiry_max = Some(number),
        "packet_bytes_max" => config.packet_bytes_max = number,
        _ => return Err(format!("no setting is called `{name}`")),
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or("a time is `15s` or `250ms`")?, 1000),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Ok(Duration::from_millis(number * unit))
}

fn action(text: &str) -> Result<Action, String> {
    let at = text.find(|mark: char| !mark.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (word, rest) = text.split_at(at);
    if word == "connects" {
        return Ok(Action::Connect(CLIENT.to_owned(), version(rest.trim())?));
    }
    let client = if word.is_empty() { CLIENT.to_owned() } else { word.to_owned() };
    if let Some(rest) = rest.strip_prefix(" connects ") {
        return Ok(Action::Connect(client, version(rest)?));
    }
    match (rest.chars().next(), rest.get(1..).unwrap_or_default().trim()) {
        (Some('>'), "close") => Ok(Action::Break(client)),
        (Some('<'), "close") => Ok(Action::Close(client)),
        (Some('>'), words) => {
            let bytes = Pattern::parse(words)?.0.into_iter().collect::<Option<Vec<u8>>>();
            Ok(Action::Send(client, bytes.ok_or("a client does not send any byte, but one")?))
        }
        (Some('<'), words) => Ok(Action::Hear(client, Pattern::parse(words)?)),
        _ => Err(format!("`{text}` is no step")),
    }
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "5.0" => Ok(Version::V5),
        "3.1.1" => Ok(Version::V311),
        "3.1" => Ok(Version::V31),
        _ => Err(format!("`{text}` is no version")),
    }
}

impl Pattern {
    /// Bytes from words.
    pub(crate) fn parse(words: &str) -> Result<Pattern, String> {
        let mut chars = words.chars().peekable();
        Ok(Pattern(group(&mut chars, None)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `bytes` are these, as far as they go.
    pub(crate) fn begins_with(&self, bytes: &[u8]) -> bool {
        bytes.len() <= self.len()
            && bytes.iter().zip(&self.0).all(|(byte, wanted)| wanted.is_none_or(|wanted| wanted == *byte))
    }

    pub(crate) fn words(&self) -> String {
        words(self.0.iter().copied())
    }
}

/// What stands up to the end, or up to a closing bracket.
fn group(chars: &mut Peekable<Chars<'_>>, end: Option<char>) -> Result<Vec<Option<u8>>, String> {
    let mut bytes = Vec::new();
    loop {
        while chars.next_if(|next| *next == ' ').is_some() {}
        match chars.next() {
            next if next == end => return Ok(bytes),
            None => return Err("a bracket that is not closed".to_owned()),
            Some(first) => {
                let mut times = 1;
                let mut first = first;
                if let Some(count) = repetition(first, chars)? {
                    times = count;
                    first = chars.next().ok_or("a number of nothing")?;
                }
                let word = word(first, chars)?;
                (0..times).for_each(|_| bytes.extend_from_slice(&word));
            }
        }
    }
}

/// The number in front of a `*`.
fn repetition(first: char, chars: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, String> {
    let ahead: String = std::iter::once(first).chain(chars.clone().take_while(|next| *next != ' ')).collect();
    let Some((number, _)) = ahead.split_once('*').filter(|(number, _)| number.parse::<usize>().is_ok())
    else {
        return Ok(None);
    };
    // The digits behind the first, and the `*`.
    let _ = chars.nth(number.len() - 1);
    number.parse().map(Some).map_err(|_| format!("`{number}` is no number"))
}

fn word(first: char, chars: &mut Peekable<Chars<'_>>) -> Result<Vec<Option<u8>>, String> {
    match first {
        '(' => {
            let inner = group(chars, Some(')'))?;
            Ok(length(inner.len()).into_iter().map(Some).chain(inner).collect())
        }
        '{' => {
            let inner = group(chars, Some('}'))?;
            Ok((inner.len() as u16).to_be_bytes().into_iter().map(Some).chain(inner).collect())
        }
        '\'' | '"' => {
            let text = chars.by_ref().take_while(|next| *next != first).collect::<String>();
            let len = (text.len() as u16).to_be_bytes();
            let len = if first == '"' { &len[..] } else { &[] };
            Ok(len.iter().chain(text.as_bytes()).copied().map(Some).collect())
        }
        '?' if chars.next_if_eq(&'?').is_some() => Ok(vec![None]),
        _ => {
            let digits = chars.next().and_then(|second| Some([first.to_digit(16)?, second.to_digit(16)?]));
            let [high, low] = digits.ok_or_else(|| format!("`{first}` begins no byte"))?;
            Ok(vec![Some((high << 4 | low) as u8)])
        }
    }
}

/// A variable byte integer.
fn length(mut rest: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = rest > 0x7f;
        bytes.push((rest & 0x7f) as u8 | if more { 0x80 } else { 0 });
        rest >>= 7;
        if !more {
            return bytes;
        }
    }
}

/// Bytes as words: hexadecimal digits, and text where three letters or more stand together.
pub(crate) fn words(bytes: impl Iterator<Item = Option<u8>>) -> String {
    let bytes: Vec<Option<u8>> = bytes.collect();
    let mut words = Vec::new();
    let mut rest = &bytes[..];
    while let Some(first) = rest.first() {
        let text: String = rest.iter().map_while(|byte| letter(*byte)).collect();
        let taken = if text.len() >= 3 { text.len() } else { 1 };
        words.push(match first {
            _ if taken > 1 => format!("'{text}'"),
            Some(byte) => format!("{byte:02x}"),
            None => "??".to_owned(),
        });
        rest = &rest[taken..];
    }
    words.join(" ")
}

fn letter(byte: Option<u8>) -> Option<char> {
    byte.map(char::from).filter(|letter| (' '..='~').contains(letter) && *letter != '\'')
}

#[test]
fn words_are_bytes() {
    for (text, bytes) in [
        ("c0 00", &b"\xc0\x00"[..]),
        ("30 ( \"t\" () 'x y' )", b"\x30\x07\x00\x01t\x00x y"),
        ("2*( 3*'ab' 0a ) 2*00", b"\x07ababab\x0a\x07ababab\x0a\x00\x00"),
        ("\"it's\" { ff 'a' }", b"\x00\x04it's\x00\x02\xffa"),
    ] {
        assert_eq!(Pattern::parse(text), Ok(Pattern(bytes.iter().copied().map(Some).collect())), "{text}");
    }
    assert_eq!(Pattern::parse("( 200*00 )").map(|pattern| pattern.len()), Ok(202));
    assert!(Pattern::parse("2*?? 07").unwrap().begins_with(b"\x01\x02\x07"));
    for wrong in ["(", "{ 00 )", "0", "xy", "2*", "?"] {
        assert!(Pattern::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Pattern::parse("e0 'MQTT-1' ??").unwrap().words(), "e0 'MQTT-1' ??");
}
