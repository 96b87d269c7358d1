//! The Markdown pages of the repository, as far as the checks look into them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd};

use crate::workspace::root;

/// The folder whose pages make up the book.
pub(super) const BOOK: &str = "docs";

/// The page before all others, which is not in the book.
const README: &str = "README.md";

/// A page. What stands in it has the number of its line, from 1 on.
#[derive(Default)]
pub(super) struct Page {
    /// Relative to the workspace's root.
    pub(super) path: String,
    /// The places that a link may name: its headings, and what has an `id` of its own.
    pub(super) anchors: Vec<String>,
    /// Where its links lead.
    pub(super) links: Vec<(usize, String)>,
    /// Blocks of code, drawings and the like.
    pub(super) blocks: Vec<Block>,
    /// Pieces of code within the text.
    pub(super) spans: Vec<(usize, String)>,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where it begins.
    pub(super) line: usize,
    /// What follows the fence, up to a comma.
    pub(super) language: String,
    /// What it says.
    pub(super) text: String,
}

/// The README and all pages of the book, sorted.
pub(super) fn pages() -> Result<Vec<Page>> {
    let mut paths = vec![PathBuf::from(README)];
    for entry in std::fs::read_dir(root().join(BOOK))? {
        let path = PathBuf::from(BOOK).join(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(root().join(path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Page::new(&path.display().to_string(), &text))
    };
    paths.iter().map(read).collect()
}

impl Page {
    /// Reads a page's text.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = text[..range.start].matches('\n').count() + 1;
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor_of(&heading.take().unwrap_or_default());
                    page.add_anchor(&anchor);
                }
                Event::Start(Tag::CodeBlock(kind)) => block = Some(Block::new(line, &kind)),
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line, dest_url.into_string()));
                }
                Event::Text(text) => match (&mut heading, &mut block) {
                    (Some(heading), _) => heading.push_str(&text),
                    (None, Some(block)) => block.text.push_str(&text),
                    (None, None) => {}
                },
                Event::Code(code) => page.add_span(line, code, &mut heading),
                Event::InlineHtml(html) | Event::Html(html) => page.anchors.extend(id_of(&html)),
                _ => {}
            }
        }
        page
    }

    fn add_span(&mut self, line: usize, code: CowStr<'_>, heading: &mut Option<String>) {
        if let Some(heading) = heading {
            heading.push_str(&code);
        }
        self.spans.push((line, code.into_string()));
    }

    /// Of headings that are alike, the second and further ones have a number.
    fn add_anchor(&mut self, anchor: &str) {
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.to_owned()).chain(numbered);
        let free = names.find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

impl Block {
    fn new(line: usize, kind: &CodeBlockKind<'_>) -> Self {
        let info = match kind {
            CodeBlockKind::Fenced(info) => info.as_ref(),
            CodeBlockKind::Indented => "",
        };
        let language = info.split(',').next().unwrap_or_default().to_owned();
        Self {
            line,
            language,
            text: String::new(),
        }
    }
}

/// The name that `<a id="name">` gives to a place.
fn id_of(html: &str) -> Option<String> {
    let (_, name) = html.split_once(" id=\"")?;
    Some(name.split('"').next().unwrap_or_default().to_owned())
}

/// How a link names a heading: small letters, hyphens for spaces, and no punctuation.
fn anchor_of(heading: &str) -> String {
    let kept = |char: char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ => char.is_alphanumeric().then_some(char),
    };
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(kept)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One `two_three`: four\n\n## x\n\nSee [y](y.md#z)<a id=\"here\"></a> and `a/b.rs`.\n\n## x\n\n\
                        ```rust,ignore\n// a/b.rs\nf();\n```\n\n| a |\n| --- |\n| [t](u) |\n";

    #[test]
    fn pages_are_taken_apart() {
        let page = Page::new("docs/p.md", TEXT);
        assert_eq!(page.anchors, ["one-two_three-four", "x", "here", "x-1"]);
        assert_eq!(page.links, [(5, "y.md#z".into()), (16, "u".into())]);
        assert_eq!(page.spans[1], (5, "a/b.rs".into()));
        let block = Block {
            line: 9,
            language: "rust".into(),
            text: "// a/b.rs\nf();\n".into(),
        };
        assert_eq!(page.blocks, [block]);
    }
}
