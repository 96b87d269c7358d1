//! Where requests arrive: as much room as a page table covers, of which between two requests one page is there.
//!
//! What is written comes as pages that the client shares; they are given up as soon as they have been passed on, so that
//! files that are removed leave nothing behind.

use libipc::server::{Answer, Room, Service};
use libipc::services::files::{FilesClient, FilesServer, MAX_PATH, MAX_WRITE};
use libipc::{Error, Incoming, PAGE_SIZE, PageBuffer};

use super::Files;
use super::memory::Mover;

/// The most bytes of a request that writes nothing: two paths. They fit into the first page, to which they are copied.
const MAX_OTHER: usize = 2 * MAX_PATH + 1;

/// The room.
#[derive(Debug)]
pub struct Pages {
    buffer: Option<PageBuffer>,
    mover: Mover,
    /// Whether more than the first page may be there.
    is_used: bool,
}

impl Pages {
    /// Room for the longest write.
    ///
    /// # Errors
    /// Those of the calls `map` and `send`.
    pub fn new(mover: Mover) -> Result<Self, Error> {
        let mut pages = Pages {
            buffer: None,
            mover,
            is_used: true,
        };
        pages.renew()?;
        Ok(pages)
    }

    /// Gives up all pages, and takes the first one.
    fn renew(&mut self) -> Result<(), Error> {
        self.buffer = None;
        let buffer = PageBuffer::new(MAX_WRITE)?;
        self.mover.write(buffer.addr() as usize, &[0])?;
        self.buffer = Some(buffer);
        self.is_used = false;
        Ok(())
    }
}

impl Room for Pages {
    fn next(&mut self) -> &mut [u8] {
        if self.is_used {
            // Without memory there is no room: requests with bytes are too long until there is some.
            let _ = self.renew();
        }
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    fn arrived(&mut self, len: usize) -> &[u8] {
        self.is_used |= len >= PAGE_SIZE;
        let buffer = self.buffer.as_deref().unwrap_or_default();
        &buffer[..len.min(buffer.len())]
    }
}

/// The service, to which only writes bring more bytes than paths have.
///
/// Others are not even looked at: pages that nobody has touched would take a frame, which there may not be.
pub struct Guarded(pub FilesServer<Files>);

impl Service for Guarded {
    fn takes_handles(&self) -> bool {
        self.0.takes_handles()
    }

    fn max_bytes(&self) -> usize {
        self.0.max_bytes()
    }

    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>> {
        let label = incoming.message.label();
        let writes = [FilesClient::WRITE, FilesClient::WRITE_AT].contains(&label);
        if writes || incoming.true_len <= MAX_OTHER {
            return self.0.message(incoming, data);
        }
        // Without its bytes it is malformed.
        self.0.message(incoming, &[])
    }
}
