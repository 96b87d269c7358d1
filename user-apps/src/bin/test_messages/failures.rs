//! Messages that cannot be delivered, and whom that is told.

use crate::bytes::{OTHER, answer, receive, sender};
use libipc::abi::{Error, PAGE_SIZE, ThreadState};
use libipc::{Endpoint, Message, Perm, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::{assert_exact, available, counters};
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, map, mismatch, poke};
use user_apps::scenario::peer::{join, thread, until_state};

pub(crate) fn a_bad_receive_buffer_leaves_the_sender_queued() {
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = sender(&endpoint, 0, 2 * PAGE_SIZE, Ok(2 * PAGE_SIZE));
    twin.until_state(ThreadState::Sending);
    let own = Space::own();
    own.map(SCRATCH, PAGE, Perm::RW).expect("map");
    own.map(OTHER, 2 * PAGE, Perm::R).expect("map");
    let state = || (available(), own.info().expect("info"));
    let _ = state();
    let before = state();
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
    assert_eq!(state(), before);
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

/// Reserve, then commit: an unaligned message needs a frame for each page of an untouched buffer.
pub(crate) fn lesson_12_running_out_in_the_middle_of_a_message_changes_nothing() {
    const NR_PAGES: usize = 256;
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = sender(&endpoint, 1, NR_PAGES * PAGE_SIZE, Err(Error::NoMemory));
    twin.until_state(ThreadState::Sending);
    let buffer = map(SCRATCH, NR_PAGES as u64);
    let own = Space::own();
    let mut used = 0;
    // The sender goes on after its error, and what it writes to is then private on this side.
    let state = || {
        let info = own.info().expect("info");
        let nr_pages = info.private + info.shared_cow;
        (nr_pages, info.untouched, info.table_frames)
    };
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
    assert_eq!(state(), before, "a message that failed changed something");
    own.unmap(OTHER, used).expect("unmap");
    twin.join();
    assert_exact(|| {
        let twin = sender(&endpoint, 1, NR_PAGES * PAGE_SIZE, Ok(NR_PAGES * PAGE_SIZE));
        answer(receive(&endpoint, buffer.bytes()));
        twin.join();
    });
}
