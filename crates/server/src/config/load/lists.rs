//! Tables that may stand several times in the file: `[[mqtt.listeners]]`.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Loader, closest, line_at, raw, shortened};
use crate::config::listener::MqttListener;
use crate::config::problem::{Origin, ProblemKind};
use crate::config::section::Section;

/// The key of the list in `[mqtt]`.
pub(super) const LISTENERS: &str = "listeners";

/// The text of a file, to say where in it something is.
#[derive(Clone, Copy)]
pub(super) struct FileText<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl FileText<'_> {
    pub(super) fn origin(&self, at: usize) -> Origin {
        Origin::Line(self.path.to_owned(), line_at(self.text, at))
    }
}

impl Loader {
    /// Reads `[[mqtt.listeners]]`.
    pub(super) fn listeners(&mut self, file: FileText<'_>, value: &Spanned<DeValue<'_>>) {
        let tables: Option<Vec<_>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| Some((item.span(), table(item)?))).collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            let kind = ProblemKind::Type {
                name: "mqtt.listeners".to_owned(),
                expected: "tables, each begun by [[mqtt.listeners]]",
                found: shortened(&file.text[value.span()]),
            };
            return self.report(file.origin(value.span().start), kind);
        };
        for (span, table) in tables {
            let section = format!("mqtt.listeners[{}]", self.config.mqtt_listeners.len());
            // What is missing is missing there.
            self.origins.insert(section.clone(), file.origin(span.start));
            let mut listener = MqttListener::default();
            for (key, value) in table {
                let inner = (key.get_ref() == "tls").then(|| self::table(value)).flatten();
                let Some(inner) = inner else {
                    self.set_in(&mut listener.own, &section, file, (key, value));
                    continue;
                };
                let section = format!("{section}.tls");
                self.origins.insert(section.clone(), file.origin(key.span().start));
                for entry in inner {
                    self.set_in(&mut listener.tls, &section, file, entry);
                }
            }
            self.config.mqtt_listeners.push(listener);
        }
    }

    /// Sets a key of a section that is an item of a list.
    fn set_in(
        &mut self,
        target: &mut dyn Section,
        section: &str,
        file: FileText<'_>,
        (key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>),
    ) {
        let origin = file.origin(key.span().start);
        let (name, key) = (target.name(), key.get_ref().as_ref());
        let Some(field) = target.fields().iter().find(|field| field.name == key) else {
            let known = target.fields().iter().map(|field| field.name);
            let suggestion = closest(key, known).map(|known| format!("{name}.{known}"));
            return self.report(origin, ProblemKind::Unknown { name: format!("{name}.{key}"), suggestion });
        };
        match target.set(field.name, raw(value.get_ref(), &file.text[value.span()])) {
            Ok(()) => {
                self.origins.insert(format!("{section}.{key}"), origin);
            }
            Err(expected) => {
                let found = shortened(&file.text[value.span()]);
                self.unread.insert(format!("{section}.{key}"));
                self.report(origin, ProblemKind::Type { name: format!("{name}.{key}"), expected, found });
            }
        }
    }
}

fn table<'a, 'b>(value: &'a Spanned<DeValue<'b>>) -> Option<&'a DeTable<'b>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}
