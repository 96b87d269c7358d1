//! The file server: the boot archive, read-only.
//!
//! `cargo xtask` makes the archive so that programs begin at page boundaries: the kernel gives them to
//! readers page by page, copy-on-write, right from the frames that the loader put them in. Files of an archive that
//! was made otherwise are read as well, but copied.

use libipc::message::{Incoming, Message};
use libipc::server::{Answer, Service};
use libipc::services::Refusal;
use libipc::services::files::{LIST, OPEN, READ};

use crate::archive::{Path, entries};

/// Most files.
const MAX_FILES: usize = 256;

/// Bytes of names in one reply.
const LISTING: usize = 2048;

struct File {
    path: Path,
    data: &'static [u8],
}

/// The file server.
pub struct Files {
    table: heapless::Vec<File, MAX_FILES>,
    listing: [u8; LISTING],
}

impl Files {
    /// A server of the files of an archive. Files beyond the table's size are left out.
    #[must_use]
    pub fn new(archive: &'static [u8]) -> Self {
        let files = entries(archive).map(|(path, data)| File { path, data });
        Files {
            table: files.take(MAX_FILES).collect(),
            listing: [0; LISTING],
        }
    }

    fn open(&self, path: &[u8]) -> Result<Message, Refusal> {
        let path = parse(path)?;
        let number = self.table.iter().position(|file| file.path == path);
        let number = number.ok_or(Refusal::NotFound)?;
        Ok(Message::new(0).with_words([number as u64, self.table[number].data.len() as u64]))
    }

    fn read(&self, number: u64, offset: u64, count: u64) -> Result<&[u8], Refusal> {
        let number = usize::try_from(number).map_err(|_| Refusal::NotFound)?;
        let data = self.table.get(number).ok_or(Refusal::NotFound)?.data;
        let from = usize::try_from(offset).map_or(data.len(), |offset| offset.min(data.len()));
        let rest = &data[from..];
        let count = usize::try_from(count).map_or(rest.len(), |count| count.min(rest.len()));
        Ok(&rest[..count])
    }

    /// Fills the listing; returns the number of names and bytes.
    fn list(&mut self, directory: &[u8], skip: u64, room: u64) -> Result<(u64, usize), Refusal> {
        let directory = parse(directory)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let room = usize::try_from(room).map_or(LISTING, |room| room.min(LISTING));
        let (mut count, mut len) = (0, 0);
        let table = &self.table;
        let names = table.iter().enumerate().filter_map(|(i, file)| {
            let name = directory.child(&file.path)?;
            let seen = table[..i]
                .iter()
                .any(|other| directory.child(&other.path) == Some(name));
            (!seen).then_some(name)
        });
        for name in names.skip(skip) {
            let end = len + name.len();
            if end >= room {
                break;
            }
            self.listing[len..end].copy_from_slice(name.as_bytes());
            self.listing[end] = 0;
            (count, len) = (count + 1, end + 1);
        }
        Ok((count, len))
    }
}

fn parse(path: &[u8]) -> Result<Path, Refusal> {
    core::str::from_utf8(path)
        .ok()
        .and_then(Path::new)
        .ok_or(Refusal::BadRequest)
}

impl Service for Files {
    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>> {
        let Incoming {
            message,
            token,
            len,
            true_len,
            ..
        } = incoming;
        if len < true_len {
            return token.answer(Refusal::BadRequest.message());
        }
        let [first, second, third, _] = message.words;
        let result = match message.label() {
            OPEN => self.open(data).map(|message| (message, &[][..])),
            READ => self
                .read(first, second, third)
                .map(|bytes| (Message::new(0), bytes)),
            LIST => self
                .list(data, first, second)
                .map(|(count, len)| (Message::new(0).with_words([count]), &self.listing[..len])),
            _ => Err(Refusal::BadRequest),
        };
        match result {
            Ok((message, data)) => token.answer_with(message, data),
            Err(refusal) => token.answer(refusal.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::services::files as client;
    use libipc::{Endpoint, Handle, fake};

    use super::*;
    use crate::archive::tests::tar;

    fn files() -> libipc::Borrowed<'static, Endpoint> {
        let big = vec![7; 5000];
        let archive = tar(&[("bin/a", b"one"), ("./bin/big", &big), ("boot/x", b"")]);
        fake::serve(
            Handle(1),
            1,
            Rc::new(RefCell::new(Files::new(archive.leak()))),
        );
        Endpoint::borrow(Handle(1))
    }

    #[test]
    fn files_are_read_in_pieces() {
        let files = files();
        let big = client::open(&files, "/bin/big").unwrap();
        assert_eq!(big.size, 5000);
        let mut buffer = [0; 3000];
        assert_eq!(client::read(&files, big, 0, &mut buffer), Ok(3000));
        assert_eq!(client::read(&files, big, 3000, &mut buffer), Ok(2000));
        assert!(buffer.iter().all(|&byte| byte == 7));
        assert_eq!(client::read(&files, big, 5000, &mut buffer), Ok(0));
        assert_eq!(client::read(&files, big, usize::MAX, &mut buffer), Ok(0));
    }

    #[test]
    fn directories_are_listed_in_pieces() {
        let files = files();
        let list = |directory, skip, room| {
            let mut names = vec![0; room];
            let (count, len) = client::list(&files, directory, skip, &mut names).unwrap();
            (count, String::from_utf8(names[..len].to_vec()).unwrap())
        };
        assert_eq!(list("/", 0, 100), (2, "bin\0boot\0".into()));
        assert_eq!(list("/bin", 0, 100), (2, "a\0big\0".into()));
        assert_eq!(list("/bin", 0, 5), (1, "a\0".into()));
        assert_eq!(list("/bin", 1, 100), (1, "big\0".into()));
        assert_eq!(list("/bin", 2, 100), (0, String::new()));
        assert_eq!(list("/nothing", 0, 100), (0, String::new()));
    }

    #[test]
    fn hostile_requests_are_errors() {
        let files = files();
        let refusal = |message: Message, data: &[u8]| {
            let sent = files.send(message, data, &mut [0; 16]).unwrap();
            Refusal::from_label(sent.reply.label())
        };
        let read = |words: [u64; 3]| refusal(Message::new(READ).with_words(words), &[]);
        assert_eq!(read([3, 0, 1]), Some(Refusal::NotFound));
        assert_eq!(read([u64::MAX, 0, 1]), Some(Refusal::NotFound));
        assert_eq!(read([0, u64::MAX, u64::MAX]), None);
        assert_eq!(
            refusal(Message::new(OPEN), &[0xff]),
            Some(Refusal::BadRequest)
        );
        assert_eq!(
            refusal(Message::new(OPEN), &[b'x'; 200]),
            Some(Refusal::BadRequest)
        );
        assert_eq!(
            refusal(Message::new(OPEN), b"../bin/a"),
            Some(Refusal::BadRequest)
        );
        let skip = Message::new(LIST).with_words([u64::MAX, u64::MAX]);
        assert_eq!(refusal(skip, b"/bin"), None);
        assert_eq!(refusal(Message::new(0), &[]), Some(Refusal::BadRequest));
        assert_eq!(
            refusal(Message::new(u32::MAX), &[1]),
            Some(Refusal::BadRequest)
        );
    }
}
