//! The smallest server: adds two numbers. `adder &` starts it, `add 2 3` asks it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::{Endpoint, Message, Received, names};

libipc::program!(run);

fn run() -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    names::register("adder", &endpoint)?;
    loop {
        if let Received::Message(request) = endpoint.recv(&mut [])? {
            let [a, b, ..] = request.message.words;
            let sum = Message::new(0).with_words([a.wrapping_add(b)]);
            // A client that died meanwhile needs no answer.
            let _ = request.token.reply(sum, &[]);
        }
    }
}
