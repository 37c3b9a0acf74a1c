//! What a section of the tree can do, and the macro that makes one of a documented struct.

/// A setting as the loader, the printer and the reference page see it.
#[derive(Debug)]
pub(crate) struct Field {
    /// The key.
    pub(crate) name: &'static str,
    /// The lines of its doc comment.
    pub(crate) doc: &'static [&'static str],
    /// What kind of value it takes, as a noun.
    pub(crate) kind: &'static str,
}

/// A value as it was given, before its type is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    /// From a variable: text without quotes, whatever the type.
    Bare(&'a str),
    /// A string of the file.
    Text(&'a str),
    /// A number of the file, in decimal.
    Integer(i128),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// An array of the file, as it is written there.
    List(&'a str),
    /// Anything else.
    Other,
}

/// What was wanted where something else was found.
pub(crate) type Expected = &'static str;

/// A struct of settings; made by `section!`.
pub(crate) trait Section {
    /// The name in brackets.
    fn name(&self) -> &'static str;
    /// The lines of its doc comment.
    fn doc(&self) -> &'static [&'static str];
    /// Its settings in order.
    fn fields(&self) -> &'static [Field];
    /// Gives `key`, one of [`fields`](Section::fields), a new value.
    fn set(&mut self, key: &str, raw: Raw<'_>) -> Result<(), Expected>;
    /// The value of `key` as TOML.
    fn show(&self, key: &str) -> String;
}

/// Declares a section: a struct whose doc comments are its reference and whose `Default` is written beside it.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        pub struct $name:ident [$section:literal] {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $crate::config::section::Section for $name {
            fn name(&self) -> &'static str {
                $section
            }

            fn doc(&self) -> &'static [&'static str] {
                &[$($section_doc),+]
            }

            fn fields(&self) -> &'static [$crate::config::section::Field] {
                &[$( $crate::config::section::Field {
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    kind: <$type as $crate::config::values::Value>::KIND,
                } ),+]
            }

            fn set(
                &mut self,
                key: &str,
                raw: $crate::config::section::Raw<'_>,
            ) -> Result<(), $crate::config::section::Expected> {
                use $crate::config::values::Value;
                match key {
                    $( stringify!($field) => self.$field = <$type as Value>::read(raw)?, )+
                    _ => return Err("a key of this section"),
                }
                Ok(())
            }

            fn show(&self, key: &str) -> String {
                use $crate::config::values::Value;
                match key {
                    $( stringify!($field) => self.$field.show(), )+
                    _ => String::new(),
                }
            }
        }
    };
}

pub(crate) use section;

/// Collects what values of the right type do wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

/// A rule that the value of a setting breaks.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The section.
    pub(crate) section: String,
    /// The key in it.
    pub(crate) key: &'static str,
    /// The rule, as a sentence about the key.
    pub(crate) rule: String,
}

impl Faults {
    /// Says that `section.key` breaks `rule`.
    pub(crate) fn add(&mut self, section: &str, key: &'static str, rule: String) {
        self.0.push(Fault { section: section.to_owned(), key, rule });
    }

    /// All that was said, in order.
    pub(crate) fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}
