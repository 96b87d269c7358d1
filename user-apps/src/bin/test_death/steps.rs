//! Messages that take many steps: others run in between, and kill wins.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::abi::ThreadState;
use libipc::thread::{Running, Supervisor};
use libipc::{Endpoint, Message, PageBuffer, Received};
use user_apps::scenario::cpus;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::peek;
use user_apps::scenario::peer::{rest_until, thread_with};

use crate::endpoint;

/// What the client's memory is full of.
const MARK: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// A priority below that of the thread that looks on.
const LOW: u8 = 8;
/// So many bytes take long; they do not lie alike on both sides, so they are copied.
const LEN: usize = 16 << 20;
const FROM: usize = 1;

/// How many bytes the server has received.
static RECEIVED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn lesson_20_a_long_message_lets_others_run_and_kill_wins() {
    // Who looks on comes between two steps.
    cpus::stay_on_one();
    assert_exact(|| {
        let service = endpoint();
        for kills_server in [false, true] {
            // They outlive the threads, which do not live to drop them.
            let [mut data, mut buffer] = [(); 2].map(|()| PageBuffer::new(LEN).expect("buffer"));
            data.fill(MARK as u8);
            buffer.fill(0);
            let server = server(&service, buffer.addr());
            rest_until("the receiver", || state(&server) == ThreadState::Receiving);
            let client = client(&service, data.addr());
            rest_until("the first step", || peek(buffer.addr()) == MARK);
            let last = peek(buffer.addr() + LEN as u64 - 16);
            assert_ne!(last, MARK, "all of it came at once");
            assert_eq!(state(&client), ThreadState::Runnable);
            if kills_server {
                // The message waits for another one who receives.
                server.thread().kill().expect("kill");
                rest_until("the sender", || state(&client) == ThreadState::Sending);
            } else {
                client.thread().kill().expect("kill");
                rest_until("the receiver", || state(&server) == ThreadState::Receiving);
                service.send(Message::new(1), &[7], &mut []).expect("send");
                assert_eq!(RECEIVED.load(SeqCst), 1);
            }
        }
    });
}

/// Receives and answers.
fn server(service: &Endpoint, buffer: u64) -> Running {
    let service = service.handle();
    thread_with(LOW, Supervisor::Nobody, move || {
        // SAFETY: the buffer outlives the thread, and who looks into it meanwhile does so by `peek`.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer as *mut u8, LEN) };
        while let Ok(Received::Message(incoming)) = Endpoint::borrow(service).recv(buffer) {
            RECEIVED.store(incoming.len as u64, SeqCst);
            let _ = incoming.token.reply(Message::new(0), &[]);
        }
    })
}

fn client(service: &Endpoint, data: u64) -> Running {
    let service = service.handle();
    thread_with(LOW, Supervisor::Nobody, move || {
        // SAFETY: the data outlives the thread, and nobody writes to it.
        let data = unsafe { core::slice::from_raw_parts(data as *const u8, LEN) };
        let _ = Endpoint::borrow(service).send(Message::new(0), &data[FROM..], &mut []);
    })
}

fn state(thread: &Running) -> ThreadState {
    thread.thread().info().expect("info").state
}
