//! A server that looks at messages itself, and a client that knows what they consist of.

use core::convert::Infallible;

use libipc::message::Received;
use libipc::services::Error;
use libipc::{Endpoint, Message, names};
use user_apps::scenario::peer::{child, until};
use user_apps::scenario::server::kill;

/// Adds the first two words of each message.
fn serve() -> Result<Infallible, Error> {
    let endpoint = Endpoint::create()?;
    names::register("by hand", &endpoint)?;
    loop {
        if let Received::Message(request) = endpoint.recv(&mut [])? {
            let [a, b, ..] = request.message.words;
            let sum = Message::new(0).with_words([a.wrapping_add(b)]);
            // A client that died meanwhile needs no answer.
            let _ = request.token.reply(sum, &[]);
        }
    }
}

pub(crate) fn a_server_can_be_written_by_hand() {
    let pid = child(|| i32::from(serve().is_err()));
    until("the server's name", || names::lookup("by hand").is_ok());
    let server = names::lookup("by hand").expect("lookup");
    let sum = server.call(Message::new(7).with_words([2, 3]));
    assert_eq!(sum.expect("call").words[0], 5);
    kill(pid);
}
