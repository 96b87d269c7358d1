//! A second address space under full control: a copy of this program, made without the process
//! server, in which a closure runs.
//!
//! The process server's fork hides the objects that cases about the kernel need to hold: the space,
//! the thread, and exactly which handles the other side has. A twin has this program's memory
//! copy-on-write, and the handles that it is given; its faults end it.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use libipc::abi::USER_END;
use libipc::object::{Entry, copy_handle};
use libipc::start::{MAX_EXTRA, StartInfo};
use libipc::thread::PRIORITY;
use libipc::{
    Commit, Endpoint, Error, Handle, PageBuffer, Received, Rights, ShareMode, Space, System,
    Thread, start,
};

use super::peer::until;

/// Size of a twin's stack in bytes.
const STACK: usize = 64 * 1024;

/// The bit that a twin raises when its closure has returned, and the one that its death raises.
const DONE: u64 = 1;
const DEAD: u64 = 2;

/// Numbers of twins, which keep handle owners apart.
static NEXT: AtomicU64 = AtomicU64::new(1);

type Body = Box<dyn FnOnce([Handle; MAX_EXTRA])>;

/// A handle for a twin: what, with which rights, with which badge (0: the handle's own).
#[derive(Clone, Copy, Debug)]
pub struct Gift(pub Handle, pub Rights, pub u64);

/// A copy of this program. Dropping it kills it.
#[derive(Debug)]
pub struct Twin {
    /// Its space.
    pub space: Space,
    /// Its first thread.
    pub thread: Thread,
    /// Where its end is told.
    end: Endpoint,
}

/// The right to create spaces, which the process server gives to processes that ask.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn system() -> System {
    libipc::process::system().expect("the process server hands out the system object")
}

/// Makes a copy of this program by the calls that the process server makes for a fork, and waits until it has ended. Its one thread
/// calls `run` with this argument, on a stack of its own; `end` is told of its end, and of nothing else.
///
/// # Errors
/// Those of the calls that it takes.
pub fn fork_and_wait(
    system: &System,
    end: &Endpoint,
    stack: &PageBuffer,
    run: extern "C" fn(u64) -> !,
    arg: u64,
) -> Result<(), Error> {
    let space = system.create_space(Some((end, DEAD)))?;
    // It may run where its creator may.
    let thread = space.create_thread(None, PRIORITY)?;
    let mode = ShareMode::CopyOnWrite;
    space.share(&Space::own(), 0, 0, USER_END, mode, None)?;
    thread.start(entry(run as *const () as u64, stack, [arg, 0, 0]))?;
    let ended = end.recv(&mut [])?;
    assert!(matches!(ended, Received::Notification(DEAD)));
    Ok(())
}

/// The beginning of a thread at the end of a stack.
fn entry(ip: u64, stack: &PageBuffer, args: [u64; 3]) -> Entry {
    Entry {
        ip,
        sp: stack.addr() + stack.mapped_len() as u64 - 8,
        args,
        fs_base: 0,
    }
}

impl Twin {
    /// Starts a twin that runs `body` with its own numbers of the handles it is given.
    ///
    /// What the closure captures is copied with the memory. Handle owners among it name nothing in
    /// the twin: handles go as gifts.
    ///
    /// # Panics
    /// When a call fails.
    #[track_caller]
    pub fn start(
        system: &System,
        gifts: &[Gift],
        body: impl FnOnce([Handle; MAX_EXTRA]) + 'static,
    ) -> Twin {
        Self::start_in(Commit::Overcommit, system, gifts, body)
    }

    /// The same in a space of this class.
    ///
    /// # Panics
    /// When a call fails.
    #[track_caller]
    pub fn start_in(
        class: Commit,
        system: &System,
        gifts: &[Gift],
        body: impl FnOnce([Handle; MAX_EXTRA]) + 'static,
    ) -> Twin {
        match Self::try_start(class, system, gifts, body) {
            Ok(twin) => twin,
            Err(error) => panic!("no twin: {error}"),
        }
    }

