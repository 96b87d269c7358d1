//! Files and pipes: what is promised of them on the real system, where pages are shared, memory runs out, and processes die.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod pages;
mod streams;

use alloc::format;

use libipc::abi::Error as KernelError;
use libipc::fs::{self, File, Kind, Options, Read, Seek, SeekFrom, Write};
use libipc::services::files::{FilesClient, STDOUT, Whence};
use libipc::services::{Error, Refusal};
use libipc::{Message, println, process, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::peer::{child, expect_status, status_of, until};
use user_apps::scenario::rng::Rng;

use pages::*;
use streams::*;

user_apps::scenarios![
    what_is_written_is_read,
    a_program_uses_files_and_pipes,
    directories_are_made_listed_and_removed,
    a_removed_file_lives_until_it_is_closed,
    a_killed_process_leaves_nothing_open,
    the_numbers_of_others_are_nothing,
    a_forked_child_has_no_files_of_its_parent_s,
    one_process_does_not_take_all_the_room,
    nonsense_for_the_file_server,
    whole_pages_are_not_copied,
    what_was_read_stays_when_the_file_is_written,
    what_was_written_stays_when_the_writer_goes_on,
    a_large_file_is_read_in_a_few_frames,
    odd_places_and_lengths_are_right,
    untouched_pages_are_written_as_zeros,
    without_memory_requests_fail_and_nothing_changes,
    a_program_prints_into_a_pipe,
    a_program_reads_what_it_was_given,
    children_print_to_the_same_file,
    who_becomes_another_program_prints_on,
    an_exec_keeps_the_standard_streams,
    a_pipe_ends_with_its_writer,
    who_prints_for_nobody_ends,
    much_goes_through_a_pipe,
    a_program_of_one_s_own_is_never_an_old_one,
];

/// Removed when it is dropped, by whoever does that.
struct Scratch(&'static str);

impl Scratch {
    /// An empty file.
    fn new(path: &'static str) -> (Self, File) {
        let file = File::create(path).expect("create");
        (Scratch(path), file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove(self.0).expect("remove");
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::Refused(refusal)
}

fn what_is_written_is_read() {
    let (_scratch, mut file) = Scratch::new("/f");
    file.write_all(b"hello world").expect("write");
    let mut buffer = [0; 20];
    assert_eq!(file.read(&mut buffer), Ok(0));
    assert_eq!(file.seek(SeekFrom::End(-5)), Ok(6));
    assert_eq!(file.read(&mut buffer), Ok(5));
    assert_eq!(buffer[..5], *b"world");
    let mut end = File::append("/f").expect("append");
    end.write_all(b"!").expect("write");
    assert_eq!(file.read(&mut buffer), Ok(1));
    assert_eq!(fs::metadata("f").map(|found| found.size), Ok(12));
    file.set_len(5).expect("set_len");
    assert_eq!(file.read_at(0, &mut buffer), Ok(5));
    assert_err(end.read(&mut buffer), refused(Refusal::Denied));
    let exclusive = Options::WRITE | Options::CREATE | Options::EXCLUSIVE;
    let taken = File::open_with("/f", exclusive).map(|_| ());
    assert_err(taken, refused(Refusal::Taken));
}

fn a_program_uses_files_and_pipes() {
    assert_eq!(use_files_and_pipes(), Ok(()));
    fs::remove("/notes").expect("remove");
}

fn use_files_and_pipes() -> Result<(), Error> {
    let mut buffer = [0; 16];
    let mut file = File::create("/notes")?; // open, create, append, or open_with(path, options)
    file.write_all(b"two words\n")?;
    file.seek(SeekFrom::Start(4))?;
    let len = file.read(&mut buffer)?; // from the place where the last one ended
    assert_eq!(buffer[..len], *b"words\n");
    let len = file.read_at(0, &mut buffer)?; // from any place
    assert_eq!(buffer[..len], *b"two words\n");
    let (mut reader, mut writer) = fs::pipe()?;
    writer.write_all(b"through")?;
    let len = reader.read(&mut buffer)?;
    assert_eq!(buffer[..len], *b"through");
    let mut is_listed = false;
    fs::read_dir("/", |entry| {
        println!("{}", entry.name);
        is_listed |= entry.name == "notes";
        Ok::<_, Error>(())
    })?;
    assert!(is_listed);
    Ok(())
}

fn directories_are_made_listed_and_removed() {
    fs::create_dir("/d").expect("create_dir");
    for number in 0..40 {
        let path = format!("/d/a rather long name, so that some requests are needed {number:02}");
        File::create(&path).expect("create");
    }
    assert_err(fs::remove("/d"), refused(Refusal::NotEmpty));
    fs::rename("/d", "/e").expect("rename");
    let mut seen = 0;
    let mut names = alloc::vec::Vec::new();
    fs::read_dir("/e", |entry| {
        assert_eq!(entry.kind, Kind::File);
        assert!(entry.name.ends_with(&format!(" {seen:02}")));
        seen += 1;
        names.push(format!("/e/{}", entry.name));
        Ok::<_, Error>(())
    })
    .expect("read_dir");
    assert_eq!(seen, 40);
    for name in names {
        fs::remove(&name).expect("remove");
    }
    fs::remove("/e").expect("remove");
    assert_err(fs::create_dir("/bin/x"), refused(Refusal::ReadOnly));
    assert_err(fs::remove("/bin/hello"), refused(Refusal::ReadOnly));
}

fn a_removed_file_lives_until_it_is_closed() {
    assert_exact(|| {
        let (scratch, file) = Scratch::new("/f");
        file.write_at(0, &[7; 100_000]).expect("write");
        drop(scratch);
        assert_err(fs::metadata("/f"), refused(Refusal::NotFound));
        let mut byte = [0];
        assert_eq!(file.read_at(99_999, &mut byte), Ok(1));
        assert_eq!(byte, [7]);
    });
}

/// Also a file that has no path any more.
fn a_killed_process_leaves_nothing_open() {
    assert_exact(|| {
        let (scratch, file) = Scratch::new("/held");
        let (input, mut feed) = fs::pipe().expect("pipe");
        let streams = fs::streams(Some(&input), Some(&file));
        let class = libipc::Commit::Overcommit;
        let pid = process::spawn_between(class, streams, "/bin/cat", &[]).expect("spawn");
        drop(input);
        feed.write_all(b"x").expect("write");
        until("a byte in the file", || {
            file.metadata().is_ok_and(|found| found.size == 1)
        });
        drop((scratch, file));
        process::kill(pid).expect("kill");
        assert_eq!(status_of(pid), 137);
        assert_err(feed.write(b"x"), refused(Refusal::ReaderGone));
    });
}

fn the_numbers_of_others_are_nothing() {
    let (_scratch, file) = Scratch::new("/f");
    file.write_at(0, b"private").expect("write");
    let id = file.id();
    expect_status(0, move || {
        let files = FilesClient::borrow(start::files());
        for id in 0..=id {
            let not_open = refused(Refusal::NotOpen);
            assert_err(files.read_at(id, 0, 8, &mut [0; 8]), not_open);
            assert_err(files.write_at(id, 0, b"x"), not_open);
            assert_err(files.seek(id, Whence::Start, 0), not_open);
            assert_err(files.close(id), not_open);
        }
        let denied = refused(Refusal::Denied);
        assert_err(files.forget(libipc::getppid()), denied);
        let given = files.hand_down(libipc::getppid(), libipc::getpid(), id, id);
        assert_err(given, denied);
        0
    });
    assert_eq!(file.read_at(0, &mut [0; 8]), Ok(7));
}

fn a_forked_child_has_no_files_of_its_parent_s() {
    let (_scratch, mut file) = Scratch::new("/f");
    let pid = child(|| {
        assert_eq!(file.id(), 0);
        assert_err(file.write(b"x"), refused(Refusal::NotOpen));
        // One of its own, which may have the same number.
        let mut own = File::append("/f").expect("append");
        own.write_all(b"own").expect("write");
        drop(core::mem::replace(&mut file, own));
        0
    });
    assert_eq!(status_of(pid), 0);
    assert_eq!(file.metadata().map(|found| found.size), Ok(3));
}

fn one_process_does_not_take_all_the_room() {
    let (_scratch, file) = Scratch::new("/f");
    let total = user_apps::scenario::frames::counters().total * 4096;
    // Nothing of it is touched: what counts is how long the file is.
    let share = (total / 4 - (1 << 20)).min(1 << 30);
    file.set_len(share).expect("set_len");
    let other = File::create("/g").expect("create");
    let _other = Scratch("/g");
    assert_err(other.set_len(1 << 30), refused(Refusal::NoSpace));
    assert_eq!(other.metadata().map(|found| found.size), Ok(0));
    let mut open = alloc::vec::Vec::new();
    let full = loop {
        match File::open("/f") {
            Ok(file) => open.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(full, refused(Refusal::Full));
}

fn nonsense_for_the_file_server() {
    let files = FilesClient::borrow(start::files());
    let mut rng = Rng::new(3);
    let first = FilesClient::OPEN;
    let last = FilesClient::FORGET;
    let mut reply = [0; 64];
    for _ in 0..2000 {
        // Reads and writes of standard streams could wait: there are none.
        let label = first + rng.below(u64::from(last - first) + 1) as u32;
        let words = core::array::from_fn::<u64, 4, _>(|_| match rng.one_in(2) {
            true => rng.word(),
            false => rng.below(8),
        });
        let len = rng.below(64) as usize;
        let bytes: [u8; 64] = core::array::from_fn(|_| b"/.ab\0\xff"[rng.below(6) as usize]);
        let message = Message::new(label).with_words(words);
        let sent = files.as_endpoint().send(message, &bytes[..len], &mut reply);
        assert!(!matches!(sent, Err(KernelError::Died)));
    }
    // What it has made is gone with this process, but for what has a path.
    let mut names = alloc::vec::Vec::new();
    fs::read_dir("/", |entry| {
        names.push(format!("/{}", entry.name));
        Ok::<_, Error>(())
    })
    .expect("read_dir");
    for name in names {
        let _ = fs::remove(&name);
    }
    let written = files.write(STDOUT, b"x");
    assert_err(written, refused(Refusal::NotOpen));
}
