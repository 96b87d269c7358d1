//! Contents as pages: shared, not copied, and never seen to change.

use super::*;
use libipc::{PAGE_SIZE, PageBuffer, Space};
use user_apps::scenario::frames::{available, counters};
use user_apps::scenario::memory::{fill, give_all_back, mismatch, take_all};

const MIB: usize = 1 << 20;

pub(crate) fn whole_pages_are_not_copied() {
    let (_scratch, file) = Scratch::new("/f");
    let mut buffer = PageBuffer::new(MIB).expect("buffer");
    fill(&mut buffer, 1);
    let before = counters();
    file.write_at(0, &buffer).expect("write");
    let mut back = PageBuffer::new(MIB).expect("buffer");
    assert_eq!(file.read_at(0, &mut back), Ok(MIB));
    let after = counters();
    assert_eq!(mismatch(&back, 1), None);
    // Three times 256 pages have moved, and some bytes of small messages.
    assert!(after.copied - before.copied < 16, "pages copied");
    assert!(before.available() - after.available() < 16, "frames taken");
    // What does not begin at a page is copied, and right.
    assert_eq!(file.read_at(1, &mut back), Ok(MIB - 1));
    assert_eq!(back[..MIB - 1], buffer[1..]);
}

pub(crate) fn what_was_read_stays_when_the_file_is_written() {
    let (_scratch, file) = Scratch::new("/f");
    let mut buffer = PageBuffer::new(4 * MIB).expect("buffer");
    fill(&mut buffer, 1);
    file.write_at(0, &buffer).expect("write");
    let mut snapshot = PageBuffer::new(4 * MIB).expect("buffer");
    assert_eq!(file.read_at(0, &mut snapshot), Ok(4 * MIB));
    fill(&mut buffer, 2);
    file.write_at(0, &buffer).expect("write");
    file.write_at(4097, b"a few bytes").expect("write");
    assert_eq!(mismatch(&snapshot, 1), None);
    // And the file, when what was read is written to.
    snapshot.fill(0);
    assert_eq!(file.read_at(0, &mut snapshot), Ok(4 * MIB));
    assert_eq!(snapshot[4097..4108], *b"a few bytes");
    file.set_len(0).expect("set_len");
    assert_eq!(snapshot[4097..4108], *b"a few bytes");
}

pub(crate) fn what_was_written_stays_when_the_writer_goes_on() {
    let (_scratch, file) = Scratch::new("/f");
    let mut buffer = PageBuffer::new(3 * MIB).expect("buffer");
    fill(&mut buffer, 1);
    file.write_at(0, &buffer).expect("write");
    buffer.fill(0);
    assert_eq!(file.read_at(0, &mut buffer), Ok(3 * MIB));
    assert_eq!(mismatch(&buffer, 1), None);
    // So it does when the writer has gone.
    expect_status(0, || {
        let file = File::create("/f").expect("create");
        let mut buffer = PageBuffer::new(MIB).expect("buffer");
        fill(&mut buffer, 3);
        file.write_at(0, &buffer).expect("write");
        0
    });
    assert_eq!(file.read_at(0, &mut buffer), Ok(MIB));
    assert_eq!(mismatch(&buffer[..MIB], 3), None);
}

pub(crate) fn a_large_file_is_read_in_a_few_frames() {
    const LEN: usize = 16 * MIB;
    let (_scratch, file) = Scratch::new("/f");
    let mut piece = PageBuffer::new(2 * MIB).expect("buffer");
    // Four pieces that were written, and a hole behind each.
    for at in (0..LEN).step_by(4 * MIB) {
        fill(&mut piece, at as u64);
        file.write_at(at as u64, &piece).expect("write");
    }
    file.set_len(LEN as u64).expect("set_len");
    let mut buffer = PageBuffer::new(LEN).expect("buffer");
    let before = available();
    assert_eq!(file.read_at(0, &mut buffer), Ok(LEN));
    assert!(before - available() < 64, "frames taken");
    for at in (0..LEN).step_by(4 * MIB) {
        assert_eq!(mismatch(&buffer[at..at + 2 * MIB], at as u64), None);
        assert_eq!(buffer[at + 2 * MIB], 0);
    }
}

