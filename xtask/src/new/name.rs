//! The name of a new crate: what it may be, and its two spellings.

use anyhow::{Result, bail};

/// The most bytes: a server registers its name, and the name server keeps so many.
const MAX_LEN: usize = 16;

/// What no crate can be named: keywords, and crates that every program knows.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "libipc",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "user_apps",
    "virtual",
    "where",
    "while",
    "yield",
    "fmt",
];

/// What no trait of a service can be named, as the template uses these names itself.
const TYPES: &[&str] = &[
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Eq",
    "Err",
    "Error",
    "ErrorCode",
    "Handle",
    "Line",
    "None",
    "Ok",
    "Option",
    "PartialEq",
    "Rc",
    "RefCell",
    "Result",
    "Some",
    "State",
];

/// The name of a crate, of its programs, and of its service.
#[derive(Debug)]
pub(super) struct Name(String);

impl Name {
    /// A name as it is typed.
    ///
    /// # Errors
    /// What to do instead, if it cannot be one.
    pub(super) fn new(name: &str) -> Result<Self> {
        let is_part = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
        if !name.starts_with(|char: char| char.is_ascii_lowercase()) || !name.chars().all(is_part) {
            bail!(
                "`{name}` is no name: take lower case letters, digits and underscores, a letter first, as in `my_store`"
            );
        }
        if name.len() > MAX_LEN {
            bail!(
                "`{name}` is too long: take {MAX_LEN} characters at most, as the name server does"
            );
        }
        if name.ends_with('_') || name.contains("__") {
            bail!("`{name}` is no name: put a letter or a digit after each underscore");
        }
        if crate::archive::is_for_tests(name) {
            bail!("`{name}` begins like a program that tests or measures: take another name");
        }
        let name = Name(name.to_owned());
        if RESERVED.contains(&name.snake()) || TYPES.contains(&&*name.camel()) {
            bail!("`{}` means something in Rust: take another name", name.0);
        }
        Ok(name)
    }

    /// As in `my_store`.
    pub(super) fn snake(&self) -> &str {
        &self.0
    }

    /// As in `MyStore`.
    fn camel(&self) -> String {
        let words = self.0.split('_');
        words
            .map(|word| {
                let (first, rest) = word.split_at(word.len().min(1));
                first.to_uppercase() + rest
            })
            .collect()
    }

    /// A text with this name instead of another.
    pub(super) fn in_place_of(&self, other: &Name, text: &str) -> String {
        text.replace(&other.camel(), &self.camel())
            .replace(other.snake(), self.snake())
    }

    /// Sees to it that none of these programs has this name.
    ///
    /// # Errors
    /// Which does.
    pub(super) fn check_unused(&self, programs: &[String]) -> Result<()> {
        let own = |program: &&String| {
            let rest = crate::archive::what_is_tested(program);
            rest.strip_suffix("_client").unwrap_or(rest) == self.0
        };
        match programs.iter().find(own) {
            Some(program) => bail!(
                "there is a program `{program}` already: take another name than `{}`",
                self.0
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str) -> String {
        Name::new(name)
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn a_name_is_an_identifier() {
        for good in
            ["a", "kv2", "my_store", "sixteen_letters_"].map(|name| name.trim_end_matches('_'))
        {
            assert_eq!(wrong(good), "");
        }
        for bad in ["", "2nd", "My", "my-store", "a b", "../x", "größe", "_x"] {
            assert!(wrong(bad).contains("take lower case letters"), "{bad}");
        }
        assert!(wrong("a_name_of_17_bytes").contains("16 characters"));
        assert!(wrong("x_").contains("after each underscore"));
        assert!(wrong("a__b").contains("after each underscore"));
        assert!(wrong("test_x").contains("take another name"));
        for reserved in ["fn", "core", "option", "error_code"] {
            assert!(wrong(reserved).contains("means something"), "{reserved}");
        }
    }

    #[test]
    fn both_spellings_take_the_others_place() {
        let [new, old] = ["my_kv2", "tally"].map(|name| Name::new(name).unwrap());
        let text = new.in_place_of(&old, "use tally::{TallyClient};  // test_tally.rs");
        assert_eq!(text, "use my_kv2::{MyKv2Client};  // test_my_kv2.rs");
    }

    #[test]
    fn a_name_is_used_once() {
        let programs = ["sh", "tally_client", "test_fork"].map(str::to_owned);
        for used in ["sh", "tally", "fork"] {
            let error = Name::new(used)
                .unwrap()
                .check_unused(&programs)
                .unwrap_err();
            assert!(error.to_string().contains("there is a program"));
        }
        assert!(Name::new("shell").unwrap().check_unused(&programs).is_ok());
    }
}
