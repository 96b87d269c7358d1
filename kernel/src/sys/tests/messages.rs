//! What messages carry, and what they leave alone.

use cowslip_abi::{Call, Error, Handle, MessageKind, Perm, Rights, Tag, pack_handles};

use super::machine::{BUFFER, Machine, Program, START, kind};
use crate::object::Object;

const NOTHING: [u64; 6] = [0; 6];

/// A server that waits in a receive, and a client that can send to it with badge 7.
fn waiting_server(machine: &mut Machine, capacity: u64) -> (Program, Handle, Program, Handle) {
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 7);
    let args = [0, 0, 0, 0, BUFFER, capacity];
    assert!(machine.call(server, Call::Recv, receive, args).is_none());
    (server, receive, client, send)
}

#[test]
fn words_label_and_badge_arrive() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 0);
    machine.set_words(client.thread, [1, 2, 3, 4]);
    assert!(
        machine
            .call(client, Call::Send, send, [0, 99, 0, 0, 0, 0])
            .is_none()
    );

    let got = machine.result(server.thread).unwrap().unwrap();
    assert_eq!(
        (got.rdi, Tag(got.rsi).label(), got.words()),
        (7, 99, [1, 2, 3, 4])
    );
    assert_eq!(kind(&got), MessageKind::Message);

    machine.set_words(server.thread, [5, 6, 7, 8]);
    machine.ok(server, Call::Reply, Handle::NONE, [got.r8, 100, 0, 0, 0, 0]);
    let reply = machine.result(client.thread).unwrap().unwrap();
    assert_eq!((Tag(reply.rsi).label(), reply.words()), (100, [5, 6, 7, 8]));
    machine.finish();
}

#[test]
fn a_message_waits_for_its_receiver_in_order() {
    let mut machine = Machine::new(256);
    let (server, first) = (machine.program(), machine.program());
    let second = machine.program();
    let (receive, send) = machine.service(server, first, 1);
    let entry = machine
        .kernel
        .spaces
        .get(first.space)
        .unwrap()
        .handles
        .get(send)
        .unwrap();
    let second_send = machine.install(second, entry.object, Rights::SEND);
    assert!(
        machine
            .call(first, Call::Send, send, [0, 1, 0, 0, 0, 0])
            .is_none()
    );
    assert!(
        machine
            .call(second, Call::Send, second_send, [0, 2, 0, 0, 0, 0])
            .is_none()
    );
    for label in [1, 2] {
        let got = machine.ok(server, Call::Recv, receive, NOTHING);
        assert_eq!(Tag(got.rsi).label(), label);
    }
    machine.finish();
}

#[test]
fn a_message_longer_than_the_buffer_is_truncated_and_both_sides_are_told() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 5000);
    let before = machine.read(server, BUFFER + 5000, 100);
    machine.write(client, BUFFER, &[0xaa; 6000]);
    assert!(
        machine
            .call(client, Call::Send, send, [0, 0, BUFFER, 6000, BUFFER, 10])
            .is_none()
    );

    let got = machine.result(server.thread).unwrap().unwrap();
    assert_eq!(got.rdx, 6000, "the true length");
    assert!(Tag(got.rsi).truncated() && !Tag(got.rsi).peer_truncated());
    assert_eq!(machine.read(server, BUFFER, 5000), [0xaa; 5000]);
    assert_eq!(
        machine.read(server, BUFFER + 5000, 100),
        before,
        "bytes past the buffer's end"
    );

    machine.write(server, BUFFER, &[0xbb; 20]);
    let told = machine.ok(
        server,
        Call::Reply,
        Handle::NONE,
        [got.r8, 0, BUFFER, 20, 0, 0],
    );
    assert!(Tag(told.rsi).peer_truncated());
    let reply = machine.result(client.thread).unwrap().unwrap();
    assert!(Tag(reply.rsi).truncated() && Tag(reply.rsi).peer_truncated());
    assert_eq!(
        (reply.rdx, reply.r8),
        (20, 5000),
        "true reply length, accepted request"
    );
    assert_eq!(
        machine.read(client, BUFFER, 11),
        [[0xbb; 10].as_slice(), &[0xaa]].concat()
    );
    machine.finish();
}

#[test]
fn whole_pages_are_remapped_and_keep_the_destinations_rights() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 8192);
    let table = &machine.kernel.spaces.get(client.space).unwrap().table;
    machine.write(client, BUFFER, &[0x11; 8192]);
    table
        .protect(machine.kernel.mm, BUFFER, 8192, Perm::R)
        .unwrap();
    let remapped = machine.kernel.mm.stats.remapped.get();
    assert!(
        machine
            .call(client, Call::Send, send, [0, 0, BUFFER, 8192, 0, 0])
            .is_none()
    );
    assert_eq!(machine.kernel.mm.stats.remapped.get() - remapped, 2);

    machine.write(server, BUFFER, &[0x22; 10]);
    assert_eq!(machine.read(client, BUFFER, 8192), [0x11; 8192]);
    assert_eq!(machine.read(server, BUFFER, 10), [0x22; 10]);
    machine.finish();
}

