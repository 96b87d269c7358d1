//! Messages with bytes.

use libipc::abi::{Error, PAGE_SIZE, ThreadState};
use libipc::{Endpoint, Incoming, Message, PageBuffer, Perm, Received, Rights, ShareMode, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::provoke;
use user_apps::scenario::frames::{assert_exact, available, counters};
use user_apps::scenario::memory::{PAGE, SCRATCH, Window, fill, map, mismatch, peek, poke};
use user_apps::scenario::peer::{join, thread, until_state};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

use crate::rig::{Plan, ROOM, Rig, at};

const NR_RANDOM: usize = 1000;
const OTHER: u64 = SCRATCH + (1 << 32);

pub(crate) fn all_sizes_around_pages_arrive() {
    let mut rig = Rig::new();
    for pages in [0, 1, 2, 16] {
        for extra in [-2, -1, 0, 1, 2] {
            let Some(len) = (pages * PAGE_SIZE).checked_add_signed(extra) else {
                continue;
            };
            for offset in [0, 1, PAGE_SIZE - 1] {
                let window = at(offset, len);
                rig.exchange(Plan {
                    data: window,
                    target: window,
                    answer: window,
                    reply: window,
                    seed: len as u64,
                });
            }
        }
    }
    rig.stop();
}

pub(crate) fn all_alignments_arrive() {
    let mut rig = Rig::new();
    let offsets = [0, 1, 8, 100, 2048, PAGE_SIZE - 1];
    for from in offsets {
        for to in offsets {
            for len in [100, PAGE_SIZE, 3 * PAGE_SIZE + 7] {
                let (data, target) = (at(from, len), at(to, len));
                rig.exchange(Plan {
                    data,
                    target,
                    answer: target,
                    reply: data,
                    seed: 40,
                });
            }
        }
    }
    rig.stop();
}

pub(crate) fn both_sides_learn_of_truncation() {
    let mut rig = Rig::new();
    for (len, room) in [
        (1, 0),
        (100, 99),
        (PAGE_SIZE, 1),
        (5 * PAGE_SIZE, 2 * PAGE_SIZE),
        (8193, 8192),
    ] {
        for offset in [0, 3] {
            let (long, short) = (at(offset, len), at(offset, room));
            rig.exchange(Plan {
                data: long,
                target: short,
                answer: long,
                reply: short,
                seed: 3,
            });
            rig.exchange(Plan {
                data: short,
                target: long,
                answer: short,
                reply: long,
                seed: 4,
            });
        }
    }
    rig.stop();
}

/// Random sizes and alignments, and not one frame less afterwards.
pub(crate) fn a_thousand_random_messages() {
    let mut rig = Rig::new();
    let mut rng = Rng::new(0x00c0_511b);
    let size = |rng: &mut Rng| {
        let limit = rng.pick(&[1, 64, 5000, 20_000, 70_000, 300_000]);
        rng.below(limit + 1) as usize
    };
    for _ in 0..NR_RANDOM {
        let len = size(&mut rng);
        let answer_len = size(&mut rng);
        // Most buffers fit; some are too small, some too large.
        let room = |rng: &mut Rng, len: usize| match rng.below(4) {
            0 => size(rng),
            1 => len + rng.below(5000) as usize,
            _ => len,
        };
        let (target, reply) = (room(&mut rng, len), room(&mut rng, answer_len));
        let mut window = |len| Window::random(&mut rng, len, ROOM);
        let plan = Plan {
            data: window(len),
            target: window(target),
            answer: window(answer_len),
            reply: window(reply),
            seed: 0,
        };
        rig.exchange(Plan {
            seed: rng.below(1000),
            ..plan
        });
    }
    rig.stop();
}

#[track_caller]
fn receive(endpoint: &Endpoint, buffer: &mut [u8]) -> Incoming {
    match endpoint.recv(buffer) {
        Ok(Received::Message(incoming)) => incoming,
        other => panic!("no message, but {other:?}"),
    }
}

fn answer(incoming: Incoming) {
    incoming.token.reply(Message::new(0), &[]).expect("reply");
}

/// A twin that fills pages, sends `len` bytes of them from `offset` on, and must get `expected`.
fn sender(endpoint: &Endpoint, offset: usize, len: usize, expected: Result<usize, Error>) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    Twin::start(&system(), &[gift], move |[to, ..]| {
        let mut data = PageBuffer::new(offset + len).expect("buffer");
        fill(&mut data, 1);
        let sent = Endpoint::borrow(to).send(Message::new(0), &data[offset..], &mut []);
        assert_eq!(sent.map(|sent| sent.accepted), expected);
    })
}

