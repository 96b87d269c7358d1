//! Messages with bytes: what becomes of pages of every kind on both sides.

use libipc::abi::{Error, PAGE_SIZE};
use libipc::{Endpoint, Incoming, Message, PageBuffer, Perm, Received, Rights, ShareMode, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::provoke;
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, map, mismatch, peek, poke};
use user_apps::scenario::peer::{join, thread};
use user_apps::scenario::twin::{Gift, Twin, system};

pub(crate) const OTHER: u64 = SCRATCH + (1 << 32);

#[track_caller]
pub(crate) fn receive(endpoint: &Endpoint, buffer: &mut [u8]) -> Incoming {
    match endpoint.recv(buffer) {
        Ok(Received::Message(incoming)) => incoming,
        other => panic!("no message, but {other:?}"),
    }
}

pub(crate) fn answer(incoming: Incoming) {
    incoming.token.reply(Message::new(0), &[]).expect("reply");
}

/// A twin that fills pages, sends `len` bytes of them from `offset` on, and must get `expected`.
pub(crate) fn sender(
    endpoint: &Endpoint,
    offset: usize,
    len: usize,
    expected: Result<usize, Error>,
) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    Twin::start(&system(), &[gift], move |[to, ..]| {
        let mut data = PageBuffer::new(offset + len).expect("buffer");
        fill(&mut data, 1);
        let sent = Endpoint::borrow(to).send(Message::new(0), &data[offset..], &mut []);
        assert_eq!(sent.map(|sent| sent.accepted), expected);
    })
}

/// Lesson: Redox zero-fills the ragged ends, Xous trusted the sender's length. Here the bytes after
/// the message stay what they were, in the same page too.
pub(crate) fn lesson_14_bytes_past_the_end_stay() {
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

/// The sender's range shows one frame twice; the receiver gets two pages of its own.
pub(crate) fn lesson_13_the_same_page_is_received_twice() {
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

pub(crate) fn lesson_15_untouched_pages_arrive_as_zeros() {
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

pub(crate) fn lesson_15_untouched_buffers_can_be_received_into() {
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
pub(crate) fn lesson_8_shared_memory_is_sent_as_a_snapshot() {
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
pub(crate) fn lesson_8_shared_memory_is_received_in_place() {
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

/// The receiver has the pages, and the sender zeros; the ragged ends stay what they were.
pub(crate) fn moved_pages_leave_zeros_behind() {
    let endpoint = Endpoint::create().expect("endpoint");
    for (offset, len) in [(0, 4 * PAGE_SIZE), (100, 3 * PAGE_SIZE), (PAGE_SIZE, 5000)] {
        let gift = Gift(endpoint.handle(), Rights::SEND, 0);
        let twin = Twin::start(&system(), &[gift], move |[to, ..]| {
            let mut data = PageBuffer::new(5 * PAGE_SIZE).expect("buffer");
            data.fill(0x5a);
            let message = Message::new(0).moving_pages();
            Endpoint::borrow(to)
                .send(message, &data[offset..offset + len], &mut [])
                .expect("send");
            let whole = offset.next_multiple_of(PAGE_SIZE)..(offset + len) / PAGE_SIZE * PAGE_SIZE;
            for (at, &byte) in data.iter().enumerate() {
                let expected = if whole.contains(&at) { 0 } else { 0x5a };
                assert_eq!(byte, expected, "byte {at} of {len} from {offset} on");
            }
        });
        let mut buffer = PageBuffer::new(5 * PAGE_SIZE).expect("buffer");
        let incoming = receive(&endpoint, &mut buffer);
        assert_eq!(incoming.len, len);
        assert!(buffer[..len].iter().all(|&byte| byte == 0x5a));
        assert!(buffer[len..].iter().all(|&byte| byte == 0));
        answer(incoming);
        twin.join();
    }
}
