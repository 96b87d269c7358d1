//! TLB flushes as values: what must be flushed, and the proof that it was.
//!
//! An operation that takes rights or frames away from page-table entries collects what it touched
//! in a [`Flush`], hands it to [`Mm::flush`](super::Mm::flush) once, and gets a [`Flushed`]. Only
//! with that token may a count fall: on several CPUs a frame that is still reachable through a
//! stale entry must not even be *counted* down, because another space would then reclaim it and
//! write to it while the stale CPU still reads.

use super::phys::{FRAME_SIZE, Frame};

/// Which translations of one address space are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPages {
    /// Those of the pages from `start` up to `end` (exclusive), page-aligned.
    Range {
        /// The first page.
        start: u64,
        /// The end of the last page.
        end: u64,
    },
    /// All of user memory.
    All,
}

/// What to flush in one address space: translations, and cached upper-level entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceFlush {
    /// The space, named by its root table.
    pub root: Frame,
    /// The pages.
    pub pages: FlushPages,
}

impl SpaceFlush {
    fn add(&mut self, more: (u64, u64)) {
        if let FlushPages::Range { start, end } = &mut self.pages {
            *start = more.0.min(*start);
            *end = more.1.max(*end);
        }
    }
}

/// A flush that still has to be done, of up to two address spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "stale translations remain until the flush is done"]
pub struct Flush {
    spaces: [Option<SpaceFlush>; 2],
}

impl Flush {
    /// Nothing to flush.
    pub const fn none() -> Self {
        Self {
            spaces: [None, None],
        }
    }

    /// One page of one space.
    pub const fn page(root: Frame, addr: u64) -> Self {
        let start = addr & !(FRAME_SIZE - 1);
        let pages = FlushPages::Range {
            start,
            end: start + FRAME_SIZE,
        };
        Self {
            spaces: [Some(SpaceFlush { root, pages }), None],
        }
    }

    /// All of user memory in one space.
    pub const fn all(root: Frame) -> Self {
        Self {
            spaces: [
                Some(SpaceFlush {
                    root,
                    pages: FlushPages::All,
                }),
                None,
            ],
        }
    }

    /// Adds the page that contains `addr` in the space with this root.
    ///
    /// # Panics
    ///
    /// If two other spaces are named already: no operation edits three.
    #[inline]
    pub fn add(&mut self, root: Frame, addr: u64) {
        let page = addr & !(FRAME_SIZE - 1);
        self.add_range(root, page, page + FRAME_SIZE);
    }

    /// Adds the pages from `start` up to `end` (page-aligned, exclusive) in the space with this
    /// root.
    ///
    /// # Panics
    ///
    /// If two other spaces are named already.
    pub fn add_range(&mut self, root: Frame, start: u64, end: u64) {
        for space in &mut self.spaces {
            match space {
                Some(space) if space.root == root => return space.add((start, end)),
                Some(_) => {}
                None => {
                    let pages = FlushPages::Range { start, end };
                    *space = Some(SpaceFlush { root, pages });
                    return;
                }
            }
        }
        panic!("a flush of three spaces");
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spaces[0].is_none()
    }

    /// The spaces to flush.
    pub fn spaces(&self) -> impl Iterator<Item = &SpaceFlush> {
        self.spaces.iter().map_while(Option::as_ref)
    }
}

/// The proof that a flush is done on every CPU.
///
/// Made only by [`Mm::flush`](super::Mm::flush). It speaks for the operation that flushed, and
/// should be dropped with it.
#[derive(Debug)]
pub struct Flushed(());

impl Flushed {
    pub(super) const fn new() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::PhysAddr;

    fn root(number: u64) -> Frame {
        Frame::containing(PhysAddr(number * FRAME_SIZE))
    }

    #[test]
    fn a_flush_spans_what_was_added_per_space() {
        let mut flush = Flush::none();
        assert!(flush.is_empty());
        flush.add(root(1), 0x5123);
        flush.add(root(2), 0x1000);
        flush.add(root(1), 0x3000);
        let spaces: Vec<_> = flush.spaces().copied().collect();
        assert_eq!(
            spaces,
            [
                SpaceFlush {
                    root: root(1),
                    pages: FlushPages::Range {
                        start: 0x3000,
                        end: 0x6000
                    }
                },
                SpaceFlush {
                    root: root(2),
                    pages: FlushPages::Range {
                        start: 0x1000,
                        end: 0x2000
                    }
                },
            ]
        );
    }
}
