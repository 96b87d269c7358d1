//! A figure beside what it is measured against.

use super::reading::Reading;
use super::reference::Reference;

/// What counts unless the reference says otherwise.
const INSTRUCTIONS: &str = "instructions";

/// The unit of one operation's cost in relation to another one's.
pub(super) const TIMES: &str = "times";

/// Operations on N MiB that have a cost for each page.
const BY_THE_MIB: [&str; 1] = ["rewrite"];

/// Pages in a MiB.
const MIB_PAGES: u64 = 256;

/// One operation's cost in relation to another one's: name, which, to which.
const RATIOS: [(&str, &str, &str); 2] = [
    (
        "fork_exit_wait_256_over_1",
        "fork_exit_wait/256",
        "fork_exit_wait/1",
    ),
    (
        "generation_fault_ratio",
        "generation_fault/last",
        "generation_fault/first",
    ),
];

/// Messages of N pages, which have a cost for each page.
const MESSAGES: [&str; 4] = ["send_cow", "send_cow_fresh", "send_move", "send_copy"];

/// What stands at the end of the table, in this order.
const LAST: [&str; 20] = [
    "send_cow_2MiB",
    "send_cow_32MiB",
    "send_cow_1GiB",
    "reserve_1TiB",
    "thread_create_join",
    "spawn_wait",
    "fork_exec_wait",
    "fork_call",
    "fork_exit_wait",
    "fork_exit_wait_256_over_1",
    "first_write",
    "rewrite",
    "rewrite_per_page",
    "generation_fault",
    "generation_fault_ratio",
    "irq_late",
    "worst_irq_off",
    "boot_to_init",
    "boot_to_shell",
    "least_memory",
];

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: String,
    pub(super) sel4: Option<u64>,
    pub(super) linux: Option<u64>,
    pub(super) goal: Option<f64>,
    pub(super) note: Option<String>,
}

impl Row {
    /// The value in relation to the cheaper peer's: below 1 is better.
    pub(super) fn ratio(&self) -> Option<f64> {
        let best = [self.sel4, self.linux].into_iter().flatten().min()?;
        Some(self.value / best as f64)
    }

    /// Whether the goal is met, if there is one.
    pub(super) fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.value <= goal)
    }

    /// The number at the end of the name: `send_cow/16` has size 16.
    pub(super) fn size(&self, family: &str) -> Option<f64> {
        let (name, size) = self.name.split_once('/')?;
        (name == family).then(|| size.parse().ok()).flatten()
    }
}

/// The medians, messages of N pages with their cost for each page as well.
pub(super) fn rows(readings: &[Reading], reference: &Reference) -> Vec<Row> {
    let mut rows = Vec::new();
    for reading in readings {
        rows.push(row(
            &reading.name,
            reading.median as f64,
            INSTRUCTIONS,
            reference,
        ));
    }
    rows.extend(
        readings
            .iter()
            .filter_map(|reading| per_page(reading, reference)),
    );
    rows.extend(RATIOS.iter().filter_map(|&(name, of, to)| {
        let median = |name| Some(readings.iter().find(|reading| reading.name == name)?.median);
        let ratio = median(of)? as f64 / median(to)? as f64;
        Some(row(name, ratio, TIMES, reference))
    }));
    if let Some(stretch) = worst_irq_off(readings) {
        rows.push(row("worst_irq_off", stretch, INSTRUCTIONS, reference));
    }
    rows.sort_by_key(|row| section(&row.name));
    rows
}

/// What an operation on many pages costs for each of them.
fn per_page(reading: &Reading, reference: &Reference) -> Option<Row> {
    let (family, size) = reading.name.split_once('/')?;
    let size: u64 = size.parse().ok()?;
    let nr_pages = if MESSAGES.contains(&family) {
        size
    } else if BY_THE_MIB.contains(&family) {
        size * MIB_PAGES
    } else {
        return None;
    };
    let name = format!("{family}_per_page/{size}");
    let cost = reading.median as f64 / nr_pages as f64;
    (nr_pages > 0).then(|| row(&name, cost, INSTRUCTIONS, reference))
}

