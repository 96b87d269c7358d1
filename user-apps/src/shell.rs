//! A line of the shell, taken apart.
//!
//! ```text
//! line:     pipeline [&]
//! pipeline: command { | command }
//! command:  words, with < PATH, > PATH or >> PATH anywhere among them
//! ```
//!
//! Words are separated by blanks; what stands between `'` or `"` is taken as it is, blanks and operators too.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Where a command's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To an empty file.
    To(String),
    /// To the end of a file.
    AtEndOf(String),
}

/// A program, its arguments, and where it reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments: at least one word.
    pub words: Vec<String>,
    /// A file to read from.
    pub input: Option<String>,
    /// A file to write to.
    pub output: Option<Output>,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Each writes to the next one. None for an empty line.
    pub commands: Vec<Command>,
    /// Whether nobody waits for them.
    pub is_background: bool,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// There is a `|` without a command on both sides.
    NoCommand,
    /// There is a `<`, `>` or `>>` without a path behind it.
    NoPath,
    /// Input or output is redirected twice.
    Twice,
    /// A quotation mark has no other one.
    OpenQuote,
    /// Something stands behind `&`.
    BehindBackground,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::NoCommand => "a command is missing",
            Wrong::NoPath => "a file name is missing",
            Wrong::Twice => "redirected twice",
            Wrong::OpenQuote => "a quotation mark is missing",
            Wrong::BehindBackground => "& is for the end of the line",
        })
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Pipe,
    Input,
    Output,
    Append,
    Background,
}

/// Takes a line apart.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Line, Wrong> {
    let mut tokens = tokens(line)?.into_iter().peekable();
    let mut parsed = Line::default();
    let mut command = Command::default();
    let path = |tokens: &mut dyn Iterator<Item = Token>| match tokens.next() {
        Some(Token::Word(path)) => Ok(path),
        _ => Err(Wrong::NoPath),
    };
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => command.words.push(word),
            Token::Pipe if command.words.is_empty() => return Err(Wrong::NoCommand),
            Token::Pipe if tokens.peek().is_none() => return Err(Wrong::NoCommand),
            Token::Pipe => parsed.commands.push(core::mem::take(&mut command)),
            Token::Input => set(&mut command.input, path(&mut tokens)?)?,
            Token::Output => set(&mut command.output, Output::To(path(&mut tokens)?))?,
            Token::Append => set(&mut command.output, Output::AtEndOf(path(&mut tokens)?))?,
            Token::Background if tokens.peek().is_some() => return Err(Wrong::BehindBackground),
            Token::Background => parsed.is_background = true,
        }
    }
    if command != Command::default() {
        if command.words.is_empty() {
            return Err(Wrong::NoCommand);
        }
        parsed.commands.push(command);
    } else if parsed.is_background {
        return Err(Wrong::NoCommand);
    }
    Ok(parsed)
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Wrong> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Wrong::Twice),
    }
}

fn tokens(line: &str) -> Result<Vec<Token>, Wrong> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '|' => (Token::Pipe, 1),
            '<' => (Token::Input, 1),
            '>' if rest.starts_with(">>") => (Token::Append, 2),
            '>' => (Token::Output, 1),
            '&' => (Token::Background, 1),
            _ => word(rest)?,
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Ok(tokens)
}

/// The word that a text begins with, and how many bytes it takes there.
fn word(text: &str) -> Result<(Token, usize), Wrong> {
    let mut word = String::new();
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '|' | '<' | '>' | '&') => return Ok((Token::Word(word), at)),
            (None, c) if c.is_whitespace() => return Ok((Token::Word(word), at)),
            (_, c) => word.push(c),
        }
    }
    match quote {
        None => Ok((Token::Word(word), text.len())),
        Some(_) => Err(Wrong::OpenQuote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line in one form, to be compared.
    fn shown(line: &str) -> Result<String, Wrong> {
        let Line {
            commands,
            is_background,
        } = parse(line)?;
        let mut shown = commands
            .iter()
            .map(|command| {
                let mut shown = format!("{:?}", command.words);
                if let Some(input) = &command.input {
                    shown += &format!("<{input}");
                }
                match &command.output {
                    Some(Output::To(path)) => shown += &format!(">{path}"),
                    Some(Output::AtEndOf(path)) => shown += &format!(">>{path}"),
                    None => {}
                }
                shown
            })
            .collect::<Vec<_>>()
            .join("|");
        if is_background {
            shown.push('&');
        }
        Ok(shown)
    }

    #[test]
    fn lines_are_taken_apart() {
        for (line, expected) in [
            ("", ""),
            ("  \n", ""),
            ("ls\n", r#"["ls"]"#),
            ("a b  c", r#"["a", "b", "c"]"#),
            ("a|b | c", r#"["a"]|["b"]|["c"]"#),
            ("a <x >y", r#"["a"]<x>y"#),
            (">> y a b< x", r#"["a", "b"]<x>>y"#),
            ("a & ", r#"["a"]&"#),
            ("a|b&", r#"["a"]|["b"]&"#),
            (r#"a "b | c" 'd "e'f"#, r#"["a", "b | c", "d \"ef"]"#),
            ("a ''", r#"["a", ""]"#),
        ] {
            assert_eq!(shown(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, wrong) in [
            ("|", Wrong::NoCommand),
            ("a |", Wrong::NoCommand),
            ("| a", Wrong::NoCommand),
            ("a || b", Wrong::NoCommand),
            ("> x", Wrong::NoCommand),
            ("&", Wrong::NoCommand),
            ("a >", Wrong::NoPath),
            ("a > | b", Wrong::NoPath),
            ("a <", Wrong::NoPath),
            ("a > x >> y", Wrong::Twice),
            ("a < x < y", Wrong::Twice),
            ("a 'b", Wrong::OpenQuote),
            ("a & b", Wrong::BehindBackground),
        ] {
            assert_eq!(shown(line), Err(wrong), "{line}");
        }
    }
}
