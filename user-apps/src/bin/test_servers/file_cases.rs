//! The file server: contents, offsets, directories.

use super::*;
use libipc::fs;
use libipc::service::Mismatch;
use libipc::services::files::FilesClient;
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
        assert_eq!(fs::metadata(spelling), fs::metadata(OWN_PATH));
    }
    let symbols = read_all("/boot/kernel.sym");
    assert!(symbols.starts_with(b"ffffffff8"), "kernel symbols");
}

pub(crate) fn files_are_read_from_any_offset() {
    let whole = read_all(OWN_PATH);
    let file = File::open(OWN_PATH).expect("open");
    let mut rng = Rng::new(2);
    let mut buffer = PageBuffer::new(5 * PAGE_SIZE).expect("buffer");
    for _ in 0..200 {
        let offset = rng.below(whole.len() as u64 + 100) as usize;
        let wanted = rng.below(5 * PAGE_SIZE as u64) as usize;
        let expected = wanted.min(whole.len().saturating_sub(offset));
        buffer.fill(0xee);
        assert_eq!(
            file.read_at(offset as u64, &mut buffer[..wanted]),
            Ok(expected)
        );
        assert!(expected == 0 || buffer[..expected] == whole[offset..offset + expected]);
        assert!(buffer[expected..].iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(file.read_at(u64::MAX, &mut buffer), Ok(0));
}

pub(crate) fn files_that_are_not_there_are_refused() {
    let refused = |path, refusal| {
        assert_err(File::open(path).map(|_| ()), Error::Refused(refusal));
    };
    refused("/bin/nothing", Refusal::NotFound);
    refused("/bin/test_server", Refusal::NotFound);
    refused("", Refusal::IsDirectory);
    refused("/bin", Refusal::IsDirectory);
    refused("/bin/test_servers/x", Refusal::NotDirectory);
    let long = [b'x'; 600];
    let long = |len| core::str::from_utf8(&long[..len]).expect("ASCII");
    refused(long(300), Refusal::BadRequest);
    let malformed = Error::Mismatch(Mismatch::Malformed);
    assert_err(File::open(long(600)).map(|_| ()), malformed);
    let files = FilesClient::borrow(start::files());
    for number in [0, 3, 63, u32::MAX] {
        let read = files.read_at(number, 0, 8, &mut [0; 8]);
        assert_err(read, Error::Refused(Refusal::NotOpen));
    }
}

pub(crate) fn directories_are_listed() {
    let mut found = 0;
    fs::read_dir("/bin", |entry| {
        let size = fs::metadata(&alloc::format!("/bin/{}", entry.name))?.size;
        assert_eq!(entry.size, size);
        found += usize::from(["test_servers", "hello"].contains(&entry.name));
        Ok::<_, Error>(())
    })
    .expect("list");
    assert_eq!(found, 2);
    let nothing = fs::read_dir("/nothing", |_| Ok::<_, Error>(()));
    assert_err(nothing, Error::Refused(Refusal::NotFound));
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