/// The longest that interrupts were kept off: how late the latest was, beyond one in user mode.
fn worst_irq_off(readings: &[Reading]) -> Option<f64> {
    let late = readings
        .iter()
        .filter(|reading| reading.name.starts_with("irq_late/"));
    let worst = late.clone().map(|reading| reading.max).max()?;
    let usual = late
        .clone()
        .find(|reading| reading.name == "irq_late/user")?;
    Some(worst.saturating_sub(usual.median) as f64)
}

fn row(name: &str, value: f64, unit: &str, reference: &Reference) -> Row {
    let entry = reference.of(name);
    Row {
        name: name.to_owned(),
        value,
        unit: entry.unit.unwrap_or_else(|| unit.to_owned()),
        sel4: entry.sel4,
        linux: entry.linux,
        goal: entry.goal,
        note: entry.note,
    }
}

/// Puts what belongs together side by side; within a section the order stays.
fn section(name: &str) -> usize {
    let family = name.split('/').next().unwrap_or(name);
    let message = family.strip_suffix("_per_page").unwrap_or(family);
    let place = |families: &[&str], family| families.iter().position(|&other| other == family);
    match (place(&MESSAGES, message), place(&LAST, family)) {
        (Some(at), _) => 1 + 2 * at + usize::from(message != family),
        (None, Some(at)) => 100 + at,
        (None, None) if family.starts_with("send_") => 99,
        (None, None) => 0,
    }
}

/// The rows of such readings, for tests.
#[cfg(test)]
pub(super) fn of(readings: &[(&str, u64)]) -> Vec<Row> {
    let once = |&(name, value): &(&str, u64)| Reading::once(name, value);
    let readings: Vec<_> = readings.iter().map(once).collect();
    rows(&readings, &Reference::read().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference::read().unwrap()
    }

    #[test]
    fn messages_have_a_cost_for_each_page() {
        let readings = [
            Reading::once("send_cow/256", 512),
            Reading::once("map", 300),
        ];
        let rows = rows(&readings, &reference());
        let names: Vec<_> = rows.iter().map(|row| (&row.name[..], row.value)).collect();
        let expected = [
            ("map", 300.0),
            ("send_cow/256", 512.0),
            ("send_cow_per_page/256", 2.0),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn memory_has_a_cost_for_each_page() {
        let rows = rows(&[Reading::once("rewrite/2", 51_200)], &reference());
        assert_eq!(
            (&rows[1].name[..], rows[1].value),
            ("rewrite_per_page/2", 100.0)
        );
    }

    #[test]
    fn costs_are_set_in_relation() {
        let readings = [
            Reading::once("fork_exit_wait/1", 200),
            Reading::once("fork_exit_wait/256", 230),
        ];
        let row = rows(&readings, &reference()).pop().unwrap();
        assert_eq!(row.name, "fork_exit_wait_256_over_1");
        assert_eq!((row.value, &row.unit[..]), (1.15, TIMES));
        assert_eq!(row.met(), Some(true));
        // One of the two alone says nothing.
        assert_eq!(rows(&readings[..1], &reference()).len(), 1);
    }

    #[test]
    fn the_latest_interrupt_is_the_worst() {
        let readings = [
            Reading::once("irq_late/user", 100),
            Reading::once("irq_late/fork_256", 5100),
            Reading::once("irq_late/exit_256", 2100),
        ];
        let rows = rows(&readings, &reference());
        let worst = rows.iter().find(|row| row.name == "worst_irq_off");
        assert_eq!(worst.map(|row| row.value), Some(5000.0));
    }

    #[test]
    fn rows_are_judged() {
        let rows = rows(&[Reading::once("null_syscall", 190)], &reference());
        assert_eq!(rows[0].ratio(), Some(2.0));
        assert_eq!(rows[0].met(), Some(false));
        assert_eq!(rows[0].unit, "instructions");
        let row = row("boot_to_shell", 1.0, "x", &reference());
        assert_eq!((row.ratio(), row.met()), (None, None));
    }

    #[test]
    fn names_end_in_sizes() {
        let row = row("send_cow/16", 1.0, "x", &reference());
        assert_eq!(row.size("send_cow"), Some(16.0));
        assert_eq!(row.size("send"), None);
    }
}
