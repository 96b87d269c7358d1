//! The file server: contents, offsets, directories.

use super::*;
use libipc::service::Mismatch;
use libipc::services::files::{File, FilesClient};
use libipc::services::{Error, Refusal};
use libipc::{PAGE_SIZE, PageBuffer, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::peer::expect_status;
use user_apps::scenario::rng::Rng;

pub(crate) fn files_are_found_and_read() {
    let own = read_all(OWN_PATH);
    assert_eq!(own[..4], *b"\x7fELF");
    assert!(own.len() > 10_000);
    for spelling in [
        "bin/test_servers",
        "//bin//test_servers",
        "/bin/./test_servers",
    ] {
        assert_eq!(open(spelling), open(OWN_PATH));
    }
    let symbols = read_all("/boot/kernel.sym");
    assert!(symbols.starts_with(b"ffffffff8"), "kernel symbols");
}

pub(crate) fn files_are_read_from_any_offset() {
    let whole = read_all(OWN_PATH);
    let file = open(OWN_PATH);
    let files = FilesClient::borrow(start::files());
    let mut rng = Rng::new(2);
    let mut buffer = PageBuffer::new(5 * PAGE_SIZE).expect("buffer");
    for _ in 0..200 {
        let offset = rng.below(file.size as u64 + 100) as usize;
        let wanted = rng.below(5 * PAGE_SIZE as u64) as usize;
        let expected = wanted.min(file.size.saturating_sub(offset));
        buffer.fill(0xee);
        assert_eq!(
            files.read_at(file, offset, &mut buffer[..wanted]),
            Ok(expected)
        );
        assert!(expected == 0 || buffer[..expected] == whole[offset..offset + expected]);
        assert!(buffer[expected..].iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(files.read_at(file, usize::MAX, &mut buffer), Ok(0));
}

pub(crate) fn files_that_are_not_there_are_refused() {
    let files = FilesClient::borrow(start::files());
    for path in [
        "/bin/nothing",
        "",
        "/",
        "/bin",
        "/bin/test_servers/x",
        "/bin/test_server",
    ] {
        assert_err(files.open(path), Error::Refused(Refusal::NotFound));
    }
    let long = [b'x'; 200];
    let long = core::str::from_utf8(&long).expect("ASCII");
    let up = files.open("/bin/../bin/test_servers");
    assert_err(up, Error::Refused(Refusal::BadRequest));
    assert_err(files.open(long), Error::Mismatch(Mismatch::Malformed));
    let mut buffer = [0; 8];
    for number in [100_000, u64::MAX] {
        let file = File { number, size: 8 };
        let read = files.read_at(file, 0, &mut buffer);
        assert_err(read, Error::Refused(Refusal::NotFound));
    }
}

pub(crate) fn directories_are_listed() {
    let files = FilesClient::borrow(start::files());
    let mut buffer = [0; 64];
    let mut skip = 0;
    let mut found = 0;
    loop {
        let (count, len) = files.list_into("/bin", skip, &mut buffer).expect("list");
        if count == 0 {
            break;
        }
        let names = buffer[..len]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty());
        for name in names {
            skip += 1;
            found += usize::from(name == b"test_servers" || name == b"hello");
        }
    }
    assert_eq!(found, 2);
    assert_eq!(files.list_into("/nothing", 0, &mut buffer), Ok((0, 0)));
}

/// Text that runs and text in the file are the same bytes.
pub(crate) fn the_programs_text_is_what_the_file_says() {
    let file = read_all(OWN_PATH);
    let here = the_programs_text_is_what_the_file_says as *const () as usize;
    // SAFETY: the function's first bytes are mapped and readable.
    let text = unsafe { core::slice::from_raw_parts(here as *const u8, 64) };
    assert!(file.windows(text.len()).any(|window| window == text));
}

pub(crate) fn writing_to_a_read_file_changes_no_file() {
    let mut first = read_all(OWN_PATH);
    first.fill(0);
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
    expect_status(0, || {
        read_all(OWN_PATH).fill(1);
        0
    });
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
    drop(first);
}
