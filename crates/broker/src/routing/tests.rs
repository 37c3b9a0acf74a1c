//! The trie and the single filter against a matcher too simple to be wrong, the table of rules, and costs.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    Dialect, Embedded, FILTER_BYTES_MAX, FILTER_LEVELS_MAX, Filter, FilterError, Level, ManyPlace, ManyTakes,
    Scratch, Trie,
};

/// Slashes, wildcards only as whole levels, `#` last and matching the parent, `$` hidden.
const SLASHED: Dialect = Dialect::CANONICAL;

/// Dots, `>` last and taking one level or more, no empty levels.
const DOTTED: Dialect = Dialect {
    separator: b'.',
    one: b'*',
    many: b'>',
    many_takes: ManyTakes::OneOrMore,
    many_place: ManyPlace::End,
    embedded: Embedded::Literal,
    empty_levels: false,
    empty_filter: false,
    hides_dollar: false,
};

/// Dots, `#` anywhere.
const WORDS: Dialect = Dialect {
    separator: b'.',
    one: b'*',
    many: b'#',
    many_takes: ManyTakes::ZeroOrMore,
    many_place: ManyPlace::Anywhere,
    embedded: Embedded::Literal,
    empty_levels: true,
    empty_filter: true,
    hides_dollar: false,
};

/// The meaning of a filter by plain recursion.
fn naive(filter: &[Level<'_>], subject: &[&str]) -> bool {
    match (filter.split_first(), subject.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Level::Many, rest)), _) => (0..=subject.len()).any(|taken| naive(rest, &subject[taken..])),
        (Some((Level::One, rest)), Some((_, levels))) => naive(rest, levels),
        (Some((Level::Literal(text), rest)), Some((level, levels))) => text == level && naive(rest, levels),
        (Some((Level::One | Level::Literal(_), _)), None) => false,
    }
}

fn naive_matches(filter: &Filter, hides_dollar: bool, subject: &str) -> bool {
    let levels: Vec<Level<'_>> = filter.levels().collect();
    let hidden =
        hides_dollar && subject.starts_with('$') && !matches!(levels.first(), Some(Level::Literal(_)));
    let split: Vec<&str> = if subject.is_empty() { Vec::new() } else { subject.split('/').collect() };
    !hidden && naive(&levels, &split)
}

fn found(trie: &Trie<u32>, subject: &str) -> Vec<u32> {
    let mut values = Vec::new();
    trie.matches(subject, &mut Scratch::default(), |value| values.push(value));
    values.sort_unstable();
    values
}

fn slashed(text: &str) -> Filter {
    Filter::parse(text, &SLASHED).unwrap()
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 3 => Just("b"), 2 => Just(""), 1 => Just("$"), 1 => Just("$s"), 1 => Just("+")]
}

/// Level numbers: 0 and 1 are wildcards, the others literal.
fn any_filter() -> impl Strategy<Value = (Filter, bool)> {
    let part = prop_oneof![level().prop_map(Some), level().prop_map(Some), Just(None)];
    (vec((part, any::<bool>()), 0..7), any::<bool>()).prop_map(|(parts, hides)| {
        let levels = parts.into_iter().map(|(text, one)| match (text, one) {
            (Some(text), _) => Level::Literal(text),
            (None, true) => Level::One,
            (None, false) => Level::Many,
        });
        (Filter::from_levels(levels, hides).unwrap(), hides)
    })
}

