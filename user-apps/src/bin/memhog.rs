//! Takes memory and touches it: `memhog [MiB]`, 16 if not told otherwise.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::services::memstat::MemstatClient;
use libipc::{PAGE_SIZE, PageBuffer, println, start};

libipc::program!(run);

fn run() -> Result<(), Error> {
    let mib: usize = start::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(16);
    let pages = mib * (1 << 20) / PAGE_SIZE;
    show("before")?;
    let mut memory = PageBuffer::new(pages * PAGE_SIZE)?;
    show("reserved")?;
    for page in memory.chunks_mut(PAGE_SIZE) {
        page[0] = 1;
    }
    show("touched")?;
    drop(memory);
    show("given back")?;
    Ok(())
}

fn show(when: &str) -> Result<(), Error> {
    let free = MemstatClient::borrow(start::memstat()).query()?.free;
    println!("{when:>10}: {free:>8} frames free");
    Ok(())
}
