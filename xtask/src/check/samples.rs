//! Samples in the tutorial are quotations: each block of Rust code stands in a file that is compiled and tested.
//!
//! A block begins with a comment that names its file: `// apps/tally/src/lib.rs`. Its lines stand there in a row, however far
//! they are indented; a line `// ...` stands for any that are left out.

use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::root;

/// The pages whose samples are checked.
const PAGES: &[&str] = &["docs/servers.md"];

/// What stands for lines that are left out.
const LEFT_OUT: &str = "// ...";

/// All samples that stand nowhere.
pub(super) fn check() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for page in PAGES {
        let text = read(page)?;
        for sample in samples(&text) {
            let wrong = match sample.file {
                None => Some("names no file in its first line".to_owned()),
                Some(file) if !Path::new(root()).join(file).is_file() => {
                    Some(format!("is of {file}, which is not there"))
                }
                Some(file) => missing_line(&sample.lines, &read(file)?)
                    .map(|line| format!("is not what {file} says: `{line}`")),
            };
            complaints
                .extend(wrong.map(|wrong| format!("{page}:{}: the sample {wrong}", sample.line)));
        }
    }
    Ok(complaints)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// A block of Rust code.
struct Sample<'a> {
    /// Where it begins, from 1 on.
    line: usize,
    file: Option<&'a str>,
    lines: Vec<&'a str>,
}

/// The blocks of Rust code of a page. Lines without anything in them count for nothing.
fn samples(page: &str) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((fence, line)) = lines.next() {
        if !fence.starts_with("```rust") {
            continue;
        }
        let block = lines.by_ref().take_while(|(line, _)| *line != "```");
        let mut block = block
            .map(|(line, _)| line.trim())
            .filter(|line| !line.is_empty());
        let file = block.next().and_then(|first| first.strip_prefix("// "));
        let lines = block.collect();
        samples.push(Sample { line, file, lines });
    }
    samples
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

    #[test]
    fn blocks_are_found_with_their_files() {
        let page = "# x\n```sh\nls\n```\n```rust,ignore\n// a/b.rs\nfn f() {\n\n    one();\n```\n";
        let [sample] = &samples(page)[..] else {
            panic!("one sample");
        };
        assert_eq!((sample.line, sample.file), (5, Some("a/b.rs")));
        assert_eq!(sample.lines, ["fn f() {", "one();"]);
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
    fn the_pages_own_samples_are_quotations() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }
}
