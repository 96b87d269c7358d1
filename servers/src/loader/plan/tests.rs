//! Programs made by hand, right and wrong.

use super::*;

struct Segment {
    flags: u32,
    offset: u64,
    at: u64,
    bytes: u64,
    mem: u64,
}

/// An ELF file of `len` bytes with these segments.
fn file(entry: u64, segments: &[Segment], len: usize) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes()); // ET_EXEC
    file.extend(62u16.to_le_bytes()); // EM_X86_64
    file.extend(1u32.to_le_bytes());
    file.extend(entry.to_le_bytes());
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for segment in segments {
        file.extend(1u32.to_le_bytes()); // PT_LOAD
        file.extend(segment.flags.to_le_bytes());
        for word in [
            segment.offset,
            segment.at,
            segment.at,
            segment.bytes,
            segment.mem,
            0x1000,
        ] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(file.len().max(len), 0);
    file
}

const TEXT: Segment = Segment {
    flags: PF_R | PF_X,
    offset: 0x5c0,
    at: 0x20_15c0,
    bytes: 0x2285,
    mem: 0x2285,
};

/// A program of one page of code and two of data, the first with some bytes.
pub(crate) fn small_program() -> Vec<u8> {
    let data = Segment {
        flags: PF_R | PF_W,
        offset: 0x2848,
        at: 0x20_5848,
        bytes: 8,
        mem: 0x1000,
    };
    file(0x20_15c0, &[TEXT, data], 0x3000)
}

fn pages(at: u64, len: u64, perm: Perm, source: Source) -> Pages {
    Pages {
        at,
        len,
        perm,
        source,
    }
}

#[test]
fn text_is_the_file_itself() {
    let plan = plan(&file(0x20_15c0, &[TEXT], 0x3000)).unwrap();
    assert_eq!(plan.entry, 0x20_15c0);
    let text = pages(0x20_1000, 0x3000, Perm::RX, Source::File { offset: 0 });
    assert_eq!(plan.pages[..], [text]);
}

#[test]
fn data_ends_in_a_built_page_and_zeros() {
    let data = Segment {
        flags: PF_R | PF_W,
        offset: 0x2848,
        at: 0x20_5848,
        bytes: 0x1010,
        mem: 0x4000,
    };
    let plan = plan(&file(0x20_15c0, &[TEXT, data], 0x4000)).unwrap();
    let built = Source::Built {
        offset: 0x3000,
        count: 0x858,
        skip: 0,
    };
    assert_eq!(
        plan.pages[1..],
        [
            pages(0x20_5000, 0x1000, Perm::RW, Source::File { offset: 0x2000 }),
            pages(0x20_6000, 0x1000, Perm::RW, built),
            pages(0x20_7000, 0x3000, Perm::RW, Source::Zero),
        ]
    );
}

#[test]
fn a_segment_at_another_offset_in_its_page_is_built() {
    let data = Segment {
        flags: PF_R,
        offset: 0x2000,
        at: 0x30_0010,
        bytes: 0x20,
        mem: 0x20,
    };
    let plan = plan(&file(0x20_15c0, &[TEXT, data], 0x3000)).unwrap();
    let built = Source::Built {
        offset: 0x2000,
        count: 0x20,
        skip: 0x10,
    };
    assert_eq!(plan.pages[1], pages(0x30_0000, 0x1000, Perm::R, built));
}

#[test]
fn zeros_take_nothing_from_the_file() {
    let zeros = Segment {
        flags: PF_R | PF_W,
        offset: 0x2850,
        at: 0x30_0850,
        bytes: 0,
        mem: 0x220,
    };
    let plan = plan(&file(0x20_15c0, &[TEXT, zeros], 0x3000)).unwrap();
    assert_eq!(
        plan.pages[1],
        pages(0x30_0000, 0x1000, Perm::RW, Source::Zero)
    );
}

#[test]
fn bad_programs_are_errors() {
    let with = |change: fn(&mut Segment)| {
        let mut segment = Segment { ..TEXT };
        change(&mut segment);
        plan(&file(0x20_15c0, &[segment], 0x3000)).unwrap_err()
    };
    assert_eq!(with(|s| s.flags |= PF_W), BadElf::Rights);
    assert_eq!(with(|s| s.flags = PF_X), BadElf::Rights);
    assert_eq!(with(|s| s.flags = PF_R), BadElf::Entry);
    assert_eq!(with(|s| s.bytes = 0x2_0000), BadElf::Truncated);
    assert_eq!(
        with(|s| (s.offset, s.bytes) = (u64::MAX, 2)),
        BadElf::Truncated
    );
    assert_eq!(with(|s| s.bytes += 1), BadElf::Truncated);
    assert_eq!(with(|s| s.at = 0), BadElf::Address);
    assert_eq!(with(|s| s.at = STACK_TOP - 0x1000), BadElf::Address);
    assert_eq!(with(|s| s.at = u64::MAX - 0x100), BadElf::Address);
    assert_eq!(with(|s| s.at = 0xffff_ffff_8000_0000), BadElf::Address);
    assert_eq!(with(|s| s.mem = 1 << 40), BadElf::Address);
    assert_eq!(
        plan(&file(0x20_15c0, &[TEXT, TEXT], 0x3000)),
        Err(BadElf::Address)
    );
    assert_eq!(plan(&file(0x20_15c0, &[], 0x3000)), Err(BadElf::Segments));
    assert_eq!(plan(b"#!/bin/sh\n"), Err(BadElf::Format));
}

#[test]
fn cut_and_corrupted_files_never_panic() {
    let data = Segment {
        flags: PF_R | PF_W,
        offset: 0x2848,
        at: 0x20_5848,
        bytes: 8,
        mem: 0x4000,
    };
    let good = file(0x20_15c0, &[TEXT, data], 0x3000);
    for len in 0..256 {
        let _ = plan(&good[..len]);
    }
    for at in 0..176 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(plan) = plan(&bad) {
                check(&plan, bad.len());
            }
        }
    }
}

/// What the loader relies on.
fn check(plan: &Plan, file_len: usize) {
    let mut end = 0;
    for pages in &plan.pages {
        assert!(pages.at >= end && pages.at.is_multiple_of(PAGE) && pages.len.is_multiple_of(PAGE));
        assert!(pages.len > 0);
        end = pages.at + pages.len;
        match pages.source {
            Source::File { offset } => {
                assert!(offset + pages.len as usize <= file_len.next_multiple_of(PAGE_SIZE));
            }
            Source::Built {
                offset,
                count,
                skip,
            } => {
                assert!(offset + count <= file_len && skip + count <= pages.len as usize);
            }
            Source::Zero => {}
        }
    }
}
