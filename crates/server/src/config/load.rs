//! Lays the file, the environment and the flags over the defaults, and gathers everything that is wrong with them.

mod lists;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use self::lists::{FileText, LISTENERS};
use super::Config;
use super::problem::{Origin, Problem, ProblemKind};
use super::section::Raw;

/// What variables begin with. A single underscore, as in `ROBUSTMQ_CACHE`, is not ours.
const PREFIX: &str = "ROBUSTMQ__";
/// What separates the section from the key in a variable.
const SEPARATOR: &str = "__";
/// One typing error per this many letters still looks like the name that was meant.
const LETTERS_PER_ERROR: usize = 3;

/// Where settings come from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The file, if one was named. There is no other.
    pub(crate) file: Option<PathBuf>,
    /// All variables of the process.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The command line.
    pub(crate) flags: Flags,
}

/// Settings that have a flag.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// `--data-dir`
    pub(crate) data_dir: Option<PathBuf>,
    /// `--any-port`
    pub(crate) any_port: bool,
}

/// Settings that are complete and keep all rules.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    origins: Origins,
}

/// By `section.key`; by `section` alone for an item of a list.
type Origins = BTreeMap<String, Origin>;

impl Loaded {
    /// Where the value of `section.key` comes from.
    pub(crate) fn origin(&self, section: &str, key: &str) -> &Origin {
        self.origins.get(&format!("{section}.{key}")).unwrap_or(&Origin::Default)
    }
}

/// Reads all sources. The later of defaults, file, environment and flags wins. On failure, everything that is wrong is
/// returned, in the order of the sources.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let mut loader = Loader {
        config: Config::default(),
        origins: Origins::new(),
        unread: BTreeSet::new(),
        problems: Vec::new(),
    };
    if let Some(path) = &sources.file {
        loader.file(path);
    }
    loader.environment(&sources.environment);
    loader.flags(&sources.flags);
    loader.finish()
}

struct Loader {
    config: Config,
    origins: Origins,
    /// Settings whose last value is of another type, each as `section.key`. What stands there instead breaks no rule.
    unread: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Loader {
    fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.text(path, &text),
            Err(error) => {
                self.report(
                    Origin::File(path.to_owned()),
                    ProblemKind::Unreadable { reason: error.to_string() },
                );
            }
        }
    }

    fn text(&mut self, path: &Path, text: &str) {
        let file = FileText { path, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let reason = error.message().to_owned();
            self.report(
                file.origin(error.span().map_or(0, |span| span.start)),
                ProblemKind::Syntax { reason },
            );
        }
        for (name, value) in table.get_ref() {
            let section = name.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(settings) => {
                    if self.known_section(section, || file.origin(name.span().start)) {
                        for (key, value) in settings {
                            if section == "mqtt" && key.get_ref() == LISTENERS {
                                self.listeners(file, value);
                                continue;
                            }
                            if let DeValue::Table(settings) = value.get_ref() {
                                let inner = format!("{section}.{}", key.get_ref());
                                if self.known_section(&inner, || file.origin(key.span().start)) {
                                    self.inner(file, &inner, settings);
                                }
                                continue;
                            }
                            let origin = file.origin(key.span().start);
                            let found = &text[value.span()];
                            self.set(
                                Place { section, key: key.get_ref(), found },
                                raw(value.get_ref(), found),
                                origin,
                            );
                        }
                    }
                }
                _ => {
                    let kind = self.misplaced(section);
                    self.report(file.origin(name.span().start), kind);
                }
            }
        }
    }

    /// A section within a section.
    fn inner(&mut self, file: FileText<'_>, section: &str, settings: &DeTable<'_>) {
        for (key, value) in settings {
            let found = &file.text[value.span()];
            let place = Place { section, key: key.get_ref(), found };
            self.set(place, raw(value.get_ref(), found), file.origin(key.span().start));
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut ours: Vec<(String, Option<&str>)> = variables
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_str()))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        ours.sort();
        for (name, value) in ours {
            self.variable(&name, value);
        }
    }

    fn variable(&mut self, variable: &str, value: Option<&str>) {
        let name = variable[PREFIX.len()..].to_ascii_lowercase();
        let origin = Origin::Variable(variable.to_owned());
        let Some((section, key)) = name.rsplit_once(SEPARATOR) else {
            let rule = format!("a variable is named {PREFIX}SECTION{SEPARATOR}KEY");
            return self.report(origin, ProblemKind::Rule { name, rule });
        };
        let section = &section.replace(SEPARATOR, ".");
        if self.known_section(section, || origin.clone()) {
            let found = value.unwrap_or("bytes that are not UTF-8");
            let raw = value.map_or(Raw::Other, Raw::Bare);
            self.set(Place { section, key, found }, raw, origin);
        }
    }

    fn flags(&mut self, flags: &Flags) {
        if let Some(data_dir) = &flags.data_dir {
            self.config.node.data_dir.clone_from(data_dir);
            self.origins.insert("node.data_dir".to_owned(), Origin::Flag("--data-dir"));
        }
        if flags.any_port {
            for (section, bind) in self.config.listeners_mut() {
                bind.take_any_port();
                self.origins.insert(format!("{section}.bind"), Origin::Flag("--any-port"));
            }
            for (at, listener) in self.config.mqtt_listeners.iter_mut().enumerate() {
                if let Some(bind) = &mut listener.own.bind {
                    bind.take_any_port();
                    self.origins.insert(format!("mqtt.listeners[{at}].bind"), Origin::Flag("--any-port"));
                }
            }
        }
    }

    fn set(&mut self, place: Place<'_>, raw: Raw<'_>, origin: Origin) {
        let Place { section, key, found } = place;
        let name = format!("{section}.{key}");
        let sections = self.config.sections_mut();
        let Some(target) = sections.into_iter().find(|candidate| candidate.name() == section) else { return };
        let Some(field) = target.fields().iter().find(|field| field.name == key) else {
            let suggestion = suggest_key(&self.config, section, key);
            return self.report(origin, ProblemKind::Unknown { name, suggestion });
        };
        let at = format!("{}.{}", target.name(), field.name);
        match target.set(key, raw) {
            Ok(()) => {
                self.unread.remove(&at);
                self.origins.insert(at, origin);
            }
            Err(expected) => {
                self.unread.insert(at);
                self.report(origin, ProblemKind::Type { name, expected, found: shortened(found) });
            }
        }
    }

    /// Whether there is such a section; reports it if not.
    fn known_section(&mut self, section: &str, origin: impl FnOnce() -> Origin) -> bool {
        let names = self.config.sections().map(|candidate| candidate.name());
        if names.contains(&section) {
            return true;
        }
        let suggestion = closest(section, names.into_iter()).map(|name| format!("[{name}]"));
        self.report(origin(), ProblemKind::Unknown { name: format!("[{section}]"), suggestion });
        false
    }

    /// What is wrong with a top-level `name = value`.
    fn misplaced(&self, name: &str) -> ProblemKind {
        match settings_named(&self.config, name).next() {
            Some(setting) => ProblemKind::Unknown { name: name.to_owned(), suggestion: Some(setting) },
            None => ProblemKind::Misplaced { name: name.to_owned() },
        }
    }

    fn report(&mut self, origin: Origin, kind: ProblemKind) {
        self.problems.push(Problem { origin, kind });
    }

    /// Where the value of `section.key` comes from; for what an item of a list lacks, where the item begins.
    fn origin_of(&self, section: &str, key: &str) -> Origin {
        let item = section.trim_end_matches(".tls");
        let names = [format!("{section}.{key}"), section.to_owned(), item.to_owned()];
        names.iter().find_map(|name| self.origins.get(name)).cloned().unwrap_or(Origin::Default)
    }

    fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        for fault in self.config.faults().into_vec() {
            if self.unread.contains(&format!("{}.{}", fault.section, fault.key)) {
                continue;
            }
            let origin = self.origin_of(&fault.section, fault.key);
            let name = format!("{}.{}", without_numbers(&fault.section), fault.key);
            self.report(origin, ProblemKind::Rule { name, rule: fault.rule });
        }
        if self.problems.is_empty() {
            Ok(Loaded { config: self.config, origins: self.origins })
        } else {
            Err(self.problems)
        }
    }
}

