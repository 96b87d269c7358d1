//! A thread's registers while it does not run.

use cowslip_abi::{Error, MAX_RANGE, MessageKind, Tag};

use crate::vm::ByteRange;

/// General-purpose registers in the order in which the entry stubs push them, and the frame that
/// the processor pushes on an exception.
///
/// The entry stubs point the stack at the *end* of the current thread's `Registers`, so an entry
/// into the kernel saves straight into the thread object. The processor aligns that stack to 16
/// bytes, hence the alignment here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
#[expect(missing_docs, reason = "the fields are the registers of those names")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// Exception or interrupt vector, or [`Registers::SYSCALL`]: how the thread came in, and
    /// whether `sysretq` may take it out again.
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Registers {
    /// The `vector` of a thread that came in by `syscall`.
    pub const SYSCALL: u64 = 256;
    /// Selector of the user data segment with privilege level 3.
    pub const USER_SS: u64 = 0x1b;
    /// Selector of the user code segment with privilege level 3.
    pub const USER_CS: u64 = 0x23;
    /// Interrupts on, and the bit that is always one.
    pub const USER_RFLAGS: u64 = 0x202;

    /// The results that every message has: success, the tag and the length in bytes.
    #[inline]
    pub fn set_message(&mut self, tag: Tag, len_bytes: u64) {
        self.rax = 0;
        self.rsi = tag.0;
        self.rdx = len_bytes;
    }

    /// The results of a receive that found notification bits.
    pub fn set_notification(&mut self, bits: u64) {
        self.set_message(Tag::default().with_kind(MessageKind::Notification), 0);
        (self.rdi, self.r8) = (0, 0);
        self.set_words([bits, 0, 0, 0]);
    }

    /// The buffer for a message or a reply, in `r9` and `r10`, if it is a good one.
    #[inline]
    pub fn buffer(&self) -> Result<ByteRange, Error> {
        ByteRange::from_user(self.r9, self.r10, MAX_RANGE)
    }

    /// The four inline words of a message.
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        [self.r12, self.r13, self.r14, self.r15]
    }

    /// Sets the four inline words of a message.
    pub fn set_words(&mut self, words: [u64; 4]) {
        [self.r12, self.r13, self.r14, self.r15] = words;
    }
}
