//! The local APIC: end of interrupt, the timer, measuring clocks, and interrupting other CPUs.
//!
//! The registers are used through memory (xAPIC), which every x86-64 CPU can do, unless there are CPUs
//! that can be called only the other way (x2APIC), by registers of their own. The timer runs
//! once, from a deadline in nanoseconds.

use core::{
    arch::x86_64::_mm_mfence,
    hint, ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed},
};

use kernel::mm::PhysAddr;
use x86_64::{instructions::port::Port, registers::model_specific::Msr};

use super::{clock, cpu, paging, percpu::PerCpu};

/// Vector of the timer.
pub const TIMER: u8 = 0xf0;
/// Vector by which another CPU [asks](super::smp) for something.
pub const REQUEST: u8 = 0xf1;
/// Vector by which another CPU says that there may be something else to run.
pub const LOOK: u8 = 0xf2;
/// Vector of the local APIC's own errors.
pub const ERROR: u8 = 0xfe;
/// Vector of interrupts that went away before they were taken.
pub const SPURIOUS: u8 = 0xff;

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const ERROR_STATUS: usize = 0x280;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const LVT_ERROR: usize = 0x370;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const MASKED: u32 = 1 << 16;
const ENABLE: u32 = 1 << 8;
const DIVIDE_BY_ONE: u32 = 0b1011;
const TO_SELF: u32 = 1 << 18;
const TO_ALL_OTHERS: u32 = 0b11 << 18;
const NMI: u32 = 0b100 << 8;
const INIT: u32 = 0b101 << 8;
const STARTUP: u32 = 0b110 << 8;
const ASSERT: u32 = 1 << 14;
/// The last command is under way.
const BUSY: u32 = 1 << 12;

const BASE_MSR: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

/// Where the registers are; the same on every CPU, each of which finds its own there.
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// The registers are model-specific ones.
static X2APIC: AtomicBool = AtomicBool::new(false);
/// The first of them.
const X2APIC_MSRS: u32 = 0x800;
/// Numbers from here on can be called only with them.
const FIRST_X2APIC_ID: u32 = 0xff;
/// Timer ticks in a nanosecond, in 2^-32.
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// Maps the registers at this physical address, and chooses how to use them: so that these CPUs can be
/// called, or as x2APIC if that is wanted anyway, as an experiment.
pub fn map(addr: PhysAddr, cpus: &[u32], wants_x2apic: bool) {
    REGISTERS.store(paging::map_device(addr, 4096), Relaxed);
    let is_needed = wants_x2apic || cpus.iter().any(|&id| id >= FIRST_X2APIC_ID);
    let is_used = is_needed && cpu::features().x2apic;
    X2APIC.store(is_used, Relaxed);
    if is_needed {
        log::info!("x2APIC: {}", if is_used { "on" } else { "not there" });
    }
}

/// Switches this CPU's local APIC on, with its timer stopped.
pub fn init() {
    let mut base = Msr::new(BASE_MSR);
    let x2apic = X2APIC.load(Relaxed);
    // SAFETY: every x86-64 CPU has the register, and those that have x2APIC mode know its bit. Into that
    // mode there is no way but through xAPIC, and back none but through "off": firmware may be there already.
    unsafe {
        let value = base.read();
        let was_x2apic = value & BASE_X2APIC != 0;
        if was_x2apic && !x2apic {
            base.write(value & !(BASE_X2APIC | BASE_ENABLE));
        }
        if !(was_x2apic && x2apic) {
            base.write(value & !BASE_X2APIC | BASE_ENABLE);
        }
        if x2apic {
            base.write(value | BASE_X2APIC | BASE_ENABLE);
        }
    }
    // First: one that is off, as after a reset, keeps all its own interrupts masked, whatever is written there.
    write(SPURIOUS_VECTOR, ENABLE | u32::from(SPURIOUS));
    write(LVT_LINT0, MASKED);
    write(LVT_ERROR, u32::from(ERROR));
    write(DIVIDE, DIVIDE_BY_ONE);
    write(LVT_TIMER, u32::from(TIMER));
    write(TASK_PRIORITY, 0);
    write(END_OF_INTERRUPT, 0);
    for own in [LVT_TIMER, LVT_ERROR] {
        assert!(
            read(own) & MASKED == 0,
            "local APIC: an interrupt of its own stays masked"
        );
    }
}

/// The number by which interrupts are sent to this CPU.
pub fn id() -> u32 {
    if X2APIC.load(Relaxed) {
        read(ID)
    } else {
        read(ID) >> 24
    }
}

/// Interrupts the CPU with this [number](id).
pub fn send(id: u32, vector: u8) {
    command(id, u32::from(vector));
}

/// Makes a CPU wait for [`send_startup`], as after a reset.
pub fn send_init(id: u32) {
    command(id, INIT | ASSERT);
}

/// Makes a CPU that waits start in real mode, at the beginning of a page below 1 MiB.
pub fn send_startup(id: u32, page: u64) {
    command(id, STARTUP | ASSERT | (page >> 12) as u32);
}

/// Interrupts all other CPUs, whether they let interrupts in or not.
pub fn send_nmi_to_others() {
    command(0, NMI | ASSERT | TO_ALL_OTHERS);
}

/// Tells that the interrupt is dealt with.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// What went wrong since the last call.
pub fn errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

/// Interrupts this CPU with a vector, once interrupts are on.
pub fn send_to_self(vector: u8) {
    command(0, TO_SELF | u32::from(vector));
}

