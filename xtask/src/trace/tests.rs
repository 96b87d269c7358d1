//! Records that no kernel has made, and what is told of them.

use cowslip_abi::{Call, FaultKind, MessageKind, Tag, TraceKind, TracePages, TraceRecord};
use proptest::prelude::*;
use serde_json::Value;

use super::recording::Recording;
use super::story::{Message, Outcome, Pages, Passed, Span, Story, What};
use super::{chrome, page, summary, valid};

/// Some numbers of objects.
const CLIENT: u64 = 11;
const SERVER: u64 = 12;
const INIT_SPACE: u64 = 21;
const CLIENT_SPACE: u64 = 22;
const SERVER_SPACE: u64 = 23;

fn record(ticks: u64, cpu: usize, running: u64, kind: TraceKind, args: &[u64]) -> TraceRecord {
    let mut all = [0; 5];
    all[..args.len()].copy_from_slice(args);
    TraceRecord {
        ticks,
        what: TraceRecord::what(kind, cpu),
        running,
        args: all,
    }
}

/// A clock of a tick each nanosecond.
fn recording(records: Vec<TraceRecord>) -> Recording {
    Recording {
        ticks_per_s: 1_000_000_000,
        records,
        nr_lost: 0,
    }
}

fn words(text: &str) -> [u64; 3] {
    let mut bytes = [0; 24];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    [0, 8, 16].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
}

/// Two processes, of which one asks the other on one CPU: a message of bytes and pages, and a reply.
fn exchange() -> Recording {
    let space =
        |number: u64, owner: u64| record(100, 0, 0, TraceKind::SpaceCreated, &[number, owner]);
    let thread = |number: u64, space: u64, badge: u64| {
        record(100, 0, 0, TraceKind::ThreadCreated, &[number, space, badge])
    };
    let named = |space: u64, name: &str| {
        let [a, b, c] = words(name);
        record(100, 0, 0, TraceKind::SpaceNamed, &[space, a, b, c])
    };
    let pages = |what: TracePages, count: u64| {
        record(320, 0, CLIENT, TraceKind::Pages, &[what as u64, count])
    };
    recording(vec![
        space(INIT_SPACE, 0),
        space(SERVER_SPACE, INIT_SPACE),
        named(SERVER_SPACE, "procd"),
        thread(SERVER, SERVER_SPACE, 4),
        space(CLIENT_SPACE, SERVER_SPACE),
        named(CLIENT_SPACE, "</script>"),
        thread(CLIENT, CLIENT_SPACE, 7),
        record(150, 0, SERVER, TraceKind::Leave, &[0]),
        record(200, 0, SERVER, TraceKind::Call, &[Call::Recv as u64]),
        record(210, 0, CLIENT, TraceKind::Leave, &[0]),
        record(
            300,
            0,
            CLIENT,
            TraceKind::Call,
            &[Call::Send as u64 | 5 << 32],
        ),
        pages(TracePages::Remapped, 16),
        pages(TracePages::Copied, 1),
        record(
            330,
            0,
            CLIENT,
            TraceKind::Message,
            &[CLIENT, SERVER, 9, 42, 65_540],
        ),
        record(340, 0, SERVER, TraceKind::Leave, &[0]),
        record(400, 0, SERVER, TraceKind::Call, &[Call::ReplyRecv as u64]),
        record(410, 0, SERVER, TraceKind::Reply, &[SERVER, CLIENT, 0, 8]),
        record(420, 0, CLIENT, TraceKind::Leave, &[3]),
    ])
}

