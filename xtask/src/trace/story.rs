//! What the records tell: who there was, who did what for how long, and what passed between them.
//!
//! Nothing is taken for granted: records may be lost, and a recording may end in the middle of everything. What is open then
//! ends with the last record; who was never announced is somebody all the same.

use std::collections::HashMap;

use cowslip_abi::{Call, FaultVerdict, MessageKind, Tag, TraceKind, TracePages, TraceRecord};

use super::labels;
use super::recording::Recording;

/// Everything that happened. Times are nanoseconds since the first record.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Address spaces, in the order in which they came up.
    pub(crate) spaces: Vec<Space>,
    /// Threads, likewise.
    pub(crate) threads: Vec<Thread>,
    /// How many CPUs recorded anything, or at least up to the last that did.
    pub(crate) nr_cpus: usize,
    /// Which thread ran where.
    pub(crate) runs: Vec<Run>,
    /// Calls, faults and interruptions of threads. Those of one thread never overlap.
    pub(crate) spans: Vec<Span>,
    /// Messages, replies, reports of faults and verdicts on them, in the order in which they passed.
    pub(crate) messages: Vec<Message>,
    /// Bits raised and received.
    pub(crate) notes: Vec<Note>,
    /// The time of the last record.
    pub(crate) end_ns: u64,
}

/// An address space.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// What a program has called it.
    name: Option<String>,
    /// The space whose terms it has, which it is a fork of.
    like: Option<usize>,
    /// Who created it, if that is known.
    owner: Option<usize>,
    /// The badge of its first thread's faults: for what the process server has created, the number of the process.
    badge: Option<u64>,
    /// Whether it has, or had, a thread.
    pub(crate) has_threads: bool,
}

/// A thread.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// The space that it belongs to.
    pub(crate) space: usize,
    /// Whether that is known.
    is_announced: bool,
    open: Option<Span>,
    /// What has become of pages since its last message.
    pending: Pages,
}

/// A thread on a CPU.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) cpu: usize,
    pub(crate) thread: usize,
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
}

/// What a thread did, or had done to it, outside of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) thread: usize,
    /// Where it began.
    pub(crate) cpu: usize,
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    /// Whether it was still going on when the recording ended.
    pub(crate) is_open: bool,
    pub(crate) what: What,
    pub(crate) pages: Pages,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A system call: `rax`, arguments, and what it has returned in `rax`.
    Call {
        rax: u64,
        args: [u64; 4],
        result: Option<u64>,
    },
    /// A page fault, and how it ended.
    Fault {
        address: u64,
        error: u64,
        ip: u64,
        outcome: Outcome,
    },
    /// An interrupt, or another exception.
    Trap { vector: u64, ip: u64 },
}

/// How a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The access was legal, and nothing had to be done but to forget what was remembered.
    Allowed,
    /// The page was copied.
    Copied,
    /// The page's last owner took it back.
    Reclaimed,
    /// The page was filled with zeros.
    Zeroed,
    /// Who supervises the thread was told.
    Reported,
    /// The thread ended.
    Ended,
}

/// Pages, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) copied: u64,
    pub(crate) remapped: u64,
    pub(crate) broken: u64,
    pub(crate) reclaimed: u64,
    pub(crate) zeroed: u64,
}

/// What passed between two threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) at_ns: u64,
    pub(crate) kind: Passed,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// When the sender began the call that sent it, or met the fault.
    pub(crate) begun_ns: u64,
    /// Whether the receiver was in a call or fault that it arrived in.
    pub(crate) is_awaited: bool,
    pub(crate) tag: Tag,
    pub(crate) nr_bytes: u64,
    pub(crate) pages: Pages,
}

/// What kind of thing passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Passed {
    Message,
    Reply,
    Fault,
    Verdict,
}

/// Bits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) at_ns: u64,
    pub(crate) cpu: usize,
    /// Who received them, or made the call that raised them; nobody if the kernel raised them by itself.
    pub(crate) thread: Option<usize>,
    pub(crate) is_received: bool,
    pub(crate) bits: u64,
}

impl Pages {
    fn add(&mut self, what: TracePages, nr_pages: u64) {
        let field = match what {
            TracePages::Copied => &mut self.copied,
            TracePages::Remapped => &mut self.remapped,
            TracePages::Broken => &mut self.broken,
            TracePages::Reclaimed => &mut self.reclaimed,
            TracePages::Zeroed => &mut self.zeroed,
            TracePages::Freed => return,
        };
        *field = field.saturating_add(nr_pages);
    }