/// Arms the timer for a time in nanoseconds since boot, or stops it.
pub fn set_timer(cpu: &PerCpu, deadline_ns: Option<u64>) {
    if cpu.timer.replace(deadline_ns) != deadline_ns {
        write(INITIAL_COUNT, deadline_ns.map_or(0, ticks_until));
    }
}

/// The timer has run out.
pub fn timer_fired(cpu: &PerCpu) {
    cpu.timer.set(None);
}

/// At least one tick, and no more than the timer can count: it may interrupt early.
fn ticks_until(deadline_ns: u64) -> u32 {
    let ns = deadline_ns.saturating_sub(clock::now_ns());
    let ticks = (u128::from(ns) * u128::from(TICKS_PER_NS.load(Relaxed))) >> 32;
    u32::try_from(ticks + 1).unwrap_or(u32::MAX)
}

/// Measures the rates of the time-stamp counter and of the timer by the one clock whose rate is
/// known, the programmable interval timer, and returns them in ticks per second.
pub fn calibrate() -> (u64, u64) {
    /// Ticks of the interval timer to measure for: 1.5 ms.
    const SPAN: u16 = 1790;
    /// Far more readings than fit into the time.
    const PATIENCE: u32 = 1 << 24;
    write(LVT_TIMER, MASKED);
    write(INITIAL_COUNT, u32::MAX);
    let mut pit = IntervalTimer::start();
    let first = Sample::best(&mut pit);
    for _ in 0..PATIENCE {
        if first.pit - pit.read() >= SPAN {
            break;
        }
        hint::spin_loop();
    }
    let last = Sample::best(&mut pit);
    write(INITIAL_COUNT, 0);
    let span = u64::from(first.pit - last.pit);
    assert!(span != 0, "the interval timer stands still: no clock");
    let tsc = (last.tsc - first.tsc) * IntervalTimer::HZ / span;
    let timer = u64::from(first.timer - last.timer) * IntervalTimer::HZ / span;
    TICKS_PER_NS.store(((u128::from(timer) << 32) / 1_000_000_000) as u64, Relaxed);
    write(LVT_TIMER, u32::from(TIMER));
    (tsc, timer)
}

/// Three clocks at one moment.
struct Sample {
    tsc: u64,
    timer: u32,
    pit: u16,
}

impl Sample {
    /// The sample that took the least time of a few: one that was not disturbed.
    fn best(pit: &mut IntervalTimer) -> Self {
        let samples = core::array::from_fn::<_, 5, _>(|_| {
            let begin = clock::ticks();
            let sample = Sample {
                pit: pit.read(),
                timer: read(CURRENT_COUNT),
                tsc: clock::ticks(),
            };
            (sample.tsc - begin, sample)
        });
        let best = samples.into_iter().min_by_key(|(took, _)| *took);
        best.map(|(_, sample)| sample).expect("there are samples")
    }
}

/// Channel 2 of the 8254, which counts down from 65535 without interrupting anybody.
struct IntervalTimer {
    data: Port<u8>,
    command: Port<u8>,
}

impl IntervalTimer {
    const HZ: u64 = 1_193_182;

    fn start() -> Self {
        let mut timer = Self {
            data: Port::new(0x42),
            command: Port::new(0x43),
        };
        let mut gate = Port::<u8>::new(0x61);
        // SAFETY: these are the interval timer's ports and its gate, which the kernel owns at boot.
        unsafe {
            // Gate open, loudspeaker off.
            let bits = gate.read();
            gate.write(bits & !2 | 1);
            timer.command.write(0b1011_0000);
            timer.data.write(0xff);
            timer.data.write(0xff);
        }
        timer
    }

    fn read(&mut self) -> u16 {
        // SAFETY: as in `start`.
        unsafe {
            self.command.write(0b1000_0000);
            let low = self.data.read();
            u16::from_le_bytes([low, self.data.read()])
        }
    }
}

/// Sends an interrupt.
fn command(id: u32, what: u32) {
    if X2APIC.load(Relaxed) {
        let mut register = Msr::new(x2apic_msr(COMMAND_LOW));
        // SAFETY: the mode is on; the vectors that are sent have handlers. Unlike with memory, a write
        // does not wait for those before it by itself.
        unsafe {
            _mm_mfence();
            register.write(u64::from(id) << 32 | u64::from(what));
        }
        return;
    }
    while read(COMMAND_LOW) & BUSY != 0 {
        hint::spin_loop();
    }
    write(COMMAND_HIGH, id << 24);
    write(COMMAND_LOW, what);
}

const fn x2apic_msr(register: usize) -> u32 {
    X2APIC_MSRS + (register >> 4) as u32
}

fn read(register: usize) -> u32 {
    if X2APIC.load(Relaxed) {
        // SAFETY: the mode is on, and reading these has no effect on memory.
        return unsafe { Msr::new(x2apic_msr(register)).read() as u32 };
    }
    // SAFETY: `map` has mapped the registers, and reading these has no effect on memory.
    unsafe {
        REGISTERS
            .load(Relaxed)
            .add(register)
            .cast::<u32>()
            .read_volatile()
    }
}

fn write(register: usize, value: u32) {
    if X2APIC.load(Relaxed) {
        // SAFETY: the mode is on; the vectors that are written have handlers.
        return unsafe { Msr::new(x2apic_msr(register)).write(value.into()) };
    }
    // SAFETY: `map` has mapped the registers; the vectors that are written have handlers.
    unsafe {
        REGISTERS
            .load(Relaxed)
            .add(register)
            .cast::<u32>()
            .write_volatile(value)
    }
}
