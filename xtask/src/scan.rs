//! Reads Rust source as token trees and reports what the rules ask about.
//!
//! Token trees are enough: groups are balanced, strings and comments are not tokens, and files that use syntax newer
//! than a parser still scan. What a macro generates is not seen.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Something that a rule may care about, with its line.
#[derive(Debug, PartialEq)]
pub(crate) enum Finding {
    /// A function with a body.
    Function { name: String, lines: usize, parameters: usize, of_trait_impl: bool },
    /// `mod name`, with a body or without.
    Module { name: String },
    /// `name!`, one of the macros in question.
    Macro { name: String },
    /// `#[ignore]`.
    Ignored,
    /// A name that mentions dashmap.
    Dashmap,
    /// `thread::sleep` or `time::sleep` in test code.
    SleepInTest,
}

/// The macros that [`Finding::Macro`] reports.
pub(crate) const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Scans a file; `test` says that all of it is test code. Fails with the line where it does not lex.
pub(crate) fn scan(text: &str, test: bool) -> Result<Vec<(usize, Finding)>, usize> {
    let stream: TokenStream =
        text.parse().map_err(|error: proc_macro2::LexError| error.span().start().line.max(1))?;
    let mut scanner = Scanner { findings: Vec::new() };
    scanner.walk(stream, Context { test, of_trait_impl: false });
    Ok(scanner.findings)
}

#[derive(Clone, Copy)]
struct Context {
    test: bool,
    of_trait_impl: bool,
}

struct Scanner {
    findings: Vec<(usize, Finding)>,
}

impl Scanner {
    fn walk(&mut self, stream: TokenStream, context: Context) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut next_is_test = false;
        let mut next_is_trait_impl = false;
        let mut index = 0;
        while index < tokens.len() {
            let inner = Context {
                test: context.test || next_is_test,
                of_trait_impl: next_is_trait_impl || context.of_trait_impl,
            };
            match &tokens[index] {
                TokenTree::Ident(ident) => {
                    let rest = &tokens[index..];
                    match ident.to_string().as_str() {
                        "fn" => {
                            let passed = self.function(rest, inner);
                            if passed > 0 {
                                next_is_test = false;
                            }
                            index += passed;
                        }
                        "impl" => next_is_trait_impl = is_trait_impl(rest),
                        word => self.word(word, rest, context),
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    next_is_test |= self.attribute(&tokens[index + 1..]);
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    (next_is_test, next_is_trait_impl) = (false, false);
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), inner);
                    if group.delimiter() == Delimiter::Brace {
                        (next_is_test, next_is_trait_impl) = (false, false);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            index += 1;
        }
    }

    /// Looks at `fn name<..>(..) -> .. { .. }` and returns how many tokens after `fn` it took; none when this is no
    /// function with a body.
    fn function(&mut self, tokens: &[TokenTree], context: Context) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else { return 0 };
        let Some(at) = parameters_at(tokens) else { return 0 };
        let TokenTree::Group(parameters) = &tokens[at] else { return 0 };
        let body = tokens[at..].iter().enumerate().find_map(|(offset, token)| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some((offset, group))),
            TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
            _ => None,
        });
        let Some(Some((offset, body))) = body else { return at };
        let line = tokens[0].span().start().line;
        let lines = body.span_close().end().line + 1 - line;
        let function = Finding::Function {
            name: name.to_string(),
            lines,
            parameters: count_parameters(parameters),
            of_trait_impl: context.of_trait_impl,
        };
        self.findings.push((line, function));
        self.walk(body.stream(), Context { test: context.test, of_trait_impl: false });
        at + offset
    }

    fn word(&mut self, word: &str, rest: &[TokenTree], context: Context) {
        let line = rest[0].span().start().line;
        let finding = match word {
            "mod" => match rest.get(1) {
                Some(TokenTree::Ident(name)) => Finding::Module { name: name.to_string() },
                _ => return,
            },
            "dashmap" | "DashMap" => Finding::Dashmap,
            "thread" | "time" if context.test && leads_to_sleep(rest) => Finding::SleepInTest,
            word if MACROS.contains(&word) && is_punct(rest.get(1), '!') => {
                Finding::Macro { name: word.to_owned() }
            }
            _ => return,
        };
        self.findings.push((line, finding));
    }

    /// Looks at what follows `#` and answers whether it marks test code.
    fn attribute(&mut self, tokens: &[TokenTree]) -> bool {
        let at = usize::from(is_punct(tokens.first(), '!'));
        let Some(TokenTree::Group(group)) = tokens.get(at) else { return false };
        if group.delimiter() != Delimiter::Bracket {
            return false;
        }
        let words = words_of(group.stream());
        match words.first().map(String::as_str) {
            Some("ignore") => {
                self.findings.push((group.span_open().start().line, Finding::Ignored));
                false
            }
            Some("cfg") => words.iter().any(|word| word == "test") && !words.iter().any(|word| word == "not"),
            // `#[test]`, `#[tokio::test]`.
            _ => words.iter().take(2).any(|word| word == "test"),
        }
    }
}

