//! The links of the pages that were made: each leads to a file of the book, and to a place that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The page of a web server for what it has not: its links are relative to the server's root.
const NOT_FOUND: &str = "404.html";

/// A page that was made.
struct Page {
    links: BTreeSet<String>,
    /// The places in it that a link may name.
    ids: BTreeSet<String>,
}

impl Page {
    fn new(html: &str) -> Self {
        let ids = values(html, "id");
        let links = values(html, "href").chain(values(html, "src"));
        Self {
            links: links.map(str::to_owned).collect(),
            ids: ids.map(str::to_owned).collect(),
        }
    }
}

/// What the attributes of this name say.
fn values<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!(" {name}=\"");
    let starts: Vec<_> = html
        .match_indices(&begin)
        .map(|(at, _)| at + begin.len())
        .collect();
    starts
        .into_iter()
        .filter_map(|start| html[start..].split('"').next())
}

/// All links of the book in a folder that lead nowhere.
pub(super) fn broken_links(folder: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_page = path
            .extension()
            .is_some_and(|extension| extension == "html");
        if is_page && !path.ends_with(NOT_FOUND) {
            let html = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            pages.insert(path, Page::new(&html));
        }
    }
    Ok(complaints(&pages, |path| path.exists()))
}

fn complaints(pages: &BTreeMap<PathBuf, Page>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, page) in pages {
        for link in page.links.iter().filter(|link| !leads_elsewhere(link)) {
            let (file, id) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.with_file_name(file),
            };
            let is_there = match pages.get(&target) {
                Some(page) => id.is_empty() || page.ids.contains(id),
                None => exists(&target),
            };
            if !is_there {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                complaints.push(format!("{name} of the book: {link} leads nowhere"));
            }
        }
    }
    complaints
}

/// Whether a link leaves the book on purpose.
fn leads_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with("data:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_pages_and_places_must_be_there() {
        let page = |html| Page::new(html);
        let pages = BTreeMap::from([
            (
                PathBuf::from("/b/a.html"),
                page(
                    "<a href=\"b.html#two\"><a href=\"b.html#three\"><a href=\"c.html\"><a href=\"#here\">\
                     <img src=\"x.png\"><a href=\"https://example.org/#y\"><p id=\"here\">",
                ),
            ),
            (PathBuf::from("/b/b.html"), page("<h2 id=\"two\">")),
        ]);
        let complaints = complaints(&pages, |path| path.ends_with("x.png"));
        assert_eq!(
            complaints,
            [
                "a.html of the book: b.html#three leads nowhere",
                "a.html of the book: c.html leads nowhere"
            ]
        );
    }
}
