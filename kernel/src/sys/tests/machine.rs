//! A machine for tests: simulated memory, a clock that tests set, and threads that make calls.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cowslip_abi::{Access, Call, Error, Handle, MessageKind, Perm, Rights, Tag};

use crate::mm::sim::SimMemory;
use crate::mm::{Frame, Mm};
use crate::object::{
    Id, Kernel, LINKS, Object, Registers, Space, Special, Start, State, Supervisor, Thread,
};
use crate::platform::Platform;
use crate::{sys, vm};

/// Where every test thread has `BUFFER_LEN` bytes of memory.
pub(super) const BUFFER: u64 = 0x10_0000;
pub(super) const BUFFER_LEN: u64 = 0x8000;

/// What programs begin with: nothing runs them.
pub(super) const START: Start = Start {
    ip: 0x1000,
    sp: 0x2000,
    args: [0; 3],
    fs_base: 0,
};

/// Three in every order.
pub(super) const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// A platform with nothing behind it.
#[derive(Default)]
pub(super) struct FakePlatform {
    pub now_ns: AtomicU64,
    /// The CPUs that were interrupted, a bit each.
    pub kicked: AtomicU64,
    /// The CPUs that were made to wait for the kernel, a bit each.
    pub halted: AtomicU64,
    /// Whether other CPUs run threads.
    pub has_others: AtomicBool,
    /// How many CPUs work apart, until one is waited for.
    pub nr_apart: AtomicU64,
}

impl Platform for FakePlatform {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }
    fn now_ticks(&self) -> u64 {
        self.now_ns()
    }
    fn ticks_per_s(&self) -> u64 {
        1_000_000_000
    }
    fn ticks_to_ns(&self, ticks: u64) -> u64 {
        ticks
    }
    fn kick(&self, cpu: usize) {
        self.kicked.fetch_or(1 << cpu, Ordering::Relaxed);
    }
    fn halt(&self, cpu: usize) {
        self.halted.fetch_or(1 << cpu, Ordering::Relaxed);
    }
    fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Relaxed)
    }
    fn settle(&self) -> bool {
        self.nr_apart.swap(0, Ordering::Relaxed) != 0
    }
    fn retire(&self, _root: Frame) {}
    fn interrupt_exists(&self, line: u32) -> bool {
        line < 24
    }
    fn interrupt_enable(&self, _line: u32, _enabled: bool) {}
    fn port_read(&self, port: u16, _width: u64) -> u32 {
        port.into()
    }
    fn port_write(&self, _port: u16, _width: u64, _value: u32) {}
    fn log(&self, _text: &[u8]) {}
    fn shutdown(&self, _status: u64) {}
}

/// A kernel over simulated memory.
pub(super) struct Machine {
    pub kernel: Kernel,
    pub platform: &'static FakePlatform,
    memory: *mut SimMemory,
    booted_free: u64,
    marks: Cell<u64>,
}

/// A thread in a space of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub space: Id<Space>,
    pub thread: Id<Thread>,
}

impl Machine {
    pub(super) fn new(nr_frames: usize) -> Self {
        let memory = Box::into_raw(Box::new(SimMemory::new(nr_frames)));
        // SAFETY: `memory` is freed in `drop`, after the kernel's last use of it.
        let mm: &'static Mm = unsafe { (*memory).mm() };
        let platform: &'static FakePlatform = Box::leak(Box::default());
        let kernel = Kernel::new(mm, platform);
        let booted_free = mm.frames.free_count() + mm.counts.nodes();
        Self {
            kernel,
            platform,
            memory,
            booted_free,
            marks: Cell::new(0),
        }
    }

    /// A machine with more CPUs than one.
    pub(super) fn with_cpus(nr_frames: usize, nr_cpus: usize) -> Self {
        let mut machine = Self::new(nr_frames);
        (1..nr_cpus).for_each(|cpu| machine.kernel.bring_online(cpu));
        machine
    }

    /// A CPU comes into the kernel and looks who runs next. Returns who does.
    pub(super) fn look(&mut self, cpu: usize) -> Option<Id<Thread>> {
        self.kernel.enter(cpu);
        sys::next(&mut self.kernel).thread
    }

    /// A program with a writable buffer, its pages marked with bytes that no other page has.
    pub(super) fn program(&mut self) -> Program {
        self.supervised_program(None)
    }

