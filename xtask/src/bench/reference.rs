//! What the figures are set beside: other systems' figures, and the goals.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace::root;

/// `xtask/bench/peers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    /// Where the figures come from, by system.
    pub(super) peers: Peers,
    operation: BTreeMap<String, Entry>,
    /// What the plots show besides the operations.
    #[serde(rename = "curve")]
    pub(super) curves: Vec<Curve>,
}

/// The systems.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peers {
    pub(super) sel4: Peer,
    pub(super) linux: Peer,
}

/// A system: what was measured, and how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) label: String,
    pub(super) version: String,
    pub(super) counted: String,
}

/// What is known of an operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Instructions, if not told otherwise.
    pub(super) unit: Option<String>,
    /// At most so many.
    pub(super) goal: Option<f64>,
    pub(super) sel4: Option<u64>,
    pub(super) linux: Option<u64>,
    /// How a peer's operation differs.
    pub(super) note: Option<String>,
}

/// A line of a plot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Curve {
    pub(super) plot: String,
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Reference {
    /// Reads the file.
    pub(super) fn read() -> Result<Reference> {
        let path = folder().join("peers.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Reference::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Reference> {
        Ok(toml::from_str(text)?)
    }

    /// What is known of the operation with this name.
    pub(super) fn of(&self, name: &str) -> Entry {
        self.operation.get(name).cloned().unwrap_or_default()
    }
}

/// Where the data files of this task are.
pub(super) fn folder() -> PathBuf {
    root().join("xtask/bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_the_tree_is_good() {
        let reference = Reference::read().unwrap();
        let entry = reference.of("null_syscall");
        assert_eq!(
            (entry.goal, entry.sel4, entry.linux),
            (Some(50.0), Some(95), Some(311))
        );
        assert_eq!(reference.of("no such operation"), Entry::default());
        for curve in &reference.curves {
            assert!(curve.points.iter().all(|&(_, cost)| cost > 0.0));
        }
    }

    #[test]
    fn misspelt_keys_are_errors() {
        let text = include_str!("../../bench/peers.toml");
        assert!(Reference::parse(text).is_ok());
        assert!(Reference::parse(&text.replace("goal", "gaol")).is_err());
    }
}
