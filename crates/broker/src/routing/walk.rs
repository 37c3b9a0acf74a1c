//! Walking through stored subjects in byte order with a filter: what may be passed over.
//!
//! ```text
//!   filter +/status      a/x  a/y  ...  b/status  b/x
//!                         |    `- seek b.. : nothing of a/ can match any more
//!                         `- seek a/status
//! ```

use super::filter::{Filter, Level};

/// The least text above every `$...`.
const BEHIND_DOLLAR: &str = "%";

/// What a walk does behind a subject that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// It looks at the next one.
    Next,
    /// It goes on at this text: no subject between matches.
    Seek(String),
    /// It is over: no subject behind this one matches.
    End,
}

impl Filter {
    /// Where a walk in byte order goes on behind `subject`, which does not match. So a walk costs by the subjects that match and by
    /// the different levels where the filter has a wildcard, not by what lies below a level that cannot match.
    pub(crate) fn ahead(&self, subject: &str) -> Ahead {
        if self.hides_dollar() && subject.starts_with('$') {
            return Ahead::Seek(BEHIND_DOLLAR.to_owned());
        }
        let mut start = 0;
        // Where the last level ends that a `+` took: another one there may match.
        let mut branch = None;
        for wanted in self.levels() {
            let end = subject[start..].find('/').map_or(subject.len(), |at| start + at);
            match wanted {
                Level::Many => return Ahead::Next,
                Level::One => branch = Some(end),
                Level::Literal(text) if text == &subject[start..end] => {}
                Level::Literal(text) => return behind_literal(subject, start, text, branch),
            }
            if end == subject.len() {
                // Deeper ones may come.
                return Ahead::Next;
            }
            start = end + 1;
        }
        // It goes deeper than the filter, and so do all that begin so.
        Ahead::Seek(behind(&subject[..start.saturating_sub(1)]))
    }
}

/// The level that begins at `start` is not the literal `text`.
fn behind_literal(subject: &str, start: usize, text: &str, branch: Option<usize>) -> Ahead {
    let wanted = [&subject[..start], text].concat();
    if *wanted > *subject {
        return Ahead::Seek(wanted);
    }
    // What is below the wanted level may come behind its siblings: `/` is greater than some letters.
    let below = wanted + "/";
    if *below > *subject {
        return Ahead::Seek(below);
    }
    branch.map_or(Ahead::End, |end| Ahead::Seek(behind(&subject[..end])))
}

/// The least text above all that are below this one.
fn behind(level: &str) -> String {
    // `0` follows `/`.
    [level, "0"].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::{Dialect, ManyPlace};
    use super::*;

    /// As AMQP has it: `#` may stand before other levels.
    const ANYWHERE: Dialect = Dialect { many_place: ManyPlace::Anywhere, ..Dialect::CANONICAL };

    /// The subjects that a walk finds, and how many it looked at.
    fn walk<'a>(filter: &Filter, subjects: &'a BTreeSet<String>) -> (Vec<&'a str>, usize) {
        let (mut found, mut looked_at, mut from) = (Vec::new(), 0, String::new());
        while let Some(subject) = subjects.range(from.clone()..).next() {
            looked_at += 1;
            from = [subject, "\0"].concat();
            if filter.matches(subject) {
                found.push(subject.as_str());
                continue;
            }
            match filter.ahead(subject) {
                Ahead::Next => {}
                Ahead::Seek(to) => {
                    assert!(to > *subject, "{subject:?} seeks back to {to:?}");
                    from = to;
                }
                Ahead::End => break,
            }
        }
        (found, looked_at)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        #[test]
        fn a_walk_finds_what_looking_at_all_finds(
            filter in "[ab+#.$/0]{1,7}",
            subjects in proptest::collection::btree_set("[ab.$/0]{1,6}", 0..40),
            dialect in prop_oneof![Just(&Dialect::CANONICAL), Just(&ANYWHERE)],
        ) {
            let Ok(filter) = Filter::parse(&filter, dialect) else { return Ok(()) };
            let all: Vec<_> = subjects.iter().filter(|one| filter.matches(one)).map(String::as_str).collect();
            prop_assert_eq!(walk(&filter, &subjects).0, all);
        }
    }

    #[test]
    fn a_walk_costs_by_what_matches() {
        let below = |device: u32| (0..1000).map(move |part| format!("{device:03}/part/{part:03}"));
        let mut subjects: BTreeSet<String> = (0..100).flat_map(below).collect();
        subjects.extend((0..100).map(|device| format!("{device:03}/status")));
        for (filter, matches, looked_at_max) in
            [("+/status", 100, 301), ("+/part/007", 100, 400), ("+", 0, 101), ("050/#", 1001, 1001)]
        {
            let filter = Filter::parse(filter, &Dialect::CANONICAL).unwrap();
            let prefix = filter.literal_prefix().to_owned();
            let within = subjects.iter().filter(|one| one.starts_with(&prefix)).cloned().collect();
            let (found, looked_at) = walk(&filter, &within);
            assert_eq!(found.len(), matches, "{filter:?}");
            assert!(looked_at <= looked_at_max, "{filter:?} looked at {looked_at}");
        }
    }
}
