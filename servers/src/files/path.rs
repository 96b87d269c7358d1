//! Paths: names from the root on, separated by `/`.

use libipc::services::Refusal;
use libipc::services::files::MAX_PATH;

/// The most names in a path.
const MAX_DEPTH: usize = 32;

/// A path in its one form: the names from the root on, without `.`, `..` and empty ones.
#[derive(Debug, PartialEq, Eq)]
pub struct Path<'a>(heapless::Vec<&'a str, MAX_DEPTH>);

impl<'a> Path<'a> {
    /// Takes a path apart. `..` takes away the name before it, if there is one: as there are no links, that is the directory
    /// above.
    ///
    /// # Errors
    /// `BadRequest` for one that is too long or too deep, or has a zero byte.
    pub fn new(path: &'a str) -> Result<Self, Refusal> {
        if path.len() > MAX_PATH || path.contains('\0') {
            return Err(Refusal::BadRequest);
        }
        let mut names = heapless::Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name).map_err(|_| Refusal::BadRequest)?,
            }
        }
        Ok(Path(names))
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &[&'a str] {
        &self.0
    }

    /// The names of the directory, and that in it; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[&'a str], &'a str)> {
        let (&name, directory) = self.0.split_last()?;
        Some((directory, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_are_one_path() {
        for spelling in [
            "/a/b",
            "a//b/",
            "./a/./b",
            "../a/c/../b",
            "/x/../../a/b/c/..",
        ] {
            assert_eq!(Path::new(spelling).unwrap().names(), ["a", "b"]);
        }
        for root in ["", "/", "..", "a/.."] {
            assert_eq!(Path::new(root).unwrap().split_last(), None);
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_no_path() {
        let bad = Err(Refusal::BadRequest);
        assert_eq!(Path::new(&"x".repeat(MAX_PATH + 1)), bad);
        assert!(Path::new(&"x".repeat(MAX_PATH)).is_ok());
        assert_eq!(Path::new(&"x/".repeat(MAX_DEPTH + 1)), bad);
        assert!(Path::new(&"x/".repeat(MAX_DEPTH)).is_ok());
        assert_eq!(Path::new("a\0b"), bad);
    }
}