/// A setting that somebody names, and what stands there.
#[derive(Clone, Copy)]
struct Place<'a> {
    section: &'a str,
    key: &'a str,
    found: &'a str,
}

/// `mqtt.listeners[3].tls` as people call it; which one it is the line says.
fn without_numbers(section: &str) -> String {
    section.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

/// The value of a file, before its type is known.
fn raw<'a>(value: &'a DeValue<'_>, found: &'a str) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other, Raw::Integer)
        }
        DeValue::Boolean(boolean) => Raw::Boolean(*boolean),
        DeValue::Array(_) => Raw::List(found),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Raw::Other,
    }
}

/// What was probably meant by an unknown `key` of `section`: one that is spelled alike, else one of that very name in
/// another section.
fn suggest_key(config: &Config, section: &str, key: &str) -> Option<String> {
    let here = config.sections().into_iter().find(|candidate| candidate.name() == section)?;
    closest(key, here.fields().iter().map(|field| field.name))
        .map(|name| format!("{section}.{name}"))
        .or_else(|| settings_named(config, key).next())
}

/// All settings with this very key.
fn settings_named<'a>(config: &'a Config, key: &'a str) -> impl Iterator<Item = String> + 'a {
    config.sections().into_iter().filter_map(move |section| {
        section.fields().iter().find(|field| field.name == key).map(|_| format!("{}.{key}", section.name()))
    })
}

/// The candidate that is spelled most like `name`, if one is alike enough.
fn closest(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(errors, candidate)| *errors <= candidate.len().div_ceil(LETTERS_PER_ERROR))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The number, from 1, of the line that holds the byte at `offset`.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Bound: what is shown of a value that is wrong.
const FOUND_CHARACTERS_MAX: usize = 60;

fn shortened(found: &str) -> String {
    match found.char_indices().nth(FOUND_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &found[..end]),
        None if found.is_empty() => "nothing".to_owned(),
        None => found.to_owned(),
    }
}
