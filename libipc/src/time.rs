//! Time: since the machine was started, by the kernel's clock.

use core::ops::Add;
pub use core::time::Duration;

use abi::{Call, Error, Handle};

use crate::object::clock;
use crate::raw;

/// A time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The present.
    ///
    /// # Errors
    /// Those of the call `info`: none that a program can bring about.
    pub fn now() -> Result<Self, Error> {
        clock().map(|(ns, _)| Instant(ns))
    }

    /// So many nanoseconds after the machine was started.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns)
    }

    /// How many nanoseconds after the machine was started.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after another time; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// As a call wants it, where 0 would mean that there is no such time.
    pub(crate) fn to_deadline(self) -> u64 {
        self.0.max(1)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The end of all time is 584 years after the start.
    fn add(self, duration: Duration) -> Self {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration in nanoseconds, or as many as there can be.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits, and takes no CPU meanwhile.
pub fn sleep_until(time: Instant) {
    // The call knows no errors.
    let _ = raw::checked(
        Call::Yield,
        Handle::NONE,
        [time.to_deadline(), 0, 0, 0, 0, 0],
    );
}

/// The same for so long from here on.
///
/// # Errors
/// As for [`Instant::now`].
pub fn sleep(duration: Duration) -> Result<(), Error> {
    sleep_until(Instant::now()? + duration);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ends_and_does_not_begin_again() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(1), Instant::from_nanos(u64::MAX));
        assert_eq!(late + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(3).since(late), Duration::ZERO);
        assert_eq!(
            late.since(Instant::from_nanos(0)),
            Duration::from_nanos(u64::MAX - 1)
        );
    }

    #[test]
    fn the_first_instant_is_a_deadline_too() {
        assert_eq!(Instant::from_nanos(0).to_deadline(), 1);
    }
}
