//! Rust source text, as far as the textual checks need to understand it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::root;

/// A source file.
pub(super) struct Source {
    /// Relative to the workspace's root.
    pub(super) path: String,
    /// The text, with comments, strings and characters blanked out; offsets and lines are kept.
    pub(super) code: String,
}

impl Source {
    /// The number of the line that has this byte.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// Where `word` stands in the code, not as the end of a longer name.
    pub(super) fn find<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let starts_name = |offset: usize| {
            !self.code[..offset].ends_with(|char: char| char.is_alphanumeric() || char == '_')
        };
        let hits = self.code.match_indices(word).map(|(offset, _)| offset);
        hits.filter(move |&offset| starts_name(offset))
    }
}

/// All Rust files below a folder of the workspace, sorted.
pub(super) fn sources(folder: &str) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths)?;
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let path = path
            .strip_prefix(root())
            .unwrap_or(path)
            .display()
            .to_string();
        Ok(Source {
            path,
            code: code_of(&text),
        })
    };
    paths.iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Blanks out what is not code: comments, strings and characters become spaces.
pub(super) fn code_of(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut at = 0;
    while at < code.len() {
        let len = len_of_no_code(&text.as_bytes()[at..], previous_is_name(&code[..at]));
        code[at..at + len]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        at += len.max(1);
    }
    // Only whole comments and literals were blanked, so what is left is whole characters.
    String::from_utf8_lossy(&code).into_owned()
}

fn previous_is_name(before: &[u8]) -> bool {
    before
        .last()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// How many bytes from here are a comment or a literal; 0 for code.
fn len_of_no_code(rest: &[u8], after_name: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', ..] => character(rest),
        [b'r', b'"' | b'#', ..] if !after_name => raw_string(rest),
        _ => 0,
    }
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `'x'` is a character; a quote that nothing closes begins a lifetime.
fn character(rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(&rest[..rest.len().min(8)]);
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some(char), Some('\'')) => char.len_utf8() + 2,
        _ => 0,
    }
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = &rest[2 + hashes..];
    let closing = body.windows(end.len()).position(|window| window == end);
    closing.map_or(rest.len(), |at| 2 + hashes + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        assert_eq!(
            code_of("a // b\nc /* d /* e */ f */ g"),
            "a     \nc                   g"
        );
        assert_eq!(code_of(r#"x("asm!\"") y"#), r#"x(        ) y"#);
        assert_eq!(code_of("r#\"a\"b\"# c"), "         c");
        assert_eq!(code_of("for r in 'a'..='\\'' {"), "for r in    ..=     {");
    }

    #[test]
    fn lifetimes_and_names_are_code() {
        assert_eq!(code_of("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(code_of("let var = r#type;"), "let var = r#type;");
    }

    #[test]
    fn other_alphabets_do_not_disturb() {
        let code = code_of("let größe = \"größe\"; // größe\n'ß'");
        assert!(code.starts_with("let größe = "));
        assert_eq!(code.matches("größe").count(), 1);
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn words_are_whole() {
        let source = Source {
            path: String::new(),
            code: "naked_asm!() asm!()\nasm!".into(),
        };
        assert_eq!(source.find("asm!").collect::<Vec<_>>(), [13, 20]);
        assert_eq!(source.line_at(20), 2);
    }
}