    pub(super) fn supervised_program(&mut self, supervisor: Option<Supervisor>) -> Program {
        let space = self.kernel.create_space(None, None).unwrap();
        let thread = self.kernel.create_thread(space, supervisor, 16).unwrap();
        let table = &self.kernel.spaces.get(space).unwrap().table;
        table
            .map_zero(self.kernel.mm, BUFFER, BUFFER_LEN, Perm::RW)
            .unwrap();
        for page in (BUFFER..BUFFER + BUFFER_LEN).step_by(4096) {
            self.marks.set(self.marks.get() + 1);
            let mark = self.marks.get().to_le_bytes();
            vm::write_user(self.kernel.mm, table, page, &mark).unwrap();
        }
        self.kernel.start_thread(thread, &START).unwrap();
        Program { space, thread }
    }

    /// Makes a call as `program`; `None` while it waits for its result.
    pub(super) fn call(
        &mut self,
        program: Program,
        call: Call,
        handle: Handle,
        args: [u64; 6],
    ) -> Option<Result<Registers, Error>> {
        let rax = call as u64 | u64::from(handle.0) << 32;
        self.raw_call(program.thread, rax, args);
        while self.is_long(program.thread) {
            self.step(program.thread);
        }
        self.result(program.thread)
    }

    /// Makes a call that takes more than one step, and takes the first.
    pub(super) fn begin(&mut self, program: Program, call: Call, handle: Handle, args: [u64; 6]) {
        let rax = call as u64 | u64::from(handle.0) << 32;
        self.raw_call(program.thread, rax, args);
        assert!(self.is_long(program.thread), "one step was enough");
    }

    /// Whether a thread is in the middle of a call.
    pub(super) fn is_long(&self, thread: Id<Thread>) -> bool {
        let thread = self.kernel.threads.get(thread);
        thread.is_some_and(|thread| thread.special.contains(Special::LONG))
    }

    /// Lets a thread go on with its call.
    pub(super) fn step(&mut self, thread: Id<Thread>) {
        self.run(thread);
        sys::syscall(&mut self.kernel);
        self.assert_settled();
    }

    /// Makes a call that must succeed at once.
    pub(super) fn ok(
        &mut self,
        program: Program,
        call: Call,
        handle: Handle,
        args: [u64; 6],
    ) -> Registers {
        let result = self.call(program, call, handle, args);
        result
            .expect("the call blocked")
            .unwrap_or_else(|error| panic!("{call:?}: {error}"))
    }

    /// Makes a call that must fail at once.
    pub(super) fn error(
        &mut self,
        program: Program,
        call: Call,
        handle: Handle,
        args: [u64; 6],
    ) -> Error {
        self.call(program, call, handle, args)
            .expect("the call blocked")
            .unwrap_err()
    }

    /// Enters the kernel as `thread` would.
    pub(super) fn raw_call(&mut self, thread: Id<Thread>, rax: u64, args: [u64; 6]) {
        self.run(thread);
        assert!(!self.is_long(thread), "the thread has a call to make");
        let regs = &mut self.kernel.threads.get_mut(thread).unwrap().regs;
        [regs.rdi, regs.rsi, regs.rdx, regs.r8, regs.r9, regs.r10] = args;
        regs.rax = rax;
        sys::syscall(&mut self.kernel);
        self.assert_settled();
    }

    /// Checks that every thread has the priority that it has by those next to it, unless that is being worked out, or
    /// there are so many threads that a rise may not have come to all of them.
    pub(super) fn assert_settled(&self) {
        if !self.kernel.is_settled() || self.kernel.threads.len() > usize::from(LINKS) {
            return;
        }
        let mut index = 0;
        while let Some(id) = self.kernel.threads.next_id(index) {
            index = id.index() + 1;
            let thread = self.kernel.threads.get(id).unwrap();
            let due = self.kernel.due_priority(id);
            assert_eq!(due, Some((thread.floor, thread.priority)), "{id:?}");
        }
    }

    /// Lets the running thread fault at an address, as the entry code would.
    pub(super) fn page_fault(&mut self, address: u64, access: Access) {
        if let Some(fault) = sys::page_fault(&self.kernel, address, access)
            && self.kernel.here().fast_fault(fault, || 0).is_none()
        {
            sys::report(&mut self.kernel, fault);
        }
    }