fn subject() -> impl Strategy<Value = String> {
    vec(level(), 0..8).prop_map(|levels| levels.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_filter_matches_as_the_naive_matcher((filter, hides) in any_filter(), subject in subject()) {
        prop_assert_eq!(filter.matches(&subject), naive_matches(&filter, hides, &subject));
        if filter.matches(&subject) {
            let prefix = filter.literal_prefix();
            let rest = subject.strip_prefix(prefix);
            prop_assert!(prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        }
        prop_assert!(!filter.is_exact() || !filter.matches(&subject) || filter.as_str() == subject);
    }

    #[test]
    fn the_trie_finds_what_single_filters_find(
        held in vec((any_filter(), 0u32..6), 0..40),
        dropped in vec(any::<prop::sample::Index>(), 0..40),
        subjects in vec(subject(), 1..12),
    ) {
        let mut trie = Trie::new();
        let mut model: Vec<(Filter, u32)> = Vec::new();
        for ((filter, _), value) in held {
            let is_new = !model.contains(&(filter.clone(), value));
            let before = trie.generation();
            prop_assert_eq!(trie.insert(&filter, value), is_new);
            prop_assert_eq!(trie.generation() > before, is_new);
            if is_new {
                model.push((filter, value));
            }
        }
        for index in dropped.iter().filter(|_| !model.is_empty()).collect::<Vec<_>>() {
            if model.is_empty() {
                break;
            }
            let (filter, value) = model.swap_remove(index.index(model.len()));
            let before = trie.generation();
            prop_assert!(trie.remove(&filter, value));
            prop_assert!(!trie.remove(&filter, value));
            prop_assert_eq!(trie.generation(), before + 1);
        }
        prop_assert_eq!(trie.len(), model.len());
        for subject in &subjects {
            let mut wanted: Vec<u32> =
                model.iter().filter(|(filter, _)| filter.matches(subject)).map(|(_, value)| *value).collect();
            wanted.sort_unstable();
            prop_assert_eq!(found(&trie, subject), wanted, "{}", subject);
        }
        for (filter, value) in model {
            prop_assert!(trie.remove(&filter, value));
        }
        prop_assert_eq!(trie.footprint(), 0);
        prop_assert!(trie.is_empty());
    }

    #[test]
    fn parsing_never_panics_and_keeps_exact_text(text in "[ab+#*>./$]{0,24}") {
        for dialect in [SLASHED, DOTTED, WORDS] {
            if let Ok(filter) = Filter::parse(&text, &dialect) {
                let again: Filter = Filter::from_levels(filter.levels(), dialect.hides_dollar).unwrap();
                prop_assert_eq!(&again, &filter);
            }
        }
    }
}

#[test]
fn rules_of_matching_hold() {
    // Spec: MQTT 5 [MQTT-4.7.1-2, 4.7.2-1, 4.7.3-1, 4.7.3-4, 1.5.4-3].
    let table = [
        ("#", "a", true),
        ("#", "$SYS/load", false),
        ("#", "$anything", false),
        ("+/x", "$anything/x", false),
        ("+/x", "any/x", true),
        ("$SYS/#", "$SYS/load", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/+", "$SYS/load", true),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("+/a", "/a", true),
        ("/+", "/a", true),
        ("+", "/a", false),
        ("+", "a", true),
        ("+/+", "/a", true),
        ("+/+", "/", true),
        ("+/#", "/", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/b", "a/B", false),
        ("a//b", "a//b", true),
        ("a//b", "a/b", false),
        ("a/+/b", "a//b", true),
        ("a/b", "a/b/", false),
        ("\u{feff}a", "a", false),
        ("\u{feff}a", "\u{feff}a", true),
        ("a", "\u{feff}a", false),
    ];
    for (filter, subject, wanted) in table {
        let filter = slashed(filter);
        let mut trie = Trie::new();
        trie.insert(&filter, 1);
        assert_eq!(filter.matches(subject), wanted, "{filter:?} {subject}");
        assert_eq!(found(&trie, subject), if wanted { vec![1] } else { vec![] }, "{filter:?} {subject}");
    }
}

#[test]
fn invalid_filters_are_refused_with_the_reason() {
    let slashed = [
        ("", FilterError::Empty),
        ("a/#/b", FilterError::ManyNotLast { level: 1 }),
        ("#/", FilterError::ManyNotLast { level: 0 }),
        ("a#", FilterError::WildcardInLevel { level: 0 }),
        ("+a", FilterError::WildcardInLevel { level: 0 }),
        ("a/b+/c", FilterError::WildcardInLevel { level: 1 }),
        ("##", FilterError::WildcardInLevel { level: 0 }),
    ];
    for (text, error) in slashed {
        assert_eq!(Filter::parse(text, &SLASHED), Err(error), "{text}");
    }
    let dotted = [
        ("", FilterError::Empty),
        ("foo..bar", FilterError::EmptyLevel { level: 1 }),
        ("foo.", FilterError::EmptyLevel { level: 1 }),
        ("foo.>.bar", FilterError::ManyNotLast { level: 1 }),
    ];
    for (text, error) in dotted {
        assert_eq!(Filter::parse(text, &DOTTED), Err(error), "{text}");
    }
}

#[test]
fn bounds_hold_at_their_edges() {
    let longest = "x".repeat(FILTER_BYTES_MAX);
    assert!(slashed(&longest).matches(&longest));
    let bytes = FILTER_BYTES_MAX + 1;
    assert_eq!(Filter::parse(&"x".repeat(bytes), &SLASHED), Err(FilterError::TooLong { bytes }));
    let deepest = "+/".repeat(FILTER_LEVELS_MAX - 1) + "#";
    assert_eq!(slashed(&deepest).levels().len(), FILTER_LEVELS_MAX);
    let deeper = "+/".repeat(FILTER_LEVELS_MAX) + "#";
    assert_eq!(Filter::parse(&deeper, &SLASHED), Err(FilterError::TooManyLevels));
}

#[test]
fn dialects_meet_in_one_trie() {
    let mut trie = Trie::new();
    let filters =
        [("a/#", SLASHED), ("a.>", DOTTED), ("#.c", WORDS), ("#", SLASHED), (">", DOTTED), ("a.*.c", WORDS)];
    for (value, (text, dialect)) in filters.iter().enumerate() {
        trie.insert(&Filter::parse(text, dialect).unwrap(), value as u32);
    }
    assert_eq!(found(&trie, "a"), [0, 3, 4]);
    assert_eq!(found(&trie, "a/b/c"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(found(&trie, "$x/c"), [2, 4]);
    assert_eq!(found(&trie, "c"), [2, 3, 4]);
}

#[test]
fn a_slash_inside_a_dotted_level_is_a_dot_of_the_canonical_name() {
    let filter = Filter::parse("v1/0.*", &DOTTED).unwrap();
    assert_eq!(filter.as_str(), "v1.0/+");
    assert_eq!(filter.literal_prefix(), "v1.0");
    assert!(filter.matches("v1.0/state"));
    assert!(Filter::parse("foo*.a", &DOTTED).unwrap().is_exact());
}

#[test]
fn the_empty_subject_has_no_levels() {
    assert!(Filter::parse("", &WORDS).unwrap().matches(""));
    assert!(Filter::parse("#", &WORDS).unwrap().matches(""));
    assert!(!Filter::parse("*", &WORDS).unwrap().matches(""));
}

#[test]
fn a_match_costs_by_what_matches_and_not_by_what_is_held() {
    let mut trie = Trie::new();
    for device in 0..100_000u32 {
        trie.insert(&slashed(&format!("sensor/{device}/+/temp")), device);
    }
    let mut scratch = Scratch::default();
    let mut values = Vec::new();
    trie.matches("sensor/77/room/temp", &mut scratch, |value| values.push(value));
    assert_eq!(values, [77]);
    assert!(scratch.visited() <= 5, "{}", scratch.visited());
    let before = trie.nodes_held();
    for device in 0..100_000u32 {
        assert!(trie.remove(&slashed(&format!("sensor/{device}/+/temp")), device));
        let left = 99_999 - device;
        if left == 1000 {
            let mut values = Vec::new();
            trie.matches("sensor/99500/room/temp", &mut scratch, |value| values.push(value));
            assert_eq!(values, [99_500]);
            assert!(trie.nodes_held() < before / 16, "slots {} of {before}", trie.nodes_held());
        }
    }
    assert_eq!(trie.footprint(), 0);
}

#[test]
fn many_wildcards_in_the_middle_stay_polynomial() {
    let mut trie = Trie::new();
    let text = "#.a.".repeat(FILTER_LEVELS_MAX / 2 - 1) + "b";
    let hard = Filter::parse(&text, &WORDS).unwrap();
    trie.insert(&hard, 1);
    trie.insert(&Filter::parse(&("#.*.".repeat(60) + "b"), &WORDS).unwrap(), 2);
    let subject = "a/".repeat(32_767);
    let mut scratch = Scratch::default();
    trie.matches(&subject, &mut scratch, |_| {});
    let nodes_times_levels = 400 * 32_768;
    assert!(scratch.visited() < nodes_times_levels, "{}", scratch.visited());
    assert!(!hard.matches(&subject));
    assert_eq!(found(&trie, &("a/".repeat(200) + "b")), [1, 2]);
}

#[test]
fn a_popular_filter_keeps_each_value_once() {
    let mut trie = Trie::new();
    for round in [true, false] {
        for value in 0..20_000u32 {
            assert_eq!(trie.insert(&slashed("alerts/#"), value), round);
        }
    }
    assert_eq!(found(&trie, "alerts"), (0..20_000).collect::<Vec<u32>>());
    assert!((0..20_000u32).rev().all(|value| trie.remove(&slashed("alerts/#"), value)));
    assert_eq!(trie.footprint(), 0);
}
