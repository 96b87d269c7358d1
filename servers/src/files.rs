//! The file server: the boot archive, read-only.
//!
//! `cargo xtask` makes the archive so that programs begin at page boundaries: the kernel gives them to
//! readers page by page, copy-on-write, right from the frames that the loader put them in. Files of an archive that
//! was made otherwise are read as well, but copied.

use libipc::services::Refusal;
use libipc::services::files;

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
}

fn parse(path: &str) -> Result<Path, Refusal> {
    Path::new(path).ok_or(Refusal::BadRequest)
}

impl files::Files for Files {
    fn open(&self, path: &str) -> Result<files::File, Refusal> {
        let path = parse(path)?;
        let number = self.table.iter().position(|file| file.path == path);
        let number = number.ok_or(Refusal::NotFound)?;
        Ok(files::File {
            number: number as u64,
            size: self.table[number].data.len(),
        })
    }

    fn read(&self, number: u64, offset: usize, count: usize) -> Result<&[u8], Refusal> {
        let number = usize::try_from(number).map_err(|_| Refusal::NotFound)?;
        let data = self.table.get(number).ok_or(Refusal::NotFound)?.data;
        let rest = data.get(offset..).unwrap_or_default();
        Ok(&rest[..count.min(rest.len())])
    }

    fn list(
        &mut self,
        directory: &str,
        skip: usize,
        room: usize,
    ) -> Result<(usize, &[u8]), Refusal> {
        let directory = parse(directory)?;
        let room = room.min(LISTING);
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
        Ok((count, &self.listing[..len]))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::service::{Error, Mismatch};
    use libipc::services::files::{FilesClient, FilesServer};
    use libipc::{Borrowed, Handle, Message, fake};

    use super::*;
    use crate::archive::tests::tar;

    fn files() -> Borrowed<'static, FilesClient> {
        let big = vec![7; 5000];
        let archive = tar(&[("bin/a", b"one"), ("./bin/big", &big), ("boot/x", b"")]);
        fake::serve(
            Handle(1),
            1,
            Rc::new(RefCell::new(FilesServer::new(Files::new(archive.leak())))),
        );
        FilesClient::borrow(Handle(1))
    }

    #[test]
    fn files_are_read_in_pieces() {
        let files = files();
        let big = files.open("/bin/big").unwrap();
        assert_eq!(big.size, 5000);
        let mut buffer = [0; 3000];
        assert_eq!(files.read_at(big, 0, &mut buffer), Ok(3000));
        assert_eq!(files.read_at(big, 3000, &mut buffer), Ok(2000));
        assert!(buffer.iter().all(|&byte| byte == 7));
        assert_eq!(files.read_at(big, 5000, &mut buffer), Ok(0));
        assert_eq!(files.read_at(big, usize::MAX, &mut buffer), Ok(0));
    }

    #[test]
    fn directories_are_listed_in_pieces() {
        let files = files();
        let list = |directory, skip, room| {
            let mut names = vec![0; room];
            let (count, len) = files.list_into(directory, skip, &mut names).unwrap();
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
        let mut buffer = [0; 16];
        let not_found = Err(Error::Refused(Refusal::NotFound));
        for number in [3, u64::MAX] {
            assert_eq!(files.read(number, 0, 1, &mut buffer), not_found);
        }
        assert_eq!(files.read(0, usize::MAX, usize::MAX, &mut buffer), Ok(0));
        let bad = Err(Error::Refused(Refusal::BadRequest));
        assert_eq!(files.open(&"x".repeat(200)), bad);
        assert_eq!(files.open("../bin/a"), bad);
        assert_eq!(
            files.list("/bin", usize::MAX, usize::MAX, &mut buffer),
            Ok((0, 0))
        );
        let open = Message::new(FilesClient::OPEN);
        let reply = files.as_endpoint().send(open, &[0xff], &mut []).unwrap();
        assert_eq!(
            libipc::service::mismatch(reply.reply.label()),
            Some(Mismatch::Malformed)
        );
    }
}
