//! What the calls say to bad addresses, lengths and mappings.

use crate::errors::*;
use libipc::abi::{Call, Error, Handle, Rights, Tag};
use libipc::object::copy_handle;
use libipc::raw::Args;
use libipc::{Perm, Space};
use user_apps::scenario::memory::{PAGE, SCRATCH, map};
use user_apps::scenario::syscall::{NOTHING, arg, call, refused};

pub(crate) const BAD_PAGES: [(u64, u64, Error); 10] = [
    (SCRATCH, 0, Error::BadArgument),
    (SCRATCH + 1, 4096, Error::Unaligned),
    (SCRATCH, 4095, Error::Unaligned),
    (KERNEL + 1, 4096, Error::Unaligned),
    (0xffff_ffff_ffff_f000, 0x2000, Error::Wraps),
    (KERNEL, 4096, Error::KernelAddress),
    (0xffff_ffff_8000_0000, 4096, Error::KernelAddress),
    (HOLE, 4096, Error::NonCanonical),
    (0x7fff_ffff_e000, 0x2000, Error::NonCanonical),
    (0x7fff_ffff_f000, 0x1000, Error::NonCanonical),
];

pub(crate) fn page_ranges_are_checked() {
    let rich = Rich::new();
    let space = rich.space.handle();
    unchanged(|| {
        for which in [Call::Map, Call::Unmap, Call::Protect] {
            for (addr, len, error) in BAD_PAGES {
                refused(which, space, [addr, len, 3, 0, 0, 0], error);
            }
        }
        let long = [SCRATCH, (1 << 30) + PAGE, 3, 0, 0, 0];
        refused(Call::Protect, space, long, Error::TooLong);
        for which in [Call::Map, Call::Protect] {
            for perm in [0, 2, 4, 6, 7, 8, u64::MAX] {
                let args = [SCRATCH, PAGE, perm, 0, 0, 0];
                refused(which, space, args, Error::BadArgument);
            }
        }
    });
}

pub(crate) fn mappings_are_checked() {
    let page = map(SCRATCH, 1);
    let read_only = NOWHERE;
    let own = Space::own();
    own.map(read_only, PAGE, Perm::R).expect("map");
    unchanged(|| {
        let own = own.handle();
        refused(
            Call::Map,
            own,
            [SCRATCH - PAGE, 3 * PAGE, 3, 0, 0, 0],
            Error::Occupied,
        );
        refused(
            Call::Protect,
            own,
            [SCRATCH - PAGE, 2 * PAGE, 1, 0, 0, 0],
            Error::NotMapped,
        );
        refused(
            Call::Protect,
            own,
            [SCRATCH, 2 * PAGE, 1, 0, 0, 0],
            Error::NotMapped,
        );
        refused(
            Call::Protect,
            own,
            [SCRATCH, PAGE, 5, 0, 0, 0],
            Error::Denied,
        );
        refused(
            Call::Protect,
            own,
            [read_only, PAGE, 3, 0, 0, 0],
            Error::Denied,
        );
        call(Call::Unmap, own, [SCRATCH - PAGE, PAGE, 0, 0, 0, 0]).expect("holes are skipped");
    });
    page.bytes()[0] = 1;
    own.unmap(read_only, PAGE).expect("unmap");
}

pub(crate) fn message_buffers_are_checked() {
    let rich = Rich::new();
    let endpoint = rich.endpoint.handle();
    let token = 1 << 40;
    unchanged(|| {
        for (addr, len, error) in [
            (u64::MAX, 2, Error::Wraps),
            (KERNEL, 1, Error::KernelAddress),
            (HOLE, 1, Error::NonCanonical),
            (0x7fff_ffff_efff, 2, Error::NonCanonical),
            (SCRATCH, (1 << 30) + 1, Error::TooLong),
        ] {
            let data = [token, 0, addr, len, 0, 0];
            let buffer = [token, 0, 0, 0, addr, len];
            refused(Call::Send, endpoint, data, error);
            refused(Call::Send, endpoint, buffer, error);
            refused(Call::Recv, endpoint, buffer, error);
            refused(Call::Reply, Handle::NONE, data, error);
            refused(Call::ReplyRecv, endpoint, data, error);
            refused(Call::ReplyRecv, endpoint, buffer, error);
        }
        for tag in [
            Tag::new(0).with_handles(5).0,
            1 << 38,
            1 << 40,
            1 << 41,
            1 << 44,
            1 << 63,
        ] {
            let args = [token, tag, 0, 0, 0, 0];
            refused(Call::Send, endpoint, args, Error::BadArgument);
            refused(Call::Reply, Handle::NONE, args, Error::BadArgument);
            refused(Call::ReplyRecv, endpoint, args, Error::BadArgument);
        }
        refused(Call::Recv, endpoint, [0, 4, 0, 0, 0, 0], Error::BadArgument);
        refused(
            Call::Recv,
            endpoint,
            [0, u64::MAX, 0, 0, 0, 0],
            Error::BadArgument,
        );
        refused(Call::Recv, endpoint, [0, 1, 0, 0, 0, 0], Error::WouldBlock);
    });
}

pub(crate) fn share_is_checked() {
    let rich = Rich::new();
    let own = Space::own();
    let page = map(SCRATCH, 2);
    page.bytes().fill(1);
    let to = rich.space.handle();
    let weak = |rights| copy_handle(own.handle(), Handle::NONE, rights, 0).expect("copy");
    let (read, nothing) = (weak(Rights::READ), weak(Rights::COPY));
    let at = SCRATCH;
    unchanged(|| {
        let check = |args: Args, error| refused(Call::Share, to, args, error);
        check([0, at, at, PAGE, 3, 0], Error::BadArgument);
        check([0, at, at, PAGE, u64::MAX, 0], Error::BadArgument);
        for perm in [2, 4, 6, 7, 8, 1 << 40] {
            check([0, at, at, PAGE, 0, perm], Error::BadArgument);
        }
        check([arg(read), at, at, PAGE, 1, 3], Error::Denied);
        check([arg(read), at, at, PAGE, 2, 0], Error::Denied);
        check([arg(nothing), at, at, PAGE, 0, 0], Error::Denied);
        check([0x7777_7777, at, at, PAGE, 0, 0], Error::BadHandle);
        check([1 << 40, at, at, PAGE, 0, 0], Error::BadHandle);
        check(
            [arg(rich.thread.handle()), at, at, PAGE, 0, 0],
            Error::WrongType,
        );
        for (addr, len, error) in BAD_PAGES {
            check([0, addr, at, len, 0, 0], error);
        }
        for (addr, len, error) in BAD_PAGES {
            check([0, at, addr, len, 0, 0], error);
        }
        check([0, NOWHERE, at, PAGE, 0, 3], Error::NotMapped);
        check([0, at + PAGE, at, 2 * PAGE, 0, 3], Error::NotMapped);
        let check = |args: Args, error| refused(Call::Share, own.handle(), args, error);
        check([0, at, at + PAGE, 2 * PAGE, 0, 0], Error::Overlap);
        check([0, at, at, PAGE, 0, 0], Error::Overlap);
        check([0, at, at + PAGE, PAGE, 0, 0], Error::Occupied);
    });
    for handle in [read, nothing] {
        call(Call::HandleClose, handle, NOTHING).expect("close");
    }
    assert!(page.bytes().iter().all(|&byte| byte == 1));
}