    /// What a thread's last call came to; `None` while it waits or when it is gone.
    pub(super) fn result(&self, thread: Id<Thread>) -> Option<Result<Registers, Error>> {
        let thread = self.kernel.threads.get(thread)?;
        let is_done =
            matches!(thread.state, State::Runnable) && !thread.special.contains(Special::LONG);
        is_done.then(|| match Error::from_code(thread.regs.rax) {
            None => Ok(thread.regs),
            Some(error) => Err(error),
        })
    }

    /// Makes a runnable thread the running one, whatever its priority: on the CPU that runs it already, or
    /// on the one that acts.
    pub(super) fn run(&mut self, id: Id<Thread>) {
        let kernel = &mut self.kernel;
        let thread = kernel.threads.get(id).expect("a live thread");
        let (state, cpu) = (thread.state, usize::from(thread.cpu));
        assert!(
            matches!(state, State::Runnable),
            "{id:?} cannot run: {state:?}"
        );
        if let Some(cpu) = kernel.cpu_of(id) {
            return kernel.enter(cpu);
        }
        let queue = &mut kernel.cpus[cpu].run_queue;
        queue.remove(&mut kernel.threads, id);
        if let Some(previous) = kernel.current()
            && kernel
                .threads
                .get(previous)
                .is_some_and(|t| matches!(t.state, State::Runnable))
        {
            let queue = &mut kernel.cpus.here_mut().run_queue;
            queue.push_back(&mut kernel.threads, previous);
        }
        kernel.set_current(Some(id));
        kernel.set_idle(false);
    }

    pub(super) fn set_words(&mut self, thread: Id<Thread>, words: [u64; 4]) {
        self.kernel
            .threads
            .get_mut(thread)
            .unwrap()
            .regs
            .set_words(words);
    }

    pub(super) fn install(&mut self, to: Program, object: Object, rights: Rights) -> Handle {
        self.kernel.install(to.space, object, rights, 0).unwrap()
    }

    /// An endpoint of `server`, and a handle of `client`'s with this badge to send to it.
    pub(super) fn service(
        &mut self,
        server: Program,
        client: Program,
        badge: u64,
    ) -> (Handle, Handle) {
        let made = self.ok(server, Call::EndpointCreate, Handle::NONE, [0; 6]);
        let receive = Handle(made.rdi as u32);
        let object = self
            .kernel
            .spaces
            .get(server.space)
            .unwrap()
            .handles
            .get(receive)
            .unwrap();
        let rights = Rights::SEND | Rights::NOTIFY | Rights::COPY;
        let send = self
            .kernel
            .install(client.space, object.object, rights, badge)
            .unwrap();
        (receive, send)
    }

    pub(super) fn read(&self, program: Program, addr: u64, len: usize) -> Vec<u8> {
        let table = &self.kernel.spaces.get(program.space).unwrap().table;
        let mut bytes = vec![0; len];
        vm::read_user(self.kernel.mm, table, addr, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn write(&self, program: Program, addr: u64, bytes: &[u8]) {
        let table = &self.kernel.spaces.get(program.space).unwrap().table;
        vm::write_user(self.kernel.mm, table, addr, bytes).unwrap();
    }

    pub(super) fn free(&self) -> u64 {
        let mm = self.kernel.mm;
        while !vm::reap(mm) {}
        mm.frames.free_count() + mm.counts.nodes()
    }

    /// Ends every program and checks that no frame was lost.
    pub(super) fn finish(&mut self) {
        assert_eq!(self.kernel.audit(), Ok(()));
        while let Some(space) = self.kernel.spaces.next_id(0) {
            self.kernel.kill_space(space);
        }
        assert_eq!(self.kernel.threads.len(), 0, "threads left over");
        assert_eq!(self.kernel.endpoints.len(), 0, "endpoints left over");
        for cpu in self.kernel.cpus.online() {
            self.kernel.enter(cpu);
            assert!(self.kernel.current().is_none(), "CPU {cpu} runs the dead");
            assert!(self.kernel.cpus.here().run_queue.highest().is_none());
            assert!(self.kernel.next_deadline().is_none());
        }
        assert_eq!(self.free(), self.booted_free, "frames lost");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`; the kernel is not used any more.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

pub(super) fn kind(regs: &Registers) -> MessageKind {
    Tag(regs.rsi).kind()
}
