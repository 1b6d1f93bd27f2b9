//! Rust source as words: enough to find paths, keywords and macro calls without mistaking a comment, a
//! string or a lifetime for one.
//!
//! Left out on purpose: numbers' forms, operators longer than one character, spans. The laws need names.

/// One word of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// An identifier or keyword (`r#` removed).
    Name(String),
    /// `::`
    Path,
    /// Any other single character.
    Sign(char),
}

impl Word {
    /// Whether this is that name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Name(own) if own == name)
    }
}

/// A word and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The word.
    pub word: Word,
    /// Where.
    pub line: usize,
}

/// Cuts a source file into words; comments, strings, characters, lifetimes and numbers fall away.
#[must_use]
pub fn words(source: &str) -> Vec<Placed> {
    let mut lexer = Lexer { rest: source, line: 1, words: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.words
}

/// Leaves out every item under `#[cfg(test)]` that has a body in braces.
#[must_use]
pub fn without_tests(words: &[Placed]) -> Vec<Placed> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let text = |placed: &Placed| match &placed.word {
        Word::Name(name) => name.clone(),
        Word::Path => "::".to_owned(),
        Word::Sign(sign) => sign.to_string(),
    };
    let mut kept = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        let marked =
            words.len() - at > MARK.len() && words[at..].iter().zip(MARK).all(|(word, mark)| text(word) == mark);
        if !marked {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        let mut depth = 0_usize;
        while at < words.len() {
            match words[at].word {
                Word::Sign('{') => depth += 1,
                Word::Sign('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = depth == 0 && matches!(words[at].word, Word::Sign('}' | ';'));
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    words: Vec<Placed>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().expect("step is called with something left");
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(len) = string(rest) {
            self.skip(len);
        } else if first == '\'' {
            self.skip(quote(rest));
        } else if first.is_ascii_digit() {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.skip(len);
        } else if first.is_alphabetic() || first == '_' {
            let name = rest.strip_prefix("r#").unwrap_or(rest);
            let len = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            self.push(Word::Name(name[..len].to_owned()));
            self.skip(rest.len() - name.len() + len);
        } else if rest.starts_with("::") {
            self.push(Word::Path);
            self.skip(2);
        } else {
            if !first.is_whitespace() {
                self.push(Word::Sign(first));
            }
            self.skip(first.len_utf8());
        }
    }

    fn push(&mut self, word: Word) {
        self.words.push(Placed { word, line: self.line });
    }

    fn skip(&mut self, len: usize) {
        let (gone, rest) = self.rest.split_at(len);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }
}

/// Length of a block comment, nested ones included.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of a string of any kind that starts here.
fn string(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let prefix = bytes.iter().take(2).take_while(|b| matches!(b, b'b' | b'c' | b'r')).count();
    let hashes = bytes[prefix..].iter().take_while(|b| **b == b'#').count();
    let raw = prefix > 0 && bytes[prefix - 1] == b'r';
    let open = prefix + hashes;
    if bytes.get(open) != Some(&b'"') || (hashes > 0 && !raw) {
        return None;
    }
    if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(text[open + 1..].find(&close).map_or(text.len(), |end| open + 1 + end + close.len()));
    }
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    Some(text.len())
}

/// Length of a character literal, or of a lifetime's apostrophe and name.
fn quote(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let escaped = chars.next().map_or(text.len(), |(at, c)| at + c.len_utf8());
            text[escaped..].find('\'').map_or(text.len(), |end| escaped + end + 1)
        }
        Some((at, c)) => match text[at + c.len_utf8()..].chars().next() {
            Some('\'') => at + c.len_utf8() + 1,
            _ => text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |end| end + 1),
        },
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        let name = |placed: Placed| match placed.word {
            Word::Name(name) => Some(name),
            _ => None,
        };
        words(source).into_iter().filter_map(name).collect()
    }

    #[test]
    fn only_code_is_words() {
        for hidden in [
            "// unsafe",
            "/* unsafe /* unsafe */ unsafe */",
            "\"unsafe \\\" unsafe\"",
            "r#\"unsafe \" unsafe\"#",
            "b\"unsafe\"",
            "'\\''",
            "'\"'",
            "'é'",
            "'unsafe",
            "'\\u{1F600}'",
        ] {
            assert_eq!(names(&format!("a {hidden}\n b")), ["a", "b"], "{hidden}");
        }
        assert_eq!(names("r#fn fn<'a>(x: &'a str) { x[0..1] }"), ["fn", "fn", "x", "str", "x"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let placed = words("a\n/* \n */ \"\n\" b");
        assert_eq!(placed.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn what_is_under_cfg_test_falls_away() {
        let source = "use a; #[cfg(test)] mod tests { fn x() { b } } c #[cfg(test)] mod t; #[cfg(unix)] mod d { e }";
        let kept: Vec<_> = without_tests(&words(source));
        let has = |name: &str| kept.iter().any(|placed| placed.word.is(name));
        assert!(has("a") && has("c") && has("d") && has("e"));
        assert!(!has("b") && !has("tests") && !has("t"));
    }
}
