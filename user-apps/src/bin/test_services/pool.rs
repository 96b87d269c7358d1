//! Several threads that serve one endpoint.

use core::convert::Infallible;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libipc::server::{Answer, serve_by};
use libipc::service::Reply;
use libipc::{Endpoint, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::peer::{join, thread, until};

/// Where several threads are at a time.
#[libipc::service(version = 1)]
trait Hall {
    /// Waits in the server until so many are inside.
    fn meet(&self, nr_guests: u64) -> u64;
    /// Ends the server.
    fn stop(&self, reply: Reply<(), Infallible>) -> Option<Answer<'_>>;
}

#[derive(Default)]
struct State {
    guests: AtomicU64,
    is_done: AtomicBool,
}

impl Hall for State {
    fn meet(&self, nr_guests: u64) -> u64 {
        self.guests.fetch_add(1, Ordering::SeqCst);
        until("guests", || self.guests.load(Ordering::SeqCst) >= nr_guests);
        nr_guests
    }

    fn stop(&self, reply: Reply<(), Infallible>) -> Option<Answer<'_>> {
        self.is_done.store(true, Ordering::SeqCst);
        let _ = reply.send(Ok(()));
        None
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::SeqCst)
    }
}

/// Serves with so many threads until as many clients have met.
fn meet(nr_threads: u64) {
    let endpoint = Endpoint::create().expect("endpoint");
    let client = || {
        let sender = endpoint.copy(Rights::SEND | Rights::COPY, 0);
        HallClient::new(sender.expect("copy"))
    };
    let guests: [_; 4] = core::array::from_fn(|i| {
        let client = client();
        (i as u64 > 0 && (i as u64) < nr_threads)
            .then(|| thread(move || assert_eq!(client.meet(nr_threads), Ok(nr_threads))))
    });
    let last = client();
    let host = thread(move || {
        assert_eq!(last.meet(nr_threads), Ok(nr_threads));
        assert_eq!(last.stop(), Ok(()));
    });
    let state = State::default();
    let served = serve_by(nr_threads as usize, &endpoint, || HallServer::new(&state));
    assert_eq!(served, Ok(()));
    guests.into_iter().flatten().for_each(join);
    join(host);
}

pub(crate) fn a_pool_serves_several_requests_at_a_time() {
    assert_exact(|| meet(4));
}

pub(crate) fn a_pool_of_one_or_none() {
    meet(1);
    let endpoint = Endpoint::create().expect("endpoint");
    let state = State::default();
    for nr_threads in [0, 65] {
        let served = serve_by(nr_threads, &endpoint, || HallServer::new(&state));
        assert_err(served, libipc::Error::BadArgument);
    }
}
