//! Commands in the documentation: what is said of `cargo xtask` is what it understands.
//!
//! Lines of blocks of commands are parsed as if they were typed. So is what the text says within a line, but that may leave out
//! a value. A word in capitals stands for one.

use anyhow::Result;
use clap::Parser;
use clap::error::ErrorKind;

use super::pages::{Page, pages};
use crate::Cli;

/// How our commands begin.
const OURS: &str = "cargo xtask";

/// Where a command ends in a line.
const ENDS: &[char] = &['#', '|', '&', ';', '<', '>'];

/// All commands that are not understood.
pub(super) fn check() -> Result<Vec<String>> {
    Ok(pages()?.iter().flat_map(complaints).collect())
}

fn complaints(page: &Page) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut judge = |line: usize, error: Option<String>| {
        complaints.extend(error.map(|error| format!("{}:{line}: {error}", page.path)));
    };
    for block in &page.blocks {
        let numbered = block.text.lines().zip(block.line + 1..);
        for (text, line) in numbered {
            let typed = match block.language.as_str() {
                "sh" => Some(text),
                "console" => text.strip_prefix("$ "),
                _ => None,
            };
            judge(line, typed.and_then(|typed| misunderstood(typed, &[])));
        }
    }
    for (line, span) in &page.spans {
        let left_out = [ErrorKind::InvalidValue, ErrorKind::MissingRequiredArgument];
        judge(*line, misunderstood(span, &left_out));
    }
    complaints
}

/// What is wrong with the command of ours in a line, unless it is one of these.
fn misunderstood(line: &str, tolerated: &[ErrorKind]) -> Option<String> {
    let (_, rest) = line.split_once(OURS)?;
    let args = rest.split(ENDS).next().unwrap_or_default();
    let args = args.split_whitespace().map(with_value);
    let error = Cli::try_parse_from(std::iter::once(OURS).chain(args)).err()?;
    let kind = error.kind();
    let is_about_help = matches!(
        kind,
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_about_help || tolerated.contains(&kind) {
        return None;
    }
    let first = error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    Some(format!("`{}`: {first}", line.trim()))
}

/// An argument, or a value in the place of a word in capitals.
fn with_value(arg: &str) -> &str {
    let is_capital = |char: char| char.is_ascii_uppercase() || char == '_';
    if arg.chars().all(is_capital) {
        "1"
    } else {
        arg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_as_if_they_were_typed() {
        let wrong = |line| misunderstood(line, &[]).is_some();
        assert!(!wrong("cargo xtask run --smp N -- hello x   # a comment"));
        assert!(!wrong("FOO=1 cargo xtask test --list | head"));
        assert!(!wrong("cargo build"));
        assert!(!wrong("cargo xtask"));
        assert!(wrong("cargo xtask walk"));
        assert!(wrong("cargo xtask run --fast"));
        assert!(wrong("cargo xtask run --smp many"));
        assert!(wrong("cargo xtask run --boot"));
    }

    #[test]
    fn blocks_and_text_are_looked_at() {
        let text = "`cargo xtask jump` `cargo xtask run --boot`\n\n```console\n$ cargo xtask walk\ncargo xtask fly\n```\n";
        let complaints = complaints(&Page::new("p.md", text));
        let lines: Vec<_> = complaints.iter().map(|text| &text[..7]).collect();
        assert_eq!(lines, ["p.md:4:", "p.md:1:"]);
    }

    #[test]
    fn the_pages_commands_are_understood() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }
}