/// Where the parameter list is: the first parentheses outside `<..>` after the name.
fn parameters_at(tokens: &[TokenTree]) -> Option<usize> {
    let mut depth = 0_i32;
    let mut arrow = false;
    for (index, token) in tokens.iter().enumerate().skip(2) {
        match token {
            TokenTree::Punct(punct) => {
                depth += angle(punct.as_char(), arrow);
                arrow = punct.as_char() == '-';
            }
            TokenTree::Group(group) if depth == 0 && group.delimiter() == Delimiter::Parenthesis => {
                return Some(index);
            }
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => arrow = false,
        }
    }
    None
}

/// Parameters including `self`, as clippy counts them.
fn count_parameters(list: &Group) -> usize {
    let (mut count, mut depth, mut arrow, mut open) = (0, 0_i32, false, false);
    for token in list.stream() {
        if let TokenTree::Punct(punct) = &token {
            depth += angle(punct.as_char(), arrow);
            arrow = punct.as_char() == '-';
            if punct.as_char() == ',' && depth == 0 {
                open = false;
                continue;
            }
        }
        if !open {
            count += 1;
            open = true;
        }
    }
    count
}

/// How `character` changes the depth of `<..>`; the `>` of `->` does not.
fn angle(character: char, after_dash: bool) -> i32 {
    match character {
        '<' => 1,
        '>' if !after_dash => -1,
        _ => 0,
    }
}

/// Whether `impl .. {` is `impl Trait for Type {`; the `for` of `for<'a>` does not count.
fn is_trait_impl(tokens: &[TokenTree]) -> bool {
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return false,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return false,
            TokenTree::Ident(ident) if ident == "for" && !is_punct(tokens.get(index + 1), '<') => {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// Whether `thread` or `time` goes on with `::sleep` or `::{.., sleep, ..}`.
fn leads_to_sleep(tokens: &[TokenTree]) -> bool {
    if !(is_punct(tokens.get(1), ':') && is_punct(tokens.get(2), ':')) {
        return false;
    }
    match tokens.get(3) {
        Some(TokenTree::Ident(ident)) => ident == "sleep",
        Some(TokenTree::Group(group)) => words_of(group.stream()).iter().any(|word| word == "sleep"),
        _ => false,
    }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// All identifiers in reading order, those in groups included.
fn words_of(stream: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    for token in stream {
        match token {
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Group(group) => words.extend(words_of(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(text: &str) -> Vec<(String, usize, usize, bool)> {
        scan(text, false)
            .expect("lexes")
            .into_iter()
            .filter_map(|(_, finding)| match finding {
                Finding::Function { name, lines, parameters, of_trait_impl } => {
                    Some((name, lines, parameters, of_trait_impl))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn generics_closures_and_arrows_do_not_confuse_the_parameter_count() {
        let text = "fn f<F: Fn(u8, u8) -> Vec<(u8, u8)>, G>(a: HashMap<K, V>, f: fn(u8, u8) -> u8, g: G,)\n\
                    -> impl Iterator<Item = u8>\nwhere F: X { if a < b { g(1, 2) } }";
        assert_eq!(functions(text), [("f".to_owned(), 3, 3, false)]);
    }

    #[test]
    fn functions_inside_functions_impls_and_traits_are_seen() {
        let text = "impl A { fn a(&self) { fn b() {} } }\nimpl<'a> T for A where for<'x> &'x A: Y { fn c(&self) {} }\n\
                    trait U { fn d(&self); fn e(&self) {} }\nfn g(f: fn(u8)) -> impl Z {}";
        let names: Vec<(String, bool)> = functions(text).into_iter().map(|f| (f.0, f.3)).collect();
        let expected = [("a", false), ("b", false), ("c", true), ("e", false), ("g", false)];
        assert_eq!(names, expected.map(|(name, of_trait)| (name.to_owned(), of_trait)));
    }

    #[test]
    fn sleeping_is_found_in_tests_only() {
        let text = "fn a() { std::thread::sleep(d) }\n#[cfg(test)]\nmod t {\n use std::time::{self, sleep};\n\
                    #[test]\n fn b() { tokio::time::sleep(d) }\n}\n#[tokio::test]\nasync fn c() { time::sleep(d) }\n\
                    fn d() { thread::sleep(d) }\n#[cfg(not(test))]\nfn e() { thread::sleep(d) }";
        let lines: Vec<usize> = scan(text, false)
            .expect("lexes")
            .into_iter()
            .filter(|(_, finding)| *finding == Finding::SleepInTest)
            .map(|(line, _)| line)
            .collect();
        assert_eq!(lines, [4, 6, 9]);
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let text = "/// todo!()\nconst A: &str = \"dashmap todo!()\"; // dbg!(1)\n";
        assert_eq!(scan(text, false), Ok(vec![]));
    }

    #[test]
    fn a_file_that_does_not_lex_names_its_line() {
        assert_eq!(scan("fn a() {\n}\n}\n", false), Err(3));
    }
}
