//! What is told of a space a piece at a time is what is there.

use cowslip_abi::RangeKind;

use super::*;
use crate::vm::{Piece, SpaceStats, TABLE_SPAN};

/// The pieces of a whole space, the empty ones left out, each with where it begins.
fn pieces(mm: &Mm, table: &PageTable) -> Vec<(u64, Piece)> {
    let (mut pieces, mut addr) = (Vec::new(), 0);
    while addr < USER_END {
        let piece = table.piece(mm, addr);
        assert!(
            piece.end > addr && piece.end <= USER_END,
            "{addr:#x}: {piece:?}"
        );
        if piece.kind != RangeKind::Empty {
            pieces.push((addr, piece));
        }
        addr = piece.end;
    }
    pieces
}

/// Checks that the pieces add up to what the statistics count, all at once and a part at a time.
fn assert_sums(mm: &Mm, table: &PageTable) {
    let mut sums = SpaceStats::default();
    for (at, piece) in pieces(mm, table) {
        let nr_pages = (piece.end - at) / PAGE;
        match piece.kind {
            RangeKind::Empty => {}
            RangeKind::Untouched => sums.zero += nr_pages,
            RangeKind::Private => sums.private += nr_pages,
            RangeKind::CopyOnWrite => sums.cow_shared += nr_pages,
            RangeKind::Shared => sums.shared += nr_pages,
        }
    }
    let (mut counted, mut addr) = (SpaceStats::default(), 0);
    while addr < USER_END {
        assert!(addr.is_multiple_of(TABLE_SPAN), "{addr:#x}");
        addr = table.count_some(mm, addr, &mut counted);
    }
    assert_eq!(counted, table.statistics(mm));
    sums.tables = counted.tables;
    assert_eq!(sums, counted);
}

#[test]
fn pieces_are_told_with_kind_rights_and_references() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 4 * PAGE, Perm::RW).unwrap();
        put(mm, one, A + PAGE, 1);
        put(mm, one, A + 2 * PAGE, 2);
        let page = A + 2 * PAGE;
        share(mm, two, B, one, page, PAGE, ShareMode::CopyOnWrite, None).unwrap();
        one.map_zero(mm, B, PAGE, Perm::R).unwrap();
        let told: Vec<_> = pieces(mm, one)
            .into_iter()
            .map(|(at, piece)| (at, piece.end - at, piece.kind, piece.perm, piece.sharers))
            .collect();
        assert_eq!(
            told,
            [
                (A, PAGE, RangeKind::Untouched, Perm::RW, 0),
                (A + PAGE, PAGE, RangeKind::Private, Perm::RW, 1),
                (A + 2 * PAGE, PAGE, RangeKind::CopyOnWrite, Perm::RW, 2),
                (A + 3 * PAGE, PAGE, RangeKind::Untouched, Perm::RW, 0),
                (B, PAGE, RangeKind::Untouched, Perm::R, 0),
            ]
        );
        assert_sums(mm, one);
        assert_sums(mm, two);
    });
}

#[test]
fn a_table_that_others_name_too_is_told_with_what_it_covers() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, 2 * GIB, Perm::RW).unwrap();
        put(mm, one, 5 * PAGE, 1);
        share(mm, two, 0, one, 0, 2 * GIB, ShareMode::CopyOnWrite, None).unwrap();
        for table in [one, two] {
            let piece = table.piece(mm, 5 * PAGE);
            assert_eq!(piece.kind, RangeKind::CopyOnWrite);
            assert_eq!((piece.shared_table, piece.sharers), (GIB, 2));
            assert_sums(mm, table);
        }
        put(mm, two, 5 * PAGE, 2);
        for table in [one, two] {
            let piece = table.piece(mm, 5 * PAGE);
            assert_eq!((piece.kind, piece.sharers), (RangeKind::Private, 1));
            assert_sums(mm, table);
        }
    });
}

#[test]
fn a_sparse_terabyte_and_a_full_table_are_few_pieces() {
    with_spaces_in(700, |mm, one, _| {
        one.map_zero(mm, A, 1024 * GIB, Perm::RW).unwrap();
        let sparse = pieces(mm, one);
        assert!(sparse.len() <= 8, "{} pieces", sparse.len());
        assert_sums(mm, one);
        for page in 0..512 {
            put(mm, one, TABLE * 4 + page * PAGE, 1);
        }
        let full = one.piece(mm, TABLE * 4);
        assert_eq!((full.end, full.kind), (TABLE * 5, RangeKind::Private));
        assert_sums(mm, one);
    });
}

#[test]
fn the_last_page_of_user_memory_ends_the_last_piece() {
    with_spaces(|mm, one, _| {
        let last = USER_END - PAGE;
        assert_eq!(one.piece(mm, last).end, USER_END);
        one.map_zero(mm, last, PAGE, Perm::RW).unwrap();
        let piece = one.piece(mm, last);
        assert_eq!((piece.end, piece.kind), (USER_END, RangeKind::Untouched));
        put(mm, one, last, 1);
        assert_eq!(one.piece(mm, last).kind, RangeKind::Private);
        assert_sums(mm, one);
    });
}