    /// These and others.
    pub(crate) fn plus(self, other: Pages) -> Pages {
        Pages {
            copied: self.copied.saturating_add(other.copied),
            remapped: self.remapped.saturating_add(other.remapped),
            broken: self.broken.saturating_add(other.broken),
            reclaimed: self.reclaimed.saturating_add(other.reclaimed),
            zeroed: self.zeroed.saturating_add(other.zeroed),
        }
    }
}

impl Message {
    /// What it says it is about.
    pub(crate) fn label(&self) -> String {
        labels::of_message(self)
    }
}

impl What {
    /// The call's number, if it is one.
    pub(crate) fn call(&self) -> Option<u32> {
        match self {
            What::Call { rax, .. } => Some(*rax as u32),
            _ => None,
        }
    }
}

impl Story {
    /// Tells what was recorded.
    pub(crate) fn of(recording: &Recording) -> Story {
        let mut teller = Teller::new(recording);
        for record in &recording.records {
            teller.take(record);
        }
        teller.end()
    }

    /// What a space is called, by itself or as a fork of another one, and its process if it is one.
    pub(crate) fn name(&self, space: usize) -> String {
        let base = self.base_name(space);
        match self.process(space) {
            Some(process) => format!("{base} ({process})"),
            None => base,
        }
    }

    /// The name of the program in a space.
    pub(crate) fn base_name(&self, space: usize) -> String {
        let mut at = space;
        // A fork's fork has its name from the first of them; none is like a later one.
        while let Some(Space {
            name: None,
            like: Some(like),
            ..
        }) = self.spaces.get(at)
            && *like < at
        {
            at = *like;
        }
        match self.spaces.get(at).and_then(|space| space.name.clone()) {
            Some(name) => name,
            None => format!("space {space}"),
        }
    }

    /// The number of the process that a space is.
    fn process(&self, space: usize) -> Option<u64> {
        let Space { owner, badge, .. } = self.spaces.get(space)?;
        let owner = self.spaces.get((*owner)?)?;
        (owner.name.as_deref() == Some(PROCESS_SERVER)).then_some((*badge)?)
    }

    /// What a thread is called: as its space, if that has no other one.
    pub(crate) fn thread_name(&self, thread: usize) -> String {
        let space = self.threads[thread].space;
        let mut all = self.threads.iter().enumerate();
        let first = all.find(|(_, other)| other.space == space);
        match first {
            Some((first, _)) if first != thread => {
                format!("{}, thread {thread}", self.name(space))
            }
            _ => self.name(space),
        }
    }
}

/// Whose spaces are processes, with their numbers as badges.
const PROCESS_SERVER: &str = "procd";

/// Who creates the first space and names nobody.
const FIRST: &str = "init";

/// Makes a story of records.
struct Teller<'r> {
    recording: &'r Recording,
    start_ticks: u64,
    now_ns: u64,
    story: Story,
    /// Where objects are in the story, by their numbers.
    spaces: HashMap<u64, usize>,
    threads: HashMap<u64, usize>,
    /// Which thread runs on a CPU, and since when.
    on_cpu: Vec<Option<(usize, u64)>>,
}

impl<'r> Teller<'r> {
    fn new(recording: &'r Recording) -> Self {
        Teller {
            recording,
            start_ticks: recording.records.first().map_or(0, |record| record.ticks),
            now_ns: 0,
            story: Story::default(),
            spaces: HashMap::new(),
            threads: HashMap::new(),
            on_cpu: Vec::new(),
        }
    }

