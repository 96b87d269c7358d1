//! A story in numbers: what each process sent, received and was given.

use std::collections::HashMap;
use std::fmt::Write;

use super::story::{Outcome, Pages, Passed, Story, What};

/// What one space did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) space: usize,
    pub(super) nr_calls: u64,
    pub(super) nr_sent: u64,
    pub(super) nr_received: u64,
    pub(super) nr_replies: u64,
    /// Bytes sent, in messages and replies.
    pub(super) nr_bytes: u64,
    /// What became of the pages that they went to.
    pub(super) pages: Pages,
    pub(super) nr_faults: u64,
    /// Of those, how many copied a page.
    pub(super) nr_copying: u64,
}

impl Row {
    /// What is counted, in the order of [`COLUMNS`].
    pub(super) fn counts(&self) -> [u64; 9] {
        [
            self.nr_calls,
            self.nr_sent,
            self.nr_received,
            self.nr_replies,
            self.nr_bytes,
            self.pages.remapped,
            self.pages.copied,
            self.nr_faults,
            self.nr_copying,
        ]
    }
}

/// The columns of what is printed, and how wide they are.
const COLUMNS: [(&str, usize); 9] = [
    ("calls", 8),
    ("sent", 8),
    ("received", 8),
    ("replies", 8),
    ("bytes", 12),
    ("remapped", 9),
    ("copied", 7),
    ("faults", 7),
    ("cow", 7),
];

/// Those who exchanged messages: the sender, the receiver, and how many.
pub(super) type Pair = (usize, usize, u64);

/// A row for each space that has, or had, threads, in the order in which they came up.
pub(super) fn rows(story: &Story) -> Vec<Row> {
    let mut rows: Vec<_> = (0..story.spaces.len())
        .map(|space| Row {
            space,
            ..Row::default()
        })
        .collect();
    let space = |thread: usize| story.threads[thread].space;
    for span in &story.spans {
        let row = &mut rows[space(span.thread)];
        match span.what {
            What::Call { .. } => row.nr_calls += 1,
            What::Fault { outcome, .. } => {
                row.nr_faults += 1;
                row.nr_copying += u64::from(outcome == Outcome::Copied);
            }
            What::Trap { .. } => {}
        }
    }
    for message in &story.messages {
        let from = &mut rows[space(message.from)];
        from.nr_bytes += message.nr_bytes;
        from.pages = from.pages.plus(message.pages);
        match message.kind {
            Passed::Message => {
                from.nr_sent += 1;
                rows[space(message.to)].nr_received += 1;
            }
            Passed::Reply => from.nr_replies += 1,
            Passed::Fault | Passed::Verdict => {}
        }
    }
    rows.retain(|row| story.spaces[row.space].has_threads);
    rows
}

/// Who sent most messages to whom, replies left out.
pub(super) fn pairs(story: &Story) -> Vec<Pair> {
    let mut counts = HashMap::<(usize, usize), u64>::new();
    let space = |thread: usize| story.threads[thread].space;
    for message in &story.messages {
        if message.kind == Passed::Message {
            *counts
                .entry((space(message.from), space(message.to)))
                .or_default() += 1;
        }
    }
    let mut pairs: Vec<_> = counts
        .into_iter()
        .map(|((from, to), count)| (from, to, count))
        .collect();
    pairs.sort_by_key(|&(from, to, count)| (std::cmp::Reverse(count), from, to));
    pairs
}

/// What is printed.
pub(super) fn text(story: &Story) -> String {
    const NR_PAIRS: usize = 5;
    let mut text = format!("{:<24}", "process");
    for (name, width) in COLUMNS {
        // Writing to a string does not fail.
        let _ = write!(text, " {name:>width$}");
    }
    text.push('\n');
    for row in rows(story) {
        let _ = write!(text, "{:<24}", story.name(row.space));
        for (count, (_, width)) in row.counts().into_iter().zip(COLUMNS) {
            let _ = write!(text, " {count:>width$}");
        }
        text.push('\n');
    }
    let pairs = pairs(story);
    if !pairs.is_empty() {
        text += "most messages:";
        for (number, (from, to, count)) in pairs.into_iter().take(NR_PAIRS).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let (from, to) = (story.name(from), story.name(to));
            let _ = write!(text, "{comma} {from} to {to} {count}");
        }
        text.push('\n');
    }
    text
}
