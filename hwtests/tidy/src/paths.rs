//! Every path that a source file names, with `use` trees written out: `std::{fs, net::TcpStream as S}`
//! gives `std::fs` and `std::net::TcpStream`.

use crate::lexer::{Placed, Word};

/// A path as written and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Segments; a glob ends in `*`.
    pub segments: Vec<String>,
    /// Where it starts.
    pub line: usize,
}

impl Named {
    /// Whether the path begins with these segments.
    #[must_use]
    pub fn starts_with(&self, prefix: &[&str]) -> bool {
        self.segments.len() >= prefix.len() && self.segments.iter().zip(prefix).all(|(a, b)| a == b)
    }
}

/// All paths of two segments or more.
#[must_use]
pub fn paths(words: &[Placed]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let starts = matches!(words[at].word, Word::Name(_)) && words.get(at + 1).is_some_and(|w| w.word == Word::Path);
        if starts {
            at = tree(words, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found.retain(|named| named.segments.len() > 1);
    found
}

/// Reads one path or `use` tree from `at` on; returns where it ends.
fn tree(words: &[Placed], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    let line = words.get(at).map_or(0, |placed| placed.line);
    while let Some(placed) = words.get(at) {
        match &placed.word {
            Word::Name(name) => segments.push(name.clone()),
            Word::Sign('*') if segments.len() > prefix.len() || !prefix.is_empty() => segments.push("*".to_owned()),
            Word::Sign('{') if !segments.is_empty() => return group(words, at + 1, &segments, found),
            _ => break,
        }
        at += 1;
        if words.get(at).is_none_or(|next| next.word != Word::Path) {
            break;
        }
        at += 1;
    }
    if segments.len() > prefix.len() {
        found.push(Named { segments, line });
    }
    at
}

/// Reads the inside of a `use` group; returns what follows its closing brace.
fn group(words: &[Placed], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    while let Some(placed) = words.get(at) {
        match &placed.word {
            Word::Sign('}') => return at + 1,
            Word::Name(name) if name == "as" => at += 2,
            Word::Name(name) if name == "self" => {
                found.push(Named { segments: prefix.to_vec(), line: placed.line });
                at += 1;
            }
            Word::Name(_) | Word::Sign('*') => at = tree(words, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::words;

    fn texts(source: &str) -> Vec<String> {
        paths(&words(source)).into_iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn trees_are_written_out() {
        assert_eq!(
            texts("use std::{fs, net::{self, TcpStream as S}, io::*}; fn f() { std::time::Instant::now(); x }"),
            ["std::fs", "std::net", "std::net::TcpStream", "std::io::*", "std::time::Instant::now"]
        );
        assert_eq!(texts("Vec::<u8>::new(); a * b"), Vec::<String>::new());
        assert_eq!(texts("use base::*; a::b * c"), ["base::*", "a::b"]);
    }
}