#[test]
fn receiving_into_read_only_memory_is_the_receivers_error_and_the_sender_waits_on() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = waiting_server(&mut machine, 4096);
    let table = &machine.kernel.spaces.get(server.space).unwrap().table;
    table
        .protect(machine.kernel.mm, BUFFER, 4096, Perm::R)
        .unwrap();
    assert!(
        machine
            .call(client, Call::Send, send, [0, 5, BUFFER, 100, 0, 0])
            .is_none()
    );
    assert_eq!(machine.result(server.thread), Some(Err(Error::NotWritable)));

    let args = [0, 0, 0, 0, BUFFER + 4096, 4096];
    assert_eq!(
        Tag(machine.ok(server, Call::Recv, receive, args).rsi).label(),
        5
    );
    machine.finish();
}

#[test]
fn sending_from_unmapped_memory_is_the_senders_error_and_the_receiver_waits_on() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 4096);
    let hole = [0, 0, 0x5000_0000, 100, 0, 0];
    assert_eq!(
        machine.error(client, Call::Send, send, hole),
        Error::NotMapped
    );
    assert_eq!(machine.result(server.thread), None);
    assert!(
        machine
            .call(client, Call::Send, send, [0, 8, 0, 0, 0, 0])
            .is_none()
    );
    assert_eq!(
        Tag(machine.result(server.thread).unwrap().unwrap().rsi).label(),
        8
    );
    machine.finish();
}

#[test]
fn a_reply_into_bad_memory_fails_the_send_and_not_the_reply() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 0);
    let args = [0, 0, 0, 0, 0x5000_0000, 100];
    assert!(machine.call(client, Call::Send, send, args).is_none());
    let token = machine.result(server.thread).unwrap().unwrap().r8;
    machine.ok(
        server,
        Call::Reply,
        Handle::NONE,
        [token, 0, BUFFER, 50, 0, 0],
    );
    assert_eq!(machine.result(client.thread), Some(Err(Error::NotMapped)));
    machine.finish();
}

#[test]
fn lesson_16_a_reply_token_works_once_and_only_for_its_space() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = waiting_server(&mut machine, 0);
    let stranger = machine.program();
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    let token = machine.result(server.thread).unwrap().unwrap().r8;

    let args = [token, 0, 0, 0, 0, 0];
    assert_eq!(
        machine.error(stranger, Call::Reply, Handle::NONE, args),
        Error::StaleToken
    );
    machine.ok(server, Call::Reply, Handle::NONE, args);
    assert_eq!(
        machine.error(server, Call::Reply, Handle::NONE, args),
        Error::StaleToken
    );

    // The client's next request is not answered by the old token.
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    let second = machine.ok(server, Call::Recv, receive, NOTHING).r8;
    assert_ne!(token, second);
    assert_eq!(
        machine.error(server, Call::Reply, Handle::NONE, args),
        Error::StaleToken
    );
    assert_eq!(machine.result(client.thread), None);
    machine.finish();
}

#[test]
fn handles_arrive_with_rights_and_badge_and_move_only_when_asked() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = waiting_server(&mut machine, 0);
    let rights = Rights::READ | Rights::COPY;
    let gift = machine.install(client, Object::Space(client.space), rights);
    let tag = Tag::new(1).with_handles(1);
    let [w2, w3] = pack_handles([gift, Handle::NONE, Handle::NONE, Handle::NONE]);

    machine.set_words(client.thread, [1, 2, w2, w3]);
    assert!(
        machine
            .call(client, Call::Send, send, [0, tag.0, 0, 0, 0, 0])
            .is_none()
    );
    let got = machine.result(server.thread).unwrap().unwrap();
    let entry = machine
        .kernel
        .spaces
        .get(server.space)
        .unwrap()
        .handles
        .get(Handle(got.r14 as u32));
    assert_eq!(entry.unwrap().object, Object::Space(client.space));
    assert_eq!(entry.unwrap().rights, rights);
    assert_eq!(
        machine.kernel.spaces.get(client.space).unwrap().nr_handles,
        2
    );
    machine.ok(server, Call::Reply, Handle::NONE, [got.r8, 0, 0, 0, 0, 0]);

    machine.set_words(client.thread, [1, 2, w2, w3]);
    let moving = [0, tag.moving_handles().0, 0, 0, 0, 0];
    assert!(machine.call(client, Call::Send, send, moving).is_none());
    machine.ok(server, Call::Recv, receive, NOTHING);
    let table = &machine.kernel.spaces.get(client.space).unwrap().handles;
    assert_eq!(table.get(gift), Err(Error::BadHandle));
    machine.finish();
}

