//! What each CPU has of its own: stacks, descriptor tables, and who runs on it.
//!
//! `gs` points at the CPU's [`PerCpu`] while the kernel runs. Only its CPU writes one, and
//! only with interrupts off, so its fields are cells; what others read of it is atomic.

use core::{
    cell::{Cell, UnsafeCell},
    hint,
    mem::{MaybeUninit, offset_of},
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use kernel::{
    mm::{
        PhysAddr,
        asid::Asids,
        layout::{STACKS, STACKS_STRIDE},
    },
    object::{Cpu, Id, Pin, Registers, Seat, Thread},
    sync::{Door, Doors, Entrance, MAX_CPUS},
};
use x86_64::{
    VirtAddr,
    registers::model_specific::{GsBase, KernelGsBase},
};

use super::segments::Segments;

/// A word of what the CPU that runs this has of its own.
macro_rules! own {
    ($field:ident) => {{
        let value;
        core::arch::asm!("mov {}, gs:[{offset}]", out(reg) value,
            offset = const offset_of!(PerCpu, $field),
            options(pure, readonly, nostack, preserves_flags));
        value
    }};
}

/// No page-table root's address.
const NO_ROOT: u64 = u64::MAX;
/// Bytes of a CPU's kernel stack.
const STACK_LEN: usize = 32 * 1024;
/// Bytes of the stack that the kernel is brought up on. Without optimisation much more is moved about.
const BOOT_STACK_LEN: usize = if cfg!(debug_assertions) { 256 } else { 64 } * 1024;
/// Bytes of a stack for one of the vectors that cannot rely on any other stack.
const SPECIAL_STACK_LEN: usize = 8 * 1024;
/// How many such vectors there are: double fault, NMI, machine check.
pub const SPECIAL_STACKS: usize = 3;

const PAGE: usize = 4096;

/// A stack above a page that is left unmapped.
#[repr(C, align(4096))]
pub struct Stack<const LEN: usize> {
    guard: [u8; PAGE],
    room: UnsafeCell<MaybeUninit<[u8; LEN]>>,
}

// SAFETY: only the CPU that the stack belongs to uses it, and only as its stack.
unsafe impl<const LEN: usize> Sync for Stack<LEN> {}

impl<const LEN: usize> Stack<LEN> {
    const fn new() -> Self {
        Self {
            guard: [0; PAGE],
            room: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn guard(&self) -> u64 {
        self.guard.as_ptr() as u64
    }

    fn top(&self) -> u64 {
        self.room.get() as u64 + LEN as u64
    }
}

/// The stacks of one CPU.
#[repr(C)]
pub struct Stacks {
    kernel: Stack<STACK_LEN>,
    special: [Stack<SPECIAL_STACK_LEN>; SPECIAL_STACKS],
}

impl Stacks {
    const fn new() -> Self {
        Self {
            kernel: Stack::new(),
            special: [const { Stack::new() }; SPECIAL_STACKS],
        }
    }

    /// The pages that must not be mapped.
    fn guards(&self) -> [u64; 1 + SPECIAL_STACKS] {
        let [a, b, c] = self.special.each_ref().map(Stack::guard);
        [self.kernel.guard(), a, b, c]
    }

    /// The stacks of a CPU, which need not be mapped.
    fn of(number: usize) -> &'static Self {
        if number == 0 {
            return &BOOT_STACKS;
        }
        const {
            assert!(size_of::<Stacks>() as u64 <= STACKS_STRIDE);
        }
        let addr = STACKS + number as u64 * STACKS_STRIDE;
        // SAFETY: this is where this CPU's stacks are, and nothing else; whoever asks for them uses no
        // more than their addresses.
        unsafe { &*(addr as *const Self) }
    }

    /// Where the stacks of the special vectors start.
    fn special_tops(&self) -> [u64; SPECIAL_STACKS] {
        self.special.each_ref().map(Stack::top)
    }
}

/// The stacks of the CPU that boots.
pub static BOOT_STACKS: Stacks = Stacks::new();

/// The stack that the doors start on.
pub static BOOT_STACK: Stack<BOOT_STACK_LEN> = Stack::new();

/// Distance from the start of [`BOOT_STACK`] to where it is empty.
pub const BOOT_STACK_TOP: usize = PAGE + BOOT_STACK_LEN;

/// The pages below the stacks in the image, which must not be mapped.
pub fn boot_guards() -> [u64; 2 + SPECIAL_STACKS] {
    let [a, b, c, d] = BOOT_STACKS.guards();
    [BOOT_STACK.guard(), a, b, c, d]
}

/// The pages to be mapped for the stacks of a CPU that is not the first.
pub fn stack_pages(number: usize) -> impl Iterator<Item = u64> {
    let stacks = Stacks::of(number);
    let (start, guards) = (stacks as *const Stacks as u64, stacks.guards());
    (start..start + size_of::<Stacks>() as u64)
        .step_by(PAGE)
        .filter(move |page| !guards.contains(page))
}

/// Where the kernel's stack of a CPU starts.
pub fn stack_top(number: usize) -> u64 {
    Stacks::of(number).kernel.top()
}

/// Whether an address is on the kernel's stack of a CPU.
pub fn is_on_stack(number: usize, addr: u64) -> bool {
    let top = stack_top(number);
    (top - STACK_LEN as u64..top).contains(&addr)
}

/// One CPU's own data. The entry code knows the first fields by their offsets.
#[repr(C)]
pub struct PerCpu {
    this: Cell<*const PerCpu>,
    /// Where the kernel's stack starts on every entry.
    kernel_stack: Cell<u64>,
    /// The user's stack pointer, for a moment.
    user_rsp: Cell<u64>,
    /// The CPU's number, counted from 0.
    number: Cell<usize>,
    /// The physical address of the page-table root in use; 0: the boot loader's. Others read it.
    root: AtomicU64,
    /// The same of the one that is still loaded while `root` says which comes next, or [`NO_ROOT`]. Others read it.
    leaving: AtomicU64,
    /// The base of `fs` in use.
    pub fs_base: Cell<u64>,
    /// The thread whose state the vector registers hold, and which may use them.
    pub fpu_owner: Cell<Option<Id<Thread>>>,
    /// When the timer is set to interrupt, in nanoseconds since boot.
    pub timer: Cell<Option<u64>>,
    /// Where it is said which thread runs on it.
    running: Cell<*const Pin<Thread>>,
    /// What the scheduler knows of it.
    cpu: Cell<*mut Cpu>,
    /// Where registers go that are nobody's any more.
    nowhere: UnsafeCell<MaybeUninit<Registers>>,
    /// Descriptor tables.
    pub segments: Segments,
    /// Where it goes in to share the kernel. Others shut it.
    door: Door,
    /// What its TLB knows of page tables that it does not use.
    pub asids: Asids,
}

/// Offsets for the entry code.
pub mod offset {
    use super::{PerCpu, Segments, offset_of};

    /// Of the kernel stack's top.
    pub const KERNEL_STACK: usize = offset_of!(PerCpu, kernel_stack);
    /// Of the pointer to the end of the running thread's registers.
    pub const ENTRY_STACK: usize = offset_of!(PerCpu, segments) + Segments::ENTRY_STACK;
    /// Of the place for the user's stack pointer.
    pub const USER_RSP: usize = offset_of!(PerCpu, user_rsp);
}

// SAFETY: each CPU uses only its own, see the module's description.
unsafe impl Sync for PerCpu {}

static ALL: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

impl PerCpu {
    const fn new() -> Self {
        Self {
            this: Cell::new(core::ptr::null()),
            kernel_stack: Cell::new(0),
            user_rsp: Cell::new(0),
            number: Cell::new(0),
            root: AtomicU64::new(0),
            leaving: AtomicU64::new(NO_ROOT),
            fs_base: Cell::new(0),
            fpu_owner: Cell::new(None),
            timer: Cell::new(None),
            running: Cell::new(core::ptr::null()),
            cpu: Cell::new(core::ptr::null_mut()),
            nowhere: UnsafeCell::new(MaybeUninit::zeroed()),
            segments: Segments::new(),
            door: Door::new(),
            asids: Asids::new(),
        }
    }

    /// The data of the CPU that runs this.
    pub fn get() -> &'static PerCpu {
        let this: *const PerCpu;
        // SAFETY: `gs` points at this CPU's data from `init` on, and its first field at itself.
        unsafe {
            core::arch::asm!("mov {}, gs:[0]", out(reg) this,
                options(nostack, readonly, preserves_flags));
            &*this
        }
    }

    /// The number of the CPU that runs this.
    #[inline(always)]
    pub fn number() -> usize {
        // SAFETY: this is the field, and the number that of a CPU.
        unsafe {
            let number = own!(number);
            hint::assert_unchecked(number < MAX_CPUS);
            number
        }
    }

    /// Says where the CPU finds what it has of the kernel.
    pub fn set_seat(&self, seat: Seat) {
        self.running.set(seat.running);
        self.cpu.set(seat.cpu);
    }

    /// What the CPU that runs this has of the kernel.
    #[inline(always)]
    pub fn seat() -> Seat {
        // SAFETY: these are the fields.
        unsafe {
            Seat {
                running: own!(running),
                cpu: own!(cpu),
            }
        }
    }

    /// The physical address of the page-table root that a CPU uses.
    pub fn root_of(number: usize) -> PhysAddr {
        PhysAddr(ALL[number].root.load(Acquire))
    }

    /// The physical address of the root that a CPU still has loaded, if it is to use another one, which was [seen](Self::root_of) before.
    #[inline(always)]
    pub fn left_by(number: usize) -> Option<PhysAddr> {
        let leaving = ALL[number].leaving.load(Acquire);
        (leaving != NO_ROOT).then_some(PhysAddr(leaving))
    }

    /// Notes the page-table root that is to be used, while the last one stays loaded until the CPU [arrives](Self::arrive).
    pub fn leave_for(&self, root: PhysAddr) {
        let last = self.root.load(Relaxed);
        if last == root.0 {
            return;
        }
        // What is loaded is another one if it was left before.
        if self.leaving.load(Relaxed) == NO_ROOT {
            self.leaving.store(last, Relaxed);
        }
        // Whoever sees this sees that.
        self.root.store(root.0, Release);
    }

    /// Does `load` with the page-table root that the CPU has left another one for, if it has.
    #[inline(always)]
    pub fn arrive(&self, load: impl FnOnce(PhysAddr)) {
        if self.leaving.load(Relaxed) != NO_ROOT {
            load(PhysAddr(self.root.load(Relaxed)));
            self.leaving.store(NO_ROOT, Release);
        }
    }

    /// The same, or `None` where it is too early for it.
    pub fn try_get() -> Option<&'static PerCpu> {
        (GsBase::read().as_u64() >> 63 != 0).then(Self::get)
    }

    /// Sends the next entry from user mode to this thread's registers.
    #[inline]
    pub fn set_registers(registers: *const Registers) {
        let end = registers.wrapping_add(1);
        // SAFETY: this is the task state's field; nobody else uses it.
        unsafe {
            core::arch::asm!("mov gs:[{offset}], {end}", offset = const offset::ENTRY_STACK,
                end = in(reg) end, options(nostack, preserves_flags));
        }
    }

    /// The thread that has run here was taken away: what the entry code still saves of it goes nowhere, as the thread may be
    /// no more.
    pub fn lose_registers(&self) {
        Self::set_registers(self.nowhere.get().cast());
    }

    /// The same of the CPU that runs this.
    #[inline(always)]
    pub fn root() -> PhysAddr {
        // SAFETY: this is the field.
        PhysAddr(unsafe { own!(root) })
    }

    /// Notes the physical address of the page-table root that is to be used, and returns the last
    /// one.
    #[inline]
    pub fn replace_root(root: u64) -> u64 {
        let last;
        // SAFETY: this is the field `root`, a cell.
        unsafe {
            core::arch::asm!("mov {last}, gs:[{offset}]", "mov gs:[{offset}], {root}",
                offset = const offset_of!(PerCpu, root), last = out(reg) last, root = in(reg) root,
                options(nostack, preserves_flags));
        }
        last
    }

    /// Whether a thread has run here.
    pub fn has_run(&self) -> bool {
        self.segments.entry_stack() != 0
    }

    /// The registers of the thread that ran last; before the first one they are nowhere.
    #[inline]
    pub fn registers(&self) -> *mut Registers {
        (self.segments.entry_stack() as *mut Registers).wrapping_sub(1)
    }
}