pub(crate) fn odd_places_and_lengths_are_right() {
    const LEN: usize = 20 * PAGE_SIZE;
    let (_scratch, file) = Scratch::new("/f");
    let mut model = alloc::vec![0; LEN];
    let mut buffer = PageBuffer::new(LEN).expect("buffer");
    let mut rng = Rng::new(9);
    file.set_len(LEN as u64).expect("set_len");
    for round in 0..300 {
        let at = rng.below(LEN as u64) as usize;
        let at = if rng.one_in(2) { at & !0xfff } else { at };
        let len = rng.below((LEN - at) as u64 + 1) as usize;
        let start = if rng.one_in(2) { 0 } else { at % PAGE_SIZE };
        let len = len.min(LEN - start);
        fill(&mut buffer[start..start + len], round);
        file.write_at(at as u64, &buffer[start..start + len])
            .expect("write");
        model[at..at + len].copy_from_slice(&buffer[start..start + len]);
        let at = rng.below(LEN as u64) as usize;
        let len = rng.below((LEN - at) as u64 + 1) as usize;
        assert_eq!(file.read_at(at as u64, &mut buffer[..len]), Ok(len));
        assert!(buffer[..len] == model[at..at + len]);
    }
}

/// Pages that have no frame on the way there, and get none.
pub(crate) fn untouched_pages_are_written_as_zeros() {
    let (_scratch, file) = Scratch::new("/f");
    let buffer = PageBuffer::new(2 * MIB).expect("buffer");
    let before = available();
    file.write_at(0, &buffer).expect("write");
    assert!(before - available() < 16, "frames taken");
    let mut back = PageBuffer::new(2 * MIB).expect("buffer");
    assert_eq!(file.read_at(0, &mut back), Ok(2 * MIB));
    assert!(back.iter().all(|&byte| byte == 0));
    // As a path they are none, and nobody looks at them.
    let files = FilesClient::borrow(start::files());
    let open = Message::new(FilesClient::OPEN).with_words([1]);
    let sent = files.as_endpoint().send(open, &buffer, &mut []);
    let label = sent.expect("send").reply.label();
    let malformed = libipc::service::Mismatch::Malformed;
    assert_eq!(libipc::service::mismatch(label), Some(malformed));
}

pub(crate) fn without_memory_requests_fail_and_nothing_changes() {
    let own = Space::own();
    let (_scratch, file) = Scratch::new("/f");
    file.write_at(0, b"here to stay").expect("write");
    let bytes = [1; 3000];
    let mut read = [0; 12];
    let nr_pages = take_all(&own);
    // Reads that take no frame go on, and writes to pages that are there.
    assert_eq!(file.read_at(0, &mut read), Ok(12));
    let mut outcomes = [Ok(()); 4];
    let mut place = 4096;
    for outcome in &mut outcomes {
        *outcome = file.write_at(place, &bytes);
        place += 100_000;
    }
    let created = File::create("/g").map(drop);
    let piped = fs::pipe().and_then(|(_reader, mut writer)| writer.write(b"x"));
    give_all_back(&own, nr_pages);
    let no_memory = |error: &Error| {
        matches!(
            error,
            Error::Kernel(KernelError::NoMemory) | Error::Refused(Refusal::NoMemory)
        )
    };
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.is_err_and(|error| no_memory(&error)))
    );
    assert!(piped.is_err_and(|error| no_memory(&error)));
    if created.is_ok() {
        fs::remove("/g").expect("remove");
    }
    assert_eq!(file.metadata().map(|found| found.size), Ok(12));
    assert_eq!(file.read_at(0, &mut read), Ok(12));
    assert_eq!(read, *b"here to stay");
    file.write_at(4096, &bytes).expect("write");
}
