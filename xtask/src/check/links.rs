//! Links and names in the documentation: they lead to something, and name what is there.
//!
//! A link leads to a file of the repository, and to a heading of it if it names one; one of a page of the book to another page
//! of the book. What a page calls `x.rs` or `folder/x.rs` is a file, and a name of two words or more,
//! `like_this`, stands somewhere in the sources, or in a heading.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::pages::{BOOK, Page, pages};
use crate::workspace::root;

/// The list of pages that make up the book.
const SUMMARY: &str = "docs/SUMMARY.md";

/// Folders that are not sources.
const MADE: &[&str] = &["target", "build"];

/// Files in which names are looked for: of pages, in headings, as those of system calls are.
const SOURCES: &[&str] = &["rs", "toml", "ld", "json", "c", "md"];

/// All links and names that lead nowhere.
pub(super) fn check() -> Result<Vec<String>> {
    let pages = pages()?;
    let tree = Tree::read()?;
    let mut complaints = Vec::new();
    for page in &pages {
        complaints.extend(broken_links(page, &pages, |path| {
            root().join(path).exists()
        }));
        complaints.extend(missing_names(page, &tree));
    }
    complaints.extend(left_out(&pages));
    Ok(complaints)
}

fn broken_links(page: &Page, pages: &[Page], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, link) in page.links.iter().filter(|(_, link)| !link.contains("://")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = beside(&page.path, file);
        let target = pages.iter().find(|page| page.path == path);
        let leaves_book = page.path.starts_with(BOOK) && target.is_none();
        let wrong = if target.is_none() && !exists(&path) {
            "leads nowhere"
        } else if leaves_book {
            "leads out of the book"
        } else if target.is_some_and(|page| !anchor.is_empty() && !has(&page.anchors, anchor)) {
            "names a heading that is not there"
        } else {
            continue;
        };
        complaints.push(format!("{}:{line}: {link} {wrong}", page.path));
    }
    complaints
}

fn has(anchors: &[String], anchor: &str) -> bool {
    anchors.iter().any(|other| other == anchor)
}

/// The path that a link of a page means.
fn beside(page: &str, file: &str) -> String {
    if file.is_empty() {
        return page.to_owned();
    }
    let mut path = PathBuf::new();
    for part in Path::new(page).with_file_name(file).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.display().to_string()
}

/// Pages that nobody finds in the book.
fn left_out(pages: &[Page]) -> Vec<String> {
    let listed: Vec<_> = pages
        .iter()
        .filter(|page| page.path == SUMMARY)
        .flat_map(|page| page.links.iter().map(|(_, link)| beside(SUMMARY, link)))
        .collect();
    pages
        .iter()
        .filter(|page| page.path.starts_with(BOOK) && page.path != SUMMARY)
        .filter(|page| !listed.contains(&page.path))
        .map(|page| format!("{}: is not in {SUMMARY}", page.path))
        .collect()
}

/// What the repository has.
struct Tree {
    /// Files, each with a slash before its path.
    files: Vec<String>,
    /// Words of the sources.
    names: BTreeSet<String>,
}

impl Tree {
    fn read() -> Result<Self> {
        let mut tree = Self {
            files: Vec::new(),
            names: BTreeSet::new(),
        };
        tree.add(root())?;
        Ok(tree)
    }

    fn add(&mut self, folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                if !MADE.contains(&&*name) {
                    self.add(&path)?;
                }
                continue;
            }
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if SOURCES.contains(&&*extension) {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let is_page = extension == "md";
                let lines = text
                    .lines()
                    .filter(|line| !is_page || line.starts_with('#'));
                self.names.extend(lines.flat_map(words).map(str::to_owned));
            }
            let path = path.strip_prefix(root()).unwrap_or(&path);
            let path = format!("/{}", path.display());
            self.names.extend(words(&path).map(str::to_owned));
            self.files.push(path);
        }
        Ok(())
    }
}

/// The words of a text that may be names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// Files and names that a page has and the repository has not.
fn missing_names(page: &Page, tree: &Tree) -> Vec<String> {
    let is_missing = |span: &str| {
        if let Some(stem) = span.strip_suffix(".rs") {
            let is_name = !stem.contains(|char: char| char.is_uppercase() || "* ".contains(char));
            let path = format!("/{span}");
            return is_name && !tree.files.iter().any(|file| file.ends_with(&path));
        }
        let name = span.rsplit("::").next().unwrap_or(span);
        is_long_name(name) && !tree.names.contains(name)
    };
    page.spans
        .iter()
        .filter(|(_, span)| is_missing(span))
        .map(|(line, span)| format!("{}:{line}: there is no `{span}`", page.path))
        .collect()
}

/// Whether this is a name of several words, and not the end or the beginning of one.
fn is_long_name(name: &str) -> bool {
    let is_name = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    name.contains('_')
        && name.chars().all(is_name)
        && name.starts_with(|char: char| char.is_ascii_lowercase())
        && !name.ends_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_files_and_headings() {
        let pages = [
            Page::new(
                "docs/a.md",
                "# A b\n\n[1](b.md#c) [2](#a-b) [3](https://example.org)",
            ),
            Page::new(
                "docs/b.md",
                "# B\n\n[1](a.md#x) [2](c.md) [3](../Cargo.toml)",
            ),
            Page::new(
                "README.md",
                "[1](docs/a.md#a-b) [2](Cargo.toml) [3](nothing)",
            ),
        ];
        let complaints: Vec<_> = pages
            .iter()
            .flat_map(|page| broken_links(page, &pages, |path| path == "Cargo.toml"))
            .collect();
        assert_eq!(
            complaints,
            [
                "docs/a.md:3: b.md#c names a heading that is not there",
                "docs/b.md:3: a.md#x names a heading that is not there",
                "docs/b.md:3: c.md leads nowhere",
                "docs/b.md:3: ../Cargo.toml leads out of the book",
                "README.md:1: nothing leads nowhere",
            ]
        );
    }

    #[test]
    fn every_page_is_in_the_summary() {
        let pages = [
            Page::new("docs/SUMMARY.md", "[A](a.md)"),
            Page::new("docs/a.md", ""),
            Page::new("docs/b.md", ""),
            Page::new("README.md", ""),
        ];
        assert_eq!(left_out(&pages), ["docs/b.md: is not in docs/SUMMARY.md"]);
    }

    #[test]
    fn files_and_names_are_there() {
        let tree = Tree {
            files: vec!["/kernel/src/vm/open.rs".into()],
            names: words("fn open_below() {}").map(str::to_owned).collect(),
        };
        let text = "`open.rs` `vm/open.rs` `m/open.rs` `test_NAME.rs` `vm::open_below` `open_above` `_below` `open`";
        assert_eq!(
            missing_names(&Page::new("p.md", text), &tree),
            [
                "p.md:1: there is no `m/open.rs`",
                "p.md:1: there is no `open_above`"
            ]
        );
    }

    #[test]
    fn the_pages_links_and_names_are_good() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }
}