pub(crate) fn a_bad_receive_buffer_leaves_the_sender_queued() {
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = sender(&endpoint, 0, 2 * PAGE_SIZE, Ok(2 * PAGE_SIZE));
    twin.until_state(ThreadState::Sending);
    let own = Space::own();
    own.map(SCRATCH, PAGE, Perm::RW).expect("map");
    own.map(OTHER, 2 * PAGE, Perm::R).expect("map");
    let before = (own.info().expect("info"), available());
    let recv = |addr: u64| {
        let args = [0, 0, 0, 0, addr, 2 * PAGE];
        libipc::raw::call(libipc::abi::Call::Recv as u32, endpoint.handle(), args).0
    };
    assert_eq!(recv(SCRATCH), Error::NotMapped as u64);
    assert_eq!(recv(OTHER), Error::NotWritable as u64);
    assert_eq!(
        twin.thread.info().expect("info").state,
        ThreadState::Sending
    );
    assert_eq!((own.info().expect("info"), available()), before);
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
    own.map(SCRATCH + PAGE, PAGE, Perm::RW).expect("map");
    // SAFETY: the two pages were mapped just before.
    let buffer = unsafe { core::slice::from_raw_parts_mut(SCRATCH as *mut u8, 2 * PAGE_SIZE) };
    let incoming = receive(&endpoint, buffer);
    assert_eq!(mismatch(buffer, 1), None);
    answer(incoming);
    twin.join();
    own.unmap(SCRATCH, 2 * PAGE).expect("unmap");
}

/// The data is looked at when somebody receives: what is not mapped then fails the send alone.
pub(crate) fn a_bad_source_is_told_when_the_message_is_delivered() {
    let endpoint = Endpoint::create().expect("endpoint");
    let to = endpoint.handle();
    let sender = thread(move || {
        let args = [0, 0, SCRATCH, 100, 0, 0];
        let (code, _) = libipc::raw::call(libipc::abi::Call::Send as u32, to, args);
        assert_eq!(Error::from_code(code), Some(Error::NotMapped));
    });
    until_state(sender.thread(), ThreadState::Sending);
    let mut buffer = [7; 100];
    assert_err(
        endpoint.try_recv(&mut buffer).map(|_| ()),
        Error::WouldBlock,
    );
    assert_eq!(buffer, [7; 100]);
    join(sender);
}

/// Lesson: Redox zero-fills the ragged ends, Xous trusted the sender's length. Here the bytes after
/// the message stay what they were, in the same page too.
pub(crate) fn bytes_past_the_end_stay() {
    let endpoint = Endpoint::create().expect("endpoint");
    for len in [1, 100, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1] {
        let twin = sender(&endpoint, 0, len, Ok(len));
        let mut buffer = PageBuffer::new(3 * PAGE_SIZE).expect("buffer");
        buffer.fill(0xc3);
        let incoming = receive(&endpoint, &mut buffer);
        assert_eq!(incoming.len, len);
        assert_eq!(mismatch(&buffer[..len], 1), None);
        assert!(
            buffer[len..].iter().all(|&byte| byte == 0xc3),
            "length {len}"
        );
        answer(incoming);
        twin.join();
    }
}

pub(crate) fn a_buffer_longer_than_the_message_keeps_its_rest() {
    let mut rig = Rig::new();
    for len in [0, 1, PAGE_SIZE, 2 * PAGE_SIZE] {
        let (short, long) = (at(0, len), at(0, 10 * PAGE_SIZE));
        rig.exchange(Plan {
            data: short,
            target: long,
            answer: short,
            reply: long,
            seed: 9,
        });
    }
    rig.stop();
}