/// The doors through which CPUs share the kernel.
pub struct CpuDoors;

impl Doors for CpuDoors {
    fn of(&self, cpu: usize) -> &Door {
        &ALL[cpu].door
    }
}

/// The door of the CPU that runs this: what [`Door`] does as an entrance, without a register to point at it.
#[derive(Clone, Copy)]
pub struct OwnDoor;

impl Entrance for OwnDoor {
    #[inline(always)]
    fn enter(&self) -> bool {
        // SAFETY: this is the field `door`, a word. What follows in the program stays behind this.
        unsafe {
            core::arch::asm!("lock bts dword ptr gs:[{door}], {barred}", "jc {shut}",
                door = const offset_of!(PerCpu, door), barred = const Door::BARRED.trailing_zeros(),
                shut = label { return false }, options(nostack));
        }
        true
    }

    #[inline(always)]
    fn leave(&self) {
        // SAFETY: as above; what comes before it in the program stays before it.
        unsafe {
            core::arch::asm!("mov dword ptr gs:[{door}], {open}",
                door = const offset_of!(PerCpu, door), open = const Door::OPEN,
                options(nostack, preserves_flags));
        }
    }
}

/// Makes the CPU that runs this the owner of its data, and loads its descriptor tables.
pub fn init(number: usize) {
    let (cpu, stacks) = (&ALL[number], Stacks::of(number));
    cpu.this.set(cpu);
    cpu.number.set(number);
    cpu.kernel_stack.set(stacks.kernel.top());
    // Loading segments clears the base of `gs`, so it comes second.
    cpu.segments.load(stacks.special_tops());
    GsBase::write(VirtAddr::from_ptr(cpu));
    KernelGsBase::write(VirtAddr::zero());
}
