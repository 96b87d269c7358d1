//! The operations, and how they are drawn.

use cowslip_abi::{Commit, PAGE_SIZE, Perm, ShareMode};
use kernel::{
    mm::phys::NR_ENTRIES,
    vm::{NO_BUDGET, Transfer, USER_END},
};
use proptest::prelude::*;

/// How many spaces there are.
pub(crate) const NR_SPACES: usize = 3;
/// How many pages of each are played with: with small tables, all that there are.
pub(crate) const NR_PAGES: u64 = if SMALL { USER_END / PAGE } else { 16 };
/// The first of them: half of the pages lie on either side of a 512 GiB boundary, where tables of
/// all levels end.
pub(crate) const BASE: u64 = if SMALL {
    0
} else {
    (3 << 39) - NR_PAGES / 2 * PAGE
};
/// Whether tables have a few entries instead of 512.
const SMALL: bool = cfg!(feature = "small-tables");
/// Bytes in a page.
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// An operation, and under which conditions it runs.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Whether what a map or a share would find occupied is unmapped first.
    pub(crate) clear: bool,
    pub(crate) op: Op,
    /// How many frames are free, if memory is short.
    pub(crate) free_frames: Option<u64>,
}

/// Pages `first..first + count`, counted from [`BASE`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Pages {
    pub(crate) fn addr(self) -> u64 {
        BASE + self.first * PAGE
    }

    pub(crate) fn len(self) -> u64 {
        self.count * PAGE
    }

    /// The address of each.
    pub(crate) fn addresses(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |page| self.addr() + page * PAGE)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map {
        space: usize,
        pages: Pages,
        perm: Perm,
    },
    Unmap {
        space: usize,
        pages: Pages,
    },
    Protect {
        space: usize,
        pages: Pages,
        perm: Perm,
    },
    Share {
        dst: usize,
        to: u64,
        src: usize,
        pages: Pages,
        mode: ShareMode,
        perm: Option<Perm>,
    },
    /// Replaces `dst` by a copy of `src`.
    Fork {
        dst: usize,
        src: usize,
        terms: Terms,
    },
    Copy {
        dst: usize,
        to: u64,
        src: usize,
        from: u64,
        len: u64,
        transfer: Transfer,
    },
    /// How many whole pages a message must have to be remapped.
    Threshold {
        nr_pages: u64,
    },
    /// Works off dead tables.
    Reap {
        nr_references: usize,
    },
    /// User code writes within one page.
    Write {
        space: usize,
        cpu: u8,
        offset: u64,
        len: usize,
        byte: u8,
    },
    /// User code writes to one page after the other what is there already.
    Touch {
        space: usize,
        cpu: u8,
        pages: Pages,
    },
    /// User code reads within one page.
    Read {
        space: usize,
        cpu: u8,
        offset: u64,
        len: usize,
    },
    /// User code jumps into a page.
    Execute {
        space: usize,
        cpu: u8,
        page: u64,
    },
    /// The kernel writes user memory.
    KernelWrite {
        space: usize,
        offset: u64,
        len: usize,
        byte: u8,
    },
    /// Replaces the space by an empty one.
    Destroy {
        space: usize,
        terms: Terms,
    },
}

/// What an empty space is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) class: Commit,
    /// In frames.
    pub(crate) budget: u64,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let free_frames = prop_oneof![3 => Just(None), 1 => (0..NR_PAGES.min(24)).prop_map(Some)];
    (prop::bool::weighted(0.8), op(), free_frames).prop_map(|(clear, op, free_frames)| Step {
        clear,
        op,
        free_frames,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (space(), pages(), map_perm()).prop_map(|(space, pages, perm)| Op::Map { space, pages, perm }),
        2 => (space(), pages()).prop_map(|(space, pages)| Op::Unmap { space, pages }),
        2 => (space(), pages(), perm()).prop_map(|(space, pages, perm)| Op::Protect { space, pages, perm }),
        6 => share(),
        1 => (space(), space(), terms()).prop_map(|(dst, src, terms)| Op::Fork { dst, src, terms }),
        6 => copy(),
        9 => write(),
        3 => (space(), 0u8..2, pages()).prop_map(|(space, cpu, pages)| Op::Touch { space, cpu, pages }),
        3 => (space(), 0u8..2, offset(), len_in_page())
            .prop_map(|(space, cpu, offset, len)| Op::Read { space, cpu, offset, len }),
        1 => (space(), 0u8..2, 0..NR_PAGES).prop_map(|(space, cpu, page)| Op::Execute { space, cpu, page }),
        2 => (space(), offset(), 0usize..3 * PAGE_SIZE, any::<u8>())
            .prop_map(|(space, offset, len, byte)| Op::KernelWrite { space, offset, len, byte }),
        2 => (space(), terms()).prop_map(|(space, terms)| Op::Destroy { space, terms }),
        1 => (1u64..5).prop_map(|nr_pages| Op::Threshold { nr_pages }),
        2 => (1usize..200).prop_map(|nr_references| Op::Reap { nr_references }),
    ]
}