/// The sender's range shows one frame twice; the receiver gets two pages of its own.
pub(crate) fn the_same_page_is_received_twice() {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let twin = Twin::start(&system(), &[gift], |[to, ..]| {
        let own = Space::own();
        let _page = map(SCRATCH, 1);
        poke(SCRATCH, 5);
        own.share(
            &own,
            SCRATCH,
            SCRATCH + PAGE,
            PAGE,
            ShareMode::CopyOnWrite,
            None,
        )
        .expect("share");
        // SAFETY: both pages are mapped.
        let data = unsafe { core::slice::from_raw_parts(SCRATCH as *const u8, 2 * PAGE_SIZE) };
        Endpoint::borrow(to)
            .send(Message::new(0), data, &mut [])
            .expect("send");
        poke(SCRATCH, 6);
        assert_eq!(peek(SCRATCH + PAGE), 5);
    });
    let mut buffer = PageBuffer::new(2 * PAGE_SIZE).expect("buffer");
    let base = buffer.addr();
    let incoming = receive(&endpoint, &mut buffer);
    assert_eq!((peek(base), peek(base + PAGE)), (5, 5));
    poke(base, 10);
    assert_eq!((peek(base), peek(base + PAGE)), (10, 5));
    poke(base + PAGE, 11);
    assert_eq!((peek(base), peek(base + PAGE)), (10, 11));
    answer(incoming);
    twin.join();
}

pub(crate) fn untouched_pages_arrive_as_zeros() {
    let endpoint = Endpoint::create().expect("endpoint");
    for offset in [0, 1] {
        let gift = Gift(endpoint.handle(), Rights::SEND, 0);
        let twin = Twin::start(&system(), &[gift], move |[to, ..]| {
            let data = PageBuffer::new(8 * PAGE_SIZE + 1).expect("buffer");
            let data = &data[offset..8 * PAGE_SIZE];
            Endpoint::borrow(to)
                .send(Message::new(0), data, &mut [])
                .expect("send");
        });
        let mut buffer = PageBuffer::new(8 * PAGE_SIZE).expect("buffer");
        buffer.fill(0xff);
        let incoming = receive(&endpoint, &mut buffer);
        let len = incoming.len;
        assert!(buffer[..len].iter().all(|&byte| byte == 0));
        assert!(buffer[len..].iter().all(|&byte| byte == 0xff));
        answer(incoming);
        twin.join();
    }
}

pub(crate) fn untouched_buffers_can_be_received_into() {
    let endpoint = Endpoint::create().expect("endpoint");
    for offset in [0, 5] {
        let twin = sender(&endpoint, offset, 4 * PAGE_SIZE, Ok(4 * PAGE_SIZE));
        let mut buffer = PageBuffer::new(6 * PAGE_SIZE).expect("buffer");
        let incoming = receive(&endpoint, &mut buffer);
        let expected = |at: usize| user_apps::scenario::memory::pattern_byte(1, at + offset);
        let arrived = &buffer[..4 * PAGE_SIZE];
        assert!(
            arrived
                .iter()
                .enumerate()
                .all(|(at, &byte)| byte == expected(at))
        );
        assert!(buffer[4 * PAGE_SIZE..].iter().all(|&byte| byte == 0));
        answer(incoming);
        twin.join();
    }
}

/// A page of shared memory has no private original: who receives it gets what it was at that moment.
pub(crate) fn shared_memory_is_sent_as_a_snapshot() {
    let endpoint = Endpoint::create().expect("endpoint");
    let own = Space::own();
    let memory = map(SCRATCH, 2);
    memory.bytes().fill(1);
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let mut buffer = PageBuffer::new(2 * PAGE_SIZE).expect("buffer");
        let endpoint = Endpoint::borrow(from);
        let first = receive(&endpoint, &mut buffer);
        assert!(buffer.iter().all(|&byte| byte == 1));
        answer(first);
        let second = receive(&endpoint, &mut []);
        assert!(
            buffer.iter().all(|&byte| byte == 1),
            "the sender's later write shows"
        );
        buffer.fill(9);
        answer(second);
    });
    endpoint
        .send(Message::new(0), memory.bytes(), &mut [])
        .expect("send");
    memory.bytes().fill(2);
    endpoint.call(Message::new(0)).expect("send");
    twin.join();
    assert_eq!(
        peek(OTHER),
        0x0202_0202_0202_0202,
        "still shared, and not the receiver's"
    );
    poke(OTHER, 3);
    assert_eq!(peek(SCRATCH), 3);
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

