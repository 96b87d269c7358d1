//! A pipe: `pipe &` serves it; `pipe write TEXT`, `pipe read` and `pipe close` use it.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;

use libipc::{PageBuffer, println, start};
use user_apps::pipe::{PipeClient, PipeServer, Queue};

libipc::program!(run);

fn run() -> Result<i32, Box<dyn Error>> {
    let mut args = start::args().skip(1);
    match [(); 2].map(|()| args.next()) {
        [None, _] => libipc::serve("pipe", PipeServer::new(Queue::default()))?,
        [Some("write"), Some(text)] => {
            let pages = PageBuffer::copy_of(text.as_bytes())?;
            PipeClient::connect("pipe")?.write(pages)?;
        }
        [Some("read"), None] => {
            let pages = PipeClient::connect("pipe")?.read()?;
            println!("{}", core::str::from_utf8(&pages)?);
        }
        [Some("close"), None] => PipeClient::connect("pipe")?.close()?,
        _ => {
            println!("pipe [write TEXT | read | close]");
            return Ok(2);
        }
    }
    Ok(0)
}
