//! What the program does, apart from the system that it does it on: this is what host tests are for.
#![cfg_attr(target_os = "none", no_std)]

use core::fmt;

/// What is said to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a>(pub &'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("hello, whoever you are"),
            name => write!(f, "hello, {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_name_gets_a_line_too() {
        assert_eq!(Line("Ada").to_string(), "hello, Ada");
        assert_eq!(Line("").to_string(), "hello, whoever you are");
    }
}
