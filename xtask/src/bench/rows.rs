//! A figure beside what it is measured against.

use super::reading::Reading;
use super::reference::Reference;

/// What counts unless the reference says otherwise.
const INSTRUCTIONS: &str = "instructions";

/// Messages of N pages, which have a cost for each page.
const MESSAGES: [&str; 4] = ["send_cow", "send_cow_fresh", "send_move", "send_copy"];

/// What stands at the end of the table, in this order.
const LAST: [&str; 10] = [
    "thread_create_join",
    "spawn_wait",
    "fork_exec_wait",
    "fork_call",
    "fork_exit_wait",
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
    pub(super) goal: Option<u64>,
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
        self.goal.map(|goal| self.value <= goal as f64)
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
    for reading in readings {
        let Some((family, nr_pages)) = reading.name.split_once('/') else {
            continue;
        };
        if !MESSAGES.contains(&family) {
            continue;
        }
        if let Ok(pages @ 1..) = nr_pages.parse::<u64>() {
            let per_page = reading.median as f64 / pages as f64;
            let name = format!("{family}_per_page/{nr_pages}");
            rows.push(row(&name, per_page, INSTRUCTIONS, reference));
        }
    }
    if let Some(stretch) = worst_irq_off(readings) {
        rows.push(row("worst_irq_off", stretch, INSTRUCTIONS, reference));
    }
    rows.sort_by_key(|row| section(&row.name));
    rows
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
