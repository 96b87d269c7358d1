//! The kernel's command line: `key=value ... -- PROGRAM ARG ARG`.
//!
//! What follows ` -- ` names the program to run and its arguments, separated by single spaces. A
//! byte that would not survive the way there is written `\xNN`: white space and control
//! characters, the backslash itself, and `$`, which Limine expands.

/// Builds the command line from the base line, a log level that replaces the base line's, and a program
/// with its arguments (none: an interactive shell).
pub(crate) fn command_line(base: &str, log: Option<&str>, program: &[String]) -> String {
    let mut words: Vec<String> = base.split_whitespace().map(str::to_owned).collect();
    if let Some(level) = log {
        words.retain(|word| !word.starts_with("log="));
        words.push(format!("log={level}"));
    }
    if !program.is_empty() {
        words.push("--".into());
        words.extend(program.iter().map(|arg| escape(arg)));
    }
    words.join(" ")
}

/// Escapes one argument.
fn escape(arg: &str) -> String {
    let mut escaped = String::new();
    for char in arg.chars() {
        match char {
            '\0'..=' ' | '\\' | '$' | '\x7f' => escaped += &format!("\\x{:02x}", char as u32),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(base: &str, log: Option<&str>, program: &[&str]) -> String {
        let program: Vec<_> = program.iter().map(|&arg| arg.to_owned()).collect();
        command_line(base, log, &program)
    }

    #[test]
    fn program_follows_the_dashes() {
        assert_eq!(line("log=warn", None, &[]), "log=warn");
        assert_eq!(
            line("log=warn", None, &["crash", "read"]),
            "log=warn -- crash read"
        );
        assert_eq!(line("", None, &["hello"]), "-- hello");
    }

    #[test]
    fn log_level_replaces_the_base_lines() {
        assert_eq!(
            line("log=warn a=b", Some("debug"), &["x"]),
            "a=b log=debug -- x"
        );
    }

    #[test]
    fn arguments_survive_as_one_word() {
        assert_eq!(line("", None, &["echo", "a b\\c"]), r"-- echo a\x20b\x5cc");
        assert_eq!(line("", None, &["echo", "$x\n"]), r"-- echo \x24x\x0a");
        assert_eq!(line("", None, &["echo", "größe"]), "-- echo größe");
        assert_eq!(line("", None, &["echo", "", "x"]), "-- echo  x");
    }
}