    fn take(&mut self, record: &TraceRecord) {
        let Some(kind) = record.kind() else {
            return;
        };
        let ticks = u128::from(record.ticks.saturating_sub(self.start_ticks));
        let ns = ticks * 1_000_000_000 / u128::from(self.recording.ticks_per_s);
        self.now_ns = self.now_ns.max(u64::try_from(ns).unwrap_or(u64::MAX));
        let cpu = record.cpu();
        if self.on_cpu.len() <= cpu {
            self.on_cpu.resize(cpu + 1, None);
        }
        let running = (record.running != 0).then(|| self.thread(record.running));
        let [a, b, c, d, e] = record.args;
        match (kind, running) {
            (TraceKind::Call, Some(thread)) => self.begin_call(thread, cpu, record.args),
            (TraceKind::PageFault, Some(thread)) => {
                let outcome = Outcome::Allowed;
                let what = What::Fault {
                    address: a,
                    error: b,
                    ip: c,
                    outcome,
                };
                self.begin(thread, cpu, what);
            }
            (TraceKind::Trap, Some(thread)) => {
                self.begin(thread, cpu, What::Trap { vector: a, ip: b });
            }
            (TraceKind::Leave, Some(thread)) => self.leave(thread, cpu, a),
            (TraceKind::Pages, Some(thread)) => self.change_pages(thread, a, b),
            (TraceKind::Idle, _) => self.run(cpu, None),
            (TraceKind::Message, _) => self.pass(false, a, b, Tag(d), e),
            (TraceKind::Reply, _) => self.pass(true, a, b, Tag(c), d),
            (TraceKind::Notify, _) => {
                let caller = running.filter(|&thread| self.is_in_call(thread, Call::Notify));
                self.note(cpu, caller, false, b);
            }
            (TraceKind::Notified, _) => {
                let receiver = self.thread(a);
                self.note(cpu, Some(receiver), true, b);
            }
            (TraceKind::SpaceCreated, _) => self.create_space(a, b),
            (TraceKind::SpaceLike, _) => {
                let (space, like) = (self.space(a), self.space(b));
                self.story.spaces[space].like = Some(like);
            }
            (TraceKind::SpaceNamed, _) => {
                let space = self.space(a);
                self.story.spaces[space].name = Some(text([b, c, d]));
            }
            (TraceKind::ThreadCreated, _) => self.create_thread(a, b, c),
            (TraceKind::ThreadEnded, _) => self.end_thread(a),
            (TraceKind::SpaceEnded, _) => {}
            // Nothing of this is without a thread.
            (_, None) => {}
        }
    }

    fn begin_call(&mut self, thread: usize, cpu: usize, [rax, args @ ..]: [u64; 5]) {
        let result = None;
        self.begin(thread, cpu, What::Call { rax, args, result });
        // The kernel returns at once from what is no call, and does not even say so.
        if Call::from_number(rax as u32).is_none() {
            self.close(thread, None);
        }
    }

    fn begin(&mut self, thread: usize, cpu: usize, what: What) {
        self.close(thread, None);
        self.run(cpu, Some(thread));
        let home = &mut self.story.threads[thread];
        home.pending = Pages::default();
        home.open = Some(Span {
            thread,
            cpu,
            begin_ns: self.now_ns,
            end_ns: self.now_ns,
            is_open: true,
            what,
            pages: Pages::default(),
        });
    }

    fn leave(&mut self, thread: usize, cpu: usize, result: u64) {
        self.run(cpu, Some(thread));
        self.close(thread, Some(result));
    }

    /// Ends what a thread is about.
    fn close(&mut self, thread: usize, returned: Option<u64>) {
        let Some(mut span) = self.story.threads[thread].open.take() else {
            return;
        };
        span.end_ns = self.now_ns;
        span.is_open = false;
        if let What::Call { result, .. } = &mut span.what {
            *result = returned;
        }
        self.story.spans.push(span);
    }

    /// This thread runs on a CPU from now on, if it did not before; or none.
    fn run(&mut self, cpu: usize, thread: Option<usize>) {
        if let Some((before, begin_ns)) = self.on_cpu[cpu] {
            if thread == Some(before) {
                return;
            }
            self.story.runs.push(Run {
                cpu,
                thread: before,
                begin_ns,
                end_ns: self.now_ns,
            });
        }
        self.on_cpu[cpu] = thread.map(|thread| (thread, self.now_ns));
    }

    fn change_pages(&mut self, thread: usize, what: u64, nr_pages: u64) {
        let Some(what) = TracePages::from_word(what) else {
            return;
        };
        let thread = &mut self.story.threads[thread];
        thread.pending.add(what, nr_pages);
        if let Some(span) = &mut thread.open {
            span.pages.add(what, nr_pages);
        }
        thread.set_outcome(match what {
            TracePages::Broken => Outcome::Copied,
            TracePages::Reclaimed => Outcome::Reclaimed,
            TracePages::Zeroed => Outcome::Zeroed,
            _ => return,
        });
    }