    /// [`Twin::start`] when failing is part of the case.
    ///
    /// # Errors
    /// Those of the calls that it takes.
    pub fn try_start(
        class: Commit,
        system: &System,
        gifts: &[Gift],
        body: impl FnOnce([Handle; MAX_EXTRA]) + 'static,
    ) -> Result<Twin, Error> {
        let end = Endpoint::create()?;
        let space = system.create_space(Some((&end, DEAD)))?;
        space.set_class(class)?;
        let thread = space.create_thread(None, PRIORITY)?;
        let body: Box<Body> = Box::new(Box::new(body));
        let stack = PageBuffer::new(STACK)?;
        let info = start_info(system, &space, &thread, &end, gifts)?;
        let mode = ShareMode::CopyOnWrite;
        space.share(&Space::own(), 0, 0, USER_END, mode, None)?;
        let args = [&raw const *body as u64, &raw const *info as u64, 0];
        thread.start(entry(enter as *const () as u64, &stack, args))?;
        Ok(Twin { space, thread, end })
    }

    /// Waits until the closure has returned and the twin is gone.
    ///
    /// # Panics
    /// When it was killed, or panicked.
    #[track_caller]
    pub fn join(self) {
        assert_eq!(self.wait(), DONE | DEAD, "the twin did not reach its end");
    }

    /// Ends the twin and waits until it is gone.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn kill(self) {
        self.space.kill().expect("kill");
        self.expect_killed();
    }

    /// Waits until the twin is gone.
    ///
    /// # Panics
    /// When its closure returned.
    #[track_caller]
    pub fn expect_killed(self) {
        assert_eq!(self.wait(), DEAD, "the twin was to be killed");
    }

    /// Waits until the twin's first thread is in this state.
    #[track_caller]
    pub fn until_state(&self, state: libipc::abi::ThreadState) {
        super::peer::until_state(&self.thread, state);
    }

    fn wait(&self) -> u64 {
        let mut bits = 0;
        while bits & DEAD == 0 {
            match self.end.recv(&mut []) {
                Ok(Received::Notification(raised)) => bits |= raised,
                other => panic!("instead of the twin's end: {other:?}"),
            }
        }
        until("end of a space", || {
            self.space.info().is_ok_and(|info| !info.alive)
        });
        bits
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.space.kill();
    }
}

/// What it starts with: what libipc needs to panic and map, and the gifts.
fn start_info(
    system: &System,
    space: &Space,
    thread: &Thread,
    end: &Endpoint,
    gifts: &[Gift],
) -> Result<Box<StartInfo>, Error> {
    let mut info = Box::new(StartInfo::EMPTY);
    info.pid = start::pid() | NEXT.fetch_add(1, Ordering::Relaxed) << 32;
    info.space = space.copy_to(space, Rights::SPACE, 0)?;
    info.thread = thread.copy_to(space, Rights::THREAD, 0)?;
    // What it prints goes to the kernel's log: the console's handle cannot be passed on.
    info.system = system.copy_to(space, Rights::OBSERVE, 0)?;
    info.inbox = end.copy_to(space, Rights::NOTIFY, DONE)?;
    for (extra, &Gift(handle, rights, badge)) in info.extra.iter_mut().zip(gifts) {
        *extra = copy_handle(handle, space.handle(), rights, badge)?;
    }
    Ok(info)
}

extern "C" fn enter(body: *mut Body, info: *const StartInfo) -> ! {
    // SAFETY: `Twin::try_start` left it there, in memory that the twin has a copy of.
    start::replace(unsafe { &*info });
    // SAFETY: `Twin::try_start` left the closure there, in memory that the twin has a copy of: the
    // box that it drops is another one.
    let body = unsafe { Box::from_raw(body) };
    body(start::extra());
    let _ = Endpoint::borrow(start::inbox()).notify();
    libipc::rt::thread_exit()
}
