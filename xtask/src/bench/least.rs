//! The least memory with which the system is of use.

use std::time::Duration;

use anyhow::{Result, bail};

use super::guest::Guest;
use super::reading::Reading;

/// The name of the figure.
pub(super) const NAME: &str = "least_memory";

/// More than enough, in MiB.
const ENOUGH: u64 = 64;

/// A machine that takes longer is out of memory. Eight CPUs take turns at waiting until all are
/// started: tens of seconds on a busy host.
const LIMIT: Duration = Duration::from_secs(90);

/// The least memory in MiB with which the shell comes up and runs a program.
pub(super) fn least_memory(guest: &Guest) -> Result<Reading> {
    let suffices = |mib: u64| -> Result<bool> {
        let output = guest.shell(&format!("{mib}M"), "hello\nexit\n", LIMIT)?;
        Ok(output.is_some_and(|output| output.contains("hello from process")))
    };
    if !suffices(ENOUGH)? {
        bail!("the shell does not come up with {ENOUGH} MiB");
    }
    Ok(Reading::once(NAME, least(1, ENOUGH, suffices)?))
}

/// The least number in `low..=high` that suffices, where `high` does, and so does each above one
/// that does.
fn least(mut low: u64, mut high: u64, suffices: impl Fn(u64) -> Result<bool>) -> Result<u64> {
    while low < high {
        let middle = low.midpoint(high);
        if suffices(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_found() {
        for wanted in 1..=20 {
            let found = least(1, 20, |number| Ok(number >= wanted)).unwrap();
            assert_eq!(found, wanted);
        }
    }
}