#[test]
fn a_handle_without_the_right_to_copy_stays_and_nothing_moves() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 0);
    let good = machine.install(
        client,
        Object::Space(client.space),
        Rights::READ | Rights::COPY,
    );
    let bad = machine.install(client, Object::Space(client.space), Rights::READ);
    let handles = machine
        .kernel
        .spaces
        .get(server.space)
        .unwrap()
        .handles
        .len();
    let [w2, w3] = pack_handles([good, bad, Handle::NONE, Handle::NONE]);
    machine.set_words(client.thread, [0, 0, w2, w3]);
    let tag = Tag::new(1).with_handles(2).moving_handles().0;
    let error = machine.error(client, Call::Send, send, [0, tag, 0, 0, 0, 0]);
    assert_eq!(error, Error::Denied);
    assert_eq!(
        machine
            .kernel
            .spaces
            .get(server.space)
            .unwrap()
            .handles
            .len(),
        handles
    );
    assert!(
        machine
            .kernel
            .spaces
            .get(client.space)
            .unwrap()
            .handles
            .get(good)
            .is_ok()
    );
    machine.finish();
}

#[test]
fn notifications_gather_and_come_before_messages() {
    let mut machine = Machine::new(256);
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 0b100);
    let entry = machine
        .kernel
        .spaces
        .get(client.space)
        .unwrap()
        .handles
        .get(send)
        .unwrap();
    let other = machine
        .kernel
        .install(client.space, entry.object, Rights::NOTIFY, 0b1)
        .unwrap();
    machine.ok(client, Call::Notify, send, NOTHING);
    machine.ok(client, Call::Notify, other, NOTHING);
    assert!(
        machine
            .call(client, Call::Send, send, [0, 3, 0, 0, 0, 0])
            .is_none()
    );

    let bits = machine.ok(server, Call::Recv, receive, NOTHING);
    assert_eq!(
        (kind(&bits), bits.r12, bits.r8),
        (MessageKind::Notification, 0b101, 0)
    );
    let message = machine.ok(server, Call::Recv, receive, NOTHING);
    assert_eq!(
        (kind(&message), Tag(message.rsi).label()),
        (MessageKind::Message, 3)
    );
    let flags = [0, 1, 0, 0, 0, 0];
    assert_eq!(
        machine.error(server, Call::Recv, receive, flags),
        Error::WouldBlock
    );
    machine.finish();
}

#[test]
fn overlapping_buffers_in_one_space_are_the_senders_error() {
    let mut machine = Machine::new(256);
    let (server, receive, _, _) = waiting_server(&mut machine, 8192);
    let second = machine
        .kernel
        .create_thread(server.space, None, 16)
        .unwrap();
    machine.kernel.start_thread(second, &START).unwrap();
    let twin = Program {
        space: server.space,
        thread: second,
    };
    let overlapping = [0, 0, BUFFER + 4095, 4096, 0, 0];
    assert_eq!(
        machine.error(twin, Call::Send, receive, overlapping),
        Error::Overlap
    );
    assert_eq!(machine.result(server.thread), None, "the receiver waits on");
    assert!(
        machine
            .call(twin, Call::Send, receive, [0, 0, BUFFER + 8192, 4096, 0, 0])
            .is_none()
    );
    assert_eq!(
        machine.read(server, BUFFER, 8),
        machine.read(server, BUFFER + 8192, 8)
    );
    machine.finish();
}

#[test]
fn running_out_of_frames_in_a_delivery_changes_nothing() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = waiting_server(&mut machine, 8192);
    // The server's page is shared, so a partial write to it needs a frame.
    let twin = machine.program();
    let tables = |machine: &Machine, program: Program| {
        std::ptr::from_ref(&machine.kernel.spaces.get(program.space).unwrap().table)
    };
    let (from, to) = (tables(&machine, server), tables(&machine, twin));
    // SAFETY: both spaces live on; the pointers only get around borrowing the machine.
    let (from, to) = unsafe { (&*from, &*to) };
    let mm = machine.kernel.mm;
    let sharing = crate::vm::Sharing {
        mm,
        dst: to,
        to: 0x4000_0000,
        src: from,
        from: BUFFER,
        len: 8192,
        mode: cowslip_abi::ShareMode::CopyOnWrite,
        perm: Some(Perm::RW),
    };
    sharing.share().unwrap();
    let mut taken = Vec::new();
    while let Some(frame) = mm.frames.alloc() {
        taken.push(frame);
    }
    let before = machine.read(server, BUFFER, 8192);

    let args = [0, 0, BUFFER + 1, 5000, 0, 0];
    assert_eq!(
        machine.error(client, Call::Send, send, args),
        Error::NoMemory
    );
    assert_eq!(machine.read(server, BUFFER, 8192), before);
    assert_eq!(mm.frames.free_count(), 0);
    assert_eq!(machine.result(server.thread), None, "the receiver waits on");

    taken.into_iter().for_each(|frame| mm.frames.free(frame));
    assert!(machine.call(client, Call::Send, send, args).is_none());
    assert!(machine.result(server.thread).is_some());
    machine.finish();
}
