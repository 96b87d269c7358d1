//! Segments: the few that long mode still wants, in the order that `sysret` wants.
//!
//! | selector | segment |
//! | --- | --- |
//! | `0x08` | kernel code |
//! | `0x10` | kernel data |
//! | `0x1b` | user data |
//! | `0x23` | user code |
//! | `0x28` | task state: the stacks to switch to |

use core::{cell::UnsafeCell, mem::offset_of};

use kernel::object::Registers;
use x86_64::{
    PrivilegeLevel, VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, FS, GS, SS, Segment},
        tables::load_tss,
    },
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        tss::TaskStateSegment,
    },
};

use super::percpu::SPECIAL_STACKS;

/// Selector of the kernel's code segment.
pub const KERNEL_CS: u16 = 0x08;
const KERNEL_SS: u16 = 0x10;

/// Which of the task state's stacks a vector uses, counted from 1; 0 is none of them.
pub const fn special_stack(vector: usize) -> u8 {
    match vector {
        8 => 1,
        2 => 2,
        18 => 3,
        _ => 0,
    }
}

/// One CPU's descriptor table and task state.
pub struct Segments {
    table: UnsafeCell<GlobalDescriptorTable>,
    task: UnsafeCell<TaskStateSegment>,
}

impl Segments {
    /// Where the stack for entries from user mode is set.
    pub const ENTRY_STACK: usize =
        offset_of!(Self, task) + offset_of!(TaskStateSegment, privilege_stack_table);

    /// Empty ones.
    pub const fn new() -> Self {
        Self {
            table: UnsafeCell::new(GlobalDescriptorTable::new()),
            task: UnsafeCell::new(TaskStateSegment::new()),
        }
    }

    /// Fills the tables and makes this CPU use them.
    pub fn load(&'static self, special_tops: [u64; SPECIAL_STACKS]) {
        // SAFETY: only this CPU uses the tables, and it does not use them before `load`.
        let (table, task) = unsafe { (&mut *self.table.get(), &mut *self.task.get()) };
        let mut stacks = task.interrupt_stack_table;
        for (stack, top) in stacks.iter_mut().zip(special_tops) {
            *stack = VirtAddr::new(top);
        }
        task.interrupt_stack_table = stacks;
        let selectors = [
            Descriptor::kernel_code_segment(),
            Descriptor::kernel_data_segment(),
            Descriptor::user_data_segment(),
            Descriptor::user_code_segment(),
        ]
        .map(|descriptor| table.append(descriptor).0);
        let expected = [
            KERNEL_CS,
            KERNEL_SS,
            Registers::USER_SS as u16,
            Registers::USER_CS as u16,
        ];
        assert_eq!(selectors, expected, "the segments are in their places");
        let null = SegmentSelector::new(0, PrivilegeLevel::Ring0);
        // SAFETY: the tables are static; the selectors are those that were just made.
        unsafe {
            let task = table.append(Descriptor::tss_segment_unchecked(task));
            table.load_unsafe();
            CS::set_reg(SegmentSelector(KERNEL_CS));
            SS::set_reg(SegmentSelector(KERNEL_SS));
            DS::set_reg(null);
            ES::set_reg(null);
            FS::set_reg(null);
            GS::set_reg(null);
            load_tss(task);
        }
    }

    /// The stack that exceptions and interrupts from user mode push on.
    #[inline]
    pub fn entry_stack(&self) -> u64 {
        // SAFETY: only this CPU uses the task state, with interrupts off.
        unsafe { (*self.task.get()).privilege_stack_table[0].as_u64() }
    }
}
