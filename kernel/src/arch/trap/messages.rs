//! Ordinary messages and notifications: the short ways from one thread to another.
//!
//! Each function is for one shape of message, which the entry code has found out. They return no registers if it is no ordinary one;
//! then nothing has happened.

use core::{cell::Cell, hint, mem, ptr::NonNull};

use kernel::{
    object::{Here, Kernel, Thread, Way},
    sync::{Held, Rank},
};

use super::{
    super::{
        clock, entry,
        hold::{KERNEL, go_in, lock, settle},
        percpu::{OwnDoor, PerCpu},
    },
    Resumed, switch_fast,
};

/// A thread sends label and words: if it is an ordinary message, returns the registers of the
/// receiver, who runs next.
pub extern "C" fn fast_send() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send(clock::ticks, switch_fast)
    })
}

/// The same if one of the two may not run on every CPU.
pub extern "C" fn fast_send_bound() -> Resumed {
    share_second(Way::Send, |mut here| {
        here.fast_send_bound(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send`] for a message without bytes, but with room for some.
pub extern "C" fn fast_send_room() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send_room(clock::ticks, switch_fast)
    })
}

/// The same for a message with bytes that can be copied where they are.
pub extern "C" fn fast_send_bytes() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send_bytes(clock::ticks, switch_fast)
    })
}

/// The same for a message with bytes, wherever they are.
pub extern "C" fn fast_send_pages() -> Resumed {
    alone(Way::Send, true, |kernel| {
        kernel.here().fast_send_pages(clock::ticks, switch_fast)
    })
}

/// The same for a message with handles: an ordinary one has one, which moves. The word with the
/// handle is in the frame, before and after.
pub extern "C" fn fast_send_handle() -> Resumed {
    alone(Way::Send, false, |kernel| {
        kernel.fast_send_handle(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send`] for a reply that is followed by a receive. If that lets a faulted thread go on, it does, and
/// this does not return.
pub extern "C" fn fast_reply_recv() -> Resumed {
    let has_faulted = Cell::new(false);
    let resume = |thread: &Thread| {
        has_faulted.set(true);
        switch_fast(thread)
    };
    let next = share(Way::Receive, |mut here| {
        here.fast_reply_recv(clock::ticks, switch_fast, resume)
    })?;
    if has_faulted.get() {
        // SAFETY: these are the registers of the thread that runs now, and complete. The kernel is not shared any more.
        unsafe { entry::resume(next.as_ptr()) };
    }
    Some(next)
}

/// The same if one of the two may not run on every CPU.
pub extern "C" fn fast_reply_recv_bound() -> Resumed {
    share_second(Way::Receive, |mut here| {
        here.fast_reply_recv_bound(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_room`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_room() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_reply_recv_room(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_bytes`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_bytes() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_reply_recv_bytes(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_pages`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_pages() -> Resumed {
    alone(Way::Receive, true, |kernel| {
        kernel
            .here()
            .fast_reply_recv_pages(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_handle`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_handle() -> Resumed {
    alone(Way::Receive, false, |kernel| {
        kernel.fast_reply_recv_handle(clock::ticks, switch_fast)
    })
}

/// A thread raises bits: if that is all there is to it, returns its own registers.
pub extern "C" fn fast_notify() -> Resumed {
    share(Way::Notify, |mut here| {
        Some(NonNull::from(&here.fast_notify()?.regs))
    })
}

/// A thread receives a notification, or waits and lets another run: returns the registers of
/// whoever runs now, which are complete.
pub extern "C" fn fast_recv() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_recv(clock::ticks).map(switch_fast)
    })
}

/// Does what a thread asks of an endpoint at the same time as other CPUs. Nothing that waits may come before this.
#[inline(always)]
fn share(way: Way, call: impl FnOnce(Here<'_>) -> Resumed) -> Resumed {
    let mut shared = KERNEL.share(OwnDoor);
    loop {
        if let Some(shared) = shared {
            // SAFETY: the kernel is shared, and no other CPU has this seat.
            let here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
            // SAFETY: nobody takes a thread from a CPU that has not waited, and `prepare` looks whether it is still here.
            unsafe { hint::assert_unchecked(here.running.id().is_some()) };
            if here.knows_way(way) {
                return call(here);
            }
        }
        if !prepare(way) {
            return None;
        }
        // SAFETY: so the CPU has gone in, and nothing stands for that yet.
        shared = Some(unsafe { KERNEL.shared(OwnDoor) });
    }
}

/// Waits until no CPU has the kernel alone, and lets the thread find out where its call goes. Returns whether it is worth to
/// try again: the thread is still here, and has the right to go there. Then the CPU shares the kernel, as it could not
/// say when it gets in again.
#[cold]
#[inline(never)]
fn prepare(way: Way) -> bool {
    let shared = go_in(OwnDoor);
    // SAFETY: as above.
    let mut here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
    if here.running.id().is_none() {
        PerCpu::get().lose_registers();
        return false;
    }
    let knows_way = here.knows_way(way) || here.find_way(way);
    if knows_way {
        mem::forget(shared);
        Held::pass_on(Rank::Kernel);
    }
    knows_way
}

/// The same as [`share`] for what is tried second, when the thread may be gone.
#[inline(always)]
fn share_second(way: Way, call: impl FnOnce(Here<'_>) -> Resumed) -> Resumed {
    let shared = KERNEL.share(OwnDoor)?;
    // SAFETY: as above.
    let here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
    if here.knows_way(way) {
        call(here)
    } else {
        None
    }
}

/// Does what a thread asks of an endpoint, and has the kernel alone; if it uses page tables, after having settled. What waits may come
/// before this.
#[inline(always)]
fn alone(way: Way, uses_tables: bool, call: impl FnOnce(&mut Kernel) -> Resumed) -> Resumed {
    let mut guard = lock();
    if uses_tables {
        settle();
    }
    guard.current()?;
    if guard.here().knows_way(way) || guard.here().find_way(way) {
        call(&mut guard)
    } else {
        None
    }
}