fn as_json(story: &Story) -> Value {
    let mut json = Vec::new();
    chrome::write(story, &mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn messages_have_their_pages_and_the_calls_they_were_sent_in() {
    let story = Story::of(&exchange());
    let client = |message: &Message| story.name(story.threads[message.from].space);
    let [sent, reply] = &story.messages[..] else {
        panic!("{:?}", story.messages);
    };
    assert_eq!(
        (client(sent), client(reply)),
        ("</script> (7)".into(), "procd".into())
    );
    assert_eq!((sent.kind, reply.kind), (Passed::Message, Passed::Reply));
    assert_eq!(
        (sent.at_ns, sent.begun_ns, sent.nr_bytes),
        (230, 200, 65_540)
    );
    let pages = Pages {
        copied: 1,
        remapped: 16,
        ..Pages::default()
    };
    assert_eq!((sent.pages, reply.pages), (pages, Pages::default()));
    assert!(sent.is_awaited && reply.is_awaited);
}

#[test]
fn calls_last_until_they_return() {
    let story = Story::of(&exchange());
    let mut of_call = story.spans.iter();
    let send = of_call
        .find(|span| span.what.call() == Some(Call::Send as u32))
        .unwrap();
    assert_eq!(
        (send.begin_ns, send.end_ns, send.is_open),
        (200, 320, false)
    );
    assert!(matches!(
        send.what,
        What::Call {
            result: Some(3),
            ..
        }
    ));
    let open: Vec<_> = story.spans.iter().filter(|span| span.is_open).collect();
    assert!(matches!(
        open[..],
        [Span {
            begin_ns: 300,
            end_ns: 320,
            ..
        }]
    ));
    // Each begins to run where it leaves the kernel.
    let runs: Vec<_> = story
        .runs
        .iter()
        .map(|run| (run.begin_ns, run.end_ns))
        .collect();
    assert_eq!(runs, [(50, 110), (110, 240), (240, 320), (320, 320)]);
}

#[test]
fn faults_end_as_the_kernel_says() {
    let fault = |at: u64| record(at, 0, CLIENT, TraceKind::PageFault, &[0x1000, 6, 0x2000]);
    let pages =
        |at: u64, what: TracePages| record(at, 0, CLIENT, TraceKind::Pages, &[what as u64, 1]);
    let leave = |at: u64| record(at, 0, CLIENT, TraceKind::Leave, &[0]);
    let tag = Tag::new(FaultKind::Page as u32)
        .with_kind(MessageKind::Fault)
        .0;
    let story = Story::of(&recording(vec![
        fault(1),
        leave(2),
        fault(3),
        pages(4, TracePages::Broken),
        leave(5),
        fault(6),
        pages(7, TracePages::Zeroed),
        leave(8),
        fault(9),
        record(
            10,
            0,
            CLIENT,
            TraceKind::Message,
            &[CLIENT, SERVER, 9, tag, 0],
        ),
        record(11, 0, SERVER, TraceKind::Leave, &[0]),
        record(12, 0, SERVER, TraceKind::Reply, &[SERVER, CLIENT, tag, 0]),
        leave(13),
        fault(14),
        record(15, 0, 0, TraceKind::ThreadEnded, &[CLIENT]),
    ]));
    let outcomes = story.spans.iter().filter_map(|span| match span.what {
        What::Fault { outcome, .. } => Some(outcome),
        _ => None,
    });
    let expected = [
        Outcome::Allowed,
        Outcome::Copied,
        Outcome::Zeroed,
        Outcome::Reported,
        Outcome::Ended,
    ];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    let kinds: Vec<_> = story.messages.iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [Passed::Fault, Passed::Verdict]);
}

#[test]
fn forks_are_called_as_what_they_are_forks_of() {
    let mut records = exchange().records;
    records.push(record(
        500,
        0,
        0,
        TraceKind::SpaceCreated,
        &[99, SERVER_SPACE],
    ));
    records.push(record(500, 0, 0, TraceKind::SpaceLike, &[99, CLIENT_SPACE]));
    records.push(record(500, 0, 0, TraceKind::ThreadCreated, &[98, 99, 8]));
    let story = Story::of(&recording(records));
    let last = story.threads.last().unwrap().space;
    assert_eq!(story.name(last), "</script> (8)");
    assert_eq!(story.name(0), "init");
}

#[test]
fn sums_are_by_process() {
    let story = Story::of(&exchange());
    let rows = summary::rows(&story);
    let of = |name: &str| {
        rows.iter()
            .find(|row| story.name(row.space) == name)
            .unwrap()
    };
    let (server, client) = (of("procd"), of("</script> (7)"));
    assert_eq!(
        (server.nr_calls, server.nr_received, server.nr_replies),
        (2, 1, 1)
    );
    assert_eq!(
        (client.nr_sent, client.nr_bytes, client.pages.remapped),
        (1, 65_540, 16)
    );
    assert_eq!(rows.len(), 2);
    assert!(summary::text(&story).contains("</script> (7) to procd 1"));
}

#[test]
fn the_trace_has_a_mark_and_an_arrow_for_each_message() {
    let trace = as_json(&Story::of(&exchange()));
    assert_eq!(valid::flaw(&trace), None);
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert_eq!((of("i"), of("s"), of("f")), (2, 2, 2));
    let mark = events
        .iter()
        .find(|event| event["cat"] == "message")
        .unwrap();
    assert_eq!(
        (&mark["args"]["bytes"], &mark["args"]["remapped"]),
        (&65_540.into(), &16.into())
    );
}

#[test]
fn the_page_has_a_row_for_each_message_and_no_name_can_end_its_script() {
    let mut bytes = Vec::new();
    page::write(&Story::of(&exchange()), &["procd".into()], &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (_, rest) = text.split_once("id=\"story\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let story: Value = serde_json::from_str(data).unwrap();
    assert_eq!(story["rows"].as_array().unwrap().len(), 2);
    // The program's own messages come first.
    let own = story["own"].as_array().unwrap();
    assert_eq!((own.len(), &story["lanes"][0]), (1, &"procd".into()));
    assert_eq!(own[0], 0);
    assert_eq!(text.matches("</script>").count(), 2);
    for place in ["@TITLE@", "@ABOUT@", "@TABLE@", "@STORY@"] {
        assert!(!text.contains(place));
    }
}

#[test]
fn faults_that_are_alike_share_a_row_of_the_page() {
    let fault = |at: u64| record(at, 0, CLIENT, TraceKind::PageFault, &[at << 12, 6, 0x2000]);
    let zeroed = |at: u64| {
        record(
            at,
            0,
            CLIENT,
            TraceKind::Pages,
            &[TracePages::Zeroed as u64, 1],
        )
    };
    let story = Story::of(&recording(
        (1..=5).flat_map(|at| [fault(at), zeroed(at)]).collect(),
    ));
    let mut bytes = Vec::new();
    page::write(&story, &["x".into()], &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\"5 times, first write 0x1000 at 0x2000\""));
    assert_eq!(text.matches(" times, first ").count(), 1);
}

/// Any record that a kernel might make, and some that none would.
fn any_record() -> impl Strategy<Value = TraceRecord> {
    let kind = prop::sample::select(TraceKind::ALL.to_vec());
    let tag = prop_oneof![
        Just(0),
        Just(Tag(0).with_kind(MessageKind::Fault).0),
        Just(1)
    ];
    (
        0..2000_u64,
        0..3_usize,
        0..4_u64,
        kind,
        prop::array::uniform5(0..5_u64),
        tag,
    )
        .prop_map(|(ticks, cpu, running, kind, mut args, tag)| {
            match kind {
                TraceKind::Message => args[3] = tag,
                TraceKind::Reply => args[2] = tag,
                _ => {}
            }
            record(ticks, cpu, running, kind, &args)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_make_a_valid_trace_and_a_page(mut records in prop::collection::vec(any_record(), 0..200)) {
        records.sort_by_key(|record| record.ticks);
        let story = Story::of(&recording(records));
        prop_assert_eq!(valid::flaw(&as_json(&story)), None);
        page::write(&story, &["x".into()], std::io::sink()).unwrap();
        summary::text(&story);
    }
}
