//! What operations cost when the baseline was made, to notice what becomes dearer.

use std::collections::BTreeMap;
use std::fmt;

use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::reference::folder;
use super::rows::Row;
use super::table::grouped;
use crate::machine::QEMU;
use crate::workspace::stdout_of;

/// How much dearer an operation may become, as a share.
const TOLERANCE: f64 = 0.03;

/// What operations cost, and with which tools: another compiler makes other instructions, and another
/// emulator may count them differently.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    tools: String,
    operations: BTreeMap<String, f64>,
}

/// What became of the operations since.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    /// The baseline's tools, if these are others.
    other_tools: Option<String>,
    dearer: Vec<Change>,
    cheaper: Vec<Change>,
    missing: Vec<String>,
    added: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Change {
    name: String,
    was: f64,
    is: f64,
}

impl Baseline {
    /// The values of these rows, measured with these tools.
    pub(super) fn of(tools: &str, rows: &[Row]) -> Baseline {
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        Baseline {
            tools: tools.to_owned(),
            operations: rows
                .iter()
                .map(|row| (row.name.clone(), rounded(row.value)))
                .collect(),
        }
    }

    /// Reads the baseline in the tree.
    pub(super) fn read() -> Result<Baseline> {
        let path = folder().join("baseline.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; `cargo xtask bench --update-baseline` makes one",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
    }

    /// Writes the baseline; one that is not of all operations keeps what was there of the others.
    pub(super) fn write(mut self, whole: bool) -> Result<()> {
        if !whole {
            let mut operations = Self::read().map(|old| old.operations).unwrap_or_default();
            operations.append(&mut self.operations);
            self.operations = operations;
        }
        let text = serde_json::to_string_pretty(&self)? + "\n";
        let path = folder().join("baseline.json");
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Compares; operations that are gone count only if the rows are all there are.
    pub(super) fn compare(&self, tools: &str, rows: &[Row], whole: bool) -> Comparison {
        let mut comparison = Comparison {
            other_tools: (self.tools != tools).then(|| self.tools.clone()),
            ..Comparison::default()
        };
        for row in rows {
            let Some(&was) = self.operations.get(&row.name) else {
                comparison.added.push(row.name.clone());
                continue;
            };
            let change = Change {
                name: row.name.clone(),
                was,
                is: row.value,
            };
            if row.value > was * (1.0 + TOLERANCE) {
                comparison.dearer.push(change);
            } else if row.value < was * (1.0 - TOLERANCE) {
                comparison.cheaper.push(change);
            }
        }
        if whole {
            let is_gone = |name: &&String| rows.iter().all(|row| row.name != **name);
            comparison.missing = self.operations.keys().filter(is_gone).cloned().collect();
        }
        comparison
    }
}

impl Comparison {
    /// Whether nothing is dearer, and nothing is gone. What is dearer with other tools says nothing
    /// about the system, and is only shown.
    pub(super) fn is_well(&self) -> bool {
        (self.dearer.is_empty() || self.other_tools.is_some()) && self.missing.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.dearer {
            writeln!(f, "dearer:  {change}")?;
        }
        for name in &self.missing {
            writeln!(f, "missing: {name}")?;
        }
        for change in &self.cheaper {
            writeln!(f, "cheaper: {change}")?;
        }
        for name in &self.added {
            writeln!(f, "not in the baseline: {name}")?;
        }
        if !(self.cheaper.is_empty() && self.added.is_empty()) {
            writeln!(f, "`cargo xtask bench --update-baseline` takes these in")?;
        }
        if let Some(tools) = &self.other_tools {
            writeln!(
                f,
                "the baseline was made with other tools, so dearer operations are no failure: {tools}"
            )?;
        }
        let (dearer, missing) = (self.dearer.len(), self.missing.len());
        write!(
            f,
            "baseline: {dearer} operations are dearer by more than 3 %, {missing} are missing"
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { name, was, is } = self;
        let percent = (is / was - 1.0) * 100.0;
        let (was, is) = (grouped(*was), grouped(*is));
        write!(f, "{name}: {was} -> {is} ({percent:+.1} %)")
    }
}

/// The tools that the figures depend on.
pub(super) fn tools() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let [rustc, qemu] = [Command::new(rustc), Command::new(QEMU)].map(|mut command| {
        let output = stdout_of(command.arg("--version"))?;
        let text = String::from_utf8_lossy(&output);
        anyhow::Ok(text.lines().next().unwrap_or("").to_owned())
    });
    Ok(format!("{}; {}", rustc?, qemu?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::of;

    #[test]
    fn three_percent_are_let_pass() {
        let baseline = Baseline::of("x", &of(&[("a", 1000), ("b", 1000), ("c", 1000)]));
        let comparison = baseline.compare("x", &of(&[("a", 1030), ("b", 1031), ("c", 900)]), true);
        assert!(!comparison.is_well());
        let text = comparison.to_string();
        assert!(text.contains("dearer:  b: 1,000 -> 1,031 (+3.1 %)"));
        assert!(text.contains("cheaper: c"));
        assert!(!text.contains("a: "));
    }

    #[test]
    fn other_tools_make_other_instructions() {
        let baseline = Baseline::of("x", &of(&[("a", 1000)]));
        let comparison = baseline.compare("y", &of(&[("a", 2000)]), true);
        assert!(comparison.is_well());
        assert!(comparison.to_string().contains("other tools"));
    }

    #[test]
    fn operations_do_not_vanish_unnoticed() {
        let baseline = Baseline::of("x", &of(&[("a", 1), ("b", 1)]));
        assert!(!baseline.compare("x", &of(&[("a", 1)]), true).is_well());
        assert!(baseline.compare("x", &of(&[("a", 1)]), false).is_well());
        assert!(
            baseline
                .compare("x", &of(&[("a", 1), ("b", 1), ("c", 1)]), true)
                .is_well()
        );
    }
}
