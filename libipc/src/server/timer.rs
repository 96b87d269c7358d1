//! Time in a server's loop: a deadline arrives as a notification.

use abi::{Error, Rights};

use crate::object::{Endpoint, clock};
use crate::time::{Duration, Instant, nanos};

/// Raises bits at an endpoint when a deadline has come: a service hears of it as `notification`.
///
/// A thread has one timer: setting another one, or this one again, takes back what was set before. It ends with the
/// thread that has set it.
#[derive(Debug)]
pub struct Timer(Endpoint);

impl Timer {
    /// A timer that raises these bits.
    ///
    /// # Errors
    /// Those of the call `handle_copy`.
    pub fn new(endpoint: &Endpoint, bits: u64) -> Result<Self, Error> {
        endpoint.copy(Rights::NOTIFY, bits).map(Timer)
    }

    /// Sets it to a time of the [clock], in nanoseconds.
    ///
    /// # Errors
    /// Those of the call `timer`.
    pub fn at(&self, deadline_ns: u64) -> Result<(), Error> {
        // 0 would take it back.
        self.0.timer(Instant::from_nanos(deadline_ns).to_deadline())
    }

    /// Sets it to so many nanoseconds from here on.
    ///
    /// # Errors
    /// Those of the calls `info` and `timer`.
    pub fn after(&self, ns: u64) -> Result<(), Error> {
        let (now, _) = clock()?;
        self.at(now.saturating_add(ns))
    }

    /// Takes back what was set.
    ///
    /// # Errors
    /// Those of the call `timer`.
    pub fn cancel(&self) -> Result<(), Error> {
        self.0.timer(0)
    }
}

/// Raises bits at an endpoint again and again.
///
/// It keeps to its beat: times are counted from the first, however late they are noticed.
#[derive(Debug)]
pub struct Interval {
    timer: Timer,
    period_ns: u64,
    next_ns: u64,
}

impl Interval {
    /// Begins now, and raises these bits after each period.
    ///
    /// # Errors
    /// `BadArgument`: the period is shorter than a nanosecond. Those of the calls `handle_copy`, `info` and `timer`.
    pub fn new(endpoint: &Endpoint, bits: u64, period: Duration) -> Result<Self, Error> {
        let now = Instant::now()?;
        if period.is_zero() {
            return Err(Error::BadArgument);
        }
        let interval = Interval {
            timer: Timer::new(endpoint, bits)?,
            period_ns: nanos(period),
            next_ns: (now + period).as_nanos(),
        };
        interval.timer.at(interval.next_ns)?;
        Ok(interval)
    }

    /// Goes on, after its bits were raised. Returns how many periods have come to an end since the last time: more than
    /// one if that was noticed late.
    ///
    /// # Errors
    /// Those of the calls `info` and `timer`.
    pub fn go_on(&mut self) -> Result<u64, Error> {
        let now_ns = Instant::now()?.as_nanos();
        let nr_periods = nr_ended(self.next_ns, self.period_ns, now_ns);
        let later_ns = nr_periods.saturating_mul(self.period_ns);
        self.next_ns = self.next_ns.saturating_add(later_ns);
        self.timer.at(self.next_ns)?;
        Ok(nr_periods)
    }
}

/// How many periods have ended, the first of them at `next_ns`.
fn nr_ended(next_ns: u64, period_ns: u64, now_ns: u64) -> u64 {
    match now_ns.checked_sub(next_ns) {
        Some(late_ns) => late_ns / period_ns + 1,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_that_nobody_noticed_are_counted() {
        assert_eq!(nr_ended(100, 10, 99), 0);
        assert_eq!(nr_ended(100, 10, 100), 1);
        assert_eq!(nr_ended(100, 10, 109), 1);
        assert_eq!(nr_ended(100, 10, 110), 2);
        assert_eq!(nr_ended(100, 10, 1_000), 91);
    }
}