/// Receiving into shared memory shows on every side that has it, and leaves it shared.
pub(crate) fn shared_memory_is_received_in_place() {
    let endpoint = Endpoint::create().expect("endpoint");
    let own = Space::own();
    let memory = map(SCRATCH, 2);
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let twin = sender(&endpoint, 0, 2 * PAGE_SIZE, Ok(2 * PAGE_SIZE));
    let incoming = receive(&endpoint, memory.bytes());
    // SAFETY: the two pages were mapped just before.
    let other = unsafe { core::slice::from_raw_parts(OTHER as *const u8, 2 * PAGE_SIZE) };
    assert_eq!(mismatch(other, 1), None);
    answer(incoming);
    twin.join();
    poke(SCRATCH, 77);
    assert_eq!(peek(OTHER), 77);
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

pub(crate) fn the_destination_keeps_its_rights() {
    let endpoint = Endpoint::create().expect("endpoint");
    let own = Space::own();
    let memory = map(SCRATCH, 2);
    let twin = sender(&endpoint, 0, 2 * PAGE_SIZE, Ok(2 * PAGE_SIZE));
    let incoming = receive(&endpoint, memory.bytes());
    assert_eq!(mismatch(memory.bytes(), 1), None);
    memory.bytes().fill(4);
    assert_err(own.protect(SCRATCH, PAGE, Perm::RX), Error::Denied);
    own.protect(SCRATCH, 2 * PAGE, Perm::R).expect("protect");
    assert_eq!(provoke(|| poke(SCRATCH, 1)).address, SCRATCH);
    answer(incoming);
    twin.join();

    // Made read-only, it cannot be received into, and receives nothing.
    let twin = sender(&endpoint, 0, PAGE_SIZE, Ok(PAGE_SIZE));
    let args = [0, 0, 0, 0, SCRATCH, PAGE];
    let (code, _) = libipc::raw::call(libipc::abi::Call::Recv as u32, endpoint.handle(), args);
    assert_eq!(Error::from_code(code), Some(Error::NotWritable));
    assert_eq!(peek(SCRATCH), 0x0404_0404_0404_0404);
    own.protect(SCRATCH, 2 * PAGE, Perm::RW).expect("protect");
    answer(receive(&endpoint, memory.bytes()));
    twin.join();
}

/// The program's own text: read-only and executable at the sender, ordinary memory at the receiver.
pub(crate) fn pages_of_read_only_text_become_writable() {
    let endpoint = Endpoint::create().expect("endpoint");
    let text = pages_of_read_only_text_become_writable as *const () as u64 & !(PAGE - 1);
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let twin = Twin::start(&system(), &[gift], move |[to, ..]| {
        // SAFETY: the page that this function starts in is mapped.
        let page = unsafe { core::slice::from_raw_parts(text as *const u8, PAGE_SIZE) };
        Endpoint::borrow(to)
            .send(Message::new(0), page, &mut [])
            .expect("send");
        assert_eq!(provoke(move || poke(text, 0)).address, text);
    });
    let mut buffer = PageBuffer::new(PAGE_SIZE).expect("buffer");
    let incoming = receive(&endpoint, &mut buffer);
    // SAFETY: as above; the twin's text is this program's.
    let page = unsafe { core::slice::from_raw_parts(text as *const u8, PAGE_SIZE) };
    assert_eq!(&buffer[..], page);
    let at = buffer.addr();
    let first = peek(text);
    buffer.fill(0xcc);
    assert_eq!(
        peek(text),
        first,
        "a write to a received page reached the text"
    );
    let run = move || {
        // SAFETY: jumping there faults, which is the point.
        let function = unsafe { core::mem::transmute::<*const (), fn()>(at as *const ()) };
        function();
    };
    assert_eq!(provoke(run).access, libipc::abi::Access::Execute);
    answer(incoming);
    twin.join();
}

pub(crate) fn overlapping_buffers_are_an_error() {
    let endpoint = Endpoint::create().expect("endpoint");
    let memory = map(SCRATCH, 4);
    fill(memory.bytes(), 2);
    let to = endpoint.handle();
    for (from, into, len, overlap) in [
        (0, 0, PAGE, true),
        (0, PAGE - 1, PAGE, true),
        (PAGE, 1, PAGE, true),
        (0, PAGE, PAGE, false),
        (0, 8, 8, false),
    ] {
        let sender = thread(move || {
            let args = [0, 0, SCRATCH + from, len, 0, 0];
            let (code, _) = libipc::raw::call(libipc::abi::Call::Send as u32, to, args);
            assert_eq!(Error::from_code(code), overlap.then_some(Error::Overlap));
        });
        until_state(sender.thread(), ThreadState::Sending);
        let args = [0, 1, 0, 0, SCRATCH + into, len];
        let (code, results) = libipc::raw::call(libipc::abi::Call::Recv as u32, to, args);
        if overlap {
            assert_eq!(
                Error::from_code(code),
                Some(Error::WouldBlock),
                "the sender is to blame"
            );
        } else {
            assert_eq!(code, 0);
            libipc::ReplyToken::from_raw(results[3])
                .reply(Message::new(0), &[])
                .expect("reply");
        }
        join(sender);
        if overlap {
            assert_eq!(mismatch(memory.bytes(), 2), None);
        }
        fill(memory.bytes(), 2);
    }
}

pub(crate) fn a_space_sends_to_itself() {
    let endpoint = Endpoint::create().expect("endpoint");
    let to = endpoint.handle();
    for (offset, len) in [(0, 16 * PAGE_SIZE), (3, 5 * PAGE_SIZE)] {
        let sender = thread(move || {
            let mut data = PageBuffer::new(offset + len).expect("buffer");
            let mut reply = PageBuffer::new(len).expect("buffer");
            fill(&mut data[offset..], 6);
            Endpoint::borrow(to)
                .send(Message::new(0), &data[offset..], &mut reply)
                .expect("send");
            assert_eq!(mismatch(&reply, 6), None);
            reply.fill(0);
            assert_eq!(mismatch(&data[offset..], 6), None);
        });
        let mut buffer = PageBuffer::new(len).expect("buffer");
        let incoming = receive(&endpoint, &mut buffer);
        assert_eq!(mismatch(&buffer, 6), None);
        incoming
            .token
            .reply(Message::new(0), &buffer)
            .expect("reply");
        buffer.fill(1);
        join(sender);
    }
}

/// Reserve, then commit: an unaligned message needs a frame for each page of an untouched buffer.
pub(crate) fn running_out_in_the_middle_of_a_message_changes_nothing() {
    const NR_PAGES: usize = 256;
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = sender(&endpoint, 1, NR_PAGES * PAGE_SIZE, Err(Error::NoMemory));
    twin.until_state(ThreadState::Sending);
    let buffer = map(SCRATCH, NR_PAGES as u64);
    let own = Space::own();
    let mut used = 0;
    let state = || (own.info().expect("info"), counters().free);
    let _ = state();
    while counters().free > 100 {
        own.map(OTHER + used, 16 * PAGE, Perm::RW).expect("map");
        for page in 0..16 {
            poke(OTHER + used + page * PAGE, 1);
        }
        used += 16 * PAGE;
    }
    let before = state();
    assert_err(
        endpoint.try_recv(buffer.bytes()).map(|_| ()),
        Error::WouldBlock,
    );
    let after = state();
    assert_eq!(after.0, before.0, "a message that failed changed something");
    own.unmap(OTHER, used).expect("unmap");
    twin.join();
    assert_exact(|| {
        let twin = sender(&endpoint, 1, NR_PAGES * PAGE_SIZE, Ok(NR_PAGES * PAGE_SIZE));
        answer(receive(&endpoint, buffer.bytes()));
        twin.join();
    });
}
