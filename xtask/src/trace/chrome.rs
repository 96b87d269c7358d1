//! A story as a trace for `ui.perfetto.dev` and `chrome://tracing`: Chrome's trace event format, as JSON.
//!
//! | in the story | in the trace |
//! | --- | --- |
//! | the CPUs | a process of that name, each CPU a thread of it with the threads that run there as slices |
//! | a space | a process |
//! | a thread | a thread of it, with its calls, faults and interruptions as slices |
//! | a message | an arrow from the slice in which it was sent to that in which it arrives, and a mark there that has all about it |
//! | bits raised and received | marks |
//!
//! Slices are complete events (`X`), so there is no beginning without an end. Times are microseconds with three digits behind the
//! point. Events are sorted by time, behind those that give names.

use std::io::{BufWriter, Write};

use anyhow::Result;
use serde_json::{Value, json};

use super::labels;
use super::story::{Message, Note, Outcome, Pages, Passed, Span, Story, What};

/// The process that the CPUs are threads of.
const CPUS: usize = 1;
/// What the numbers of the others begin with; likewise those of threads, which differ across processes.
const FIRST_PROCESS: usize = 2;
const FIRST_THREAD: usize = 1000;

/// Writes the trace.
pub(super) fn write(story: &Story, out: impl Write) -> Result<()> {
    let mut events = events(story);
    events.sort_by_key(|(at_ns, _)| *at_ns);
    let mut out = BufWriter::new(out);
    writeln!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    let names = names(story).into_iter();
    let all = names.chain(events.into_iter().map(|(_, event)| event));
    for (number, event) in all.enumerate() {
        if number > 0 {
            writeln!(out, ",")?;
        }
        serde_json::to_writer(&mut out, &event)?;
    }
    writeln!(out, "\n]}}")?;
    Ok(out.flush()?)
}

/// The names of processes and threads, and their order.
fn names(story: &Story) -> Vec<Value> {
    let name = |what: &str, pid: usize, tid: usize, args: Value| {
        let name = format!("{what}_name");
        json!({ "ph": "M", "name": name, "pid": pid, "tid": tid, "args": args })
    };
    let order = |what: &str, pid: usize, tid: usize, index: usize| {
        let name = format!("{what}_sort_index");
        json!({ "ph": "M", "name": name, "pid": pid, "tid": tid, "args": { "sort_index": index } })
    };
    let mut names = vec![
        name("process", CPUS, cpu_tid(0), json!({ "name": "CPUs" })),
        order("process", CPUS, cpu_tid(0), 0),
    ];
    for cpu in 0..story.nr_cpus {
        let args = json!({ "name": format!("CPU {cpu}") });
        names.push(name("thread", CPUS, cpu_tid(cpu), args));
        names.push(order("thread", CPUS, cpu_tid(cpu), cpu));
    }
    let mut is_named = vec![false; story.spaces.len()];
    for (thread, space) in story.threads.iter().map(|thread| thread.space).enumerate() {
        let (pid, tid) = ids(story, thread);
        if !std::mem::replace(&mut is_named[space], true) {
            names.push(name(
                "process",
                pid,
                tid,
                json!({ "name": story.name(space) }),
            ));
            names.push(order("process", pid, tid, 1 + space));
        }
        let args = json!({ "name": story.thread_name(thread) });
        names.push(name("thread", pid, tid, args));
    }
    names
}

fn cpu_tid(cpu: usize) -> usize {
    1 + cpu
}

/// The numbers of a thread's process and of the thread.
fn ids(story: &Story, thread: usize) -> (usize, usize) {
    let pid = FIRST_PROCESS + story.threads[thread].space;
    (pid, FIRST_THREAD + thread)
}

/// Everything else, and when.
fn events(story: &Story) -> Vec<(u64, Value)> {
    let mut events = Vec::new();
    for run in &story.runs {
        let name = story.thread_name(run.thread);
        let place = (CPUS, cpu_tid(run.cpu));
        let slice = slice(&name, "running", place, run.begin_ns, run.end_ns, json!({}));
        events.push((run.begin_ns, slice));
    }
    for span in &story.spans {
        let place = ids(story, span.thread);
        let (name, category) = title(span);
        let args = details(span);
        let slice = slice(&name, category, place, span.begin_ns, span.end_ns, args);
        events.push((span.begin_ns, slice));
    }
    for (number, message) in story.messages.iter().enumerate() {
        events.extend(passage(story, number, message));
    }
    for note in &story.notes {
        events.push((note.at_ns, bits(story, note)));
    }
    events
}

