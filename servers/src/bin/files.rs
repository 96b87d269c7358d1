//! The file server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::files::{FilesServer, MAX_PATH};
use libipc::{Endpoint, server, start};
use servers::files::Files;

libipc::program!(run);

fn run() -> Result<(), libipc::Error> {
    let (archive, len) = (start::archive(), start::archive_len());
    // SAFETY: init mapped the archive there, read-only, for good.
    let bytes = unsafe { core::slice::from_raw_parts(archive as *const u8, len as usize) };
    let inbox = Endpoint::borrow(start::inbox());
    let mut files = FilesServer::new(Files::new(bytes));
    server::serve_into(&inbox, &mut [0; MAX_PATH], &mut files)
}