    /// A message has passed. Whichever of the two has done the work has what became of the pages.
    fn pass(&mut self, is_reply: bool, from: u64, to: u64, tag: Tag, nr_bytes: u64) {
        let (from, to) = (self.thread(from), self.thread(to));
        let kind = match (is_reply, tag.kind()) {
            (false, MessageKind::Fault) => Passed::Fault,
            (true, MessageKind::Fault) => Passed::Verdict,
            (false, _) => Passed::Message,
            (true, _) => Passed::Reply,
        };
        if kind == Passed::Fault {
            self.story.threads[from].set_outcome(Outcome::Reported);
        }
        if kind == Passed::Verdict && tag.label() == FaultVerdict::Kill as u32 {
            self.story.threads[to].set_outcome(Outcome::Ended);
        }
        let mut pages = Pages::default();
        for side in [from, to] {
            let pending = std::mem::take(&mut self.story.threads[side].pending);
            pages = pages.plus(pending);
        }
        let open = &self.story.threads[from].open;
        let message = Message {
            at_ns: self.now_ns,
            kind,
            from,
            to,
            begun_ns: open.as_ref().map_or(self.now_ns, |span| span.begin_ns),
            is_awaited: open.is_some() && self.story.threads[to].open.is_some(),
            tag,
            nr_bytes,
            pages,
        };
        self.story.messages.push(message);
    }

    fn is_in_call(&self, thread: usize, call: Call) -> bool {
        let open = self.story.threads[thread].open.as_ref();
        open.and_then(|span| span.what.call()) == Some(call as u32)
    }

    fn note(&mut self, cpu: usize, thread: Option<usize>, is_received: bool, bits: u64) {
        self.story.notes.push(Note {
            at_ns: self.now_ns,
            cpu,
            thread,
            is_received,
            bits,
        });
    }

    fn create_space(&mut self, number: u64, owner: u64) {
        let owner = (owner != 0).then(|| self.space(owner));
        let space = self.space(number);
        let space = &mut self.story.spaces[space];
        space.owner = owner;
        if owner.is_none() {
            space.name = Some(FIRST.to_owned());
        }
    }

    fn create_thread(&mut self, number: u64, space: u64, badge: u64) {
        let (thread, space) = (self.thread(number), self.space(space));
        let home = &mut self.story.threads[thread];
        (home.space, home.is_announced) = (space, true);
        let space = &mut self.story.spaces[space];
        space.has_threads = true;
        space.badge.get_or_insert(badge);
    }

    fn end_thread(&mut self, number: u64) {
        let thread = self.thread(number);
        self.story.threads[thread].set_outcome(Outcome::Ended);
        self.close(thread, None);
    }

    /// The space with this number.
    fn space(&mut self, number: u64) -> usize {
        *self.spaces.entry(number).or_insert_with(|| {
            self.story.spaces.push(Space::default());
            self.story.spaces.len() - 1
        })
    }

    /// The thread with this number.
    fn thread(&mut self, number: u64) -> usize {
        *self.threads.entry(number).or_insert_with(|| {
            self.story.threads.push(Thread::default());
            self.story.threads.len() - 1
        })
    }

    /// Gives those threads a space that were never announced.
    fn settle_strangers(&mut self) {
        let nowhere = self.story.spaces.len();
        let mut strangers = self.story.threads.iter_mut();
        let mut any = false;
        for stranger in strangers.by_ref().filter(|thread| !thread.is_announced) {
            (stranger.space, any) = (nowhere, true);
        }
        if any {
            self.story.spaces.push(Space {
                name: Some("unknown".to_owned()),
                has_threads: true,
                ..Space::default()
            });
        }
    }

    fn end(mut self) -> Story {
        for cpu in 0..self.on_cpu.len() {
            self.run(cpu, None);
        }
        for thread in &mut self.story.threads {
            if let Some(span) = thread.open.take() {
                self.story.spans.push(Span {
                    end_ns: self.now_ns,
                    ..span
                });
            }
        }
        self.settle_strangers();
        self.story.nr_cpus = self.on_cpu.len();
        self.story.end_ns = self.now_ns;
        self.story
    }
}

impl Thread {
    /// Says how the fault ends in which the thread is, if it is in one.
    fn set_outcome(&mut self, ends: Outcome) {
        if let Some(Span {
            what: What::Fault { outcome, .. },
            ..
        }) = &mut self.open
        {
            *outcome = ends;
        }
    }
}

/// The text in words, up to the first zero byte.
fn text(words: [u64; 3]) -> String {
    let bytes = words.into_iter().flat_map(u64::to_le_bytes);
    let bytes: Vec<_> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