fn share() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![
        Just(ShareMode::CopyOnWrite),
        Just(ShareMode::Shared),
        Just(ShareMode::Move)
    ];
    (
        space(),
        page(),
        space(),
        pages(),
        mode,
        prop::option::of(perm()),
    )
        .prop_map(|(dst, to, src, pages, mode, perm)| {
            let count = pages.count.min(NR_PAGES - to);
            Op::Share {
                dst,
                to,
                src,
                pages: Pages { count, ..pages },
                mode,
                perm,
            }
        })
}

/// Copies of pages, of pages with ragged ends, and of anything.
fn copy() -> impl Strategy<Value = Op> {
    let ragged = prop_oneof![Just(0), Just(1), Just(PAGE - 1), 0..PAGE];
    let alignments = prop_oneof![
        2 => Just((0, 0)),
        2 => ragged.clone().prop_map(|offset| (offset, offset)),
        1 => (ragged.clone(), ragged.clone()),
    ];
    let transfer = prop_oneof![2 => Just(Transfer::Copy), 1 => Just(Transfer::Move)];
    let len = (
        prop_oneof![2 => 0u64..5, 2 => nr_pages()],
        prop_oneof![2 => Just(0), 1 => ragged],
    )
        .prop_map(|(pages, bytes)| pages * PAGE + bytes);
    (space(), page(), space(), page(), alignments, len, transfer).prop_map(
        |(dst, to, src, from, (to_offset, from_offset), len, transfer)| {
            let (to, from) = (to * PAGE + to_offset, from * PAGE + from_offset);
            let len = len.min(NR_PAGES * PAGE - to).min(NR_PAGES * PAGE - from);
            Op::Copy {
                dst,
                to,
                src,
                from,
                len,
                transfer,
            }
        },
    )
}

fn write() -> impl Strategy<Value = Op> {
    (space(), 0u8..2, offset(), len_in_page(), any::<u8>()).prop_map(
        |(space, cpu, offset, len, byte)| Op::Write {
            space,
            cpu,
            offset,
            len,
            byte,
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let class = prop_oneof![Just(Commit::Overcommit), Just(Commit::Strict)];
    let budget = prop_oneof![3 => Just(NO_BUDGET), 1 => 0..2 * NR_PAGES];
    (class, budget).prop_map(|(class, budget)| Terms { class, budget })
}

fn space() -> impl Strategy<Value = usize> {
    0..NR_SPACES
}

fn pages() -> impl Strategy<Value = Pages> {
    (page(), nr_pages()).prop_map(|(first, count)| Pages {
        first,
        count: count.min(NR_PAGES - first),
    })
}

/// Any page, or the first one that a small table covers.
fn page() -> impl Strategy<Value = u64> {
    let first_of = |level: u32| {
        let len = (NR_ENTRIES as u64).pow(level).min(64);
        (0..=(NR_PAGES - 1) / len).prop_map(move |number| number * len)
    };
    prop_oneof![2 => 0..NR_PAGES, 1 => first_of(1), 1 => first_of(2), 1 => first_of(3)]
}

/// Few pages, any number, or as many as a few small tables cover.
fn nr_pages() -> impl Strategy<Value = u64> {
    let number = prop_oneof![
        4 => 1u64..4,
        1 => 1..=NR_PAGES,
        1 => (1u64..5).prop_map(|number| number * NR_ENTRIES as u64),
        1 => (1u64..5).prop_map(|number| number * (NR_ENTRIES as u64).pow(2)),
        1 => Just((NR_ENTRIES as u64).pow(3))
    ];
    number.prop_map(|number| number.min(NR_PAGES))
}

fn offset() -> impl Strategy<Value = u64> {
    0..NR_PAGES * PAGE
}

fn len_in_page() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(8), 1..PAGE_SIZE]
}

fn map_perm() -> impl Strategy<Value = Perm> {
    prop_oneof![6 => Just(Perm::RW), 1 => Just(Perm::R), 1 => Just(Perm::RX)]
}

fn perm() -> impl Strategy<Value = Perm> {
    prop_oneof![Just(Perm::RW), Just(Perm::R), Just(Perm::RX)]
}
