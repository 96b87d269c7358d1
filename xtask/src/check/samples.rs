//! Blocks of the documentation say what they are, and samples are quotations: each stands in a file that is compiled and tested.
//!
//! A sample begins with a comment that names its file: `// apps/tally/src/lib.rs`. Its lines stand there in a row, however far
//! they are indented; a line `// ...` stands for any that are left out.

use std::path::Path;

use anyhow::{Context, Result};

use super::pages::{Block, Page, pages};
use crate::workspace::root;

/// Languages whose blocks are samples.
const SAMPLES: &[&str] = &["rust", "c"];

/// What other blocks may be: commands, what is typed and answered, drawings and output.
const OTHERS: &[&str] = &["sh", "console", "text"];

/// What stands for lines that are left out.
const LEFT_OUT: &str = "// ...";

/// All blocks that say not what they are, and all samples that stand nowhere.
pub(super) fn check() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for page in pages()? {
        for block in &page.blocks {
            let wrong = what_is_wrong(block)?;
            complaints.extend(wrong.map(|wrong| complaint(&page, block, &wrong)));
        }
    }
    Ok(complaints)
}

fn complaint(page: &Page, block: &Block, wrong: &str) -> String {
    format!("{}:{}: the block {wrong}", page.path, block.line)
}

fn what_is_wrong(block: &Block) -> Result<Option<String>> {
    let language = block.language.as_str();
    if !SAMPLES.contains(&language) {
        let is_known = OTHERS.contains(&language);
        return Ok((!is_known).then(|| format!("is neither a sample nor {}", OTHERS.join(", "))));
    }
    let sample = Sample::of(block);
    Ok(match sample.file {
        None => Some("names no file in its first line".to_owned()),
        Some(file) if !Path::new(root()).join(file).is_file() => {
            Some(format!("is of {file}, which is not there"))
        }
        Some(file) => missing_line(&sample.lines, &read(file)?)
            .map(|line| format!("is not what {file} says: `{line}`")),
    })
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// A block of code. Lines without anything in them count for nothing.
struct Sample<'a> {
    file: Option<&'a str>,
    lines: Vec<&'a str>,
}

impl<'a> Sample<'a> {
    fn of(block: &'a Block) -> Self {
        let mut lines = block
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        Self {
            file: lines.next().and_then(|first| first.strip_prefix("// ")),
            lines: lines.collect(),
        }
    }
}
/// The line from which on a sample does not stand in a text.
fn missing_line<'a>(sample: &[&'a str], text: &str) -> Option<&'a str> {
    let text: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut rest = &text[..];
    for part in sample
        .split(|line| *line == LEFT_OUT)
        .filter(|part| !part.is_empty())
    {
        match rest.windows(part.len()).position(|lines| lines == part) {
            Some(place) => rest = &rest[place + part.len()..],
            // The first line of it that is nowhere, or all of them are, but not in a row.
            None => {
                return part
                    .iter()
                    .copied()
                    .find(|line| !rest.contains(line))
                    .or(part.first().copied());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fn f() {\n    one();\n\n    two();\n    three();\n}\n";

    fn block(language: &str, text: &str) -> Block {
        Block {
            line: 1,
            language: language.into(),
            text: text.into(),
        }
    }

    #[test]
    fn samples_name_their_file() {
        let block = block("rust", "// a/b.rs\nfn f() {\n\n    one();\n");
        let sample = Sample::of(&block);
        assert_eq!(sample.file, Some("a/b.rs"));
        assert_eq!(sample.lines, ["fn f() {", "one();"]);
    }

    #[test]
    fn blocks_say_what_they_are() {
        let wrong = |language: &str, text: &str| what_is_wrong(&block(language, text)).unwrap();
        assert_eq!(wrong("text", "a -> b"), None);
        assert!(wrong("", "a -> b").is_some());
        assert!(wrong("toml", "[a]").is_some());
        assert!(wrong("rust", "f();").unwrap().contains("names no file"));
        assert!(
            wrong("rust", "// no/such.rs\nf();")
                .unwrap()
                .contains("not there")
        );
        let path = "// xtask/src/check/samples.rs";
        assert_eq!(
            wrong("rust", &format!("{path}\nstruct Sample<'a> {{")),
            None
        );
        assert!(wrong("rust", &format!("{path}\nstruct Simple {{")).is_some());
    }

    #[test]
    fn lines_stand_in_a_row() {
        assert_eq!(missing_line(&["one();", "two();"], TEXT), None);
        assert_eq!(
            missing_line(&["fn f() {", LEFT_OUT, "three();", "}"], TEXT),
            None
        );
        assert_eq!(missing_line(&["one();", "four();"], TEXT), Some("four();"));
        assert_eq!(missing_line(&["one();", "three();"], TEXT), Some("one();"));
        assert_eq!(
            missing_line(&["two();", LEFT_OUT, "one();"], TEXT),
            Some("one();")
        );
    }

    #[test]
    fn the_pages_samples_are_quotations() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }
}