fn slice(
    name: &str,
    category: &str,
    (pid, tid): (usize, usize),
    begin_ns: u64,
    end_ns: u64,
    args: Value,
) -> Value {
    json!({
        "ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid,
        "ts": us(begin_ns), "dur": us(end_ns - begin_ns), "args": args,
    })
}

/// Microseconds.
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// The name and category of a slice.
fn title(span: &Span) -> (String, &'static str) {
    match span.what {
        What::Call { rax, .. } => (labels::of_call(rax as u32), "call"),
        What::Fault { outcome, .. } => (format!("fault: {}", outcome.words()), "fault"),
        What::Trap { vector: ..32, .. } => ("exception".into(), "fault"),
        What::Trap { .. } => ("interrupt".into(), "interrupt"),
    }
}

fn details(span: &Span) -> Value {
    let mut details = match span.what {
        What::Call { rax, args, result } => json!({
            "handle": rax >> 32, "rdi": hex(args[0]), "rsi": hex(args[1]), "rdx": hex(args[2]),
            "r8": hex(args[3]), "result": result,
        }),
        What::Fault {
            address, error, ip, ..
        } => json!({
            "address": hex(address), "access": access(error), "ip": hex(ip),
        }),
        What::Trap { vector, ip } => json!({ "vector": vector, "ip": hex(ip) }),
    };
    put_pages(&mut details, span.pages);
    if span.is_open {
        details["unfinished"] = true.into();
    }
    details
}

/// The kind of access that a page fault's error code tells of.
pub(super) fn access(error: u64) -> &'static str {
    match error {
        _ if error & 1 << 4 != 0 => "execute",
        _ if error & 1 << 1 != 0 => "write",
        _ => "read",
    }
}

/// Numbers that are addresses or bits, which JSON's numbers are too short for.
pub(super) fn hex(number: u64) -> String {
    format!("{number:#x}")
}

/// What became of pages, as far as anything did.
fn put_pages(args: &mut Value, pages: Pages) {
    for (name, nr_pages) in [
        ("copied", pages.copied),
        ("remapped", pages.remapped),
        ("cow_copied", pages.broken),
        ("reclaimed", pages.reclaimed),
        ("zeroed", pages.zeroed),
    ] {
        if nr_pages > 0 {
            args[name] = nr_pages.into();
        }
    }
}

/// The mark of a message where it arrives, and its arrow if both ends are slices.
fn passage(story: &Story, number: usize, message: &Message) -> Vec<(u64, Value)> {
    let (from, to) = (ids(story, message.from), ids(story, message.to));
    let category = message.kind.word();
    let name = message.label();
    let mut args = json!({
        "from": story.thread_name(message.from), "to": story.thread_name(message.to),
        "label": message.tag.label(), "bytes": message.nr_bytes,
        "handles": message.tag.handles(), "truncated": message.tag.truncated(),
    });
    put_pages(&mut args, message.pages);
    let mark = json!({
        "ph": "i", "s": "t", "name": name, "cat": category, "pid": to.0, "tid": to.1,
        "ts": us(message.at_ns), "args": args,
    });
    let mut events = vec![(message.at_ns, mark)];
    if message.is_awaited {
        let end = |ph: &str, (pid, tid): (usize, usize), at_ns: u64| {
            json!({
                "ph": ph, "id": number, "name": category, "cat": "passage", "pid": pid, "tid": tid,
                "ts": us(at_ns),
            })
        };
        let mut finish = end("f", to, message.at_ns);
        // In the slice around it, not in the one behind.
        finish["bp"] = "e".into();
        events.push((message.begun_ns, end("s", from, message.begun_ns)));
        events.push((message.at_ns, finish));
    }
    events
}

fn bits(story: &Story, note: &Note) -> Value {
    let (pid, tid) = match note.thread {
        Some(thread) => ids(story, thread),
        None => (CPUS, cpu_tid(note.cpu)),
    };
    let name = if note.is_received {
        "bits received"
    } else {
        "bits raised"
    };
    json!({
        "ph": "i", "s": "t", "name": name, "cat": "notification", "pid": pid, "tid": tid,
        "ts": us(note.at_ns), "args": { "bits": hex(note.bits) },
    })
}

impl Outcome {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Copied => "page copied",
            Outcome::Reclaimed => "page taken back",
            Outcome::Zeroed => "page zeroed",
            Outcome::Reported => "supervisor told",
            Outcome::Ended => "thread ended",
        }
    }
}

impl Passed {
    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Passed::Message => "message",
            Passed::Reply => "reply",
            Passed::Fault => "fault",
            Passed::Verdict => "verdict",
        }
    }
}
