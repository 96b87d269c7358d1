//! A pipe between processes: pages go in at one end and come out at the other, and none of them is copied on the way.

use core::fmt;

use alloc::collections::VecDeque;

use libipc::server::Answer;
use libipc::service::Reply;
use libipc::{ErrorCode, PageBuffer};

/// The most bytes that go in at once.
pub const MAX_LEN: usize = 1 << 16;

/// Buffers that have room in the pipe.
const ROOM: usize = 4;

/// Most threads that wait at each end.
const MAX_WAITING: usize = 8;

/// The pipe.
#[libipc::service(version = 1, max_bytes = MAX_LEN)]
pub trait Pipe {
    /// Puts pages in. Answers when there is room for them.
    ///
    /// # Errors
    /// `Closed`; `Full` when too many wait for room.
    fn write(&mut self, pages: PageBuffer, reply: Reply<(), PipeError>) -> Option<Answer<'_>>;

    /// Takes out what was put in first. Answers when there is something.
    ///
    /// # Errors
    /// `Closed` when nothing comes any more; `Full` when too many wait for something.
    fn read(&mut self, reply: Reply<PageBuffer, PipeError>) -> Option<Answer<'_>>;

    /// Lets nothing in any more.
    fn close(&mut self);
}

/// What a pipe cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
pub enum PipeError {
    /// It has been closed.
    Closed,
    /// Too many wait.
    Full,
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PipeError::Closed => "the pipe is closed",
            PipeError::Full => "too many wait for the pipe",
        })
    }
}

/// What is in the pipe, and who waits at its ends: never at both.
#[derive(Debug, Default)]
pub struct Queue {
    buffers: VecDeque<PageBuffer>,
    writers: VecDeque<(PageBuffer, Reply<(), PipeError>)>,
    readers: VecDeque<Reply<PageBuffer, PipeError>>,
    is_closed: bool,
}

impl Queue {
    /// Gives what is there to who waits for it, and lets in what there is room for.
    fn pass_on(&mut self) {
        self.let_in();
        while let Some(pages) = self.buffers.front_mut()
            && let Some(reader) = self.readers.pop_front()
        {
            // What a dead reader does not take, the next one gets.
            if reader.send(Ok(pages)).is_ok() {
                self.buffers.pop_front();
            }
            self.let_in();
        }
        if self.is_closed && self.buffers.is_empty() {
            for reader in self.readers.drain(..) {
                let _ = reader.send(Err(PipeError::Closed));
            }
        }
    }

    fn let_in(&mut self) {
        while self.buffers.len() < ROOM
            && let Some((pages, writer)) = self.writers.pop_front()
        {
            // A writer that is gone has written all the same.
            let _ = writer.send(Ok(()));
            self.buffers.push_back(pages);
        }
    }
}

impl Pipe for Queue {
    fn write(&mut self, pages: PageBuffer, reply: Reply<(), PipeError>) -> Option<Answer<'_>> {
        if self.is_closed {
            return reply.now(Err(PipeError::Closed));
        }
        if self.writers.len() == MAX_WAITING {
            return reply.now(Err(PipeError::Full));
        }
        self.writers.push_back((pages, reply));
        self.pass_on();
        None
    }

    fn read(&mut self, reply: Reply<PageBuffer, PipeError>) -> Option<Answer<'_>> {
        if self.readers.len() == MAX_WAITING {
            let _ = reply.send(Err(PipeError::Full));
            return None;
        }
        self.readers.push_back(reply);
        self.pass_on();
        None
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;

    use libipc::service::Error;
    use libipc::{Borrowed, Handle, fake};

    use super::*;

    fn pipe() -> Borrowed<'static, PipeClient> {
        let server = PipeServer::new(Queue::default());
        fake::serve(Handle(1), 0, Rc::new(RefCell::new(server)));
        let _ = fake::replies();
        PipeClient::borrow(Handle(1))
    }

    /// All answers come later: nobody can wait for them in a single thread.
    fn later<T>(outcome: Result<T, Error<PipeError>>) {
        let error = outcome.map(|_| ()).unwrap_err();
        assert_eq!(error, Error::Kernel(libipc::Error::WouldBlock));
    }

    fn write(pipe: &PipeClient, text: &str) {
        later(pipe.write(PageBuffer::copy_of(text.as_bytes()).unwrap()));
    }

    /// What was answered since the last time: the label, and the bytes.
    fn answers() -> Vec<(u32, Vec<u8>)> {
        let replies = fake::replies().into_iter();
        replies
            .map(|(_, message, bytes)| (message.label(), bytes))
            .collect()
    }

    fn said(text: &str) -> (u32, Vec<u8>) {
        (0, text.as_bytes().to_vec())
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let pipe = pipe();
        write(&pipe, "one");
        write(&pipe, "two");
        assert_eq!(answers(), [said(""), said("")]);
        (0..3).for_each(|_| later(pipe.read()));
        assert_eq!(answers(), [said("one"), said("two")]);
        write(&pipe, "three");
        assert_eq!(answers(), [said(""), said("three")]);
    }

    #[test]
    fn who_finds_no_room_waits() {
        let pipe = pipe();
        for nr in 0..ROOM + MAX_WAITING {
            write(&pipe, &std::format!("{nr}"));
        }
        assert_eq!(answers().len(), ROOM);
        let full = pipe.write(PageBuffer::new(1).unwrap());
        assert_eq!(full, Err(Error::Refused(PipeError::Full)));
        later(pipe.read());
        assert_eq!(answers(), [said("0"), said("")]);
    }

    #[test]
    fn a_closed_pipe_gives_what_it_has() {
        let pipe = pipe();
        write(&pipe, "last");
        assert_eq!(pipe.close(), Ok(()));
        let closed = pipe.write(PageBuffer::new(1).unwrap());
        assert_eq!(closed, Err(Error::Refused(PipeError::Closed)));
        let _ = answers();
        (0..2).for_each(|_| later(pipe.read()));
        let end = (ErrorCode::to_label(&PipeError::Closed), Vec::new());
        assert_eq!(answers(), [said("last"), end]);
    }
}
