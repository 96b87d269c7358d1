//! Where pages with some bytes of a new program are written.
//!
//! The page is shared memory, so what a program gets is a copy that the kernel makes. Memory that is missing for it is an
//! error of the call: the server itself never touches a page that it does not have yet.

use libipc::abi::PAGE_SIZE;
use libipc::{Error, PageBuffer, Perm, ShareMode, Space};

/// A page of zeros, but while it is being copied.
pub struct Stage(PageBuffer);

impl Stage {
    /// A page of the server's own.
    ///
    /// # Errors
    /// Those of the calls `map` and `share`.
    pub fn new() -> Result<Self, Error> {
        let page = PageBuffer::new(PAGE_SIZE)?;
        page.make_shared()?;
        Ok(Stage(page))
    }

    /// Puts a page into a space: these bytes, each so far into it, and zeros elsewhere. What does not lie within the
    /// page is an error of the caller.
    ///
    /// # Errors
    /// Those of the call `share`.
    ///
    /// # Panics
    /// When bytes lie outside of the page.
    pub fn place(
        &mut self,
        parts: &[(usize, &[u8])],
        space: &Space,
        at: u64,
        perm: Perm,
    ) -> Result<(), Error> {
        for &(skip, bytes) in parts {
            self.0[skip..skip + bytes.len()].copy_from_slice(bytes);
        }
        let (from, len) = (self.0.addr(), PAGE_SIZE as u64);
        let mode = ShareMode::CopyOnWrite;
        let placed = space.share(&Space::own(), from, at, len, mode, Some(perm));
        for &(skip, bytes) in parts {
            self.0[skip..skip + bytes.len()].fill(0);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::Handle;

    #[test]
    fn nothing_of_a_program_stays() {
        let mut stage = Stage::new().unwrap();
        let space = Space::from_raw(Handle(1));
        let parts: [(usize, &[u8]); 2] = [(0, b"secret"), (4090, b"secret")];
        stage.place(&parts, &space, 0x10_0000, Perm::R).unwrap();
        assert!(stage.0.iter().all(|&byte| byte == 0));
    }
}
