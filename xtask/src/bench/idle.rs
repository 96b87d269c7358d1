//! What it costs that there are other CPUs, which are idle.
//!
//! An operation of one thread, or of threads that call each other, stays on its CPU and shall not be dearer. What
//! starts a thread has it start on an idle CPU: that is told to look, wakes up, takes the kernel from the other, and does it
//! again in the end. The counter counts what both do, though they do it at the same time; so that is shown apart.
//!
//! The stacks of other CPUs also move the frames that an operation uses, and what it costs may depend on where they lie. So what is dearer
//! is looked at again on machines with another amount of memory.

use std::fmt;

use super::guest::MORE_MIB;
use super::rows::Row;
use super::table::grouped;

/// How much dearer an operation may be, as a share.
const TOLERANCE: f64 = 0.03;

/// Operations that start threads, by the beginnings of their names.
const STARTING: [&str; 4] = [
    "thread_create_join",
    "spawn_wait",
    "fork_",
    "generation_fault",
];

/// Rows that have another reason to differ: CPUs are started one by one, and have stacks; and an interrupt comes late
/// when another CPU has its turn.
const OTHERS: [&str; 5] = [
    "boot_to_",
    "least_memory",
    "shootdown",
    "irq_late",
    "worst_irq_off",
];

/// What operations cost on one CPU and on several.
#[derive(Debug, PartialEq)]
pub(super) struct Comparison {
    smp: u32,
    nr_rows: usize,
    dearer: Vec<Change>,
    /// What was dearer once, and was not when it was looked at again.
    dearer_once: Vec<Change>,
    starting: Vec<Change>,
}

#[derive(Debug, PartialEq)]
struct Change {
    name: String,
    alone: f64,
    among: f64,
}

impl Comparison {
    /// Compares what is in both: rows of a machine with one CPU, and of one with so many.
    pub(super) fn of(alone: &[Row], among: &[Row], smp: u32) -> Comparison {
        let mut comparison = Comparison {
            smp,
            nr_rows: 0,
            dearer: Vec::new(),
            dearer_once: Vec::new(),
            starting: Vec::new(),
        };
        for row in alone.iter().filter(|row| !begins(&row.name, &OTHERS)) {
            let Some(other) = among.iter().find(|other| other.name == row.name) else {
                continue;
            };
            let change = Change {
                name: row.name.clone(),
                alone: row.value,
                among: other.value,
            };
            comparison.nr_rows += 1;
            if begins(&row.name, &STARTING) {
                comparison.starting.push(change);
            } else if change.among > change.alone * (1.0 + TOLERANCE) {
                comparison.dearer.push(change);
            }
        }
        comparison
    }

    /// Takes into account what another comparison says of what is dearer by this one.
    pub(super) fn look_again(&mut self, again: &Comparison) {
        let is_dearer =
            |change: &Change| again.dearer.iter().any(|other| other.name == change.name);
        let (dearer, once): (Vec<_>, Vec<_>) = std::mem::take(&mut self.dearer)
            .into_iter()
            .partition(is_dearer);
        self.dearer = dearer;
        self.dearer_once.extend(once);
    }

    /// Whether nothing that stays on its CPU is dearer.
    pub(super) fn is_well(&self) -> bool {
        self.dearer.is_empty()
    }
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|with| name.starts_with(with))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = self.smp - 1;
        writeln!(
            f,
            "Beside a machine with one CPU, with {idle} more that are idle:"
        )?;
        for change in &self.dearer {
            writeln!(f, "dearer:   {change}")?;
        }
        for change in &self.dearer_once {
            writeln!(f, "dearer, but not with {MORE_MIB} MiB more: {change}")?;
        }
        for change in &self.starting {
            writeln!(f, "starts elsewhere: {change}")?;
        }
        let staying = self.nr_rows - self.starting.len();
        let dearer = self.dearer.len();
        write!(
            f,
            "{dearer} of {staying} operations that stay on their CPU are dearer by more than 3 %"
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.among / self.alone - 1.0) * 100.0;
        let [alone, among] = [self.alone, self.among].map(grouped);
        write!(f, "{}: {alone} -> {among} ({percent:+.1} %)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::of;

    #[test]
    fn three_percent_are_let_pass_to_what_stays() {
        let alone = of(&[("map", 1000), ("unmap", 1000), ("boot_to_init", 1)]);
        let among = of(&[("map", 1030), ("unmap", 1031), ("boot_to_init", 9)]);
        let comparison = Comparison::of(&alone, &among, 8);
        assert!(!comparison.is_well());
        let text = comparison.to_string();
        assert!(text.contains("with 7 more"));
        assert!(text.contains("dearer:   unmap: 1,000 -> 1,031 (+3.1 %)"));
        assert!(text.contains("1 of 2 operations"));
        assert!(!text.contains("boot"));
    }

    #[test]
    fn what_starts_elsewhere_is_shown_apart() {
        let alone = of(&[("fork_exit_wait/1", 1000)]);
        let among = of(&[("fork_exit_wait/1", 1100)]);
        let comparison = Comparison::of(&alone, &among, 2);
        assert!(comparison.is_well());
        let text = comparison.to_string();
        assert!(text.contains("starts elsewhere: fork_exit_wait/1: 1,000 -> 1,100 (+10.0 %)"));
        assert!(text.contains("0 of 0 operations"));
    }

    #[test]
    fn what_is_dearer_once_is_so_because_of_where_frames_lie() {
        let alone = of(&[("map", 1000), ("unmap", 1000)]);
        let among = of(&[("map", 1100), ("unmap", 1100)]);
        let elsewhere = of(&[("map", 1000), ("unmap", 1100)]);
        let mut comparison = Comparison::of(&alone, &among, 8);
        comparison.look_again(&Comparison::of(&alone, &elsewhere, 8));
        assert!(!comparison.is_well());
        let text = comparison.to_string();
        assert!(text.contains("dearer:   unmap: "));
        assert!(text.contains("dearer, but not with 4 MiB more: map: "));
        comparison.look_again(&Comparison::of(&alone, &alone, 8));
        assert!(comparison.is_well());
    }
}
