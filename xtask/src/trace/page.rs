//! A story as a page: who sent what to whom, in the order in which it passed. It needs no network, and opens in any browser.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::chrome::{access, hex};
use super::story::{Message, Outcome, Pages, Passed, Span, Story, What};
use super::{counted, summary};

/// The page, with `@WORDS@` in the places of what differs.
const TEMPLATE: &str = include_str!("page.html");

/// Kinds of rows: what passed, and a fault where it happened. They are classes of the page, too.
const KINDS: [&str; 5] = ["message", "reply", "fault", "verdict", "dot"];
const DOT: usize = 4;

/// Writes the page about a program.
pub(super) fn write(story: &Story, program: &[String], mut out: impl Write) -> Result<()> {
    let title = format!("Messages of {}", program.join(" "));
    let about = format!(
        "{} messages, replies and fault reports in {:.1} ms on {}. Broken lines are replies, thick ones brought pages by page \
         table, dots are page faults that the kernel resolved, alike ones behind each other in one row. A row's tip has the rest.",
        story.messages.len(),
        story.end_ns as f64 / 1e6,
        counted(story.nr_cpus as u64, "CPU", "CPUs"),
    );
    // Nothing that a program has named may end the script.
    let data = data(story, program).to_string().replace('<', "\\u003c");
    let page = TEMPLATE
        .replace("@TITLE@", &escaped(&title))
        .replace("@ABOUT@", &escaped(&about))
        .replace("@TABLE@", &table(story))
        .replace("@STORY@", &data);
    Ok(out.write_all(page.as_bytes())?)
}

/// What the page's script draws.
fn data(story: &Story, program: &[String]) -> Value {
    let spaces: Vec<_> = (0..story.spaces.len())
        .filter(|&space| story.spaces[space].has_threads)
        .collect();
    let mut names = Names::default();
    let rows = rows(story, &spaces, &mut names);
    json!({
        "kinds": KINDS,
        "lanes": spaces.iter().map(|&space| story.name(space)).collect::<Vec<_>>(),
        "own": own_lanes(story, &spaces, program),
        "names": names.names,
        "rows": rows.into_iter().map(Row::into_json).collect::<Vec<_>>(),
    })
}

/// A row of the page.
struct Row {
    kind: usize,
    at_ns: u64,
    from: usize,
    to: usize,
    /// The number of its text.
    name: usize,
    about: String,
    has_pages: bool,
    /// How many faults it stands for, or 1.
    count: u64,
}

impl Row {
    /// Whether it is about faults of the same kind as another one, which a row is enough for.
    fn repeats(&self, before: &Row) -> bool {
        let what = |row: &Row| (row.kind, row.from, row.name);
        self.kind == DOT && what(self) == what(before)
    }

    fn into_json(self) -> Value {
        let about = match self.count {
            1 => self.about,
            count => format!("{count} times, first {}", self.about),
        };
        let wide = u8::from(self.has_pages);
        json!([
            self.kind, self.at_ns, self.from, self.to, self.name, about, wide
        ])
    }
}

/// All rows in the order of time.
fn rows(story: &Story, spaces: &[usize], names: &mut Names) -> Vec<Row> {
    let lanes: HashMap<_, _> = spaces.iter().copied().zip(0..).collect();
    let lane = |thread: usize| lanes.get(&story.threads[thread].space).copied();
    let mut rows = Vec::new();
    for message in &story.messages {
        if let (Some(from), Some(to)) = (lane(message.from), lane(message.to)) {
            rows.push(row_of(message, from, to, names));
        }
    }
    for span in &story.spans {
        if let Some(lane) = lane(span.thread) {
            rows.extend(dot(span, lane, names));
        }
    }
    rows.sort_by_key(|row| row.at_ns);
    rows.dedup_by(|row, before| {
        let repeats = row.repeats(before);
        before.count += u64::from(repeats);
        repeats
    });
    rows
}

/// The lanes of the program and its forks; all, if it never ran.
fn own_lanes(story: &Story, spaces: &[usize], program: &[String]) -> Vec<usize> {
    let name = program.first().map(|path| libipc::fs::file_name(path));
    let is_own = |space: usize| Some(story.base_name(space).as_str()) == name;
    let lanes = spaces.iter().enumerate();
    let own: Vec<_> = lanes
        .filter(|(_, space)| is_own(**space))
        .map(|(lane, _)| lane)
        .collect();
    if own.is_empty() {
        (0..spaces.len()).collect()
    } else {
        own
    }
}

fn row_of(message: &Message, from: usize, to: usize, names: &mut Names) -> Row {
    let kind = match message.kind {
        Passed::Message => 0,
        Passed::Reply => 1,
        Passed::Fault => 2,
        Passed::Verdict => 3,
    };
    Row {
        kind,
        at_ns: message.at_ns,
        from,
        to,
        name: names.number(message.label()),
        about: about(message),
        has_pages: message.pages.remapped > 0,
        count: 1,
    }
}

/// What a message has besides its label.
fn about(message: &Message) -> String {
    let Pages {
        copied,
        remapped,
        broken,
        zeroed,
        ..
    } = message.pages;
    let handles = message.tag.handles() as u64;
    let parts = [
        (message.nr_bytes, "byte", "bytes"),
        (remapped, "page remapped", "pages remapped"),
        (copied, "page copied", "pages copied"),
        (broken, "copy-on-write copy", "copy-on-write copies"),
        (zeroed, "page zeroed", "pages zeroed"),
        (handles, "handle", "handles"),
    ];
    let there = parts.into_iter().filter(|&(count, ..)| count > 0);
    let words: Vec<_> = there
        .map(|(count, one, many)| counted(count, one, many))
        .collect();
    words.join(", ")
}

/// A fault that nobody was told of; those that were are messages.
fn dot(span: &Span, lane: usize, names: &mut Names) -> Option<Row> {
    let What::Fault {
        address,
        error,
        ip,
        outcome,
    } = span.what
    else {
        return None;
    };
    (outcome != Outcome::Reported).then(|| Row {
        kind: DOT,
        at_ns: span.begin_ns,
        from: lane,
        to: lane,
        name: names.number(outcome.words().to_owned()),
        about: format!("{} {} at {}", access(error), hex(address), hex(ip)),
        has_pages: false,
        count: 1,
    })
}

/// Texts that many rows have.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: String) -> usize {
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            self.names.len() - 1
        })
    }
}

fn table(story: &Story) -> String {
    let mut table = String::from(
        "<table><thead><tr><th>process<th>calls<th>sent<th>received<th>replies<th>bytes<th>pages remapped<th>pages copied\
         <th>faults<th>copy-on-write copies</thead>\n",
    );
    for row in summary::rows(story) {
        // Writing to a string does not fail.
        let _ = write!(table, "<tr><td>{}", escaped(&story.name(row.space)));
        for count in row.counts() {
            let _ = write!(table, "<td>{count}");
        }
        table.push('\n');
    }
    table + "</table>"
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
