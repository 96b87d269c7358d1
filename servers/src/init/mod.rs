//! Init: owns everything at boot, and hands each server what it needs and nothing else.
//!
//! The kernel's command line says what to run: what stands after a lone `--` is a program and its
//! arguments, separated by spaces, with `\x20` for a space and `\x5c` for a backslash inside one.
//! Without it the shell runs. When that program ends, so does the machine, with its exit status.
//!
//! Before the `--` stand options. Init knows two: with `ticks` it says what the time-stamp counter
//! was when it began; with `mortal` programs may end servers, which tests do to see them start again.
//!
//! A server that dies is started again, unless it is the process server, or dies too often: then the machine ends. [`boot`] says
//! what is left of each.

pub mod boot;
pub mod keeper;
pub mod restarts;

/// Exit status of the machine when a server has died, or could not be started.
pub const SERVER_DIED: u64 = 70;

/// Exit status of the machine when the program could not be started.
pub const NO_PROGRAM: u64 = 127;

/// The program that runs when the command line names none.
pub const SHELL: &str = "/bin/sh";

/// Room for the arguments, each ended by a zero byte.
pub type Block = heapless::Vec<u8, { libipc::start::MAX_ARGS }>;

/// Whether this option stands in front of the program.
#[must_use]
pub fn has_option(command_line: &[u8], option: &[u8]) -> bool {
    command_line
        .split(u8::is_ascii_whitespace)
        .take_while(|&word| word != b"--")
        .any(|word| word == option)
}

/// The argument block of the program that a command line names; `None` when it is too long.
#[must_use]
pub fn program(command_line: &[u8]) -> Option<Block> {
    let mut words = command_line.split(u8::is_ascii_whitespace);
    let mut block = Block::new();
    let _options = words.by_ref().take_while(|&word| word != b"--").count();
    for word in words {
        if block.is_empty() && word.is_empty() {
            continue; // arguments may be empty, a program's name may not
        }
        if block.is_empty() && !word.contains(&b'/') {
            block.extend_from_slice(b"/bin/").ok()?;
        }
        unescape(word, &mut block)?;
        block.push(0).ok()?;
    }
    if block.is_empty() {
        block.extend_from_slice(SHELL.as_bytes()).ok()?;
        block.push(0).ok()?;
    }
    Some(block)
}

/// Appends a word with `\xNN` as the byte NN; a zero byte is left out.
fn unescape(word: &[u8], to: &mut Block) -> Option<()> {
    let mut rest = word;
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let (byte, next) = match escaped {
            Some((high, low)) => (high << 4 | low, &rest[4..]),
            None => (*first, after),
        };
        if byte != 0 {
            to.push(byte).ok()?;
        }
        rest = next;
    }
    Some(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(line: &str) -> String {
        String::from_utf8(program(line.as_bytes()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_shell_runs_by_default() {
        assert_eq!(block(""), "/bin/sh\0");
        assert_eq!(block("log=debug smp=2 --"), "/bin/sh\0");
    }

    #[test]
    fn programs_have_arguments() {
        assert_eq!(block("log=x -- hello a  b"), "/bin/hello\0a\0\0b\0");
        assert_eq!(
            block("-- /bin/hello a\\x20b \\x5cx20 -- -x"),
            "/bin/hello\0a b\0\\x20\0--\0-x\0"
        );
        assert_eq!(block("-- a\\x0 a\\x00b a\\xzz"), "/bin/a\\x0\0ab\0a\\xzz\0");
    }

    #[test]
    fn options_stand_before_the_dashes() {
        assert!(has_option(b"log=warn ticks -- sh", b"ticks"));
        assert!(has_option(b"ticks", b"ticks"));
        assert!(!has_option(b"log=warn -- sh ticks", b"ticks"));
        assert!(!has_option(b"", b"ticks"));
    }

    #[test]
    fn too_long_a_line_is_no_program() {
        assert_eq!(program(&[b"-- ", &[b'x'; 4000][..]].concat()), None);
    }
}
