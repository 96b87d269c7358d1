//! Test programs that run on the real system: named cases, each in a process of its own.
//!
//! In the spirit of xv6's `usertests`: a case is a function that panics when something is wrong. It
//! runs in a forked process, so whatever it breaks, leaks or is killed by is its own; afterwards the
//! free frames are counted, and a case that cost even one has failed. A debug build of the kernel counts
//! everything else again as well.
//!
//! ```ignore
//! //! What the program is about.
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! user_apps::scenarios![one_and_one_is_two];
//!
//! fn one_and_one_is_two() {
//!     assert_eq!(1 + 1, 2);
//! }
//! ```
//!
//! The program runs all of its cases, or those that its arguments name, and prints a line for each:
//! `test NAME ... ok`, or `test NAME ... FAILED` and in the lines below why (a panic's message comes
//! from the case itself, so it is in the lines above). One that failed is the last: it may have left
//! processes behind, and the host starts another machine for the others. The names also lie in an ELF section, where
//! the host finds them without running anything.

pub mod cpus;
pub mod fault;
pub mod frames;
pub mod hog;
pub mod memory;
pub mod peer;
pub mod rng;
pub mod server;
pub mod syscall;
pub mod twin;

use core::fmt;

use libipc::services::{self, procd::Ended};
use libipc::{println, process, start};

use frames::Frames;

/// Makes a program of cases: functions without arguments that panic when they fail.
#[macro_export]
macro_rules! scenarios {
    ($($case:ident),+ $(,)?) => {
        const NAMES_TEXT: &str = concat!($(stringify!($case), "\0"),+);

        /// The names of the cases, each ended by a zero byte.
        #[cfg_attr(target_os = "none", unsafe(link_section = ".cowslip.scenarios"))]
        #[used]
        static NAMES: [u8; NAMES_TEXT.len()] = $crate::scenario::bytes_of(NAMES_TEXT);

        fn run_scenarios() -> i32 {
            $crate::scenario::run(&NAMES, &[$($case as fn()),+])
        }

        libipc::program!(run_scenarios);
    };
}

/// The bytes of a text whose length is known, as a static can hold them.
#[must_use]
pub const fn bytes_of<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(text.as_bytes());
    bytes
}

/// Why a case failed.
enum Failure {
    /// The process could not be started or waited for.
    NotRun(services::Error),
    /// It ended with a status other than 0.
    Status(i32),
    /// It ended well, but frames are missing, or there are more than before.
    Frames { before: u64, after: u64 },
    /// The kernel's audit found this.
    Audit([u64; 4]),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Failure::NotRun(error) => write!(f, "the case could not be run: {error}"),
            Failure::Status(libipc::rt::PANIC_STATUS) => {
                write!(f, "the case panicked; its message is above")
            }
            Failure::Status(status) => write!(f, "the case ended with status {status}"),
            Failure::Audit([flaw, frame, counted, found]) => {
                write!(
                    f,
                    "the kernel's audit found flaw {flaw}: frame {frame:#x}, {counted} counted, {found} found"
                )
            }
            Failure::Frames { before, after } if after < before => {
                write!(
                    f,
                    "{} frames are lost: {before} before, {after} after",
                    before - after
                )
            }
            Failure::Frames { before, after } => {
                write!(
                    f,
                    "{} frames too many: {before} before, {after} after",
                    after - before
                )
            }
        }
    }
}

/// Runs the cases that the arguments name, or all; returns the exit status.
///
/// `names` are those of the cases in their order, each ended by a zero byte.
#[must_use]
pub fn run(names: &'static [u8], cases: &[fn()]) -> i32 {
    // Read where the program lies in memory, so that the linker keeps the section.
    let names = core::hint::black_box(names);
    let names = || {
        names
            .split(|&byte| byte == 0)
            .map(|name| core::str::from_utf8(name).unwrap_or("?"))
    };
    if let Some(unknown) = start::args()
        .skip(1)
        .find(|&arg| !names().any(|name| name == arg))
    {
        println!("no such case: {unknown}");
        return 2;
    }

    warm_up();
    for (name, &case) in names().zip(cases) {
        if start::args().nth(1).is_some() && !start::args().skip(1).any(|arg| arg == name) {
            continue;
        }
        match judge(case) {
            Ok(()) => println!("test {name} ... ok"),
            Err(failure) => {
                println!("test {name} ... FAILED");
                println!("    {failure}");
                return 1;
            }
        }
    }
    0
}

/// Goes once the way of every case, so that what the servers touch on it is theirs already.
fn warm_up() {
    let _ = frames::available();
    for _ in 0..2 {
        let _ = run_once(|| {});
    }
}

/// Runs a case and says whether it passed.
///
/// A case may be the first to make a server use a part of its own tables, whose pages get their
/// frames on first touch and keep them. That happens once; a leak happens each time. So a case that
/// cost frames runs again, and then the count must be exact.
fn judge(case: fn()) -> Result<(), Failure> {
    match run_once(case) {
        Err(Failure::Frames { .. }) => run_once(case),
        result => result,
    }
}

fn run_once(case: fn()) -> Result<(), Failure> {
    let before = frames::available();
    let pid = process::fork().map_err(Failure::NotRun)?;
    if pid == 0 {
        use_stack();
        case();
        process::exit(0);
    }
    let Ended { status, .. } = process::wait(pid).map_err(Failure::NotRun)?;
    frames::audit().map_err(Failure::Audit)?;
    if status != 0 {
        return Err(Failure::Status(status));
    }
    match Frames::expect(before) {
        Ok(()) => Ok(()),
        Err(after) => Err(Failure::Frames { before, after }),
    }
}

/// Fails the case unless `result` is this error.
#[track_caller]
pub fn assert_err<T, E: PartialEq + fmt::Debug>(result: Result<T, E>, expected: E) {
    match result {
        Ok(_) => panic!("succeeded instead of {expected:?}"),
        Err(error) => assert_eq!(error, expected),
    }
}

/// Writes to the part of the stack that cases use. Otherwise its pages take their frames, or are copied, wherever a case first
/// gets so deep, be it between two counts of the frames.
#[inline(never)]
fn use_stack() {
    let mut room = [0_u8; 16 * 1024];
    core::hint::black_box(&mut room);
}
