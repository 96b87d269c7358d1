//! The servers of Cowslip: what they do, apart from how they are asked.
//!
//! Each server is a pure core that host tests drive, a [`Service`](libipc::server::Service) around
//! it that speaks its protocol, and a file in `src/bin` that gives it its handles and its loop.
//! Tables have fixed sizes: what clients ask for never makes a server grow. Files do, within limits.
//!
//! | server | has | does |
//! | --- | --- | --- |
//! | [`init`] | everything | starts the others, then the shell or one program; ends the machine |
//! | [`console`] | ports and interrupt of COM1 | text out, edited lines in |
//! | [`files`] | the boot archive; the counters | files, directories, pipes |
//! | [`memstat`] | the counters | passes them on |
//! | [`names`] | nothing | endpoints by name |
//! | [`procd`] | the right to create spaces | processes |
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod archive;
pub mod console;
pub mod files;
pub mod init;
pub mod loader;
pub mod memstat;
pub mod names;
pub mod procd;

/// Tells a kernel that traces that the program at this path is about to run in a space. Servers that are built for other kernels do
/// not even try.
#[inline(always)]
fn tell_name(space: &libipc::Space, path: &str) {
    #[cfg(feature = "trace")]
    // It is for those who look from outside; a kernel without traces refuses.
    let _ = space.set_name(libipc::fs::file_name(path));
    let _ = (space, path);
}
