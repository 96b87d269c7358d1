//! The boot archive: a tar file in memory.

use core::{ops::Range, slice};

use kernel::mm::{Frame, Mm, PhysAddr, phys::FRAME_SIZE};
use tar_no_std::TarArchiveRef;

use super::BootInfo;

/// The archive, and the frames that hold it.
pub struct Archive {
    frames: Range<u64>,
    bytes: &'static [u8],
}

impl Archive {
    /// Makes the archive's frames frames in use. They start and end with the archive: what follows
    /// it in the last one is cleared.
    ///
    /// # Panics
    ///
    /// If there is no archive: there would be nothing to run.
    pub fn take_over(mm: &Mm, boot: &BootInfo) -> Self {
        let Range { start, end } = boot
            .archive
            .clone()
            .expect("no boot archive: nothing to run");
        assert!(
            start.is_multiple_of(FRAME_SIZE),
            "the boot archive starts within a page"
        );
        let frames = start..end.next_multiple_of(FRAME_SIZE);
        let (first, last) = (PhysAddr(frames.start), PhysAddr(frames.end));
        mm.frames.adopt_range(first, last);
        mm.cover(first, last).expect("there is memory at boot");
        if end < frames.end {
            let last = Frame::containing(PhysAddr(end));
            let offset = (end % FRAME_SIZE) as usize;
            mm.map
                .zero_bytes(last, offset, FRAME_SIZE as usize - offset);
        }
        let pointer = mm.map.pointer(PhysAddr(start));
        // SAFETY: the archive is in the direct map, and its frames are never written again: they
        // are mapped for reading only.
        let bytes = unsafe { slice::from_raw_parts(pointer, (end - start) as usize) };
        Self { frames, bytes }
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The frames that hold the archive.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        self.frames
            .clone()
            .step_by(FRAME_SIZE as usize)
            .map(|addr| Frame::containing(PhysAddr(addr)))
    }

    /// The contents of a file.
    pub fn file(&self, path: &str) -> Option<&'static [u8]> {
        let archive = TarArchiveRef::new(self.bytes)
            .inspect_err(|error| log::error!("the boot archive is damaged: {error:?}"))
            .ok()?;
        archive
            .entries()
            .find(|entry| {
                let name = entry.filename();
                name.as_str()
                    .is_ok_and(|name| name.strip_prefix("./").unwrap_or(name) == path)
            })
            .map(|entry| entry.data())
    }

    /// Keeps the frames that hold a part of the archive, whatever becomes of the rest.
    pub fn keep(&self, mm: &Mm, part: &'static [u8]) {
        let offset = (part.as_ptr() as usize - self.bytes.as_ptr() as usize) as u64;
        let first = (self.frames.start + offset) & !(FRAME_SIZE - 1);
        let end = self.frames.start + offset + part.len() as u64;
        let end = end.next_multiple_of(FRAME_SIZE);
        mm.keep(PhysAddr(first), PhysAddr(end));
    }
}
